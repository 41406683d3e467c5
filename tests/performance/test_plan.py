"""Forecasts beside what runs really cost, and sweeps that are too dear."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from support.benchmark_command import command
from support.commands import run_here
from support.configurations import CPU
from support.records import make_run

from benchmarks.analysis.published import tables
from benchmarks.analysis.reproduction import lines
from benchmarks.complexity.counting import measure
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Impossible, Trial, config_hash
from benchmarks.performance import forecasting
from benchmarks.performance.forecasting import Forecast, keep
from benchmarks.performance.plan import check_budget
from benchmarks.records.files import FORECASTS
from benchmarks.records.hardware import hardware
from benchmarks.records.runs import load_runs
from benchmarks.report.forecasts import comparison, with_forecasts
from benchmarks.report.published_table import legend
from benchmarks.training import tuned_settings
from benchmarks.training.budget import Budget
from benchmarks.training.environment import environment
from benchmarks.training.stopping import StopRequest
from benchmarks.training.train import tuned_arguments
from benchmarks.units import MISSING, device_hours, quantity
from lightning_modules.nets import UNet
from lightning_modules.tiling import predict_by_tiles

plan = command("plan")

MEASURED = {"step_s": 1.0, "first_s": 1.0, "memory_bytes": 1, "hardware": "a test"}


def forecast(
    trials: Sequence[Trial | Impossible], flops_per_s: float | None = 1e10, measure: bool = True
) -> list[Forecast]:
    return forecasting.forecast(trials, flops_per_s, measure)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output root in which the networks and data of these tests have been counted."""
    root = tmp_path_factory.mktemp("kept") / "outputs"
    forecast(expand(["model=resnet,resnext", f"output_root={root}"], multirun=True))
    return root


@pytest.mark.slow
def test_the_forecast_of_flops_is_what_a_run_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecasting, "ask", lambda *_: MEASURED | {"step_s": 0.5, "first_s": 0.5})
    root = tmp_path / "outputs"
    overrides = [
        "model=resnet", "trainer=ddp", "trainer.accelerator=cpu", "cluster.oversubscribe=true", "recipe.epochs=2",
        "trainer.limit_train_batches=3", "trainer.max_train_flops=null,2e9", "logger=none",
    ]  # fmt: skip
    assert plan(["-m", *overrides, f"output_root={root}"]) == 0
    assert "2 of 2 runs remain" in capsys.readouterr().out
    assert not list(root.glob("digits/*")), "a forecast starts nothing"
    forecasts = json.loads((root / FORECASTS).read_text())
    done = run_here("-m", *overrides, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    runs, _ = load_runs(root)
    assert [(one.part("parallel")["world_size"], one.part("compute")["steps"]) for one in runs] == [(2, 6), (2, 4)]
    for one in runs:
        spent, planned = one.part("compute"), forecasts[one.record["config_hash"]]
        assert planned["train_flops"] == spent["train_flops"]
        assert 2 * (spent["steps"] * 0.5 + forecasting.FORKED_S) < planned["device_s"] < 2 * (spent["steps"] * 0.5 + 10)
    assert str(comparison(runs)) in " ".join(done.stdout.split())
    assert plan(["--no-measure", *overrides, f"output_root={root}"]) == 0
    assert "0 of 2 runs remain: 0 FLOPs of training; 2 done" in capsys.readouterr().out
    for path in root.glob("digits/*/*/*/record.json"):  # as one that was made when 1 and 1.0 had two hashes
        path.write_text(json.dumps(json.loads(path.read_text()) | {"config_hash": "0" * 64}))
    assert plan(["--no-measure", *overrides, f"output_root={root}"]) == 0
    assert "0 of 2 runs remain: 0 FLOPs of training; 2 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "steps", "evaluations"),
    [
        ([], 12 * 37, 12),  # 1,197 images in batches of 32
        (["recipe.batch_size=64", "recipe.epochs=3"], 3 * 18, 3),
        (["trainer.limit_train_batches=5"], 12 * 5, 12),
        (["trainer.limit_train_batches=100"], 12 * 37, 12),
        (["+recipe.validate_every=5"], 12 * 37, 3),  # after epochs 5, 10 and 12
        (["trainer.max_train_flops=1e6"], 100, 3),
        (["trainer.max_train_flops=1e6", "+recipe.validate_every=2"], 100, 2),  # after epoch 2 and amid the third
        (["trainer.max_train_flops=379999"], 37, 1),
        (["trainer.max_train_seconds=2.1"], 5, 1),
    ],
)
def test_the_length_of_a_run(overrides: list[str], steps: int, evaluations: int) -> None:
    [trial] = expand(overrides, multirun=False)
    assert isinstance(trial, Trial)
    assert forecasting._length(trial.config, 1197, 10_000, 0.5, 0.0, None) == (steps, evaluations)
    if (limit := trial.config["trainer"].get("max_train_flops")) is not None:
        assert Budget("train_flops", limit, 10_000, 12, StopRequest(60)).total == steps


