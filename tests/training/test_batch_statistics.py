"""Batch-norm statistics of short runs, against the mean over batches computed by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import Precision
from torch import nn

from benchmarks.training.batch_statistics import BatchStatistics, steps_needed
from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.splits import Split, Splits


def splits() -> Splits:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    split = Split(images, torch.arange(100) % 2)
    return Splits(split, split, split, ("a", "b"))


def statistics_after(step: int, net: nn.Module) -> BatchStatistics:
    data = InMemoryDataModule(splits, 10, 10, {"crop_padding": 1}, [0.0], [1.0], seed=0)
    data.setup()
    trainer: Any = SimpleNamespace(global_step=step, datamodule=data, precision_plugin=Precision())
    callback = BatchStatistics(20, 10)
    callback.on_validation_start(trainer, SimpleNamespace(net=net))
    return callback


def test_statistics_are_those_of_evenly_spaced_training_images_without_augmentation() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1))
    net.eval()
    before = torch.random.get_rng_state()
    assert statistics_after(30, net).used
    assert torch.equal(torch.random.get_rng_state(), before)
    values = torch.arange(20).double() * 5 / 255
    batches = values.view(2, 10)
    assert net[0].running_mean.item() == pytest.approx(values.mean().item())
    # Each pixel's value four times over: the unbiased variance of 40 pixels, mean over the two batches.
    expected = batches.repeat_interleave(4, dim=1).var(dim=1).mean().item()
    assert net[0].running_var.item() == pytest.approx(expected, rel=1e-5)
    assert not net.training and net[0].momentum == 0.1


def test_a_longer_run_keeps_its_running_averages() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1))
    assert not statistics_after(100, net).used
    assert net[0].running_mean.item() == 0 and net[0].running_var.item() == 1


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 100), (0.01, 1000), (None, 0)])
def test_the_first_value_fades_below_a_ten_thousandth(momentum: float | None, steps: int) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1, momentum=momentum))
    assert steps_needed(net) == steps
    if momentum is not None:
        assert (1 - momentum) ** steps < 1e-4
