"""Validations that come every few epochs: which there are, what is measured between them, and runs that stop and go on."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from benchmarks.records.progress import clock as clock_text
from benchmarks.records.runs import read_history
from benchmarks.training import budget as budgets
from benchmarks.training import cost_meter
from benchmarks.training.budget import Budget
from benchmarks.training.checkpoints import BEST, LAST, AtomicCheckpointIO, Checkpoints, weights_sha256
from benchmarks.training.cost_meter import CostMeter
from benchmarks.training.finite_loss import FiniteLoss
from benchmarks.training.history import HistoryWriter
from benchmarks.training.progress_writer import ProgressWriter
from benchmarks.training.stopping import StopRequest
from benchmarks.training.validation_interval import ValidationInterval
from datamodules.in_memory import InMemoryDataModule
from datamodules.sources.digits import load_digits
from lightning_modules.classifier import Classifier

STEPS = 3  # of an epoch
CLOCKS = ("wall_s", "train_s", "images_per_s", "peak_memory_bytes")
pytestmark = pytest.mark.usefixtures("one_thread")


class Ended(Exception):
    """What ends a run."""


class EndAt(pl.Callback):
    """Ends a run after a step, or before the evaluation that follows it."""

    def __init__(self, step: int, before_evaluation: bool) -> None:
        self.step, self.before_evaluation = step, before_evaluation

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.before_evaluation:
            raise Ended

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and self.before_evaluation:
            raise Ended


def fit(
    folder: Path, every: int, *last: pl.Callback, epochs: int = 5, budget: Budget | None = None, save: int | None = None
) -> tuple[str, list[dict[str, Any]], CostMeter]:
    """Train a linear network, from its last checkpoint where it has one; return its checksum, its history and its costs."""
    pl.seed_everything(0, verbose=False)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    module = Classifier(
        net, 10, partial(torch.optim.SGD, lr=0.5, momentum=0.9), partial(torch.optim.lr_scheduler.ConstantLR)
    )
    data = InMemoryDataModule(load_digits, 32, 512, {}, [0.3], [0.4], seed=0)
    cost = CostMeter(1000, 32)
    checkpoints = Checkpoints(folder / "checkpoints", "val/top1_err", StopRequest(60), save, {})
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs if budget is None else -1, limit_train_batches=STEPS, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, plugins=[AtomicCheckpointIO(module)],
        callbacks=[
            *([] if budget is None else [budget]), ValidationInterval(every), FiniteLoss(), cost,
            HistoryWriter(folder, cost), checkpoints, *last,
        ],
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / "checkpoints" / LAST
    trainer.fit(module, datamodule=data, ckpt_path=path if path.exists() else None, weights_only=True)
    return weights_sha256(module.state_dict()), read_history(folder / "history.jsonl"), cost


def without_clocks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]


def test_validations_are_fewer_and_the_weights_the_same(tmp_path: Path) -> None:
    weights, rows, _ = fit(tmp_path / "second", 2)
    same, each, _ = fit(tmp_path / "each", 1)
    assert weights == same
    assert [row["epoch"] for row in rows] == [2, 4, 5], "the last epoch always"
    for row in rows:
        reference = next(other for other in each if other["epoch"] == row["epoch"])
        assert {key: row[key] for key in ("step", "samples_seen", "train_flops", "val/loss", "val/top1_err")} == {
            key: reference[key] for key in ("step", "samples_seen", "train_flops", "val/loss", "val/top1_err")
        }
    # Since the last validation: of both its epochs, which have as many images.
    assert rows[1]["train/loss"] == pytest.approx((each[2]["train/loss"] + each[3]["train/loss"]) / 2)
    best = torch.load(tmp_path / "second" / "checkpoints" / BEST, weights_only=True)
    assert best["global_step"] == min(rows, key=lambda row: row["val/top1_err"])["step"]


def test_a_budget_that_ends_amid_an_epoch_is_validated_there(tmp_path: Path) -> None:
    budget = Budget("train_flops", 8_500, 1000, 5, StopRequest(60))
    _, rows, _ = fit(tmp_path / "run", 2, budget=budget)
    assert [row["step"] for row in rows] == [6, 8]


class Clock(pl.Callback):
    """A clock that steps, evaluations and checkpoints move, by `step_s`, 50 and 700 s."""

    s = 0.0
    step_s = 1

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.s += self.step_s

    def on_validation_batch_end(self, *_: Any) -> None:
        self.s += 50

    def on_save_checkpoint(self, *_: Any) -> None:
        self.s += 700


@pytest.mark.parametrize(("every", "save"), [(1, None), (2, None), (9, None), (1, 1), (2, 2)])
def test_the_time_of_training_is_that_of_all_its_steps(
    every: int, save: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(cost_meter, "time", SimpleNamespace(perf_counter=lambda: clock.s))
    _, rows, cost = fit(tmp_path / "run", every, clock, save=save)
    assert cost.train_s == 5 * STEPS
    assert [row["train_s"] for row in rows] == [row["step"] for row in rows]
    assert {row["images_per_s"] for row in rows} == {32}  # a batch each second, evaluation and saving left out
    assert cost.images_per_s == 32 and cost.wall_s == clock.s > 700


@pytest.mark.parametrize("save", [None, 1])
def test_a_budget_of_seconds_is_spent_by_steps_alone(
    save: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(budgets, "time", SimpleNamespace(perf_counter_ns=lambda: int(clock.s * 1e9)))
    budget = Budget("train_seconds", 8, 1000, 5, StopRequest(60))
    _, rows, _ = fit(tmp_path / "run", 1, clock, budget=budget, save=save)
    assert [row["step"] for row in rows] == [3, 6, 8]
    assert budget.spent().spent == 8


def test_a_resumed_run_has_the_time_of_before_and_none_of_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(cost_meter, "time", SimpleNamespace(perf_counter=lambda: clock.s))
    with pytest.raises(Ended):
        fit(tmp_path, 2, clock, EndAt(5, False))
    kept = torch.load(tmp_path / "checkpoints" / LAST, weights_only=True)["callbacks"]["CostMeter"]
    assert (kept["train_s"], kept["samples_seen"]) == (3, 3 * 32)
    clock.s = begun = 1e6
    _, _, cost = fit(tmp_path, 2, clock)
    assert cost.train_s == 5 * STEPS
    assert cost.wall_s == kept["wall_s"] + clock.s - begun


class WithCost(ProgressWriter):
    """Takes the cost meter of the trainer's callbacks, as a run gives it one."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        [self.cost] = (one for one in trainer.callbacks if isinstance(one, CostMeter))
        super().on_train_start(trainer, pl_module)