@pytest.mark.parametrize(
    ("override", "step_flops", "said"),
    [
        ("recipe.batch_size=2048", 10_000, "at least one batch of 2048 images, the training split has 1197"),
        ("trainer.max_train_flops=9999", 10_000, "does not cover one step of 1e+04 FLOPs"),
        ("trainer.max_train_flops=9999", 0, "a step costs 0 FLOPs: no product of the network is counted"),
        ("trainer.max_train_joules=5", 10_000, "max_train_joules cannot be forecast"),
        ("trainer.max_train_seconds=5", 10_000, "max_train_seconds needs the time of a step: no GPU"),
    ],
)
def test_a_length_that_is_not_known_is_refused(override: str, step_flops: int, said: str) -> None:
    [trial] = expand([override], multirun=False)
    assert isinstance(trial, Trial)
    with pytest.raises(ValueError, match=re.escape(said)):
        forecasting._length(trial.config, 1197, step_flops, None, 0.0, "no GPU")


def test_compiling_takes_time_once_and_of_a_budget_of_seconds(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def costs(first_s: float, *overrides: str) -> tuple[float, float]:
        monkeypatch.setattr(forecasting, "_step", lambda *_: MEASURED | {"step_s": 0.5, "first_s": first_s})
        [one] = forecast(expand(["trainer.accelerator=cpu", *overrides, f"output_root={kept}"], multirun=False), None)
        assert one.train_flops is not None and one.device_s is not None
        return one.train_flops, one.device_s

    flops, device_s = costs(0.5)
    assert costs(59.5) == (flops, pytest.approx(device_s + 59)) and costs(0.4) == (flops, device_s)
    eager, eager_s = costs(0.5, "trainer.max_train_seconds=100")
    compiled, compiled_s = costs(59.5, "trainer.max_train_seconds=100")
    assert compiled / eager == pytest.approx(82 / 200)
    assert 100 < compiled_s < eager_s, "it evaluates less often"
    assert costs(59.5, "trainer.max_train_seconds=10")[0] / eager == pytest.approx(1 / 200)


def test_a_network_of_which_nothing_is_counted_takes_no_time_at_a_stated_throughput(kept: Path) -> None:
    [trial] = expand([f"output_root={kept}"], multirun=False)
    assert isinstance(trial, Trial)
    flat = Trial({**trial.config, "model": {"_target_": "torch.nn.Flatten"}}, {})
    [found] = forecast([flat])
    assert (found.problem, found.train_flops, found.device_s) == (None, 0, 0)


def test_time_at_a_stated_throughput(kept: Path) -> None:
    """Training and evaluation at 10 GFLOPs/s of each of four devices."""
    [trial] = expand(["trainer.devices=2", "trainer.num_nodes=2", "recipe.epochs=3", f"output_root={kept}"], False)
    [one] = forecast([trial])
    cost = measure(instantiate(trial.config["model"]), (1, 8, 8))
    flops = 3 * 37 * 32 * cost.train_flops_per_sample
    assert (one.params, one.train_flops) == (cost.params, flops)
    assert one.device_s == pytest.approx((flops + (3 * 150 + 450) * cost.flops) / 1e10)
    assert json.loads((kept / FORECASTS).read_text())[config_hash(trial.config)]["device_s"] == one.device_s


def test_tiles_of_an_evaluation_are_those_of_the_network() -> None:
    net = UNet(in_channels=1, num_classes=2, base_channels=2, padded=False, depth=2, dropout=0.0).eval()
    seen: list[int] = []
    for shape in ((100, 100), (150, 61), (37, 300)):
        predict_by_tiles(net, torch.zeros(1, *shape), 92, 50, progress=lambda done, total: seen.append(total))
        config: dict[str, Any] = {
            "data": {"task": "segmentation", "image_size": [92, 92]},
            "recipe": {"tiles": {"tile": 92, "batch_size": 1}},
        }
        border = 92 - net.output_size(92, 92)[0]
        assert forecasting._passes(config, {"border": border}, {"test": shape}, "test") == seen[-1]
        config["recipe"]["test_time_dihedral"] = True
        assert forecasting._passes(config, {"border": border}, {"test": shape}, "test") == 8 * seen[-1]


def test_a_test_by_several_crops_costs_their_pixels() -> None:
    config = {"data": {"task": "classification", "image_size": [224, 224], "test_views": ["10crop", 320]}}
    assert forecasting._passes(config, {}, {}, "test") == pytest.approx(1 + 10 + 320**2 / 224**2)
    assert forecasting._passes(config, {}, {}, "val") == 1


def test_auto_is_forecast_in_the_setting_that_runs_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def ask(module: str, specification: dict[str, Any], *_: Any) -> dict[str, Any]:
        asked.append(specification)
        return MEASURED

    here = hardware(environment(CPU))
    monkeypatch.setattr(forecasting, "ask", ask)
    monkeypatch.setattr(forecasting, "machine", lambda gpu: here)
    overrides = ["model=resnet", "trainer=auto", "trainer.accelerator=cpu", f"output_root={tmp_path}"]
    trials = expand(overrides, multirun=False)
    [trial] = trials
    assert isinstance(trial, Trial)
    plain = tuned_settings.specification(trial.config)
    forecast(trials, None)
    rows = [{**tuned_settings.PLAIN, "train_images_per_s": 1.0}]
    rows.append(rows[0] | {"compile": True, "channels_last": False, "train_images_per_s": 2.0})
    entry = {"settings": rows, "workers": [], "batches": []}
    tuned_settings.keep(tmp_path, here, tuned_settings.key_of(plain), entry)
    forecast(trials, None)
    in_table, tuned = asked
    assert in_table == plain and "compile" not in plain["options"]
    assert tuned == plain | {"options": {"compile": True, "channels_last": False}}
    arguments, _ = tuned_arguments(trial.config, tmp_path)
    assert {name: arguments[name] for name in tuned["options"]} == tuned["options"]


@pytest.mark.slow
def test_a_step_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = expand(
        ["trainer.accelerator=cpu", "recipe.optimizer.lr=0.1,0.2", f"output_root={tmp_path}"], multirun=True
    )
    one, other = forecast(trials, None)
    assert one.device_s == other.device_s and one.device_s is not None and one.device_s > forecasting.FORKED_S
    assert one.params is not None and one.memory_bytes is not None
    assert 3 * 4 * one.params < one.memory_bytes < 2 * 10**9  # weights, gradients and momentum at least
    monkeypatch.setattr(forecasting, "ask", lambda *_: pytest.fail("measured again"))
    assert forecast(trials, None) == [one, other] == forecast(trials, None, measure=False)
    [wider] = expand(["trainer.accelerator=cpu", "recipe.batch_size=64", f"output_root={tmp_path}"], multirun=False)
    [unknown] = forecast([wider], None, measure=False)
    assert unknown.device_s is None and unknown.unmeasured == "its steps have not been measured on this machine"


def test_a_measurement_that_fails_says_why() -> None:
    specification = {
        "model": {"_target_": "lightning_modules.nets.Nothing"}, "optimizer": {}, "image": [1, 8, 8], "batch": 2,
        "gpu": False, "precision": "32-true", "threads": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="lightning_modules.nets.Nothing"):
        forecasting.ask("performance.step_time", specification, specification["threads"])


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["train_flops=1e9"], "nothing was started: train_flops of what remains (2 of 2 runs) is forecast as"),
        (["train_flops=5e11"], None),
        (["money=3"], "launch.budget.money needs launch.price_per_device_hour"),
        ([], None),
    ],
)  # fmt: skip
def test_a_sweep_above_its_budget_is_not_started(limits: list[str], said: str | None, kept: Path) -> None:
    trials = expand(["model=resnet", "seed=0,1", f"output_root={kept}", *(f"launch.budget.{x}" for x in limits)], True)
    if said is None:
        check_budget(trials)
        return
    with pytest.raises(ConfigurationError) as error:
        check_budget(trials)
    assert said in str(error.value) and "\n" not in str(error.value)


