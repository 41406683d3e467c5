"""Elastic deformation against scipy and a plain loop, one pixel at a time."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from datamodules.augmentation.elastic import Elastic, ElasticDraws

STILL = {"displacement": 0.0, "rotation": 0.0}


def batch(count: int, height: int, width: int, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random images, masks of three classes and weights."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
    targets = torch.randint(3, (count, height, width), dtype=torch.uint8, generator=generator)
    return images, targets, 10 * torch.rand(count, height, width, generator=generator)


def cubic(offset: float) -> float:
    """Keys's kernel with a = -0.75, the one torch calls bicubic."""
    a, x = -0.75, abs(offset)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def interpolate(values: np.ndarray, row: float, column: float, border: str) -> float:
    """values[row, column] by a bicubic kernel; indices beyond the border are clamped or mirrored."""

    def index(at: int, length: int) -> int:
        if border == "clamp":
            return min(max(at, 0), length - 1)
        at %= 2 * length - 2
        return min(at, 2 * length - 2 - at)

    total = 0.0
    for r in range(math.floor(row) - 1, math.floor(row) + 3):
        for c in range(math.floor(column) - 1, math.floor(column) + 3):
            value = float(values[index(r, values.shape[0]), index(c, values.shape[1])])
            total += value * cubic(row - r) * cubic(column - c)
    return total


def reference_coordinates(draws: ElasticDraws, item: int, tile: tuple[int, int], image: tuple[int, int]) -> np.ndarray:
    """[2, H, W] for a tile as large as the part that must lie in the image, and no larger than the image."""
    vectors = draws.vectors[item].double().numpy()
    angle = float(draws.angle[item])
    start = [
        round((1 + float(place)) / 2 * (full - side))
        for full, side, place in zip(image, tile, draws.place[item], strict=True)
    ]
    result = np.zeros((2, *tile))
    for row in range(tile[0]):
        for column in range(tile[1]):
            middle = (tile[0] - 1) / 2, (tile[1] - 1) / 2
            down, right = row - middle[0], column - middle[1]
            turned = (
                math.cos(angle) * down - math.sin(angle) * right,
                math.sin(angle) * down + math.cos(angle) * right,
            )
            at = 2 * row / (tile[0] - 1), 2 * column / (tile[1] - 1)
            for axis in range(2):
                moved = interpolate(vectors[axis], *at, border="clamp")
                result[axis, row, column] = start[axis] + middle[axis] + turned[axis] + moved
    return result


def test_images_masks_and_weights_match_the_reference():
    images, targets, weights = batch(3, 31, 37, channels=2)
    elastic = Elastic((21, 26), (21, 26), displacement=3.0)
    draws = elastic.draw(seed=1, epoch=2, rows=[0, 5, 6])
    images_, targets_, weights_ = elastic.apply(images, targets, weights, draws)
    assert images_.shape == (3, 2, 21, 26) and images_.dtype == torch.float32
    assert targets_.shape == (3, 21, 26) and targets_.dtype == torch.uint8
    assert weights_.shape == (3, 21, 26) and weights_.dtype == torch.float32
    outside = 0
    for item in range(3):
        row, column = coordinates = reference_coordinates(draws, item, (21, 26), (31, 37))
        outside += int(((row < 0) | (row > 30) | (column < 0) | (column > 36)).sum())
        # scipy's `mirror` is the reflection about the centre of the last pixel.
        expected = ndimage.map_coordinates(weights[item].double().numpy(), coordinates, order=1, mode="mirror")
        np.testing.assert_allclose(weights_[item].numpy(), expected, atol=1e-3)
        expected = ndimage.map_coordinates(targets[item].numpy(), coordinates, order=0, mode="mirror")
        sure = (np.abs(coordinates % 1 - 0.5) > 1e-3).all(axis=0)
        assert sure.mean() > 0.98
        assert np.array_equal(targets_[item].numpy()[sure], expected[sure])
        for channel in range(2):
            for r in range(0, 21, 4):
                for c in range(0, 26, 5):
                    value = interpolate(images[item, channel].numpy(), row[r, c], column[r, c], border="mirror")
                    assert float(images_[item, channel, r, c]) == pytest.approx(min(max(value, 0), 255), abs=0.05)
    assert outside > 20


