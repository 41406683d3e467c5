"""Crossovers of synthetic curves whose crossing is known, and the command on run folders."""

import io
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.benchmark_command import command
from support.records import make_run

from benchmarks.analysis.crossover import Curve, budget_text, confidence_set, cross, curves, sign_changes
from benchmarks.analysis.error_rates import (
    VarianceComponents,
    components_of_outcomes,
    components_of_rates,
    contrast,
    p_value,
    pooled,
)
from benchmarks.analysis.estimates import estimate_of_values
from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.records.runs import load_runs
from benchmarks.report.iso_compute import print_crossovers

main = command("report iso_compute")

ROOT = Path(__file__).resolve().parents[2]


def curve(name: str, errors: dict[float, list[float]], family: str = "resnet") -> Curve:
    by_seed = {budget: dict(enumerate(values)) for budget, values in errors.items()}
    estimates = {budget: estimate_of_values(values, percent=True) for budget, values in errors.items()}
    return Curve("digits", name, "common", family, "train_flops", "test error (%)", by_seed, estimates)


def printed(*found: Curve) -> str:
    console = Console(width=200, file=io.StringIO())
    print_crossovers(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("x", "y", "points"),
    [
        ([0, 1], [-1, 1], [0.5]),
        ([0, 1, 3], [-3, -1, 3], [1.5]),
        ([0, 1, 2], [1, 2, 3], []),
        ([0, 1, 2], [1, 0, 3], []),  # touches
        ([0, 1, 2], [1, 0, -3], [1]),
        ([0, 1, 2, 3], [1, 0, 0, -3], [1.5]),
        ([0, 1, 2], [0, 0, -3], []),
        ([0, 1, 2], [1, -1, 1], [0.5, 1.5]),
        ([0, 1], [0, 0], []),
    ],
)
def test_where_a_polygon_changes_its_sign(x: list[float], y: list[float], points: list[float]) -> None:
    assert sign_changes(x, y) == points


def test_the_crossing_is_linear_in_the_logarithm_of_the_budget() -> None:
    first = curve("a", {1e9: [4.0, 4.2, 3.8], 1e11: [2.0, 2.1, 1.9]})
    second = curve("b", {1e9: [5.0, 5.3, 4.7], 1e11: [1.0, 0.9, 1.1]})
    crossing = cross(first, second)
    assert crossing is not None
    assert crossing.means == pytest.approx([-1.0, 1.0])
    assert crossing.points == pytest.approx([1e10])
    [(low, high)] = crossing.intervals or []
    assert 1e9 < low < 1e10 < high < 1e11
    assert (
        crossing.text()
        == f"b overtakes a at 10.0 GFLOPs (95 %: {budget_text(low, 'train_flops')} to {budget_text(high, 'train_flops')})"
    )
    mirrored = cross(second, first)
    assert mirrored is not None
    assert mirrored.points == pytest.approx([1e10]) and mirrored.intervals == [pytest.approx((low, high))]
    assert mirrored.text() == crossing.text()
    # The probability is one side of the p-value of the difference at that budget.
    for budget, better in zip((1e9, 1e11), crossing.first_better, strict=True):
        one, other = first.estimates[budget].components, second.estimates[budget].components
        assert one is not None and other is not None
        p = float(p_value(contrast(one, other))) / 2
        assert better == pytest.approx(1 - p if budget == 1e9 else p)


def pairs(first: np.ndarray, second: np.ndarray) -> list[tuple[VarianceComponents, VarianceComponents]]:
    """Of both networks, shape (budgets, seeds) of rates or (budgets, seeds, images) of outcomes."""
    of = components_of_rates if first.ndim == 2 else components_of_outcomes
    return [(of(one), of(other)) for one, other in zip(first, second, strict=True)]


