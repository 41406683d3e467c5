"""The runs in the terminal: handed over to `wandb leet` on a real pseudo-terminal, or refused in one line."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.benchmark_command import command
from support.records import make_run

from benchmarks.tracking.show import link_named_runs

ROOT = Path(__file__).parents[2]
SHOW = [sys.executable, "-m", "benchmarks", "wandb", "show"]
# Stands in for W&B: says what it was started with.
STAND_IN = """
import os, sys
print(sys.argv[1:], os.environ["WANDB_ERROR_REPORTING"], os.isatty(0) and os.isatty(1))
sys.exit(3)
"""


def plain(drawn: bytes) -> str:
    """What was drawn, less the control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode(errors="replace"))


def on_a_terminal(
    arguments: list[str], environment: dict[str, str], until: str, keys: bytes = b"", limit_s: float = 60
) -> tuple[str, int | None]:
    """What a command draws on a new pseudo-terminal until `until` appears; then sends `keys` and returns its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 180, 0, 0))
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    drawn, sent, ends = b"", False, time.monotonic() + limit_s
    try:
        while time.monotonic() < ends and process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    drawn += os.read(ours, 65536)
                except OSError:  # Linux: the other side is closed
                    break
            if not sent and until in plain(drawn):
                os.write(ours, keys)
                sent = True
        return plain(drawn), process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outputs" / "wandb" / "offline-run-20261123_000000-a").mkdir(parents=True)
    return tmp_path / "outputs"


def test_on_a_terminal_leet_gets_the_folder_and_its_exit_code_is_returned(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "stand-in" / "wandb").mkdir(parents=True)
    (tmp_path / "stand-in" / "wandb" / "__init__.py").touch()
    (tmp_path / "stand-in" / "wandb" / "__main__.py").write_text(STAND_IN)
    path = os.pathsep.join(filter(None, (str(tmp_path / "stand-in"), os.environ.get("PYTHONPATH"))))
    drawn, code = on_a_terminal([*SHOW, str(folder)], {**os.environ, "PYTHONPATH": path}, until="True")
    assert drawn.split("\r\n")[0] == f"['leet', '{folder / 'wandb'}'] false True"
    assert code == 3


def test_the_runs_bear_their_names_and_the_report_is_left_out(tmp_path: Path) -> None:
    for name, seed, run_id in (("resnet20", 0, "a-1"), ("resnet20", 1, "b-1"), ("densenet40", 0, "c-1")):
        make_run(tmp_path, name=name, seed=seed, run_id=run_id)
    ids = ("a-1", "b-1", "c-1", "report-1", "of-no-record", "a-1")  # the first was resumed
    for second, run_id in enumerate(ids):
        place = tmp_path / "wandb" / f"{'offline-' * (second % 2)}run-20261123_00000{second}-{run_id}"
        place.mkdir(parents=True)
        (place / f"run-{run_id}.wandb").write_text(str(second))
    assert link_named_runs(tmp_path, tmp_path / "wandb", tmp_path / "links") == 3
    shown = {path.parent.name: path for path in (tmp_path / "links").glob("*/*.wandb")}
    assert {name.split("-", 2)[2]: path.read_text() for name, path in shown.items()} == {
        "resnet20 seed 0": "5", "resnet20 seed 1": "1", "densenet40 seed 0": "2",
    }  # fmt: skip
    opened = json.loads((tmp_path / "links" / ".wandb-leet.json").read_text())
    assert re.search(opened["metrics_filter"]["query"], "val/top1_err")
    assert not re.search(opened["metrics_filter"]["query"], "val/top1_err_10_crops")
    assert set(opened["selected_runs"]) == shown.keys()
    for name, path in shown.items():  # as leet looks for it
        assert re.fullmatch(r"run-\d{8}_\d{6}-.+", name) and path.name == f"run-{name.split('-', 2)[2]}.wandb"


def test_a_name_too_long_for_a_file_keeps_its_seed(tmp_path: Path) -> None:
    for seed in range(2):
        long = {"recipe.note": "注" * 40}
        make_run(tmp_path, name="残差" * 35, recipe="common", overrides=long, seed=seed, run_id=f"long-{seed}")
        place = tmp_path / "wandb" / f"run-20261123_00000{seed}-long-{seed}"
        place.mkdir(parents=True)
        (place / f"run-long-{seed}.wandb").touch()
    assert link_named_runs(tmp_path, tmp_path / "wandb", tmp_path / "links") == 2
    names = sorted(path.stem for path in (tmp_path / "links").glob("*/*.wandb"))
    assert all(name.startswith("run-残差") and len(name.encode()) < 130 for name in names)
    assert [name.endswith(f" seed {seed}") for seed, name in enumerate(names)] == [True, True]


def test_without_a_terminal_it_says_what_to_open(folder: Path) -> None:
    show = [*SHOW, str(folder)]
    for page_exists, expected in (
        (False, f"`python -m benchmarks report {folder}` writes {folder}/report.html"),
        (True, f"open {folder}/report.html"),
    ):
        if page_exists:
            (folder / "report.html").touch()
        done = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 2 and done.stdout == ""
        assert "no terminal" in done.stderr and expected in done.stderr and "in a terminal" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("given", "expected"), [("outputs", "logger=none"), ("nowhere", "no folder")])
def test_a_folder_without_such_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, expected: str
) -> None:
    (tmp_path / "outputs" / "wandb").mkdir(parents=True)
    assert command("wandb show")([str(tmp_path / given)]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.count("\n") == 1


@pytest.mark.slow
def test_leet_itself_draws_a_run_over_its_flops(tmp_path: Path) -> None:
    script = """
import sys, wandb
run = wandb.init(mode="offline", dir=sys.argv[1], project="p", id="a-1")
run.define_metric("compute/train_flops")
run.define_metric("val/top1_err", step_metric="compute/train_flops")
for step in range(5):
    others = {f"compute/{letter}": step for letter in "abcdefghijkl"}  # before it in the order of names
    run.log({"compute/train_flops": step * 1e9, "val/top1_err": 50 / (step + 1), **others})
run.finish()
"""
    environment = {**os.environ, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "TERM": "xterm-256color"}
    make_run(tmp_path, name="resnet20", run_id="a-1")
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=120, check=True)
    drawn, code = on_a_terminal([*SHOW, str(tmp_path)], environment, until="4G│", keys=b"q")
    assert "val/top1_err" in drawn and "-resnet20" in drawn and "1 of 1 filtered from 14" in drawn
    assert code == 0
