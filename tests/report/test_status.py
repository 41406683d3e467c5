"""The grid of a sweep, from real files and real locks."""

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.benchmark_command import command
from support.records import make_run

from benchmarks.records.code_version import training_sha256
from benchmarks.records.files import PROGRESS, write_json
from benchmarks.records.locks import LAUNCHER, Lock
from benchmarks.report import status
from benchmarks.report.status import print_status, trial_states
from benchmarks.terminal import STAND_INS
from benchmarks.training import progress_writer
from benchmarks.training.progress_writer import ProgressWriter

main = command("status")

NOW = 1_700_000_000.0
PROGRESSED = {"phase": "train", "epoch": 3, "epochs": 12, "done": 30, "total": 120, "metrics": {"val/top1_err": 7.125}}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's stands still."""
    monkeypatch.setattr(status, "time", SimpleNamespace(time=lambda: NOW))


def states(root: Path) -> dict[int, tuple[str, str]]:
    return {trial.seed: (trial.state, trial.detail) for trial in trial_states(root)[0]}


def make(root: Path, seed: int, status: str = "ok", **changes) -> Path:
    return make_run(root, seed=seed, status=status, code={"training_sha256": training_sha256()}, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One trial in every state, in the order of its seed."""
    make(tmp_path, 0)
    make_run(tmp_path, seed=1, code={"training_sha256": "0" * 64})
    running = make(tmp_path, 2, "running")
    write_json(running / PROGRESS, PROGRESSED | {"time": NOW - 4})
    make(tmp_path, 3, "running")
    make(tmp_path, 4, "failed", error="LookupError: it broke")
    make(tmp_path, 5, "interrupted", error="interrupted by Ctrl-C")
    make(tmp_path, 6, "preempted", error="pre-empted")
    listed = [{"directory": str(running.parent.relative_to(tmp_path) / f"seed{seed}")} for seed in (0, 7)]
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "a.json").write_text(json.dumps({"trials": listed}))
    return tmp_path


def test_every_state_is_told_apart(folder: Path) -> None:
    lock = Lock.take(next(folder.glob("digits/**/seed2")) / LAUNCHER)
    assert lock is not None
    found = states(folder)
    assert [found[seed][0] for seed in range(8)] == [
        *("done", "stale", "running", "killed", "failed", "interrupted", "preempted", "missing")
    ]
    assert "25%, epoch 3/12, val err 7.12 %, sign of life 4 s ago" in found[2][1]
    assert found[4][1] == "LookupError: it broke"
    lock.release()
    assert states(folder)[2][0] == "killed"


def test_within_a_runs_folder_its_name_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(next(folder.glob("digits/**/seed4")))
    [trial], _ = trial_states(Path("."))
    assert (trial.data, trial.seed, trial.state) == ("digits", 4, "failed")
    assert trial.row.startswith("resnext29_8x4d · ") and "?" not in trial.row


def test_a_data_set_that_is_made_ready_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_writer, "PROGRESS_EVERY_S", math.inf)
    running = next(folder.glob("digits/**/seed2"))
    lock = Lock.take(running / LAUNCHER)
    preparing = ProgressWriter(running)
    preparing.prepare("copying the images", 1_200, 2_000)
    preparing.prepare("copying the images", 1_201, 2_000)  # too early to be written
    assert states(folder)[2][1].startswith("copying the images, 1,200/2,000, sign of life ")
    ProgressWriter(running).prepare("fetching, MB", 12, 0)
    assert states(folder)[2][1].startswith("fetching, MB, 12, sign of life ")
    lock.release()


def test_the_grid_has_a_column_per_seed_and_says_the_causes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 trials: 1 done, 1 stale, 2 killed, 1 failed, 1 interrupted, 1 preempted, 1 missing"
    [head] = [line for line in lines if line.split()[:3] == ["s0", "s1", "s2"]]
    [row] = [line for line in lines if line.startswith("resnext29_8x4d · ") and "✖" in line and "it broke" not in line]
    assert [row[head.index(f"s{seed}") + 1] for seed in range(8)] == list("✔≈††✖■‖·")
    assert any("LookupError: it broke" in line for line in lines)
    assert any("launch.rerun=stale" in line for line in lines)


def test_no_two_states_have_one_glyph_with_or_without_utf_8() -> None:
    glyphs = [glyph for glyph, *_ in status.STATES.values()]
    for shown in (glyphs, [glyph.translate(STAND_INS) for glyph in glyphs]):
        assert len(set(shown)) == len(status.STATES) and {cell_len(glyph) for glyph in shown} == {1}
    assert "".join(glyph.translate(STAND_INS) for glyph in glyphs).isascii()


def test_many_seeds_are_counted(tmp_path: Path) -> None:
    for seed in range(40):
        make(tmp_path, seed, "ok" if seed % 4 else "failed")
    console = Console(width=100, record=True, file=io.StringIO())
    print_status(trial_states(tmp_path)[0], console)
    text = console.export_text()
    assert [line.split()[-2:] for line in text.splitlines() if "done" in line and "failed" in line][1:] == [
        ["done", "failed"]
    ]
    assert any(line.split()[-2:] == ["30", "10"] for line in text.splitlines())


def test_the_same_trial_below_several_output_roots_is_in_a_grid_of_each(tmp_path: Path) -> None:
    make(tmp_path / "a", 0, "failed", error="it broke")
    make(tmp_path / "b", 0)
    output = io.StringIO()
    print_status(trial_states(tmp_path)[0], Console(file=output, width=200))
    lines = output.getvalue().splitlines()
    assert [line for line in lines if " in " in line] == [f"digits in {tmp_path / root}" for root in ("a", "b")]
    assert [line.split()[-1] for line in lines if "resnext29_8x4d · resnext_digits  " in line][:2] == ["✖", "✔"]


def test_one_trial_is_not_called_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, 0)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1 trial: 1 done"


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_escapes_in_the_names_of_folders_are_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, 0, name="resnet\x1b]0;x\x07", recipe="r\x1b[2J")
    make(tmp_path / "a\x1b[31m", 1)
    for folder in (tmp_path, tmp_path / "a\x1b[31m", tmp_path / "no\x1b[31m"):
        main([str(folder)])
        out, err = capsys.readouterr()
        assert out + err and not {"\x1b", "\x07"} & {*out, *err}
