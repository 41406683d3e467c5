"""Pixel error and SEG: how far masks, and objects, cover the true ones.

The pixel error is a column of Table 1 of Ronneberger et al., MICCAI 2015. SEG is the measure of the Cell Tracking Challenge,
taken to be the IOU of its Table 2.
"""

from collections.abc import Sequence

import numpy as np

from lightning_modules.metrics.stacks import (
    THRESHOLDS,
    Array,
    Curve,
    Labels,
    Probabilities,
    check_proposals,
    check_shapes,
)


def pixel_error(truths: Array, proposals: Probabilities, thresholds: Sequence[float] = THRESHOLDS) -> Curve:
    """Return the pixel error at each threshold: 1 - F-score of the cell pixels, counted over all slices.

    Lower is better (Ronneberger et al. 2015, Table 1). The F-score is what the ISBI 2012 leaderboard printed; the rate of
    wrong pixels, which its page describes, is another number. Stacks [N, H, W].

    Raises:
        ValueError: for stacks of unequal shape, proposals outside [0, 1], or truths without any cell pixel.
    """
    check_proposals(truths, proposals)
    if not (truths != 0).any():
        raise ValueError("truths without any cell pixel have no F-score: check that cells are not 0")
    return np.array([1 - pooled_dice(truths, proposals > threshold) for threshold in thresholds])


def seg(truths: Labels, results: Labels) -> float:
    """Return SEG: mean over the true objects of all frames of their Jaccard index with the result object that holds them.

    A result object holds a true one if it covers more than half of its pixels, which at most one does; where none does, the
    object counts 0. Result objects that hold nothing cost nothing (Maška et al., Bioinformatics 2014).

    Args:
        truths: labels [N, H, W] of the objects of each frame, 0 for none.
        results: likewise; labels of truth and result need not correspond.

    Raises:
        ValueError: for stacks of unequal shape, or truths without any object.
    """
    check_shapes(truths, results)
    scores = []
    for truth, result in zip(truths.astype(np.int64), results.astype(np.int64), strict=True):
        true_sizes, result_sizes = np.bincount(truth.ravel()), np.bincount(result.ravel())
        both = (truth > 0) & (result > 0)
        pairs, hits = np.unique(truth[both] * len(result_sizes) + result[both], return_counts=True)
        true_label, result_label = np.divmod(pairs, len(result_sizes))
        holds = 2 * hits > true_sizes[true_label]
        indices = np.zeros(len(true_sizes))
        union = true_sizes[true_label] + result_sizes[result_label] - hits
        indices[true_label[holds]] = (hits / union)[holds]
        scores.append(indices[1:][true_sizes[1:] > 0])
    every = np.concatenate(scores)
    if not every.size:
        raise ValueError("truths without any object have no SEG: objects are labelled 1, 2, …")
    return float(every.mean())


def pooled_dice(truths: Array, masks: Array) -> float:
    """Return the Dice coefficient, or F-score, of the foreground (not 0), pixels of all images [N, H, W] counted together.

    Raises:
        ValueError: for stacks of unequal shape, or without any foreground in both.
    """
    check_shapes(truths, masks)
    true, predicted = truths != 0, masks != 0
    foreground = int(true.sum() + predicted.sum())
    if not foreground:
        raise ValueError("truths and masks without any foreground have no overlap: check that the foreground is not 0")
    return float(2 * (true & predicted).sum() / foreground)
