"""Synthetic images of touching cells, with exact instance labels: for tests of losses and weight maps and for runs that
measure speed. No microscope was involved, and no result on them says anything about one."""

from typing import Any

import numpy as np
from scipy import ndimage

from datamodules.readers.instances import InstanceSplit, components, split_of_instances
from datamodules.readers.objects import InstanceMaps, ObjectSplits
from datamodules.readers.seeds import mix_seed
from datamodules.readers.splits import Splits

# Lengths in pixels. A cell is an ellipse; harmonics 3..7 of its outline make it ragged.
SEMI_AXES = (8.0, 16.0)
RAGGEDNESS = 0.03
SMALLEST_AREA = 40
# Centres of neighbours lie this part of the sum of their radii apart: below 1 the ellipses overlap and are clipped.
CONTACT, CLOSEST = 0.8, 0.72
# Photons: background, a cell's inside, and the part of it lost at its outline.
BACKGROUND, CELL = 10.0, (25.0, 60.0)
RIM_LOSS, RIM_DEPTH = 0.5, 2.0
BLUR = 1.0
READ_NOISE = 2.0
NOTES = "synthetic cells, no microscope"
GREY_PER_PHOTON = 3.0


def _place(random: np.random.RandomState, cells: int, size: int) -> np.ndarray:
    """Return [n, 5] of row, column, semi-axes and angle, n <= cells; most are put into contact with an earlier one."""
    placed = np.empty((0, 5))
    for _ in range(20 * cells):
        a, b = random.uniform(*SEMI_AXES, size=2)
        radius = np.sqrt(a * b)
        if len(placed) and random.uniform() < 0.8:
            row, column, other_a, other_b, _ = placed[random.randint(len(placed))]
            direction = random.uniform(0, 2 * np.pi)
            distance = CONTACT * (radius + np.sqrt(other_a * other_b))
            row, column = row + distance * np.sin(direction), column + distance * np.cos(direction)
        else:
            row, column = random.uniform(0, size, size=2)
        rows, columns, others_a, others_b, _ = placed.T
        free = np.hypot(row - rows, column - columns) > CLOSEST * (radius + np.sqrt(others_a * others_b))
        if free.all() and 0 <= row < size and 0 <= column < size:
            placed = np.vstack([placed, (row, column, a, b, random.uniform(0, np.pi))])
        if len(placed) == cells:
            break
    return placed


def draw_instances(random: np.random.RandomState, cells: int, size: int) -> np.ndarray:
    """Return int32 [size, size], 0 for background: up to `cells` cells numbered from 1, each one 4-connected component.

    A pixel belongs to the cell whose outline, shrunk about its centre, reaches it first: where ellipses overlap, both
    end at the line of contact, without background between them.
    """
    level = np.ones((size, size))
    instances = np.zeros((size, size), dtype=np.int32)
    for number, (row, column, a, b, angle) in enumerate(_place(random, cells, size), start=1):
        reach = int(np.ceil(1.5 * max(a, b)))
        window = tuple(slice(max(int(at) - reach, 0), min(int(at) + reach + 1, size)) for at in (row, column))
        rows, columns = np.mgrid[window]
        down, right = rows - row, columns - column
        theta = np.arctan2(down, right)
        outline = 1 + sum(
            random.normal(0, RAGGEDNESS) * np.cos(harmonic * theta + random.uniform(0, 2 * np.pi))
            for harmonic in range(3, 8)
        )
        along = right * np.cos(angle) + down * np.sin(angle)
        across = down * np.cos(angle) - right * np.sin(angle)
        own = np.hypot(along / a, across / b) / outline.clip(0.7, 1.3)
        closer = own < level[window]
        level[window][closer] = own[closer]
        instances[window][closer] = number
    return largest_pieces(instances)


def largest_pieces(instances: np.ndarray) -> np.ndarray:
    """Return of every instance the largest 4-connected piece, the rest background: clipping can cut a cell into pieces.

    instances: int32 [H, W]. Pieces under 40 pixels go as well; those that stay are numbered from 1 on, in their order.
    """
    pieces = components(instances)
    areas = np.bincount(pieces.ravel())
    owners = np.zeros_like(areas)
    owners[pieces] = instances
    by_owner = np.lexsort((-areas, owners))  # of an instance's pieces the largest first
    _, first = np.unique(owners[by_owner], return_index=True)
    kept = by_owner[first][1:]  # without the background
    kept = kept[areas[kept] >= SMALLEST_AREA]
    numbers = np.zeros(len(areas), dtype=instances.dtype)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[pieces]


def render(random: np.random.RandomState, instances: np.ndarray) -> np.ndarray:
    """Return the image of a field of cells, uint8 [H, W]: brightness by cell, darker rims, blur, Poisson and read noise."""
    depth = np.zeros(instances.shape)
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        window = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = instances[window] == number
        depth[window][inside] = ndimage.distance_transform_edt(inside)[inside]
    brightness = np.concatenate([[0.0], random.uniform(*CELL, size=int(instances.max()))])
    photons = BACKGROUND + brightness[instances] * (1 - RIM_LOSS * np.exp(-depth / RIM_DEPTH))
    electrons = random.poisson(ndimage.gaussian_filter(photons, BLUR)) + random.normal(0, READ_NOISE, instances.shape)
    return np.rint(GREY_PER_PHOTON * electrons).clip(0, 255).astype(np.uint8)


def load_touching_cells(
    train_count: int = 48, val_count: int = 8, test_count: int = 16, size: int = 256, cells: int = 60, seed: int = 0
) -> Splits:
    """Return synthetic images uint8 [N, 1, size, size], masks of background (0) and synthetic cell (1), exact instances.

    cells: at most so many in an image. Image i of a split depends on (seed, split, i, size, cells) alone: more images
    leave the first ones as they are. Touching cells are a gap apart in the masks, not in the instances.
    Raises ValueError on a size under 64, fewer than 2 cells or an empty split.
    """
    if size < 64 or cells < 2 or min(train_count, val_count, test_count) < 1:
        raise ValueError(
            f"size must be at least 64 pixels, cells at least 2 and every count at least 1, got size {size}, "
            f"cells {cells} and counts {train_count}, {val_count}, {test_count}"
        )

    def split(name: str, count: int) -> InstanceSplit:
        images, instances = [], []
        for index in range(count):
            # RandomState's streams are frozen (NEP 19): the same cells under every version of numpy.
            random = np.random.RandomState(mix_seed(f"touching_cells {name}", seed, index) % 2**32)
            instances.append(draw_instances(random, cells, size))
            images.append(render(random, instances[-1]))
        return split_of_instances(np.stack(images)[:, None], np.stack(instances))

    return Splits(
        train=split("train", train_count),
        val=split("val", val_count),
        test=split("test", test_count),
        classes=("background", "synthetic cell"),
        notes=NOTES,
    )


def load_touching_cells_instances(**arguments: int) -> ObjectSplits:
    """Return the same images with every cell as an object of its own. arguments: those of load_touching_cells."""
    splits: Any = load_touching_cells(**arguments).named().values()
    train, val, test = (InstanceMaps(split.images[:, 0].numpy(), split.instances.numpy()) for split in splits)
    return ObjectSplits(train=train, val=val, test=test, classes=("synthetic cell",), notes=NOTES)
