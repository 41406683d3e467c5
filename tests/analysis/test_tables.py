"""The published tables: every file is complete and consistent, and every experiment trains the rows of its table."""

import csv
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from benchmarks.analysis.published import FIGURES, WORDS, tables
from benchmarks.complexity.reference_counts import TABLES, ReferenceCounts, all_reference_counts
from benchmarks.config.compose import expand, paper_facts
from benchmarks.config.folders import choices, read_option
from benchmarks.config.trial import CONF, Trial
from benchmarks.report.certify import rounds_to
from benchmarks.units import short_value

PUBLISHED = [path.stem for path in sorted(TABLES.glob("*.csv")) if path.stem in tables()]
EXPERIMENTS = [name for name, table in tables().items() if any(row.runnable for row in table.rows)]
OF_RESNEXT = [name for name in EXPERIMENTS if "Aggregated residual" in tables()[name].paper]
# One of each task and paper; a slow test composes the others.
COMPOSED = {*OF_RESNEXT, "resnet_table6", "densenet_table3", "unet_table1", "detectron2_mask"}
STATUSES = {"verified", "computed", "inferred", "memory-only"}
STATISTICS = re.compile(r"|1|mean|(mean|median|best) of [1-9]\d*")
# Of ImageNet-5K alone: among its 5,000 classes.
OTHER_FIGURES = {"top1_err_5k_way", "top5_err_5k_way"}


