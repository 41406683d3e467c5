"""Batch-norm statistics of short runs, against the mean over batches computed by hand."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import DoublePrecision, HalfPrecision, Precision
from torch import nn

from benchmarks.training import callbacks
from benchmarks.training.batch_statistics import BatchStatistics, steps_needed
from benchmarks.training.checkpoints import Averaging
from benchmarks.training.options import TrainingOptions
from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.splits import Split, Splits
from lightning_modules.classifier import Classifier


def splits() -> Splits:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    split = Split(images, torch.arange(100) % 2)
    return Splits(split, split, split, ("a", "b"))


def statistics_after(step: int, net: nn.Module, precision: Precision | None = None) -> bool:
    """Return whether an evaluation has statistics of its own, which ``net`` then has."""
    data = InMemoryDataModule(splits, 10, 10, {"crop_padding": 1}, [0.0], [1.0], seed=0)
    data.setup()
    trainer: Any = SimpleNamespace(global_step=step, datamodule=data, precision_plugin=precision or Precision())
    callback = BatchStatistics(20, 10)
    callback.on_validation_epoch_start(trainer, SimpleNamespace(net=net))
    return callback.are_used(trainer, net)


def test_statistics_are_those_of_evenly_spaced_training_images_without_augmentation() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1))
    net.eval()
    before = torch.random.get_rng_state()
    assert statistics_after(30, net)
    assert torch.equal(torch.random.get_rng_state(), before)
    values = torch.arange(20).double() * 5 / 255
    batches = values.view(2, 10)
    assert net[0].running_mean.item() == pytest.approx(values.mean().item())
    # Each pixel's value four times over: the unbiased variance of 40 pixels, mean over the two batches.
    expected = batches.repeat_interleave(4, dim=1).var(dim=1).mean().item()
    assert net[0].running_var.item() == pytest.approx(expected, rel=1e-5)
    assert not net.training and net[0].momentum == 0.1


def test_no_batch_is_smaller_than_asked_for_where_there_are_as_many_images() -> None:
    data = InMemoryDataModule(splits, 8, 8, {}, [0.0], [1.0], seed=0)
    data.setup()
    assert [len(batch) for batch in data.training_images(17, 8)] == [9, 8]
    assert [len(batch) for batch in data.training_images(5, 8)] == [5]
    rows = torch.cat([batch[:, 0, 0, 0] for batch in data.training_images(17, 8)])
    assert rows.mul(255).round().tolist() == (torch.arange(17) * 100 // 17).tolist()


def test_what_a_network_keeps_as_it_is_stays_so() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> "Frozen":
            super().train(mode)
            self[0].eval()
            return self

    net = Frozen(nn.BatchNorm2d(1), nn.BatchNorm2d(1)).eval()
    net[0].running_mean.fill_(0.5)
    assert statistics_after(30, net) and not any(layer.training for layer in net.modules())
    mean = (torch.arange(20) * 5 / 255).mean().item()
    assert net[0].running_mean.item() == 0.5 and net[1].running_mean.item() == pytest.approx(mean - 0.5, rel=1e-4)
    alone = Frozen(nn.BatchNorm2d(1)).eval()
    assert steps_needed(alone) == 0 and not statistics_after(30, alone) and not alone.training


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [(DoublePrecision(), torch.float64, 1e-6), (HalfPrecision("bf16-true"), torch.bfloat16, 1e-2)],
)
def test_statistics_are_of_the_precision_of_the_network(
    precision: Precision, dtype: torch.dtype, tolerance: float
) -> None:
    net = precision.convert_module(nn.Sequential(nn.BatchNorm2d(1))).eval()
    assert statistics_after(30, net, precision)
    assert net[0].running_mean.dtype == dtype
    assert net[0].running_mean.item() == pytest.approx(torch.arange(20).mul(5 / 255).mean().item(), rel=tolerance)


def test_statistics_are_those_of_whole_layers_whatever_training_drops() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1))
    net.eval()
    for seed in range(2):
        torch.manual_seed(seed)
        statistics_after(30, net)
        assert net[1].running_mean.item() == pytest.approx((torch.arange(20) * 5 / 255).mean().item())
    assert not any(layer.training for layer in net)


def test_a_longer_run_keeps_its_running_averages() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1))
    assert not statistics_after(100, net)
    assert net[0].running_mean.item() == 0 and net[0].running_var.item() == 1


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 100), (0.01, 1000), (None, 0)])
def test_the_first_value_fades_below_a_ten_thousandth(momentum: float | None, steps: int) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1, momentum=momentum))
    assert steps_needed(net) == steps
    if momentum is not None:
        assert (1 - momentum) ** steps < 1e-4


def test_an_average_of_weights_shows_the_first_value_for_longer() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1))
    assert steps_needed(net, ema_decay=0.5) == 100
    assert steps_needed(net, ema_decay=0.99) == 1000 and 0.99**1000 < 1e-4
    assert steps_needed(nn.Sequential(nn.Conv2d(1, 1, 1)), ema_decay=0.99) == 0
    assert BatchStatistics(20, 10, ema_decay=0.99).are_used(SimpleNamespace(global_step=999), net)
    assert not BatchStatistics(20, 10).are_used(SimpleNamespace(global_step=999), net)


def test_a_detector_has_none_and_says_so_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "RegionCostMeter", lambda *arguments: None)
    recipe = {"batch_size": 2, "epochs": 1, "batch_norm_images": 8}
    run: Any = SimpleNamespace(config={"recipe": recipe}, stop=None, record=None, progress=SimpleNamespace())
    of_parts: Any = SimpleNamespace(train_flops_per_sample=1, parts=lambda: ["dense", "box_head"])
    said = "^recipe.batch_norm_images=8 is for classification and segmentation: leave it out of a detector's recipe$"
    with pytest.raises(ValueError, match=said):
        callbacks.training_callbacks(run, TrainingOptions(), {}, SimpleNamespace(net=None), of_parts, {})


@pytest.mark.parametrize("augment", [{"crop_size": 32}, {"elastic": {"input_size": [64, 64]}}])
def test_a_recipe_that_cuts_tiles_has_none_and_says_so_before_it_trains(augment: dict[str, Any]) -> None:
    recipe = {"batch_size": 2, "epochs": 1, "batch_norm_images": 8, "augment": {"crop_padding": None} | augment}
    run: Any = SimpleNamespace(config={"recipe": recipe}, stop=None, record=None, progress=SimpleNamespace())
    whole: Any = SimpleNamespace(train_flops_per_sample=1, train_macs_per_sample=1, parts=lambda: [])
    said = rf"^recipe.batch_norm_images=8 takes .* recipe.augment.{next(iter(augment))} cuts tiles .*=null$"
    with pytest.raises(ValueError, match=said):
        callbacks.training_callbacks(run, TrainingOptions(), {}, SimpleNamespace(net=None), whole, {})


def test_averaged_weights_are_evaluated_with_statistics_of_their_own() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
    net = nn.Sequential(conv, norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = Classifier(net, 2, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.StepLR, step_size=9))
    data = InMemoryDataModule(splits, 10, 10, {}, [0.0], [1.0], seed=0)
    steps: list[torch.Tensor] = []

    class Weights(pl.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            steps.append(conv.weight.detach().flatten().clone())

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        callbacks=[Averaging(decay=0.9), BatchStatistics(20, 10), Weights()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    average = steps[0]
    for weights in steps[1:]:
        average = 0.9 * average + 0.1 * weights
    assert (average - steps[-1]).abs().max() > 1e-3
    torch.testing.assert_close(conv.weight.flatten(), average)
    mean = (torch.arange(20) * 5 / 255).mean()  # of the images that the statistics are of
    torch.testing.assert_close(norm.running_mean, average * mean + conv.bias)
