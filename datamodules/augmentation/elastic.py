"""Elastic deformation of images, masks and weight maps (Ronneberger, Fischer and Brox, MICCAI 2015, section 3.1).

"Random displacement vectors on a coarse 3 by 3 grid", Gaussian with a standard deviation of 10 pixels, bicubic
interpolation to all pixels; with it shift, rotation and grey value variations, whose ranges the paper does not give.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.readers.seeds import mix_seed

GRID = 3


class ElasticDraws(NamedTuple):
    """The random numbers of a batch.

    vectors: float32 [B, 2, 3, 3], displacements (down, right) in pixels at the corners, the middles of the sides and the
    centre of the tile. place: [B, 2] in -1..1, where the tile lies (down, right). angle: [B], radians.
    contrast, brightness: [B].
    """

    vectors: Tensor
    place: Tensor
    angle: Tensor
    contrast: Tensor
    brightness: Tensor


class Warped(NamedTuple):
    """images: float32 [B, C, H, W], grey values 0..255. targets: uint8 [B, h, w]. weights: float32 [B, h, w]."""

    images: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Elastic:
    """Cuts tiles out of images whose borders are mirrored: shifted, turned, deformed and changed in grey value.

    input_size: height and width of the tiles. output_size: of their central part, which masks and weights cover; equal
    to input_size for a network that pads. displacement: standard deviation of the vectors, pixels. shift: the tile's
    central part lies anywhere within the image, or up to so many pixels beyond. rotation: by up to so many degrees
    either way. contrast c, brightness b: the grey value v in 0..1 becomes (1 + c') (v - 1/2) + 1/2 + b', cut to 0..1,
    with c' and b' uniform in -c..c and -b..b.
    Raises ValueError on sizes that do not lie around one centre and on numbers out of range.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    displacement: float = 10.0
    shift: float = 0.0
    rotation: float = 180.0
    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        sizes = f"got {list(self.input_size)} and {list(self.output_size)}"
        if len(self.input_size) != 2 or len(self.output_size) != 2:
            raise ValueError(f"input_size and output_size are a height and a width, {sizes}")
        for side, inner in zip(self.input_size, self.output_size, strict=True):
            if not 1 <= inner <= side or (side - inner) % 2:
                raise ValueError(
                    f"output_size must be at most input_size and an even number of pixels smaller, {sizes}"
                )
        for name, most in (("displacement", math.inf), ("shift", math.inf), ("rotation", 180.0), ("contrast", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in 0..{most:g}, got {getattr(self, name)}")
        if not 0 <= self.brightness <= 1:
            raise ValueError(f"brightness must lie in 0..1, a part of the grey scale, got {self.brightness}")

    def draw(self, seed: int, epoch: int, rows: Sequence[int] | Tensor) -> ElasticDraws:
        """Draw for the images `rows` of the training split; what an image gets depends on (seed, epoch, row) alone."""
        vectors, uniforms = [], []
        for row in rows:
            generator = torch.Generator().manual_seed(mix_seed("elastic", seed, epoch, int(row)))
            vectors.append(torch.randn(2, GRID, GRID, generator=generator))
            uniforms.append(2 * torch.rand(5, generator=generator) - 1)
        uniform = torch.stack(uniforms)
        return ElasticDraws(
            vectors=self.displacement * torch.stack(vectors),
            place=uniform[:, :2],
            angle=math.radians(self.rotation) * uniform[:, 2],
            contrast=self.contrast * uniform[:, 3],
            brightness=self.brightness * uniform[:, 4],
        )

    def coordinates(self, draws: ElasticDraws, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return where in the image (row, column) each pixel of a tile comes from: two float32 [B, H, W], H x W the input_size.

        height, width: of the image. The pixel at p from the centre of the tile comes from c + R p + u(p): c the centre's
        place in the image, R the rotation, u the interpolated displacement. Not yet mirrored: may lie outside.
        """
        rows, columns = self.input_size
        field = F.interpolate(draws.vectors, size=(rows, columns), mode="bicubic", align_corners=True)
        device = draws.vectors.device
        down = (torch.arange(rows, device=device) - (rows - 1) / 2).view(1, rows, 1)
        right = (torch.arange(columns, device=device) - (columns - 1) / 2).view(1, 1, columns)
        cos, sin = draws.angle.cos().view(-1, 1, 1), draws.angle.sin().view(-1, 1, 1)
        # Whole pixels: a tile that is merely shifted keeps its grey values. Of an odd rest of the image there is a pixel more
        # below and at the right of a tile in the middle than above and at the left.
        rests = [max(size - inner, 0) for size, inner in zip((height, width), self.output_size, strict=True)]
        below, beside = (
            (place * (rest / 2 + self.shift) + rest % 2 / 2).round().view(-1, 1, 1)
            for place, rest in zip(draws.place.unbind(1), rests, strict=True)
        )
        row = (rows - 1) / 2 + (height - rows) // 2 + below
        column = (columns - 1) / 2 + (width - columns) // 2 + beside
        return row + cos * down - sin * right + field[:, 0], column + sin * down + cos * right + field[:, 1]

    def apply(self, images: Tensor, targets: Tensor, weights: Tensor, draws: ElasticDraws) -> Warped:
        """Move images (bicubic), masks (nearest) and weights (bilinear) alike; grey values change in images only.

        images: uint8 [B, C, H, W]; targets: uint8 [B, H, W]; weights: float32 [B, H, W]. Beyond their borders all three
        are mirrored about the outermost pixel, as the paper extrapolates missing context.
        Raises ValueError unless all three are of one size, at least 2x2.
        """
        height, width = images.shape[-2:]
        if not images.shape[-2:] == targets.shape[-2:] == weights.shape[-2:] or min(height, width) < 2:
            shapes = ", ".join(str(list(tensor.shape[-2:])) for tensor in (images, targets, weights))
            raise ValueError(f"images, masks and weights must be of one size, at least 2x2, got {shapes}")
        row, column = self.coordinates(draws, height, width)
        grid = torch.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], dim=-1)
        top, left = ((side - inner) // 2 for side, inner in zip(self.input_size, self.output_size, strict=True))
        inner = grid[:, top : top + self.output_size[0], left : left + self.output_size[1]]

        # The cubic kernel overshoots at edges.
        moved = _sample(images.float(), grid, "bicubic").clamp_(0, 255)
        gain = (1 + draws.contrast).view(-1, 1, 1, 1)
        offset = (127.5 * (1 - gain)) + 255 * draws.brightness.view(-1, 1, 1, 1)
        return Warped(
            images=(gain * moved + offset).clamp_(0, 255),
            targets=_sample(targets[:, None].float(), inner, "nearest")[:, 0].to(torch.uint8),
            weights=_sample(weights[:, None], inner, "bilinear")[:, 0],
        )


def _sample(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(values, grid, mode=mode, padding_mode="reflection", align_corners=True)
