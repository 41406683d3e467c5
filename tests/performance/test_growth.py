"""Many runs: what is found to grow faster than they do, and whether the runs that are written are runs of the sweep."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.benchmark_command import command
from support.records import make_run

from benchmarks.config.compose import expand_all
from benchmarks.launch.checks import is_finished, refusal
from benchmarks.performance.growth import LAUNCHED, SEEDS, SHAPES, above_linear, splits, sweep_of, with_added
from benchmarks.performance.growth import main as write_runs
from benchmarks.records.runs import load_runs

growth_command = command("measure growth")


@pytest.mark.parametrize(("power", "found"), [(0.0, False), (1.0, False), (1.3, True), (2.0, True)])
def test_a_command_is_named_where_its_time_grows_by_a_power_above_one(power: float, found: bool) -> None:
    rows = with_added(
        [
            {"what": what, "runs": size, "processor_s": 0.5 + 1e-3 * size**exponent}
            for size in reversed(SHAPES)
            for what, exponent in (("tested", power), ("linear", 1.0))
        ]
    )
    assert [row["runs"] for row in rows] == 2 * list(SHAPES)
    assert all(
        math.isclose(row["added_ms"], 1.0) for row in rows if row["what"] == "linear" and row["added_ms"] is not None
    )
    lines = above_linear(rows)
    assert bool(lines) == found and all(line.startswith("tested: a run adds ") for line in lines)


@pytest.mark.parametrize("sizes", [LAUNCHED, [*SHAPES][:3]])
def test_the_launcher_and_the_least_number_of_most_runs_can_fail(sizes: Sequence[int]) -> None:
    quadratic = [{"what": "launcher", "runs": size, "processor_s": 0.01 * size**2} for size in sizes]
    [line] = above_linear(with_added(quadratic))[:1]
    assert line.startswith("launcher: a run adds ")


def test_so_few_runs_that_no_growth_would_show_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth_command(["--most", "100"])
    assert "--most: a whole number from 1000, got '100'" in capsys.readouterr().err


def test_what_chance_adds_is_no_growth() -> None:
    rows = [
        {"what": "status", "runs": size, "processor_s": 0.2 + noise}
        for size, noise in ((10, 0.01), (100, 0), (1_000, 0.2))
    ]
    assert above_linear(with_added(rows)) == []


def test_a_table_that_is_plain_from_some_length_on_is_no_growth() -> None:
    """As of `report`: up to 100 runs the table is styled, which took 0.4 s."""
    rows = [
        {"what": "report", "runs": size, "processor_s": 0.5 + 1.5e-3 * size + 0.4 * (size == 100)} for size in SHAPES
    ]
    assert above_linear(with_added(rows)) == []


@pytest.mark.parametrize("size", SHAPES)
def test_a_sweep_has_as_many_trials_as_it_says(size: int) -> None:
    widths, rates = (next(text for text in sweep_of(size) if key in text) for key in ("base_channels", "optimizer.lr"))
    assert (widths.count(",") + 1) * (rates.count(",") + 1) * SEEDS == size


def test_the_written_runs_are_the_finished_ones_of_the_sweep(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / "real", seed=seed, name="resnet20")
    overrides = [*sweep_of(10), f"output_root={tmp_path / 'many'}"]
    assert write_runs({"overrides": overrides, "runs": str(tmp_path / "real")}) == {"runs": 10}
    trials = expand_all(overrides)
    assert all(is_finished(trial) and refusal(trial) is None for trial in trials)
    runs, problems = load_runs(tmp_path / "many")
    assert problems == [] and {run.directory for run in runs} == {trial.directory for trial in trials}
    assert all(run.value is not None and run.history for run in runs)


@pytest.mark.parametrize("count", [1, 2, 6, 16])
def test_processes_and_threads_fit_the_cores(count: int) -> None:
    places = list(splits(count))
    assert places[0] == (1, 1) and len(set(places)) == len(places)
    assert all(processes * threads <= count for processes, threads in places)
    assert max(processes for processes, _ in places) == min(8, 2 ** int(math.log2(count)))
