"""Run folders read back: what is tolerated, what is named, and the values derived for display."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.records import make_run

from benchmarks.analysis.seeds import (
    baseline_comparisons,
    baseline_names,
    differing_conditions,
    seed_groups,
    short_labels,
)
from benchmarks.records import measured_speed
from benchmarks.records.runs import Run, load_runs, output_root_of, read_history
from benchmarks.units import MISSING, csv_text, duration, metric_text, one_line, si


def load_one(root: Path) -> Run:
    runs, problems = load_runs(root)
    assert problems == []
    (run,) = runs
    return run


# Parameters and multiply-adds as the papers print them (ResNeXt, Table 7 and DenseNet, Table 2), then the edges where
# rounding carries into the next digit or prefix.
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (34_426_698, "34.4 M"),
        (68_155_210, "68.2 M"),
        (5_387_266_048, "5.39 G"),
        (769_162, "769 k"),
        (1_019_722, "1.02 M"),
        (1.2e12, "1.20 T"),
        (2.83e18, "2.83 E"),
        (512, "512"),
        (0, "0"),
        (999, "999"),
        (999.6, "1.00 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (9_996_000, "10.0 M"),
        (99_960_000, "100 M"),
        (None, MISSING),
    ],
)
def test_si_keeps_three_significant_digits(value: float | None, text: str) -> None:
    assert si(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.24, "4.2 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (72, "1 min 12 s"),
        (3599.7, "1 h 00 min"),
        (7423, "2 h 04 min"),
        (86_390, "1 d 00 h"),
        (3 * 86_400 + 4 * 3600, "3 d 04 h"),
        (None, MISSING),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_csv_has_no_formulas_and_its_numbers_as_they_are() -> None:
    rows = [["name", "gap"], ["=HYPERLINK(1)", -0.5], ["@a, b", None], ["-3e2", True]]
    assert csv_text(rows) == "name,gap\n'=HYPERLINK(1),-0.5\n\"'@a, b\",\n-3e2,True\n"


def test_metric_text_has_the_unit_of_its_label() -> None:
    assert metric_text(1.7778, "test error (%)") == "1.78 %"
    assert metric_text(0.8839, "Dice") == "0.884"
    assert metric_text(None, "test error (%)") == MISSING


def test_one_line_leaves_nothing_that_a_terminal_or_a_file_would_refuse() -> None:
    assert one_line("a\n  b\tc\x1b[31m\ud800") == "a b c�[31m�"


def test_values_are_those_of_the_record(tmp_path: Path) -> None:
    folder = make_run(tmp_path, overrides={"recipe.epochs": 5}, metrics={"test/top1_err": 1.7778})
    record = json.loads((folder / "record.json").read_text())
    run = load_one(tmp_path)
    assert run.directory == folder
    assert run.label == "resnext29_8x4d epochs=5 seed 0"
    assert (run.metric, run.val_metric) == ("test/top1_err", "val/top1_err")
    assert (run.metric_label, run.val_label) == ("test error (%)", "validation error (%)")
    assert (run.value, run.n) == (1.7778, 450)
    assert run.parameters == record["complexity"]["params"]
    assert run.macs == record["complexity"]["macs"]
    assert run.train_flops == record["compute"]["train_flops"]
    assert run.wall_s == record["compute"]["wall_s"]


def test_segmentation_reports_its_own_metric(tmp_path: Path) -> None:
    make_run(tmp_path, task="segmentation", metrics={"test/dice": 0.9, "test/dice_err": 10.0})
    run = load_one(tmp_path)
    assert (run.value, run.val_metric, run.n) == (10.0, "val/dice_err", 15)
    assert run.val_label == "validation 100 − Dice (%)"


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_has_no_result_whatever_its_record_holds(tmp_path: Path, status: str) -> None:
    make_run(tmp_path, status=status, metrics={"test/top1_err": 0.0, "test/n": 450})
    run = load_one(tmp_path)
    assert (run.value, run.n, run.measured) == (None, None, None)
    assert seed_groups([run, run]) == []


def test_a_running_run_has_spent_what_its_history_says(tmp_path: Path) -> None:
    folder = make_run(tmp_path, status="running", compute={}, epochs=3)
    last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
    run = load_one(tmp_path)
    assert (run.train_flops, run.wall_s) == (last["train_flops"], last["wall_s"])


def test_a_result_that_is_not_a_number_is_none(tmp_path: Path) -> None:
    make_run(tmp_path, metrics={"test/top1_err": float("nan")})
    assert load_one(tmp_path).value is None


def test_runs_are_sorted_by_data_set_then_model_with_numbers_as_numbers(tmp_path: Path) -> None:
    make_run(tmp_path, data="nuclei", task="segmentation")
    for name in ("resnet110", "resnet20", "densenet40_k12"):
        make_run(tmp_path, name=name)
    make_run(tmp_path, name="resnet20", seed=10)
    make_run(tmp_path, name="resnet20", seed=9)
    runs, _ = load_runs(tmp_path)
    assert [(run.data, run.name, run.seed) for run in runs] == [
        ("digits", "densenet40_k12", 0),
        ("digits", "resnet20", 0),
        ("digits", "resnet20", 9),
        ("digits", "resnet20", 10),
        ("digits", "resnet110", 0),
        ("nuclei", "unet_d4_c16", 0),
    ]


def test_a_record_cut_anywhere_is_named_and_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path, name="resnet20")
    path = make_run(tmp_path, name="resnet29") / "record.json"
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        path.write_bytes(whole[:length])
        runs, problems = load_runs(tmp_path)
        assert [run.name for run in runs] == ["resnet20"]
        (problem,) = problems
        assert str(path) in problem and "\n" not in problem


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 2}, "schema"),
        ({"schema": None}, "schema"),
        ({"seed": "0"}, "seed must be a int"),
        ({"seed": True}, "seed must be a int"),
        ({"name": None}, "name must be a str"),
        ({"status": "happy"}, "status must be one of ok, running, failed, interrupted"),
        ({"metrics": [1]}, "metrics must be an object"),
    ],
)
def test_a_foreign_record_is_named_with_what_is_wrong(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = make_run(tmp_path) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    runs, problems = load_runs(tmp_path)
    assert runs == []
    assert len(problems) == 1 and named in problems[0]


@pytest.mark.parametrize("content", ["[]", "null", "3", '"record"', "\x00" * 40])
def test_json_that_is_no_object_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    runs, problems = load_runs(tmp_path)
    assert runs == [] and len(problems) == 1


def test_a_record_may_lack_what_the_run_had_not_reached(tmp_path: Path) -> None:
    record = {"schema": 1, "status": "failed", "data": "digits", "family": "resnet", "name": "resnet20"}
    (tmp_path / "record.json").write_text(json.dumps(record | {"recipe": "common", "seed": 3, "complexity": None}))
    run = load_one(tmp_path)
    assert (run.parameters, run.value, run.train_flops, run.error, run.curve()) == (None, None, None, None, [])


def test_neither_wandb_nor_the_inside_of_a_run_is_searched(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for inside in (tmp_path / "wandb" / "offline-run", folder / "checkpoints"):
        inside.mkdir(parents=True, exist_ok=True)
        (inside / "record.json").write_text("{")
    assert load_one(tmp_path).directory == folder


def test_a_run_is_read_once_though_a_link_leads_to_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder.parent / "seed1").symlink_to(folder)
    assert load_one(tmp_path).directory == folder


@pytest.mark.parametrize("place", ["digits", "digits/net", "digits/net/recipe", "digits/net/recipe/seed0"])
def test_runs_are_read_from_within_each_of_their_folders(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured for them is looked for in the output root."""
    directory = make_run(tmp_path, data="digits", name="net", recipe="recipe", seed=0)
    asked: list[Path] = []
    monkeypatch.setattr(measured_speed, "read", lambda root: asked.append(root) or {})
    monkeypatch.chdir(tmp_path / place)
    [run], problems = load_runs(".")
    assert run.directory.resolve() == directory and not problems
    assert asked == [tmp_path] == [output_root_of(run.directory)]
    assert output_root_of(Path("/seed0")) == Path("/")


