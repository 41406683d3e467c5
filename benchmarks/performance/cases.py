"""The networks whose training steps are measured."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A network to be measured.

    Attributes:
        overrides: what ``run.py`` would be given.
        batch: images of a step on a CPU, where the recipe's would take minutes; None for the recipe's.
        steps: by default.
        images: in training; None for as many as it takes, random ones, where the data set is not bundled.
        limited: whether ``LIMIT`` and ``SHARE_LIMIT`` are meant for it.
        held_out: images each of the random sets' val and test.
    """

    overrides: tuple[str, ...]
    batch: int | None
    steps: int
    images: int | None
    limited: bool = True
    held_out: int = 16


CASES = {
    "resnext29_8x64d": Case(("model=resnext", "data=cifar10"), 2, 80, None),
    "densenet_bc100_k12": Case(("model=densenet", "data=cifar10"), 8, 120, None),
    "unet32_padded": Case(("model=unet", "data=touching_cells", "model.base_channels=32"), 2, 118, 48),
    "mask_rcnn_resnet18_fpn64": Case(("model=mask_rcnn", "data=touching_cells_instances"), None, 60, 48, False),
    "resnet20_digits": Case(("model=resnet", "data=digits"), None, 300, 1197, False),
}
EVALUATED = {  # networks whose evaluation is measured
    "resnet20_digits": Case(("model=resnet", "data=digits"), None, 2, 1197),
    "resnet20_cifar10": Case(("model=resnet", "data=cifar10", "model.depth=20"), 32, 2, None, held_out=500),
}
EVALUATION = "evaluation"  # in the place of a network: the evaluations of EVALUATED
INPUT = "input"  # in the place of a network: the making of batches alone
INPUT_STEPS = 200


def chosen(words: Sequence[str], known: Collection[str], noun: str) -> list[str]:
    """Return what is to be measured, all that is known by default; raise ValueError for what is not known."""
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"no {noun} {unknown[0]}; there are {', '.join(known)}")
    return list(words) or list(known)