def test_at_a_single_budget_the_set_is_the_test_there() -> None:
    told_apart = cross(curve("a", {1e9: [4.0, 4.2, 3.8]}), curve("b", {1e9: [9.0, 9.3, 8.7]}))
    assert told_apart is not None and told_apart.intervals == []
    assert told_apart.text() == "no crossing within the budgets: a better throughout"
    alike = cross(curve("a", {3.7e13: [4.0, 4.2, 3.8]}), curve("b", {3.7e13: [4.1, 4.4, 3.6]}))
    assert alike is not None and alike.intervals == [(3.7e13, 3.7e13)]
    assert alike.text() == "no crossing within the budgets: a better throughout; a crossing anywhere is not excluded"


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shared"), [(3, 0.0), (3, 0.002), (8, 0.004)])
def test_the_confidence_set_holds_the_crossing_as_often_as_it_says(n: int, shared: float) -> None:
    # Seeds may share a part of their luck over budgets; the true curves cross at 4/3.
    rng = np.random.default_rng(n)
    x, truth, crossing, draws = [0.0, 1.0, 2.0], np.array([-0.010, -0.004, 0.008]), 4 / 3, 300

    def drawn() -> np.ndarray:
        return 0.1 + rng.normal(0, 0.002, (draws, 3, n)) + rng.normal(0, shared, (draws, 1, n))

    first, second = drawn() + truth[:, None], drawn()
    sets = [confidence_set(x, pairs(*both)) for both in zip(first, second, strict=True)]
    held = np.mean([any(low <= crossing <= high for low, high in intervals) for intervals in sets])
    # 300 draws of 95 % have a standard error of 1.3 %; luck is taken as shared by the budgets, so that it may be more.
    assert held > 0.91
    assert np.mean([intervals == [(0.0, 2.0)] for intervals in sets]) < 0.6  # else it says nothing


def test_the_confidence_set_is_the_test_at_every_budget() -> None:
    rng = np.random.default_rng(11)
    x = [0.0, 1.0, 3.0, 4.0]
    # Budgets at which outcomes are stored, and those at which the spread is pooled with a third network's.
    for outcomes, together in itertools.product(((), (0, 1, 2, 3), (1, 2)), ((), (0, 2), (1, 2))):
        for _ in range(10):
            rates = 0.2 + rng.normal(0, 0.03, (2, 4, 3))
            first, second = rng.random((2, 4, 3, 400)) < rates[..., None]
            known, unknown = pairs(first, second), pairs(rates[0], rates[1])
            both = [known[place] if place in outcomes else unknown[place] for place in range(4)]
            for place in together:
                third = components_of_rates(0.2 + rng.normal(0, 0.03, 3))
                one, other, _ = pooled([*both[place], third])
                both[place] = one, other
            kept = confidence_set(x, both)
            assert all(low < high for low, high in kept)
            assert all(before[1] < after[0] for before, after in itertools.pairwise(kept))
            for position, pair in zip(x, both, strict=True):
                inside = any(low <= position <= high for low, high in kept)
                assert inside == bool(p_value(contrast(*pair)) >= 0.05)


def test_a_crossing_that_images_show_is_found_where_the_rates_alone_leave_it_open() -> None:
    rng = np.random.default_rng(12)
    hard = rng.random(2_000) < 0.2  # images that any network may get wrong
    first = hard & (rng.random((2, 3, 2_000)) < np.array([0.4, 0.6])[:, None, None])
    second = hard & (rng.random((2, 3, 2_000)) < np.array([0.6, 0.4])[:, None, None])
    [(low, high)] = confidence_set([0.0, 1.0], pairs(first, second))
    assert 0 < low < 0.5 < high < 1


def test_no_crossing_says_who_is_better_throughout() -> None:
    better = curve("a", {1e9: [4.0, 4.2, 3.8], 1e10: [2.0, 2.1, 1.9]})
    worse = curve("b", {1e9: [9.0, 9.3, 8.7], 1e10: [7.0, 6.9, 7.1]})
    crossing = cross(worse, better)
    assert crossing is not None and crossing.points == [] and crossing.intervals == []
    assert crossing.text() == "no crossing within the budgets: a better throughout"
    # A difference at the last budget that the seeds do not show leaves a crossing there open.
    # 3.7e13 is not the exponential of its logarithm in binary.
    better = curve("a", {1e9: [4.0, 4.2, 3.8], 3.7e13: [2.0, 2.1, 1.9]})
    near = curve("c", {1e9: [9.0, 9.3, 8.7], 3.7e13: [2.0, 1.6, 2.7]})
    open_end = cross(better, near)
    assert open_end is not None and open_end.points == []
    [(low, high)] = open_end.intervals or []
    assert 1e9 < low < high == 3.7e13 != math.exp(math.log(3.7e13))
    said = f"a crossing from {budget_text(low, 'train_flops')} on is not excluded"
    assert open_end.text() == f"no crossing within the budgets: a better throughout; {said}"