JOULES = "trainer.max_train_joules=1e9"
DETECTOR = ["model=mask_rcnn", "data=digit_scenes", "trainer.max_train_seconds=3600"]


@pytest.mark.parametrize(
    ("overrides", "limit", "said"),
    [
        (["model=resnet", JOULES], "device_hours", "max_train_joules cannot be forecast"),
        (["model=resnet", "trainer.max_train_joules=null,1e9"], "train_flops", "max_train_joules cannot be forecast"),
        (DETECTOR, "device_hours", "max_train_seconds needs the time of a step: steps of a detector"),
        (DETECTOR, "train_flops", "max_train_seconds needs the time of a step: steps of a detector"),
    ],
)
def test_a_sweep_of_unknown_length_is_not_started(
    overrides: list[str], limit: str, said: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "ask", lambda *_: MEASURED)
    trials = expand([*overrides, "trainer.accelerator=cpu", f"launch.budget.{limit}=1e-6", f"output_root={kept}"], True)
    with pytest.raises(ConfigurationError) as error:
        check_budget(trials)
    assert str(error.value).startswith(f"launch.budget.{limit} cannot be checked: {trials[-1].label}: trainer.{said}")


def test_a_budget_of_flops_holds_for_training_that_ends_by_the_clock(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "ask", lambda *_: MEASURED)
    # A batch of which no step was measured before.
    given = ["model=resnet", "recipe.batch_size=48", "trainer.accelerator=cpu", f"output_root={kept}"]
    given.append("trainer.max_train_seconds=3")
    with pytest.raises(ConfigurationError, match="nothing was started: train_flops of what remains .1 of 1 runs. is"):
        check_budget(expand([*given, "launch.budget.train_flops=1"], multirun=True))
    check_budget(expand([*given, "launch.budget.train_flops=1e12"], multirun=True))


