"""Learning rates of the recipes, against the papers' own words."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.training.train import constant_rate
from lightning_modules.schedules import warm_up_then_cosine, warm_up_then_drops, warm_up_then_steps
from lightning_modules.supervised import Supervised


def rates(recipe: str) -> list[float]:
    """The learning rate of each epoch of a recipe, taken by the module that trains."""
    [cell] = expand(["model=resnet", "data=cifar10", f"recipe={recipe}"], multirun=False)
    assert isinstance(cell, Trial)
    settings = cell.config["recipe"]
    module = Supervised(nn.Identity(), instantiate(settings["optimizer"]), instantiate(settings["scheduler"]))
    return module.learning_rates(settings["epochs"])


@pytest.mark.parametrize(
    ("recipe", "pieces"),
    [
        ("resnet110_cifar10", [(1, 0.01), (81, 0.1), (41, 0.01), (41, 0.001)]),
        ("resnet_cifar10", [(82, 0.1), (41, 0.01), (41, 0.001)]),
        ("resnet_cifar100", [(82, 0.1), (41, 0.01), (41, 0.001)]),
        ("resnext_cifar100", [(150, 0.1), (75, 0.01), (75, 0.001)]),
        ("densenet_cifar10", [(150, 0.1), (75, 0.01), (75, 0.001)]),
        ("densenet_cifar100_no_augmentation", [(150, 0.1), (75, 0.01), (75, 0.001)]),
        ("densenet_svhn", [(20, 0.1), (10, 0.01), (10, 0.001)]),
        ("resnext_svhn", [(20, 0.1), (10, 0.01), (10, 0.001)]),
    ],
)
def test_learning_rates_are_the_papers(recipe: str, pieces: list[tuple[int, float]]) -> None:
    assert rates(recipe) == pytest.approx([rate for epochs, rate in pieces for _ in range(epochs)], rel=1e-12)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], None),
        (["recipe.epochs=82"], "recipe.epochs=82 ends before recipe.scheduler.milestones=[82, 123]"),
        (["recipe.epochs=83"], None),
        (["recipe.epochs=30", "recipe.scheduler.milestones=[15,22]"], None),
        (
            ["recipe=resnet110_cifar10", "recipe.epochs=30"],
            "recipe.epochs=30 ends before recipe.scheduler.milestones=[82, 123]",
        ),
        (["recipe=resnext_imagenet", "recipe.epochs=30"], "recipe.epochs=30 ends before recipe.scheduler.step_size=30"),
        (["recipe=resnext_imagenet", "recipe.epochs=31"], None),
        (["recipe=common", "recipe.epochs=1"], None),
        (["recipe=demo", "recipe.epochs=1"], None),
    ],
)
def test_a_run_that_ends_before_its_schedule_lowers_the_rate_says_so(overrides: list[str], said: str | None) -> None:
    [trial] = expand(["model=resnet", "model.depth=20", "data=cifar10", *overrides], multirun=False)
    assert isinstance(trial, Trial)
    recipe = trial.config["recipe"]
    module = Supervised(nn.Identity(), instantiate(recipe["optimizer"]), instantiate(recipe["scheduler"]))
    assert constant_rate(recipe, module) == (said and f"the learning rate is never lowered: {said}")


@pytest.mark.parametrize(
    ("recipe", "iterations", "images"),
    [
        ("mask_rcnn_coco", 160e3, 16),
        ("detectron2_1x", 90e3, 16),
        ("detectron2_3x", 270e3, 16),
        ("resnext_coco", 180e3, 8),
    ],
)
def test_detectors_train_for_the_papers_iterations(recipe: str, iterations: float, images: int) -> None:
    """Of train2017's 118,287 images 117,266 show an object; here 5,000 are held out."""
    [trial] = expand(["model=mask_rcnn", "data=coco", f"recipe={recipe}"], multirun=False)
    assert isinstance(trial, Trial)
    assert trial.config["recipe"]["batch_size"] == images and trial.config["data"]["val_count"] == 5_000
    steps = (118_287 - 5_000) * 117_266 / 118_287 / images
    assert trial.config["recipe"]["epochs"] == round(iterations / steps)