def test_one_seed_is_no_interval() -> None:
    crossing = cross(curve("a", {1e9: [4.0], 1e11: [2.0]}), curve("b", {1e9: [5.0], 1e11: [1.0]}))
    assert crossing is not None
    assert (crossing.intervals, crossing.first_better) == (None, [None, None])
    assert crossing.text() == "b overtakes a at 10.0 GFLOPs (1 run, no interval)"
    text = printed(crossing.first, crossing.second)
    assert text.count("1 run, no interval") == 6 and "Holm" not in text  # four trials, the crossing, the difference


def test_seeds_that_agree_to_the_digit_are_no_interval() -> None:
    crossing = cross(curve("a", {1e9: [4.1] * 3, 1e11: [2.0] * 3}), curve("b", {1e9: [5.1] * 3, 1e11: [1.0] * 3}))
    assert crossing is not None
    assert crossing.first_better == [None, None]
    assert crossing.text() == "b overtakes a at 10.0 GFLOPs (3 equal runs against 3 equal ones, no interval)"


def test_several_crossings_and_none_at_all() -> None:
    zigzag = cross(
        curve("a", {1e9: [1.0, 1.1], 1e10: [3.0, 3.1], 1e11: [1.0, 1.1]}),
        curve("b", {b: [2.0, 2.1] for b in (1e9, 1e10, 1e11)}),
    )
    assert zigzag is not None
    assert zigzag.text() == "the means cross 2 times, at 3.16 GFLOPs and 31.6 GFLOPs"
    same = curve("a", {1e9: [1.0, 1.1], 1e10: [3.0, 3.1]})
    equal = cross(same, same)
    assert equal is not None and equal.text() == "no difference at any budget"
    assert equal.first_better == [None, None]
    assert cross(same, curve("b", {1e12: [1.0, 1.1]})) is None


def test_means_that_are_equal_but_for_rounding_do_not_cross() -> None:
    # 2, 10, 5 and 6, 5, 6 errors of 450 images.
    first = curve("a", {1e9: [5.0, 5.1, 5.2], 1e10: [100 * errors / 450 for errors in (2, 10, 5)]})
    second = curve("b", {1e9: [4.0, 4.2, 4.1], 1e10: [100 * errors / 450 for errors in (6, 5, 6)]})
    crossing = cross(first, second)
    assert crossing is not None and crossing.means[-1] == 0 and crossing.points == []
    assert crossing.text().startswith("no crossing within the budgets: b nowhere worse;")


def test_a_budget_with_too_few_seeds_leaves_the_crossing_without_an_interval() -> None:
    first = curve("a", {1e9: [4.0, 4.2, 3.8], 1e10: [3.0, 3.1], 1e11: [2.0, 2.1, 1.9, 2.0]})
    second = curve("b", {1e9: [5.0, 5.3, 4.7, 5.0], 1e10: [3.4, 3.5, 3.6], 1e11: [1.0, 0.9, 1.1]})
    crossing = cross(first, second)
    assert crossing is not None and crossing.budgets == [1e9, 1e10, 1e11]
    assert crossing.means == pytest.approx([-1.0, -0.45, 1.0])
    assert crossing.intervals is None and crossing.first_better[1] is None
    assert crossing.text().endswith("(2 runs, no interval without stored outcomes (1 more would do))")


def test_budgets_in_words() -> None:
    assert [budget_text(1.2e11, "train_flops"), budget_text(512, "train_flops")] == ["120 GFLOPs", "512 FLOPs"]
    assert [budget_text(90, "train_seconds"), budget_text(1500, "train_joules")] == ["1 min 30 s", "1.50 kJ"]


LIMITS = (3e10, 1.2e11, 4.8e11)


