"""Budgets in a real Trainer: where training ends, with what learning rates, and what a resumed run does."""

import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from benchmarks.records.record import to_json
from benchmarks.training import budget as budgets
from benchmarks.training import callbacks
from benchmarks.training.budget import Budget, take_budget
from benchmarks.training.checkpoints import weights_sha256
from benchmarks.training.energy import energy_counter
from benchmarks.training.options import TrainingOptions
from benchmarks.training.stopping import StopRequest
from datamodules.in_memory import InMemoryDataModule
from datamodules.sources.digits import load_digits
from lightning_modules.classifier import Classifier
from lightning_modules.schedules import warm_up_then_cosine

STEPS = 5  # of an epoch
STEP_FLOPS = 1000
COSINE = partial(CosineAnnealingLR, T_max=6)
COSINE_RATES = [0.05 * (1 + math.cos(math.pi * epoch / 6)) for epoch in range(6)]


class Watch(pl.Callback):
    """Notes the learning rate of every step and the step of every evaluation; saves at the end of every epoch."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.rates: list[float] = []
        self.evaluated: list[int] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.evaluated.append(trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads wait for each other longer than a step takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fit(
    *callbacks: pl.Callback, scheduler: Any = COSINE, checkpoint: Path | None = None, epochs: int = -1, **options: Any
) -> tuple[Classifier, Watch]:
    """Trains a linear net, five steps an epoch; ``callbacks`` before the one that is returned."""
    pl.seed_everything(0, verbose=False)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    module = Classifier(net, 10, partial(torch.optim.SGD, lr=0.1, momentum=0.9), scheduler)
    data = InMemoryDataModule(load_digits, 32, 512, {}, [0.3], [0.4], seed=0)
    watch = next((callback for callback in callbacks if isinstance(callback, Watch)), Watch())
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, limit_train_batches=STEPS, limit_val_batches=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, callbacks=[*(c for c in callbacks if c is not watch), watch], **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module, watch


def flops(steps: int, epochs: int = 6) -> Budget:
    return Budget("train_flops", steps * STEP_FLOPS + STEP_FLOPS // 2, STEP_FLOPS, epochs, StopRequest(60))


@pytest.mark.parametrize("scheduler", [COSINE, partial(MultiStepLR, milestones=[3, 5], gamma=0.1)])
def test_a_budget_of_the_recipes_epochs_is_the_recipe(scheduler: Any) -> None:
    by_epochs, recipe = fit(scheduler=scheduler, epochs=6)
    by_budget, watch = fit(flops(6 * STEPS), scheduler=scheduler)
    assert len(set(recipe.rates)) > 2
    assert watch.rates == recipe.rates
    assert watch.evaluated == recipe.evaluated == [5, 10, 15, 20, 25, 30]
    assert weights_sha256(by_budget.state_dict()) == weights_sha256(by_epochs.state_dict())


@pytest.mark.parametrize("steps", [1, 3, 7, 18, 20, 44])
def test_any_other_budget_has_the_whole_schedule(steps: int) -> None:
    budget = flops(steps)
    _, watch = fit(budget)
    # The share p of a step before it is made; its epoch in the recipe by the definition.
    assert watch.rates == pytest.approx([COSINE_RATES[int(step / steps * 6)] for step in range(steps)])
    if steps >= 6:
        assert sorted(set(watch.rates)) == pytest.approx(sorted(COSINE_RATES))
    whole = list(range(STEPS, steps + 1, STEPS))
    assert watch.evaluated == (whole if steps % STEPS == 0 else [*whole, steps])
    assert to_json(budget.spent()) == {"kind": "train_flops", "limit": steps * 1000 + 500, "spent": steps * 1000}


def test_lightning_does_not_step_the_schedule_as_well() -> None:
    one_cycle = partial(OneCycleLR, max_lr=0.1, total_steps=6, cycle_momentum=False)  # refuses a seventh step
    _, watch = fit(flops(9 * STEPS), scheduler=one_cycle)
    assert len(set(watch.rates)) == 6


def test_a_resumed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, watch = fit(flops(18), Watch(tmp_path))
    for checkpoint in ("5", "15"):
        budget = flops(18)
        resumed, after = fit(budget, checkpoint=tmp_path / f"{checkpoint}.ckpt")
        assert after.rates == watch.rates[int(checkpoint) :]
        assert budget.done == 18
        assert weights_sha256(resumed.state_dict()) == weights_sha256(whole.state_dict())


def test_a_spent_budget_takes_no_further_step(tmp_path: Path) -> None:
    whole, _ = fit(flops(7), Watch(tmp_path))
    resumed, after = fit(flops(7), checkpoint=tmp_path / "7.ckpt")
    assert after.rates == [] and after.evaluated == []
    assert weights_sha256(resumed.state_dict()) == weights_sha256(whole.state_dict())


class Regions(pl.Callback):
    """FLOPs of steps that cost 600 and 900 in turn, as a detector's differ."""

    spent = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.spent += 900 if self.spent % 1500 else 600

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = state_dict["spent"]


