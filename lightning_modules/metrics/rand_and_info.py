"""V_Rand, V_Info and the Rand error: how the segments of a proposal agree with the true ones.

V_Rand and V_Info, after thinning, rank the challenge of ISBI 2012 since 2015 (Arganda-Carreras et al., Frontiers in
Neuroanatomy 2015); the Rand error is a column of Table 1 of Ronneberger et al., MICCAI 2015.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_modules.metrics.stacks import THRESHOLDS, Array, Curve, Labels, Probabilities, check_proposals, segments


class Overlaps(NamedTuple):
    """How a proposed segmentation overlaps a true one, in pixels, counting only pixels of true segments.

    Attributes:
        joint: size of each non-empty overlap of a true and a proposed segment.
        truth: size of each true segment.
        proposed: size of each proposed segment, inside true segments.
        unassigned: true pixels that belong to no proposed segment.
    """

    joint: NDArray[np.int64]
    truth: NDArray[np.int64]
    proposed: NDArray[np.int64]
    unassigned: int


class Scores(NamedTuple):
    """Precision-like merge score, recall-like split score, and their harmonic mean f; all in [0, 1], higher is better."""

    merge: float
    split: float
    f: float


def thinned_segments(foreground: Array) -> Labels:
    """Return the segments of a mask [H, W], grown over the membranes until lines of one pixel (label 0) part them.

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


def overlaps(truth: Labels, proposed: Labels) -> Overlaps:
    """Return the contingency of two label images [H, W], 0 being no segment.

    Raises:
        ValueError: for images of different shapes, or a truth without segments, of which nothing can be scored.
    """
    if truth.shape != proposed.shape:
        raise ValueError(f"truth and proposed labels must have one shape, got {truth.shape} and {proposed.shape}")
    inside = truth > 0
    true_labels, proposed_labels = truth[inside].astype(np.int64), proposed[inside].astype(np.int64)
    if not true_labels.size:
        raise ValueError("a truth without any cell pixel cannot be scored: leave the slice out")
    columns = int(proposed_labels.max()) + 1
    pairs, sizes = np.unique(true_labels * columns + proposed_labels, return_counts=True)
    proposed_sizes = np.bincount(proposed_labels)
    return Overlaps(
        joint=sizes[pairs % columns > 0],
        truth=_present(np.bincount(true_labels)),
        proposed=_present(proposed_sizes[1:]),
        unassigned=int(proposed_sizes[0]),
    )


def pair_counts(table: Overlaps) -> NDArray[np.int64]:
    """Return the ordered pairs of true-segment pixels, each pixel with itself included, that are in one segment in truth and
    proposal, in the truth, and in the proposal, where an unassigned pixel is a segment of its own."""
    both, truth, proposed = (int((sizes**2).sum()) for sizes in (table.joint, table.truth, table.proposed))
    return np.array([both + table.unassigned, truth, proposed + table.unassigned])


def rand_scores(table: Overlaps) -> Scores:
    """Return the foreground-restricted Rand scores of one slice (Arganda-Carreras et al. 2015, "Rand scoring").

    merge: of two pixels joined by the proposal, how often the truth joins them; split: the converse.
    """
    return _scores(*pair_counts(table).tolist())


def info_scores(table: Overlaps) -> Scores:
    """Return the foreground-restricted information scores of one slice (Arganda-Carreras et al. 2015,
    "Information theoretic scoring").

    merge = I / H(truth), split = I / H(proposed), f = 2 I / (H(truth) + H(proposed)), I their mutual information; an unassigned
    pixel is a segment of its own. As in the challenge's program, a truth of one segment gives merge 0, split 1, and
    otherwise one proposed segment merge 1, split 0: f is 0 in both cases, also where the two agree.
    """
    total = int(table.truth.sum())
    singles = table.unassigned / total * np.log(total)
    truth = _entropy(table.truth / total)
    proposed = _entropy(table.proposed / total) + singles
    shared = truth + proposed - (_entropy(table.joint / total) + singles)
    if truth == 0:
        return Scores(0.0, 1.0, 0.0)
    if proposed == 0:
        return Scores(1.0, 0.0, 0.0)
    return Scores(shared / truth, shared / proposed, 2 * shared / (truth + proposed))


def v_rand_and_v_info(
    truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[Curve, Curve]:
    """Return V_Rand and V_Info at each threshold: f of the rand_scores and info_scores after thinning, mean over slices.

    Higher is better, 1 is perfect (Arganda-Carreras et al. 2015). Stacks [N, H, W].

    Raises:
        ValueError: for stacks of unequal shape, proposals outside [0, 1], or a truth slice without cells.
    """
    check_proposals(truths, proposals)
    rand, info = np.zeros((2, len(truths), len(thresholds)))
    for row, (truth, proposal) in enumerate(zip(truths, proposals, strict=True)):
        true_segments = segments(truth)
        for column, threshold in enumerate(thresholds):
            table = overlaps(true_segments, thinned_segments(proposal > threshold))
            rand[row, column] = rand_scores(table).f
            info[row, column] = info_scores(table).f
    return rand.mean(axis=0), info.mean(axis=0)


def rand_error(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS) -> Curve:
    """Return the Rand error at each threshold: 1 - f of the Rand scores without thinning, pairs summed over slices.

    Lower is better (Ronneberger et al. 2015, Table 1; definition of the ISBI 2012 challenge). A proposed segment is a component
    of the cut proposal, and every true pixel below the cut one of its own. Stacks [N, H, W].

    Raises:
        ValueError: as v_rand_and_v_info.
    """
    check_proposals(truths, proposals)
    true_segments = [segments(truth) for truth in truths]
    curve = []
    for threshold in thresholds:
        tables = (overlaps(*pair) for pair in zip(true_segments, map(segments, proposals > threshold), strict=True))
        curve.append(1 - _scores(*np.sum([*map(pair_counts, tables)], axis=0).tolist()).f)
    return np.array(curve)


def _scores(both: int, truth: int, proposed: int) -> Scores:
    return Scores(both / proposed, both / truth, 2 * both / (truth + proposed))


def _entropy(shares: NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())


def _present(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return sizes[sizes > 0]
