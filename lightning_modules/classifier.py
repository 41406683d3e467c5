"""Image classification."""

from itertools import islice
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassStatScores

from lightning_modules.supervised import Batch, Supervised

EXAMPLES = 24


class Classifier(Supervised):
    """Cross-entropy training; top-1 and top-5 error in percent, over all images of a split.

    Args:
        net: images (N, C, H, W) to logits (N, num_classes).
        num_classes: K ≥ 2.

    Attributes:
        examples: of the test, on this process: image (C, H, W), true and predicted class (scalars) of the first few.
    """

    primary = "top1_err"
    label = "error (%)"

    def __init__(self, net: nn.Module, num_classes: int, optimizer: Any, scheduler: Any) -> None:
        super().__init__(net, optimizer, scheduler)
        ranks = [k for k in (1, 5) if k < num_classes]
        # Counts, not MulticlassAccuracy: that divides in float32, and an error is to be exact.
        counts: dict[str, Any] = {
            f"top{k}_err": MulticlassStatScores(num_classes, top_k=k, average="micro") for k in ranks
        }
        self.counts = nn.ModuleDict({split: MetricCollection(counts).clone() for split in ("val", "test")})
        self.confusion_matrix = MulticlassConfusionMatrix(num_classes)
        self.examples: list[tuple[Tensor, ...]] = []
        self.definitions = {
            f"top{k}_err": f"100 * (1 - hits / images), torchmetrics MulticlassStatScores(top_k={k}, average='micro')"
            for k in ranks
        } | {
            "loss": "cross-entropy, mean over images, nats",
        }

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Cross-entropy of each image, shape (N,)."""
        return F.cross_entropy(logits, targets, reduction="none")

    def update_metrics(self, split: str, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits (N, K), classes (N,)."""
        targets = batch[1]
        counts: Any = self.counts[split]
        counts.update(logits, targets)
        if split == "test":
            self.confusion_matrix.update(logits, targets)
            found = zip(batch[0], targets, logits.argmax(dim=1), strict=True)
            room = EXAMPLES - len(self.examples)
            self.examples += [tuple(part.cpu() for part in one) for one in islice(found, room)]

    def compute_metrics(self, split: str) -> dict[str, Tensor]:
        """Errors in percent."""
        counts: Any = self.counts[split]
        errors = {}
        for name, (hits, _, _, _, images) in counts.compute().items():
            errors[name] = 100 * (images - hits).double() / images
        counts.reset()
        if split == "test":
            self.confusion = self.confusion_matrix.compute()
            self.confusion_matrix.reset()
        return errors
