"""The sheet of classified images, pixel by pixel."""

import numpy as np

from benchmarks.training.pictures import CAPTION, GAP, SHEET_COLUMNS, TILE, sheet

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


def test_a_grey_image_is_drawn_grey() -> None:
    picture = sheet([(np.eye(4, dtype=np.float32)[None], 0, 0)], ("a",))
    tile = picture[:TILE, :TILE]
    assert (tile[..., 0] == tile[..., 2]).all() and set(np.unique(tile)) == {0, 255}
