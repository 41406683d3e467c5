"""Power laws with a floor: parameters that are known, a larger budget that was held out, families at equal error."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls
from support.records import make_run

from benchmarks.analysis.scaling import EXPONENTS, QUANTILES, equal_errors, families, fit
from benchmarks.records.outcomes import Outcomes, write_outcomes
from benchmarks.records.runs import load_runs
from benchmarks.report.scaling_view import scaling_view

COSTS = (1e10, 3e10, 1e11, 3e11, 1e12)
IMAGES = 2_000


def test_a_power_law_is_found_again() -> None:
    unit = float(np.exp(np.mean(np.log(COSTS))))
    true = [(2.0, 6.0, 0.5), (0.0, 4.0, 0.2), (1.0, 10.0, 1.0)]
    errors = np.array([[a + b * (cost / unit) ** -alpha for cost in COSTS] for a, b, alpha in true])
    law = fit(COSTS, errors)
    assert law.unit == pytest.approx(unit)
    # The exponent is one of a grid with steps of 2.3 %.
    assert law.exponent == pytest.approx([alpha for *_, alpha in true], rel=0.024)
    for cost in (2e10, 5e11, 2e12):
        expected = [a + b * (cost / unit) ** -alpha for a, b, alpha in true]
        assert law.error_at(cost) == pytest.approx(expected, rel=0.02)
        assert law.cost_at(np.array(expected)) == pytest.approx([cost] * 3, rel=0.1)
    assert np.isinf(law.cost_at(np.array([1.9, -1.0, 0.9]))).all()  # below the floors


def test_a_rising_error_has_no_slope_below_zero() -> None:
    law = fit(COSTS, np.array([[3.0, 3.1, 3.2, 3.3, 3.4]]))
    assert float(law.error_at(1e10)[0]) >= float(law.error_at(1e12)[0]) >= 0


def test_a_curve_is_the_least_squares_of_no_negative_floor_and_slope() -> None:
    errors = np.random.default_rng(0).uniform(0, 4, (40, 5)) + 6 * np.array([1, 0.6, 0.3, 0.1, 0])
    errors[:20] -= errors[:20].min(axis=1, keepdims=True) - 0.01  # whose floor would be below zero
    law = fit(COSTS, errors)
    found = law.floor[:, None] + law.scale[:, None] * (np.array(COSTS) / law.unit) ** -law.exponent[:, None]
    for row, fitted in zip(errors, found, strict=True):
        columns = ((np.array(COSTS) / law.unit) ** -alpha for alpha in np.geomspace(0.02, 2, EXPONENTS))
        best = min(nnls(np.stack([np.ones(5), column], axis=1), row)[1] for column in columns)
        assert np.linalg.norm(row - fitted) == pytest.approx(best, rel=1e-6)
    assert (law.floor == 0).any() and (law.floor > 0).any() and (law.scale > 0).any()


def make_family(
    root: Path,
    name: str,
    factor: float,
    costs: tuple[float, ...],
    seed: int = 0,
    family: str = "",
    data_sha256: str = "a" * 64,
    **overrides: object,
) -> None:
    """Three seeds at each cost, whose true error is 1 + 6 (C / 10¹¹ / factor)^-0.5 %, on the same images."""
    rng = np.random.default_rng(seed)
    for width, cost in enumerate(costs):
        rate = (1 + 6 * (cost / 1e11 / factor) ** -0.5) / 100
        for number in range(3):
            errors = rng.random(IMAGES) < rate
            metrics = {"test/top1_err": 100 * float(errors.mean()), "test/n": IMAGES}
            folder = make_run(
                root,
                name=f"{name}{20 + width}",
                family=family or name,
                seed=number,
                metrics=metrics,
                compute={"train_flops": cost},
                dataset={"sha256": data_sha256},
                overrides={f"model.{key}": value for key, value in {"base_channels": width, **overrides}.items()},
            )
            write_outcomes(folder, Outcomes("a" * 64, {"top1_err": ~errors}))


def test_families_are_compared_at_equal_error(tmp_path: Path) -> None:
    make_family(tmp_path, "resnet", 1.0, COSTS, 1)
    make_family(tmp_path, "resnext", 0.25, COSTS, 2)  # a quarter of the compute
    members = families(load_runs(tmp_path)[0])
    assert {one.name for one in members} == {"resnet", "resnext"}
    [pair] = equal_errors(members)
    quarter = 0.25 if pair.first.name == "resnext" else 4.0
    assert pair.low < quarter < pair.high
    assert not pair.low <= 1 <= pair.high  # told apart
    assert f"{pair.first.name} needs {pair.ratio:.2g} × [" in pair.text


def test_networks_of_another_kind_have_a_curve_of_their_own_and_sizes_make_no_kind(tmp_path: Path) -> None:
    make_family(tmp_path, "resnet", 1.0, COSTS, 1)
    make_family(tmp_path, "plain", 3.0, COSTS, 2, family="resnet", shortcut="none")
    members = {one.name: one for one in families(load_runs(tmp_path)[0])}
    assert {name: len(one.costs) for name, one in members.items()} == {"resnet": 5, "resnet shortcut=none": 5}
    [equal] = equal_errors([members["resnet shortcut=none"], members["resnet"]])
    assert equal.low <= 3 <= equal.high
    assert f"at {equal.error:.2f} %, resnet shortcut=none needs {equal.ratio:.2g} × [" in equal.text


def test_recipes_of_one_network_have_curves_of_their_own(tmp_path: Path) -> None:
    """What one recipe does with the compute of the other is known: of both together no curve has that error anywhere."""
    recipes = {"resnet": {}, "resnet label_smoothing=0.1": {"recipe.label_smoothing": 0.1}}
    for factor, recipe in zip((1.0, 0.25), recipes.values(), strict=True):
        for (width, cost), seed in itertools.product(enumerate(COSTS), range(3)):
            error = 1 + 6 * (cost / 1e11 / factor) ** -0.5 + (seed - 1) / 100
            make_run(
                tmp_path / str(factor),
                **{"name": f"resnet{20 + width}", "seed": seed, "compute": {"train_flops": cost}},
                overrides={"recipe.optimizer.lr": factor / 10 * (1 + width)} | recipe,
                metrics={"test/top1_err": error},
            )
    members = families(load_runs(tmp_path)[0])
    assert {one.name: len(one.costs) for one in members} == dict.fromkeys(recipes, 5)
    assert ["agree" in one.held_out() for one in members] == [True, True]
    [pair] = equal_errors(members)
    assert pair.ratio == pytest.approx(4 if pair.first.name == "resnet" else 0.25, rel=0.1)


def test_a_larger_budget_that_was_held_out_is_predicted(tmp_path: Path) -> None:
    make_family(tmp_path, "resnet", 1.0, COSTS, 3)
    [family] = families(load_runs(tmp_path)[0])
    assert "measured at 1.00 TFLOPs: agree" in family.held_out()
    errors = family.law.error_at(2 * COSTS[-1])
    low, high = np.quantile(errors, QUANTILES)
    assert low < 1 + 6 * 20**-0.5 < high and low <= errors[0] <= high


@pytest.mark.parametrize(("more", "verdict"), [(0.0, "agree"), (1.0, "differ"), (-1.0, "differ")])
def test_a_larger_budget_that_departs_from_the_curve_is_said_to_differ(
    more: float, verdict: str, tmp_path: Path
) -> None:
    for (width, cost), seed in itertools.product(enumerate(COSTS), range(3)):
        error = 1 + 6 * (cost / 1e11) ** -0.5 + (seed - 1) / 100 + (more if cost == COSTS[-1] else 0)
        metrics = {"test/top1_err": error}
        make_run(tmp_path, name=f"resnet{20 + width}", seed=seed, metrics=metrics, compute={"train_flops": cost})
    [family] = families(load_runs(tmp_path)[0])
    assert family.held_out().endswith(f"measured at 1.00 TFLOPs: {verdict}")


def test_too_few_different_costs_make_no_curve(tmp_path: Path) -> None:
    make_family(tmp_path, "resnet", 1.0, COSTS[:3])
    make_family(tmp_path, "resnext", 1.0, (*COSTS[:3], 1.04 * COSTS[2]))  # two of the same cost
    make_family(tmp_path, "densenet", 1.0, (*COSTS[:3], 1.06 * COSTS[2]))
    [family] = families(load_runs(tmp_path)[0])
    assert (family.name, family.held_out()) == ("densenet", "")
    assert equal_errors([family]) == []


@pytest.mark.parametrize("key", ["recipe.epochs", "trainer.max_train_flops", "trainer.max_train_seconds"])
def test_budgets_of_one_network_lie_on_one_curve(tmp_path: Path, key: str) -> None:
    for (place, cost), seed in itertools.product(enumerate(COSTS, 1), range(3)):
        error = 1 + 6 * (cost / 1e11) ** -0.5 + (seed - 1) / 100
        make_run(
            tmp_path,
            **{"seed": seed, "compute": {"train_flops": cost}, "overrides": {key: place}},
            metrics={"test/top1_err": error},
        )
    [family] = families(load_runs(tmp_path)[0])
    assert (family.name, family.costs) == ("resnext", pytest.approx(COSTS))


def test_what_is_held_out_has_no_other_run_of_its_cost_beside_it(tmp_path: Path) -> None:
    # Four different costs and a fifth run: without the largest cost there are three, as many as parameters.
    for place, costs in enumerate(((*COSTS[:4], 1.01 * COSTS[3]), (COSTS[0], 1.01 * COSTS[0], *COSTS[1:4]))):
        make_family(tmp_path / str(place), "resnet", 1.0, costs)
        [family] = families(load_runs(tmp_path / str(place))[0])
        assert (len(family.costs), family.held_out()) == (5, "")
    make_family(tmp_path / "two", "resnet", 1.0, (*COSTS, 1.01 * COSTS[4]))
    [family] = families(load_runs(tmp_path / "two")[0])
    predicted = float(fit(COSTS[:4], family.errors[:1, :4]).error_at(1.01 * COSTS[4])[0])
    assert family.held_out().startswith(f"{predicted:.2f} predicted, {family.errors[0, -1]:.2f} measured")


@pytest.mark.filterwarnings("error")
def test_families_on_other_test_images_are_not_compared(tmp_path: Path) -> None:
    make_family(tmp_path, "resnet", 1.0, COSTS, 1)
    make_family(tmp_path, "resnext", 1.0, COSTS, 2, data_sha256="b" * 64)
    make_family(tmp_path, "densenet", 1.0, COSTS, 3, data_sha256="b" * 64)
    pairs = equal_errors(families(load_runs(tmp_path)[0]))
    assert [{pair.first.name, pair.second.name} for pair in pairs] == [{"resnext", "densenet"}]
    titles = [one.title for one in scaling_view(tmp_path).figures]
    assert titles == ["digits", "digits"]


def test_scores_are_said_as_the_chart_shows_them(tmp_path: Path) -> None:
    for family, floor in (("unet", 4.0), ("vnet", 5.0)):
        for epochs in (1, 2, 4, 8, 16):
            for seed, noise in enumerate((-0.1, 0.0, 0.1)):
                make_run(
                    tmp_path,
                    **{"task": "segmentation", "name": f"{family}8", "family": family, "seed": seed},
                    overrides={"recipe.epochs": epochs},
                    metrics={"test/dice_err": floor + noise + 8 / epochs},
                    compute={"train_flops": epochs * 1e10},
                )
    first, second = families(load_runs(tmp_path)[0])
    # 4 + 8 / 16 and 5 + 8 / 16 are Dice scores of 95.50 and 94.50, and the lower one is what both reach.
    assert first.formula.startswith("100 − Dice = ")
    assert re.match(r"Dice 95\.\d\d predicted, 95\.50 measured at 160 GFLOPs: agree$", first.held_out())
    [pair] = equal_errors([first, second])
    assert re.match(r"at Dice 94\.[45]\d %, unet needs ", pair.text)


def test_of_several_learning_rates_the_one_with_the_lowest_validation_loss_counts(tmp_path: Path) -> None:
    def write(rate: float, seeds: int, more: float, loss: float) -> None:
        for epochs, seed in itertools.product((1, 2, 4, 8), range(seeds)):
            make_run(
                tmp_path,
                **{"name": "resnet20", "seed": seed, "recipe": "common"},
                overrides={"recipe.epochs": epochs, "recipe.optimizer.lr": rate},
                metrics={"test/top1_err": 2 + 8 / epochs + more + seed / 10},
                compute={"train_flops": epochs * 1e10},
                history=[{"step": 1, "epoch": 1, "samples_seen": 1, "wall_s": 1.0, "val/loss": loss}],
            )

    write(0.1, 3, 0.0, 0.3)
    [alone] = families(load_runs(tmp_path)[0])
    write(0.001, 3, 60.0, 2.0)
    write(0.2, 1, -1.0, 0.2)  # of one seed, which has no interval
    [one] = families(load_runs(tmp_path)[0])
    assert (one.costs, one.formula) == (alone.costs, alone.formula)
    write(0.4, 3, 60.0, float("nan"))
    [one] = families(load_runs(tmp_path)[0])
    assert (one.costs, one.formula) == (alone.costs, alone.formula)


@pytest.mark.filterwarnings("error")
def test_families_that_never_err_have_no_ratio(tmp_path: Path) -> None:
    for family in ("resnet", "densenet"):
        for width, seed in itertools.product(range(4), range(3)):
            folder = make_run(
                tmp_path,
                name=f"{family}{20 + width}",
                seed=seed,
                metrics={"test/top1_err": 0.0, "test/n": IMAGES},
                compute={"train_flops": COSTS[width]},
            )
            write_outcomes(folder, Outcomes("a" * 64, {"top1_err": np.ones(IMAGES, dtype=bool)}))
    members = families(load_runs(tmp_path)[0])
    assert [one.formula[:4] for one in members] == ["0.00", "0.00"]
    assert equal_errors(members) == []
    # Nor has one whose error is the same at every cost, beside one that learns.
    make_family(tmp_path / "learning", "resnext", 1.0, (*COSTS, 3e12, 1e13))
    [learning] = families(load_runs(tmp_path / "learning")[0])
    for level in np.arange(0.1, 30, 0.7):  # whose sums are rounded one way or the other
        errors = np.full_like(learning.errors, level)
        same = replace(learning, errors=errors, law=fit(learning.costs, errors))
        assert equal_errors([same, learning]) == equal_errors([learning, same]) == []