def test_a_resumed_run_tells_the_pace_that_it_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(cost_meter, "time", SimpleNamespace(perf_counter=lambda: clock.s))
    clock.step_s = 100  # beside other work
    with pytest.raises(Ended):
        fit(tmp_path, 1, clock, WithCost(tmp_path), EndAt(5, False))
    clock.step_s = 1
    capsys.readouterr()
    _, _, cost = fit(tmp_path, 1, clock, WithCost(tmp_path))
    first, *_ = capsys.readouterr().out.splitlines()
    left_s = 3 * (3 * 1 + 50)  # three epochs of as many steps and an evaluation as the one that it has done
    assert first.startswith("epoch 2/5 ") and f"<{clock_text(left_s)}  32 img/s" in first
    assert cost.images_per_s == 32
    assert cost.train_s == 3 * 100 + 12


@pytest.mark.parametrize(
    ("step", "before_evaluation"), [(3, False), (5, False), (6, True), (8, False), (10, False), (15, True)]
)
def test_a_run_that_ended_anywhere_goes_on_to_the_same(step: int, before_evaluation: bool, tmp_path: Path) -> None:
    expected, rows, _ = fit(tmp_path / "whole", 2, save=2)
    with pytest.raises(Ended):
        fit(tmp_path / "run", 2, EndAt(step, before_evaluation), save=2)
    weights, resumed, _ = fit(tmp_path / "run", 2, save=2)
    assert weights == expected
    assert without_clocks(resumed) == without_clocks(rows)


def test_the_peak_of_memory_is_the_highest_of_all_stretches_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([5, 9, 3])
    monkeypatch.setattr(cost_meter, "peak_memory_bytes", lambda device: next(peaks))
    _, rows, _ = fit(tmp_path, 1, epochs=3)
    assert [row["peak_memory_bytes"] for row in rows] == [5, 9, 9]
