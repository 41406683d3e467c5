"""Semantic segmentation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_modules.metrics.components import ComponentAP
from lightning_modules.metrics.sums import ConfusionMatrix
from lightning_modules.supervised import Batch, Supervised, computed
from lightning_modules.tiling import checked_tiles, default_tiles, output_size, predict_by_tiles

EXAMPLES = 4
SYMMETRIES = 8  # of the square


class Segmenter(Supervised):
    """Pixel-wise cross-entropy training; Dice, IoU and pixel error pooled over all pixels of a split.

    Dice and IoU are those of the foreground: the mean over all classes but class 0. Where the test split tells objects apart,
    COCO's AP of the foreground's components, each of one class, is beside them. Targets are cropped centrally to the size that
    an unpadded network puts out.

    Args:
        net: images (N, C, H, W) to logits (N, num_classes, H', W') with H' ≤ H and W' ≤ W, its output_size(H, W) where it has
            that method, else as large as the images.
        num_classes: K ≥ 2, class 0 is the background.
        scores: of the test split beside Dice and IoU, or None.
        tiles: how whole images are evaluated, arguments of ``predict_by_tiles``; None for images that the network takes
            as they are.
        test_time_dihedral: evaluate and predict by the mean probability over the 8 symmetries of the square, as
            Ronneberger et al. 2015, §4, average 7 rotated copies of the test image.

    Attributes:
        examples: of the test, on this process: grey image, truth and prediction (H', W') of the first few.
    """

    primary = "dice_err"
    label = "100 − Dice (%)"
    definitions = {
        "dice": "2 TP / (2 TP + FP + FN), pixels pooled over the split, mean over foreground classes",
        "dice_err": "100 * (1 - dice), percent",
        "iou": "TP / (TP + FP + FN), pixels pooled over the split, mean over foreground classes",
        "pixel_err": "wrong pixels, percent",
        "loss": "cross-entropy, mean over images of the mean over each one's pixels, nats",
        **ComponentAP.definitions,
    }

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: Any,
        scheduler: Any,
        scores: Metric | None,
        tiles: Mapping[str, int | None] | None,
        test_time_dihedral: bool = False,
        **optimization: Any,
    ) -> None:
        super().__init__(net, optimizer, scheduler, **optimization)
        self.num_classes = num_classes
        self.scores = scores
        self.objects = ComponentAP()
        self.examples: list[tuple[Tensor, Tensor, Tensor]] = []
        self.tiles = checked_tiles(net, tiles) if tiles else None
        self.test_time_dihedral = test_time_dihedral
        self.definitions = self.definitions | (getattr(scores, "definitions", {}))
        if num_classes > 2:
            self.definitions |= {name: f"{text}; each of one class" for name, text in ComponentAP.definitions.items()}
        if test_time_dihedral:
            averaged = "; of probabilities averaged over the 8 symmetries of the square"
            self.definitions = {name: text + averaged for name, text in self.definitions.items()}
        self.confusion_matrices = nn.ModuleDict({split: ConfusionMatrix(num_classes) for split in ("val", "test")})

    def logits_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return classes, height and width. Raises ValueError for sides that the network does not take."""
        return self.num_classes, *output_size(self.net, height, width)

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return the mean cross-entropy over each image's pixels, each times its weight (H, W) if given; shape (N,)."""
        losses = F.cross_entropy(logits, _crop(targets, logits), reduction="none")
        return (losses if weights is None else losses * _crop(weights, logits)).mean(dim=(1, 2))

    def use_tiles(self, side: int) -> None:
        """Take tiles of this side, in pixels, from now on. Raises ValueError where the network takes none such."""
        self.tiles = checked_tiles(self.net, (self.tiles or default_tiles(self.net)) | {"tile": side})

    @torch.no_grad()
    def predict(
        self, image: Tensor, progress: Callable[[int, int], None] | None = None, whole: Sequence[int] = ()
    ) -> Tensor:
        """Return the classes (H, W) of a normalised image (C, H, W) of any size; ``progress`` gets tiles done and total.

        whole: height and width of the images that were tested as they are, where no tiles were: another such is taken likewise.
        """
        if self.tiles is None and list(image.shape[1:]) == list(whole) == list(self.logits_shape(*whole)[1:]):
            return self.predict_logits(image[None].to(self.device))[0].argmax(dim=0)
        tiles: Any = self.tiles or default_tiles(self.net)
        if not self.test_time_dihedral:
            return predict_by_tiles(self.net, image, progress=progress, **tiles).argmax(dim=0)
        copies = iter(range(SYMMETRIES))

        def forward(images: Tensor) -> Tensor:
            copy = next(copies)

            def step(done: int, total: int) -> None:
                if progress is not None:
                    progress(copy * total + done, SYMMETRIES * total)

            return predict_by_tiles(self.net, images[0], progress=step, **tiles)[None]

        return dihedral_mean(forward, image[None])[0].argmax(dim=0)

    def predict_logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, K, H, W) of whole images, by tiles where the network needs them; with test_time_dihedral the
        logarithms of the mean probabilities."""
        return dihedral_mean(self._logits, images) if self.test_time_dihedral else self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        if self.tiles is None:
            return self(images)
        return torch.stack([predict_by_tiles(self.net, image, **self.tiles) for image in images])  # type: ignore[arg-type]

    def update_metrics(self, split: str, logits: Tensor, batch: Batch) -> None:
        """Add a batch: logits (N, K, H', W'), masks (N, H, W), instances (N, H, W)."""
        images, targets, _, instances = batch
        # NumPy, with which scores are computed, has no bfloat16.
        images, logits = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (images, logits))
        matrix: Any = self.confusion_matrices[split]
        matrix.update(logits, _crop(targets, logits))
        if split == "test":
            masks = logits.argmax(dim=1)
            self.test_outcomes.update(pixel_counts(masks, _crop(targets, logits), logits.shape[1]))
            for image, truth, mask in zip(_crop(images, logits), _crop(targets, logits), masks, strict=True):
                if len(self.examples) < EXAMPLES:
                    self.examples.append((image.mean(dim=0).cpu(), truth.cpu(), mask.cpu()))
            if instances is not None:
                certainty = 1 - logits.softmax(dim=1)[:, 0]
                self.objects.update(certainty * (masks != 0), _crop(instances, logits), masks)
            if self.scores is not None:
                self.scores.update(
                    *(part if part is None else _crop(part, logits) for part in (images, logits, targets, instances))
                )

    def compute_metrics(self, split: str) -> dict[str, Tensor]:
        """Return pooled scores; a class with no pixel in truth and prediction is left out of the means."""
        self.confusion = confusion = computed(self.confusion_matrices[split])
        counts = confusion.double()
        hits, truth, predicted = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
        dice = (2 * hits / (truth + predicted))[1:].nanmean()
        iou = (hits / (truth + predicted - hits))[1:].nanmean()
        scores: dict[str, Tensor] = {}
        if split == "test" and self.scores is not None:
            scores |= computed(self.scores)
        if split == "test" and self.objects.update_called:
            scores |= computed(self.objects)
        return {
            **scores,
            "dice": dice,
            "dice_err": 100 * (1 - dice),
            "iou": iou,
            "pixel_err": 100 * (1 - hits.sum() / counts.sum()),
            "n_pixels": counts.sum(),
        }


def pixel_counts(masks: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Return true positive, false positive and false negative pixels (N, classes - 1, 3) of each foreground class."""
    rows = []
    for label in range(1, classes):
        predicted, true = masks == label, targets == label
        parts = (predicted & true, predicted & ~true, ~predicted & true)
        rows.append(torch.stack([part.sum(dim=(1, 2)) for part in parts], dim=1))
    return torch.stack(rows, dim=1)


def _crop(targets: Tensor, logits: Tensor) -> Tensor:
    top, left = ((a - b) // 2 for a, b in zip(targets.shape[-2:], logits.shape[-2:], strict=True))
    return targets[..., top : top + logits.shape[-2], left : left + logits.shape[-1]]


def dihedral_mean(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logarithm of the mean softmax over the 8 symmetries of the square: (N, C, H, W) to (N, K, H', W').

    Each copy's output is turned back before the mean, so that a turned or mirrored image has the turned or mirrored result.
    forward: images to logits; it meets images of both orientations.
    """
    total = torch.tensor(-math.inf, device=images.device)
    for symmetry in range(SYMMETRIES):
        turns, mirrored = symmetry % 4, symmetry >= 4
        copy = images.flip(-1) if mirrored else images
        scores = forward(copy.rot90(turns, (-2, -1)).contiguous()).log_softmax(dim=1).rot90(-turns, (-2, -1))
        total = torch.logaddexp(total, scores.flip(-1) if mirrored else scores)
    return total - math.log(SYMMETRIES)