def write_runs(root: Path, seeds: int = 3) -> None:
    """ResNet is better at the small budget, ResNeXt at the large one; DenseNet never; one run by epochs, one that failed."""
    errors = {"resnet20": (4.0, 3.0, 2.5), "resnext29_8x4d": (6.0, 3.2, 1.5), "densenet40_k12": (9.0, 8.0, 7.0)}
    luck = {"resnet20": (-0.3, 0.0, 0.3), "resnext29_8x4d": (-0.1, 0.1, 0.0), "densenet40_k12": (0.2, 0.2, -0.4)}
    for name, means in errors.items():
        for limit, mean in zip(LIMITS, means, strict=True):
            for seed in range(seeds):
                value = mean + luck[name][seed % 3]
                make_run(
                    root, name=name, seed=seed, experiment="iso_compute", overrides={"trainer.max_train_flops": limit},
                    protocol={"budget": {"kind": "train_flops", "limit": limit, "spent": limit}},
                    metrics={"test/top1_err": value},
                )  # fmt: skip
    make_run(root, name="resnet20", seed=7, experiment="iso_compute")
    make_run(root, name="resnet20", seed=8, status="failed", experiment="iso_compute",
             protocol={"budget": {"kind": "train_flops", "limit": 3e10, "spent": 0}})  # fmt: skip


def test_the_experiment_is_networks_by_budgets_by_seeds() -> None:
    trials = [trial for trial in expand(["experiment=iso_compute", "seed=0,1,2"], False) if isinstance(trial, Trial)]
    wanted = list(itertools.product(["resnet", "resnext", "densenet"], [8e10, 3e11, 1e12], [0, 1, 2]))
    found = [
        (trial.config["family"], trial.config["trainer"]["max_train_flops"], trial.config["seed"]) for trial in trials
    ]
    assert found == wanted
    assert len({trial.directory for trial in trials}) == 27
    assert {trial.config["experiment"] for trial in trials} == {"iso_compute"}
    # A network is as in compute_accuracy; so is its learning rate, which was fitted there, but at the smallest budget.
    fitted = {
        trial.config["name"]: trial.config
        for trial in expand(["experiment=compute_accuracy", "row=resnet_2.52e6,resnext_2.52e6,densenet_2.52e6"], False)
        if isinstance(trial, Trial)
    }
    for trial in trials:
        same = fitted[trial.config["name"]]
        assert trial.config["model"] == same["model"]
        if trial.config["trainer"]["max_train_flops"] > 8e10:
            assert trial.config["recipe"] == same["recipe"]
    [trial] = expand(
        ["experiment=iso_compute", "row=resnet_1e12", "trainer.max_train_flops=5e13", "data=cifar10"], False
    )
    assert isinstance(trial, Trial) and trial.config["trainer"]["max_train_flops"] == 5e13


def test_runs_become_curves(tmp_path: Path) -> None:
    write_runs(tmp_path)
    found = {one.name: one for one in curves(load_runs(tmp_path)[0])}
    assert sorted(found) == ["densenet40_k12", "resnet20", "resnext29_8x4d"]
    assert found["resnet20"].errors == {
        limit: pytest.approx({0: mean - 0.3, 1: mean, 2: mean + 0.3})
        for limit, mean in zip(LIMITS, (4.0, 3.0, 2.5), strict=True)
    }
    # So is a budget too short for running averages, after which batch-norm statistics are computed anew.
    for seed in range(3):
        budget = {"kind": "train_flops", "limit": 1e10, "spent": 1e10}
        make_run(
            tmp_path, name="resnet20", seed=seed, experiment="iso_compute", overrides={"trainer.max_train_flops": 1e10},
            protocol={"budget": budget, "batch_norm_images": 1024}, metrics={"test/top1_err": 8.0},
        )  # fmt: skip
    [curve] = [one for one in curves(load_runs(tmp_path)[0]) if one.name == "resnet20"]
    assert list(curve.errors) == [1e10, *LIMITS]
    # So is one at which it has another learning rate.
    for seed in range(3):
        budget = {"kind": "train_flops", "limit": 1e9, "spent": 1e9}
        overrides = {"trainer.max_train_flops": 1e9, "recipe.optimizer.lr": 0.05}
        make_run(
            tmp_path, name="resnet20", seed=seed, experiment="iso_compute", overrides=overrides,
            protocol={"budget": budget}, metrics={"test/top1_err": 20.0},
        )  # fmt: skip
    [curve] = [one for one in curves(load_runs(tmp_path)[0]) if one.name == "resnet20"]
    assert list(curve.errors) == [1e9, 1e10, *LIMITS] and curve.recipe == "resnet_digits, each budget's learning rate"
    # Other values of the recipe are another curve, and then both say which they are.
    budget = {"kind": "train_flops", "limit": 3e10, "spent": 3e10}
    overrides = {"trainer.max_train_flops": 3e10, "trainer.channels_last": True, "recipe.mixup": None}
    make_run(tmp_path, name="resnet20", seed=0, overrides=overrides, protocol={"budget": budget})
    names = {one.name for one in curves(load_runs(tmp_path)[0])}
    recipes = ("each budget's learning rate", "mixup=null, trainer.channels_last=true")
    assert {*(f"resnet20 (resnet_digits, {recipe})" for recipe in recipes), "densenet40_k12"} < names


