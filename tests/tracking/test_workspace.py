"""The workspace and the report of a project, saved by the real client: what panels they hold, and that there is one of each."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.benchmark_command import command
from support.wandb_server import ENTITY, StoredRun, WandbServer

workspace = command("wandb workspace")


pytest.importorskip("wandb_workspaces")
ROOT = Path(__file__).resolve().parents[2]


def panels(spec: Any) -> list[dict[str, Any]]:
    """Every panel in a saved view, in order."""
    if isinstance(spec, list):
        return [panel for item in spec for panel in panels(item)]
    if not isinstance(spec, dict):
        return []
    if "viewType" in spec:
        return [spec]
    return [panel for value in spec.values() for panel in panels(value)]


def run_sets(spec: Any) -> list[dict[str, Any]]:
    """Every set of runs in a saved view."""
    if isinstance(spec, dict) and "grouping" in spec:
        return [spec]
    below = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    return [one for value in below for one in run_sets(value)]


def test_the_panels_and_a_second_call_changes_the_same_views(
    server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.runs["p", "first"] = StoredRun("p", "first")
    for _ in range(2):
        assert workspace([f"{ENTITY}/p"]) == 0
        said = capsys.readouterr().out
        assert f"{server.url}/{ENTITY}/p?nw=computeaccuracy" in said
    assert sorted(view["type"] for view in server.views.values()) == ["project-view", "runs"]
    for view in server.views.values():
        found = [(panel["viewType"], panel["config"]) for panel in panels(json.loads(view["spec"]))]
        first = found[0][1]  # the page's first chart
        assert (first["xAxis"], first["yAxis"]) == ("summary:model/macs", "summary:test/top1_err")
        lines = [config for kind, config in found if kind == "Run History Line Plot"]
        tasks = {"val/top1_err", "val/dice_err", "val/box_ap_err", "val/mask_ap_err"}
        assert tasks | {"train/loss_step", "lr"} <= {metric for config in lines for metric in config["metrics"]}
        for config in lines:
            assert (config["xAxis"], config["xLogScale"]) == ("compute/train_flops", True)
            assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == ("name.value", "mean", "stddev")
        scatter = [config for kind, config in found if kind == "Scatter Plot"]
        assert ("summary:model/macs", "summary:test/top1_err") in {(one["xAxis"], one["yAxis"]) for one in scatter}
        assert all(config["showMinYAxisLine"] and config["xAxisLogScale"] for config in scatter)
        bar_charts = [config for kind, config in found if kind == "Bar Chart"]
        bars = {metric for config in bar_charts for metric in config["metrics"]}
        assert {"compute/images_per_s", "compute/peak_memory_bytes", "compute/energy_j"} <= bars
        assert "Run Comparer" in {kind for kind, _ in found}
        assert "training time (s)" in {c["chartTitle"] for c in bar_charts if c["metrics"] == ["compute/train_s"]}
        kept = [run_set["filters"]["filters"] for run_set in run_sets(json.loads(view["spec"]))]
        assert kept and all(
            (one["key"]["name"], one["op"], one["value"]) == ("jobType", "=", "train") for [one] in kept
        )


def test_an_unknown_project_is_one_line_and_saves_nothing(
    server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(server.views)
    assert workspace([f"{ENTITY}/nothing"]) == 2
    assert "`bench-team/nothing` not found" in capsys.readouterr().err
    assert server.views == before


@pytest.mark.parametrize("place", ["p", "/p", "team/", "a/b/c"])
def test_a_place_that_is_none_is_refused(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert workspace([place]) == 2
    assert "ENTITY/PROJECT is needed" in capsys.readouterr().err


def test_without_the_extra_one_line_names_it() -> None:
    code = (
        "import sys; sys.modules['wandb_workspaces'] = None\n"
        "from benchmarks.__main__ import main; sys.exit(main(['wandb', 'workspace', 'a/b']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and ".[workspace]" in done.stderr