def test_a_folder_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="normally outputs") as caught:
        load_runs(tmp_path / "output")
    assert "\n" not in str(caught.value)


def test_a_history_cut_anywhere_keeps_every_row_that_was_written_whole(tmp_path: Path) -> None:
    path = make_run(tmp_path, epochs=3) / "history.jsonl"
    whole = path.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert read_history(path) == rows[: sum(end <= length for end in ends)]


def test_a_history_broken_before_its_end_is_an_error_naming_the_line(tmp_path: Path) -> None:
    path = make_run(tmp_path, epochs=3) / "history.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]))
    with pytest.raises(ValueError, match="line 2: not a JSON object"):
        read_history(path)


def test_a_run_not_yet_evaluated_has_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.jsonl") == []


def test_a_curve_leaves_out_what_cannot_be_drawn(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 0, "train_flops": 0, "val/top1_err": 90.0},
        {"epoch": 1, "train_flops": 10, "val/top1_err": float("nan")},
        {"epoch": 2, "train_flops": 20},
        {"epoch": 3, "train_flops": 30, "val/top1_err": 0.0},
    ]
    make_run(tmp_path, history=[{"samples_seen": 1, "step": 1, "wall_s": 1.0, **row} for row in rows])
    assert [row["epoch"] for row in load_one(tmp_path).curve()] == [3]