def test_a_warm_up_goes_on_from_its_state() -> None:
    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.5)
        return optimizer, warm_up_then_steps(optimizer, 0.1, 2, [3, 5], 0.1)

    def advance(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler) -> float:
        optimizer.step()
        scheduler.step()
        return float(optimizer.param_groups[0]["lr"])

    optimizer, scheduler = make()
    whole = [float(optimizer.param_groups[0]["lr"]), *(advance(optimizer, scheduler) for _ in range(6))]
    assert whole == pytest.approx([0.05, 0.05, 0.5, 0.05, 0.05, 0.005, 0.005])

    optimizer, scheduler = make()
    for _ in range(3):
        advance(optimizer, scheduler)
    resumed, resumed_scheduler = make()
    resumed.load_state_dict(optimizer.state_dict())
    resumed_scheduler.load_state_dict(scheduler.state_dict())
    assert [advance(resumed, resumed_scheduler) for _ in range(3)] == whole[4:]


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 1000])
def test_the_common_schedule_rises_over_a_tenth_of_the_steps_and_falls_to_zero(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.5)
    module = Supervised(nn.Identity(), lambda _: optimizer, partial(warm_up_then_cosine, warm_up=0.1))
    assert module.by_step
    values = np.array(module.learning_rates(steps))
    rising = round(0.1 * steps)
    np.testing.assert_allclose(np.diff(values[: rising + 1]), 0.5 / (rising + 1), rtol=1e-9)
    assert values[rising] == 0.5
    falling = 0.25 * (1 + np.cos(np.pi * np.arange(steps - rising) / (steps - rising)))
    np.testing.assert_allclose(values[rising:], falling, rtol=1e-9)
    assert optimizer.param_groups[0]["lr"] == 0


@pytest.mark.parametrize(("steps", "warm_up"), [(1, 1.0), (3, 0.9), (10, 1.0)])
def test_a_schedule_may_rise_to_its_end(steps: int, warm_up: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    module = Supervised(nn.Identity(), lambda _: optimizer, partial(warm_up_then_cosine, warm_up=warm_up))
    assert module.learning_rates(steps) == pytest.approx([(step + 1) / (steps + 1) for step in range(steps)])


@pytest.mark.parametrize("warm_up", [-0.1, 1.5, 500, "a", None])
def test_a_warm_up_that_is_no_share_is_refused(warm_up: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    with pytest.raises(ValueError, match="recipe.scheduler.warm_up is a share of the steps, 0 to 1, got"):
        warm_up_then_cosine(optimizer, 100, warm_up)
    with pytest.raises(ValueError, match="recipe.scheduler.warm_up is a share of the steps, 0 to 1, got"):
        warm_up_then_drops(optimizer, 100, warm_up, 0.1, [0.5], 0.1)


def test_the_schedule_of_detectors_rises_by_steps_and_drops_at_its_shares() -> None:
    """detectron2's 1x, a tenth of it: the learning rate of steps around the rise and the drops."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.02)
    scheduler = warm_up_then_drops(optimizer, 9000, 1000 / 90000, 0.001, [60 / 90, 80 / 90], 0.1)
    rates = []
    for _ in range(9000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(2e-5) and rates[50] == pytest.approx(0.02 * (0.001 + 0.999 / 2))
    assert rates[100] == rates[5999] == pytest.approx(0.02)
    assert rates[6000] == rates[7999] == pytest.approx(0.002) and rates[8000] == pytest.approx(0.0002)


def test_a_schedule_by_steps_has_one_for_each_step_of_a_run() -> None:
    images = TensorDataset(torch.randn(20, 2))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    module = Stepping(nn.Linear(2, 1), lambda _: optimizer, partial(warm_up_then_cosine, warm_up=0.25))
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, DataLoader(images, batch_size=5))
    # 8 steps: a rise to 1 in the third, a cosine over six.
    cosine = [(1 + np.cos(np.pi * step / 6)) / 2 for step in range(6)]
    assert module.rates == pytest.approx([1 / 3, 2 / 3, *cosine])


class Stepping(Supervised):
    """Keeps the learning rate of each step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rates: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return self.net(batch[0]).mean()


def test_a_schedule_that_follows_a_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^recipe\.scheduler is a function of the epoch or step: ReduceLROnPlateau"):
        Supervised(nn.Identity(), partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.ReduceLROnPlateau))
