"""What several test modules share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import browser  # noqa: F401
from support.wandb_server import WandbServer, environment

os.environ.pop("COLUMNS", None)  # set by pytest-xdist; processes started here would fold what they print
# Read when torch is imported: beside another process of tests a second thread is mostly waited for.
os.environ["OMP_NUM_THREADS"] = "1"
# Of processes with more threads: one that spins while it waits for another takes the core that the other needs.
os.environ["GOMP_SPINCOUNT"] = "100"

# What takes longest, so that no process of tests begins it when the others have ended.
FIRST = (
    *("tests/training/test_resume.py", "tests/report/test_certify.py", "tests/training/test_options.py"),
    *("tests/end_to_end/", "tests/test_docs.py", "tests/tracking/", "tests/launch/", "tests/training/"),
)


def pytest_collection_finish() -> None:
    """Leave what is imported out of every later garbage collection: with torch, Lightning and Hydra one takes 0.2 s.

    Nor look through new objects after every 700 of them: composing makes thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long modules first; tests of a module stay together."""
    places = {item.nodeid: [item.nodeid.startswith(start) for start in (*FIRST, "")].index(True) for item in items}
    items.sort(key=lambda item: places[item.nodeid])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For many small operators: on a busy machine a second thread is mostly waited for."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    """A W&B server, and a client in this process and its children that knows no other."""
    import wandb

    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("WANDB_")]:
            patch.delenv(key)
        for key, value in environment(tmp_path_factory.mktemp("home"), server).items():
            patch.setenv(key, value)
        yield server
        wandb.teardown()  # the client keeps the server's address


@pytest.fixture
def server(module_server: WandbServer) -> Iterator[WandbServer]:
    """The server without faults; in the end nothing was asked that it does not know."""
    yield module_server
    module_server.fault = lambda kind, name: None
    module_server.start()
    assert module_server.unknown == []


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trial of two ranks on this machine that nothing happened to."""
    from support.cluster_runs import LONG, directory
    from support.commands import run

    root = tmp_path_factory.mktemp("undisturbed") / "outputs"
    alone = ("trainer.devices=2", "cluster.oversubscribe=true", "cluster.threads_per_process=1")
    done = run(*LONG, *alone, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory(root)
