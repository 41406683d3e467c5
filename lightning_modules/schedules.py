"""Learning rates by epoch that no single class of torch has."""

from collections.abc import Sequence

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
