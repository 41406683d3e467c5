"""Objects drawn on the image in which they were found."""

import numpy as np

from benchmarks.training.predict_objects import COLOURS, drawing, outline


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
