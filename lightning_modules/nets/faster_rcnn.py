"""Faster R-CNN: Towards real-time object detection with region proposal networks (Ren et al., NIPS 2015), on the stages of a
ResNet or ResNeXt, trained end to end.

Two forms, after Figure 4 of Mask R-CNN (He et al., ICCV 2017). With ``pyramid`` channels regions are cut from a feature pyramid
(FPN) and the box head is two fully connected layers. With None, C4, they are cut from the last map of the fourth stage (res4),
and the fifth stage (res5) is computed for every region.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nets.boxes import are_large, clip, decode, encode, iou, nms
from lightning_modules.nets.checks import check_counts, check_each, check_reduction
from lightning_modules.nets.fpn import FPN
from lightning_modules.nets.frozen_norm import freeze_norms
from lightning_modules.nets.heads import BoxHead, RegionPooling
from lightning_modules.nets.resnet import ResNet, ZeroPadShortcut
from lightning_modules.nets.rpn import RPN
from lightning_modules.nets.rpn import SMOOTH_L1 as RPN_SMOOTH_L1
from lightning_modules.nets.sampling import sample

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas of regions (Fast R-CNN's code: deltas of unit variance)
POSITIVE = 0.5  # overlap of a region with a true box (Mask R-CNN, §3.1)
POSITIVE_SHARE = 0.25  # of an image's regions that are learned from (Mask R-CNN, §3.1: 1:3 of positives to negatives)
LEAST_SCORE = 0.05  # of a detection (Detectron)
NMS = 0.5  # overlap of two detections of a class (Detectron)
DETECTIONS = 100  # of an image (Mask R-CNN, §3.1)
RELEASES = (None, "torchvision", "detectron2")
SMALLEST = 1e-2  # pixels: the side of a detection


class Part(NamedTuple):
    """A part of a detector's work, counted apart because it runs once for an image or once for each region.

    method: of the network, called with a tensor [1, *input_size]. test: how often for one image in test, at most; train: in
    training, at most. counted_by: what ``losses`` counts it by, "regions" or "positives"; "images" for the dense part.
    """

    method: str
    input_size: tuple[int, ...]
    test: int
    train: int
    counted_by: str


class Sample(NamedTuple):
    """The regions of an image that the heads learn from, positives first.

    boxes: [R, 4], in pixels. classes: int64 [R], 0 is the background. matches: int64 [positives], the true box of each.
    """

    boxes: Tensor
    classes: Tensor
    matches: Tensor
    positives: int


class Backbone(nn.Module):
    """The stem and the first stages of a ResNet or ResNeXt, with its own state_dict: images to the last map of each stage."""

    def __init__(self, net: ResNet, stages: int) -> None:
        super().__init__()
        self.stem = net.stem
        self.stages = net.stages[:stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages.children():
            x = stage(x)
            maps.append(x)
        return maps


class FasterRCNN(nn.Module):
    """Faster R-CNN: images [N, C, H, W] to detections; ``losses`` trains it.

    Args:
        backbone: whose stem and stages are taken.
        num_classes: K, without the background.
        pyramid: channels of the pyramid; None for C4.
        stages: of the backbone that the pyramid takes.
        sides: of the square anchors in pixels: one for each level of the pyramid, from the finest to the one above the last;
            with C4 all of them on its one map.
        ratios: of the anchors, height to width.
        canonical_side: of a region that the pyramid's level of stride 16 stands for, in pixels; see RegionPooling.
        head_channels: of the two fully connected layers of the pyramid's box head.
        head_pool: of C4, the side of a region's features before res5: 14, or 7 with stride 1 in res5 (Mask R-CNN, Figure 4).
        regions_per_image, anchors_per_image: learned from in a step.
        pre_nms, post_nms: of proposals, in training and in test; see RPN.
        frozen_norm: batch normalisation stays as it is, an affine map; false: in what learns it has a batch's statistics.
        freeze_at: 0: everything learns; 1: the stem does not; 2: nor the first stage (Detectron's FREEZE_AT).
        release: the form of published weights: "torchvision", outputs of the background in ``reg`` and in masks, anchors of
            whole pixels on the corners of cells, RoIAlign without the half pixel, and the RPN's smooth L1 for regions too;
            "detectron2", anchors on the corners; None for the papers'.

    Raises:
        ValueError: for arguments that no detector has, or that the backbone does not allow.
    """

    loss_names: tuple[str, ...] = ("rpn_cls", "rpn_reg", "box_cls", "box_reg")

    def __init__(
        self,
        backbone: ResNet,
        num_classes: int,
        *,
        pyramid: int | None = 256,
        stages: int = 4,
        sides: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        canonical_side: float = 224,
        head_channels: int = 1024,
        head_pool: int = 14,
        regions_per_image: int = 512,
        anchors_per_image: int = 256,
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        frozen_norm: bool = True,
        freeze_at: int = 2,
        release: str | None = None,
    ) -> None:
        super().__init__()
        check_counts(stages=stages, head_channels=head_channels, **({} if pyramid is None else {"pyramid": pyramid}))
        check_counts(regions_per_image=regions_per_image, anchors_per_image=anchors_per_image)
        check_each(int, float, sides=sides, ratios=ratios)
        check_each(int, pre_nms=pre_nms, post_nms=post_nms)
        taken, given = stages if pyramid else 3, len(backbone.stages)
        of_objects = "num_classes counts objects' classes, without the background: at least 1"
        for wrong, message in (
            (type(num_classes) is not int or num_classes < 1, f"{of_objects}, got {num_classes!r}"),
            (release not in RELEASES, f"release is null, 'torchvision' or 'detectron2', got {release!r}"),
            (not isinstance(frozen_norm, bool), f"frozen_norm is true (an affine map) or false, got {frozen_norm!r}"),
            (freeze_at not in (0, 1, 2), f"freeze_at is 0, 1 (the stem) or 2 (the first stage too), got {freeze_at!r}"),
            (len(pre_nms) != 2 or len(post_nms) != 2, f"pre_nms and post_nms are two numbers, got {pre_nms}, {post_nms}"),
            (
                type(canonical_side) not in (int, float) or not canonical_side > 0,  # NaN is no such number
                f"canonical_side must be a positive number of pixels, got {canonical_side!r}",
            ),
            (head_pool not in (7, 14), f"head_pool is 7 or 14, got {head_pool!r}"),
            (not pyramid and given != 4, f"C4 needs the 4 stages of an ImageNet network, got {given}"),
            (not 2 <= taken <= given, f"stages is 2 to {given}, those of the backbone, got {stages}"),
            (bool(pyramid) and len(sides) != taken + 1, f"sides has one for each of the {taken + 1} maps, got {len(sides)}"),
        ):  # fmt: skip
            if wrong:
                raise ValueError(message)
        frozen = (backbone.stem, backbone.stages[0])[:freeze_at]
        for part in (backbone,) if frozen_norm else frozen:
            freeze_norms(part)
        for part in frozen:
            part.requires_grad_(False)
        finest = backbone.reduction // 2 ** (len(backbone.stages) - 1)
        strides = [finest * 2**level for level in range(taken + 1)]
        if not pyramid:
            strides = strides[taken - 1 : taken]
        channels = [_channels(stage) for stage in backbone.stages]
        background = int(release == "torchvision")

        self.num_classes = num_classes
        self.regions_per_image = regions_per_image
        self.smooth_l1 = RPN_SMOOTH_L1 if release == "torchvision" else 1.0  # Fast R-CNN, §2.3: 1
        self.first_class = background  # of the outputs of each class in the heads
        self.proposals_in_test = post_nms[1]
        self.in_channels = next(backbone.stem.parameters()).shape[1]
        self.reduction = finest * 2 ** (taken - 1)
        self.backbone = Backbone(backbone, taken)
        self.fpn = FPN(channels[:taken], pyramid) if pyramid else None
        self.map_channels = pyramid or channels[2]
        self.rpn = RPN(
            self.map_channels,
            strides,
            [[side] for side in sides] if pyramid else [sides],
            ratios,
            pre_nms,
            post_nms,
            anchors_per_image,
            centred=release is None,
            rounded=release == "torchvision",
        )
        self.pooling = RegionPooling(strides[:taken], canonical_side, half_pixel=not background)
        self.box_pool, self.mask_pool = (7, 14) if pyramid else (head_pool, head_pool)
        self.res5 = None if pyramid else _res5(backbone.stages[-1], head_pool)
        self.region_channels = pyramid or channels[3]
        hidden = head_channels if pyramid else None
        self.box_head = BoxHead(self.region_channels, 7, hidden, num_classes, num_classes + background)

    def dense(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return the maps that regions are cut from, and the RPN's objectness and deltas: all that is done once an image."""
        maps = self.backbone(images)
        maps = self.fpn(maps) if self.fpn is not None else maps[-1:]
        return maps, *self.rpn(maps)

    def regions(self, maps: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
        """Return the features of the boxes [R_n, 4] of all images, RoIAlign's [R, C, size, size] or with C4 res5's of them."""
        pooled = self.pooling(maps, boxes, size)
        return pooled if self.res5 is None else self.res5(pooled)

    def losses(
        self, images: Tensor, targets: Sequence[dict[str, Tensor]], generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return each loss of each image by name, [N], and how many "regions" and "positives" the heads have computed.

        images: [N, C, H, W]. targets: of each image boxes [n, 4] in pixels, labels int64 [n] from 0 and size int64 [2]; for
        masks also masks [n, h, w] and scale [2], pixels of the image per pixel of a mask (x, y). generators: of the CPU, one
        for each image; they decide which anchors and regions are learned from.
        """
        maps, objectness, deltas = self.dense(images)
        anchors = self.rpn.anchors(maps)
        losses = self.rpn.losses(objectness, deltas, anchors, targets, generators)
        sizes = torch.stack([target["size"] for target in targets])
        proposals = self.rpn.proposals(objectness, deltas, anchors, sizes)
        samples = [self.sample(*of_image) for of_image in zip(proposals, targets, generators, strict=True)]
        features = self.regions(maps, [chosen.boxes for chosen in samples], self.box_pool)
        scores, moves = (output.float() for output in self.box_head(features))
        counts = [len(chosen.boxes) for chosen in samples]
        cls, reg = [], []
        for score, move, chosen, target in zip(
            scores.split(counts), moves.split(counts), samples, targets, strict=True
        ):
            cls.append(F.cross_entropy(score, chosen.classes, reduction="sum") / max(len(score), 1))
            boxes, labels = chosen.boxes[: chosen.positives], chosen.classes[: chosen.positives] - 1
            wanted = encode(target["boxes"][chosen.matches], boxes, WEIGHTS)
            own = move[torch.arange(len(boxes)), labels + self.first_class]
            reg.append(F.smooth_l1_loss(own, wanted, reduction="sum", beta=self.smooth_l1) / max(len(score), 1))
        losses |= {"box_cls": torch.stack(cls), "box_reg": torch.stack(reg)}
        losses |= self.mask_losses(maps, features, samples, targets)
        return losses, {"regions": sum(counts), "positives": sum(chosen.positives for chosen in samples)}

    def mask_losses(
        self, maps: list[Tensor], features: Tensor, samples: Sequence[Sample], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the losses of masks: none here."""
        return {}

    @torch.no_grad()
    def sample(self, proposals: Tensor, target: dict[str, Tensor], generator: torch.Generator) -> Sample:
        """Return the regions of an image that the heads learn from, of its proposals [P, 4] and its true boxes."""
        true = target["boxes"]
        boxes = torch.cat([proposals, true.to(proposals.dtype)])  # Fast R-CNN's code: so that no object goes without
        classes = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        matches = classes
        if len(true):
            most, matches = iou(true, boxes).max(dim=0)
            classes = torch.where(most >= POSITIVE, target["labels"][matches] + 1, 0)
        rows = sample(classes, self.regions_per_image, POSITIVE_SHARE, generator)
        positives = int((classes[rows] > 0).sum())
        return Sample(boxes[rows], classes[rows], matches[rows[:positives]], positives)

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Return the detections of each image, by falling score: boxes [D, 4] in pixels, scores [D], labels int64 [D] from 0.

        images: [N, C, H, W]. sizes: int64 [N, 2], height and width of each image where it is padded at right and bottom.
        """
        return self.detections(images, sizes)[1]

    def detections(self, images: Tensor, sizes: Tensor | None) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Return the maps that regions are cut from, and the detections of each image with the number of its ``proposals``."""
        maps, objectness, deltas = self.dense(images)
        if sizes is None:
            sizes = torch.tensor([images.shape[-2:]] * len(images))
        proposals = self.rpn.proposals(objectness, deltas, self.rpn.anchors(maps), sizes)
        scores, moves = self.box_head(self.regions(maps, proposals, self.box_pool))
        counts = [len(boxes) for boxes in proposals]
        probabilities = scores.float().softmax(dim=1)[:, 1:]
        boxes = decode(moves.float()[:, self.first_class :], torch.cat(proposals)[:, None], WEIGHTS)
        return maps, [
            detect(probability, clip(box, *size)) | {"proposals": torch.tensor(count)}
            for probability, box, size, count in zip(
                probabilities.split(counts), boxes.split(counts), sizes.tolist(), counts, strict=True
            )
        ]

    def parts(self, height: int, width: int) -> list[Part]:
        """Return the parts of the work for an image of height x width pixels, and how often each is done."""
        size = (self.map_channels, self.box_pool, self.box_pool)
        each_region = self.proposals_in_test, self.regions_per_image, "regions"
        return [
            Part("dense", (self.in_channels, height, width), 1, 1, "images"),
            *([] if self.res5 is None else [Part("res5", size, *each_region)]),
            Part("box_head", (self.region_channels, 7, 7), *each_region),
        ]

    def load_backbone(self, state_dict: Mapping[str, Tensor]) -> None:
        """Begin with the stem and stages of a classifier's ``state_dict``, of the ResNet that the backbone is.

        Raises:
            RuntimeError: it is another's.
        """
        own = self.backbone.state_dict()
        self.backbone.load_state_dict({name: state_dict[name] for name in own if name in state_dict})
        if self.res5 is not None:
            prefix = "stages.3."
            last = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
            self.res5.load_state_dict(last)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise ValueError for an image (in pixels) so small that the last map would be less than a pixel."""
        check_reduction(height, width, self.reduction, "the last map is reduced")


def detect(probabilities: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Return the detections of an image: boxes [D, 4], scores [D], labels int64 [D], by falling score.

    probabilities: of each region and class, [P, K]. boxes: of each likewise, [P, K, 4], in pixels.
    """
    rows, labels = ((probabilities > LEAST_SCORE) & are_large(boxes, SMALLEST)).nonzero(as_tuple=True)
    scores, boxes = probabilities[rows, labels], boxes[rows, labels]
    best = nms(boxes, scores, NMS, labels, most=DETECTIONS)
    return {"boxes": boxes[best], "scores": scores[best], "labels": labels[best]}


def _channels(stage: nn.Module) -> int:
    """Return the channels of a stage's last map."""
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels


def _res5(stage: nn.Module, head_pool: int) -> nn.Module:
    """Return the fifth stage for regions: their features of 14x14 are halved, those of 7x7 stay 7x7."""
    for module in next(stage.children()).modules() if head_pool == 7 else ():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, ZeroPadShortcut):
            module.stride = 1
    return stage
