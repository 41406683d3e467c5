"""Region proposal networks (Ren et al., "Faster R-CNN: Towards real-time object detection with region proposal networks",
NIPS 2015), on one map or on every level of a pyramid (Lin et al., CVPR 2017, §4.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nets.boxes import are_large, clip, decode, encode, iou, nms
from lightning_modules.nets.sampling import IGNORED, sample

WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of the deltas
POSITIVE, NEGATIVE = 0.7, 0.3  # overlap with a true box (§3.1.2)
POSITIVE_SHARE = 0.5  # of the anchors of an image that are learned from (§3.1.3: "a ratio of up to 1:1")
NMS = 0.7  # overlap (§3.3)
SMOOTH_L1 = 1 / 9  # where the loss of a delta turns from square to linear (Detectron)
SMALLEST = 1e-3  # pixels: the side of a proposal


class RPN(nn.Module):
    """A 3x3 convolution and two sibling 1x1: ``cls`` scores the objectness of each anchor, ``reg`` moves it (Figure 3).

    channels: of every map. strides: pixels of the image per cell, of each map. sides: of the square anchors of each map, in
    pixels. ratios: height to width, at equal area. pre_nms: best-scored anchors of each map, in training and in test; post_nms:
    proposals of an image. anchors_per_image: learned from in a step. centred: anchors stand on the middle of their cell;
    False: on its corner. rounded: to whole pixels on either side of it, as the first implementations.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        sides: Sequence[Sequence[float]],
        ratios: Sequence[float],
        pre_nms: tuple[int, int],
        post_nms: tuple[int, int],
        anchors_per_image: int,
        centred: bool,
        rounded: bool,
    ) -> None:
        super().__init__()
        self.strides = list(strides)
        self.sides, self.ratios = [list(of_map) for of_map in sides], list(ratios)
        self.pre_nms, self.post_nms = pre_nms, post_nms
        self.anchors_per_image = anchors_per_image
        self.centred, self.rounded = centred, rounded
        anchors = len(self.sides[0]) * len(self.ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.cls = nn.Conv2d(channels, anchors, 1)
        self.reg = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.cls, self.reg):
            nn.init.normal_(layer.weight, std=0.01)  # §3.1.3
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness [N, A] and deltas [N, A, 4] of each map [N, C, H, W]: A = H · W · (anchors of a cell)."""
        objectness, deltas = [], []
        for x in maps:
            hidden = F.relu(self.conv(x))
            objectness.append(self.cls(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.reg(hidden).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        return objectness, deltas

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors [A, 4] of each map, in the order of ``forward``."""
        return [self._grid(x, stride, sides) for x, stride, sides in zip(maps, self.strides, self.sides, strict=True)]

    def _grid(self, x: Tensor, stride: int, sides: Sequence[float]) -> Tensor:
        ratios = torch.tensor(self.ratios, device=x.device).repeat_interleave(len(sides))
        lengths = torch.tensor(sides, device=x.device).repeat(len(self.ratios))
        half = torch.stack([lengths / ratios.sqrt(), lengths * ratios.sqrt()], dim=1) / 2
        rows, columns = (torch.arange(size, device=x.device) * stride for size in x.shape[-2:])
        if self.centred:
            rows, columns = rows + stride / 2, columns + stride / 2
        if self.rounded:
            half = half.round()
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        return torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4)

    @torch.no_grad()
    def proposals(
        self, objectness: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], sizes: Tensor
    ) -> list[Tensor]:
        """Return the proposals [P, 4] of each image, best first: anchors moved, cut off at the image, and thinned by NMS.

        sizes: int64 [N, 2], height and width of each image, in pixels.
        """
        pre_nms, post_nms = (most[0 if self.training else 1] for most in (self.pre_nms, self.post_nms))
        proposals = []
        for image, (height, width) in enumerate(sizes.tolist()):
            scores, boxes, levels = [], [], []
            for level, (score, delta, anchor) in enumerate(zip(objectness, deltas, anchors, strict=True)):
                best, rows = score[image].float().topk(min(pre_nms, score.shape[1]))
                scores.append(best)
                boxes.append(clip(decode(delta[image, rows].float(), anchor[rows], WEIGHTS), height, width))
                levels.append(torch.full_like(rows, level))
            candidates = torch.cat(boxes)
            large = are_large(candidates, SMALLEST)
            candidates = candidates[large]
            best = nms(candidates, torch.cat(scores)[large], NMS, torch.cat(levels)[large], most=post_nms)
            proposals.append(candidates[best])
        return proposals

    def losses(
        self,
        objectness: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """Return the losses of Equation 1 of each image, [N]: ``rpn_cls`` and ``rpn_reg``, both over anchors_per_image.

        targets: with ``boxes`` [n, 4] of each image, in pixels.
        """
        every = torch.cat(list(anchors))
        scores, moves = torch.cat(list(objectness), dim=1).float(), torch.cat(list(deltas), dim=1).float()
        cls, reg = [], []
        for score, move, target, generator in zip(scores, moves, targets, generators, strict=True):
            labels, matches = label_anchors(every, target["boxes"])
            rows = sample(labels, self.anchors_per_image, POSITIVE_SHARE, generator)
            cls.append(F.binary_cross_entropy_with_logits(score[rows], labels[rows].float(), reduction="sum"))
            positive = rows[labels[rows] > 0]
            wanted = encode(target["boxes"][matches[positive]], every[positive], WEIGHTS)
            reg.append(F.smooth_l1_loss(move[positive], wanted, reduction="sum", beta=SMOOTH_L1))
        sums = {"rpn_cls": torch.stack(cls), "rpn_reg": torch.stack(reg)}
        return {name: values / self.anchors_per_image for name, values in sums.items()}


def label_anchors(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label of each anchor, 1, 0 or IGNORED, and the row of its box, int64 [A] both (§3.1.2).

    Positive are anchors with an overlap of at least 0.7 with some box, and those that overlap a box most, ties too; negative
    those with less than 0.3 with every box. anchors: [A, 4]; boxes: [n, 4].
    """
    labels = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return labels, labels
    overlaps = iou(boxes, anchors)
    most, matches = overlaps.max(dim=0)
    labels[most >= NEGATIVE] = IGNORED
    labels[most >= POSITIVE] = 1
    best = overlaps.max(dim=1, keepdim=True).values
    labels[((overlaps == best) & (best > 0)).any(dim=0)] = 1
    return labels, matches