def test_no_deformation_leaves_things_unchanged():
    images, targets, weights = batch(2, 40, 53)
    elastic = Elastic((40, 53), (40, 53), **STILL)
    moved = elastic.apply(images, targets, weights, elastic.draw(0, 0, [0, 1]))
    torch.testing.assert_close(moved.images, images.float(), atol=0.02, rtol=0)
    assert torch.equal(moved.targets, targets)
    torch.testing.assert_close(moved.weights, weights, atol=1e-3, rtol=0)


def test_a_larger_tile_is_the_mirrored_image_and_its_centre_the_mask():
    images, targets, weights = batch(1, 32, 33)
    elastic = Elastic((52, 53), (32, 33), **STILL)
    moved = elastic.apply(images, targets, weights, elastic.draw(0, 0, [0]))
    expected = np.pad(images[0, 0].numpy(), 10, mode="reflect")
    np.testing.assert_allclose(moved.images[0, 0].numpy(), expected, atol=0.05)
    assert torch.equal(moved.targets, targets)


def test_the_central_part_of_a_valid_network_lies_anywhere_within_the_image():
    elastic = Elastic((30, 30), (10, 10), **STILL)
    height, width = 14, 21
    targets = torch.arange(height * width).remainder(251).to(torch.uint8).view(1, height, width)
    starts = set()
    for row in range(400):
        draws = elastic.draw(0, 0, [row])
        moved = elastic.apply(targets[None], targets, targets.float(), draws)
        top, left = (int(axis[0, 10, 10].round()) for axis in elastic.coordinates(draws, height, width))
        starts.add((top, left))
        assert torch.equal(moved.targets[0], targets[0, top : top + 10, left : left + 10])
        # The image surrounds its mask: 10 pixels of context on each side.
        torch.testing.assert_close(moved.images[0, 0, 10:20, 10:20], moved.targets[0].float(), atol=0.05, rtol=0)
    assert {top for top, _ in starts} == set(range(5))
    assert {left for _, left in starts} == set(range(12))


@pytest.mark.parametrize("height", [10, 11, 12, 13])
def test_a_tile_begins_at_every_row_and_as_often_near_the_first_as_near_the_last(height):
    elastic = Elastic((8, 8), (8, 8), **STILL)
    rows, _ = elastic.coordinates(elastic.draw(0, 0, range(4000)), height, height)
    counts = np.bincount(rows[:, 0, 0].round().int().numpy(), minlength=height - 7)
    assert len(counts) == height - 7
    shares = np.full(height - 7, 1 / (height - 8))  # a place is rounded: of the first and the last row half
    shares[[0, -1]] /= 2
    assert np.abs(counts / 4000 - shares).max() < 4 * math.sqrt(0.25 / 4000)


@pytest.mark.parametrize(("height", "starts"), [(8, range(-3, 4)), (11, range(-3, 7)), (5, range(-5, 2))])
def test_shift_goes_as_far_beyond_both_borders(height, starts):
    """Of an image smaller than the tile the middle is moved, which lies 2 rows further up."""
    elastic = Elastic((8, 8), (8, 8), shift=3, **STILL)
    rows, _ = elastic.coordinates(elastic.draw(0, 0, range(300)), height, height)
    assert set(rows[:, 0, 0].round().int().tolist()) == set(starts)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_is_exact(quarter):
    images, targets, weights = batch(1, 24, 24)
    elastic = Elastic((24, 24), (24, 24), **STILL)
    draws = elastic.draw(0, 0, [0])._replace(angle=torch.tensor([quarter * math.pi / 2]))
    moved = elastic.apply(images, targets, weights, draws)
    # Clockwise: the pixel to the right of the centre comes from below it.
    assert torch.equal(moved.targets, torch.rot90(targets, -quarter, (1, 2)))
    torch.testing.assert_close(moved.images, torch.rot90(images, -quarter, (2, 3)).float(), atol=0.05, rtol=0)