def lines(table: str) -> list[dict[str, str]]:
    with (TABLES / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_every_table_has_its_lines() -> None:
    assert len(tables()) == 36
    assert all(table.rows for table in tables().values())
    assert {path.stem for path in TABLES.glob("*.csv")} - tables().keys() == {"tables", "certificates"}
    for table in tables().values():
        assert table.title and re.search(r"20\d\d|README", table.paper)


@pytest.mark.parametrize("table", PUBLISHED)
def test_every_line_is_complete(table: str) -> None:
    seen = set()
    for line in lines(table):
        assert None not in line and None not in line.values(), line
        figures = {name: line[name] for name in line if name not in WORDS}
        assert figures.keys() <= FIGURES.keys() | OTHER_FIGURES
        assert line["label"] and line["data"] and line["source"]
        assert line["status"] in STATUSES
        assert STATISTICS.fullmatch(line["statistic"]) and (not line["statistic"] or any(figures.values()))
        assert bool(line["network"]) == bool(line["row"]) == bool(line["recipe"])
        assert re.fullmatch(r"[A-Za-z0-9_.+-]*", line["row"])
        for name, figure in figures.items():
            limit = 100 if name in OTHER_FIGURES or FIGURES[name].percent else 1
            assert not figure or 0 < float(figure) < limit
        for name in ("params", "macs"):
            assert re.fullmatch(r"|\d+(\.\d+)?e[69]", line[name])
        # A top-5 error is below the top-1 error, and ten crops or a larger one below one crop of 224.
        for lower, higher in (("top5", "top1"), ("_10crop", ""), ("_320", "")):
            for name in figures:
                other = name.replace(lower, higher)
                if other != name and figures[name] and figures.get(other):
                    assert float(figures[name]) < float(figures[other]), line
        key = (line["label"], line["network"], line["note"])
        assert key not in seen
        seen.add(key)


@cache
def trials(table: str) -> list[Trial]:
    """Those that the table's experiment composes, each of its rows."""
    composed = expand([f"experiment={table}"], multirun=False)
    assert all(isinstance(trial, Trial) for trial in composed), composed
    return [trial for trial in composed if isinstance(trial, Trial)]


@pytest.mark.parametrize(
    "table", [pytest.param(name, marks=() if name in COMPOSED else pytest.mark.slow) for name in EXPERIMENTS]
)
def test_an_experiment_trains_exactly_the_rows_of_its_table(table: str) -> None:
    launched = []
    for trial in trials(table):
        config = trial.config
        model = [f"{k}={short_value(v)}" for k, v in sorted(trial.overrides.items()) if k.startswith("model.")]
        network = " ".join([config["name"], *model])
        launched.append((config["row"], config["data"]["name"], network, config["recipe"]["name"]))
    assert launched == [(row.row, row.data, row.network, row.recipe) for row in tables()[table].rows if row.runnable]
    assert len(set(launched)) == len(launched)


@pytest.mark.parametrize("table", OF_RESNEXT)
def test_networks_of_the_resnext_paper_have_the_stride_in_the_3x3(table: str) -> None:
    """Xie et al. 2017, §4, of the ResNets that they compare with, too; He et al. 2016 have it in the 1x1 before."""
    for trial in trials(table):
        assert trial.config["model"].get("backbone", trial.config["model"])["stride_in"] == "3x3"


def test_the_stride_in_the_3x3_costs_the_1x1_before_it_four_times_as_much() -> None:
    """By hand: in the first blocks of conv3 and conv4 of an image of 800x1344, and of conv5 for each of 300 regions."""
    more = 256 * 128 * (200 * 336 - 100 * 168) + 512 * 256 * (100 * 168 - 50 * 84) + 300 * 1024 * 512 * (14**2 - 7**2)
    regions = "model.post_nms=[2000, 300] model.pre_nms=[12000, 6000] model.regions_per_image=64"
    for depth, macs in ((50, 326_793_216_000), (101, 406_340_812_800)):
        assert exact(f"faster_rcnn_resnet{depth}_c4 model.backbone.stride_in=3x3 {regions}", 80).macs == macs + more


def test_every_experiment_with_rows_is_a_table() -> None:
    with_rows = {name for name in choices("experiment") if read_option("experiment", name).get("rows")}
    assert with_rows & tables().keys() == set(EXPERIMENTS)


@pytest.mark.parametrize("table", EXPERIMENTS)
def test_the_head_of_an_experiment_cites_the_paper_and_says_how_to_run_it(table: str) -> None:
    text = (CONF / "experiment" / f"{table}.yaml").read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[0] == "# @package _global_" and f"#   python run.py experiment={table} seed=0,1,2" in head
    assert tables()[table].paper.split(",")[0].rstrip(".") in head[1]
    assert paper_facts(table)
    # What it says to expect is what the table says.
    comment = " ".join(line.removeprefix("# ") for line in head)
    for row in tables()[table].rows:
        for said in re.findall(rf"(?<![\w-]){re.escape(row.row)} (\d[\d.]*\d)", comment) if row.row else ():
            assert float(said) in row.figures.values(), (row.row, said)


def test_figures_printed_twice_agree_or_carry_a_note() -> None:
    """The same network, recipe and data in two tables: the figures agree to the coarser rounding."""
    printed = defaultdict(list)
    for name, table in tables().items():
        for line, row in zip(lines(name), table.rows, strict=True) if table.rows else ():
            for figure in row.figures if row.runnable else ():
                printed[row.data, row.network, row.recipe, figure].append((line[figure], row))
    several = 0
    for figures in printed.values():
        several += len(figures) > 1
        for text, row in figures:
            for other, twin in figures:
                unit = 10 ** -min(len(one.partition(".")[2]) for one in (text, other))
                assert abs(float(text) - float(other)) <= 0.501 * unit or row.note or twin.note, (text, other, row)
    assert several >= 15


def test_counts_that_are_printed_twice_are_the_same() -> None:
    printed = defaultdict(set)
    for table in tables().values():
        for row in table.rows:
            if row.runnable and row.params:
                printed[row.network.split()[0]].add(row.params)
    assert printed and all(len(counts) == 1 for counts in printed.values()), printed


def exact(network: str, classes: int = 1000) -> ReferenceCounts:
    [found] = [c for c in all_reference_counts() if (c.network, c.num_classes) == (network, classes)]
    return found


def test_block_parameters_of_resnext_table_2_are_its_formula() -> None:
    """C (256 d + 9 d² + 256 d), about 70k in all five, and the networks that such blocks make."""
    rows = [re.match(r"(\d+)x(\d+)d", row.row) for row in tables()["group_convolution"].rows]
    pairs = [(int(match[1]), int(match[2])) for match in rows if match]
    assert len(pairs) == 5
    assert all(round(c * (256 * d + 9 * d * d + 256 * d), -3) in (70_000, 71_000) for c, d in pairs)

    def network(c: int, d: int) -> int:
        """Parameters of ResNet-50 by hand, with C groups of d channels in the first stage."""
        total = 64 * 3 * 49 + 2 * 64 + 2048 * 1000 + 1000
        channels = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            inner, out = c * d * 2**stage, 256 * 2**stage
            for block in range(blocks):
                total += channels * inner + 9 * inner * inner // c + inner * out + 2 * (inner + inner + out)
                total += (channels * out + 2 * out) if block == 0 else 0
                channels = out
        return total

    for c, d in pairs:
        assert network(c, d) == exact(f"resnext50_{c}x{d}d").params


def test_reference_counts_are_unambiguous() -> None:
    keys = [(c.network, c.input_size, c.num_classes) for c in all_reference_counts()]
    assert len(set(keys)) == len(keys) > 70
    assert {c.status for c in all_reference_counts()} == {"verified", "computed"}
    assert all(c.source for c in all_reference_counts())


def test_package_ships_the_tables() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"tables/*.csv"' in text


def test_detectors_have_the_counts_that_torchvision_publishes() -> None:
    """Of Mask R-CNN it counts an untrained network, which draws no mask; ours has 100 of them, of 91 outputs in place of 80."""
    published = {row.label.replace("rcnn", "_rcnn"): row for row in tables()["torchvision_detection"].rows}
    known = {one.name: one for one in all_reference_counts() if one.name.endswith("_torchvision")}
    assert {f"{name}_torchvision" for name in published} == known.keys()
    for name, row in published.items():
        ours = known[f"{name}_torchvision"]
        assert rounds_to(ours.params, row.params) and ours.input_size == (3, 800, 800)
        masks = 100 * (529_858_560 + 28 * 28 * 256 * (91 - 80)) if name.startswith("mask") else 0
        assert rounds_to(ours.macs - masks, row.macs), ours.macs - masks
