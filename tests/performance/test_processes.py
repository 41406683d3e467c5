"""Whole processes: what is counted of them, and whether the scripts beside ours do the same work."""

import sys
from pathlib import Path

import pytest
import torch
from support.benchmark_command import command
from support.commands import run
from support.configurations import trial

from benchmarks.performance import processes, whole_scripts
from benchmarks.records.files import RECORD, read_json

main = command("measure processes")
SHORT = ("model=resnet", "data=digits", "model.depth=8", "recipe.epochs=1", "trainer.accelerator=cpu")
BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone counts orphans")
def test_the_time_of_a_process_that_nobody_has_waited_for_is_counted(tmp_path: Path) -> None:
    child, parent = tmp_path / "child.py", tmp_path / "parent.py"
    child.write_text(BURN.format(seconds=0.6))
    parent.write_text(
        f"import subprocess, sys\nprint('said')\nsubprocess.Popen([sys.executable, {str(child)!r}])\n"
        + BURN.format(seconds=0.2)
    )
    measured, output = processes.whole([sys.executable, str(parent)])
    assert output == "said\n" and 0.8 <= measured["processor_s"] < 1.8
    with pytest.raises(ValueError, match="failed with exit code 3"):
        processes.whole([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ValueError, match="failed with exit code 1: said why"):
        processes.whole([sys.executable, "-c", "print('said why', 'and more', sep='\\n'); raise SystemExit(1)"])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone counts orphans")
def test_peak_memory_is_not_that_of_the_process_that_asks() -> None:
    here = bytearray(300 * 2**20)
    measured, _ = processes.whole([sys.executable, "-c", "there = bytearray(100 * 2**20)"])
    assert 100 < measured["memory_mib"] < 150 and len(here) > 2 * 100 * 2**20


@pytest.mark.slow
def test_the_scripts_end_with_the_error_of_our_run(tmp_path: Path) -> None:
    done = run(
        *SHORT,
        "recipe.epochs=2",
        "trainer.channels_last=false",
        "cluster.threads_per_process=1",
        "logger=none",
        root=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [record] = (read_json(path) for path in tmp_path.glob(f"*/*/*/*/{RECORD}"))
    assert record is not None
    config, threads = trial(*SHORT, "recipe.epochs=2").config, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in processes.SCRIPTS:
            torch.manual_seed(config["seed"])
            error = whole_scripts.SCRIPTS[name](config)
            assert error == pytest.approx(record["metrics"]["test/top1_err"], abs=1e-4), name
    finally:
        torch.set_num_threads(threads)


def test_ratios_are_within_a_repeat() -> None:
    config = trial(*SHORT).config
    times = {"ours": (3.0, 30.0, 3.3), "lightning": (4.0, 40.0, 4.0), "bare": (2.0, 20.0, 2.0)}
    results = {
        name: [{"processor_s": one, "wall_s": 1.0, "memory_mib": 1.0, "error": 5.0} for one in each]
        for name, each in times.items()
    }
    rows = {row["process"]: row for row in processes.summarise(results, config)}
    assert rows["ours"]["ratio"] == 1.5 and rows["ours"]["processor_s"] == 3.3
    assert (rows["ours"]["ratio_low"], rows["ours"]["ratio_high"]) == (1.5, pytest.approx(1.65))
    assert rows["bare"]["ratio"] == 1.0 and rows["lightning"]["epochs"] == 1


def test_ours_is_slow_beside_lightning_or_beside_what_is_committed() -> None:
    def row(process: str, low: float) -> dict[str, object]:
        place = {"network": "net", "data": "digits", "epochs": 1}
        return {**place, "process": process, "ratio": low + 0.1, "ratio_low": low, "ratio_high": low + 0.2}

    rows = [row("ours", 1.4), row("lightning", 1.5), row("bare", 1.0)]
    assert processes.slower(rows, []) == []
    assert processes.slower(rows, [row("ours", 1.3)]) == []
    [line] = processes.slower(rows, [row("ours", 1.1)])
    assert line == "net, ours: 1.50 times the processor time of a bare loop (1.40 to 1.60), 1.32 is allowed"
    assert len(processes.slower([row("ours", 1.7), *rows[1:]], [])) == 1
    [line] = processes.slower([row("ours", 1.4), row("lightning", 1.26)], [row("ours", 1.29)])
    assert line.endswith(" 1.36 is allowed"), "more than Lightning's, whatever is committed"
    machines = [row("ours", 1.3), row("ours", 1.0)]
    assert processes.slower(rows, machines) == processes.slower(rows, machines[::-1]) == []


def test_other_tasks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=unet", "data=nuclei"]) == 2
    assert "classify images that are in memory" in capsys.readouterr().err
