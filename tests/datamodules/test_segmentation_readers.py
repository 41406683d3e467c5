"""Readers of masks against real files in the real formats, good and bad, and the synthetic cells."""

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage

from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.image_files import ByteScaling, read_image
from datamodules.readers.instances import InstanceSplit, components, separate_touching
from datamodules.readers.masks import read_mask
from datamodules.readers.seeds import mix_seed
from datamodules.readers.splits import Split, Splits
from datamodules.readers.tiff_stacks import read_stack
from datamodules.sources.cell_tracking import load_cell_tracking
from datamodules.sources.image_mask_folder import load_image_mask_folder
from datamodules.sources.isbi2012 import fold_rows, load_tiff_stack
from datamodules.sources.touching_cells import draw_instances, largest_pieces, load_touching_cells

REAL_ISBI2012 = Path(__file__).resolve().parents[3] / "shared" / "data" / "isbi2012"


def refused(kind: type[Exception], load, *arguments, **keywords) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(kind) as error:
        load(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def with_instances(split: Split) -> InstanceSplit:
    assert isinstance(split, InstanceSplit)
    return split


# Folds


@pytest.mark.parametrize(("count", "folds", "val_count"), [(30, 5, 3), (30, 30, 3), (7, 3, 1), (10, 2, 4), (4, 4, 2)])
def test_every_slice_is_tested_exactly_once(count, folds, val_count):
    tested: list[int] = []
    for fold in range(folds):
        train, val, test = fold_rows(count, fold, folds, val_count)
        assert sorted(train + val + test) == list(range(count))
        assert len(val) == val_count and train
        assert set(np.diff(test)) <= {1}
        assert len(test) in (count // folds, -(-count // folds))
        tested += test
    assert sorted(tested) == list(range(count))


def test_val_follows_test_and_goes_round():
    assert fold_rows(10, 0, 5, 3) == ([5, 6, 7, 8, 9], [2, 3, 4], [0, 1])
    assert fold_rows(10, 4, 5, 3) == ([3, 4, 5, 6, 7], [0, 1, 2], [8, 9])
    assert fold_rows(10, 3, 5, 3) == ([1, 2, 3, 4, 5], [0, 8, 9], [6, 7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 5, 5, 1), "fold must lie in 0..4, got 5"),
        ((10, -1, 5, 1), "fold must lie in 0..4, got -1"),
        ((10, 0, 1, 1), "folds must lie in 2..10, the number of slices, got 1"),
        ((10, 0, 11, 1), "folds must lie in 2..10"),
        (
            (10, 0, 5, 0),
            "data.val_count must be positive and leave some of the 8 slices that are not tested to train on, got 0",
        ),
        (
            (10, 0, 5, 8),
            "data.val_count must be positive and leave some of the 8 slices that are not tested to train on, got 8",
        ),
        (
            (2, 0, 2, 1),
            "data.val_count must be positive and leave some of the 1 slices that are not tested to train on, got 1",
        ),
    ],
)
def test_impossible_folds_are_refused(arguments, message):
    assert message in refused(ValueError, fold_rows, *arguments)


# Stacks


def write_stack(folder: Path, labels_scale: int = 255, dtype=np.uint8, count: int = 6, **options) -> tuple:
    random = np.random.RandomState(0)
    volume = random.randint(0, 256 if dtype == np.uint8 else 60_000, (count, 20, 24)).astype(dtype)
    labels = (random.uniform(size=(count, 20, 24)) < 0.7).astype(np.uint8) * np.uint8(labels_scale)
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "train-volume.tif", volume, **options)
    tifffile.imwrite(folder / "train-labels.tif", labels, **options)
    return volume, labels


