"""Reference counts against altered networks, arithmetic by hand, and the whole of the tables."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from support.benchmark_command import command
from support.reference_networks import REFERENCE_COUNTS, check_cost, reference_network

from benchmarks.analysis.published import PublishedRow, PublishedTable, tables
from benchmarks.complexity import counting
from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.counting import build, measure
from benchmarks.complexity.reference_counts import all_reference_counts, check, reference_counts_of
from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.report import certify
from benchmarks.report.certify import CERTIFIED, FAILS, KNOWN, judge, rounds_to
from lightning_modules.nets import DenseNet, ResNet

main = command("complexity certify")

pytestmark = pytest.mark.usefixtures("one_thread")

RUNNABLE = [(table.name, row) for table in tables().values() for row in table.rows if row.runnable]
CIFAR_BC100: dict[str, Any] = {"depth": 100, "growth_rate": 12, "bottleneck": True, "stem": "cifar", "num_classes": 10}
CIFAR_40: dict[str, Any] = {"depth": 40, "growth_rate": 12, "stem": "cifar", "num_classes": 10}
CIFAR_20: dict[str, Any] = {"depth": 20, "block": "basic", "base_channels": 16, "stem": "cifar", "num_classes": 10}
RESNEXT_50: dict[str, Any] = {"depth": 50, "cardinality": 32, "base_width": 4}


def row_of(table: str, name: str) -> PublishedRow:
    [row] = tables()[table].pick([name]).rows
    return row


def counted(params: int, macs: int, input_size: tuple[int, int, int]) -> Complexity:
    return Complexity(input_size=input_size, layers=(), params=params, macs=macs, activations=0)


# A row, the network as the paper has it, what is wrong with another, and the first words of its verdict.
ALTERED = {
    "stride in the 1x1": (
        ("resnext_table3", "resnext50_32x4d", KNOWN),
        lambda: ResNet(**RESNEXT_50),
        lambda: ResNet(**RESNEXT_50, stride_in="1x1"),
        "MACs, exactly 4,230,479,872",
    ),
    "option B in place of A": (
        ("resnet_table6", "resnet20", CERTIFIED),
        lambda: ResNet(**CIFAR_20, shortcut="A"),
        lambda: ResNet(**CIFAR_20, shortcut="B"),
        "272,474 parameters, exactly 269,722",
    ),
    "option C in place of A": (
        ("resnet_table6", "resnet20", CERTIFIED),
        lambda: ResNet(**CIFAR_20, shortcut="A"),
        lambda: ResNet(**CIFAR_20, shortcut="C"),
        "parameters, exactly 269,722",
    ),
    "2k initial channels in place of 16": (
        ("densenet_table2", "densenet40_k12-c10_plus", CERTIFIED),
        lambda: DenseNet(**CIFAR_40),
        lambda: DenseNet(**CIFAR_40, initial_channels=24),
        "1,059,298 parameters, exactly 1,019,722",  # what the authors' present code makes
    ),
    "compression 0.6": (
        ("densenet_table2", "densenet_bc100_k12-c10_plus", CERTIFIED),
        lambda: DenseNet(**CIFAR_BC100, compression=0.5),
        lambda: DenseNet(**CIFAR_BC100, compression=0.6),
        "parameters, exactly 769,162",
    ),
}


@pytest.mark.parametrize("altered", ALTERED)
def test_an_altered_network_fails_its_reference_counts(altered: str) -> None:
    (table, name, verdict), build, build_altered, said = ALTERED[altered]
    row, size, classes = row_of(table, name), (3, 32, 32), 10
    if "resnext50" in name:
        size, classes = (3, 224, 224), 1000
    assert judge(row, measure(build(), size), classes)[0] == verdict
    failed, reason = judge(row, measure(build_altered(), size), classes)
    assert failed == FAILS and said in reason


def test_a_run_may_bear_the_papers_name_only_with_the_papers_network() -> None:
    bc100 = measure(DenseNet(**CIFAR_BC100, compression=0.5), (3, 32, 32))
    check("densenet_bc100_k12", 10, bc100)
    wider = dataclasses.replace(bc100, params=800_000)
    with pytest.raises(ValueError) as refused:
        check("densenet_bc100_k12", 10, wider)
    assert str(refused.value) == (
        "the network called densenet_bc100_k12 has 800,000 parameters, the paper's has 769,162: name=… gives it another name"
    )
    check("mine", 10, wider)
    # Other classes and other images have counts of their own, or none.
    with pytest.raises(ValueError, match="has 769,162 parameters, the paper's has 800,032"):
        check("densenet_bc100_k12", 100, bc100)
    check("densenet_bc100_k12", 7, bc100)
    check("densenet_bc100_k12", 10, dataclasses.replace(wider, input_size=(1, 28, 28)))


def test_reference_counts_of_one_name_all_count() -> None:
    size = (3, 224, 224)
    for macs in (3_857_973_248, 4_089_184_256):  # stride in the 1x1 (He et al.) and in the 3x3 (Xie et al.)
        check("resnet50", 1000, counted(25_557_032, macs, size))
    with pytest.raises(
        ValueError, match="has 4,000,000,000 MACs, the paper's has 3,729,522,688 or 3,857,973,248 or 4,089"
    ):
        check("resnet50", 1000, counted(25_557_032, 4_000_000_000, size))
    # Option C of a CIFAR network is in no paper.
    with pytest.raises(ValueError, match="called resnet20 .* the paper's has 269,722 or 272,474"):
        check("resnet20", 10, measure(ResNet(**CIFAR_20, shortcut="C"), (3, 32, 32)))


def test_an_override_of_the_network_is_refused_under_the_papers_name() -> None:
    def built(*overrides: str) -> tuple[str, Complexity]:
        [trial] = expand(["data=cifar10", *overrides], multirun=False)
        assert isinstance(trial, Trial)
        return trial.config["name"], measure(instantiate(trial.config["model"]), (3, 32, 32))

    name, cost = built("model=resnet", "model.depth=20", "model.base_channels=20")
    with pytest.raises(ValueError, match="the network called resnet20 has"):
        check(name, 10, cost)
    name, cost = built("model=resnet", "model.depth=20", "model.base_channels=20", "name=resnet20_wide")
    check(name, 10, cost)


@pytest.mark.parametrize(
    ("count", "printed", "agrees"),
    [
        (25_028_904, "25.0e6", True),
        (25_050_000, "25.0e6", True),
        (25_050_001, "25.0e6", False),
        (25_557_032, "25.5e6", False),  # truncated: it rounds to 25.6
        (68_155_210, "68.1e6", False),
        (769_162, "0.8e6", True),
        (3_644_493_824, "3.6e9", True),
        (15_460_270_080, "15e9", True),
        (15_500_000_001, "15e9", False),
    ],
)
def test_printed_figures_agree_to_half_a_unit_of_their_last_digit(count: int, printed: str, agrees: bool) -> None:
    assert rounds_to(count, printed) == agrees


def test_a_discrepancy_counts_as_known_only_with_its_reason_and_an_exact_count() -> None:
    row = row_of("resnext_table1", "resnet50")
    cost = counted(25_557_032, 4_089_184_256, (3, 224, 224))
    assert judge(row, cost, 1000) == (KNOWN, "parameters: the paper truncates")
    unexplained = dataclasses.replace(row, note="MACs: the paper truncates")
    assert judge(unexplained, cost, 1000) == (FAILS, "25,557,032 parameters, printed 25.5e6")
    unknown = dataclasses.replace(row, network="resnet51")
    assert judge(unknown, cost, 1000) == (FAILS, "25,557,032 parameters, printed 25.5e6")
    assert judge(dataclasses.replace(unknown, params="25.6e6"), cost, 1000) == (CERTIFIED, "")
    verdict, reason = judge(dataclasses.replace(unknown, params="", macs=""), cost, 1000)
    assert verdict == FAILS and reason.startswith("neither an exact count nor a printed figure")


def test_dropout_changes_no_count() -> None:
    row = row_of("densenet_table2", "densenet40_k12-svhn")
    assert row.network == "densenet40_k12 model.dropout=0.2"
    assert judge(row, counted(1_019_722, 264_812_928, (3, 32, 32)), 10) == (CERTIFIED, "")


def verdict_of_exact_counts(row: PublishedRow) -> tuple[str, str]:
    network = row.network.removesuffix(" model.dropout=0.2")
    classes = {"imagenet": 1000, "cifar100": 100, "coco": 80, "cifar10": 10, "svhn": 10}.get(row.data, 2)
    [exact] = [one for one in all_reference_counts() if (one.network, one.num_classes) == (network, classes)]
    return judge(row, counted(exact.params, exact.macs, exact.input_size), classes)


@pytest.mark.parametrize(("table", "row"), RUNNABLE, ids=[f"{table}-{row.row}" for table, row in RUNNABLE])
def test_every_row_has_an_exact_count_that_agrees_with_what_is_printed(table: str, row: PublishedRow) -> None:
    verdict, reason = verdict_of_exact_counts(row)
    assert verdict in (CERTIFIED, KNOWN)
    # No note speaks of a discrepancy that is not there.
    assert all(
        part in reason.split("; ") for part in row.note.split("; ") if part.startswith(("parameters: ", "MACs: "))
    )


def test_the_docs_count_the_rows_that_are_certified() -> None:
    verdicts = [verdict_of_exact_counts(row)[0] for _, row in RUNNABLE]
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "tables.md").read_text(encoding="utf-8")
    [said] = re.findall(
        r"all (\d+) rows .*: (\d+) agree with every printed figure, (\d+) carry a known", " ".join(page.split())
    )
    assert [*map(int, said)] == [len(verdicts), verdicts.count(CERTIFIED), verdicts.count(KNOWN)]


def test_counts_printed_of_detectors_that_are_reference_lines_are_those_of_our_networks() -> None:
    """torchvision's alone; it counts an untrained Mask R-CNN, which detects nothing, and so Faster R-CNN's multiply-adds."""
    lines = {
        row.label: row
        for table in tables().values()
        for row in table.rows
        if {"box_ap", "mask_ap"} & row.printed.keys() and not row.runnable and (row.params or row.macs)
    }
    assert set(lines) == {"fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"}
    faster, mask = (
        next(one for one in all_reference_counts() if one.network.startswith(f"{family}_resnet50_fpn_torchvision"))
        for family in ("faster_rcnn", "mask_rcnn")
    )
    of_boxes, of_masks = lines["fasterrcnn_resnet50_fpn"], lines["maskrcnn_resnet50_fpn"]
    assert rounds_to(faster.params, of_boxes.params) and rounds_to(mask.params, of_masks.params)
    assert rounds_to(faster.macs, of_boxes.macs) and rounds_to(faster.macs, of_masks.macs)
    assert of_masks.note.endswith("with 100 of them 187.59e9") and rounds_to(mask.macs, "187.59e9")


def test_verdicts_are_printed_and_the_same_network_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def count_calls(model: Any, image: Any, **how: Any) -> Any:
        measured.append(image)
        return build(model, image, **how)

    monkeypatch.setattr(counting, "build", count_calls)
    monkeypatch.setattr(certify, "tables", lambda: some_rows())
    assert main([]) == 0
    out = capsys.readouterr().out
    assert len(measured) == 3  # ResNet-20, DenseNet-40 without dropout and with it
    assert "269,722" in out and "0.27e6" in out and "264,812,928" in out
    assert "4 rows: 4 certified, 0 with a known discrepancy, 0 that fail" in " ".join(out.split())


def test_a_row_that_fails_is_named_and_the_exit_code_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [resnet, *_] = some_rows().values()
    wrong = dataclasses.replace(resnet.rows[0], params="0.28e6")
    missing = dataclasses.replace(resnet.rows[0], row="resnet21")
    table = dataclasses.replace(resnet, rows=(wrong, missing))
    monkeypatch.setattr(certify, "tables", lambda: {table.name: table})
    assert main(["resnet_table6"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "FAILS: 269,722 parameters, printed 0.28e6" in out
    assert "FAILS: experiment=resnet_table6 does not compose this row" in out
    assert "2 rows: 0 certified, 0 with a known discrepancy, 2 that fail" in out


def some_rows() -> dict[str, PublishedTable]:
    """Four rows of two tables, three networks."""
    resnet = tables()["resnet_table6"].pick(["resnet20"])
    densenet = tables()["densenet_table2"].pick(
        ["densenet40_k12-c10", "densenet40_k12-c10_plus", "densenet40_k12-svhn"]
    )
    return {table.name: table for table in (resnet, densenet)}


def test_a_table_without_networks_of_this_suite_is_refused_with_those_that_have_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["resnext_tabel3"]) == 2
    error = capsys.readouterr().err
    assert "no table 'resnext_tabel3'" in error and "did you mean 'resnext_table3'" in error
    assert error.count("\n") == 1 and all(name in error for name in ("densenet_figure3", "unet_table2"))
    assert main(["mask_rcnn_table1"]) == 2


@pytest.mark.slow
def test_every_row_of_every_table_and_every_reference_count_is_certified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network is counted once; those that no row has by themselves."""
    judged: dict[Any, Complexity] = {}

    def judge_and_keep(row: PublishedRow, cost: Complexity, num_classes: int) -> tuple[str, str]:
        judged[reference_counts_of(row.network, cost.input_size, num_classes)] = cost
        return judge(row, cost, num_classes)

    monkeypatch.setattr(certify, "judge", judge_and_keep)
    assert main([]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{len(RUNNABLE)} rows: " in out and ", 0 that fail" in out
    for name, known in zip(REFERENCE_COUNTS, all_reference_counts(), strict=True):
        cost = judged.get(known)
        if cost is None:
            with counting.Uninitialised():
                net, size = reference_network(name)
            cost = measure(net, size)
        check_cost(name, cost)
