"""The warping error: pixels that split or merge objects, after a warp that keeps the topology (Jain et al., CVPR 2010).

It is a column of Table 1 of Ronneberger et al., MICCAI 2015, as the challenge of ISBI 2012 defines it.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import ndimage

from lightning_modules.metrics.stacks import THRESHOLDS, Array, Curve, Mask, Probabilities, check_proposals, segments

WARPING_THRESHOLDS = THRESHOLDS[:10]  # the challenge's warping error leaves 1.0 out
SPLIT_RADIUS = 20  # pixels, of the window in which the challenge looks for a broken object
# (row, column) of the eight neighbours; the first four share a side with the centre.
RING = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))


@cache
def simple_points() -> tuple[bool, ...]:
    """Tell whether flipping a pixel leaves the topology as it is, for each of the 256 states of its neighbours.

    Bit k of a state is neighbour RING[k]. A pixel is simple if its 3x3 neighbourhood holds, without it, exactly one
    4-connected component of foreground that shares a side with it and exactly one 8-connected component of background
    (Bertrand and Malandain, Pattern Recognition Letters 1994; foreground 4-, background 8-connected).
    """
    table = []
    for state in range(256):
        ring = np.array([state >> bit & 1 for bit in range(8)], dtype=bool)
        inside, outside = np.zeros((2, 3, 3), dtype=bool)
        for (row, column), on in zip(RING, ring, strict=True):
            inside[1 + row, 1 + column], outside[1 + row, 1 + column] = on, not on
        components = ndimage.label(inside)[0]
        touching = {int(components[1 + row, 1 + column]) for row, column in RING[:4]} - {0}
        table.append(len(touching) == 1 and ndimage.label(outside, np.ones((3, 3)))[1] == 1)
    return tuple(table)


def warp(truth: Array, proposal: Probabilities, threshold: float) -> Mask:
    """Return the truth [H, W] deformed towards the cut proposal [H, W] without a change of topology.

    Disagreeing pixels are visited in the order of falling |proposal - threshold|, column by column where equal, and flipped
    if simple, in passes until one flips nothing (Jain et al., CVPR 2010, §3). Outside the image is background.
    """
    warped = np.pad(truth != 0, 1)
    height, width = warped.shape
    columns, rows = np.nonzero(((truth != 0) != (proposal > threshold)).T)
    order = np.argsort(-np.abs(proposal[rows, columns] - threshold), kind="stable")
    remaining = ((rows + 1) * width + columns + 1)[order].tolist()

    # The neighbourhood of every pixel as a state of simple_points, kept up to date at each flip.
    states = np.zeros(warped.shape, dtype=np.uint8)
    for bit, (row, column) in enumerate(RING):
        shifted = warped[1 + row : height - 1 + row, 1 + column : width - 1 + column]
        states[1:-1, 1:-1] |= shifted.astype(np.uint8) << bit
    codes = bytearray(states.tobytes())
    seen_by = [(-(row * width + column), 1 << bit) for bit, (row, column) in enumerate(RING)]
    simple = simple_points()
    flipped: list[int] = []
    while True:
        stuck = []
        for pixel in remaining:
            if simple[codes[pixel]]:
                flipped.append(pixel)
                for offset, mask in seen_by:
                    codes[pixel + offset] ^= mask
            else:
                stuck.append(pixel)
        if len(stuck) == len(remaining):
            break
        remaining = stuck
    warped.reshape(-1)[flipped] ^= True
    return warped[1:-1, 1:-1]


def split_and_merge_pixels(truth: Array, proposal: Probabilities, threshold: float) -> tuple[int, int]:
    """Return the pixels of one slice [H, W] that no warp explains and that split, or merge, objects.

    Of the pixels where the warped truth and the cut proposal disagree, with the eight neighbours labelled by the warped
    truth's objects: background with two objects or more around it is a merge; foreground so placed, or foreground of one
    object that its removal would break within SPLIT_RADIUS, is a split. What else is left adds or deletes a hole or an
    object, and is not counted (challenge of ISBI 2012).
    """
    warped = warp(truth, proposal, threshold)
    rows, columns = np.nonzero(warped != (proposal > threshold))
    objects = np.pad(segments(warped), 1)
    around = np.sort([objects[rows + 1 + row, columns + 1 + column] for row, column in RING], axis=0)
    distinct = (around[0] > 0).astype(int) + ((np.diff(around, axis=0) > 0) & (around[1:] > 0)).sum(axis=0)
    white = warped[rows, columns]
    splits = int((white & (distinct >= 2)).sum())
    merges = int((~white & (distinct >= 2)).sum())

    framed = np.pad(warped, SPLIT_RADIUS)
    middle = slice(SPLIT_RADIUS - 1, SPLIT_RADIUS + 2)
    side = 2 * SPLIT_RADIUS + 1
    one = white & (distinct == 1)
    for row, column in zip(rows[one].tolist(), columns[one].tolist(), strict=True):
        window = framed[row : row + side, column : column + side].copy()
        window[SPLIT_RADIUS, SPLIT_RADIUS] = False
        pieces = ndimage.label(window)[0][middle, middle]
        splits += len(set(pieces.ravel().tolist()) - {0}) > 1
    return splits, merges


def warping_error(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = WARPING_THRESHOLDS) -> Curve:
    """Return the warping error at each threshold: split and merge pixels as a fraction of all pixels, mean over slices.

    Lower is better (Jain et al., CVPR 2010; Ronneberger et al. 2015, Table 1). Stacks [N, H, W].

    Raises:
        ValueError: for stacks of unequal shape, or proposals outside [0, 1].
    """
    check_proposals(truths, proposals)
    wrong = [
        sum(sum(split_and_merge_pixels(truth, proposal, t)) for truth, proposal in zip(truths, proposals, strict=True))
        for t in thresholds
    ]
    return np.array(wrong) / truths.size