@pytest.mark.parametrize("labels_scale", [1, 255])
@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "zlib"}, {"metadata": None}])
def test_a_stack_is_read_slice_by_slice(tmp_path, labels_scale, options):
    volume, labels = write_stack(tmp_path, labels_scale, **options)
    for fold in range(3):
        splits = load_tiff_stack(tmp_path, fold=fold, folds=3, val_count=1)
        for split, rows in zip(splits.named().values(), fold_rows(6, fold, 3, 1), strict=True):
            assert np.array_equal(split.images[:, 0].numpy(), volume[rows])
            assert np.array_equal(split.targets.numpy(), labels[rows] > 0)
            for mask, instances in zip(split.targets, with_instances(split).instances, strict=True):
                # scipy's default structure is the 4-neighbourhood.
                reference, number = ndimage.label(mask.numpy())
                assert len(np.unique(np.stack([reference, instances.numpy()]).reshape(2, -1), axis=1).T) == number + 1
                assert int(instances.max()) == number
        assert splits.classes == ("membrane", "cell")
    assert splits.notes == "fold 2 of 3 (from 0) over the 6 slices of one volume: tests 4..5"


def test_the_data_module_serves_a_stack(tmp_path):
    volume, labels = write_stack(tmp_path)
    module = InMemoryDataModule(
        lambda: load_tiff_stack(tmp_path, 0, 3, 1), 2, 2, {"crop_size": 16}, mean=[0.5], std=[0.25], seed=0
    )
    module.setup()
    images, targets, *_ = next(iter(module.test_dataloader()))
    np.testing.assert_allclose(images[:, 0].numpy(), (volume[:2] / 255 - 0.5) / 0.25, atol=1e-5)
    assert np.array_equal(targets.numpy(), labels[:2] // 255)
    assert next(iter(module.train_dataloader())).images.shape == (2, 1, 16, 16)
    assert module.manifest()["counts"] == {"train": 3, "val": 1, "test": 2}


def test_a_16_bit_stack_is_scaled_by_its_training_slices_and_says_so(tmp_path):
    volume, _ = write_stack(tmp_path, dtype=np.uint16)
    train, _, test = fold_rows(6, 1, 3, 1)
    # What the test slices hold must not matter.
    volume[test] //= 3
    tifffile.imwrite(tmp_path / "train-volume.tif", volume)
    splits = load_tiff_stack(tmp_path, 1, 3, 1)
    low, high = np.percentile(volume[train], [0.1, 99.9], method="inverted_cdf")
    assert f"16-bit grey values {low}..{high} scaled to 0..255" in splits.notes
    for split, rows in ((splits.train, train), (splits.test, test)):
        expected = np.clip(np.round((volume[rows].astype(float) - low) / (float(high) - low) * 255), 0, 255)
        assert np.abs(split.images[:, 0].numpy() - expected).max() <= 1
        assert np.mean(split.images[:, 0].numpy() == expected) > 0.99


def test_a_stack_with_missing_files_is_refused(tmp_path):
    assert "train-volume.tif is missing" in refused(FileNotFoundError, load_tiff_stack, tmp_path, 0, 3)
    write_stack(tmp_path)
    (tmp_path / "train-labels.tif").unlink()
    assert "train-labels.tif is missing" in refused(FileNotFoundError, load_tiff_stack, tmp_path, 0, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((5, 20, 24), np.uint8), r"train-volume.tif holds 6 slices, .*train-labels.tif 5"),
        (np.ones((6, 20, 25), np.uint8), r"train-volume.tif \(20x24\) and its mask .*train-labels.tif \(20x25\)"),
        (np.zeros((6, 20, 24), np.uint8), r"train-labels.tif slice 0 is empty"),
        (np.full((6, 20, 24), 128, np.uint8), r"slice 0 must hold classes 0..1 or 0 and 255, got 128"),
        (np.ones((6, 20, 24), np.float32), r"train-labels.tif must hold integers, got float32"),
        (np.ones((6, 20, 24, 3), np.uint8), r"train-labels.tif must hold grey slices"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    write_stack(tmp_path)
    tifffile.imwrite(tmp_path / "train-labels.tif", labels)
    assert re.search(message, refused(ValueError, load_tiff_stack, tmp_path, 0, 3))


def test_the_bad_slice_is_named(tmp_path):
    _, labels = write_stack(tmp_path)
    labels[4] = 0
    tifffile.imwrite(tmp_path / "train-labels.tif", labels)
    assert "train-labels.tif slice 4 is empty" in refused(ValueError, load_tiff_stack, tmp_path, 0, 3)
    labels[4, 3, 3], labels[2, 5, 5] = 255, 77
    tifffile.imwrite(tmp_path / "train-labels.tif", labels)
    message = refused(ValueError, load_tiff_stack, tmp_path, 0, 3)
    assert "train-labels.tif slice 2 must hold classes 0..1 or 0 and 255, got 77" in message


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "zlib"}, {"metadata": None}])
@pytest.mark.parametrize("part", [0, 0.01, 0.4, 0.6])
def test_a_truncated_stack_is_refused_by_name(tmp_path, options, part):
    write_stack(tmp_path, **options)
    path = tmp_path / "train-volume.tif"
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    assert f"{path} cannot be read as a TIFF stack" in refused(ValueError, read_stack, path)


