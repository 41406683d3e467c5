"""What a detector computes for each region: the heads of He et al., "Mask R-CNN", ICCV 2017, Figure 4."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nets.boxes import area
from lightning_modules.nets.roi_align import roi_align


class BoxHead(nn.Module):
    """Scores and moves of each region by class: ``cls`` [R, K + 1], class 0 is the background, and ``reg`` [R, outputs, 4].

    hidden: channels of the two fully connected layers of the pyramid's head; None for C4's, whose layers are those of res5
    before it: the features [R, C, s, s] are averaged. size: s. outputs: classes with deltas of their own.
    """

    def __init__(self, channels: int, size: int, hidden: int | None, num_classes: int, outputs: int) -> None:
        super().__init__()
        if hidden is None:
            self.layers: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            features = channels
        else:
            self.layers = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels * size * size, hidden), nn.ReLU(),
                nn.Linear(hidden, hidden), nn.ReLU(),
            )  # fmt: skip
            features = hidden
        self.outputs = outputs
        self.cls = nn.Linear(features, num_classes + 1)
        self.reg = nn.Linear(features, 4 * outputs)
        # Fast R-CNN, §2.3.
        nn.init.normal_(self.cls.weight, std=0.01)
        nn.init.normal_(self.reg.weight, std=0.001)
        for layer in (self.cls, self.reg):
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(regions)
        return self.cls(x), self.reg(x).view(-1, self.outputs, 4)


class MaskHead(nn.Sequential):
    """A mask of each region for each class: regions [R, C, s, s] to logits [R, outputs, 2 s, 2 s].

    convs: 3x3 convolutions of ``hidden`` channels before the 2x2 deconvolution; 4 in the FPN head, none in the C4 head.
    """

    def __init__(self, channels: int, convs: int, hidden: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for index in range(convs):
            layers += [nn.Conv2d(hidden if index else channels, hidden, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(hidden if convs else channels, hidden, 2, stride=2), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(hidden, outputs, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self[-1].weight, std=0.001)  # type: ignore[arg-type]


class RegionPooling(nn.Module):
    """RoIAlign of each region out of the level of its size (Lin et al. 2017, Equation 1).

    strides: of the levels, the finest first. canonical_side: of a region that is cut out of stride 16 (k_0 = 4), in pixels: 224
    as ImageNet's images. half_pixel: see ``roi_align``.
    """

    def __init__(self, strides: list[int], canonical_side: float, half_pixel: bool) -> None:
        super().__init__()
        self.strides = strides
        self.canonical_side = canonical_side
        self.half_pixel = half_pixel

    def forward(self, maps: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
        """Return [R, C, size, size] of the boxes [R_n, 4] of all images, in their order."""
        every = torch.cat(boxes)
        counts = torch.tensor([len(of_image) for of_image in boxes], device=every.device)
        images = torch.repeat_interleave(counts)
        maps = maps[: len(self.strides)]
        return roi_align(maps, self.strides, every, images, self.levels(every), size, half_pixel=self.half_pixel)

    def levels(self, boxes: Tensor) -> Tensor:
        """Return the level of each box [R, 4], 0 is the finest: k_0 + log2(sqrt(w h) / canonical_side), of those there are."""
        of_canonical = [stride.bit_length() - 1 for stride in self.strides]
        k = 4 + (area(boxes).sqrt() / self.canonical_side + 1e-8).log2()
        return k.floor().clamp(of_canonical[0], of_canonical[-1]).long() - of_canonical[0]


def mask_targets(masks: Tensor, boxes: Tensor, rows: Tensor, size: int) -> Tensor:
    """Return the true masks within boxes, 1 where a mask covers half of a bin's area or more, else 0, float32 [R, size, size].

    The area is exact: by 2x2 samples of a bin, masks of 448 pixels would be 4 % too large.
    masks: [n, h, w], bitmaps; boxes: [R, 4], in pixels of the masks; rows: int64 [R], the mask of each box.
    """
    used, rows = rows.unique(return_inverse=True)
    height, width = masks.shape[1:]
    table = torch.zeros(len(used), height + 1, width + 1, dtype=torch.int32, device=masks.device)
    table[:, 1:, 1:] = masks[used]
    table.cumsum_(2).cumsum_(1)  # pixels above and left of each corner of pixels
    low, high = boxes[:, :2, None].double(), boxes[:, 2:, None].double()
    limits = torch.tensor([[width], [height]], device=boxes.device)
    steps = torch.arange(size + 1, dtype=torch.float64, device=boxes.device) / size
    edges = (low + (high - low) * steps).clamp(min=0).minimum(limits)  # of bins, within the image, [R, 2, size + 1]
    pixels = edges.long().minimum(limits - 1)
    (x, y), (right, below) = pixels.unbind(1), (edges - pixels).unbind(1)

    def corner(down: int, along: int) -> Tensor:
        return table[rows[:, None, None], (y + down)[:, :, None], (x + along)[:, None]].double()

    upper, lower = (torch.lerp(corner(down, 0), corner(down, 1), right[:, None]) for down in (0, 1))
    covered = torch.lerp(upper, lower, below[:, :, None]).diff(dim=1).diff(dim=2)
    return (covered >= 0.5 * ((high - low) / size).prod(dim=1)[:, None]).float()


def paste_mask(mask: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """Return the mask of a region as a bitmap of an image, bool [height, width] (§3.1: resized, and binarised at 0.5).

    mask: [s, s], probabilities; box: [4], in pixels of the image. Only pixels within the box are computed.
    """
    bitmap = torch.zeros(height, width, dtype=torch.bool, device=mask.device)
    x0, y0, x1, y1 = box.tolist()
    left, top, right, bottom = max(int(x0), 0), max(int(y0), 0), min(int(x1) + 1, width), min(int(y1) + 1, height)
    if left >= right or top >= bottom:
        return bitmap
    columns, rows = torch.arange(left, right, device=mask.device), torch.arange(top, bottom, device=mask.device)
    y, x = torch.meshgrid(
        2 * (rows + 0.5 - y0) / (y1 - y0) - 1, 2 * (columns + 0.5 - x0) / (x1 - x0) - 1, indexing="ij"
    )
    grid = torch.stack([x, y], dim=-1)[None].to(mask.dtype)
    bitmap[top:bottom, left:right] = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0] >= 0.5
    return bitmap
