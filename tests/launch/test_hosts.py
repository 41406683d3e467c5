"""One trial over two machines without a scheduler: network namespaces whose cable the tests cut."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.cluster_runs import LONG, assert_same_result, record, trains, until
from support.commands import CLEAN, ROOT

from run import main

SCRIPTS = ROOT / "tests" / "support" / "clusters"
TIMEOUT_S = 12  # launch.collective_timeout_s
BOUND_S = TIMEOUT_S + 30  # as conf/cluster/hosts.yaml says


@pytest.fixture
def machines() -> Iterator[None]:
    """10.77.0.1 and 10.77.0.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip, of iproute2")
    subprocess.run([SCRIPTS / "two_hosts_down.sh"], check=True)
    made = subprocess.run([SCRIPTS / "two_hosts_up.sh"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    yield
    subprocess.run([SCRIPTS / "two_hosts_down.sh"], check=True)


class Machine:
    """The command as it is given on one of the two."""

    def __init__(self, node: int, root: Path, *arguments: str) -> None:
        command = ["ip", "netns", "exec", f"ca{node + 1}", sys.executable, str(ROOT / "run.py"), *arguments]
        command += ["cluster=hosts", "cluster.rendezvous=10.77.0.1:29400", f"cluster.node={node}"]
        command += [f"cluster.address=10.77.0.{node + 1}", "cluster.threads_per_process=1", "trainer.num_nodes=2"]
        command += [f"launch.collective_timeout_s={TIMEOUT_S}", f"output_root={root}"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root.parent,
            env=CLEAN | {"GLOO_SOCKET_IFNAME": f"cable{node + 1}"},
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def end(self, seconds: float) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out


def both(root: Path, *arguments: str) -> list[Machine]:
    return [Machine(node, root, *arguments) for node in (0, 1)]


def stop(machines: list[Machine]) -> None:
    for machine in machines:
        machine.process.kill()
        machine.process.wait(10)


def cable(state: str) -> None:
    subprocess.run(["ip", "-n", "ca2", "link", "set", "cable2", state], check=True)


@pytest.mark.netns
def test_a_cut_cable_ends_the_trial_on_both_machines(machines: None, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    two = both(root, *LONG, "recipe.epochs=200")
    try:
        until(trains(root), "the first epoch")
        cable("down")
        cut = time.monotonic()
        ended = [machine.end(BOUND_S) for machine in two]
        print(f"both machines ended {time.monotonic() - cut:.1f} s after the cut")
    finally:
        stop(two)
    for code, out in ended:
        assert code == 1, out
    assert record(root)["status"] == "failed"
    assert trains(root)()


@pytest.mark.netns
def test_an_outage_leaves_the_result_as_it_is(machines: None, undisturbed: Path, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    two = both(root, *LONG, "launch.retries=2")
    try:
        until(trains(root), "the first epoch")
        cable("down")
        cut = time.monotonic()
        time.sleep(15)
        cable("up")
        until(lambda: len(record(root).get("resumptions", ())) == 1, "the ranks are back", BOUND_S + 30)
        print(f"training again {time.monotonic() - cut:.1f} s after the cut, which lasted 15 s")
        ended = [machine.end(180) for machine in two]
    finally:
        stop(two)
    for code, out in ended:
        assert code == 0, out
    assert len(record(root)["restarts"]) == 1
    assert_same_result(root, undisturbed)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["cluster.rendezvous=10.0.0.1"], 2, "cluster.rendezvous is host:port of machine 0"),
        (["cluster.rendezvous=null"], 2, "cluster.rendezvous is host:port of machine 0"),
        (["cluster.node=null"], 2, "cluster.node is this machine's number, from 0"),
        (["cluster.node=2"], 1, "cluster.node=2 of trainer.num_nodes=2 machines"),
        (["trainer.num_nodes=1"], 1, "cluster=hosts is for several machines, got trainer.num_nodes=1"),
        (["launch.workers=2"], 2, "one trial at a time"),
        (["cluster=local"], 1, "trainer.num_nodes=2 needs cluster=slurm or cluster=hosts"),
    ],
)
def test_bad_values_are_refused_in_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = {"cluster": "hosts", "trainer.num_nodes": "2", "cluster.rendezvous": "10.0.0.1:29400", "cluster.node": "0"}
    given = good | dict(argument.split("=", 1) for argument in arguments)
    if given["cluster"] == "local":
        given = {key: value for key, value in given.items() if not key.startswith("cluster.")}
    assert main([f"{key}={value}" for key, value in given.items()] + [f"output_root={tmp_path / 'outputs'}"]) == code
    printed = capsys.readouterr()
    assert said in (printed.err if code == 2 else printed.out)
    assert "Traceback" not in printed.err
    assert not list(tmp_path.rglob("record.json"))