def test_the_real_volume():
    if not REAL_ISBI2012.is_dir():
        pytest.skip("the ISBI 2012 volume is not on this machine")
    splits = load_tiff_stack(REAL_ISBI2012, fold=0, folds=5)
    assert [len(split) for split in splits.named().values()] == [21, 3, 6]
    assert splits.train.images.shape == (21, 1, 512, 512)
    # Membranes are dark.
    train = splits.train
    assert train.images[:, 0][train.targets == 1].float().mean() > train.images[:, 0][train.targets == 0].float().mean()
    assert 0.7 < train.targets.float().mean() < 0.85


# Cell Tracking Challenge


def two_cells(shift: int = 0, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    """Two touching cells and one apart, with labels as a tracker would give them."""
    mask = np.zeros(size, dtype=np.uint16)
    mask[5:15, 5 + shift : 15 + shift], mask[5:15, 15 + shift : 25 + shift], mask[20:26, 8:20] = 3, 7, 301
    return mask


def write_tracking(folder: Path, dtype=np.uint8, frames: tuple[int, int] = (6, 5)) -> Path:
    random = np.random.RandomState(1)
    for sequence, count in zip(("01", "02"), frames, strict=True):
        (folder / sequence).mkdir(parents=True)
        (folder / f"{sequence}_GT" / "SEG").mkdir(parents=True)
        (folder / f"{sequence}_GT" / "TRA").mkdir(parents=True)
        for number in range(count):
            top = 256 if dtype == np.uint8 else 5000
            frame = random.randint(0, top, (30, 40)).astype(dtype)
            tifffile.imwrite(folder / sequence / f"t{number:03}.tif", frame)
            # As in the challenge, not every frame is annotated.
            if number != 1:
                compression = "zlib" if number == 2 else None
                mask_path = folder / f"{sequence}_GT" / "SEG" / f"man_seg{number:03}.tif"
                tifffile.imwrite(mask_path, two_cells(number), compression=compression)
    return folder


def test_sequences_of_cells(tmp_path):
    write_tracking(tmp_path)
    splits = load_cell_tracking(tmp_path, val_count=2)
    expected = {"train": ("01", [0, 2, 3]), "val": ("01", [4, 5]), "test": ("02", [0, 2, 3, 4])}
    for name, (sequence, numbers) in expected.items():
        split = with_instances(splits.named()[name])
        assert len(split) == len(numbers)
        for row, number in enumerate(numbers):
            frame = tifffile.imread(tmp_path / sequence / f"t{number:03}.tif")
            assert np.array_equal(split.images[row, 0].numpy(), frame)
            assert np.array_equal(split.instances[row].numpy(), two_cells(number))
            # One pixel of each of the two touching cells goes along their 10 pixels of contact.
            mask = two_cells(number) > 0
            mask[5:15, 14 + number : 16 + number] = False
            assert np.array_equal(split.targets[row].numpy(), mask)
    assert splits.classes == ("background", "cell")
    assert splits.notes == "sequence 01 trains, 02 tests"


def test_16_bit_sequences_are_scaled_by_the_training_frames(tmp_path):
    write_tracking(tmp_path, np.uint16)
    frames = [tifffile.imread(tmp_path / "01" / f"t{number:03}.tif") for number in (0, 2, 3)]
    low, high = np.percentile(frames, [0.1, 99.9], method="inverted_cdf")
    splits = load_cell_tracking(tmp_path)
    assert splits.notes == f"sequence 01 trains, 02 tests; 16-bit grey values {low}..{high} scaled to 0..255"
    assert splits.test.images.min() == 0 and splits.test.images.max() == 255


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_bad_sequences_are_refused_by_name(tmp_path):
    assert "01 is missing" in refused(FileNotFoundError, load_cell_tracking, tmp_path)
    write_tracking(tmp_path)
    assert "data.val_count must be positive and leave some of the 5 annotated frames of" in refused(
        ValueError, load_cell_tracking, tmp_path, val_count=5
    )
    frame, mask = tmp_path / "02" / "t003.tif", tmp_path / "02_GT" / "SEG" / "man_seg003.tif"
    good_frame, good_mask = frame.read_bytes(), mask.read_bytes()

    tifffile.imwrite(mask, two_cells(size=(30, 41)))
    message = refused(ValueError, load_cell_tracking, tmp_path)
    assert f"{frame} (30x40) and its mask {mask} (30x41) must be of one size" in message
    tifffile.imwrite(mask, np.zeros((30, 40), np.uint16))
    assert f"{mask} is empty" in refused(ValueError, load_cell_tracking, tmp_path)
    tifffile.imwrite(mask, np.full((30, 40), 0.5, np.float32))
    assert f"{mask} must be grey" in refused(ValueError, load_cell_tracking, tmp_path)
    mask.write_bytes(good_mask[: len(good_mask) // 2])
    assert f"{mask} cannot be read" in refused(ValueError, load_cell_tracking, tmp_path)
    mask.write_bytes(good_mask)

    frame.write_bytes(good_frame[:200])
    assert f"{frame} cannot be read" in refused(ValueError, load_cell_tracking, tmp_path)
    tifffile.imwrite(frame, np.zeros((4, 30, 40), np.uint8), photometric="minisblack")
    assert f"{frame} must hold one two-dimensional image, got 4 pages" in refused(
        ValueError, load_cell_tracking, tmp_path
    )
    tifffile.imwrite(frame, np.zeros((30, 40), np.uint16))
    message = refused(ValueError, load_cell_tracking, tmp_path)
    assert "one kind and size" in message and f"{frame} is uint16" in message
    frame.unlink()
    assert f"{frame} is missing, the frame of {mask}" in refused(FileNotFoundError, load_cell_tracking, tmp_path)
    for path in mask.parent.iterdir():
        path.unlink()
    (mask.parent / "notes.txt").write_text("x")
    assert "SEG holds no man_seg*.tif, it holds notes.txt; " in refused(FileNotFoundError, load_cell_tracking, tmp_path)


def test_three_dimensional_sequences_are_refused_as_that(tmp_path):
    for kind in ("stacks", "slices"):
        folder = write_tracking(tmp_path / kind)
        if kind == "stacks":
            tifffile.imwrite(folder / "01" / "t000.tif", np.zeros((4, 30, 40), np.uint8), photometric="minisblack")
        else:
            (folder / "01_GT" / "SEG" / "man_seg000.tif").rename(folder / "01_GT" / "SEG" / "man_seg_000_012.tif")
        message = refused(ValueError, load_cell_tracking, folder)
        assert f"{folder} is a three-dimensional data set" in message and "again" not in message


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="the extra `tiff` is there")
def test_a_compressed_stack_names_the_extra(tmp_path):
    pages = [Image.fromarray(np.full((20, 30), 9 * number, np.uint8)) for number in range(3)]
    pages[0].save(tmp_path / "lzw.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    message = refused(ImportError, read_stack, tmp_path / "lzw.tif")
    assert "lzw.tif is compressed" in message and 'pip install -e ".[tiff]"' in message


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is None, reason="needs the extra `tiff`")
def test_a_compressed_stack_is_read(tmp_path):
    pages = np.random.RandomState(0).randint(0, 256, (3, 20, 30)).astype(np.uint8)
    images = [Image.fromarray(page) for page in pages]
    images[0].save(tmp_path / "lzw.tif", save_all=True, append_images=images[1:], compression="tiff_lzw")
    assert np.array_equal(read_stack(tmp_path / "lzw.tif"), pages)


# Folders of images and masks


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)


def write_folder(folder: Path, count: int = 8, scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(2)
    images = random.randint(0, 256, (count, 18, 22)).astype(np.uint8)
    masks = (ndimage.gaussian_filter(random.normal(size=(count, 18, 22)), (0, 2, 2)) > 0).astype(np.uint8)
    for number in range(count):
        save(folder / "images" / f"cell.{number:03}.png", images[number])
        save(folder / "masks" / f"cell.{number:03}.tif", masks[number] * np.uint8(scale))
    (folder / "images" / "readme.txt").write_text("not an image")
    (folder / "masks" / ".DS_Store").write_bytes(b"\0")
    return images, masks


def rows_of(splits: Splits, images: np.ndarray) -> dict[str, list[int]]:
    """Which of the images [N, H, W] each split holds."""
    return {
        name: [int(np.flatnonzero((images == image[0].numpy()).all((1, 2)))[0]) for image in split.images]
        for name, split in splits.named().items()
    }


@pytest.mark.parametrize("scale", [1, 255])
def test_a_folder_of_pairs(tmp_path, scale):
    images, masks = write_folder(tmp_path, scale=scale)
    splits = load_image_mask_folder(tmp_path, val_count=2, test_count=3)
    rows = rows_of(splits, images)
    assert {name: len(found) for name, found in rows.items()} == {"train": 3, "val": 2, "test": 3}
    assert sorted(sum(rows.values(), [])) == list(range(8))
    for name, split in splits.named().items():
        assert np.array_equal(split.targets.numpy(), masks[rows[name]])
        for row, instances in zip(rows[name], with_instances(split).instances, strict=True):
            assert np.array_equal(instances.numpy(), components(masks[row]))
    again = load_image_mask_folder(tmp_path, val_count=2, test_count=3)
    assert again.checksum() == splits.checksum()
    others = {load_image_mask_folder(tmp_path, 2, 3, split_seed=seed).checksum() for seed in range(4)}
    assert splits.checksum() in others and len(others) > 1
    assert splits.notes == "split drawn with seed 0; 2 stray files skipped (.DS_Store, Thumbs.db and the like)"


def test_parts_of_ones_own_are_read_as_they_are(tmp_path: Path) -> None:
    masks = {
        part: write_folder(tmp_path / part, count)[1] for part, count in (("train", 4), ("validation", 2), ("test", 3))
    }
    splits = load_image_mask_folder(tmp_path, val_count=99, test_count=0)
    for split, part in zip(splits.named().values(), masks, strict=True):
        assert np.array_equal(split.targets.numpy(), masks[part])
    assert "drawn" not in splits.notes
    assert splits.remarks == (
        "2 of 2 validation images are training images, too, equal in every pixel",
        "3 of 3 test images are training images, too, equal in every pixel",
    )
    shutil.rmtree(tmp_path / "validation")
    drawn = load_image_mask_folder(tmp_path, val_count=1, test_count=0)
    assert [len(split) for split in drawn.named().values()] == [3, 1, 3] and "val drawn with seed 0" in drawn.notes
    with pytest.raises(ValueError, match="data.val_count must be positive and leave some of the 4 images"):
        load_image_mask_folder(tmp_path, val_count=4, test_count=0)
    (tmp_path / "test").rename(tmp_path / "val")
    moved = load_image_mask_folder(tmp_path, val_count=1, test_count=0)
    assert moved.checksum() == drawn.checksum() and "val/ is the test set, val is drawn from train/" in moved.remarks[0]


def test_masks_of_many_formats_hold_the_same_classes(tmp_path):
    indices = np.random.RandomState(3).randint(0, 3, (18, 22)).astype(np.uint8)
    palette = Image.fromarray(indices).copy()
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette.gif")
    save(tmp_path / "grey.png", indices)
    save(tmp_path / "grey.bmp", indices)
    save(tmp_path / "deep.png", indices.astype(np.uint16))
    save(tmp_path / "deep.tif", indices.astype(np.int32))
    save(tmp_path / "rgb.png", np.stack([indices] * 3, -1))
    save(tmp_path / "rgba.png", np.stack([indices] * 3 + [np.full_like(indices, 255)], -1))
    # White objects on nothing: transparent pixels are background whatever their colour.
    save(tmp_path / "alpha.png", np.stack([np.full_like(indices, 2)] * 3 + [(indices == 2) * np.uint8(255)], -1))
    for path in tmp_path.iterdir():
        expected = np.where(indices == 2, 2, 0) if path.name == "alpha.png" else indices
        mask = read_mask(path)
        assert mask.dtype == np.int32
        assert np.array_equal(mask, expected), path.name
    Image.fromarray(indices > 0).save(tmp_path / "bits.png")
    assert np.array_equal(read_mask(tmp_path / "bits.png"), 255 * (indices > 0))


def test_colours_are_instances_but_no_classes(tmp_path):
    images, _ = write_folder(tmp_path, count=5)
    colours = np.zeros((18, 22, 4), dtype=np.uint8)
    colours[..., 3] = 255
    # Blue 1 must not pass for class 1.
    colours[2:8, 2:8, :3], colours[2:8, 8:14, :3], colours[12:16, 3:9, :3] = (0, 0, 1), (200, 10, 0), (9, 9, 9)
    for path in (tmp_path / "masks").glob("*.tif"):
        path.unlink()
        save(path.with_suffix(".png"), colours)
    message = refused(ValueError, load_image_mask_folder, tmp_path, 1, 1)
    assert "cell.000.png must hold classes 0..1 or 0 and 255, got colours" in message
    splits = load_image_mask_folder(tmp_path, 1, 1, instance_masks=True)
    split = with_instances(splits.train)
    labels = split.instances[0]
    assert labels.unique().numel() == 4
    for window in (labels[2:8, 2:8], labels[2:8, 8:14], labels[12:16, 3:9]):
        assert window.unique().numel() == 1
    assert int((labels > 0).sum()) == 36 + 36 + 24
    # The gap: one column of each of the two that touch.
    assert int(split.targets[0].sum()) == 30 + 30 + 24


def test_several_classes_and_their_instances(tmp_path):
    images, masks = write_folder(tmp_path)
    masks = masks + (np.arange(22) > 10) * masks
    for number, mask in enumerate(masks):
        save(tmp_path / "masks" / f"cell.{number:03}.tif", mask.astype(np.uint8))
    assert "got 2" in refused(ValueError, load_image_mask_folder, tmp_path, 1, 1)
    splits = load_image_mask_folder(tmp_path, 1, 1, classes=("background", "left", "right"))
    split = with_instances(splits.train)
    for mask, instances in zip(split.targets, split.instances, strict=True):
        for number in instances.unique().tolist():
            assert mask[instances == number].unique().numel() == 1
    message = refused(ValueError, load_image_mask_folder, tmp_path, 1, 1, ("a", "b", "c"), instance_masks=True)
    assert "2 classes, got 3" in message


def test_images_of_many_kinds(tmp_path):
    random = np.random.RandomState(4)
    grey = random.randint(0, 256, (18, 22)).astype(np.uint8)
    colour = random.randint(0, 256, (18, 22, 3)).astype(np.uint8)
    deep = random.randint(0, 65_536, (18, 22)).astype(np.uint16)
    save(tmp_path / "grey.png", grey)
    save(tmp_path / "grey_alpha.png", grey, "LA")
    save(tmp_path / "grey_lzw.tif", grey)
    save(tmp_path / "colour.png", colour)
    save(tmp_path / "colour_alpha.png", colour, "RGBA")
    save(tmp_path / "deep.png", deep)
    save(tmp_path / "deep.tif", deep)
    tifffile.imwrite(tmp_path / "deep_big_endian.tif", deep, byteorder=">")
    palette = Image.fromarray(grey)
    palette.putpalette(random.randint(0, 256, 768).tolist())
    palette.save(tmp_path / "palette.png")
    for path in tmp_path.iterdir():
        kind = path.name.partition(".")[0].partition("_")[0]
        expected = {"grey": grey, "colour": colour, "deep": deep, "palette": np.asarray(palette.convert("RGB"))}[kind]
        image = read_image(path)
        assert image.dtype == expected.dtype and np.array_equal(image, expected), path.name
    tifffile.imwrite(tmp_path / "colour16.tif", colour.astype(np.uint16), photometric="rgb")
    assert "colour16.tif must have 8 bits" in refused(ValueError, read_image, tmp_path / "colour16.tif")
    tifffile.imwrite(tmp_path / "float.tif", grey.astype(np.float32))
    assert "float.tif must be grey" in refused(ValueError, read_image, tmp_path / "float.tif")


def test_colour_images_and_16_bit_images_make_splits(tmp_path):
    images, _ = write_folder(tmp_path, count=5)
    for number, image in enumerate(images):
        save(tmp_path / "images" / f"cell.{number:03}.png", np.stack([image, image // 2, 255 - image], -1))
    splits = load_image_mask_folder(tmp_path, 1, 1)
    assert splits.train.images.shape == (3, 3, 18, 22)
    rows = rows_of(splits, images)["train"]
    assert np.array_equal(splits.train.images[:, 2].numpy(), 255 - images[rows])
    for number, image in enumerate(images):
        # What the other splits hold must not matter to the scale.
        gain = 16 if number in rows else 200
        save(tmp_path / "images" / f"cell.{number:03}.png", image.astype(np.uint16) * gain)
    splits = load_image_mask_folder(tmp_path, 1, 1)
    assert splits.train.images.shape == (3, 1, 18, 22)
    low, high = np.percentile(images[rows].astype(np.uint16) * 16, [0.1, 99.9], method="inverted_cdf")
    assert f"16-bit grey values {low}..{high}" in splits.notes


def test_jpeg_is_called_lossy(tmp_path):
    images, _ = write_folder(tmp_path, count=4)
    (tmp_path / "images" / "cell.001.png").unlink()
    save(tmp_path / "images" / "cell.001.jpg", images[1])
    assert "lossy JPEG" in load_image_mask_folder(tmp_path, 1, 1).notes


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_one_bad_file_among_hundreds_is_named(tmp_path):
    write_folder(tmp_path, count=300)
    image, mask = tmp_path / "images" / "cell.217.png", tmp_path / "masks" / "cell.217.tif"
    good_image, good_mask = image.read_bytes(), mask.read_bytes()

    for data in (b"", b"no image", good_image[:-40], good_image[:50] + bytes(60) + good_image[110:]):
        image.write_bytes(data)
        assert f"{image} cannot be read as an image" in refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)
    image.write_bytes(good_image)
    mask.write_bytes(good_mask[:100])
    assert f"{mask} cannot be read as an image" in refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)
    save(mask, np.full((18, 22), 200, np.uint8))
    message = refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)
    assert f"{mask} must hold classes 0..1 or 0 and 255, got 200" in message
    save(mask, np.ones((18, 23), np.uint8))
    message = refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)
    assert f"{image} (18x22) and its mask {mask} (18x23) must be of one size" in message
    save(image, np.ones((18, 22), np.uint16))
    save(mask, np.ones((18, 22), np.uint8))
    message = refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)
    assert "cell.000.png is uint8" in message and f"{image} is uint16" in message
    half = np.full((18, 22, 4), 128, np.uint8)
    mask.unlink()
    save(mask.with_suffix(".png"), half)
    message = refused(ValueError, read_mask, mask.with_suffix(".png"))
    assert "opaque or fully transparent" in message
    mask.with_suffix(".png").unlink()
    message = refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)
    assert f"{image} has no mask" in message and "cell.217.*" in message and "(300 images, 299 masks)" in message
    image.unlink()
    save(tmp_path / "masks" / "stray.png", np.ones((18, 22), np.uint8))
    assert "stray.png has no image" in refused(ValueError, load_image_mask_folder, tmp_path, 20, 20)


