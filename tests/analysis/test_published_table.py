"""Published tables beside runs: which runs belong to a row, what differs, what may be said, and the files that come of it."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.benchmark_command import command
from support.records import make_run

from benchmarks.analysis.estimates import Estimate, estimate_of_values
from benchmarks.analysis.published import PublishedRow, PublishedTable, tables
from benchmarks.analysis.reproduction import DIFFERS, NOT_RUN, REPRODUCED, UNDER_POWERED, Line, judge, lines, margin
from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.performance.forecasting import keep
from benchmarks.records.runs import load_runs
from benchmarks.report.forecasts import with_forecasts
from benchmarks.report.published_table import HEADERS, as_csv, latex, legend, markdown, texts

main = command("report")

TABLE = "resnext_table7"
ROW = next(row for row in tables()[TABLE].rows if row.network == "resnext29_8x64d" and row.data == "cifar10")


@cache
def composed(overrides: tuple[str, ...]) -> Trial:
    [trial] = expand(overrides, multirun=False)
    assert isinstance(trial, Trial)
    return trial


def finished(root: Path, *overrides: str, error: float, **changes: Any) -> Path:
    """A finished run of what the overrides compose to, with its configuration."""
    trial = composed(overrides)
    config = trial.config | {"output_root": str(root)}
    folder = make_run(
        root,
        **{
            "data": config["data"]["name"],
            "family": config["family"],
            "name": config["name"],
            "recipe": config["recipe"]["name"],
            "seed": config["seed"],
            "overrides": trial.overrides,
            "experiment": config["experiment"],
            "row": config["row"],
            "metrics": {"test/top1_err": error, "test/n": 10_000},
            "counts": {"train": 45_000},
            **changes,
        },
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def of_row(root: Path, row: PublishedRow = ROW) -> list[Line]:
    return [line for line in lines(tables()[TABLE], load_runs(root)[0]) if line.row == row]


# Verdicts


def of(values: list[float]) -> Estimate | None:
    return estimate_of_values(values, percent=True) if values else None


def test_a_difference_within_the_margin_is_reproduced_by_its_whole_interval() -> None:
    # Mean 3.7, s = 0.1, n = 10 against a mean of 10: half-width 2.262 x 0.1 x sqrt(0.2) = 0.101.
    values = [3.7 + 0.1 * z for z in (-1.5, -1, -0.5, -0.25, 0, 0, 0.25, 0.5, 1, 1.5)]
    spread = float(np.std(values, ddof=1))
    half = 2.2622 * spread * math.sqrt(1 / 10 + 1 / 10)
    assert judge(of(values), 3.65, 10, 0.05 + half + 1e-4)[0] == REPRODUCED
    assert judge(of(values), 3.65, 10, 0.05 + half - 1e-4)[0] == UNDER_POWERED
    assert judge(of(values), 3.7 - half - 1e-4, 10, 0.01)[0] == DIFFERS
    assert judge(of(values), 3.7 - half + 1e-4, 10, 0.01)[0] == UNDER_POWERED


def test_a_single_run_of_the_paper_widens_the_interval() -> None:
    values = [3.0, 3.1, 3.2]  # s = 0.1; t(2) = 4.303
    limit = 4.3027 * 0.1 * math.sqrt(1 / 3 + 1)
    assert judge(of(values), 3.1 - limit - 1e-3, 1, 0.1)[0] == DIFFERS
    assert judge(of(values), 3.1 - limit + 1e-3, 1, 0.1)[0] == UNDER_POWERED


@pytest.mark.parametrize(
    ("values", "verdict", "said"),
    [
        ([], NOT_RUN, ""),
        ([3.65], UNDER_POWERED, "1 run, no interval"),
        ([3.6] * 3, UNDER_POWERED, "3 equal runs"),
        ([3.6, 3.7], UNDER_POWERED, "1 more"),
    ],
)
def test_without_a_spread_nothing_is_claimed(values: list[float], verdict: str, said: str) -> None:
    found, reason = judge(of(values), 3.65, 10, 0.4)
    assert found == verdict and said in reason


def test_equal_networks_are_said_to_differ_in_five_of_a_hundred_cases() -> None:
    rng = np.random.default_rng(0)
    for n, runs in ((3, 1), (5, 10)):
        papers = rng.normal(5, 0.2 / math.sqrt(runs), 500)
        ours = rng.normal(5, 0.2, (500, n))
        differ = sum(
            judge(of(list(values)), float(paper), runs, 1e-6)[0] == DIFFERS
            for values, paper in zip(ours, papers, strict=True)
        )
        assert 0.02 < differ / 500 < 0.08


def alike(n: int, mean: float, deviation: float) -> Estimate | None:
    """Of n values with this mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    return of((mean + deviation * values / values.std(ddof=1)).tolist())


