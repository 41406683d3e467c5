"""Learning rates by epoch or step that no single class of torch has."""

from collections.abc import Sequence
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_up_then_steps(
    optimizer: Optimizer, warm_up_factor: float, warm_up_epochs: int, milestones: Sequence[int], gamma: float
) -> LambdaLR:
    """Return a schedule: warm_up_factor of the optimiser's learning rate for warm_up_epochs, then all of it, times gamma
    from each milestone.

    He et al. 2016, §4.2: ResNet-110 begins with a tenth of its learning rate and goes back to all of it before the steps.
    """

    def factor(epoch: int) -> float:
        if epoch < warm_up_epochs:
            return warm_up_factor
        return gamma ** sum(epoch >= milestone for milestone in milestones)

    return LambdaLR(optimizer, factor)


def warm_up_then_drops(
    optimizer: Optimizer, total_steps: int, warm_up: float, warm_up_factor: float, drops: Sequence[float], gamma: float
) -> LambdaLR:
    """Return a schedule by steps: a linear rise from warm_up_factor over the share warm_up of them, then the whole learning
    rate, times gamma from each share in drops.

    Detectron's and detectron2's: 1x is 90,000 steps, of which 1,000 rise from a thousandth, and drops at 60,000 and 80,000.
    Raises ValueError unless warm_up is a share.
    """
    _check_share(warm_up)

    def factor(step: int) -> float:
        rise = min(step / (warm_up * total_steps), 1) if warm_up else 1
        return (warm_up_factor + (1 - warm_up_factor) * rise) * gamma ** sum(
            step >= drop * total_steps for drop in drops
        )

    return LambdaLR(optimizer, factor)


def warm_up_then_cosine(optimizer: Optimizer, total_steps: int, warm_up: float) -> LambdaLR:
    """Return a schedule by steps: a linear rise over the share warm_up of them, then a cosine to zero.

    Goyal et al. 2017, §2.2 (gradual warm-up); Loshchilov and Hutter 2017, equation 5 with one cycle. Raises ValueError unless
    warm_up is a share.
    """
    _check_share(warm_up)
    rising = round(warm_up * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return (1 + cos(pi * (step - rising) / max(total_steps - rising, 1))) / 2

    return LambdaLR(optimizer, factor)


def _check_share(warm_up: float) -> None:
    if not isinstance(warm_up, int | float) or not 0 <= warm_up <= 1:
        raise ValueError(f"recipe.scheduler.warm_up is a share of the steps, 0 to 1, got {warm_up!r}")