def test_folders_that_are_missing_empty_or_ambiguous_are_refused(tmp_path):
    assert "images is missing" in refused(FileNotFoundError, load_image_mask_folder, tmp_path, 1, 1)
    (tmp_path / "images").mkdir()
    assert "images holds no .jpg" in refused(FileNotFoundError, load_image_mask_folder, tmp_path, 1, 1)
    images, _ = write_folder(tmp_path, count=4)
    for counts in ((0, 1), (1, 0), (2, 2), (3, 1)):
        message = refused(ValueError, load_image_mask_folder, tmp_path, *counts)
        assert "leave some of the 4 images" in message
    save(tmp_path / "images" / "cell.001.bmp", images[1])
    message = refused(ValueError, load_image_mask_folder, tmp_path, 1, 1)
    assert "cell.001.bmp" in message and "cell.001.png share a name" in message


def test_images_of_one_grey_value_have_no_scale():
    assert "vary in grey value" in refused(ValueError, ByteScaling.of, np.full((2, 1, 4, 4), 700, np.uint16))


# Synthetic cells


def test_what_clipping_leaves_of_a_cell_is_its_largest_piece():
    instances, expected = np.zeros((2, 40, 40), dtype=np.int32)
    # 3 falls into 10, 100 and 45 pixels, 1 is too small, 2 is missing, 4 is whole and touches 3.
    instances[0:2, 0:5], instances[5:15, 0:10], instances[20:25, 0:9] = 3, 3, 3
    instances[30:33, 30:43], instances[5:15, 10:20] = 1, 4
    expected[5:15, 0:10], expected[5:15, 10:20] = 1, 2
    assert np.array_equal(largest_pieces(instances), expected)


