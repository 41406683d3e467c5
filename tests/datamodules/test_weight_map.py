"""Weight maps against the formula evaluated pixel by pixel, and the gap between touching instances."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import label

from datamodules.augmentation import weight_map
from datamodules.augmentation.weight_map import border_weights, class_weights, weight_maps
from datamodules.readers.instances import InstanceSplit, components, separate_touching, split_of_instances
from datamodules.sources.touching_cells import draw_instances


def brute_force(instances: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """The second term from all distances between a background pixel and every pixel of every cell."""
    cells = [np.argwhere(instances == number) for number in np.unique(instances) if number]
    result = np.zeros(instances.shape)
    for pixel in np.argwhere(instances == 0):
        distances = sorted(math.sqrt(((cell - pixel) ** 2).sum(axis=1).min()) for cell in cells)
        if len(distances) >= 2:
            result[tuple(pixel)] = w0 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return result


def rectangles(seed: int, shape: tuple[int, int], count: int) -> np.ndarray:
    """Overlapping rectangles with labels that are neither consecutive nor in order; some touch, some fall apart."""
    random = np.random.RandomState(seed)
    instances = np.zeros(shape, dtype=np.int32)
    for _ in range(count):
        top, left = random.randint(0, shape[0] - 2), random.randint(0, shape[1] - 2)
        instances[top : top + random.randint(1, 9), left : left + random.randint(1, 9)] = random.randint(1, 2000)
    return instances


@pytest.mark.parametrize(
    ("seed", "shape", "count", "w0", "sigma"),
    [
        (0, (40, 50), 6, 10, 5),
        (1, (64, 30), 3, 10, 5),
        (2, (30, 30), 12, 10, 5),
        # The cells' windows end well inside the image.
        (3, (60, 70), 5, 4, 1.5),
        (4, (20, 25), 4, 10, 12),
        (5, (30, 40), 1, 10, 5),
    ],
)
def test_border_weights_are_the_formula(seed, shape, count, w0, sigma):
    instances = rectangles(seed, shape, count)
    result = border_weights(instances, w0, sigma)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, brute_force(instances, w0, sigma), atol=1e-6, rtol=0)
    assert (result.max() > 0.1) == (count > 1)


def test_two_cells_with_a_gap_by_hand():
    instances = np.zeros((5, 20), dtype=np.int32)
    instances[:, :8], instances[:, 10:] = 1, 2
    # Both columns of the gap lie 1 pixel from one cell and 2 from the other.
    expected = np.zeros(instances.shape)
    expected[:, 8:10] = 10 * math.exp(-9 / 50)
    np.testing.assert_allclose(border_weights(instances), expected, rtol=1e-6)


@pytest.mark.parametrize("fill", [0, 7])
def test_one_value_everywhere_has_no_border(fill):
    assert not border_weights(np.full((6, 7), fill, dtype=np.int32)).any()


@pytest.mark.parametrize(("w0", "sigma"), [(-1, 5), (10, 0)])
def test_impossible_parameters_are_refused(w0, sigma):
    with pytest.raises(ValueError, match="w0 must be at least 0 and sigma positive"):
        border_weights(np.zeros((4, 4), dtype=np.int32), w0, sigma)


def test_a_slice_of_a_hundred_cells_takes_under_a_second():
    instances = separate_touching(draw_instances(np.random.RandomState(0), 100, 512))
    assert len(np.unique(instances)) == 101
    start = time.process_time()
    border_weights(instances)
    assert time.process_time() - start < 1


def neighbours(instances: np.ndarray) -> np.ndarray:
    """Whether each pixel of an instance has a pixel of another one among its 8 neighbours, looked up one by one."""
    result = np.zeros(instances.shape, dtype=bool)
    padded = np.pad(instances, 1)
    for row, column in np.argwhere(instances):
        around = set(padded[row : row + 3, column : column + 3].ravel().tolist())
        result[row, column] = bool(around - {0, int(instances[row, column])})
    return result


@pytest.mark.parametrize("dtype", [np.int32, np.uint16])
def test_separation_takes_the_pixels_at_contact_and_no_others(dtype):
    instances = rectangles(2, (40, 40), 15).astype(dtype)
    touching = neighbours(instances)
    assert touching.any()
    separated = separate_touching(instances)
    assert separated.dtype == dtype
    assert np.array_equal(separated, np.where(touching, 0, instances))
    assert not neighbours(separated).any()


def test_separated_cells_are_components_of_the_foreground():
    instances = draw_instances(np.random.RandomState(1), 60, 256)
    separated = separate_touching(instances)
    for labels in (components(separated != 0), ndimage.label(separated, structure=np.ones((3, 3)))[0]):
        for number in range(1, labels.max() + 1):
            assert len(np.unique(separated[labels == number])) == 1


def test_components_are_4_connected_and_of_one_class():
    mask = np.array([[1, 0, 2, 2], [0, 1, 0, 1], [1, 1, 0, 1]], dtype=np.uint8)
    labels = components(mask)
    assert labels.dtype == np.int32
    groups = {frozenset(map(tuple, np.argwhere(labels == number))) for number in range(1, labels.max() + 1)}
    assert groups == {
        frozenset({(0, 0)}),
        frozenset({(0, 2), (0, 3)}),
        frozenset({(1, 1), (2, 0), (2, 1)}),
        frozenset({(1, 3), (2, 3)}),
    }


@pytest.mark.parametrize("seed", range(30))
def test_components_are_scikit_images_in_number_and_order(seed):
    random = np.random.RandomState(seed)
    mask = random.randint(0, random.randint(2, 5), size=random.randint(1, 30, size=2)).astype(np.uint8)
    assert np.array_equal(components(mask), label(mask, background=0, connectivity=1))


def test_class_weights_are_inverse_frequencies_of_mean_one():
    targets = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 2]]], dtype=torch.uint8)
    weights = class_weights(targets, 3)
    torch.testing.assert_close(weights, torch.tensor([8 / 18, 8 / 3, 8 / 3]))
    assert weights[targets.long()].mean().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="3, 4 has none"):
        class_weights(targets, 5)


def touching_split() -> InstanceSplit:
    instances = np.stack([rectangles(seed, (30, 40), 8) for seed in (7, 8)])
    return split_of_instances(np.zeros((2, 1, 30, 40), dtype=np.uint8), instances)


def test_weight_maps_are_the_sum_with_touching_cells_separated(tmp_path):
    split = touching_split()
    weights = torch.tensor([0.5, 3.0])
    result = weight_maps(split, weights, tmp_path / "cache")
    assert result.dtype == torch.float32
    for image in range(2):
        targets = split.targets[image].numpy()
        cells = separate_touching(split.instances[image].numpy())
        assert np.array_equal(cells != 0, targets != 0)
        expected = np.where(targets == 0, 0.5, 3.0) + brute_force(cells, 10, 5)
        np.testing.assert_allclose(result[image].numpy(), expected, atol=1e-6, rtol=1e-6)
    # The gap weighs more than either class: w_c + w_0 exp(-(1 + 2)² / 50) = 8.85 at a straight one.
    gap = (split.targets == 0) & (split.instances != 0)
    assert result[gap].min() > 3


def test_the_cache_is_read_and_depends_on_content_only(tmp_path, monkeypatch):
    split, weights = touching_split(), torch.tensor([1.0, 1.0])
    computed: list[int] = []

    def counting(*arguments):
        computed.append(1)
        return border_weights(*arguments)

    monkeypatch.setattr(weight_map, "border_weights", counting)
    first = weight_maps(split, weights, tmp_path)
    assert len(computed) == 2
    assert torch.equal(weight_maps(split, weights, tmp_path), first)
    # The same annotations in another order and under other class weights.
    turned = InstanceSplit(split.images, split.targets.flip(0), split.instances.flip(0))
    torch.testing.assert_close(weight_maps(turned, 2 * weights, tmp_path), first.flip(0) + 1)
    assert len(computed) == 2
    # Other parameters, another annotation.
    assert not torch.equal(weight_maps(split, weights, tmp_path, sigma=4.0), first)
    assert len(computed) == 4
    assert not torch.equal(weight_maps(split, weights, tmp_path, w0=5.0), first)
    assert len(computed) == 6
    targets, instances = split.targets.clone(), split.instances.clone()
    targets[0, 0, :], instances[0, 0, :] = 1, 5000
    weight_maps(InstanceSplit(split.images, targets, instances), weights, tmp_path)
    assert len(computed) == 7
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}


@pytest.mark.parametrize("damage", ["truncated", "another shape"])
def test_a_damaged_cache_is_refused_in_one_line(tmp_path, damage):
    split, weights = touching_split(), torch.tensor([1.0, 1.0])
    weight_maps(split, weights, tmp_path)
    for path in tmp_path.iterdir():
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:500])
        else:
            np.save(path, np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r"border-\w+\.npy is damaged .* delete it and run again") as error:
        weight_maps(split, weights, tmp_path)
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(file, array):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(weight_map.np, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        weight_maps(touching_split(), torch.tensor([1.0, 1.0]), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("targets", "instances", "message"),
    [
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int32), "need masks"),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2, 4, 4).long(), "must be int32"),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2, 4, 5).int(), r"\[2, 4, 4\].*\[2, 4, 5\]"),
        (torch.zeros(2, 4, 4).byte(), torch.full((2, 4, 4), -1).int(), "got -1"),
        (torch.ones(2, 4, 4).byte(), torch.zeros(2, 4, 4).int(), "must belong to an instance"),
    ],
)
def test_malformed_instances_are_refused(targets, instances, message):
    with pytest.raises(ValueError, match=message):
        InstanceSplit(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), targets, instances)
