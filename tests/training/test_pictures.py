"""The sheet of classified images and the drawings of objects, pixel by pixel."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.training.pictures import (
    CAPTION,
    COLOURS,
    GAP,
    LEAST_SIDE,
    SHEET_COLUMNS,
    TILE,
    drawing,
    objects_beside_truth,
    outline,
    sheet,
    write_pictures,
)

PITCH = TILE + GAP


def place(index: int) -> tuple[int, int]:
    return index // SHEET_COLUMNS * (PITCH + CAPTION), index % SHEET_COLUMNS * PITCH


def test_each_image_stands_above_its_prediction_and_errors_are_orange() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(SHEET_COLUMNS + 2, 3, 8, 8)).astype(np.float32)
    wrong = {1, SHEET_COLUMNS}
    examples = [(image, 0, int(index in wrong)) for index, image in enumerate(images)]
    picture = sheet(examples, ("cat", "dog"))
    assert picture.shape == (2 * (PITCH + CAPTION), SHEET_COLUMNS * PITCH, 3)
    for index, image in enumerate(images):
        top, left = place(index)
        drawn = picture[top : top + TILE, left : left + TILE].astype(float)
        scaled = 255 * (image - image.min()) / (image.max() - image.min())
        blocks = drawn.reshape(8, TILE // 8, 8, TILE // 8, 3)
        assert np.ptp(blocks, axis=(1, 3)).max() == 0  # whole pixels, none blended
        assert np.abs(blocks[:, 0, :, 0] - scaled.transpose(1, 2, 0)).max() <= 1
        caption = picture[top + TILE : top + PITCH + CAPTION, left : left + PITCH].astype(int)
        ink = caption[(caption < 250).any(axis=2)]
        assert len(ink)
        assert ((ink[:, 0] - ink[:, 2]).max() > 100) == (index in wrong)


def test_images_in_bfloat16_are_drawn_as_those_in_float32(tmp_path: Path) -> None:
    image = torch.arange(64).view(1, 8, 8) / 64  # the same numbers in both
    drawn = []
    for dtype in (torch.float32, torch.bfloat16):
        [path] = write_pictures(tmp_path, [(image.to(dtype), torch.tensor(0), torch.tensor(1))], ("cat", "dog"))
        drawn.append(np.asarray(Image.open(path)).copy())
    assert (drawn[0] == drawn[1]).all()


def test_a_grey_image_is_drawn_grey() -> None:
    picture = sheet([(np.eye(4, dtype=np.float32)[None], 0, 0)], ("a",))
    tile = picture[:TILE, :TILE]
    assert (tile[..., 0] == tile[..., 2]).all() and set(np.unique(tile)) == {0, 255}


def test_the_outline_is_what_erosion_takes() -> None:
    from scipy import ndimage

    random = np.random.RandomState(0)
    mask = ndimage.gaussian_filter(random.normal(size=(40, 50)), 3) > 0
    assert (outline(mask) == (mask & ~ndimage.binary_erosion(mask))).all()
    assert outline(np.ones((3, 3), bool)).sum() == 8


def test_objects_of_a_good_score_are_drawn_in_colours_of_their_own() -> None:
    pixels = np.full((64, 128), 100, np.uint8)
    masks = np.zeros((3, 64, 128), bool)
    masks[0, 20:40, 20:40] = masks[1, 20:40, 60:90] = masks[2, 50:60, 100:120] = True
    boxes = np.array([[20, 20, 40, 40], [60, 20, 90, 40], [100, 50, 120, 60]], float)
    prediction = {"boxes": boxes, "scores": np.array([0.9, 0.5, 0.4]), "labels": np.array([0, 1, 0]), "masks": masks}
    image = np.array(drawing(pixels, prediction, ("cell", "other")))
    assert image.shape == (256, 512, 3)  # four times as large
    for place in (0, 1):
        x0, y0, x1, y1 = (4 * boxes[place]).astype(int)
        assert tuple(image[y0, (x0 + x1) // 2]) == tuple(image[y1 - 1, x0]) == COLOURS[place]
        middle = image[(y0 + y1) // 2, (x0 + x1) // 2]
        assert (middle == (75 + 0.25 * np.array(COLOURS[place])).astype(np.uint8)).all()
    assert (image[200:240, 400:480] == 100).all()
    without = drawing(pixels, {name: prediction[name] for name in ("boxes", "scores", "labels")}, ("cell", "other"))
    assert (np.array(without)[100, 100] == 100).all()


def test_objects_stand_beside_the_truth_which_is_drawn_whole_and_without_scores() -> None:
    image = np.zeros((1, 32, 32), np.float32)
    image[0, :, 16:] = 1
    objects = {"boxes": np.array([[4.0, 8, 12, 20]]), "labels": np.array([0])}
    picture = objects_beside_truth(image, objects, objects | {"scores": np.array([0.1])}, ("cell",))
    left, right = picture[:, :LEAST_SIDE], picture[:, LEAST_SIDE + GAP :]
    assert left.shape == right.shape == (LEAST_SIDE, LEAST_SIDE, 3)
    times = LEAST_SIDE // 32
    assert tuple(left[8 * times, 8 * times]) == COLOURS[0] and not right[8 * times, 8 * times].any()
    assert (right[:, LEAST_SIDE // 2 :] == 255).all() and not right[:, : LEAST_SIDE // 2].any()