def test_a_run_of_unknown_length_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}", "--no-measure"]
    assert plan([*given, "trainer.max_train_seconds=3600,null"]) == 0
    out = capsys.readouterr().out
    assert f"2 of 2 runs remain: {MISSING} FLOPs of training." in out and "Cannot run" not in out
    assert "trainer.max_train_seconds needs the time of a step: its steps have not been measured on this machine" in out
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["resnet20"], ["remains"])]
    assert [row[-1] for row in rows] == [MISSING, "G", MISSING]


def test_limits_of_time_and_money(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "ask", lambda *_: MEASURED)
    seconds = 3600 / (
        2 * 12 * 37 + 2 * forecasting.FORKED_S
    )  # two runs of 444 steps of a second; evaluation comes on top
    for limit, passes in ((1 / seconds, False), (1.2 / seconds, True)):
        given = ["trainer.accelerator=cpu", "model=resnet", "seed=0,1", f"output_root={kept}"]
        for budget in ([f"device_hours={limit}"], [f"money={limit * 5}"]):
            launch = [f"launch.budget.{text}" for text in budget] + ["launch.price_per_device_hour=5"]
            trials = expand([*given, *launch], multirun=True)
            if passes:
                check_budget(trials)
            else:
                with pytest.raises(ConfigurationError, match=f"above launch.budget.{budget[0].split('=')[0]}"):
                    check_budget(trials)


