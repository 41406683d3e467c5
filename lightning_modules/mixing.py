"""Mixed training images: mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019)."""

from dataclasses import dataclass
from random import Random

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """Mixes each image of a batch with the one at the same place from the batch's end, in one way and share for all.

    Way, share and window are a function of seed and step alone, so that ranks agree and a resumed run draws what an
    uninterrupted one draws. Of both ways each has probability one half. The partner is of the same process's part of the batch.

    Args:
        mixup, cutmix: α, of Beta(α, α), from which the share is drawn; None leaves out that way.
    """

    seed: int
    num_classes: int
    mixup: float | None
    cutmix: float | None

    def __call__(self, images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return mixed images (N, C, H, W) of float images, and the share of each class in them (N, K) of classes (N,)."""
        draw = Random(f"{self.seed} {step} mixing")
        by_window = draw.random() < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        alpha = self.cutmix if by_window else self.mixup
        assert alpha is not None
        share = draw.betavariate(alpha, alpha)
        if by_window:
            images, share = _cut(images, share, draw)
        else:
            images = share * images + (1 - share) * images.flip(0)
        classes = F.one_hot(targets, self.num_classes).to(images.dtype)
        return images, share * classes + (1 - share) * classes.flip(0)


def _cut(images: Tensor, share: float, draw: Random) -> tuple[Tensor, float]:
    """Replace a window of 1 - share of the area about a random centre, cut off at the border; return what is left as share."""
    height, width = images.shape[-2:]
    side = (1 - share) ** 0.5 / 2
    down, across = draw.random(), draw.random()
    top, bottom = (round(min(max(down + end * side, 0), 1) * height) for end in (-1, 1))
    left, right = (round(min(max(across + end * side, 0), 1) * width) for end in (-1, 1))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
