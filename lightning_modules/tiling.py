"""Overlap-tile inference: images of any size, piece by piece (Ronneberger et al., MICCAI 2015, §2 and Figure 2)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

TILE, MARGIN = 384, 96  # the margin: the reach of a padded U-Net of depth 4


@torch.no_grad()
def predict_by_tiles(
    net: Any,
    image: Tensor,
    tile: int,
    batch_size: int,
    margin: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the logits [K, H, W] of a whole image [C, H, W] of any size, at the memory of batch_size tiles.

    What lies outside the image is its mirror image, the edge pixel not repeated. The result is that of one pass over the
    mirrored image, provided that no output pixel kept sees past its tile: always for unpadded convolutions, and for padded
    ones if margin is at least the reach of the network. For that, tiles lie whole strides of the network apart, since
    max pooling depends on where its grid begins: outputs of 388 pixels under 16-fold pooling (Figure 1) are laid every 384.

    Args:
        net: maps tiles (N, C, tile, tile) to logits (N, K, h, w) on the device of its parameters, with (h, w) the
            output_size of (tile, tile), which raises ValueError for illegal sides. Legal sides are one total stride apart.
        image: pixels, on any device; the logits are returned there.
        tile: side in pixels of the square that goes into the network.
        batch_size: tiles per pass.
        margin: pixels of output dropped on each side, for a network that puts out as much as it takes; a multiple of its
            stride. Unpadded networks have theirs already: None.
        progress: called after each pass with the tiles done and their total.

    Raises:
        ValueError: for an illegal tile, naming the two nearest legal ones, a margin that does not fit the network, an image
            of another shape, or a network in training mode.
    """
    if image.ndim != 3 or not image.numel():
        raise ValueError(f"one image [C, H, W] with pixels is needed, got shape {tuple(image.shape)}")
    _check_batch_size(batch_size)
    if any(module.training for module in net.modules()):
        raise ValueError("the network is in training mode: call net.eval() first")
    border, side, stride = _layout(net, tile, margin)
    step = side // stride * stride
    height, width = image.shape[1:]
    corners = [(top, left) for top in _starts(height, side, step) for left in _starts(width, side, step)]
    device = next(net.parameters(), image).device

    for first in range(0, len(corners), batch_size):
        batch = corners[first : first + batch_size]
        tiles = torch.stack([_cut(image, top - border, left - border, tile) for top, left in batch])
        outputs = net(tiles.to(device)).to(image.device)
        if margin:
            outputs = outputs[..., margin:-margin, margin:-margin]
        if first == 0:
            logits = outputs.new_empty(outputs.shape[1], height, width)
        for (top, left), output in zip(batch, outputs, strict=True):
            place = logits[:, top : top + side, left : left + side]
            place.copy_(output[:, : place.shape[1], : place.shape[2]])
        if progress is not None:
            progress(first + len(batch), len(corners))
    return logits


def output_size(net: Any, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of the logits of an image: what the network's own ``output_size`` says, else the image's.

    Raises:
        ValueError: for sides that the network does not take.
    """
    if callable(getattr(net, "output_size", None)):
        return net.output_size(height, width)
    if callable(getattr(net, "check_image_size", None)):
        net.check_image_size(height, width)
    return height, width


def checked_tiles(net: Any, tiles: Mapping[str, Any]) -> dict[str, int | None]:
    """Return arguments of ``predict_by_tiles`` as they are. Raises ValueError where it would, or where they are none."""
    wrong = tiles.keys() - {"tile", "batch_size", "margin"}
    numbers = {name: value for name, value in tiles.items() if not (name == "margin" and value is None)}
    if wrong or not {"tile", "batch_size"} <= tiles.keys() or not all(type(value) is int for value in numbers.values()):
        raise ValueError(f"recipe.tiles takes whole numbers as tile, batch_size and margin, got {dict(tiles)}")
    _check_batch_size(tiles["batch_size"])
    _layout(net, tiles["tile"], tiles.get("margin"))
    return dict(tiles)


def default_tiles(net: Any) -> dict[str, int | None]:
    """Return arguments of ``predict_by_tiles`` for a network of which none are known: TILE pixels, or the next side that it
    takes, and where it is padded a margin of MARGIN, or the next multiple of its stride."""
    tile = next((side for side in range(TILE, 2 * TILE) if _takes(net, side)), TILE)
    if output_size(net, tile, tile)[0] < tile:
        return {"tile": tile, "batch_size": 1}
    stride = _stride(net, tile)
    return {"tile": tile, "batch_size": 1, "margin": -(-MARGIN // stride) * stride}


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


def _layout(net: Any, tile: int, margin: int | None) -> tuple[int, int, int]:
    """Return the input pixels beside the kept output on each side, side of the kept output, and stride of the network."""
    output = output_size(net, tile, tile)[0]
    stride = _stride(net, tile)
    if output < tile:
        border, side = (tile - output) // 2, output
        if margin is not None:
            raise ValueError(f"an unpadded network drops its own margin of {border} pixels: leave margin out")
    elif margin is None:
        raise ValueError("a padded network needs margin, the pixels of output to drop on each side of a tile")
    else:
        border, side = margin, tile - 2 * margin
        if margin < 0 or margin % stride:
            below = max(margin // stride, 0) * stride
            raise ValueError(
                f"margin must be a multiple of the network's stride {stride}, as {below} and {below + stride} are, got {margin}"
            )
    if side < stride:
        smallest = tile + -(-(stride - side) // stride) * stride
        raise ValueError(
            f"tiles of {tile} keep {max(side, 0)} pixels, fewer than the network's stride {stride}: "
            f"the nearest sides that keep more are {smallest} and {smallest + stride}"
        )
    return border, side, stride


def _stride(net: Any, tile: int) -> int:
    """Return the distance in pixels from a legal side to the next."""
    for distance in range(1, tile + 1):
        if _takes(net, tile + distance):
            return distance
    raise ValueError(f"the network takes no side from {tile + 1} to {2 * tile}, so its stride is unknown")


def _takes(net: Any, side: int) -> bool:
    """Tell whether a side in pixels is legal."""
    try:
        output_size(net, side, side)
    except ValueError:
        return False
    return True


def _starts(size: int, side: int, step: int) -> range:
    """Return where the kept outputs begin along a side of the image, in pixels."""
    return range(0, max(size - side, 0) + step, step)


def _cut(image: Tensor, top: int, left: int, tile: int) -> Tensor:
    """Return a tile of the endlessly mirrored image."""
    rows = _mirrored(torch.arange(top, top + tile, device=image.device), image.shape[1])
    columns = _mirrored(torch.arange(left, left + tile, device=image.device), image.shape[2])
    return image[:, rows[:, None], columns]


def _mirrored(positions: Tensor, size: int) -> Tensor:
    period = max(2 * (size - 1), 1)  # 1: a single pixel is its own mirror image
    folded = positions % period
    return torch.minimum(folded, period - folded)