def test_mean_and_sample_standard_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, error in enumerate((1.0, 2.0, 3.0)):
        make_run(tmp_path, seed=seed, metrics={"test/top1_err": error})
    make_run(tmp_path, name="resnet20")  # one seed is no group
    (group,) = seed_groups(load_runs(tmp_path)[0])
    assert (group.mean, group.std) == (2.0, 1.0)  # the population's deviation would be 0.816
    assert (group.text, group.seeds_text) == ("2.00 ± 1.00 %", "mean of 3 seeds")


def test_the_mean_of_a_score_and_its_interval_are_those_of_the_score(tmp_path: Path) -> None:
    for seed, error in enumerate((8.0, 10.0, 12.0)):
        make_run(tmp_path, task="segmentation", seed=seed, metrics={"test/dice_err": error})
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert group.text == "Dice 90.00 ± 2.00 %" and group.estimate.interval is not None
    low, high = group.estimate.interval
    assert low < 10 < high and group.interval_text == f"[{100 - high:.2f}, {100 - low:.2f}]"


@pytest.mark.parametrize(
    "difference",
    [
        {"name": "resnet20"},
        {"data": "mnist"},
        {"recipe": "common"},
        {"overrides": {"recipe.epochs": 5}},
        {"metrics": {"test/n": 449}},
        {"dataset": {"sha256": "0" * 64}},
        {"protocol": {"checkpoint": "best"}},
        {"parallel": {"precision": "bf16-mixed"}},
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_never_averaged(tmp_path: Path, difference: dict[str, Any]) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, **difference)
    runs, _ = load_runs(tmp_path)
    assert len(runs) == 2
    assert seed_groups(runs) == []


def test_runs_of_other_configurations_are_not_averaged_though_their_overrides_agree(tmp_path: Path) -> None:
    """As where the recipe's file has changed between seeds."""
    for seed, digest in enumerate((*"aabb", None, None)):  # the last two are of an older version
        make_run(tmp_path, name="resnet20", seed=seed, config_hash_without_seed=digest and digest * 64)
    groups = [group.runs for group in seed_groups(load_runs(tmp_path)[0])]
    assert [[run.seed for run in runs] for runs in groups] == [[0, 1], [2, 3], [4, 5]]
    firsts = [runs[0] for runs in groups]
    assert short_labels(firsts, seeds=False) == [
        f"resnet20 (configuration {shown})" for shown in ("aaaaaaa", "bbbbbbb", "none")
    ]
    # Of other code, and at other overrides, it is named only beside a run that agrees in these.
    make_run(tmp_path, name="resnet20", seed=6, config_hash_without_seed="c" * 64, code={"training_sha256": "d" * 64})
    changed = load_runs(tmp_path)[0][-1]
    assert short_labels([firsts[0], changed], seeds=False) == ["resnet20 (code none)", "resnet20 (code ddddddd)"]
    assert short_labels([*firsts[:2], changed], seeds=False)[::2] == [
        *("resnet20 (code none, configuration aaaaaaa)", "resnet20 (code ddddddd, configuration ccccccc)")
    ]
    make_run(tmp_path / "5", seed=7, config_hash_without_seed="e" * 64, overrides={"recipe.epochs": 5}, name="resnet20")
    [other] = load_runs(tmp_path / "5")[0]
    assert differing_conditions([firsts[0], other]) == [[], []]


def test_two_folders_of_one_seed_are_one_seed(tmp_path: Path) -> None:
    make_run(tmp_path / "old", started="2026-11-21T00:00:00+00:00", metrics={"test/top1_err": 9.0})
    make_run(tmp_path / "new", metrics={"test/top1_err": 1.0})
    assert seed_groups(load_runs(tmp_path)[0]) == []
    make_run(tmp_path / "new", seed=1, metrics={"test/top1_err": 2.0})
    (group,) = seed_groups(load_runs(tmp_path)[0])
    assert group.mean == 1.5


def test_short_labels_say_only_what_tells_the_runs_apart(tmp_path: Path) -> None:
    make_run(tmp_path, name="resnet20")
    make_run(tmp_path, name="resnet29")
    assert short_labels(load_runs(tmp_path)[0]) == ["resnet20", "resnet29"]
    make_run(tmp_path, name="resnet29", seed=1)
    make_run(tmp_path, name="resnet29", recipe="common", overrides={"recipe.epochs": 5})
    assert short_labels(load_runs(tmp_path)[0]) == [
        "resnet20 · seed 0",
        "resnet29 · common · epochs=5 · seed 0",
        "resnet29 · resnet_digits · seed 0",
        "resnet29 · resnet_digits · seed 1",
    ]


def test_baselines_stand_beside_the_nets_figure_of_the_same_metric(tmp_path: Path) -> None:
    make_run(tmp_path, task="segmentation", metrics={"test/dice": 0.912})
    make_run(tmp_path, task="segmentation", seed=1, status="failed", metrics={"test/dice": 0.999})
    (beside,) = baseline_comparisons(load_runs(tmp_path)[0])
    assert (beside.data, beside.method, beside.title, beside.value) == ("nuclei", "Otsu", "Dice", 0.884)
    assert beside.nets == (("unet_d4_c16 · seed 0", 0.912),)
    make_run(
        tmp_path, data="cells", baselines={"otsu_mask_ap50": 0.2}, protocol={"definitions": {"mask_ap50": "at 0.5"}}
    )
    (of_cells, _) = baseline_comparisons(load_runs(tmp_path)[0])
    assert (of_cells.method, of_cells.title) == ("Otsu", "mask AP50")
    assert baseline_names("local_otsu_dice") == ("Local otsu", "dice")
    assert baseline_names("local_otsu_mask_ap", {"mask_ap", "ap"}) == ("Local otsu", "mask_ap")


def test_reading_results_imports_no_torch_and_no_plotly() -> None:
    code = (
        "import sys, benchmarks.report.runs_table, benchmarks.report.page; print({'torch', 'plotly'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.slow
def test_ten_thousand_records_are_read_in_five_seconds(tmp_path: Path) -> None:
    text = (make_run(tmp_path / "one") / "record.json").read_text()
    for index in range(10_000):
        folder = tmp_path / "many" / f"resnet{index // 100}" / f"seed{index % 100}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(text)
    start = time.process_time()  # which another process of tests does not stretch
    runs, problems = load_runs(tmp_path / "many")
    assert time.process_time() - start < 5
    assert (len(runs), problems) == (10_000, [])


def test_a_run_on_a_part_of_each_epoch_compares_with_nothing(tmp_path: Path) -> None:
    """Its figures are of the part, its name and its epochs of the whole."""
    for seed in range(3):
        make_run(tmp_path, seed=seed, overrides={"trainer.limit_train_batches": 2}, baselines={"nearest_accuracy": 0.9})
    runs, _ = load_runs(tmp_path)
    assert [run.is_debug for run in runs] == [True] * 3
    assert [(run.value, run.curve()) for run in runs] == [(None, [])] * 3 and runs[0].measured is not None
    assert seed_groups(runs) == [] and [baseline.nets for baseline in baseline_comparisons(runs)] == [()]
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1)
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert [run.is_debug for run in group.runs] == [False, False]


def test_an_unfinished_run_on_a_part_of_each_epoch_shows_no_figure(tmp_path: Path) -> None:
    make_run(tmp_path, status="failed", overrides={"trainer.limit_train_batches": 2})
    assert load_one(tmp_path).measured is None