def test_the_reason_names_the_seeds_that_would_tell() -> None:
    said = set()
    for mean, deviation, within in itertools.product((5.65, 5.9, 6.0, 6.05, 6.3), (0.05, 0.1, 0.3, 0.8), (0.1, 0.35)):
        for runs in (1, 10, None):
            verdict, reason = judge(alike(3, mean, deviation), 6.0, runs, within)
            if verdict != UNDER_POWERED:
                continue
            if found := re.search(r"about (\d+) more seeds? would tell", reason):
                needed = 3 + int(found[1])
                assert judge(alike(needed, mean, deviation), 6.0, runs, within)[0] != UNDER_POWERED
            else:
                assert reason.endswith("; 100 seeds would not tell")
                needed = 101
            fewer = judge(alike(needed - 1, mean, deviation), 6.0, runs, within)
            assert fewer[0] == UNDER_POWERED and (needed > 100 or "; about 1 more seed would tell" in fewer[1])
            said.add(needed)
    assert {4, 5, 101} <= said


def test_the_margin_is_the_sampling_of_the_test_images() -> None:
    # Wilson's interval of 365 of 10,000 by hand.
    z2, rate, images = 1.959964**2, 0.0365, 10_000
    half = math.sqrt(z2 * (rate * (1 - rate) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    assert margin("top1_err", 3.65, images) == pytest.approx(100 * half, rel=1e-6)
    assert margin("seg", 0.9203, 17) == pytest.approx(0.00797)
    assert margin("rand_error", 0.0382, 30) == pytest.approx(0.00382)


# Which runs belong to a row


def test_runs_of_a_row_are_found_however_they_were_started(tmp_path: Path) -> None:
    finished(tmp_path, "model=resnext", "data=cifar10", error=3.6)
    finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", "seed=1", error=3.8)
    finished(tmp_path, "model=resnext", "data=cifar10", "model.base_width=32", "seed=2", error=9.0)
    finished(tmp_path, "model=resnext", "data=cifar10", "recipe=common", "seed=3", error=9.0)
    [line] = of_row(tmp_path)
    assert sorted(line.values) == [3.6, 3.8]
    assert line.difference == pytest.approx(3.7 - 3.65)


def test_what_differs_is_found_by_comparing_configurations(tmp_path: Path) -> None:
    finished(
        tmp_path, f"experiment={TABLE}", f"row={ROW.row}", "recipe.epochs=30", "recipe.optimizer.lr=0.05",
        "trainer.precision=bf16-mixed", error=5.0,
    )  # fmt: skip
    [line] = of_row(tmp_path)
    assert {"epochs 30 (300)", "optimizer lr=0.05 (lr=0.1)", "precision bf16-mixed (32-true)"} <= {*line.differences}
    # Of the paper's own set-up, which no configuration here has.
    assert {"devices 1 (8)", "train images 45000 (50000)"} <= {*line.differences}
    assert len(line.differences) == 5


@pytest.mark.parametrize("content", [None, "a: [", "text"])
def test_a_run_without_its_configuration_does_not_stop_the_table(content: str | None, tmp_path: Path) -> None:
    config = finished(tmp_path, "model=resnext", "data=cifar10", error=3.6) / "config.yaml"
    config.unlink() if content is None else config.write_text(content)
    [line] = of_row(tmp_path)
    assert line.values == [3.6] and line.differences == ("what its config.yaml, which cannot be read, would tell",)


def test_runs_on_other_data_are_shown_but_not_compared(tmp_path: Path) -> None:
    finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", "data=digits", error=1.5)
    [line] = of_row(tmp_path)
    assert line.values == [1.5] and line.difference is None
    assert line.verdict() == (NOT_RUN, "on other data")
    assert "data digits (cifar10)" in line.differences
    assert not any("num classes" in said or said.startswith("mean") for said in line.differences)


def test_images_that_were_compressed_again_are_other_data(tmp_path: Path) -> None:
    folder = finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", error=3.6)
    assert of_row(tmp_path)[0].difference is not None
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"dataset": {"notes": "lossy JPEG"}}))
    [line] = of_row(tmp_path)
    assert line.difference is None and line.verdict() == (NOT_RUN, "on other data")
    assert "images compressed again (as published)" in line.differences


