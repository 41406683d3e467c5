"""Object detection and instance segmentation."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.metrics.coco import CocoAP, Kind
from lightning_modules.metrics.sums import MeanLoss
from lightning_modules.nets.heads import paste_mask
from lightning_modules.supervised import Supervised, computed

EXAMPLES = 4
DRAWN = ("boxes", "labels", "scores", "masks")
Targets = Sequence[dict[str, Tensor]]


class Detector(Supervised):
    """Training by the sum of a detector's losses, each logged apart; COCO's average precision of boxes and of masks.

    A target is what is known of one image: boxes (n, 4) and masks (n, h, w) in pixels of the annotation; labels int64 (n,) from
    0; scale (2,), pixels of the batch's image per pixel of the annotation (x, y); size (2,), height and width within the padded
    batch; image, its row in the split. A prediction has boxes (D, 4), scores (D,), labels (D,), and masks bool (D, h, w).

    Which anchors and regions are learned from is a function of seed, step and image: it depends neither on the number of
    processes nor on where a run was interrupted.

    Args:
        net: with ``losses`` and ``num_classes``; images (N, C, H, W) and sizes (N, 2) to detections. See FasterRCNN, MaskRCNN.
        num_classes: K, without the background.
        seed: of the run.

    Attributes:
        processed: of the last training step on this process: "regions" and "positives", those that the heads computed.
        examples: of the first images of the test: image (C, h, w), truth and prediction, in pixels of the annotation.

    Raises:
        ValueError: a network that has no ``losses``.
    """

    net: Any
    scores: Any
    proposals: Any
    part_losses: Any

    def __init__(
        self, net: nn.Module, num_classes: int, optimizer: Any, scheduler: Any, seed: int, **optimization: Any
    ) -> None:
        if not callable(getattr(type(net), "losses", None)):
            raise ValueError(f"{type(net).__name__} is no detector: model=faster_rcnn and model=mask_rcnn are")
        if net.num_classes != num_classes:
            raise ValueError(f"model.num_classes must be {num_classes}, that of the data, got {net.num_classes}")
        super().__init__(net, optimizer, scheduler, **optimization)
        self.seed = seed
        self.kinds: tuple[Kind, ...] = ("box", "mask") if hasattr(net, "mask_head") else ("box",)
        self.primary = f"{self.kinds[-1]}_ap_err"
        self.label = f"100 − {self.kinds[-1]} AP (%)"
        self.scores = nn.ModuleDict(
            {f"{split}_{kind}": CocoAP(num_classes, kind) for split in ("val", "test") for kind in self.kinds}
        )
        self.proposals = nn.ModuleDict({split: MeanLoss() for split in ("val", "test")})
        self.part_losses = nn.ModuleDict({name: MeanLoss() for name in self.net.loss_names})
        self.definitions = {"n_proposals": "proposals that the box head computes, mean of an image"}
        for kind in self.kinds:
            self.definitions |= {
                f"{kind}_{name}": f"{text}, of {kind}es" if kind == "box" else f"{text}, of masks"
                for name, text in CocoAP(num_classes, kind).definitions.items()
            }
            self.definitions[f"{kind}_ap_err"] = f"100 * (1 - {kind}_ap), percent"
        self.processed = {"regions": 0, "positives": 0}
        self._losses_by_part: list[dict[str, Tensor]] = []  # of the images of the step so far
        self.examples: list[tuple[Any, ...]] = []

    def sample_losses(self, images: Tensor, targets: Targets, weights: Any = None) -> Tensor:
        """Return the sum of the losses of each image, shape (N,).

        Raises:
            ValueError: masks are to be learned from objects that have none.
        """
        self._check_masks(targets)
        scaled = [target | {"boxes": _scaled(target["boxes"], target["scale"])} for target in targets]
        losses, counts = self.net.losses(images, scaled, self._generators(targets))
        self._losses_by_part.append({name: values.detach() for name, values in losses.items()})
        for name, count in counts.items():
            self.processed[name] += count
        return torch.stack(list(losses.values())).sum(dim=0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the mean loss of this process's part of the global batch."""
        # What was tried before, to see whether a batch fits, is no step.
        self.processed, self._losses_by_part = dict.fromkeys(self.processed, 0), []
        loss = super().training_step(batch, batch_idx)
        for losses in self._losses_by_part:
            for name, values in losses.items():
                self.part_losses[name].update(values)
        return loss

    @torch.no_grad()
    def detect(self, images: Tensor, targets: Targets) -> list[dict[str, Tensor]]:
        """Return the prediction of each image of a batch, with the number of its ``proposals``.

        targets: of which size, scale and the masks' shape are used; without masks the annotation is as large as size / scale.
        """
        detections = self.net(images, torch.stack([target["size"] for target in targets]))
        return [_in_annotation(detection, target) for detection, target in zip(detections, targets, strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Report the ``val`` metrics, and the training losses since the last evaluation."""
        super().on_validation_epoch_end()
        for name, metric in self.part_losses.items():
            if metric.update_called:
                self._report({f"train/loss_{name}": computed(metric)[0]})

    def _generators(self, targets: Targets) -> list[torch.Generator]:
        """Return the generator of each image in this step."""
        generators = []
        for target in targets:
            position = f"regions {self.seed} {self.trainer.global_step} {int(target['image'])}".encode()
            mixed = int.from_bytes(hashlib.blake2b(position, digest_size=7).digest())
            generators.append(torch.Generator().manual_seed(mixed))
        return generators

    def _check_masks(self, targets: Targets) -> None:
        if "mask" in self.kinds and any("masks" not in target for target in targets):
            raise ValueError(
                "the objects of this data set have boxes and no masks: model=faster_rcnn learns boxes alone"
            )

    def _evaluate(self, split: str, batch: Any) -> None:
        images, targets = batch[:2]
        self._check_masks(targets)
        predictions = self.detect(images, targets)
        self.proposals[split].update(torch.stack([one["proposals"] for one in predictions]).to(self.device))
        for kind in self.kinds:
            self.scores[f"{split}_{kind}"].update(predictions, targets)
        if split == "test" and (room := EXAMPLES - len(self.examples)) > 0:
            for image, target, prediction in zip(images[:room], targets, predictions, strict=False):
                objects = ({name: one[name].cpu() for name in DRAWN if name in one} for one in (target, prediction))
                self.examples.append((_image_in_annotation(image, target).cpu(), *objects))

    def _metrics(self, split: str) -> dict[str, Tensor]:
        proposals, images = computed(self.proposals[split])
        values = {"n": images.double(), "n_proposals": proposals}
        for kind in self.kinds:
            scores = computed(self.scores[f"{split}_{kind}"])
            values |= {f"{kind}_{name}": value for name, value in scores.items()}
            values[f"{kind}_ap_err"] = 100 * (1 - scores["ap"])
        return {f"{split}/{name}": value for name, value in values.items()}


def _scaled(boxes: Tensor, scale: Tensor) -> Tensor:
    return boxes * scale.repeat(2)


def _in_annotation(detection: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a detection in pixels of the annotation, its masks as bitmaps."""
    boxes = _scaled(detection["boxes"], 1 / target["scale"])
    if "masks" not in detection:
        return detection | {"boxes": boxes}
    height, width = _size_of_annotation(target)
    bitmaps = [paste_mask(mask, box, height, width) for mask, box in zip(detection["masks"], boxes, strict=True)]
    masks = torch.stack(bitmaps) if bitmaps else detection["masks"].new_zeros(0, height, width, dtype=torch.bool)
    return detection | {"boxes": boxes, "masks": masks}


def _size_of_annotation(target: dict[str, Tensor]) -> tuple[int, int]:
    """Return height and width."""
    if "masks" in target:
        return target["masks"].shape[1], target["masks"].shape[2]
    width, height = (target["size"].cpu().flip(0) / target["scale"].cpu()).round().int().tolist()
    return height, width


def _image_in_annotation(image: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Return an image (C, H, W) of a batch without its padding, in pixels of the annotation (C, h, w)."""
    height, width = target["size"].tolist()
    return functional.interpolate(image[None, :, :height, :width], _size_of_annotation(target), mode="bilinear")[0]
