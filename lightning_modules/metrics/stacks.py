"""What the metrics of segmentation share: types, segments, thresholds and checks.

A truth is a stack [N, H, W] whose pixels are 0 on membranes and anything else in cells, a proposal the probability of
"cell" in [0, 1], and every slice is scored by itself in 2-D. A proposal is binarised by "> threshold"; segments are the
4-connected components of what is above, label 0 is the rest. The truth is never thresholded.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.floating]
Labels = NDArray[np.integer]
Curve = NDArray[np.float64]  # a metric over a stack of slices at every threshold

THRESHOLDS = tuple(step / 10 for step in range(11))


def segments(foreground: Array) -> Labels:
    """Return the labels [H, W] of the 4-connected components of a mask [H, W]: 1, 2, … and 0 outside."""
    return ndimage.label(foreground != 0)[0]


def check_shapes(truths: Array, others: Array) -> None:
    """Raise ValueError unless both are stacks of one shape [N, H, W], none of them 0."""
    if truths.ndim != 3 or truths.shape != others.shape or not truths.size:
        raise ValueError(
            f"both stacks must have one shape [N, H, W] with pixels, got {truths.shape} and {others.shape}"
        )


def check_proposals(truths: Array, proposals: Probabilities) -> None:
    """Raise ValueError unless both are stacks of one shape [N, H, W] and the proposals lie in [0, 1]."""
    check_shapes(truths, proposals)
    if not (proposals.min() >= 0 and proposals.max() <= 1):
        raise ValueError(
            f"proposals are probabilities of cell in [0, 1], got {proposals.min()} to {proposals.max()}: "
            "divide grey values by 255"
        )