@pytest.mark.parametrize(
    "change",
    [{"code": {"training_sha256": "b" * 64}}, {"dataset": {"sha256": "c" * 64}}, {"protocol": {"checkpoint": "best"}}],
    ids=lambda change: next(iter(change)),
)
def test_other_code_data_or_protocol_is_shown_apart(change: dict[str, Any], tmp_path: Path) -> None:
    first = {"code": {"training_sha256": "a" * 64}}
    for seed in (0, 1):
        finished(tmp_path, "model=resnext", "data=cifar10", f"seed={seed}", error=3.6, **first)
    finished(tmp_path, "model=resnext", "data=cifar10", "seed=2", error=9.0, **(first | change))
    found = of_row(tmp_path)
    assert [line.values for line in found] == [[3.6, 3.6], [9.0]]
    assert all(len(line.differences) > 2 for line in found)
    assert found[0].differences[-1] != found[1].differences[-1]


def test_failed_and_unfinished_runs_count_for_nothing(tmp_path: Path) -> None:
    finished(tmp_path, "model=resnext", "data=cifar10", error=3.6, status="failed")
    [line] = of_row(tmp_path)
    assert not line.runs and line.verdict() == (NOT_RUN, "")


# What is written


def test_the_csv_holds_every_figure_as_a_number(tmp_path: Path) -> None:
    for seed, error in enumerate((3.5, 3.7, 3.9)):
        finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", f"seed={seed}", error=error)
    found = lines(tables()[TABLE], load_runs(tmp_path)[0])
    rows = list(csv.DictReader(as_csv(found).splitlines()))
    assert [row["label"] for row in rows] == [row.label for row in tables()[TABLE].rows]
    [ours] = [row for row in rows if row["n"] != "0"]
    assert float(ours["mean"]) == pytest.approx(3.7) and float(ours["paper"]) == 3.65
    half = 4.3027 * 0.002 / math.sqrt(3) / (0.037 * 0.963)  # on the logit scale
    assert float(ours["high"]) == pytest.approx(100 / (1 + 0.963 / 0.037 * math.exp(-half)), rel=1e-3)
    assert ours["basis"] == "seeds alone"
    runs = load_runs(tmp_path)[0]
    assert float(ours["train_flops"]) == pytest.approx(sum(run.train_flops or 0 for run in runs))
    assert ours["verdict"] == UNDER_POWERED


def test_an_interval_of_the_seeds_alone_says_so(tmp_path: Path) -> None:
    for seed, error in enumerate((3.5, 3.7, 3.9)):
        metrics = {"test/top1_err": error, "test/top1_err_10crop": error, "test/n": 10_000}
        finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", f"seed={seed}", error=error, metrics=metrics)
    table = replace(tables()[TABLE], rows=(replace(ROW, printed={"top1_err": "3.65", "top1_err_10crop": "3.60"}),))
    known, of_crops = lines(table, load_runs(tmp_path)[0])
    assert known.estimate is not None
    known = replace(known, estimate=replace(known.estimate, test_set="a" * 64))  # as with stored outcomes
    shown = [text["ours"] for text in texts([known, of_crops])]
    assert shown == ["3.70 [3.23, 4.23]", "3.70 [3.23, 4.23], seeds alone"]
    assert [any(note.startswith("seeds alone: ") for note in legend(table, [line])) for line in (known, of_crops)] == [
        False,
        True,
    ]


def one_line_table(label: str, note: str = "") -> tuple[PublishedTable, list[Line]]:
    row = PublishedRow(
        "a", label, "digits", "net", "r", "", "", {"top1_err": "3.60"}, "mean of 10", "paper_x", "verified", note
    )
    return PublishedTable("t_1", "A & B", "Paper", (row,)), [Line(row, "top1_err", (), ())]


def test_markup_in_labels_stays_text() -> None:
    table, found = one_line_table("50 % | a_b & {c} #1 ~^\\", "see_this")
    written = markdown(table, found)
    [row] = [text for text in written.splitlines() if "50 %" in text]
    assert len(re.findall(r"(?<!\\)\|", row)) == len(HEADERS) + 1 and r"\|" in row
    tex = latex(table, found)
    [row] = [text for text in tex.splitlines() if text.startswith("50 ")]
    assert r"50 \% | a\_b \& \{c\} \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}" in row
    assert row.endswith(r"\\") and len(re.findall(r"(?<!\\)&", row)) == 8
    assert "3.60 (mean of 10)" in row  # as printed


def test_a_rows_name_stands_once_over_its_figures(tmp_path: Path) -> None:
    table = tables()["resnext_table4"]
    shown = texts(lines(table, []))
    assert [text["figure"] for text in shown[:2]] == ["top-1 err.", "top-5 err."]
    assert shown[0]["row"] and not shown[1]["row"]


# The command


