"""COCO's average precision of masks that tell no objects apart: each connected component is taken for one."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.metrics.coco import CocoAP
from lightning_modules.metrics.stacks import segments

NAMES = ("ap", "ap50", "ap75")
IMAGES_OF_A_RANK = 2**32  # more than any has


class ComponentAP(Metric):
    """AP, AP50 and AP75 of the 4-connected components of a foreground, each of one class, fractions; see CocoAP.

    A component is as sure as its pixels are in the mean, and its class does not count. Of an image the 100 surest count, as
    always with COCO's AP.

    Args:
        sync_on_compute: False for images that every process has: they are not gathered.
    """

    definitions = {
        f"mask_{name}": f"{CocoAP.definitions[name]}, of masks: connected components of the predicted foreground, each as sure "
        "as its pixels are in the mean, beside the objects of the annotation, where there are some; classes not told apart; "
        "the 100 surest of an image count"
        for name in NAMES
    }

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.score = CocoAP(1, "mask", sync_on_compute=sync_on_compute)

    def update(self, foreground: Tensor, instances: Tensor, classes: Tensor | None = None) -> None:
        """Add images.

        foreground: float [N, H, W], of a predicted pixel how sure it is, 0 of the others. instances: integers [N, H, W], 0 for
        background, any other value an object of that image. classes: integers [N, H, W], of predicted pixels; None for one.
        """
        rank = dist.get_rank() if dist.is_initialized() else 0
        classes = (foreground != 0) if classes is None else classes
        parts = (part.cpu().numpy() for part in (foreground, classes, instances))
        for certainty, of_class, truth in zip(*parts, strict=True):
            # Shards are consecutive images in the order of ranks: this number is in the order of the split.
            number = rank * IMAGES_OF_A_RANK + len(self.score.detections)
            found, true = _components(of_class), np.searchsorted(np.unique(truth[truth > 0]), truth, side="right")
            numbers = np.arange(1, found.max(initial=0) + 1)
            sure = torch.from_numpy(np.reshape(ndimage.mean(certainty, found, numbers), len(numbers)))
            self.score.update([_objects(found) | {"scores": sure}], [_objects(true) | {"image": torch.tensor(number)}])

    def compute(self) -> dict[str, Tensor]:
        """Return the scores by name, float64."""
        values = self.score.compute()
        return {f"mask_{name}": values[name] for name in NAMES}

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.score.reset()


def _components(classes: NDArray[Any]) -> NDArray[Any]:
    """Return a map [H, W] of the numbers 1, 2, … of the 4-connected components of equal class, 0 where that is 0."""
    found = np.zeros(classes.shape, np.int32)
    for label in np.unique(classes[classes != 0]):
        of_class = segments(classes == label)
        found += np.where(of_class, of_class + found.max(), 0).astype(np.int32)
    return found


def _objects(numbered: NDArray[Any]) -> dict[str, Tensor]:
    """Return the objects of a map [H, W] of their numbers 1, 2, …, without one missing, all of one class."""
    return {"map": torch.from_numpy(numbered), "labels": torch.zeros(int(numbered.max(initial=0)), dtype=torch.int64)}
