"""Transforms of batches against slow references, one image at a time."""

import numpy as np
import pytest
import torch

from datamodules.augmentation.crops import Augmentation, check_statistics, crop, flip, normalise, rotate
from datamodules.readers.splits import Split

MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
ZERO, ONE = torch.tensor([0.0]), torch.tensor([1.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(1))


def paper_order(image: np.ndarray, mean, std, padding, mirrored, top, left, side) -> np.ndarray:
    """fb.resnet.torch's order for one image [C, H, W], in float64: normalise, mirror, pad with zeros, crop."""
    value = (image / 255.0 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    if mirrored:
        value = value[:, :, ::-1]
    canvas = np.zeros((len(value), value.shape[1] + 2 * padding, value.shape[2] + 2 * padding))
    canvas[:, padding : padding + value.shape[1], padding : padding + value.shape[2]] = value
    height, width = side
    return canvas[:, top : top + height, left : left + width]


def test_normalise_is_the_formula():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    expected = (images.double() / 255 - MEAN.double()[:, None, None]) / STD.double()[:, None, None]
    result = normalise(images, MEAN, STD)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_cuts_each_image_at_its_own_place(dtype):
    images = random_images(5, 3, 9, 11).to(dtype)
    top, left = torch.tensor([0, 4, 2, 1, 3]), torch.tensor([5, 0, 3, 2, 1])
    result = crop(images, top, left, height=5, width=6)
    for image, cut, row, column in zip(images, result, top.tolist(), left.tolist(), strict=True):
        assert torch.equal(cut, image[:, row : row + 5, column : column + 6])


def test_flip_mirrors_the_chosen_images_only():
    images = random_images(4, 3, 5, 6)
    result = flip(images, torch.tensor([True, False, False, True]))
    for image, mirrored, chosen in zip(images.numpy(), result.numpy(), [True, False, False, True], strict=True):
        assert np.array_equal(mirrored, image[:, :, ::-1] if chosen else image)


def test_rotate_turns_each_image_by_its_own_quarters():
    images = random_images(6, 2, 5, 5)
    turns = [0, 3, 1, 2, 1, 0]
    for image, turned, quarter in zip(images.numpy(), rotate(images, torch.tensor(turns)).numpy(), turns, strict=True):
        assert np.array_equal(turned, np.rot90(image, quarter, axes=(1, 2)))


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 8, 12)])
def test_classification_augmentation_equals_the_papers_order(shape):
    images, targets = random_images(64, *shape), torch.arange(64) % 10
    augmentation = Augmentation({"crop_padding": 4, "horizontal_flip": True})
    draws = augmentation.draw(64, *shape[1:], generator())
    batch = augmentation.apply(images, targets, draws, MEAN, STD)
    assert torch.equal(batch.targets, targets)
    assert batch.images.shape == images.shape
    for index in range(64):
        place = bool(draws.flips[index]), int(draws.top[index]), int(draws.left[index])
        expected = paper_order(images[index].numpy(), MEAN.tolist(), STD.tolist(), 4, *place, side=shape[1:])
        np.testing.assert_allclose(batch.images[index].numpy(), expected, atol=1e-5)


def test_padding_is_the_mean_colour():
    augmentation = Augmentation({"crop_padding": 2})
    draws = augmentation.draw(100, 4, 4, generator())
    black = torch.zeros(100, 3, 4, 4, dtype=torch.uint8)
    images = augmentation.apply(black, torch.zeros(100).long(), draws, MEAN, STD).images
    values = {round(value, 4) for value in images[:, 0].unique().tolist()}
    assert values == {0.0, round(-0.49 / 0.25, 4)}
    padded = (draws.top != 2) | (draws.left != 2)
    assert torch.equal((images == 0).flatten(1).any(1), padded)


def test_all_offsets_and_mirrors_are_drawn_evenly():
    draws = Augmentation({"crop_padding": 1, "horizontal_flip": True}).draw(9000, 8, 8, generator())
    counts = torch.bincount(draws.top * 3 + draws.left, minlength=9)
    # 1,000 expected in each of 9 places, standard deviation 30; 4,500 mirrors, 47: five deviations.
    assert len(counts) == 9 and counts.min() > 850 and counts.max() < 1150
    assert abs(int(draws.flips.sum()) - 4500) < 237


def test_dihedral_draws_all_eight_symmetries_evenly():
    image = torch.arange(9, dtype=torch.uint8).view(1, 3, 3)
    augmentation = Augmentation({"dihedral": True})
    draws = augmentation.draw(8000, 3, 3, generator())
    masks = image.repeat(8000, 1, 1)
    targets = augmentation.apply(masks[:, None], masks, draws, ZERO, ONE).targets
    found, counts = targets.flatten(1).unique(dim=0, return_counts=True)
    square = image[0].numpy()
    expected = [np.rot90(side, turn).ravel().tolist() for side in (square, square.T) for turn in range(4)]
    assert sorted(found.tolist()) == sorted(expected)
    # 1,000 expected each, standard deviation 30.
    assert counts.min() > 850 and counts.max() < 1150


