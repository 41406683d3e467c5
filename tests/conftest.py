"""What several test modules share."""

import os
from collections.abc import Iterator

import pytest
from wandb_server import WandbServer, environment


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