def outlines(masks: np.ndarray) -> np.ndarray:
    """The pixels of [B, H, W] with another value among their 8 neighbours."""
    return ndimage.maximum_filter(masks, (1, 3, 3)) != ndimage.minimum_filter(masks, (1, 3, 3))


def test_an_image_equal_to_its_mask_stays_equal():
    random = np.random.RandomState(0)
    blobs = ndimage.gaussian_filter(random.normal(size=(4, 96, 96)), (0, 5, 5)) > 0
    targets = torch.from_numpy(blobs.astype(np.uint8))
    elastic = Elastic((112, 112), (96, 96), displacement=4.0)
    images_, targets_, weights_ = elastic.apply(
        255 * targets[:, None], targets, targets.float(), elastic.draw(0, 3, range(4))
    )
    inner = (images_[:, 0, 8:-8, 8:-8] > 127.5).byte()
    assert not torch.equal(targets_, targets)
    for other in (inner, (weights_ > 0.5).byte()):
        differs = (other != targets_).numpy()
        assert 0 < differs.mean() < 0.02
        # Smooth and nearest interpolation may disagree at outlines only.
        at_outline = np.logical_or(*(outlines(mask.numpy()) for mask in (targets_, other)))
        assert not (differs & ~at_outline).any()


def test_masks_hold_no_new_class_and_images_stay_in_range():
    targets = torch.zeros(2, 64, 64, dtype=torch.uint8)
    targets[:, 20:40, 10:50] = 7
    elastic = Elastic((64, 64), (64, 64), contrast=0.5, brightness=0.3)
    moved = elastic.apply(36 * targets[:, None], targets, targets.float(), elastic.draw(0, 0, [0, 1]))
    assert set(moved.targets.unique().tolist()) == {0, 7}
    assert moved.images.min() >= 0 and moved.images.max() <= 255


def test_the_field_has_the_drawn_vectors_at_its_nodes_and_is_smooth():
    elastic = Elastic((41, 61), (41, 61), rotation=0)
    draws = elastic.draw(0, 0, [0, 1])
    row, column = elastic.coordinates(draws, 41, 61)
    field = torch.stack([row - torch.arange(41).view(1, 41, 1), column - torch.arange(61).view(1, 1, 61)], dim=1)
    torch.testing.assert_close(field[:, :, ::20, ::30], draws.vectors, atol=1e-4, rtol=0)
    # Second differences of a piecewise cubic over 20 and 30 pixels; linear interpolation would jump at the middle.
    span = float(draws.vectors.max() - draws.vectors.min())
    assert field.diff(n=2, dim=2).abs().max() < 8 * span / 20**2
    assert field.diff(n=2, dim=3).abs().max() < 8 * span / 30**2


def test_the_draws_have_the_stated_distributions():
    elastic = Elastic((32, 32), (32, 32), rotation=90, contrast=0.4, brightness=0.2)
    draws = elastic.draw(0, 0, range(3000))
    vectors = draws.vectors.flatten().numpy()
    # 54,000 normal numbers of standard deviation 10: the standard errors are 0.043 and 0.030.
    assert abs(vectors.mean()) < 0.2
    assert abs(vectors.std() - 10) < 0.15
    assert np.mean(np.abs(vectors) < 10) == pytest.approx(0.6827, abs=0.01)
    for values, most in (
        (draws.angle, math.pi / 2),
        (draws.contrast, 0.4),
        (draws.brightness, 0.2),
        (draws.place[:, 0], 1),
        (draws.place[:, 1], 1),
    ):
        # Uniform: standard deviation most / √3, standard errors of the mean 1 % and of the deviation 1 % of most.
        assert values.abs().max() <= most + 1e-6
        assert abs(float(values.mean())) < 0.05 * most
        assert float(values.std()) == pytest.approx(most / math.sqrt(3), rel=0.05)
    independent = torch.stack([draws.vectors[:, 0, 0, 0], draws.vectors[:, 1, 2, 2], draws.angle, *draws.place.T])
    assert (torch.corrcoef(independent) - torch.eye(5)).abs().max() < 0.1