@pytest.mark.parametrize("seed", range(4))
def test_each_instance_is_one_component_and_some_touch(seed):
    instances = draw_instances(np.random.RandomState(seed), 40, 192)
    count = int(instances.max())
    assert count > 30
    assert set(np.unique(instances)) == set(range(count + 1))
    for number in range(1, count + 1):
        assert ndimage.label(instances == number)[1] == 1
    pairs = set()
    for one, other in ((instances[1:], instances[:-1]), (instances[:, 1:], instances[:, :-1])):
        contact = (one != other) & (one > 0) & (other > 0)
        pairs |= {frozenset(pair) for pair in zip(one[contact].tolist(), other[contact].tolist(), strict=True)}
    assert len(pairs) > 10
    # Foreground alone cannot tell the cells apart, the mask with gaps can.
    assert ndimage.label(instances > 0)[1] < 0.7 * count
    assert ndimage.label(separate_touching(instances) > 0, structure=np.ones((3, 3)))[1] >= 0.95 * count


def test_synthetic_cells_are_brighter_than_background_and_say_synthetic():
    splits = load_touching_cells(2, 1, 1, size=128, cells=20)
    assert [len(split) for split in splits.named().values()] == [2, 1, 1]
    split = with_instances(splits.train)
    assert split.images.shape == (2, 1, 128, 128)
    assert (
        split.images[:, 0][split.targets == 1].float().mean()
        > 2 * split.images[:, 0][split.instances == 0].float().mean()
    )
    assert np.array_equal(split.targets[1].numpy(), separate_touching(split.instances[1].numpy()) > 0)
    assert "synthetic" in splits.notes and "synthetic" in splits.classes[1]


