"""Measured steps: what throughput prints and keeps, what its figures hold for, where runs and the page have them."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from support.benchmark_command import command
from support.commands import run_here
from support.configurations import CPU, trial
from support.records import make_run
from torch import nn

from benchmarks.complexity.counting import measure
from benchmarks.performance import step_time, subprocesses, throughput
from benchmarks.performance.document import MeasuredTable
from benchmarks.records import measured_speed
from benchmarks.records.hardware import hardware
from benchmarks.records.runs import load_runs
from benchmarks.report.page import write_page
from benchmarks.report.runs_table import print_runs
from benchmarks.report.sections import alone
from benchmarks.training import options, tuned_settings
from benchmarks.training.environment import environment
from benchmarks.training.options import TrainingOptions
from lightning_modules.nets import ResNet

throughput_command = command("throughput")

MACHINE = environment(CPU) | {"device_name": "a test", "cores": 2, "threads": 1}


def asking(asked: list[Any]) -> Callable[..., dict[str, Any]]:
    """In place of ``measuring.ask``: training takes 2 s, or less in several processes, evaluation 0.5 s; 4 GFLOPs a second."""

    def ask(module: str, argument: Any, threads: int, ranks: int = 1, limit_s: int = 1) -> dict[str, Any]:
        if module == "performance.peak":
            return {"peaks": {"32-true": 4e9}, "environment": MACHINE | {"threads": threads}}
        in_effect = TrainingOptions(**argument["options"]).as_dict(CPU)
        asked.extend((ranks, one.get("batch", argument["batch"]), one["forward"]) for one in argument["passes"])
        times = [0.5 if one["forward"] else 2 / ranks**0.5 for one in argument["passes"]]
        shared = {"steps": 9, "memory_bytes": 10**7, "options": in_effect}
        return {"passes": [{"step_s": time, "quartiles_s": [time, time], **shared} for time in times]}

    return ask


def test_throughput_is_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(subprocesses, "ask", asking(asked))
    overrides = ["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]
    assert throughput_command(["--json", *overrides, "trainer.compile=true"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert asked == [(1, 1, True), (1, 32, True), (1, 32, False)]
    rates = {name: found[name]["images_per_s"] for name in throughput.PASSES}
    assert rates == {"latency": 2, "forward": 64, "training": 16}
    cost = measure(ResNet(**RESNET20), (1, 8, 8))
    assert found["activations"] == cost.activations
    assert found["training"]["of_peak"] == pytest.approx(16 * cost.train_flops_per_sample / 4e9)
    assert throughput_command(overrides) == 0
    kept = json.loads((tmp_path / measured_speed.KEPT).read_text())
    assert [one["options"].get("compile") for one in kept.values()] == [True, None]
    assert "a test" in capsys.readouterr().out
    assert throughput_command(["model=resnet", "trainer.tf32=true", "trainer.accelerator=cpu"]) == 2
    assert "a CPU has no TF32" in capsys.readouterr().err


def test_auto_is_measured_in_the_setting_that_runs_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocesses, "ask", asking([]))
    overrides = ["model=resnet", "trainer.accelerator=cpu", "trainer=auto", f"output_root={tmp_path}"]
    plain = {**tuned_settings.PLAIN, "train_images_per_s": 1.0}
    entry = {"settings": [plain, plain | {"compile": True, "train_images_per_s": 2.0}], "workers": [], "batches": []}
    key = tuned_settings.key_of(tuned_settings.specification(trial(*overrides).config))
    tuned_settings.keep(tmp_path, hardware(MACHINE), key, entry)
    assert throughput_command(["--json", *overrides]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["precision"], found["options"]) == ("32-true", {"compile": True, "channels_last": False})


@pytest.mark.parametrize(("load", "marked"), [(1e3, {measured_speed.LOAD: 1e3}), (0.0, {})])
def test_figures_of_a_busy_machine_are_marked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    load: float,
    marked: dict[str, float],
) -> None:
    monkeypatch.setattr(subprocesses, "ask", asking([]))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert throughput_command(["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]) == 0
    assert ("if others compute here, figures will be too low" in capsys.readouterr().err) == bool(marked)
    [kept] = json.loads((tmp_path / measured_speed.KEPT).read_text()).values()
    block = measured_speed.block(kept)
    assert {name: block[name] for name in block if name == measured_speed.LOAD} == marked
    [row] = alone(load_runs(make_run(tmp_path / "runs", throughput=block))[0]).rows
    assert str(row[1]).endswith(" *") == bool(marked)


def test_throughput_over_processes_and_its_committed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    written: dict[str, list[dict[str, Any]]] = {}

    def write(table: MeasuredTable, machine: Any, command: str, rows: Any) -> None:
        assert command.startswith("python -m benchmarks throughput model=resnet") and machine["threads"] == 1
        assert all(set(table.columns) | set(table.same) <= set(row) for row in rows)
        written[table.kind] = rows

    monkeypatch.setattr(subprocesses, "ask", asking(asked))
    monkeypatch.setattr(MeasuredTable, "write", write)
    plain = ["model=resnet", "trainer.accelerator=cpu", "cluster.oversubscribe=true", f"output_root={tmp_path}"]
    assert throughput_command([*plain, "trainer.devices=1,4", "recipe.batch_size=64", "--write"]) == 0
    assert asked[3:] == [(1, 1, True), (4, 16, True), (4, 16, False)]
    [alone, four] = written["scaling"]
    assert [*written] == ["scaling"] and alone["speed_up"] == alone["efficiency"] == 1
    assert four["train_images_per_s"] == 64 and four["batch"] == 64, "of all processes together"
    assert four["speed_up"] == pytest.approx(2) and four["efficiency"] == pytest.approx(0.5)
    assert "efficiency" in capsys.readouterr().out
    both = [*plain, "cluster.threads_per_process=1", "trainer.channels_last=true,false", "--write"]
    assert throughput_command(both) == 0
    assert [row["setting"] for row in written["throughput"]] == ["float32 channels_last eager", "float32 NCHW eager"]


@pytest.mark.parametrize("threads", ["1,2", "2,null"])
def test_rows_of_several_numbers_of_threads_are_no_one_record(
    threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(subprocesses, "ask", asking(asked))
    monkeypatch.setattr(tuned_settings, "cores", lambda: 1)
    monkeypatch.setattr(MeasuredTable, "write", lambda *rest: asked.append(rest))
    overrides = ["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]
    assert throughput_command([*overrides, f"cluster.threads_per_process={threads}", "--write"]) == 2
    assert "--write keeps figures of one number of threads, got 1, 2" in capsys.readouterr().err
    assert asked == []


def test_rows_of_other_options_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocesses, "ask", asking([]))
    assert throughput_command(["--json", "model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    several = {"accumulate_grad_batches": (2, 4), "ema_decay": (0.999, 0.99)}
    options = [{}, *({name: value} for name in tuned_settings.STEP_OPTIONS for value in several.get(name, (True,)))]
    settings = [throughput._row(found | {"options": one})["setting"] for one in options]
    assert len(set(settings)) == len(options)
    assert {"float32 NCHW eager cuda_graph", "float32 NCHW eager ema_decay=0.999"} <= set(settings)


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"seed": 3}, True),
        ({"overrides": {"recipe.optimizer.lr": 0.5, "recipe.epochs": 9}}, True),
        ({"overrides": {"recipe.optimizer.lr": 0.1, "recipe.optimizer.nesterov": True}}, False),
        ({"overrides": {"recipe.optimizer.lr": 0.1, "model.shortcut": "C"}}, False),
        ({"name": "resnet32"}, False),
        ({"complexity": {"input_size": [1, 16, 16]}}, False),
        ({"parallel": {"precision": "bf16-mixed"}}, False),
        ({"parallel": {"global_batch_size": 64}}, False),
        ({"parallel": {"world_size": 2}}, False),
        ({"parallel": {"compile": True}}, False),
        ({"parallel": {"channels_last": True}}, False),
        ({"parallel": {"accumulate_grad_batches": 2}}, False),
        ({"parallel": {"ema_decay": 0.999}}, False),
        ({"environment": {"threads": 4}}, False),
        ({"environment": {"device_name": "another"}}, False),
        ({"environment": {"packages": {"torch": "0.1"}}}, False),
        ({"environment": {"platform": "another kernel", "memory_bytes": 1}}, True),
    ],
)
def test_what_a_measurement_holds_for(changes: dict[str, Any], is_same: bool) -> None:
    parallel = {
        "world_size": 1,
        "num_nodes": 1,
        "sync_batchnorm": False,
        "global_batch_size": 32,
        "precision": "32-true",
    }
    record: dict[str, Any] = {
        "data": "digits", "name": "resnet20", "recipe": "resnet_digits", "seed": 0, "environment": MACHINE,
        "overrides": {"recipe.optimizer.lr": 0.1}, "parallel": parallel | TrainingOptions().as_dict(CPU),
        "complexity": measure(ResNet(**RESNET20), (1, 8, 8)).as_dict(),
    }  # fmt: skip
    other = {key: record[key] | value if key in ("complexity", "parallel", "environment") else value
             for key, value in changes.items()}  # fmt: skip
    key = measured_speed.key_of(record)
    assert key is not None and (measured_speed.key_of(record | other) == key) is is_same
    assert measured_speed.key_of({name: value for name, value in record.items() if name != "environment"}) is None


@pytest.mark.slow
def test_a_measured_network_is_in_the_records_of_its_runs_and_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model=resnet", "model.depth=8", "recipe.batch_size=64", "trainer.accelerator=cpu", "recipe.epochs=1"]
    assert throughput_command([*small, "cluster.threads_per_process=1", f"output_root={tmp_path}"]) == 0
    done = run_here(*small, "logger=none", root=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    [path] = tmp_path.rglob("record.json")
    record = json.loads(path.read_text())
    [kept] = json.loads((tmp_path / measured_speed.KEPT).read_text()).values()
    assert "throughput" not in record
    block = measured_speed.block(kept)

    def make(seed: int, **changes: Any) -> Path:
        there = path.parent.with_name(f"seed{seed}") / path.name
        there.parent.mkdir()
        there.write_text(json.dumps(record | {"seed": seed} | changes))
        return there

    make(1)
    make(2, status="running")
    earlier = make(3, parallel=record["parallel"] | {"sync_batchnorm": True}, throughput=block | {"made": "earlier"})
    make(4, parallel=record["parallel"] | {"precision": "bf16-mixed"})
    speeds = {run.seed: run.record.get("throughput") for run in load_runs(tmp_path)[0]}
    assert speeds == {0: block, 1: block, 2: None, 3: block | {"made": "earlier"}, 4: None}
    [below] = load_runs(path.parent)[0]
    assert below.record["throughput"] == block, "also where only a part of the output root is read"
    earlier.unlink()
    page = write_page(tmp_path).read_text()
    _, _, data = page.partition('id="data">')
    [chart] = json.loads(data.partition("</script>")[0])["charts"]
    costs = {len(one["runs"]): one["x"] for machine in chart["machines"] for one in machine["networks"]}
    assert costs[2]["latency_ms"] == pytest.approx(1e3 * kept["latency"]["median_s"])
    assert costs[2]["alone_images_per_s"] == pytest.approx(kept["training"]["images_per_s"])
    assert "wall_s" in costs[1] and "latency_ms" not in costs[1], "that in bfloat16 was not measured"
    print_runs(load_runs(tmp_path)[0])
    assert "Networks alone" in capsys.readouterr().out


SHORT = {"threads": 1, "measured_s": 0.3}


@pytest.mark.slow
def test_passes_of_one_process_and_of_two() -> None:
    network = ("model=resnet", "model.depth=8", "trainer.channels_last=false")
    base = tuned_settings.specification(trial(*network).config) | SHORT
    passes = [{"forward": True, "batch": 1}, {"forward": False, "batch": 256}]
    one, two = (subprocesses.steps(base, passes, ranks) for ranks in (1, 2))
    for small, large in (one, two):
        assert small["step_s"] < large["step_s"] and small["memory_bytes"] < large["memory_bytes"]
        assert small["options"] == TrainingOptions().as_dict(CPU)
    # Peaks of a pass are its own.
    [alone] = subprocesses.steps(base, passes[1:])
    assert one[1]["memory_bytes"] == pytest.approx(alone["memory_bytes"], rel=0.15)


@pytest.mark.slow
def test_passes_take_turns_with_another_step() -> None:
    base = tuned_settings.specification(trial("model=resnet", "model.depth=8", "recipe.batch_size=16").config) | SHORT
    passes = [{"forward": True}, {"forward": False}]
    alone = subprocesses.steps(base, passes)
    timing = {"seconds": 1.0, "clock": "thread_time"}  # which other processes of tests do not stretch
    beside = subprocesses.steps(base | {"beside": {"batch": 512}, "interleaved": timing}, passes)
    for one, other in zip(alone, beside, strict=True):
        assert "ratios" not in one and median(other["ratios"]) < 0.5 and other["beside_s"] > other["step_s"]
        assert other["memory_bytes"] < 1.3 * one["memory_bytes"] + 2**20  # not what the larger batch takes
    assert beside[1]["beside_s"] > beside[0]["beside_s"], "a training pass beside a training pass"


class Filled(nn.Linear):
    """Of which memory holds one."""

    made = 0

    def __init__(self) -> None:
        super().__init__(2, 2)
        type(self).made += 1
        self.number = self.made

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.number > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def test_where_memory_does_not_hold_two_networks_one_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Filled, "made", 0)
    specification = {
        "model": {"_target_": f"{__name__}.Filled"}, "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
        "image": [2], "batch": 3, "gpu": False, "precision": "32-true", "threads": torch.get_num_threads(), "beside": {},
    }  # fmt: skip
    [one] = step_time._measured(specification, [{}])
    assert one["step_s"] > 0 and "ratios" not in one and "error" not in one


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("64-true", torch.float64),
        ("32-true", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("bf16-mixed", torch.float32),
    ],
)
def test_steps_are_of_their_precision(precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "has_bf16", lambda device: True)
    config = trial("model=resnet", "model.depth=8", "recipe.batch_size=2", "trainer.accelerator=cpu").config
    specification = tuned_settings.specification(config) | {"precision": precision}
    steps = step_time.Steps(specification, CPU)
    assert {weight.dtype for weight in steps.net.parameters()} == {dtype}
    assert steps.of(specification)() > 0


@pytest.fixture
def tf32() -> Iterator[Callable[[], tuple[bool, bool]]]:
    """What reads the process's flags, which are set again after the test."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    yield lambda: (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = before


