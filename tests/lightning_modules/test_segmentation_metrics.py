"""The segmentation metrics against hand-computed values, brute force, scikit-image and torchmetrics."""

import heapq
import itertools
from collections import Counter
from math import log

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import watershed
from torchmetrics.functional.classification import binary_f1_score

from lightning_modules.metrics import overlap, rand_and_info, stacks, warping
from lightning_modules.metrics.scores import EMScores

EIGHT = np.ones((3, 3))


def random_labels(seed, shape=(9, 11), highest=4):
    """Truth and found labels with zeros in both, unrelated."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, highest + 1, shape), rng.integers(0, highest + 2, shape)


def field(seed, shape=(14, 15), smoothness=1.0):
    """A smooth random image in [0, 1]."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smoothness)
    return (image - image.min()) / np.ptp(image)


def picture(*rows):
    """'#' is a cell, '.' is membrane."""
    return np.array([[character == "#" for character in row] for row in rows])


# Segments and watershed


def test_segments_are_4_connected():
    assert stacks.segments(picture("##.", "..#", "###")).tolist() == [[1, 1, 0], [0, 0, 2], [2, 2, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_watershed_lines_are_the_pixels_as_near_to_two_cells(seed):
    """Between rectangles an odd gap has one middle, so the watershed is the nearest cell, or a line where two are."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        widths = [w for _ in range(4) for w in (int(rng.integers(1, 6)), int(rng.choice([1, 3, 5])))]
        parts.append(np.concatenate([np.full(w, i % 2 == 0) for i, w in enumerate(widths[:-1])]))
    mask = parts[0][:, None] & parts[1][None]
    cells, count = ndimage.label(mask)
    distances = np.array([ndimage.distance_transform_cdt(cells != i, "taxicab") for i in range(1, count + 1)])
    nearest = distances == distances.min(axis=0)
    expected = np.where(nearest.sum(axis=0) == 1, nearest.argmax(axis=0) + 1, 0)
    found = rand_and_info.thinned_segments(mask)
    assert count == 16 and (expected == 0).any()
    assert (found == expected).all()


@pytest.mark.parametrize("seed", range(12))
def test_watershed_grows_every_cell_and_parts_all_of_them(seed):
    mask = field(seed, (40, 45), 0.4 * (seed % 4) + 0.5) > 0.5
    cells, count = ndimage.label(mask)
    regions = rand_and_info.thinned_segments(mask)
    assert sorted(set(regions[mask].tolist())) == list(range(1, count + 1))
    pairs = set(zip(cells[mask].tolist(), regions[mask].tolist(), strict=True))
    assert len(pairs) == count  # one region per cell, one cell per region
    for one, other in ((regions[:, 1:], regions[:, :-1]), (regions[1:], regions[:-1])):
        assert not ((one != other) & (one > 0) & (other > 0)).any()
    assert all(ndimage.label(regions == i)[1] == 1 for i in range(1, count + 1))
    # A line is thin: its pixels have a region beside them, but for crossings and pockets of lines.
    lines = regions == 0
    assert (lines & ~ndimage.binary_dilation(regions > 0)).sum() <= 0.05 * lines.sum()
    assert (regions == flooded(mask)).all()


def flooded(mask):
    """A watershed pixel by pixel, nearest to a cell first and even before odd; a line where a pixel meets two regions."""
    labels = ndimage.label(mask)[0]
    height, width = mask.shape
    seen = mask.copy()
    queue = [(0, 0, row, column) for row, column in zip(*np.nonzero(mask), strict=True)]
    while queue:
        distance, _, row, column = heapq.heappop(queue)
        beside = [(row + a, column + b) for a, b in ((-1, 0), (0, -1), (0, 1), (1, 0))]
        beside = [(a, b) for a, b in beside if 0 <= a < height and 0 <= b < width]
        if not mask[row, column]:
            regions = {int(labels[p]) for p in beside} - {0}
            if len(regions) > 1:
                continue
            labels[row, column] = regions.pop()
        for a, b in beside:
            if not seen[a, b]:
                seen[a, b] = True
                heapq.heappush(queue, (distance + 1, (a + b) % 2, a, b))
    return labels


@pytest.mark.parametrize("smoothness", [1.5, 3])
@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.55])
def test_watershed_scores_as_scikit_images(smoothness, threshold):
    """They choose another pixel of even gaps, and theirs puts stray pixels on crossings of lines."""
    truth = stacks.segments(field(1, (128, 128), 3) > 0.45)
    mask = (0.8 * field(1, (128, 128), 3) + 0.2 * field(2, (128, 128), smoothness)) > threshold
    cells = ndimage.label(mask)[0]
    theirs = rand_and_info.overlaps(truth, watershed(~mask, cells, connectivity=1, watershed_line=True))
    ours = rand_and_info.overlaps(truth, rand_and_info.thinned_segments(mask))
    assert rand_and_info.rand_scores(ours) == pytest.approx(rand_and_info.rand_scores(theirs), abs=3e-3)
    assert rand_and_info.info_scores(ours) == pytest.approx(rand_and_info.info_scores(theirs), abs=3e-3)


def test_membrane_alone_and_cell_alone_are_one_basin():
    assert (rand_and_info.thinned_segments(np.zeros((4, 5), bool)) == 1).all()
    assert (rand_and_info.thinned_segments(np.ones((4, 5), bool)) == 1).all()


# Rand and information scores of two label images


def brute_rand(truth, found):
    """Pairs counted one by one; an unassigned pixel has no partner but itself."""
    pixels = [(t, s if s else -1 - i) for i, (t, s) in enumerate(zip(truth.flat, found.flat, strict=True)) if t]
    both = sum(a == b for a in pixels for b in pixels)
    same_truth = sum(a[0] == b[0] for a in pixels for b in pixels)
    same_found = sum(a[1] == b[1] for a in pixels for b in pixels)
    return both, same_truth, same_found


def brute_information(truth, found):
    pixels = [(t, s if s else -1 - i) for i, (t, s) in enumerate(zip(truth.flat, found.flat, strict=True)) if t]

    def entropy(items):
        return -sum(k / len(pixels) * log(k / len(pixels)) for k in Counter(items).values())

    of_truth, of_found = entropy(t for t, _ in pixels), entropy(s for _, s in pixels)
    shared = of_truth + of_found - entropy(pixels)
    if not of_truth or not of_found:
        return 0, 0, 0
    return shared / of_truth, shared / of_found, 2 * shared / (of_truth + of_found)


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_explicit_loops(seed):
    truth, found = random_labels(seed)
    table = rand_and_info.overlaps(truth, found)
    both, same_truth, same_found = brute_rand(truth, found)
    assert tuple(rand_and_info.pair_counts(table)) == (both, same_truth, same_found)
    precision, recall = both / same_found, both / same_truth
    assert rand_and_info.rand_scores(table) == pytest.approx(
        (precision, recall, 2 * precision * recall / (precision + recall))
    )
    assert rand_and_info.info_scores(table) == pytest.approx(brute_information(truth, found))


@pytest.mark.parametrize("seed", range(4))
def test_scores_agree_with_scikit_image(seed):
    truth, found = random_labels(seed, (30, 31))
    table = rand_and_info.overlaps(truth, found)
    alone = found.copy()
    lost = (truth > 0) & (found == 0)
    alone[lost] = 100 + np.arange(lost.sum())
    n = (truth > 0).sum()
    # scikit-image leaves out the pairs of a pixel with itself.
    both, same_truth, same_found = (count - n for count in rand_and_info.pair_counts(table))
    ours = (1 - 2 * both / (same_truth + same_found), both / same_truth, both / same_found)
    # Its second value, called precision, is over the pairs of the true image.
    assert ours == pytest.approx(adapted_rand_error(truth, alone, ignore_labels=(0,)))
    inside = truth > 0
    missing = np.array(variation_of_information(truth[inside], alone[inside])) * log(
        2
    )  # H(found|truth), H(truth|found)
    of_truth = -sum(k / n * log(k / n) for k in Counter(truth[inside].tolist()).values())
    shared = of_truth - missing[1]
    merge, split, f = rand_and_info.info_scores(table)
    assert merge == pytest.approx(shared / of_truth)
    assert split == pytest.approx(shared / (shared + missing[0]))
    assert f == pytest.approx(2 * shared / (of_truth + shared + missing[0]))


def test_a_segment_cut_in_two():
    """t = (1/2, 1/2), s = (1/2, 1/4, 1/4): A = 1/2, B = AB = 3/8; H(T) = I = ln 2, H(S) = 3/2 ln 2."""
    table = rand_and_info.overlaps(np.array([[1, 1, 1, 1, 2, 2, 2, 2]]), np.array([[1, 1, 1, 1, 2, 2, 3, 3]]))
    assert rand_and_info.rand_scores(table) == pytest.approx((1, 0.75, 0.857142857))
    assert rand_and_info.info_scores(table) == pytest.approx((1, 2 / 3, 0.8))


def test_a_pixel_lost_to_a_line():
    """A = 1, B = AB = (3/4)² + (1/4)/4 = 0.625; one true segment carries no information."""
    table = rand_and_info.overlaps(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 1, 0]]))
    assert rand_and_info.rand_scores(table) == pytest.approx((1, 0.625, 0.769230769))
    assert tuple(rand_and_info.info_scores(table)) == (0, 1, 0)


def test_two_segments_merged():
    """A = 1/2, B = 1, AB = 1/2; one found segment carries no information."""
    table = rand_and_info.overlaps(np.array([[1, 1, 2, 2]]), np.array([[5, 5, 5, 5]]))
    assert rand_and_info.rand_scores(table) == pytest.approx((0.5, 1, 2 / 3))
    assert tuple(rand_and_info.info_scores(table)) == (1, 0, 0)


def test_membrane_of_the_truth_is_not_scored():
    truth = np.array([[1, 1, 0, 0, 2, 2]])
    for found in ([[1, 1, 0, 0, 2, 2]], [[3, 3, 3, 2, 2, 2]], [[1, 1, 7, 8, 2, 2]]):
        table = rand_and_info.overlaps(truth, np.array(found))
        assert rand_and_info.rand_scores(table) == pytest.approx((1, 1, 1))
        assert rand_and_info.info_scores(table) == pytest.approx((1, 1, 1))


def test_numbers_of_labels_do_not_matter():
    truth, found = random_labels(9)
    renamed_truth = np.array([0, 70, 3, 12, 5])[truth]
    renamed_found = np.array([0, 2, 900, 1, 4, 31])[found]
    one, other = rand_and_info.overlaps(truth, found), rand_and_info.overlaps(renamed_truth, renamed_found)
    assert rand_and_info.rand_scores(one) == pytest.approx(rand_and_info.rand_scores(other))
    assert rand_and_info.info_scores(one) == pytest.approx(rand_and_info.info_scores(other))


def test_overlaps_refuse_what_cannot_be_compared():
    with pytest.raises(ValueError, match="one shape"):
        rand_and_info.overlaps(np.ones((2, 3), int), np.ones((3, 2), int))
    with pytest.raises(ValueError, match="leave the slice out"):
        rand_and_info.overlaps(np.zeros((2, 3), int), np.ones((2, 3), int))


# Sweeps over slices and thresholds

# Two cells parted by a line of one pixel, and the same merged.
TWO = picture("###.###", "###.###", "###.###")
ONE = picture("#######", "#######", "#######")


def v_rand(*stacks_and_thresholds):
    return rand_and_info.v_rand_and_v_info(*stacks_and_thresholds)[0]


def v_info(*stacks_and_thresholds):
    return rand_and_info.v_rand_and_v_info(*stacks_and_thresholds)[1]


def best_of(metric, curve):
    """The value that EMScores reports of a curve."""
    return curve.max() if metric in (v_rand, v_info) else curve.min()


SWEEPS = [v_rand, v_info, rand_and_info.rand_error, overlap.pixel_error, warping.warping_error]


def test_thresholds_are_the_challenges():
    assert stacks.THRESHOLDS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert stacks.THRESHOLDS[:-1] == warping.WARPING_THRESHOLDS


@pytest.mark.parametrize("metric", SWEEPS)
@pytest.mark.parametrize("scale", [1, 255])
def test_a_perfect_proposal(metric, scale):
    truths = np.stack([TWO, picture("#.#####", "#.#####", "#.....#")])
    curve = metric(truths * np.uint8(scale), truths.astype(np.float32))
    best = 1 if metric in (v_rand, v_info) else 0
    assert best_of(metric, curve) == pytest.approx(best, abs=1e-12)
    assert curve[:10] == pytest.approx([best] * 10, abs=1e-12)


def test_an_empty_proposal():
    """Below all thresholds: one watershed basin, or nothing but unassigned pixels; n = 18 pixels in two cells."""
    truths, proposals = TWO[None], np.zeros((1, 3, 7))
    assert v_rand(truths, proposals).max() == pytest.approx(2 / 3)  # AB = A = 1/2, B = 1
    assert v_info(truths, proposals).max() == 0
    # AB = B = 1/18, A = 1/2: f = 2/18 / (1/18 + 1/2) = 0.2.
    assert rand_and_info.rand_error(truths, proposals).min() == pytest.approx(0.8)
    assert overlap.pixel_error(truths, proposals).min() == 1
    # Each cell can shrink to a pixel, whose loss is a deletion and no split.
    assert warping.warping_error(truths, proposals).min() == 0


def test_a_full_proposal():
    truths, proposals = TWO[None], np.ones((1, 3, 7))
    assert v_rand(truths, proposals).max() == pytest.approx(2 / 3)
    assert v_info(truths, proposals).max() == 0
    assert rand_and_info.rand_error(truths, proposals).min() == pytest.approx(1 / 3)
    assert overlap.pixel_error(truths, proposals).min() == pytest.approx(1 - 36 / 39)
    assert warping.warping_error(truths, proposals).min() == pytest.approx(3 / 21)  # the line of three pixels


@pytest.mark.parametrize("metric", SWEEPS)
def test_the_best_threshold_is_found(metric):
    """The line is 0.35, the cells 0.75: above 0.3 and not above 0.7 the proposal is perfect."""
    curve = metric(TWO[None], np.where(TWO, 0.75, 0.35)[None])
    perfect = 1 if metric in (v_rand, v_info) else 0
    right = [0.4, 0.5, 0.6, 0.7]
    assert best_of(metric, curve) == pytest.approx(perfect, abs=1e-12)
    thresholds = stacks.THRESHOLDS[: len(curve)]
    assert [t for t, v in zip(thresholds, curve, strict=True) if abs(v - perfect) < 1e-9][:4] == right
    assert all(abs(v - perfect) > 1e-9 for t, v in zip(thresholds, curve, strict=True) if t < 0.4)


def test_a_slice_of_one_grey_value_scores_as_an_empty_proposal():
    """Of the grey images the first is the truth, and the second, which is blank, has 2/3 as an empty proposal has."""
    scores, truths = EMScores(), torch.from_numpy(np.stack([TWO, TWO])).long()
    images = torch.stack([truths[0] * 0.7 - 1, torch.full((3, 7), 0.3)])[:, None]
    scores.update(images, torch.stack([1 - truths, truths], dim=1) * 100.0, truths, None)
    values = scores.compute()
    assert values["threshold_v_rand"].item() == pytest.approx((1 + 2 / 3) / 2) and values["v_rand"].item() == 1


def test_a_stack_has_the_best_value_of_each_sweep_under_its_name():
    truths = np.stack([field(seed) > 0.4 for seed in (0, 1)])
    proposals = np.clip([0.6 * field(seed) + 0.4 * field(seed + 50) for seed in (0, 1)], 0.02, 0.98)
    greys = np.stack([field(seed + 80) for seed in (0, 1)])
    logit = torch.from_numpy(np.log(proposals / (1 - proposals)))
    scores = EMScores()
    for row in (0, 1):  # their difference alone is the proposal's logit
        scores.update(
            torch.from_numpy(3 * greys[row : row + 1, None] - 1),
            torch.stack([logit[row : row + 1] * 2, logit[row : row + 1] * 3], dim=1),
            torch.from_numpy(truths[row : row + 1]).long(),
            None,
        )
    expected = {
        "v_rand": max(v_rand(truths, proposals)),
        "v_info": max(v_info(truths, proposals)),
        "rand_error": min(rand_and_info.rand_error(truths, proposals)),
        "pixel_error": min(overlap.pixel_error(truths, proposals)),
        "warping_error": min(warping.warping_error(truths, proposals)),
        "threshold_v_rand": max(v_rand(truths, greys)),
    }
    assert len({round(float(value), 6) for value in expected.values()}) == 6  # else a name could be another's
    assert {name: float(value) for name, value in scores.compute().items()} == pytest.approx(expected, abs=1e-9)


def test_above_a_threshold_is_strictly_above():
    for dtype in (np.float32, np.float64):
        half = np.full((1, 3, 7), 0.3, dtype=dtype)
        assert overlap.pixel_error(ONE[None], half, (0.2, 0.3)).tolist() == [0, 1]


def test_v_rand_averages_slices_and_rand_error_sums_pairs():
    """First slice merged, n = 4; second perfect, with a cell of 4 and one of 12 pixels."""
    small = np.pad(picture("##.##"), ((0, 3), (0, 12)))
    large = np.pad(picture("####.############"), ((0, 3), (0, 0)))
    truths = np.stack([small, large])
    proposals = truths.astype(float)
    proposals[0, 0, 2] = 1
    macro = v_rand(truths, proposals, (0.5,))
    assert macro.max() == pytest.approx((2 / 3 + 1) / 2)
    # Pairs: 8 and 160 in both, 8 and 160 in the truth, 16 and 160 found.
    assert rand_and_info.rand_error(truths, proposals, (0.5,)).min() == pytest.approx(1 - 2 * 168 / (168 + 176))
    assert v_info(truths, proposals, (0.5,)).max() == pytest.approx(0.5)
    # 20 cell pixels, all found, and one more.
    assert overlap.pixel_error(truths, proposals, (0.5,)).min() == pytest.approx(1 - 40 / 41)
    assert warping.warping_error(truths, proposals, (0.5,)).min() == pytest.approx(1 / truths.size)


@pytest.mark.parametrize("seed", range(3))
def test_sweeps_equal_loops_over_their_definition(seed):
    truths = np.stack([field(10 * seed + i) > 0.4 for i in range(2)])
    proposals = np.clip(np.stack([field(10 * seed + i) + 0.3 * field(100 + i) - 0.2 for i in range(2)]), 0, 1)
    rand, info, error, pixels = [], [], [], []
    for threshold in stacks.THRESHOLDS:
        cut = proposals > threshold
        thin = [(ndimage.label(g)[0], rand_and_info.thinned_segments(p)) for g, p in zip(truths, cut, strict=True)]
        counts = [brute_rand(*pair) for pair in thin]
        rand.append(np.mean([2 * ab / (a + b) for ab, a, b in counts]))
        info.append(np.mean([brute_information(*pair)[2] for pair in thin]))
        plain = [brute_rand(ndimage.label(g)[0], ndimage.label(p)[0]) for g, p in zip(truths, cut, strict=True)]
        ab, a, b = np.sum(plain, axis=0)
        error.append(1 - 2 * ab / (a + b))
        pixels.append(1 - float(binary_f1_score(torch.tensor(cut), torch.tensor(truths))))
    for metric, curve in (
        (v_rand, rand),
        (v_info, info),
        (rand_and_info.rand_error, error),
        (overlap.pixel_error, pixels),
    ):
        assert metric(truths, proposals) == pytest.approx(np.array(curve), abs=1e-6)


@pytest.mark.parametrize("metric", SWEEPS)
def test_sweeps_refuse_what_they_cannot_score(metric):
    truths = TWO[None]
    with pytest.raises(ValueError, match="one shape"):
        metric(truths, np.ones((2, 3, 7)))
    with pytest.raises(ValueError, match="one shape"):
        metric(TWO, TWO.astype(float))
    with pytest.raises(ValueError, match="divide grey values by 255"):
        metric(truths, truths * 255.0)
    with pytest.raises(ValueError, match="probabilities"):
        metric(truths, np.full(truths.shape, np.nan))
    if metric is not warping.warping_error:
        with pytest.raises(ValueError, match="without any cell"):
            metric(np.zeros_like(truths), truths.astype(float))


# Warping


def components(mask):
    """4-connected objects, and 8-connected background with all that is outside."""
    framed = np.pad(mask, 1)
    return ndimage.label(framed)[1], ndimage.label(~framed, EIGHT)[1]


def is_simple(mask, row, column):
    """A flip that keeps both counts keeps the topology, since the two cannot change by the same number otherwise."""
    flipped = mask.copy()
    flipped[row, column] ^= True
    return components(mask) == components(flipped)


def test_simple_points_keep_the_number_of_components():
    table = warping.simple_points()
    for state, centre in itertools.product(range(256), (False, True)):
        patch = np.zeros((3, 3), bool)
        patch[1, 1] = centre
        for bit, (row, column) in enumerate(warping.RING):
            patch[1 + row, 1 + column] = state >> bit & 1
        assert table[state] == is_simple(patch, 1, 1)
    assert len(table) == 256


@pytest.mark.parametrize("seed", range(3))
def test_simple_points_inside_larger_images(seed):
    mask = field(seed, (12, 13), 0.7) > 0.5
    table = warping.simple_points()
    framed = np.pad(mask, 1)
    for row, column in itertools.product(range(12), range(13)):
        state = sum(int(framed[1 + row + a, 1 + column + b]) << bit for bit, (a, b) in enumerate(warping.RING))
        assert table[state] == is_simple(mask, row, column)


def brute_warp(truth, proposal, threshold):
    warped, target = truth.copy(), proposal > threshold
    while True:
        wrong = [(r, c) for c in range(truth.shape[1]) for r in range(truth.shape[0]) if warped[r, c] != target[r, c]]
        changed = False
        for row, column in sorted(wrong, key=lambda p: -abs(proposal[p] - threshold)):
            if is_simple(warped, row, column):
                warped[row, column] ^= True
                changed = True
        if not changed:
            return warped


def brute_errors(warped, target):
    """(splits, merges) of an image so small that the window holds all of it."""
    splits = merges = 0
    framed = np.pad(warped, 1)
    for row, column in zip(*np.nonzero(warped != target), strict=True):
        ring = np.ones((3, 3), bool)
        ring[1, 1] = False
        near = (slice(row, row + 3), slice(column, column + 3))
        objects = set(ndimage.label(framed)[0][near][ring].tolist()) - {0}
        without = framed.copy()
        without[row + 1, column + 1] = False
        pieces = set(ndimage.label(without)[0][near][ring].tolist()) - {0}
        if len(objects) >= 2:
            splits, merges = splits + bool(warped[row, column]), merges + (not warped[row, column])
        elif len(objects) == 1 and warped[row, column] and len(pieces) >= 2:
            splits += 1
    return splits, merges


@pytest.mark.parametrize("seed", range(15))
def test_warp_equals_flipping_one_pixel_after_the_other(seed):
    smoothness = (0.5, 0.8, 1.2)[seed % 3]
    truth = field(seed, (14, 13), smoothness) > 0.5
    # Rounded, so that there are ties in the order.
    proposal = np.round(
        0.4 * field(seed, (14, 13), smoothness) + 0.6 * field(seed + 99, (14, 13), smoothness), 1 + seed % 2
    )
    for threshold in (0.25, 0.45, 0.6):
        warped = warping.warp(truth, proposal, threshold)
        target = proposal > threshold
        assert (warped == brute_warp(truth, proposal, threshold)).all()
        assert components(warped) == components(truth)
        assert (warped[truth == target] == truth[truth == target]).all()
        assert warping.split_and_merge_pixels(truth, proposal, threshold) == brute_errors(warped, target)


def test_random_warps_meet_every_kind_of_error():
    """Else the comparison above would say little."""
    found = set()
    for seed in range(15):
        truth = field(seed, (14, 13), 0.8) > 0.5
        splits, merges = warping.split_and_merge_pixels(truth, field(seed + 99, (14, 13), 0.8), 0.5)
        found |= {"split"} if splits else set()
        found |= {"merge"} if merges else set()
    assert found == {"split", "merge"}


@pytest.mark.parametrize(
    ("truth", "proposal", "expected"),
    [
        # A hole of one pixel in the line merges.
        (("###.###", "###.###", "###.###"), ("###.###", "#######", "###.###"), (0, 1)),
        # Of a cut of three pixels two can be warped; the last breaks the cell.
        ((".......", *3 * [".#####."], "......."), (".......", *3 * [".##.##."], "......."), (1, 0)),
        # A shifted line, a lost cell, a new cell, a filled hole and a new hole are no splits and no merges.
        (("###.###", "###.###"), ("##.####", "##.####"), (0, 0)),
        (("###.###", "###.###"), ("###....", "###...."), (0, 0)),
        ((".......", ".......", "......."), (".......", "...#...", "......."), (0, 0)),
        (("#####", "##.##", "#####"), ("#####", "#####", "#####"), (0, 0)),
        (("#####", "#####", "#####"), ("#####", "##.##", "#####"), (0, 0)),
        # The same line thickened or thinned.
        (("##..##", "##..##"), ("##.###", "##.###"), (0, 0)),
        (("##.###", "##.###"), ("#...##", "#...##"), (0, 0)),
    ],
)  # fmt: skip
def test_splits_and_merges_of_small_pictures(truth, proposal, expected):
    assert warping.split_and_merge_pixels(picture(*truth), picture(*proposal).astype(float), 0.5) == expected


@pytest.mark.parametrize(("side", "splits"), [(15, 0), (60, 1)])
def test_a_broken_ring_is_a_split_if_the_window_does_not_see_it_whole(side, splits):
    truth = np.ones((side, side), bool)
    truth[3:-3, 3:-3] = False
    cut = truth.astype(float)
    cut[side // 2, :3] = 0
    assert warping.split_and_merge_pixels(truth, cut, 0.5) == (splits, 0)


def test_the_surest_pixel_is_warped_first():
    """Either of two pixels may be kept to hold the cell together: it is the one nearer to the threshold."""
    truth = picture(".....", ".###.", ".....")
    proposal = truth.astype(float)
    for sure, unsure in ((1, 3), (3, 1)):
        cut = proposal.copy()
        cut[1, 1:4] = 0.1
        cut[1, sure], cut[1, unsure] = 0.0, 0.4
        warped = warping.warp(truth, cut, 0.5)
        assert warped.sum() == 1 and warped[1, unsure]


# SEG


def brute_seg(truths, results):
    scores = []
    for truth, result in zip(truths, results, strict=True):
        for i in set(truth.flat) - {0}:
            score = 0.0
            for j in set(result.flat) - {0}:
                both = ((truth == i) & (result == j)).sum()
                if both > 0.5 * (truth == i).sum():
                    score = both / ((truth == i) | (result == j)).sum()
            scores.append(score)
    return np.mean(scores)


@pytest.mark.parametrize("seed", range(4))
def test_seg_equals_loops(seed):
    rng = np.random.default_rng(seed)
    truths = np.stack([ndimage.label(field(10 * seed + i, (20, 21)) > 0.6)[0] for i in range(3)])
    results = np.stack([ndimage.label(field(10 * seed + i, (20, 21)) > 0.52 + 0.03 * i)[0] for i in range(3)])
    truths[2] = 0  # a frame without objects counts nothing
    assert 0 < overlap.seg(truths, results) == pytest.approx(brute_seg(truths, results))
    renamed = np.concatenate([[0], 1 + rng.permutation(500)])
    assert overlap.seg(renamed[truths], renamed[results]) == pytest.approx(overlap.seg(truths, results))
    assert overlap.seg(truths, truths) == 1
    assert overlap.seg(truths, np.zeros_like(truths)) == 0


def test_seg_of_small_objects():
    truths = np.array([[[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]], [[0, 0, 0, 0, 0, 0, 0, 4, 4, 4]]])
    results = np.array([[[7, 7, 7, 0, 0, 2, 0, 5, 5, 5]], [[9, 9, 0, 0, 1, 1, 1, 1, 1, 1]]])
    # 3/4; exactly half is not held; 2/3; 3/6; the object 9 costs nothing.
    assert overlap.seg(truths, results) == pytest.approx((3 / 4 + 0 + 2 / 3 + 1 / 2) / 4)


def test_seg_refuses_what_cannot_be_scored():
    with pytest.raises(ValueError, match="without any object"):
        overlap.seg(np.zeros((1, 2, 2), int), np.ones((1, 2, 2), int))
    with pytest.raises(ValueError, match="one shape"):
        overlap.seg(np.ones((1, 2, 2), int), np.ones((1, 2, 3), int))


# IoU and Dice


def test_dice_of_small_masks():
    truths = np.array([[[1, 1, 1, 0]], [[0, 0, 0, 1]], [[0, 0, 0, 0]]])
    masks = np.array([[[0, 1, 1, 1]], [[1, 1, 1, 0]], [[0, 0, 0, 0]]]) * 255
    assert overlap.pooled_dice(truths, masks) == pytest.approx(4 / 10)


@pytest.mark.parametrize("seed", range(3))
def test_dice_agrees_with_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    truths, masks = rng.random((2, 4, 8, 9)) < rng.random((2, 4, 1, 1))
    target, found = torch.tensor(truths).int(), torch.tensor(masks).int()
    assert overlap.pooled_dice(truths, masks) == pytest.approx(float(binary_f1_score(found, target)), abs=1e-6)


def test_dice_of_perfect_and_empty_masks():
    truths = np.stack([TWO, ONE])
    assert overlap.pooled_dice(truths, truths) == 1
    assert overlap.pooled_dice(truths, np.zeros_like(truths)) == 0
    with pytest.raises(ValueError, match="one shape"):
        overlap.pooled_dice(TWO, TWO)


def test_dice_needs_foreground():
    empty = np.zeros((2, 3, 3))
    with pytest.raises(ValueError, match="without any foreground"):
        overlap.pooled_dice(empty, empty)
