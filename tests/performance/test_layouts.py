"""The table of default layouts and the measurements that it is decided by."""

import csv
import shutil
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from support.benchmark_command import command

from benchmarks.performance import layouts
from benchmarks.performance.document import MeasuredTable, read_records
from benchmarks.training import default_settings

main = command("measure layouts")


def row(network: str, ratio: float, family: str = "net", precision: str = "32-true") -> dict[str, Any]:
    return {"network": network, "family": family, "precision": precision, "time_ratio": ratio}


def faster(*ratios: float) -> str:
    [decided] = layouts.decisions([row(f"net{place}", ratio) for place, ratio in enumerate(ratios)], "cpu")
    return decided["channels_last"]


def test_a_layout_is_the_default_where_it_gains_and_harms_no_network_of_the_family() -> None:
    assert faster(0.8) == faster(0.8, 1.02) == faster(0.5, 0.9) == "true"
    assert faster(0.98) == faster(0.96, 0.99) == faster(0.5, 1.04) == faster(1.3) == "false"


def test_families_and_precisions_are_decided_apart() -> None:
    rows = [row("a", 0.5), row("b", 0.72), row("a", 1.2, precision="bf16-mixed"), row("c", 0.9, family="another")]
    assert [tuple(one.values()) for one in layouts.decisions(rows, "cuda")] == [
        ("cuda", "another", "32-true", "true", "0.900", "c"),
        ("cuda", "net", "32-true", "true", "0.600", "a b"),
        ("cuda", "net", "bf16-mixed", "false", "1.200", "a"),
    ]


def test_decisions_replace_those_of_the_same_device_family_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Path(shutil.copy(layouts.LAYOUTS, tmp_path))
    monkeypatch.setattr(layouts, "LAYOUTS", table)
    before = {tuple(one.values())[:3]: one for one in csv.DictReader(table.open(newline=""))}
    layouts.write_decisions(layouts.decisions([row("a", 0.5, family="densenet")], "cpu"))
    after = {tuple(one.values())[:3]: one for one in csv.DictReader(table.open(newline=""))}
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed == {("cpu", "densenet", "32-true")} and after[changed.pop()]["time_ratio"] == "0.500"


def test_the_committed_table_is_what_the_committed_measurements_decide() -> None:
    rows = {tuple(one.values())[:3]: one for one in csv.DictReader(default_settings.LAYOUTS.open(newline=""))}
    assert rows, "there are defaults"
    for device in ("cpu", "cuda"):
        for decided in layouts.decisions(layouts.TABLE.committed(device), device):
            assert rows[tuple(decided.values())[:3]] == decided


def test_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alexnet"]) == 2
    assert "no network alexnet; there are resnet20" in capsys.readouterr().err


def test_an_interrupted_measurement_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Path(shutil.copy(layouts.LAYOUTS, tmp_path))
    monkeypatch.setattr(layouts, "LAYOUTS", table)
    monkeypatch.setattr(MeasuredTable, "write", partialmethod(MeasuredTable.write, root=tmp_path))
    measured = {"network": "resnet20_digits", "family": "resnet", "batch": 64, "precision": "32-true", "rounds": 7}
    times = {f"{name}{end}": 0.5 for name in ("time_ratio", "forward_ratio") for end in ("", "_low", "_high")}

    def compare(name: str, precision: str, *arguments: object) -> dict[str, Any]:
        if precision == "bf16-mixed":
            raise KeyboardInterrupt
        return measured | times

    monkeypatch.setattr(layouts, "compare", compare)
    assert main(["resnet20_digits", "--write"]) == 130
    [kept] = read_records(tmp_path).values()
    assert kept["rows"] == [measured | times | {"command": kept["command"]}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("model=resnet", "data=digits", "model.depth=8"),
        # On its images and their objects: random ones have none.
        ("model=mask_rcnn", "data=digit_scenes", "model.backbone.base_channels=4", "model.pyramid=8"),
    ],
    ids=["classifier", "detector"],
)
def test_both_layouts_take_turns(overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layouts.NETWORKS, "tiny", (overrides, 2, None))
    measured = layouts.compare("tiny", "32-true", False, 1.0)
    assert measured["family"] == overrides[0].partition("=")[2] and measured["batch"] == 2
    assert measured["rounds"] >= 7
    for name in ("time_ratio", "forward_ratio"):
        low, median, high = (measured[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert 0.1 < low <= median <= high < 10
