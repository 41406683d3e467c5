"""The metrics by which U-Net's data sets are judged: ISBI 2012 (EM membranes), the cell-tracking challenge, and overlap.

In the EM metrics a truth is a stack [N, H, W] whose pixels are 0 on membranes and anything else in cells, a proposal the
probability of "cell" in [0, 1], and every slice is scored by itself in 2-D. A proposal is binarised by "> threshold";
segments are the 4-connected components of what is above, label 0 is the rest. The truth is never thresholded.

V_Rand and V_Info, after thinning, rank the challenge since 2015 (Arganda-Carreras et al., Frontiers in Neuroanatomy 2015);
warping, Rand and pixel error are the columns of Table 1 of Ronneberger et al., MICCAI 2015. SEG is the measure of the
cell-tracking challenge, taken to be the IOU of its Table 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.floating]
Labels = NDArray[np.integer]

THRESHOLDS = tuple(step / 10 for step in range(11))
WARPING_THRESHOLDS = THRESHOLDS[:10]  # the challenge's warping error leaves 1.0 out
SPLIT_RADIUS = 20  # pixels, of the window in which the challenge looks for a broken object
# (row, column) of the eight neighbours; the first four share a side with the centre.
RING = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True)
class Sweep:
    """A metric over a stack of slices at every threshold, and the best of them.

    Attributes:
        thresholds: where the proposals were cut.
        curve: the metric at each of them.
        value: its maximum if a score, its minimum if an error.
        threshold: the first threshold that gives it.
    """

    thresholds: tuple[float, ...]
    curve: tuple[float, ...]
    value: float
    threshold: float


class Overlaps(NamedTuple):
    """How a found segmentation overlaps a true one, in pixels, counting only pixels of true segments.

    Attributes:
        joint: size of each non-empty overlap of a true and a found segment.
        truth: size of each true segment.
        found: size of each found segment, inside true segments.
        unassigned: true pixels that belong to no found segment.
    """

    joint: NDArray[np.int64]
    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    unassigned: int


class PairCounts(NamedTuple):
    """Ordered pairs of true-segment pixels, each pixel with itself included.

    Attributes:
        both: in one segment in the truth and in what was found.
        truth: in one true segment.
        found: in one found segment.
    """

    both: int
    truth: int
    found: int


class Scores(NamedTuple):
    """Precision-like merge score, recall-like split score, and their harmonic mean f; all in [0, 1], higher is better."""

    merge: float
    split: float
    f: float


def segments(foreground: Array) -> Labels:
    """Labels [H, W] of the 4-connected components of a mask [H, W]: 1, 2, … and 0 outside."""
    return label(foreground != 0, connectivity=1)


def thinned_segments(foreground: Array) -> Labels:
    """Segments of a mask [H, W], grown over the membranes until lines of one pixel (label 0) part them.

    The classic watershed of the inverted mask with 4-connectivity: every component is a basin, and the membrane a plateau
    flooded from all basins at equal speed; a pixel where two floods meet becomes a line, which floods nothing (Vincent and
    Soille, PAMI 1991, with Meyer's lines, Signal Processing 1994). A mask without foreground is one flat basin.
    """
    basins = segments(foreground)
    if not basins.any():
        return np.ones_like(basins)
    regions = np.pad(basins, 1)
    width = regions.shape[1]
    beside = np.array([-width, -1, 1, width])
    flat = regions.reshape(-1)
    dry = np.pad(basins == 0, 1).reshape(-1)
    front = np.flatnonzero(flat)
    while front.size:
        around = front[:, None] + beside
        layer = np.unique(around[dry[around]])
        dry[layer] = False
        # Where a gap is even, two floods reach adjacent pixels at once and one must go first. The colours of a
        # checkerboard go in turn: no two pixels of one colour are adjacent, so that their order is indifferent.
        colour = (layer // width + layer % width) % 2
        for pixels in (layer[colour == 0], layer[colour == 1]):
            floods = flat[pixels[:, None] + beside]
            highest = floods.max(axis=1)
            alone = ((floods == 0) | (floods == highest[:, None])).all(axis=1)
            flat[pixels] = np.where(alone, highest, 0)
        front = layer[flat[layer] > 0]
    return regions[1:-1, 1:-1]


def overlaps(truth: Labels, found: Labels) -> Overlaps:
    """Contingency of two label images [H, W], 0 being no segment.

    Raises:
        ValueError: for images of different shapes, or a truth without segments, of which nothing can be scored.
    """
    if truth.shape != found.shape:
        raise ValueError(f"truth and found labels must have one shape, got {truth.shape} and {found.shape}")
    inside = truth > 0
    true_labels, found_labels = truth[inside].astype(np.int64), found[inside].astype(np.int64)
    if not true_labels.size:
        raise ValueError("a truth without any cell pixel cannot be scored: leave the slice out")
    columns = int(found_labels.max()) + 1
    pairs, sizes = np.unique(true_labels * columns + found_labels, return_counts=True)
    found_sizes = np.bincount(found_labels)
    return Overlaps(
        joint=sizes[pairs % columns > 0],
        truth=_present(np.bincount(true_labels)),
        found=_present(found_sizes[1:]),
        unassigned=int(found_sizes[0]),
    )


def pair_counts(table: Overlaps) -> PairCounts:
    """Pairs behind the Rand scores; an unassigned pixel is a found segment of its own, of one pixel."""
    both, truth, found = (int((sizes**2).sum()) for sizes in (table.joint, table.truth, table.found))
    return PairCounts(both + table.unassigned, truth, found + table.unassigned)


def rand_scores(table: Overlaps) -> Scores:
    """Foreground-restricted Rand scores of one slice (Arganda-Carreras et al. 2015, "Rand scoring").

    merge: of two pixels joined by the proposal, how often the truth joins them; split: the converse.
    """
    return _scores(pair_counts(table))


def info_scores(table: Overlaps) -> Scores:
    """Foreground-restricted information scores of one slice (Arganda-Carreras et al. 2015, "Information theoretic scoring").

    merge = I / H(truth), split = I / H(found), f = 2 I / (H(truth) + H(found)), I their mutual information; an unassigned
    pixel is a segment of its own. As in the challenge's program, a truth of one segment gives merge 0, split 1, and
    otherwise one found segment merge 1, split 0: f is 0 in both cases, also where the two agree.
    """
    total = int(table.truth.sum())
    singles = table.unassigned / total * np.log(total)
    truth = _entropy(table.truth / total)
    found = _entropy(table.found / total) + singles
    shared = truth + found - (_entropy(table.joint / total) + singles)
    if truth == 0:
        return Scores(0.0, 1.0, 0.0)
    if found == 0:
        return Scores(1.0, 0.0, 0.0)
    return Scores(shared / truth, shared / found, 2 * shared / (truth + found))


def v_rand_and_v_info(
    truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[Sweep, Sweep]:
    """V_Rand and V_Info of a stack after thinning, from one watershed per slice and threshold.

    Returns:
        V_Rand and V_Info, as v_rand and v_info define them.

    Raises:
        ValueError: for stacks of unequal shape, proposals outside [0, 1], or a truth slice without cells.
    """
    _check(truths, proposals)
    rand, info = np.zeros((2, len(truths), len(thresholds)))
    for row, (truth, proposal) in enumerate(zip(truths, proposals, strict=True)):
        true_segments = segments(truth)
        for column, threshold in enumerate(thresholds):
            table = overlaps(true_segments, thinned_segments(proposal > threshold))
            rand[row, column] = rand_scores(table).f
            info[row, column] = info_scores(table).f
    return _highest(thresholds, rand.mean(axis=0)), _highest(thresholds, info.mean(axis=0))


def v_rand(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS) -> Sweep:
    """V_Rand (thinned): rand_scores of the thinned segments, mean f over slices, maximum over thresholds.

    Higher is better, 1 is perfect (Arganda-Carreras et al. 2015). Stacks [N, H, W].

    Raises:
        ValueError: as v_rand_and_v_info.
    """
    return v_rand_and_v_info(truths, proposals, thresholds)[0]


def v_info(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS) -> Sweep:
    """V_Info (thinned): info_scores of the thinned segments, mean f over slices, maximum over thresholds.

    Higher is better, 1 is perfect (Arganda-Carreras et al. 2015). Stacks [N, H, W].

    Raises:
        ValueError: as v_rand_and_v_info.
    """
    return v_rand_and_v_info(truths, proposals, thresholds)[1]


def rand_error(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS) -> Sweep:
    """Rand error: 1 - f of the Rand scores without thinning, pairs summed over slices, minimum over thresholds.

    Lower is better (Ronneberger et al. 2015, Table 1; definition of the ISBI 2012 challenge). A found segment is a component
    of the cut proposal, and every true pixel below the cut one of its own. Stacks [N, H, W].

    Raises:
        ValueError: as v_rand_and_v_info.
    """
    _check(truths, proposals)
    true_segments = [segments(truth) for truth in truths]
    curve = []
    for threshold in thresholds:
        counts = [
            pair_counts(overlaps(truth, segments(proposal > threshold)))
            for truth, proposal in zip(true_segments, proposals, strict=True)
        ]
        curve.append(1 - _scores(PairCounts(*map(sum, zip(*counts, strict=True)))).f)
    return _lowest(thresholds, curve)


def pixel_error(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS) -> Sweep:
    """Pixel error: 1 - F-score of the cell pixels, counted over all slices, minimum over thresholds.

    Lower is better (Ronneberger et al. 2015, Table 1). The F-score is what the ISBI 2012 leaderboard printed; the rate of
    wrong pixels, which its page describes, is another number. Stacks [N, H, W].

    Raises:
        ValueError: for stacks of unequal shape, proposals outside [0, 1], or truths without any cell pixel.
    """
    _check(truths, proposals)
    if not (truths != 0).any():
        raise ValueError("truths without any cell pixel have no F-score: check that cells are not 0")
    return _lowest(thresholds, [1 - pooled_dice(truths, proposals > threshold) for threshold in thresholds])


@cache
def simple_points() -> tuple[bool, ...]:
    """Whether flipping a pixel leaves the topology as it is, for each of the 256 states of its neighbours.

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
        components = label(inside, connectivity=1)
        touching = {int(components[1 + row, 1 + column]) for row, column in RING[:4]} - {0}
        table.append(len(touching) == 1 and label(outside, connectivity=2).max() == 1)
    return tuple(table)


def warp(truth: Array, proposal: Probabilities, threshold: float) -> Mask:
    """The truth [H, W] deformed towards the cut proposal [H, W] without a change of topology.

    Disagreeing pixels are visited in the order of falling |proposal - threshold|, column by column where equal, and flipped
    if simple, in passes until one flips nothing (Jain et al., CVPR 2010, §3). Outside the image is background.
    """
    warped = np.pad(truth != 0, 1)
    width = warped.shape[1]
    columns, rows = np.nonzero(((truth != 0) != (proposal > threshold)).T)
    order = np.argsort(-np.abs(proposal[rows, columns] - threshold), kind="stable")
    remaining = ((rows + 1) * width + columns + 1)[order].tolist()

    # The neighbourhood of every pixel as a state of simple_points, kept up to date at each flip.
    states = np.zeros(warped.shape, dtype=np.uint8)
    for bit, (row, column) in enumerate(RING):
        states[1:-1, 1:-1] |= _shifted(warped, row, column).astype(np.uint8) << bit
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
    """Pixels of one slice [H, W] that no warp explains and that split, or merge, objects.

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
        pieces = label(window, connectivity=1)[middle, middle]
        splits += len(set(pieces.ravel().tolist()) - {0}) > 1
    return splits, merges


def warping_error(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = WARPING_THRESHOLDS) -> Sweep:
    """Warping error: split and merge pixels as a fraction of all pixels, mean over slices, minimum over thresholds.

    Lower is better (Jain et al., CVPR 2010; Ronneberger et al. 2015, Table 1). Stacks [N, H, W].

    Raises:
        ValueError: for stacks of unequal shape, or proposals outside [0, 1].
    """
    _check(truths, proposals)
    wrong = [
        sum(sum(split_and_merge_pixels(truth, proposal, t)) for truth, proposal in zip(truths, proposals, strict=True))
        for t in thresholds
    ]
    return _lowest(thresholds, [count / truths.size for count in wrong])


def seg(truths: Labels, results: Labels) -> float:
    """SEG: mean over the true objects of all frames of their Jaccard index with the result object that holds them.

    A result object holds a true one if it covers more than half of its pixels, which at most one does; where none does, the
    object counts 0. Result objects that hold nothing cost nothing (Maška et al., Bioinformatics 2014).

    Args:
        truths: labels [N, H, W] of the objects of each frame, 0 for none.
        results: likewise; labels of truth and result need not correspond.

    Raises:
        ValueError: for stacks of unequal shape, or truths without any object.
    """
    _check_shapes(truths, results)
    scores = []
    for truth, result in zip(truths.astype(np.int64), results.astype(np.int64), strict=True):
        true_sizes, result_sizes = np.bincount(truth.ravel()), np.bincount(result.ravel())
        both = (truth > 0) & (result > 0)
        pairs, hits = np.unique(truth[both] * len(result_sizes) + result[both], return_counts=True)
        true_label, result_label = np.divmod(pairs, len(result_sizes))
        holds = 2 * hits > true_sizes[true_label]
        found = np.zeros(len(true_sizes))
        union = true_sizes[true_label] + result_sizes[result_label] - hits
        found[true_label[holds]] = (hits / union)[holds]
        scores.append(found[1:][true_sizes[1:] > 0])
    every = np.concatenate(scores)
    if not every.size:
        raise ValueError("truths without any object have no SEG: objects are labelled 1, 2, …")
    return float(every.mean())


def pooled_iou(truths: Array, masks: Array) -> float:
    """Intersection over union of the foreground (not 0), pixels of all images [N, H, W] counted together.

    Raises:
        ValueError: for stacks of unequal shape, or without any foreground in both.
    """
    hits, truth, found = _counts(truths, masks).sum(axis=1)
    _require_foreground(truth + found)
    return float(hits / (truth + found - hits))


def pooled_dice(truths: Array, masks: Array) -> float:
    """Dice coefficient, which is the F-score, of the foreground (not 0), pixels of all images [N, H, W] counted together.

    Raises:
        ValueError: as pooled_iou.
    """
    hits, truth, found = _counts(truths, masks).sum(axis=1)
    _require_foreground(truth + found)
    return float(2 * hits / (truth + found))


def iou_per_image(truths: Array, masks: Array) -> NDArray[np.float64]:
    """Intersection over union of the foreground of each image, shape [N]; NaN where truth and mask are both empty.

    Raises:
        ValueError: for stacks of unequal shape.
    """
    hits, truth, found = _counts(truths, masks)
    return _ratio(hits, truth + found - hits)


def dice_per_image(truths: Array, masks: Array) -> NDArray[np.float64]:
    """Dice coefficient of the foreground of each image, shape [N]; NaN where truth and mask are both empty.

    Raises:
        ValueError: for stacks of unequal shape.
    """
    hits, truth, found = _counts(truths, masks)
    return _ratio(2 * hits, truth + found)


def _scores(counts: PairCounts) -> Scores:
    both, truth, found = counts
    return Scores(both / found, both / truth, 2 * both / (truth + found))


def _entropy(shares: NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())


def _present(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return sizes[sizes > 0]


def _shifted(framed: Mask, row: int, column: int) -> Mask:
    height, width = framed.shape
    return framed[1 + row : height - 1 + row, 1 + column : width - 1 + column]


def _highest(thresholds: Sequence[float], curve: Array) -> Sweep:
    return _sweep(thresholds, curve, int(np.argmax(curve)))


def _lowest(thresholds: Sequence[float], curve: Sequence[float]) -> Sweep:
    return _sweep(thresholds, np.array(curve), int(np.argmin(curve)))


def _sweep(thresholds: Sequence[float], curve: Array, best: int) -> Sweep:
    values = tuple(curve.tolist())
    return Sweep(tuple(thresholds), values, values[best], thresholds[best])


def _counts(truths: Array, masks: Array) -> NDArray[np.int64]:
    """Pixels per image of the intersection, the truth and the mask, shape [3, N]."""
    _check_shapes(truths, masks)
    true, found = truths != 0, masks != 0
    return np.array([stack.sum(axis=(1, 2)) for stack in (true & found, true, found)])


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _require_foreground(pixels: int) -> None:
    if not pixels:
        raise ValueError("truths and masks without any foreground have no overlap: check that the foreground is not 0")


def _check_shapes(truths: Array, others: Array) -> None:
    if truths.ndim != 3 or truths.shape != others.shape or not truths.size:
        raise ValueError(
            f"both stacks must have one shape [N, H, W] with pixels, got {truths.shape} and {others.shape}"
        )


def _check(truths: Array, proposals: Probabilities) -> None:
    _check_shapes(truths, proposals)
    if not (proposals.min() >= 0 and proposals.max() <= 1):
        raise ValueError(
            f"proposals are probabilities of cell in [0, 1], got {proposals.min()} to {proposals.max()}: "
            "divide grey values by 255"
        )
