"""What a run keeps when something goes wrong inside it: real Trainer, real files."""

import os
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from benchmarks.complexity.counting import measure
from benchmarks.records.files import append_row, last_row, read_json, write_json
from benchmarks.records.runs import read_history
from benchmarks.training.checkpoints import BEST, LAST, PREVIOUS, AtomicCheckpointIO, Checkpoints, weights_sha256
from benchmarks.training.cost_meter import CostMeter
from benchmarks.training.finite_loss import FiniteLoss, NonFiniteLossError
from benchmarks.training.history import HistoryWriter
from benchmarks.training.step_seed import StepSeed
from benchmarks.training.stopping import StopRequest
from datamodules.in_memory import InMemoryDataModule
from datamodules.sources.digits import load_digits
from lightning_modules.classifier import Classifier
from lightning_modules.nets import ResNet


class PoisonIn(pl.Callback):
    """Makes the weights NaN at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))


def fit(directory: Path, *callbacks: pl.Callback, epochs: int = 3) -> tuple[CostMeter, pl.Trainer]:
    directory.mkdir(exist_ok=True)
    pl.seed_everything(0, verbose=False)
    net = ResNet(8, block="basic", base_channels=4, in_channels=1, num_classes=10, stem="cifar")
    module = Classifier(
        net, 10, partial(torch.optim.SGD, lr=0.01), partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    )
    data = InMemoryDataModule(load_digits, 32, 512, {}, [0.3], [0.4], seed=0)
    cost = CostMeter(measure(net, (1, 8, 8)).train_macs_per_sample, 32)
    accounting = [StepSeed(0), FiniteLoss(), cost, HistoryWriter(directory, cost)]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, limit_train_batches=5, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        callbacks=[*accounting, Checkpoints(directory / "checkpoints", "val/top1_err", StopRequest(60), None, {}), *callbacks],
        plugins=[AtomicCheckpointIO(module)],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return cost, trainer


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path / "good", epochs=2)
    with pytest.raises(NonFiniteLossError, match="not finite in epoch 3"):
        fit(tmp_path / "poisoned", PoisonIn(2), epochs=3)
    kept, good = (
        torch.load(tmp_path / name / "checkpoints" / LAST, weights_only=True) for name in ("poisoned", "good")
    )
    assert weights_sha256(kept["state_dict"]) == weights_sha256(good["state_dict"])
    last = last_row(tmp_path / "poisoned" / "history.jsonl")
    assert last is not None and last["epoch"] == 2


def test_compute_counts_training_images_alone(tmp_path: Path) -> None:
    meter, trainer = fit(tmp_path)
    net = ResNet(8, block="basic", base_channels=4, in_channels=1, num_classes=10, stem="cifar")
    cost = measure(net, (1, 8, 8))
    stem = cost.layers[0]
    assert meter.samples_seen == 3 * 5 * 32
    totals = meter.totals(trainer)
    assert totals.train_macs == 3 * 5 * 32 * (3 * cost.macs - stem.macs)
    assert totals.train_flops == 2 * totals.train_macs
    assert totals.train_s < totals.wall_s


def test_rows_hold_the_loss_and_learning_rate_of_every_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []

    class Observer(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
            self.lr = optimizer.param_groups[0]["lr"]

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *arguments: Any) -> None:
            seen.append((outputs["loss"].item(), self.lr))

    monkeypatch.setattr("benchmarks.training.history.STEPS_EVERY", 4)
    cost, _ = fit(tmp_path, Observer(), epochs=4)
    rows = read_history(tmp_path / "history.jsonl")
    of_step = cost.train_macs // 20
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert [row["steps"]["step"] for row in rows] == [[4], [8], [12], [16, 20]]
    for row in rows:
        points = row["steps"]
        assert points["train_flops"] == [2 * of_step * step for step in points["step"]]
        for step, loss, lr in zip(points["step"], points["loss"], points["lr"], strict=True):
            assert loss == pytest.approx(sum(one for one, _ in seen[step - 4 : step]) / 4, rel=1e-12)
            assert lr == seen[step - 1][1]
        assert row["lr"] == seen[row["step"] - 1][1]  # of the last step, not of the next one
    # Halved after each epoch, of which step 20 is the last one.
    assert [rows[-1]["steps"]["lr"], rows[-1]["lr"]] == [[0.00125, 0.00125], 0.00125]


def test_an_evaluation_after_a_resume_has_the_rate_of_the_step_before_the_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path, epochs=2)
    callbacks = torch.load(tmp_path / "checkpoints" / LAST, weights_only=True)["callbacks"]
    assert callbacks["HistoryWriter"]["lr"] == 0.005


def test_of_equal_epochs_the_earlier_is_the_best_also_after_a_resume(tmp_path: Path) -> None:
    saved: list[str] = []

    def is_best(checkpoints: Checkpoints, value: float) -> bool:
        saved.clear()
        trainer: Any = SimpleNamespace(
            callback_metrics={"val/x": value}, save_checkpoint=lambda path, **_: saved.append(path.name)
        )
        checkpoints.on_train_epoch_end(trainer, pl.LightningModule())
        assert saved[-1] == LAST
        return BEST in saved

    first, resumed = (Checkpoints(tmp_path, "val/x", StopRequest(60), None, {}) for _ in range(2))
    assert [is_best(first, value) for value in (5.0, 5.0, 6.0, 4.0)] == [True, False, False, True]
    resumed.load_state_dict(first.state_dict())
    assert [is_best(resumed, value) for value in (4.5, 4.0, 3.9)] == [False, False, True]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        saver = AtomicCheckpointIO(torch.nn.Linear(1, 1))
        saver.save_checkpoint({"weights": torch.zeros(1000)}, folder / LAST)
        write_json(folder / "record.json", {"status": "running"})
        saver.save_checkpoint({"weights": torch.zeros(1000)}, folder / LAST)
        with pytest.raises(OSError, match="No space left"):
            saver.save_checkpoint({"weights": torch.ones(1_000_000)}, folder / LAST)
        for kept in (LAST, PREVIOUS):
            assert saver.load_checkpoint(folder / kept)["weights"].eq(0).all()
        assert sorted(os.listdir(folder)) == [LAST, PREVIOUS, "record.json"]
        with pytest.raises(OSError, match="No space left"):
            write_json(folder / "record.json", {"status": "x" * 2_000_000})
        assert read_json(folder / "record.json") == {"status": "running"}
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_torn_row_is_cut_off_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_row(path, {"step": 1, "loss": float("nan")})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    assert last_row(path) == {"step": 1, "loss": None}
    append_row(path, {"step": 2})
    assert path.read_text() == '{"step": 1, "loss": null}\n{"step": 2}\n'


def test_unequal_weights_have_unequal_hashes() -> None:
    weights = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    same = {"b": torch.zeros(2), "a": torch.arange(6.0)}
    assert weights_sha256(weights) == weights_sha256(same)
    others = (
        weights | {"a": torch.arange(6.0).reshape(2, 3)},
        weights | {"a": torch.arange(6)},
        weights | {"b": torch.tensor([0.0, 1e-45])},
        {"a": weights["a"], "c": weights["b"]},
    )
    assert len({weights_sha256(weights), *(weights_sha256(other) for other in others)}) == 5
