"""Image classification."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassStatScores

from lightning_modules.metrics.sums import ConfusionMatrix
from lightning_modules.mixing import Mixing
from lightning_modules.supervised import Batch, Supervised, computed

EXAMPLES = 24
PRESENT = 0.2  # share of a mixed image from which on a class is there: the released code of Wightman et al. 2021


class Classifier(Supervised):
    """Cross-entropy training; top-1 and top-5 error in percent, over all images of a split.

    Args:
        net: images (N, C, H, W) to logits (N, num_classes).
        num_classes: K ≥ 2.
        test_views: names of ways of seeing the test images beside the usual one, one test loader each, in this order after
            the usual one's; their metrics have the name as a suffix. A loader's images (N, C, H, W), or (N, V, C, H, W)
            for V crops of an image, whose softmax is averaged.
        label_smoothing: ε, the share of a target that goes to all classes alike (Szegedy et al. 2016, §7).
        mixup, cutmix: α of the Beta(α, α) that mixes training images, by ``Mixing`` with ``seed``; None mixes none.
        binary_cross_entropy: whether training asks of each class whether it is there, as Wightman et al. 2021, §3: of a mixed
            image both are.
        optimization: further arguments of ``Supervised``.

    Attributes:
        examples: of the test, on this process: image (C, H, W), true and predicted class (scalars) of the first few.

    Raises:
        ValueError: label smoothing together with binary cross-entropy.
    """

    primary = "top1_err"
    label = "error (%)"

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: Any,
        scheduler: Any,
        test_views: Sequence[str | int] = (),
        label_smoothing: float = 0.0,
        mixup: float | None = None,
        cutmix: float | None = None,
        binary_cross_entropy: bool = False,
        seed: int = 0,
        **optimization: Any,
    ) -> None:
        super().__init__(net, optimizer, scheduler, **optimization)
        if binary_cross_entropy and label_smoothing:
            raise ValueError("recipe.binary_cross_entropy and recipe.label_smoothing: choose one")
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.binary_cross_entropy = binary_cross_entropy
        self.mixing = Mixing(seed, num_classes, mixup, cutmix) if mixup or cutmix else None
        self.test_views = [str(view) for view in test_views]
        self.ranks = ranks = [k for k in (1, 5) if k < num_classes]
        # Counts, not MulticlassAccuracy: that divides in float32, and an error is to be exact. The splits have been checked
        # when they were read; validate_args would look at every batch again, and wait for the device.
        counts: dict[str, Any] = {
            f"top{k}_err": MulticlassStatScores(num_classes, top_k=k, average="micro", validate_args=False)
            for k in ranks
        }
        named = ("val", "test", *self.test_views)
        self.counts = nn.ModuleDict({name: MetricCollection(counts).clone() for name in named})
        self.confusion_matrix = ConfusionMatrix(num_classes)
        self.examples: list[tuple[Tensor, ...]] = []
        self.definitions = {
            f"top{k}_err": f"100 * (1 - hits / images), torchmetrics MulticlassStatScores(top_k={k}, average='micro')"
            for k in ranks
        } | {"loss": "cross-entropy, mean over images, nats"}
        if binary_cross_entropy:
            self.definitions["loss"] += "; of the softmax, while training minimises binary cross-entropy"
        for view in self.test_views:
            self.definitions |= {
                f"top{k}_err_{view}": f"as top{k}_err, test view {view}; of the mean softmax where it is several crops"
                for k in ranks
            }

    def logits_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the number of classes."""
        return (self.num_classes,)

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return the cross-entropy of each image, shape (N,)."""
        return F.cross_entropy(logits, targets, reduction="none")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes (N, K) of logits (N, K), which add up to 1 but with binary cross-entropy."""
        return logits.sigmoid() if self.binary_cross_entropy else logits.softmax(dim=1)

    def training_inputs(self, batch: Batch) -> Sequence[Any]:
        """Return images and classes (N,), or mixed images and the share of each class in them (N, K)."""
        images, targets, weights = batch[:3]
        if self.mixing is None:
            return images, targets, weights
        return *self.mixing(images, targets, self.trainer.global_step), weights

    def sample_losses(self, images: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the training loss of each image, shape (N,): of binary cross-entropy the mean over classes."""
        logits = self(images)
        if not self.binary_cross_entropy:
            return F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        shares = targets if targets.ndim == 2 else F.one_hot(targets, self.num_classes)
        present = (shares > PRESENT).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(dim=1)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch of the usual test images, or of those of a test view."""
        if dataloader_idx == 0:
            super().test_step(batch, batch_idx)
            return
        counts: Any = self.counts[self.test_views[dataloader_idx - 1]]
        counts.update(self.predict_views(batch[0]), batch[1])

    def predict_views(self, images: Tensor) -> Tensor:
        """Return the scores (N, K): logits of images (N, C, H, W), the mean softmax over crops (N, V, C, H, W)."""
        if images.ndim == 4:
            return self(images)
        return self(images.flatten(0, 1)).softmax(dim=1).unflatten(0, images.shape[:2]).mean(dim=1)

    def update_metrics(self, split: str, logits: Tensor, batch: Batch) -> None:
        """Add a batch: logits (N, K), classes (N,)."""
        targets = batch[1]
        counts: Any = self.counts[split]
        counts.update(logits, targets)
        if split == "test":
            self.confusion_matrix.update(logits, targets)
            guesses = {1: logits.argmax(dim=1, keepdim=True)} | {
                k: logits.topk(k, dim=1).indices for k in self.ranks if k > 1
            }
            self.test_outcomes.update(
                torch.stack([(guesses[k] == targets[:, None]).any(dim=1) for k in self.ranks], dim=1)
            )
            if (room := EXAMPLES - len(self.examples)) > 0:
                examples = zip(*(part[:room].cpu() for part in (batch[0], targets, logits.argmax(dim=1))), strict=True)
                self.examples += examples

    def compute_metrics(self, split: str) -> dict[str, Tensor]:
        """Return errors in percent; those of a test's views come with the number of their images."""
        errors, _ = self._errors(split)
        if split == "test":
            for view in self.test_views:
                of_view, images = self._errors(view)
                errors |= {f"{name}_{view}": value for name, value in of_view.items()} | {f"n_{view}": images}
            self.confusion = computed(self.confusion_matrix)
        return errors

    def _errors(self, name: str) -> tuple[dict[str, Tensor], Tensor]:
        """Return the errors counted under a name, and the number of images, and reset them."""
        hits_and_images = computed(self.counts[name])
        images = next(iter(hits_and_images.values()))[-1].double()
        return {name: 100 * (images - hits).double() / images for name, (hits, *_) in hits_and_images.items()}, images
