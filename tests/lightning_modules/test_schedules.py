"""Learning rates of the recipes, against the papers' own words."""

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from lightning_modules.schedules import warm_up_then_steps
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