def test_many_trials_are_folded_and_the_impossible_named(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["model=resnet,unet,resnext", "seed=range(20)", f"output_root={kept}"]
    trials = expand(overrides, multirun=True)
    assert plan([*overrides, "--flops-per-s=1e10"]) == 1
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if "digits" in line and "resne" in line.split()[0]]
    assert [row[:4] for row in rows] == [
        ["resnet20", "digits", "resnet_digits", "20"],
        ["resnext20_8x4d", "digits", "resnext_digits", "20"],
    ]
    total = sum(one.train_flops or 0 for one in forecast(trials))
    assert f"40 of 60 runs remain: {total / 1e12:.1f} TFLOPs" in out
    rates = ",".join(str(number / 100) for number in range(1, 32))  # of each one seed, whose number is 0
    assert plan(["model=resnet", f"recipe.optimizer.lr={rates}", f"output_root={kept}", "--flops-per-s=1e10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["resnet20"]]
    assert [line[3] for line in lines] == ["1"] * 31
    assert "Cannot run: model=unet seed=0 " in out and " and 19 more: model=unet is not set up for data=digits" in out
    overrides = ["model=resnet", "seed=0,1", "launch.price_per_device_hour=1000", f"output_root={kept}"]
    few = expand(overrides, multirun=True)
    assert plan([*overrides, "--flops-per-s=1e10"]) == 0
    out = capsys.readouterr().out
    hours = (forecast(few)[0].device_s or math.nan) / 3600
    [first] = [
        line.split() for line in out.splitlines() if line.split()[:4] == ["resnet20", "digits", "resnet_digits", "0"]
    ]
    assert f"{1000 * hours:,.2f}" in first


@pytest.mark.parametrize("missing", [None, "complexity", "compute", "parallel"])
def test_a_finished_run_costs_nothing_more_whatever_its_record_lacks(
    missing: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["model=resnet", f"output_root={tmp_path / 'outputs'}"]
    [trial] = expand(asked, multirun=False)
    assert isinstance(trial, Trial)
    trial.directory.mkdir(parents=True)
    (trial.directory / "config.yaml").write_text(yaml.safe_dump(trial.config))
    made = json.loads((make_run(tmp_path / "made") / "record.json").read_text())
    (trial.directory / "record.json").write_text(json.dumps({key: made[key] for key in made if key != missing}))
    [one] = forecast([trial])
    assert one.finished and not one.remains
    assert one.params == (None if missing == "complexity" else made["complexity"]["params"])
    assert one.device_s == (None if missing in ("compute", "parallel") else made["compute"]["wall_s"])
    assert plan([*asked, "--flops-per-s=1e10"]) == 0
    out = capsys.readouterr().out
    assert "0 of 1 run remain" in out
    [row] = [line.split() for line in out.splitlines() if line.split()[:1] == ["resnet20"]]
    units = {None: ["k", "G"], "complexity": ["G"], "compute": ["k"], "parallel": ["k", "G"]}  # parameters, train FLOPs
    assert [word for word in row[4:] if word in ("k", "G")] == units[missing] and row[-1] == "done"
    assert len(row) == 5 + 2 * len(units[missing]) + (one.device_s is not None), "what is not known is blank"


def test_a_data_set_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan([f"output_root={tmp_path}", "data=cifar10", f"data.root={tmp_path / 'no'}", "--no-measure"]) == 1
    out = capsys.readouterr().out
    assert (
        "Cannot run: resnext29_8x64d · seed 0:" in out
        and "none of 1 run can run" in out
        and str(tmp_path / "no") in out.replace("\n", "")
    )


def test_a_row_of_a_table_is_forecast_without_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the 50,000 images that He et al. train on; the table then says what its rows would cost."""
    asked = ["experiment=resnet_table6", f"output_root={tmp_path}", f"data.root={tmp_path / 'no'}"]
    assert plan([*asked, "row=resnet20", "--flops-per-s=1e12"]) == 1
    [trial] = expand([*asked, "row=resnet20"], multirun=True)
    assert isinstance(trial, Trial)
    recipe = trial.config["recipe"]
    images = 50_000 // recipe["batch_size"] * recipe["batch_size"] * recipe["epochs"]
    flops = images * measure(instantiate(trial.config["model"]), (3, 32, 32)).train_flops_per_sample
    out = " ".join(capsys.readouterr().out.split())
    assert f"1 of 1 run remains: {quantity(flops, 'FLOPs')} of training" in out and "no data" in out
    assert "for the paper's number of training images, without evaluation" in out and "Cannot run: resnet20" in out
    table = tables()["resnet_table6"].pick(["resnet20", "resnet32"])
    notes = legend(table, with_forecasts(lines(table, ()), table, tmp_path))
    hours = device_hours(flops / 1e12)
    assert (
        f"ResNet, 20 layers: a run would cost {quantity(flops, 'FLOPs')} of training, {hours} on a stated 1.00 TFLOPs/s"
        in notes
    )
    assert "what rows that were not run would cost: python -m benchmarks plan experiment=resnet_table6" in notes


def test_an_output_root_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert plan([f"output_root={tmp_path / 'file'}", "--no-measure"]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith(f"python -m benchmarks plan: cannot write to {tmp_path / 'file'}") and error.count("\n") == 1
    )


def test_a_network_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(["model=resnt"]) == 2
    assert capsys.readouterr().err.startswith("python -m benchmarks plan: no model named 'resnt' (did you mean")


def test_the_former_mode_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    import run

    assert run.main(["mode=plan"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "run.py: mode is train or test, got 'plan'; `python -m benchmarks plan` forecasts\n"
    assert captured.out == ""


def test_the_table_of_runs_compares_forecast_and_actual(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run(tmp_path, seed=seed, compute={"train_flops": 6 * 10**14}, resumptions=[{"at": "x"}] if seed else [])
    make_run(tmp_path, seed=3, status="failed")
    runs, _ = load_runs(tmp_path)
    assert comparison(runs) is None
    cost = {"train_flops": 5 * 10**14, "device_s": 1440.0, "memory_bytes": 1, "hardware": "a test", "made": "today"}
    keep(tmp_path, {runs[0].record["config_hash"]: cost | {"device_s": 1.0}})
    keep(tmp_path, {run.record["config_hash"]: cost for run in (runs[0], runs[1], runs[3])})
    # Seed 0 took 72 s from start to end; seed 1 was resumed, so what it worked counts: 31.5 s.
    text = "forecast 1.00 PFLOPs, 0.8 device-hours; actual 1.20 PFLOPs, 0.0288 device-hours (2 runs with a forecast)"
    assert comparison(runs) == text
