"""Trials on a real Ray cluster of several nodes, which the tests start on this machine; and what is refused beforehand."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import rows, run, start

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.launch import ray_cluster
from benchmarks.launch.trial_job import Outcome
from benchmarks.records.hardware import cores
from benchmarks.records.locks import RANKS, held
from run import main

installed = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install .[ray]"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="nodes on loopback addresses and /proc need Linux")
two_cores = pytest.mark.skipif(cores() < 2, reason="two ranks need two cores")
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_health_check_period_ms": "1000"}
HEAD = "127.0.0.2"  # Ray turns 127.0.0.1 into the machine's outside address
PORT = 6390
TINY = ("model=resnet", "logger=none", "recipe.epochs=2", "trainer.limit_train_batches=3")
LONG = ("model=resnet", "logger=none", "recipe.epochs=15", "trainer.limit_train_batches=4")
ONE_OF_FOUR_FAILS = ("-m", *TINY, "recipe.optimizer.lr=0.01,0.02,0.03,1e30")
TWO_RANKS = "trainer.devices=2"
ON_CLUSTER = ("cluster=ray", f"cluster.address={HEAD}:{PORT}")
LIKE_RAY = "cluster.threads_per_process=1"  # bits depend on it
COMPUTED = ("epoch", "step", "samples_seen", "train_macs", "train_flops", "lr")  # of a history, and metrics
WITHIN_S = 120


# Without a cluster


class Submitted(Exception):
    """A trial got past the refusals."""


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> ray_cluster.RayExecutor:
    """Of a cluster with two nodes of 2 and 4 cores, the second with a GPU; it submits nothing."""

    def submit(*arguments: Any, **named: Any) -> Any:
        raise Submitted

    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    fake = SimpleNamespace(
        init=lambda **named: None,
        nodes=lambda: nodes,
        get_runtime_context=lambda: SimpleNamespace(gcs_address=""),
        remote=lambda function: SimpleNamespace(options=submit),
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_cluster, "_silence", lambda address: None)
    return ray_cluster.RayExecutor({"retries": 0}, address=None, num_cpus=None, object_store_memory=100_000_000)


def trial(*overrides: str, root: Path) -> Trial:
    [only] = expand([*overrides, "cluster=ray", f"output_root={root}"], multirun=False)
    assert isinstance(only, Trial)
    return only


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.num_nodes=2"], ["trainer.num_nodes=2", "cluster=slurm", "cluster=hosts"]),
        (["trainer.devices=8", "trainer.accelerator=cpu"], ["takes 8 CPUs", "the Ray cluster's 2 has 4"]),
        (["cluster.cpus_per_rank=5", "trainer.accelerator=cpu"], ["takes 5 CPUs", "has 4"]),
        (["trainer.devices=2", "trainer.accelerator=gpu"], ["takes 2 GPUs", "has 1"]),
        (["trainer.devices=2"], ["takes 2 GPUs", "has 1"]),
        (["trainer.devices=3"], ["cannot be divided among 3 processes"]),
    ],
)
def test_what_no_node_can_run_is_refused_with_the_numbers(
    executor: ray_cluster.RayExecutor, overrides: list[str], said: list[str], tmp_path: Path
) -> None:
    outcome = executor.start(trial(*overrides, root=tmp_path / "outputs"))
    assert isinstance(outcome, Outcome) and outcome.status == "refused"
    assert all(part in str(outcome.error) for part in said), outcome.error
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "overrides", [["trainer.devices=4", "trainer.accelerator=cpu"], ["trainer.accelerator=gpu"], []]
)
def test_what_a_node_can_run_is_submitted(
    executor: ray_cluster.RayExecutor, overrides: list[str], tmp_path: Path
) -> None:
    with pytest.raises(Submitted):
        executor.start(trial(*overrides, root=tmp_path / "outputs"))


class Cancelled(RuntimeError):
    pass


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ray_cluster.RayJob:
    """A trial that runs nowhere until it is cancelled, on a cluster whose nodes have gone; its record says it was running."""
    state = {"cancelled": False}

    def get(task: object) -> Outcome:
        raise Cancelled

    fake = SimpleNamespace(
        wait=lambda tasks, timeout: (tasks, []) if state["cancelled"] else ([], tasks),
        get=get,
        cancel=lambda task: state.update(cancelled=True),
        nodes=list,
        get_runtime_context=lambda: SimpleNamespace(gcs_address=""),
        exceptions=SimpleNamespace(RayError=Cancelled, WorkerCrashedError=KeyError, NodeDiedError=KeyError),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_cluster, "_silence", lambda address: None)
    waiting = trial("trainer.accelerator=cpu", root=tmp_path)
    waiting.directory.mkdir(parents=True)
    (waiting.directory / "record.json").write_text(json.dumps({"status": "running", "error": None, "finished": None}))
    return ray_cluster.RayJob(waiting, "task", ray_cluster.Cluster())


def ended(job: ray_cluster.RayJob) -> tuple[str, str, str]:
    """Outcome and what the record says, within a few polls."""
    outcome = next(outcome for outcome in (job.poll() for _ in range(3)) if outcome is not None)
    record = json.loads((job.directory / "record.json").read_text())
    return outcome.status, str(outcome.error), record["status"]


def test_a_trial_does_not_wait_for_ever_for_a_node(queued: ray_cluster.RayJob, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queued.poll() is None
    monkeypatch.setattr(ray_cluster, "NODES_S", 0)
    status, error, recorded = ended(queued)
    assert (status, recorded) == ("refused", "failed") and "has 0" in error


def test_a_dead_head_is_told(queued: ray_cluster.RayJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "ASK_S", 0)
    monkeypatch.setattr(ray_cluster, "SILENT_S", 0)
    assert queued.poll() is None
    monkeypatch.setattr(ray_cluster, "_silence", lambda address: "refused")
    assert ended(queued) == ("failed", "the head of the Ray cluster does not answer", "failed")


def test_without_ray_its_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["cluster=ray", f"output_root={tmp_path}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "pip install -e '.[ray]'" in line


class Web(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@installed
@linux
@pytest.mark.parametrize("kind", ["nobody", "silent", "web", "nonsense"])
def test_an_address_without_ray_is_told_in_time(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWER_S", 1)
    with socket.create_server((HEAD, 0)) as silent, HTTPServer((HEAD, 0), Web) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with socket.create_server((HEAD, 0)) as closed:
            ports = {"nobody": closed.getsockname()[1], "silent": silent.getsockname()[1], "web": web.server_port}
        address = f"{HEAD}:{ports[kind]}" if kind in ports else "the-head-node"
        began = time.monotonic()
        assert main(["cluster=ray", f"cluster.address={address}", f"output_root={tmp_path}"]) == 2
        assert time.monotonic() - began < 15
        web.shutdown()
    [line] = capsys.readouterr().err.splitlines()
    reasons = {"nobody": "refused", "silent": "timed out", "web": "something else", "nonsense": "host:port"}
    assert address in line and reasons[kind] in line


# On a cluster


def until(true: Callable[[], object], what: str, seconds: float = WITHIN_S) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts run.py; whatever is left of it afterwards is killed."""
    begun: list[subprocess.Popen[str]] = []

    def start_one(*arguments: str, root: Path) -> subprocess.Popen[str]:
        begun.append(start(*arguments, root=root))
        return begun[-1]

    yield start_one
    for process in begun:
        for pid in [*children(process.pid), *([process.pid] if process.poll() is None else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def trains(process: subprocess.Popen[str], root: Path, count: int) -> None:
    """Waits for a number of epochs."""
    until(lambda: process.poll() is not None or epochs(root) >= count, f"{count} epochs")
    assert process.poll() is None, process.communicate()


def children(pid: int) -> set[int]:
    """All descendants of a process, whose name Ray may cut within a character."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found |= {int(path.parent.name)} | children(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class RayNode:
    """One node of the cluster, stopped alone."""

    def __init__(self, address: str, cpus: int, logs: Path) -> None:
        where = (
            ["--head", f"--port={PORT}", "--include-dashboard=false"]
            if address == HEAD
            else [f"--address={HEAD}:{PORT}"]
        )
        self.log = logs / f"{address}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), "start", "--block", *where, f"--node-ip-address={address}",
                 f"--num-cpus={cpus}", "--object-store-memory=78643200", "--disable-usage-stats"],
                stdout=log, stderr=log, start_new_session=True, env=os.environ | RAY,
            )  # fmt: skip

    def wait(self) -> None:
        until(lambda: "Ray runtime started" in self.log.read_text(), f"a node in {self.log}")

    def lose(self, ranks_too: bool) -> None:
        """Kills the raylet, and with it its workers; or all that the node runs, as if the machine had gone."""
        started = children(self.process.pid)
        raylets = {pid for pid in started if Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() == "raylet"}
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none can see another go
            for pid in started if ranks_too else raylets:
                os.kill(pid, number)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        finally:
            for pid in children(self.process.pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def add_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], RayNode]]:
    """A head with one core; more nodes on demand."""
    logs = tmp_path_factory.mktemp("ray")
    nodes = [RayNode(HEAD, 1, logs)]

    def add(cpus: int) -> RayNode:
        nodes.append(RayNode(f"127.0.0.{len(nodes) + 2}", cpus, logs))
        return nodes[-1]

    try:
        nodes[0].wait()
        yield add
    finally:
        for node in reversed(nodes):
            node.stop()


@pytest.fixture(scope="module")
def second(add_node: Callable[[int], RayNode]) -> RayNode:
    """The only node where two ranks have room."""
    node = add_node(2)
    node.wait()
    return node


def records(root: Path) -> dict[str, dict]:
    return {
        str(path.parent.relative_to(root)): json.loads(path.read_text()) for path in root.glob("*/*/*/*/record.json")
    }


def only_record(root: Path) -> dict:
    return next(iter(records(root).values()), {"status": None})


def epochs(root: Path) -> int:
    return sum(len(rows(path.parent)) for path in root.rglob("history.jsonl"))


def computed(root: Path, name: str) -> tuple[Any, ...]:
    """What a trial has computed, without what is measured of its machine."""
    record = records(root)[name]
    kept = [record[key] for key in ("status", "config_hash", "overrides", "counts")]
    history = [
        {key: value for key, value in row.items() if key in COMPUTED or "/" in key}
        for row in (rows(root / name) if record["status"] == "ok" else [])
    ]
    return *kept, record.get("weights_sha256"), record.get("metrics"), record.get("confusion"), history


@pytest.mark.ray
@installed
@linux
def test_a_sweep_on_two_nodes_ends_as_it_does_on_this_machine(second: RayNode, tmp_path: Path) -> None:
    done = run(*ONE_OF_FOUR_FAILS, *ON_CLUSTER, root=tmp_path / "ray")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    [line] = [line for line in done.stdout.splitlines() if " failed: " in line]
    assert "lr=1e+30" in line and "not finite" in line
    assert "1 of 4 runs have no result." in done.stdout
    local = run(*ONE_OF_FOUR_FAILS, LIKE_RAY, root=tmp_path / "local")
    assert local.returncode == 1, local.stdout + local.stderr
    there = records(tmp_path / "ray")
    assert sorted(record["status"] for record in there.values()) == ["failed", "ok", "ok", "ok"]
    assert there.keys() == records(tmp_path / "local").keys()
    for name in there:
        assert computed(tmp_path / "ray", name) == computed(tmp_path / "local", name)
    again = run(*ONE_OF_FOUR_FAILS[:-1], "recipe.optimizer.lr=0.01,0.02,0.03", *ON_CLUSTER, root=tmp_path / "ray")
    assert again.returncode == 0 and again.stdout.count("finished before") == 3


@pytest.mark.ray
@installed
@linux
@two_cores
def test_a_lost_node(
    second: RayNode, add_node: Callable[[int], RayNode], begin: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """With launch.retries the trial goes on elsewhere to the same bits; without, it has failed."""
    root = tmp_path / "retried"
    process = begin(*LONG, TWO_RANKS, *ON_CLUSTER, "launch.retries=1", root=root)
    trains(process, root, 3)  # an epoch's row is written before its checkpoint: that of the second is there
    second.lose(ranks_too=True)
    third = add_node(2)
    out, err = process.communicate(timeout=2 * WITHIN_S)
    assert process.returncode == 0, out + err
    record = only_record(root)
    [resumption] = record["resumptions"]
    assert resumption["step"] % 4 == 0 and resumption["step"] >= 8, "from the checkpoint of an epoch"

    local = run(*LONG, TWO_RANKS, LIKE_RAY, root=tmp_path / "local")
    assert local.returncode == 0, local.stdout + local.stderr
    [name] = records(root)
    assert computed(root, name) == computed(tmp_path / "local", name)

    root = tmp_path / "lost"
    process = begin(*LONG, TWO_RANKS, *ON_CLUSTER, root=root)
    trains(process, root, 1)
    third.lose(ranks_too=False)
    out, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert "failed: the node was lost" in out and "Traceback" not in err
    record = only_record(root)
    assert (record["status"], record["error"]) == ("failed", "the node was lost")
    [directory] = (path.parent for path in root.rglob("record.json"))
    assert not held(directory / RANKS)


@pytest.mark.ray
@installed
def test_a_process_may_ask_for_ray_at_each_look_of_seed_auto() -> None:
    looks = "[RayExecutor({'retries': 0}, None, 1, 100_000_000) for look in range(2)]"
    program = f"from benchmarks.launch.ray_cluster import RayExecutor; {looks}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WITHIN_S)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.ray
@installed
@linux
def test_ctrl_c_leaves_no_process(begin: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Of a Ray that the sweep has started; the second trial waits for the first."""
    root = tmp_path / "outputs"
    process = begin("-m", *LONG, "seed=0,1", "cluster=ray", "cluster.num_cpus=1", root=root)
    trains(process, root, 1)
    started = children(process.pid)
    assert len(started) > 4, "the raylet, its agents, a worker and a rank"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err and "goes on from here" in out
    [record] = records(root).values()
    assert (record["status"], record["error"]) == ("interrupted", "interrupted by Ctrl-C")
    until(lambda: not any(map(alive, started)), "the end of what was started", seconds=20)