def test_grey_values_change_as_documented():
    images, targets, weights = batch(2, 16, 16)
    elastic = Elastic((16, 16), (16, 16), **STILL)
    draws = elastic.draw(0, 0, [0, 1])._replace(
        contrast=torch.tensor([0.25, -0.5]), brightness=torch.tensor([0.1, 0.0])
    )
    moved = elastic.apply(images, targets, weights, draws)
    for item, (contrast, brightness) in enumerate([(0.25, 0.1), (-0.5, 0.0)]):
        value = (1 + contrast) * (images[item].double() / 255 - 0.5) + 0.5 + brightness
        torch.testing.assert_close(moved.images[item].double(), 255 * value.clamp(0, 1), atol=0.05, rtol=0)
    assert torch.equal(moved.targets, targets)
    torch.testing.assert_close(moved.weights, weights, atol=1e-3, rtol=0)


def test_what_an_image_gets_depends_on_seed_epoch_and_row_alone():
    images, targets, weights = batch(4, 48, 48)
    elastic = Elastic((56, 56), (40, 40), contrast=0.2, brightness=0.1)
    rows = [9, 2, 40, 7]
    together = elastic.apply(images, targets, weights, elastic.draw(3, 1, rows))
    again = elastic.apply(images, targets, weights, elastic.draw(3, 1, torch.tensor(rows)))
    for one, other in zip(together, again, strict=True):
        assert torch.equal(one, other)
    torch.manual_seed(0)
    for item, row in enumerate(rows):
        part = slice(item, item + 1)
        alone = elastic.apply(images[part], targets[part], weights[part], elastic.draw(3, 1, [row]))
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other[part])
    base = elastic.draw(3, 1, [9]).vectors
    for seed, epoch, row in ((4, 1, 9), (3, 2, 9), (3, 1, 10), (1, 3, 9)):
        assert not torch.equal(elastic.draw(seed, epoch, [row]).vectors, base)


def test_the_callers_tensors_are_left_alone():
    images, targets, weights = batch(1, 16, 16)
    copies = images.clone(), targets.clone(), weights.clone()
    elastic = Elastic((16, 16), (16, 16), contrast=1.0)
    elastic.apply(images, targets, weights, elastic.draw(0, 0, [0]))
    for tensor, copy in zip((images, targets, weights), copies, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": (16, 16), "output_size": (18, 18)}, "at most input_size"),
        ({"input_size": (16, 16), "output_size": (16, 13)}, "even number of pixels smaller"),
        ({"input_size": (16,), "output_size": (16,)}, "a height and a width"),
        ({"displacement": -1.0}, r"displacement must lie in 0\.\.inf, got -1"),
        ({"displacement": float("nan")}, "displacement"),
        ({"shift": -2.0}, "shift"),
        ({"rotation": 270.0}, r"rotation must lie in 0\.\.180, got 270"),
        ({"contrast": 1.5}, "contrast"),
        ({"brightness": 10.0}, "brightness"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Elastic(**{"input_size": (16, 16), "output_size": (16, 16), **arguments})


def test_images_and_masks_of_different_sizes_are_refused():
    images, targets, weights = batch(1, 16, 17)
    elastic = Elastic((16, 16), (16, 16))
    with pytest.raises(ValueError, match=r"one size.*\[16, 17\], \[16, 16\], \[16, 17\]"):
        elastic.apply(images, targets[..., 1:], weights, elastic.draw(0, 0, [0]))