@pytest.mark.parametrize("augment", [{"crop_size": 12, "dihedral": True}, {"crop_size": 12, "horizontal_flip": True}])
def test_image_and_mask_move_together(augment):
    masks = random_images(32, 16, 20) % 2
    augmentation = Augmentation(augment)
    draws = augmentation.draw(32, 16, 20, generator())
    batch = augmentation.apply(masks[:, None] * 255, masks, draws, ZERO, ONE)
    assert batch.targets.dtype == torch.int64
    assert batch.targets.shape == (32, 12, 12)
    assert torch.equal(batch.images[:, 0], batch.targets.float())
    for index in range(32):
        expected = masks[index].numpy()
        expected = expected[:, ::-1] if draws.flips[index] else expected
        top, left = int(draws.top[index]), int(draws.left[index])
        expected = expected[top : top + 12, left : left + 12]
        expected = np.rot90(expected, int(draws.turns[index])) if augment.get("dihedral") else expected
        assert np.array_equal(batch.targets[index].numpy(), expected)


def test_gain_multiplies_the_grey_values_of_a_whole_image_and_no_mask():
    images, masks = random_images(2000, 1, 6, 6), random_images(2000, 6, 6) % 2
    augmentation = Augmentation({"gain": 0.5})
    draws = augmentation.draw(2000, 6, 6, generator())
    batch = augmentation.apply(images, masks, draws, ZERO, ONE)
    expected = np.minimum(images.numpy() * draws.gains.double().numpy()[:, None, None, None], 255) / 255
    np.testing.assert_allclose(batch.images.numpy(), expected, atol=1e-6)
    assert torch.equal(batch.targets, masks.long())
    exponents = draws.gains.log()
    # Uniform in -0.5..0.5: mean 0 and standard deviation 0.2887, over 2,000 draws to 0.0065 and 0.003.
    assert exponents.abs().max() <= 0.5 and abs(exponents.mean()) < 0.03 and abs(exponents.std() - 0.2887) < 0.015
    assert torch.equal(draws.part(3, 5).gains, draws.gains[3:8])


def test_no_augmentation_only_normalises():
    images = random_images(4, 3, 8, 8)
    augmentation = Augmentation({})
    draws = augmentation.draw(4, 8, 8, generator())
    batch = augmentation.apply(images, torch.arange(4), draws, MEAN, STD)
    assert torch.equal(batch.images, normalise(images, MEAN, STD))


def test_draws_come_from_the_generator_alone():
    state = torch.get_rng_state()
    augmentation = Augmentation({"crop_padding": 4, "horizontal_flip": True})
    first, again, other = (augmentation.draw(64, 32, 32, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.top, again.top) and torch.equal(first.flips, again.flips)
    assert not torch.equal(first.top, other.top)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"vertical_flip": True}, "'vertical_flip'; known are crop_padding, crop_size, horizontal_flip, dihedral"),
        ({"crop_padding": -4}, "augment.crop_padding must be a positive number"),
        ({"crop_padding": True}, "augment.crop_padding must be a positive number"),
        ({"crop_size": 12.5}, r"augment.crop_size must be a positive number .* got 12.5"),
        ({"horizontal_flip": 1}, "augment.horizontal_flip must be true or false, got 1"),
        ({"gain": 1.5}, "augment.gain must be above 0 and at most 1 .* got 1.5"),
        ({"gain": None}, "augment.gain must be above 0 and at most 1 .* got None"),
        ({"gain": True}, "augment.gain must be above 0 and at most 1 .* got True"),
    ],
)
def test_impossible_augmentations_are_refused(augment, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(augment)


@pytest.mark.parametrize(
    ("augment", "is_mask", "message"),
    [
        ({"crop_padding": 4}, True, "crop_padding is for classes"),
        ({"crop_size": 4}, False, "are for masks"),
        ({"dihedral": True}, False, "are for masks"),
        ({"gain": 0.5}, False, "are for masks"),
        ({"crop_size": 9}, True, "at most 8, the image's, got 9"),
        ({"dihedral": True}, True, "square images or a crop_size, got images of 8x10"),
    ],
)
def test_augmentations_that_do_not_fit_the_data_are_refused(augment, is_mask, message):
    targets = torch.zeros(2, 8, 10, dtype=torch.uint8) if is_mask else torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        Augmentation(augment).check(Split(random_images(2, 1, 8, 10), targets))


def test_impossible_statistics_are_refused():
    check_statistics([0.5, 0.5, 0.5], [0.2, 0.2, 0.2], channels=3)
    with pytest.raises(ValueError, match="one value per channel, 3, got 1 and 1"):
        check_statistics([0.5], [0.2], channels=3)
    with pytest.raises(ValueError, match="divided by 255"):
        check_statistics([125.3], [63.0], channels=1)
    with pytest.raises(ValueError, match="std above 0"):
        check_statistics([0.5], [0.0], channels=1)
