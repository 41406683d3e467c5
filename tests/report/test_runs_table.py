"""The terminal table: complete, within its width, and honest about what is a mean."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.benchmark_command import command
from support.browser import Page
from support.records import make_run

from benchmarks import terminal
from benchmarks.analysis.seeds import baseline_comparisons
from benchmarks.config.trial import CONF
from benchmarks.records.locks import LAUNCHER, Lock
from benchmarks.records.outcomes import OUTCOMES
from benchmarks.records.runs import load_runs
from benchmarks.report import sections
from benchmarks.report.page import write_page
from benchmarks.report.runs_table import print_runs

main = command("report")

WIDTHS = (80, 100, 160)
LONG = "resnet29_with_a_rather_long_name_that_somebody_chose_in_a_hurry"


def render(root: Path, width: int) -> str:
    output = io.StringIO()
    print_runs(load_runs(root)[0], Console(file=output, width=width, force_terminal=False))
    return output.getvalue()


def line_of(text: str, *parts: str) -> str:
    (line,) = [line for line in text.splitlines() if all(part in line for part in parts)]
    return line


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Path]:
    """Two data sets, seeds, an override, a failed, a running and an interrupted run, a long name."""
    for seed in range(3):
        make_run(tmp_path, seed=seed, metrics={"test/top1_err": 1.0 + seed})
    make_run(tmp_path, overrides={"recipe.epochs": 5})
    make_run(tmp_path, name="resnet20", complexity={"params": 34_426_698, "macs": 5_387_266_048})
    make_run(tmp_path, name="densenet40_k12", status="failed")
    lock = Lock.take(make_run(tmp_path, name="densenet40_k12", status="running", seed=1) / LAUNCHER)
    make_run(tmp_path, name=LONG, status="interrupted", error="SIGTERM from the scheduler")
    make_run(tmp_path, task="segmentation", metrics={"test/dice": 0.912}, compute={"wall_s": 86_390.0})
    yield tmp_path
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_terminal_and_no_number_is_cut(mixed: Path, width: int) -> None:
    text = render(mixed, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "\x1b" not in text
    for status in ("failed", "running", "interrupted"):
        assert re.search(rf"s +{status} *$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("status", "named", "cause"),
    [("failed", "failed", "it broke"), ("running", "killed", "its processes died without a word")],
)
def test_what_has_not_finished_is_named_by_its_seed_beside_those_that_have(
    tmp_path: Path, status: str, named: str, cause: str
) -> None:
    for seed in range(3):
        make_run(tmp_path, name="resnet20", seed=seed)
    make_run(tmp_path, name="resnet20", seed=3, status=status, error="it broke" if status == "failed" else None)
    text = render(tmp_path, 160)
    assert " running" not in text
    assert line_of(text[text.index("Not finished") :], named, "resnet20 · seed 3", cause)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_holds_the_records_values(mixed: Path, width: int) -> None:
    folder = mixed / "digits" / "resnet20" / "resnet_digits" / "seed0"
    record = json.loads((folder / "record.json").read_text())
    row = line_of(render(mixed, width), "34.4 M")
    error = f"{record['metrics']['test/top1_err']:.2f} %"
    flops = f"{record['compute']['train_flops'] / 1e12:.0f} T"
    cells = ["resnet20", "0", "34.4 M", "5.39 G", flops, error, "450", "32 s", "ok"]
    assert re.search(" +".join(map(re.escape, cells)), row)


def test_of_more_rows_than_a_terminal_keeps_the_first_are_printed_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in itertools.product(("resnet20", "resnet32", "resnet44"), range(2)):
        make_run(tmp_path, name=name, seed=seed)
    monkeypatch.setattr(terminal, "MOST", 6)
    assert "report.html" not in render(tmp_path, 100)
    monkeypatch.setattr(terminal, "MOST", 2)
    text = render(tmp_path, 100)
    assert "… and 4 more, which report.html has" in text, "of six runs"
    assert re.search(r"… and 1 more\s*$", text, re.MULTILINE), "of three means, which are on no page"
    rows = [line for line in text.splitlines() if line.rstrip().endswith("ok")]
    assert len(rows) == 2 and all("resnet20" in row for row in rows)
    shown = [row[0][0] for row in Page(write_page(tmp_path)).runs()]
    assert [shown.count(name) for name in ("resnet20", "resnet32", "resnet44")] == [2, 2, 2]


def test_a_terminal_too_narrow_for_the_numbers_wraps_the_lines_and_cuts_none(mixed: Path) -> None:
    wide, narrow = render(mixed, 160), render(mixed, 40)
    numbers = re.compile(r"(?<![\w.])\d[\d.,]* (?:[kMGT%s]|min \d+ s|h \d+ min)(?!\w)")
    assert "34.4 M" in numbers.findall(wide)
    assert sorted(numbers.findall(narrow)) == sorted(numbers.findall(wide))


@pytest.mark.parametrize("width", WIDTHS)
def test_causes_of_failure_are_told_in_full(mixed: Path, width: int) -> None:
    text = render(mixed, width)
    below = text[text.index("Not finished") :]
    words = below.split()
    for cause in ("failed RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", "interrupted SIGTERM from"):
        assert set(cause.split()) <= set(words)


def test_a_long_name_is_whole_in_the_model_column(tmp_path: Path) -> None:
    make_run(tmp_path, name=LONG)
    lines = render(tmp_path, 80).splitlines()
    rule = next(index for index, line in enumerate(lines) if set(line.strip()) == {"─"})
    start = lines[rule - 1].index("model")
    end = lines[rule - 1].index("seed")
    rows = itertools.takewhile(lambda line: "Reported" not in line, lines[rule + 1 :])
    assert "".join(line[start:end].strip() for line in rows) == f"●{LONG}"


def test_rows_are_sorted_by_data_set_then_model(mixed: Path) -> None:
    text = render(mixed, 160)
    order = [text.index(word) for word in ("densenet40_k12", "resnet20", "resnet29_with", "resnext29_8x4d", "unet_d4")]
    assert order == sorted(order)


@pytest.mark.parametrize("width", WIDTHS)
def test_data_set_and_recipe_are_named_only_when_there_is_more_than_one(
    mixed: Path, tmp_path_factory: pytest.TempPathFactory, width: int
) -> None:
    lines = [line.strip() for line in render(mixed, width).splitlines()]
    assert {"digits", "nuclei", "epochs=5"} <= set(lines)

    alone = tmp_path_factory.mktemp("alone")
    make_run(alone)
    text = render(alone, width)
    assert "digits" not in text and "recipe" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_overrides_of_all_runs_are_named_once_and_the_others_at_their_runs(tmp_path: Path, width: int) -> None:
    for seed in range(3):
        make_run(tmp_path, seed=seed, overrides={"recipe.epochs": 5})
        make_run(tmp_path, seed=seed, name="resnet20", overrides={"recipe.epochs": 5, "recipe.optimizer.lr": 0.2})
    text = render(tmp_path, width)
    assert text.count("epochs=5") == 1 and "In all runs: epochs=5. " in text
    assert [line.strip() for line in text.splitlines()].count("optimizer.lr=0.2") == 3


def test_an_override_of_nothing_is_not_shared_with_a_run_that_lacks_it(tmp_path: Path) -> None:
    make_run(tmp_path, overrides={"trainer.max_train_seconds": None})
    make_run(tmp_path, name="resnet20", overrides={})
    assert "In all runs" not in render(tmp_path, 120)


@pytest.mark.parametrize("width", WIDTHS)
def test_seeds_are_averaged_beside_their_number(mixed: Path, width: int) -> None:
    line = line_of(render(mixed, width), " ± ", " %", "digits")
    # Student's t of 1, 2 and 3 on the logit scale: ± 4.303 · 0.01 / sqrt 3 / (0.02 · 0.98) = 1.267 about log(0.02 / 0.98).
    assert re.search(r"digits +■ resnext29_8x4d +2\.00 ± 1\.00 % +\[0\.57, 6\.76\] +mean of 3", line)


def test_one_seed_is_never_a_mean(tmp_path: Path) -> None:
    make_run(tmp_path)
    make_run(tmp_path, name="resnet20", seed=1)
    text = render(tmp_path, 100)
    assert "mean" not in text.lower() and "±" not in text


def test_a_baseline_stands_beside_the_nets_of_its_own_test_set(tmp_path: Path) -> None:
    for fold, otsu in ((0, 0.885), (1, 0.7)):
        make_run(
            tmp_path, task="segmentation", seed=fold, overrides={"data.fold": fold}, baselines={"otsu_dice": otsu},
            dataset={"sha256": f"{fold}" * 64},
        )  # fmt: skip
    first, second = baseline_comparisons(load_runs(tmp_path)[0])
    assert [first.value, second.value] == [0.885, 0.7]
    assert [label for label, _ in first.nets] == ["unet_d4_c16 · data.fold=0 · seed 0"]
    assert [label for label, _ in second.nets] == ["unet_d4_c16 · data.fold=1 · seed 1"]


@pytest.mark.parametrize("width", WIDTHS)
def test_baselines_stand_beside_the_nets_dice(mixed: Path, width: int) -> None:
    text = render(mixed, width)
    below = text[text.index("Baselines") :]
    assert re.search(r"nuclei +Otsu \(baseline\) +Dice +88\.40 %", below)
    assert re.search(r"unet_d4_c16 +Dice +91\.20 %", below)


def test_a_metric_has_one_unit_in_all_tables() -> None:
    text = render(CONF.parent / "docs" / "evidence" / "detection", 160)
    said = re.findall(r"(Dice|mask AP) +([\d.]+(?: ± [\d.]+)?)( %|)", text)
    assert {name for name, *_ in said} == {"Dice", "mask AP"} and all(unit == " %" for *_, unit in said)
    below = text[text.index("Scores on nuclei") :]
    assert re.search(r"seed 0 +94\.14 % +88\.93 %", below) and not re.search(r"seed \d +0\.", below)


def test_each_data_sets_metric_is_named_as_it_is_shown(mixed: Path) -> None:
    text = render(mixed, 160)
    assert "test error (%) on digits; Dice (%) on nuclei" in text and re.search(r" Dice \d\d\.\d\d % ", text)


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    make_run(tmp_path, name="[red]resnet[/red]", family="resnet")
    make_run(tmp_path, name="resnet20", status="failed", error="[bold]no[/bold]\x1b[31m\nsecond line")
    text = render(tmp_path, 160)
    assert "[red]resnet[/red]" in text
    assert "[bold]no[/bold]�[31m second line" in text
    assert "\x1b" not in text


def test_no_runs() -> None:
    output = io.StringIO()
    print_runs([], Console(file=output))
    assert output.getvalue() == "No runs yet.\n"


def test_a_terminal_gets_colour_unless_it_refuses(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, _ = load_runs(mixed)
    for refused in (False, True):
        if refused:
            monkeypatch.setenv("NO_COLOR", "1")
        else:
            monkeypatch.delenv("NO_COLOR", raising=False)
        output = io.StringIO()
        print_runs(runs, Console(file=output, width=100, force_terminal=True, color_system="truecolor"))
        assert ("\x1b[38;2;213;94;0m" in output.getvalue()) is not refused  # ResNeXt's vermillion


def test_main_prints_the_table_and_names_what_it_could_not_read(mixed: Path, capsys: pytest.CaptureFixture) -> None:
    path = make_run(mixed, name="resnet110") / "record.json"
    path.write_text("{")
    assert main([str(mixed)]) == 0
    shown = capsys.readouterr()
    assert "resnext29_8x4d" in shown.out and "resnet110" not in shown.out
    assert len(shown.err.splitlines()) == 1 and str(path) in shown.err


def test_main_refuses_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and "nowhere" in shown.err


@pytest.mark.parametrize("table", [[], ["resnext_table7"]])
def test_a_file_that_was_named_and_not_written_is_an_error(
    table: list[str], mixed: Path, capsys: pytest.CaptureFixture
) -> None:
    for out, cause in ((mixed, "Is a directory"), (mixed / "nowhere" / "page.html", "No such file or directory")):
        assert main([*table, str(mixed), "--out", str(out)]) == 2
        shown = capsys.readouterr()
        assert "resnext" in shown.out and "page  " not in shown.out
        assert shown.err == f"python -m benchmarks report: cannot read or write {out}: {cause}\n"


def test_main_explains_itself(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: python -m benchmarks report [-h] [--list]" in text
    assert "(default: outputs)" in text


def test_what_is_left_out_of_an_interval_is_said(tmp_path: Path) -> None:
    for seed in range(3):
        folder = make_run(tmp_path, name="resnet20", seed=seed)
    (folder / OUTCOMES).write_text('{"schema":1,')
    text = " ".join(render(tmp_path, 160).split())
    assert "Left out: " in text and "seed2/outcomes.json is no file of outcomes" in text.replace("- ", "-")
    assert "as the outcomes of test images are not stored" in text


def test_of_many_pairs_those_that_differ_most_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, seed in itertools.product(range(4), range(3)):
        error = 2.0 + 4 * (place == 2) + 0.1 * seed
        make_run(tmp_path, name=f"resnet{20 + 6 * place}", seed=seed, metrics={"test/top1_err": error})
    title = "Differences between networks"
    every = render(tmp_path, 160)
    assert every[every.index(title) :].count(" against ") == 6
    monkeypatch.setattr(sections, "MOST_PAIRS", 3)
    shown = render(tmp_path, 160)
    rows = [line for line in shown[shown.index(title) :].splitlines() if " against " in line]
    assert len(rows) == 3 and all("resnet32" in row for row in rows), (
        "the network that errs more, in three of six pairs"
    )
    assert "Of 6 pairs those of the lowest p." in shown
    monkeypatch.setattr(terminal, "STYLED", 11)
    assert "compared, and curves fitted, of up to 11 runs" in render(tmp_path, 160)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_pipe_gets_plain_text_in_its_own_encoding(mixed: Path, encoding: str) -> None:
    code = "import sys; from benchmarks.__main__ import main; sys.exit(main(['report', *sys.argv[1:]]))"
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
    environment["PYTHONIOENCODING"] = encoding
    shown = subprocess.run([sys.executable, "-c", code, str(mixed)], capture_output=True, env=environment, check=True)
    text = shown.stdout.decode(encoding)
    assert "\x1b" not in text
    assert max(map(cell_len, text.splitlines())) <= 120
    assert line_of(text, "34.4 M", "resnet20")


def test_scores_stand_beside_the_published_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"test/dice_err": 5.0, "test/n": 6, "test/v_rand": 0.9123, "test/warping_error": 0.00071}
    make_run(
        tmp_path, data="isbi2012", task="segmentation", family="unet", name="unet16", recipe="unet_isbi2012",
        protocol={"metric": "test/dice_err", "metric_label": "test 100 − Dice (%)"}, metrics=metrics,
        dataset={"notes": "fold 0 of 5"},
    )  # fmt: skip
    print_runs(load_runs(tmp_path)[0])
    out = capsys.readouterr().out
    [paper] = [line for line in out.splitlines() if line.split()[:1] == ["u-net"]]
    [ours] = [line for line in out.splitlines() if line.split()[:2] == ["▲", "unet16"] and "0.9123" in line]
    assert "0.000353" in paper and "Ronneberger" in paper and "0.0382" not in out  # a column per score that a run has
    assert "0.000710" in ours
    assert "Ours: fold 0 of 5." in out


def test_what_a_count_leaves_out_stands_beside_it(tmp_path: Path) -> None:
    make_run(tmp_path)
    make_run(tmp_path, name="mynet", complexity={"uncounted": ["fft_fft2", "im2col"]})
    line = "MACs leave out what fft_fft2, im2col compute: neither counted nor known to be free"
    text = render(tmp_path, 200)
    assert "mynet" in line_of(text, line) and text.count("neither counted") == 1
    assert line in write_page(tmp_path).read_text(encoding="utf-8")
