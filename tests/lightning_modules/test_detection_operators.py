"""Boxes, NMS, RoIAlign and masks against their definitions, written as plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.nets.boxes import clip, decode, encode, iou, nms
from lightning_modules.nets.heads import RegionPooling, mask_targets, paste_mask
from lightning_modules.nets.roi_align import roi_align
from lightning_modules.nets.sampling import sample

pytestmark = pytest.mark.usefixtures("one_thread")


def random_boxes(count: int, side: float, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    corners = torch.rand(count, 4, generator=generator, dtype=torch.float64) * side
    return torch.cat([corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])], dim=1).to(dtype)


def loop_iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    return inside / union if union else 0.0


def loop_nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor) -> list[int]:
    overlaps, groups, scores = iou(boxes, boxes).numpy(), groups.numpy(), scores.numpy()  # type: ignore[assignment]
    left = sorted(range(len(boxes)), key=lambda row: -scores[row])
    kept: list[int] = []
    while left:
        best, *left = left
        kept.append(best)
        left = [row for row in left if groups[row] != groups[best] or overlaps[row, best] <= threshold]
    return kept


def loop_roi_align(
    features: np.ndarray, box: list[float], stride: int, size: int, samples: int, half_pixel: bool
) -> np.ndarray:
    """RoIAlign of one region by its definition: features [C, H, W] to [C, size, size]."""
    channels, height, width = features.shape
    offset = 0.5 if half_pixel else 0.0
    x0, y0, x1, y1 = (side / stride - offset for side in box)
    if not half_pixel:
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    pooled = np.zeros((channels, size, size))
    for row in range(size):
        for column in range(size):
            for i in range(samples):
                for j in range(samples):
                    y = y0 + (y1 - y0) * (row + (i + 0.5) / samples) / size
                    x = x0 + (x1 - x0) * (column + (j + 0.5) / samples) / size
                    if not (-1 <= y <= height and -1 <= x <= width):
                        continue
                    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                    top, left = math.floor(y), math.floor(x)
                    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                    dy, dx = y - top, x - left
                    pooled[:, row, column] += (
                        features[:, top, left] * (1 - dy) * (1 - dx) + features[:, top, right] * (1 - dy) * dx
                        + features[:, bottom, left] * dy * (1 - dx) + features[:, bottom, right] * dy * dx
                    )  # fmt: skip
    return pooled / samples**2


def test_overlap_is_that_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    a, b = random_boxes(20, 30, generator, torch.float64), random_boxes(30, 30, generator, torch.float64)
    a[0, 2:] = a[0, :2]  # of no area
    expected = [[loop_iou(first, second) for second in b.tolist()] for first in a.tolist()]
    assert torch.allclose(iou(a, b), torch.tensor(expected, dtype=torch.float64), atol=1e-14)
    assert iou(a[:0], b).shape == (0, 30) and iou(a, b[:0]).shape == (20, 0)
    assert float(iou(a[:1], a[:1])) == 0  # of two boxes of no area


def test_coding_is_that_of_the_paper_and_decoding_its_inverse():
    """Girshick et al. 2014, appendix C: t_x = (G_x - P_x) / P_w, t_w = log(G_w / P_w)."""
    proposal, box = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[14.0, 20.0, 54.0, 40.0]])
    expected = [(34 - 20) / 20, (30 - 40) / 40, math.log(40 / 20), math.log(20 / 40)]
    assert torch.allclose(encode(box, proposal, (1, 1, 1, 1)), torch.tensor([expected]))
    weights = (10.0, 10.0, 5.0, 5.0)
    assert torch.allclose(encode(box, proposal, weights)[0], torch.tensor(expected) * torch.tensor(weights))
    generator = torch.Generator().manual_seed(0)
    boxes, references = (random_boxes(100, 90, generator, torch.float64) + torch.tensor([0.0, 0, 9, 9]) for _ in "ab")
    assert torch.allclose(decode(encode(boxes, references, weights), references, weights), boxes, atol=1e-9)
    far = decode(torch.tensor([[0.0, 0, 1e9, 1e9]]), references[:1].float(), weights)
    assert far.isfinite().all()
    assert clip(torch.tensor([[-3.0, 4, 50, 60]]), 20, 40).tolist() == [[0, 4, 40, 20]]


@pytest.mark.parametrize("count", [0, 1, 7, 150])
@pytest.mark.parametrize("ties", [False, True])
def test_nms_keeps_what_the_greedy_rule_keeps(count, ties):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        boxes, scores = random_boxes(count, 100, generator), torch.rand(count, generator=generator)
        groups = torch.randint(3, (count,), generator=generator)
        if ties:  # equal boxes and equal scores
            boxes, scores = (boxes / 10).round() * 10, (scores * 5).round()
        for threshold in (0.3, 0.7):
            for of in (groups, torch.zeros_like(groups)):
                expected = loop_nms(boxes, scores, threshold, of)
                assert nms(boxes, scores, threshold, of, block=32).tolist() == expected
                assert nms(boxes, scores, threshold, of, most=40, block=32).tolist() == expected[:40]
        assert nms(boxes, scores, 0.5).tolist() == loop_nms(boxes, scores, 0.5, torch.zeros_like(groups))


def test_nms_solves_a_chain_that_spans_a_whole_block():
    """Each box overlaps its neighbour alone: every second one stays, and that is known only after as many rounds as boxes."""
    starts = torch.arange(100.0) * 4
    boxes = torch.stack([starts, torch.zeros(100), starts + 10, torch.ones(100)], dim=1)
    assert nms(boxes, torch.arange(100, 0, -1.0), 0.4).tolist() == list(range(0, 100, 2))


@pytest.mark.parametrize("half_pixel", [True, False])
@pytest.mark.parametrize(("size", "samples"), [(4, 2), (5, 1), (2, 3)])
def test_roi_align_is_its_definition_on_every_level_with_its_gradients(half_pixel, size, samples):
    generator = torch.Generator().manual_seed(size)
    shapes, strides = ((2, 3, 9, 12), (2, 3, 5, 6)), (4, 8)
    features = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    inside = random_boxes(4, 35, generator, torch.float64)
    boxes = torch.cat(
        [inside, inside + 22, inside - 30, inside[:1, [0, 1, 0, 1]], inside[:1] * 9]
    )  # outside, of no area, large
    images, levels = (torch.randint(2, (len(boxes),), generator=generator) for _ in "ab")
    pooled = roi_align(features, strides, boxes, images, levels, size, samples, half_pixel)
    expected = np.stack([
        loop_roi_align(features[level][image].detach().numpy(), box, strides[level], size, samples, half_pixel)
        for box, image, level in zip(boxes.tolist(), images.tolist(), levels.tolist(), strict=True)
    ])  # fmt: skip
    assert np.abs(pooled.detach().numpy() - expected).max() < 1e-12

    # It is linear in the features, so a gradient is checked exactly by <J v, w> = <v, J^T w>.
    output = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(pooled, features, output)
    for level, gradient in enumerate(gradients):
        for place in ((0, 0, 0, 0), (1, 2, 4, 5)):
            unit = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
            unit[level][place] = 1
            moved = np.stack([
                loop_roi_align(unit[of][image].numpy(), box, strides[of], size, samples, half_pixel)
                for box, image, of in zip(boxes.tolist(), images.tolist(), levels.tolist(), strict=True)
            ])  # fmt: skip
            assert float(gradient[place]) == pytest.approx(float((moved * output.numpy()).sum()), abs=1e-11)


def test_roi_align_of_no_region():
    feature = torch.randn(1, 3, 4, 4, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    pooled = roi_align([feature], [4], torch.zeros(0, 4), nothing, nothing, 7)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert feature.grad is not None and not feature.grad.any()


def test_roi_align_moves_with_the_image():
    """A map shifted by a cell and a box shifted by the stride give the same features."""
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(1, 2, 12, 12, generator=generator, dtype=torch.float64)
    box = torch.tensor([[9.3, 10.1, 30.7, 27.2]], dtype=torch.float64)
    row = torch.zeros(1, dtype=torch.int64)
    here = roi_align([feature], [4], box, row, row, 7)
    there = roi_align([feature.roll(2, -1)], [4], box + torch.tensor([8.0, 0, 8, 0]), row, row, 7)
    assert torch.allclose(here, there, atol=1e-12)


def test_a_region_is_cut_from_the_level_of_its_size():
    """Lin et al. 2017, Equation 1: a region of 224 from P4, of 112 from P3; the ends take what is beyond them."""
    pooling = RegionPooling([4, 8, 16, 32], 224, half_pixel=True)
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert (pooling.levels(boxes) + 2).tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    assert RegionPooling([16], 224, half_pixel=True).levels(boxes).tolist() == [0] * 8


def test_a_mask_cut_and_pasted_is_the_mask():
    """28 x 28 values of an ellipse and of a rectangle, cut from the bitmap and pasted back, cover it (IoU above 0.95)."""
    y, x = torch.meshgrid(torch.arange(120) + 0.5, torch.arange(150) + 0.5, indexing="ij")
    ellipse = ((x - 70) / 52) ** 2 + ((y - 55) / 41) ** 2 <= 1
    rectangle = (x > 100) & (x < 141) & (y > 30) & (y < 100)
    masks = torch.stack([ellipse, rectangle])
    boxes = torch.tensor([[18.0, 14, 122, 96], [100, 30, 141, 100]])
    cut = mask_targets(masks, boxes, torch.tensor([0, 1]), 28)
    assert cut.shape == (2, 28, 28) and set(cut.unique().tolist()) == {0, 1}
    for mask, values, box in zip(masks, cut, boxes, strict=True):
        pasted = paste_mask(values, box, 120, 150)
        assert float((pasted & mask).sum() / (pasted | mask).sum()) > 0.95
    assert mask_targets(masks, boxes[:0], torch.zeros(0, dtype=torch.int64), 28).shape == (0, 28, 28)


def overlaps(start: float, stop: float, bins: int, pixels: int) -> np.ndarray:
    """How much of each pixel lies in each bin, [bins, pixels]."""
    edges, left = np.linspace(start, stop, bins + 1)[:, None], np.arange(pixels)
    return (np.minimum(edges[1:], left + 1) - np.maximum(edges[:-1], left)).clip(0)


@pytest.mark.parametrize("side", [3, 24, 448])
def test_a_target_is_1_where_half_of_the_bin_is_covered(side):
    """The area of a mask in each bin, pixel by pixel, of boxes around an ellipse and a rectangle, beside them, and out of the
    image."""
    random = np.random.RandomState(side)
    y, x = np.mgrid[: side + 30, : side + 20] + 0.5
    ellipse = ((x - 8 - side / 2) / side) ** 2 + ((y - 14 - side / 2) / side) ** 2 <= 0.25
    rectangle = (abs(x - 8 - side / 2) <= side / 2) & (abs(y - 14 - side / 2) <= side / 3)
    masks = np.stack([ellipse, rectangle])
    tight = np.array([8, 14, 8 + side, 14 + side])
    boxes = np.concatenate([[tight], tight + random.uniform(-0.12, 0.12, (7, 4)) * side, [[-9, -5, side, side + 50]]])
    rows = np.arange(2).repeat(len(boxes))
    boxes = np.tile(boxes, (2, 1)).astype(np.float32)
    targets = mask_targets(torch.tensor(masks), torch.tensor(boxes), torch.tensor(rows), 28).numpy()
    for target, row, (x0, y0, x1, y1) in zip(targets, rows, boxes.astype(float), strict=True):
        by_line, by_column = overlaps(y0, y1, 28, side + 30), overlaps(x0, x1, 28, side + 20)
        share = by_line @ masks[row] @ by_column.T / ((x1 - x0) * (y1 - y0) / 28**2)
        clear = abs(share - 0.5) > 1e-9
        assert clear.mean() > 0.9 and (target == (share >= 0.5))[clear].all()


def test_a_mask_at_the_edge_is_pasted_within_the_image():
    full = torch.ones(28, 28)
    pasted = paste_mask(full, torch.tensor([-5.0, -5, 10, 8]), 20, 30)
    assert pasted[:8, :10].all() and int(pasted.sum()) == 80
    assert not paste_mask(full, torch.tensor([40.0, 2, 50, 9]), 20, 30).any()


def test_a_sample_has_its_shares_and_is_the_generators():
    labels = torch.tensor([0] * 500 + [3] * 40 + [-1] * 100)
    rows = sample(labels, 64, 0.25, torch.Generator().manual_seed(1))
    assert (labels[rows] > 0).tolist() == [True] * 16 + [False] * 48
    assert len(set(rows.tolist())) == 64 and int(labels[rows].min()) == 0
    assert torch.equal(rows, sample(labels, 64, 0.25, torch.Generator().manual_seed(1)))
    assert not torch.equal(rows, sample(labels, 64, 0.25, torch.Generator().manual_seed(2)))
    few = sample(torch.tensor([1, 0, 0, -1]), 64, 0.5, torch.Generator())
    assert sorted(few.tolist()) == [0, 1, 2]
    assert len(sample(labels[:0], 64, 0.5, torch.Generator())) == 0