def test_seeds_of_other_code_and_other_test_images_are_curves_that_say_so(tmp_path: Path) -> None:
    seeds = itertools.count()
    for sha256, code in (("a" * 64, "1" * 64), ("a" * 64, "2" * 64), ("b" * 64, "2" * 64)):
        for name, seed in itertools.product(("resnet20", "resnet29"), (next(seeds), next(seeds))):
            make_run(
                tmp_path, name=name, seed=seed, experiment="iso_compute", recipe="common", dataset={"sha256": sha256},
                protocol={"budget": {"kind": "train_flops", "limit": 3e10}}, code={"training_sha256": code},
            )  # fmt: skip
    found = curves(load_runs(tmp_path)[0])
    assert len({one.name for one in found}) == 6
    assert {one.name for one in found if one.name.startswith("resnet20")} == {
        "resnet20 (common, data aaaaaaa, code 1111111)",
        "resnet20 (common, data aaaaaaa, code 2222222)",
        "resnet20 (common, data bbbbbbb, code 2222222)",
    }
    # Those of other test images stand in a table of their own and are compared with each other alone.
    text = printed(*found)
    assert text.count("digits: test error (%) by training FLOPs") == 2
    against = re.findall(r"data (\w)\w+, .*? against .*?data (\w)", text)
    assert sorted(against) == [("a", "a")] * 6 + [("b", "b")]


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path)
    assert main([str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "digits: test error (%) by training FLOPs" in out
    assert "30.0 GFLOPs 120 GFLOPs 480 GFLOPs" in out
    # -0.2 to 1.0 between 120 and 480 GFLOPs: a sixth of the way.
    assert f"resnext29_8x4d overtakes resnet20 at {120 * 4 ** (1 / 6):.0f} GFLOPs (95 %: " in out
    assert "no crossing within the budgets: resnet20 better throughout" in out
    assert "(Holm over 3 pairs: " in out
    assert "Seeds alone: runs without stored outcomes tell nothing of other test images." in out
    page = (tmp_path / "iso_compute.html").read_text(encoding="utf-8")
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(?!data:,")', page)
    assert all(name in page for name in ("resnet20", "resnext29_8x4d", "densenet40_k12", "#0072B2"))
    (tmp_path / "iso_compute.html").unlink()
    elsewhere = tmp_path / "elsewhere.html"
    assert main([str(tmp_path), "--out", str(elsewhere)]) == 0
    assert elsewhere.read_text(encoding="utf-8") == page and not (tmp_path / "iso_compute.html").exists()


def test_without_such_runs_one_line_says_how_to_make_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, seed=1)
    make_run(tmp_path, experiment="iso_compute", overrides={"trainer.limit_train_batches": 2})
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "no finished run with a budget of the experiment 'iso_compute'" in first and "run.py experiment=" in first
    assert " (1 run with trainer.limit_train_batches left out): " in first
    assert "no folder" in second


def test_names_from_records_are_text(tmp_path: Path) -> None:
    budget = {"kind": "train_flops", "limit": 3e10, "spent": 3e10}
    for name in ("<script>alert(1)</script>", "[red]x[/red]"):
        make_run(tmp_path, name=name, experiment="iso_compute", protocol={"budget": budget})
    assert "[red]x[/red]" in printed(*curves(load_runs(tmp_path)[0]))
    assert main([str(tmp_path)]) == 0
    assert "<script>alert" not in (tmp_path / "iso_compute.html").read_text(encoding="utf-8")


def test_the_command_starts_without_torch() -> None:
    script = "import sys, benchmarks.analysis.crossover; print({'torch', 'scipy', 'plotly'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"