def test_steps_in_turns_have_tf32_as_each_would_alone(tf32: Callable[[], tuple[bool, bool]]) -> None:
    config = trial("model=resnet", "model.depth=8", "recipe.batch_size=2", "trainer.accelerator=cpu").config
    plain = tuned_settings.specification(config)
    seen: list[tuple[bool, bool]] = []

    def step(specification: dict[str, Any]) -> Callable[[], float]:
        steps = step_time.Steps(specification, CPU)
        steps.net.register_forward_hook(lambda *_: seen.append(tf32()))
        return steps.of(specification)

    without, default = step(plain | {"options": {"tf32": False}}), step(plain)
    for one in (without, default, without, default):
        one()
    assert seen == [(False, False), (False, True)] * 2, "by default convolutions alone"


RESNET20: dict[str, Any] = {
    "depth": 20, "block": "basic", "base_channels": 16, "stem": "cifar", "shortcut": "A", "in_channels": 1, "num_classes": 10,
}  # fmt: skip


@pytest.mark.slow
def test_steps_are_measured_in_a_process_of_their_own() -> None:
    config = trial("model=resnet", "recipe.batch_size=4", "trainer.channels_last=true").config
    asked = tuned_settings.specification(config) | {"threads": 1}
    assert asked["options"] == {"channels_last": True} and asked["batch"] == 4
    one = subprocesses.ask("performance.step_time", asked | {"datamodule": config["datamodule"]}, 1)
    lower, upper = one["quartiles_s"]
    assert 0 < lower <= one["step_s"] <= upper
    # Weights, gradients and momentum at least.
    assert one["memory_bytes"] > 3 * 4 * measure(ResNet(**RESNET20), (1, 8, 8)).params
