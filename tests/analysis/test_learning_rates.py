"""The rate with the lowest validation loss, from records with known losses."""

import itertools
import json
import re
from pathlib import Path

import pytest
from support.benchmark_command import command

from benchmarks.analysis.learning_rates import rate_trials
from benchmarks.config.compose import expand_all
from benchmarks.records.runs import load_runs
from benchmarks.report import learning_rate_view as view_module
from benchmarks.report.figures import log_axis
from benchmarks.report.learning_rate_view import learning_rate_view, networks_tried, rate_lines

RATES = (0.025, 0.05, 0.1, 0.2, 0.4)


def write(
    root: Path, name: str, rate: float, seed: int, loss: float, status: str = "ok", error: str = "", **overrides: float
) -> None:
    changes = "".join(f",{key}={value}" for key, value in overrides.items())
    folder = root / "digits" / name / f"common,lr={rate}{changes}" / f"seed{seed}"
    folder.mkdir(parents=True)
    record = {
        "schema": 1, "status": status, "error": error or None, "data": "digits", "family": "resnet",
        "name": name, "recipe": "common", "seed": seed,
        "overrides": {"recipe.optimizer.lr": rate} | {f"recipe.{key}": value for key, value in overrides.items()},
        "protocol": {"metric": "test/top1_err", "metric_label": "test error (%)"},
        "metrics": {"test/top1_err": 100.0 * rate, "test/n": 450}, "compute": {"train_flops": 1e9},
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(f"recipe: {{optimizer: {{lr: {rate}}}}}\n")
    rows = [{"step": 1, "val/loss": 9.0}, {"step": 2, "val/loss": loss}]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_network_gets_the_rate_with_the_lowest_mean_loss_at_the_end(tmp_path: Path) -> None:
    # Mean losses 0.6, 0.4, 0.3, 0.5; a run at 0.4 has diverged. The lowest single loss, 0.1, is at 0.2.
    losses = {0.025: (0.6, 0.6), 0.05: (0.35, 0.45), 0.1: (0.3, 0.3), 0.2: (0.1, 0.9)}
    for rate, pair in losses.items():
        for seed, loss in enumerate(pair, start=100):
            write(tmp_path, "resnet20", rate, seed, loss)
    write(tmp_path, "resnet20", 0.4, 100, 0.01)
    write(tmp_path, "resnet20", 0.4, 101, float("nan"), status="failed")
    for seed in (100, 101):
        write(tmp_path, "resnet20_w4", 0.2, seed, 0.5)
        write(tmp_path, "resnet20_w4", 0.4, seed, 0.4)

    write(tmp_path, "resnet56", 0.1, 0, 0.2)  # at one rate alone: a run of another experiment

    wide, narrow = rate_trials(load_runs(tmp_path)[0])
    assert (wide.best, wide.is_at_an_end, wide.unfinished) == (0.1, False, [0.4])
    assert wide.losses == pytest.approx({0.025: 0.6, 0.05: 0.4, 0.1: 0.3, 0.2: 0.5})
    assert wide.train_flops == 8e9
    assert (narrow.best, narrow.is_at_an_end) == (0.4, True)

    assert rate_lines(networks_tried(tmp_path)) == [
        "digits  resnet20  recipe.optimizer.lr=0.1",
        "digits  resnet20_w4  recipe.optimizer.lr=0.4, at an end of those tried",
    ]
    view = learning_rate_view(networks_tried(tmp_path))
    assert "12.0 GFLOPs" in view.lead
    assert "resnet20 at 0.4" in view.figures[0].caption


@pytest.mark.parametrize(
    "error",
    [
        "training loss is not finite in epoch 1, by step 18: a lower learning rate is the usual remedy",
        "validation loss is nan after epoch 2",
    ],
)
def test_a_rate_at_which_training_diverges_was_tried(error: str, tmp_path: Path) -> None:
    """Of 0.1 and 0.2 alone, 0.2 would be at an end; that 0.4 diverges says that the best is not beyond it."""
    for rate in (0.1, 0.2):
        write(tmp_path, "resnet20", rate, 100, 1 - rate)
    write(tmp_path, "resnet20", 0.4, 100, 9.0, "failed", error)
    write(tmp_path, "resnet20", 0.8, 100, 9.0, "failed", "killed by SIGKILL (out of memory?)")
    [network] = rate_trials(load_runs(tmp_path)[0])
    assert (network.best, network.unfinished) == (0.2, [0.4])
    assert rate_lines(networks_tried(tmp_path)) == ["digits  resnet20  recipe.optimizer.lr=0.2"]
    assert "resnet20 at 0.4" in learning_rate_view(networks_tried(tmp_path)).figures[0].caption


def test_the_command_reads_the_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = []
    monkeypatch.setattr(view_module, "load_runs", lambda root: roots.append(root) or load_runs(root))
    for name, seeds in (("resnet20", 2), ("resnet20_w4", 3), ("resnet56", 5)):
        for rate, seed in itertools.product((0.1, 0.2), range(seeds)):
            write(tmp_path, name, rate, seed, rate)
    assert command("view learning_rates")([str(tmp_path)]) == 0
    assert roots == [tmp_path]
    assert "digits  resnet56  recipe.optimizer.lr=0.1" in capsys.readouterr().out
    assert "Mean of 2–5 seeds, each as a small mark." in (tmp_path / "views" / "learning_rates.html").read_text()


def test_twenty_networks_over_a_wide_range_of_losses_are_drawn_legibly(tmp_path: Path) -> None:
    for width, rate in itertools.product(range(1, 21), (0.1, 0.2)):
        write(tmp_path, f"resnet20_w{width}", rate, 0, 2 * rate / width)
    view = learning_rate_view(networks_tried(tmp_path))
    [figure] = view.figures
    assert (view.title, figure.caption) == ("Learning rates", "One seed at each rate, as a small mark.")
    [chart] = figure.choices
    widths = [trace["line"]["width"] for trace in chart["traces"] if trace["mode"] == "lines"]
    assert len(widths) == 20 and widths == sorted(widths) and widths[0] >= 1 and widths[-1] <= 5
    axes = [axis for name, axis in chart["layout"].items() if name.startswith(("xaxis", "yaxis"))]
    assert len(axes) == 2 and all(
        axis["type"] == "log" and ("ticktext" in axis or "tickformat" in axis) for axis in axes
    )
    assert chart["layout"]["yaxis"]["dtick"] == "D2"
    assert "dtick" not in log_axis([0.3, 0.9])


def test_a_rate_with_fewer_seeds_was_tried(tmp_path: Path) -> None:
    for seed in (100, 101, 102):
        for rate in RATES[0 if seed < 102 else 1 : 5 if seed < 102 else 4]:
            write(tmp_path, "resnet20", rate, seed, 5.0 if rate == RATES[0] else rate)
    [network] = rate_trials(load_runs(tmp_path)[0])
    assert (network.best, network.unfinished, network.is_at_an_end) == (0.05, [0.025, 0.4], False)


@pytest.mark.parametrize("rates_of_results", [(0.1,), (0.05, 0.1)])
def test_results_at_the_rates_that_were_found_are_no_trials(
    rates_of_results: tuple[float, ...], tmp_path: Path
) -> None:
    for rate in RATES:
        for seed in (100, 101):
            write(tmp_path, "resnet20", rate, seed, abs(rate - 0.1))
    for rate in rates_of_results:
        for seed in (0, 1, 2):
            write(tmp_path, "resnet20", rate, seed, 5.0)
    [tried] = rate_trials(load_runs(tmp_path)[0])
    assert list(tried.runs) == list(RATES) and tried.unfinished == []
    assert (tried.best, tried.is_at_an_end, tried.train_flops) == (0.1, False, 10e9)


def test_a_network_that_was_tried_under_two_recipes_is_told_apart(tmp_path: Path) -> None:
    for epochs, best in ((3, 0.2), (30, 0.1)):
        for rate in RATES:
            write(tmp_path, "resnet20", rate, 100, abs(rate - best), epochs=epochs)
    assert rate_lines(networks_tried(tmp_path)) == [
        "digits  resnet20 (common, epochs=3)  recipe.optimizer.lr=0.2",
        "digits  resnet20 (common, epochs=30)  recipe.optimizer.lr=0.1",
    ]
    [chart] = learning_rate_view(networks_tried(tmp_path)).figures[0].choices
    names = [trace["name"] for trace in chart["traces"] if "name" in trace]
    assert names == ["resnet20 (common, epochs=3)", "resnet20 (common, epochs=30)"]


def test_of_two_data_sets_of_one_name_each_has_its_rate(tmp_path: Path) -> None:
    for sha256, best in (("a" * 64, 0.05), ("b" * 64, 0.2)):
        root = tmp_path / sha256[0]
        for rate in RATES:
            write(root, "resnet20", rate, 100, abs(rate - best))
        for path in root.rglob("record.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "dataset": {"sha256": sha256}}))
    assert rate_lines(networks_tried(tmp_path)) == [
        "digits  resnet20 (common, data aaaaaaa)  recipe.optimizer.lr=0.05",
        "digits  resnet20 (common, data bbbbbbb)  recipe.optimizer.lr=0.2",
    ]


def test_losses_in_two_precisions_are_not_averaged(tmp_path: Path) -> None:
    for rate, losses in {0.1: (0.10, 0.30), 0.2: (0.15, 0.15)}.items():
        for seed, (precision, loss) in enumerate(zip(("32-true", "bf16-true"), losses, strict=True)):
            write(tmp_path, "resnet20", rate, seed, loss)
            path = next(tmp_path.rglob(f"common,lr={rate}/seed{seed}/record.json"))
            path.write_text(json.dumps(json.loads(path.read_text()) | {"parallel": {"precision": precision}}))
    # Their means would make 0.2 the best rate of both.
    assert [one.best for one in rate_trials(load_runs(tmp_path)[0])] == [0.1, 0.2]


def test_runs_without_a_validation_loss_are_named_where_no_rate_can_be_compared(tmp_path: Path) -> None:
    for rate in (0.1, 0.2):
        write(tmp_path, "mask_rcnn", rate, 100, 0.5)
    write(tmp_path, "mask_rcnn", 0.4, 100, 0.5, status="failed")
    write(tmp_path, "resnet20", 0.1, 100, 0.5)
    for path in tmp_path.rglob("mask_rcnn/**/history.jsonl"):
        path.write_text(path.read_text().replace("val/loss", "val/mask_ap_err"))
    said = re.escape(f"{tmp_path} (2 runs without a validation loss, by which rates are compared): run.py ")
    with pytest.raises(ValueError, match=said):
        networks_tried(tmp_path)


def test_no_run_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run.py experiment=learning_rates"):
        networks_tried(tmp_path)


def test_the_experiment_tries_each_network_of_the_comparison_at_each_rate() -> None:
    trials = expand_all(["experiment=learning_rates"])
    rates: dict[str, set[float]] = {}
    for trial in trials:
        rates.setdefault(trial.config["name"], set()).add(trial.config["recipe"]["optimizer"]["lr"])
        assert trial.config["recipe"]["name"] == "common" and trial.config["seed"] in (100, 101)
    assert len(rates) == 12 and all(tried == set(RATES) for tried in rates.values())
    assert len(trials) == 12 * len(RATES) * 2