@pytest.mark.parametrize("scheduler", [COSINE, partial(warm_up_then_cosine, warm_up=0.2)])
def test_flops_of_steps_that_differ_are_read(scheduler: Any, tmp_path: Path) -> None:
    def run(**how: Any) -> tuple[Budget, Classifier, Watch]:
        regions = Regions()
        budget = Budget("train_flops", 10_000, STEP_FLOPS, 6, StopRequest(60), lambda: regions.spent)
        return budget, *fit(regions, budget, Watch(tmp_path), scheduler=scheduler, **how)

    budget, whole, watch = run()
    spent = [1500 * (step // 2) + 600 * (step % 2) for step in range(14)]
    assert to_json(budget.spent()) == {"kind": "train_flops", "limit": 10_000, "spent": 10_500}
    if scheduler is COSINE:
        assert watch.rates == pytest.approx([COSINE_RATES[flops * 6 // 10_000] for flops in spent])
    assert watch.evaluated == [5, 10, 14] and len(watch.rates) == 14
    _, resumed, after = run(checkpoint=tmp_path / "10.ckpt")
    assert after.rates == watch.rates[10:]
    assert weights_sha256(resumed.state_dict()) == weights_sha256(whole.state_dict())


class Clock(pl.Callback):
    """A clock that only training and evaluation move, by 0.3 s and 50 s."""

    def __init__(self) -> None:
        self.ns = 0

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.ns += 300_000_000

    def on_validation_start(self, *_: Any) -> None:
        self.ns += 50_000_000_000


def test_seconds_of_training_end_it_and_evaluation_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(**how: Any) -> tuple[Budget, Watch]:
        clock = Clock()
        monkeypatch.setattr(budgets, "time", SimpleNamespace(perf_counter_ns=lambda: clock.ns))
        budget = Budget("train_seconds", 4, STEP_FLOPS, epochs=6, stop=StopRequest(60))
        return budget, fit(clock, budget, Watch(tmp_path), **how)[1]

    budget, watch = run()
    assert len(watch.rates) == 14  # 13 steps are 3.9 s
    assert watch.evaluated == [5, 10, 14]
    assert to_json(budget.spent()) == {"kind": "train_seconds", "limit": 4, "spent": pytest.approx(4.2)}
    assert watch.rates == pytest.approx([COSINE_RATES[int(0.3 * step / 4 * 6)] for step in range(14)])
    within, watch_within = run(val_check_interval=2)
    assert watch_within.rates == watch.rates and to_json(within.spent()) == to_json(budget.spent())
    assert watch_within.evaluated == [2, 4, 7, 9, 12, 14]
    resumed, after = run(checkpoint=tmp_path / "10.ckpt")
    assert after.rates == watch.rates[10:]
    assert to_json(resumed.spent()) == to_json(budget.spent())


def test_real_seconds() -> None:
    budget = Budget("train_seconds", 0.5, STEP_FLOPS, epochs=6, stop=StopRequest(60))
    _, watch = fit(budget)
    assert 0.5 <= budget.spent().spent < 1.5
    assert watch.rates == sorted(watch.rates, reverse=True) and watch.rates[-1] == pytest.approx(COSINE_RATES[-1])


def test_joules_are_refused_without_a_counter() -> None:
    with pytest.raises(ValueError, match="^this machine has no energy counter: trainer.max_train_joules needs"):
        fit(Budget("train_joules", 100, STEP_FLOPS, epochs=6, stop=StopRequest(60)))
    with pytest.raises(ValueError, match="^this machine has no energy counter"):
        energy_counter(torch.device("cuda"))  # without the package, or without the driver


class Nvml:
    """NVML with one Volta GPU that uses 2.5 J between readings, and one of an older kind."""

    NVMLError = RuntimeError
    mj = 0

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle != "GPU-volta":
            raise self.NVMLError("Not Supported")
        self.mj += 2500
        return self.mj


def test_the_counter_is_the_one_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())  # type: ignore[arg-type]
    uuid = SimpleNamespace(uuid="volta")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: uuid)
    read = energy_counter(torch.device("cuda", 1))
    assert read() + 2500 == read()
    uuid.uuid = "maxwell"
    with pytest.raises(ValueError, match=r"no energy counter: .* \(Not Supported\)"):
        energy_counter(torch.device("cuda", 1))


def test_joules_of_training_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setattr(
        budgets, "energy_counter", lambda device: partial(nvml.nvmlDeviceGetTotalEnergyConsumption, "GPU-volta")
    )
    budget = Budget("train_joules", 20, STEP_FLOPS, epochs=6, stop=StopRequest(60))
    _, watch = fit(budget)
    # One reading a step, and one more at the start of training, of an epoch and after an evaluation, which restart it.
    assert len(watch.rates) == 8
    assert to_json(budget.spent()) == {"kind": "train_joules", "limit": 20, "spent": 20.0}


@pytest.mark.parametrize(
    ("keys", "step_flops", "said"),
    [
        ({"max_train_flops": 1e9, "max_train_joules": 5}, 482_598_912, "a run has one budget, got "
         "trainer.max_train_flops=1000000000.0, trainer.max_train_joules=5: set the others to null"),
        ({"max_train_flops": 1e9}, 0, "trainer.max_train_flops: a training step costs 0 FLOPs"),
        ({"max_train_flops": 4.8e8}, 482_598_912, "trainer.max_train_flops=4.8e+08 does not cover one training step, "
         "which costs 4.83e+08 FLOPs"),
    ],
)  # fmt: skip
def test_impossible_budgets_are_refused_in_one_line(keys: dict[str, Any], step_flops: int, said: str) -> None:
    with pytest.raises(ValueError) as error:
        take_budget(dict(keys), step_flops, 12, StopRequest(60))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_trainers_arguments_without_the_budgets_keys() -> None:
    arguments = {"devices": 1, "max_epochs": 12, **dict.fromkeys(budgets.KEYS)}
    assert take_budget(arguments, 10, 12, StopRequest(60)) is None
    assert arguments == {"devices": 1, "max_epochs": 12}
    arguments = {"devices": 1, "max_epochs": 12, **dict.fromkeys(budgets.KEYS), "max_train_flops": 1e3}
    budget = take_budget(arguments, 10, 12, StopRequest(60))
    assert budget is not None and (budget.kind, budget.total, budget.epochs) == ("train_flops", 100, 12)
    assert arguments == {"devices": 1, "max_epochs": -1}


def run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    trainer: Any = SimpleNamespace(
        world_size=2, is_global_zero=rank == 0, should_stop=False, optimizers=[optimizer],
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip
    module: Any = SimpleNamespace(
        by_step=False, learning_rates=lambda epochs: [1.0 / (1 + epoch) for epoch in range(epochs)]
    )
    stop = StopRequest(60)
    budget = Budget("train_seconds", 0.5, STEP_FLOPS, epochs=4, stop=stop)
    budget.setup(trainer, module, "fit")
    budget.on_train_start(trainer, module)
    stop.begin_training(trainer)
    time.sleep(0.1 * rank)
    budget.on_train_epoch_start(trainer, module)
    rates = []
    while not trainer.should_stop:
        budget.on_train_batch_start(trainer, module, None, len(rates))
        rates.append(optimizer.param_groups[0]["lr"])
        time.sleep(0.01 * (1 + rank))
        budget.on_train_batch_end(trainer, module, None, None, len(rates))
    (folder / f"{rank}.json").write_text(json.dumps([rates, to_json(budget.spent())]))
    dist.destroy_process_group()


def test_all_processes_go_by_one_clock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=run_rank, args=(rank, tmp_path), daemon=True) for rank in (0, 1)]
    for process in ranks:
        process.start()
    try:
        for process in ranks:
            process.join(timeout=60)
        assert [process.exitcode for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    rates, spent = first
    assert rates[0] == 1.0 and rates[-1] == 1 / 4
    assert 0.5 <= spent["spent"] < 1.0


def test_a_run_that_only_tests_is_not_refused_for_a_budget_of_training() -> None:
    arguments = {"max_train_flops": 0.5, "max_train_seconds": 3.0, "max_epochs": 2}
    run: Any = SimpleNamespace(record=None, progress="progress")
    assert callbacks.testing_callbacks(run, TrainingOptions(), arguments) == [run.memory, "progress"]
    assert arguments == {"max_epochs": 2}