def test_the_command_prints_writes_and_fills_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, error in enumerate((3.5, 3.7, 3.9)):
        finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", f"seed={seed}", error=error)
    assert main([TABLE, str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3.70 [3.23, 4.23]" in out and UNDER_POWERED in out and "3.65 (mean of 10)" in out
    for suffix in ("md", "tex", "csv"):
        assert "mean of 10" in (tmp_path / "tables" / f"{TABLE}.{suffix}").read_text()
    page = (tmp_path / "report.html").read_text()
    assert f'id="table-{TABLE}"' in page and "3.70 [3.23, 4.23]" in page
    assert main([TABLE, str(tmp_path), "--row", ROW.row]) == 0
    assert "16×64d" not in capsys.readouterr().out


def test_before_any_run_a_table_shows_the_papers_figures_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([TABLE]) == 0 and main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "3.65 (mean of 10)" in out and NOT_RUN in out and "0 of 4" in out
    assert not list(tmp_path.iterdir())
    assert main([TABLE, "elsewhere"]) == 2


def test_a_run_of_an_unknown_number_of_test_images_is_not_judged(tmp_path: Path) -> None:
    for seed in range(3):
        changes = {"metrics": {"test/top1_err": 3.6 + 0.01 * seed, "test/n": None}}
        finished(tmp_path, f"experiment={TABLE}", f"row={ROW.row}", f"seed={seed}", error=3.6, **changes)
    [line, *_] = of_row(tmp_path)
    assert line.verdict() == (UNDER_POWERED, "the number of test images is not recorded")
    score = replace(line, row=replace(ROW, printed={"mask_ap": "0.35"}), figure="mask_ap")
    of_scores = replace(score, estimate=estimate_of_values([0.350, 0.351, 0.349], percent=False))
    assert of_scores.verdict()[0] == REPRODUCED, "its margin is of no number of images"


def test_the_list_counts_what_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        finished(tmp_path, "model=resnext", "data=cifar10", f"seed={seed}", error=3.6)
        finished(tmp_path, "model=resnext", "data=cifar10", f"seed={seed}", "recipe.epochs=30", error=5.6)
    limited = ("model=resnext", "data=cifar10", "seed=9", "trainer.limit_train_batches=2")
    finished(tmp_path, *limited, error=90.0)
    finished(tmp_path, f"experiment={TABLE}", "row=" + tables()[TABLE].rows[2].row, "data=digits", error=3.6)
    finished(tmp_path, "model=resnet", "data=cifar10", "model.depth=110", error=6.0, status="failed")
    of_resnet = ("model=resnet", "data=cifar10", "model.depth=56")
    finished(tmp_path, *of_resnet, "seed=1", error=7.0, dataset={"notes": "re-encoded (lossy JPEG)"})
    finished(tmp_path, *of_resnet, "seed=2", error=7.0, protocol={"checkpoint": "imported"})
    assert main(["--list", str(tmp_path)]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "1 of 4" in listed[TABLE] and listed[TABLE].split()[-1] == "2"
    assert "0 of 6" in listed["resnet_table6"]
    assert "0 of 4" in listed["resnext_table8"] and "reference lines" in listed["mask_rcnn_table3"]
    assert set(tables()) <= set(listed)


def test_every_table_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {name: main([name]) for name in tables()} == dict.fromkeys(tables(), 0)


def test_reference_lines_have_no_forecast(tmp_path: Path) -> None:
    """Nor has their table an experiment that could be composed."""
    keep(tmp_path, {"a": {"train_flops": 1e9}})
    for table in tables().values():
        if not any(row.runnable for row in table.rows):
            assert with_forecasts(lines(table, ()), table, tmp_path) == lines(table, ())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnext_table77"], "no table and no folder 'resnext_table77'; the tables are resnext_table1, "),
        ([TABLE, "--row", "resnext29_8x64d"], f"{TABLE} has no row 'resnext29_8x64d' (did you mean "),
        (["--row", "a"], "--row needs a table"),
        ([".", TABLE], f"report takes a table and one folder after it, not '. {TABLE}'"),
        ([TABLE, ".", "."], "report takes a table and one folder after it"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_read_is_named_and_fails_a_strict_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, "model=resnext", "data=cifar10", error=3.6)
    torn = finished(tmp_path, "model=resnext", "data=cifar10", "seed=1", error=3.6) / "record.json"
    torn.write_text(torn.read_text()[:200])
    for arguments in ([str(tmp_path)], [TABLE, str(tmp_path)]):
        assert main(arguments) == 0
        assert main([*arguments, "--strict"]) == 1
        assert str(torn) in capsys.readouterr().err