def test_synthetic_cells_depend_on_the_seed_alone():
    splits = load_touching_cells(2, 2, 1, size=96, cells=12, seed=1)
    np.random.seed(0)
    torch.manual_seed(0)
    more = load_touching_cells(3, 2, 2, size=96, cells=12, seed=1)
    assert torch.equal(more.train.images[:2], splits.train.images)
    assert torch.equal(with_instances(more.train).instances[:2], with_instances(splits.train).instances)
    assert torch.equal(more.val.images, splits.val.images)
    other = load_touching_cells(2, 2, 1, size=96, cells=12, seed=2)
    fields = [image for loaded in (splits, other) for split in loaded.named().values() for image in split.images]
    for index, image in enumerate(fields):
        assert not any(torch.equal(image, later) for later in fields[index + 1 :])
    first = np.random.RandomState(mix_seed("touching_cells train", 1, 0) % 2**32)
    assert np.array_equal(draw_instances(first, 12, 96), with_instances(splits.train).instances[0].numpy())


@pytest.mark.parametrize("arguments", [{"size": 32}, {"cells": 1}, {"val_count": 0}])
def test_impossible_synthetic_cells_are_refused(arguments):
    assert "size must be at least 64 pixels" in refused(ValueError, load_touching_cells, **arguments)
