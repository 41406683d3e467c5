"""Mask R-CNN (He et al., ICCV 2017): Faster R-CNN with a mask for each region, beside its class and its box."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.nets.checks import check_counts
from lightning_modules.nets.faster_rcnn import DETECTIONS, POSITIVE_SHARE, FasterRCNN, Part, Sample
from lightning_modules.nets.heads import MaskHead, mask_targets
from lightning_modules.nets.resnet import ResNet


class MaskRCNN(FasterRCNN):
    """Mask R-CNN: images [N, C, H, W] to detections with masks; ``losses`` trains it.

    Args:
        backbone, num_classes: and the others, see FasterRCNN.
        mask_channels: of the mask head.
        mask_convs: 3x3 convolutions of the pyramid's mask head; C4's has none, res5 stands before it.

    Raises:
        ValueError: a number of channels below 1 or of convolutions below 0, and what FasterRCNN refuses.
    """

    loss_names = (*FasterRCNN.loss_names, "mask")

    def __init__(
        self, backbone: ResNet, num_classes: int, *, mask_channels: int = 256, mask_convs: int = 4, **others: Any
    ) -> None:
        super().__init__(backbone, num_classes, **others)
        check_counts(mask_channels=mask_channels)
        if type(mask_convs) is not int or mask_convs < 0:
            raise ValueError(f"mask_convs must be an integer of at least 0, got {mask_convs!r}")
        convs = 0 if self.fpn is None else mask_convs
        self.mask_head = MaskHead(self.region_channels, convs, mask_channels, num_classes + self.first_class)

    def mask_losses(
        self, maps: list[Tensor], features: Tensor, samples: Sequence[Sample], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the loss ``mask`` of each image, [N]: binary cross-entropy of the true class's masks, mean of positives."""
        counts = [chosen.positives for chosen in samples]
        if self.res5 is None:
            features = self.regions(maps, [chosen.boxes[: chosen.positives] for chosen in samples], self.mask_pool)
        else:  # the box branch has computed them
            of_images = features.split([len(chosen.boxes) for chosen in samples])
            features = torch.cat([part[:count] for part, count in zip(of_images, counts, strict=True)])
        losses = []
        for logits, chosen, target in zip(
            self.mask_head(features).float().split(counts), samples, targets, strict=True
        ):
            boxes = chosen.boxes[: chosen.positives] / target["scale"].repeat(2)
            own = logits[torch.arange(len(logits)), chosen.classes[: chosen.positives] - 1 + self.first_class]
            wanted = mask_targets(target["masks"], boxes, chosen.matches, own.shape[-1])
            loss = F.binary_cross_entropy_with_logits(own, wanted, reduction="sum")
            losses.append(loss / max(own.numel(), 1))
        return {"mask": torch.stack(losses)}

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Return the detections as FasterRCNN does, with ``masks`` [D, 28, 28] (C4: 14): probabilities within each box."""
        maps, detections = self.detections(images, sizes)
        boxes = [detection["boxes"] for detection in detections]
        logits = self.mask_head(self.regions(maps, boxes, self.mask_pool)).float().split([len(of) for of in boxes])
        for of_image, detection in zip(logits, detections, strict=True):
            own = of_image[torch.arange(len(of_image)), detection["labels"] + self.first_class]
            detection["masks"] = own.sigmoid()
        return detections

    def parts(self, height: int, width: int) -> list[Part]:
        """Return the parts of FasterRCNN, and the mask head's; in test C4 computes res5 anew for the regions of masks."""
        positives = int(self.regions_per_image * POSITIVE_SHARE)
        side = self.mask_pool if self.res5 is None else 7
        mask = Part("mask_head", (self.region_channels, side, side), DETECTIONS, positives, "positives")
        return [
            part._replace(test=part.test + DETECTIONS) if part.method == "res5" else part
            for part in super().parts(height, width)
        ] + [mask]
