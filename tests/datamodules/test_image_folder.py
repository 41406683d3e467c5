"""Folders of one's own photographs, a folder for each class."""

import io
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.data_files import one_line, photographs

from datamodules.readers.splits import Splits
from datamodules.sources.image_folder import load_image_folder


def load(root: Path, cache: Path, **changes: float) -> Splits:
    arguments: dict = {"image_size": [24, 32], "in_channels": 3, "cache_dir": cache} | changes
    return load_image_folder(root, **arguments)


def colours(splits: Splits, part: str) -> list[tuple[int, ...]]:
    """The mean colour of each image, which tells its class and number."""
    means = splits.named()[part].images.double().mean((2, 3)).round().int()
    return [tuple(row) for row in means.tolist()]


def test_a_folder_for_each_class_is_split_by_names_alone(tmp_path: Path) -> None:
    root = photographs(tmp_path / "here", {"cats": 20, "dogs": 20})
    splits = load(root, tmp_path / "cache")
    assert splits.classes == ("cats", "dogs")
    assert {name: Counter(split.targets.tolist()) for name, split in splits.named().items()} == {
        "train": {0: 14, 1: 14}, "val": {0: 3, 1: 3}, "test": {0: 3, 1: 3},
    }  # fmt: skip
    assert splits.train.images.shape == (28, 3, 24, 32)
    every = [colour for part in ("train", "val", "test") for colour in colours(splits, part)]
    assert len(set(every)) == 40
    assert splits.remarks == ()
    elsewhere = load(photographs(tmp_path / "there", {"cats": 20, "dogs": 20}), tmp_path / "other")
    assert elsewhere.checksum() == splits.checksum()
    again = load(root, tmp_path / "cache")  # from the cache
    assert again.checksum() == splits.checksum() and len(list((tmp_path / "cache").iterdir())) == 1
    load(root, tmp_path / "cache", image_size=[16, 16])
    assert len(list((tmp_path / "cache").iterdir())) == 2
    # One more image moves few others: each part stays a part of the order by hash.
    more = load(photographs(root, {"cats": 21, "dogs": 20}), tmp_path / "cache")
    assert len(set(colours(more, "test")) & set(colours(splits, "test"))) >= 5


def test_folders_of_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    photographs(root / "train", {"cats": 10, "dogs": 10, "emus": 10})
    drawn = load(root, tmp_path / "cache")
    assert [len(split) for split in drawn.named().values()] == [18, 6, 6]  # 1.5 of ten is 2
    photographs(root / "valid", {"cats": 4, "dogs": 4})
    splits = load(root, tmp_path / "cache")
    assert [len(split) for split in splits.named().values()] == [24, 6, 8]
    assert "has no test/: valid/ is the test set" in splits.remarks[0]
    photographs(root / "test", {"cats": 2, "dogs": 5, "emus": 1})
    splits = load(root, tmp_path / "cache")
    assert [len(split) for split in splits.named().values()] == [30, 8, 8]
    assert splits.remarks == tuple(
        f"8 of 8 {part} images are training images, too, equal in every pixel" for part in ("validation", "test")
    )
    assert splits.test.targets.tolist() == [0] * 2 + [1] * 5 + [2] and splits.val.targets.tolist() == [0] * 4 + [1] * 4
    assert splits.notes == ""
    photographs(root / "testing", {"cats": 2, "dogs": 2})
    assert load(root, tmp_path / "cache").remarks[0] == (
        f"{root}: testing/ beside train/ left out; parts are called train/, val/ and test/"
    )
    photographs(root / "validation", {"cats": 4, "dogs": 4})
    with pytest.raises(ValueError, match="pets holds valid/ and validation/; keep one of them"):
        load(root, tmp_path / "cache")
    # A class may have the name of a part.
    vehicles = photographs(tmp_path / "vehicles", {"car": 4, "train": 4})
    assert load(vehicles, tmp_path / "cache").classes == ("car", "train")


def test_images_are_scaled_and_their_centre_is_taken(tmp_path: Path) -> None:
    root = photographs(tmp_path / "pets", {"a": 3, "b": 3})
    picture = np.zeros((40, 120, 3), dtype=np.uint8)
    picture[:, 30:90] = (200, 100, 0)  # the centre that a shape of 2 to 3 leaves
    for file in [*(root / "a").iterdir()]:
        Image.fromarray(picture).save(file.with_suffix(".png"))
        file.unlink()
    splits = load(root, tmp_path / "cache", image_size=[20, 30])
    images = torch.cat([split.images[split.targets == 0] for split in splits.named().values()])
    assert (images == torch.tensor([200, 100, 0], dtype=torch.uint8)[:, None, None]).all()
    grey = load(root, tmp_path / "cache", image_size=[20, 30], in_channels=1)
    [pixel] = {int(value) for value in grey.test.images[grey.test.targets == 0].unique()}
    assert pixel == round(0.299 * 200 + 0.587 * 100)


def test_stray_files_are_skipped_and_counted(tmp_path: Path) -> None:
    root = photographs(tmp_path / "pets", {"cats": 4, "dogs": 4})
    plain = load(root, tmp_path / "cache")
    for name in (".DS_Store", "cats/._0.jpg", "cats/Thumbs.db", "dogs/.nfs0000a", "dogs/desktop.ini"):
        (root / name).write_bytes(b"x")
    (root / ".ipynb_checkpoints").mkdir()
    (root / "labels.csv").write_text("beside the classes")
    splits = load(root, tmp_path / "cache")
    assert splits.checksum() == plain.checksum() and splits.classes == ("cats", "dogs")
    assert "6 stray files skipped" in splits.notes and "stray" not in plain.notes


def test_grey_among_colour_becomes_rgb_and_is_said(tmp_path: Path) -> None:
    root = photographs(tmp_path / "pets", {"cats": 4, "dogs": 4})
    Image.open(root / "cats" / "0.jpg").convert("L").save(root / "cats" / "0.jpg")
    assert "1 of 8 images are grey and become RGB" in load(root, tmp_path / "cache").notes
    assert "1 of 8 images are grey and become RGB" in load(root, tmp_path / "cache").notes  # from the cache
    assert "grey" not in load(root, tmp_path / "cache", in_channels=1).notes


def damage(root: Path, kind: str) -> None:
    cats = root / "cats"
    match kind:
        case "dangling class":
            os.symlink("/nowhere/emus", root / "emus")
        case "another format":
            (cats / "1.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
        case "dangling link":
            os.symlink("/nowhere/x.jpg", cats / "link.jpg")
        case "no image":
            (cats / "notes.txt").write_text("x")
        case "camera":
            (cats / "IMG_1.HEIC").write_bytes(b"x")
        case "folder":
            (cats / "more").mkdir()
        case "empty class":
            (root / "emus").mkdir()
        case "two images":
            for number in (2, 3):
                (cats / f"{number}.jpg").unlink()
        case "damaged":
            (cats / "1.jpg").write_bytes((cats / "1.jpg").read_bytes()[:200])
        case "damaged PNG":
            file = io.BytesIO()
            Image.open(cats / "1.jpg").save(file, "PNG")
            content = bytearray(file.getvalue())
            content[len(content) // 2] ^= 255
            (cats / "1.png").write_bytes(content)
        case "16 bits":
            Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(cats / "deep.png")
        case "16-bit colours":
            tifffile.imwrite(cats / "deep.tif", np.full((8, 8, 3), 4000, dtype=np.uint16), photometric="rgb")
        case "flat":
            (cats / "0.jpg").rename(root / "0.jpg")
        case "one class":
            (root / "dogs").rename(root.parent / "dogs")
        case "no UTF-8":
            os.mkdir(os.fsencode(root) + b"/caf\xe9")
        case "pairs":
            cats.rename(root / "images")
            (root / "dogs").rename(root / "masks")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dangling class", "pets/emus is a link to /nowhere/emus, which is not there"),
        (
            "another format",
            "cats/1.jpg cannot be read as an image (of no known format, whatever its name says); convert it",
        ),
        ("dangling link", "cats/link.jpg is a link to /nowhere/x.jpg, which is not there"),
        ("no image", "cats/notes.txt is no .jpg, .jpeg, .png"),
        ("camera", "cats/IMG_1.HEIC is no .jpg, .jpeg, .png"),
        (
            "folder",
            "cats/more is a folder: a class folder holds images alone; folders of classes may lie in train/, val/ and",
        ),
        ("empty class", "emus holds no images"),
        ("two images", "pets/cats holds 2 images, train, val, test need one each at least"),
        ("damaged", "cats/1.jpg cannot be read as an image"),
        ("damaged PNG", "cats/1.png cannot be read as an image"),
        ("16 bits", "cats/deep.png must have 8 bits a channel"),
        ("16-bit colours", "cats/deep.tif must have 8 bits a channel, got 16; convert it"),
        ("flat", "pets/0.jpg is in no class; put the images of each class into a folder of its own"),
        ("pairs", "pets holds images and their masks, not a folder for each class: data=image_mask_folder"),
        ("no UTF-8", "pets/caf\\xe9: the name of a class must be UTF-8; rename the folder"),
        ("one class", "pets must hold a folder for each of two classes or more, got 1"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str, message: str) -> None:
    root = photographs(tmp_path / "pets", {"cats": 4, "dogs": 4})
    damage(root, kind)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load(root, tmp_path / "cache")
    assert message in one_line(error)
    assert not list(tmp_path.glob("cache/image_folder*"))


def test_a_damaged_image_of_a_part_is_named_by_its_whole_path(tmp_path: Path) -> None:
    for part in ("train", "test"):
        photographs(tmp_path / "pets" / part, {"cats": 4, "dogs": 4})
    damage(tmp_path / "pets" / "test", "damaged")
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        load(tmp_path / "pets", tmp_path / "cache")
    assert one_line(error).startswith(f"{tmp_path}/pets/test/cats/1.jpg cannot")


def test_names_of_files_need_be_no_utf_8_and_folders_that_are_left_out_neither(tmp_path: Path) -> None:
    root = photographs(tmp_path / "pets" / "train", {"cats": 4, "dogs": 4})
    os.rename(root / "cats" / "0.jpg", os.fsencode(root) + b"/cats/caf\xe9.jpg")
    os.mkdir(os.fsencode(root.parent) + b"/caf\xe9")
    splits = load(root.parent, tmp_path / "cache")
    assert sum(len(split) for split in splits.named().values()) == 8 and len(splits.checksum()) == 64
    assert splits.remarks[0].startswith(f"{root.parent}: caf\\xe9/ beside train/ left out")


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_a_class_is_named(tmp_path: Path, part: str) -> None:
    photographs(tmp_path / "pets" / "train", {"cats": 4, "dogs": 4})
    (tmp_path / "pets" / part).mkdir()
    with pytest.raises(ValueError, match=f"pets/{part} holds no folder of a class; put its images there, or remove it"):
        load(tmp_path / "pets", tmp_path / "cache")


def test_fractions_that_leave_nothing_are_named(tmp_path: Path) -> None:
    photographs(tmp_path / "pets", {"cats": 4, "dogs": 4})
    for val, test in ((0, 0.2), (2, 0.2), (0.5, 0.5)):
        with pytest.raises(
            ValueError, match=f"data.val_fraction and data.test_fraction.* less than 1, got {val} and {test}"
        ):
            load(tmp_path / "pets", tmp_path / "cache", val_fraction=val, test_fraction=test)
    with pytest.raises(
        ValueError, match="pets/cats holds 4 images, and 4 of them would be held out; lower data.val_fr"
    ):
        load(tmp_path / "pets", tmp_path / "cache", val_fraction=0.49, test_fraction=0.49)


def test_a_part_that_leads_nowhere_is_not_drawn_from_the_others(tmp_path: Path) -> None:
    photographs(tmp_path / "pets" / "train", {"cats": 4, "dogs": 4})
    os.symlink("/nowhere/test", tmp_path / "pets" / "test")
    with pytest.raises(FileNotFoundError, match="pets/test is a link to /nowhere/test, which is not there"):
        load(tmp_path / "pets", tmp_path / "cache")


def test_photographs_stored_on_their_side_are_those_that_are_upright(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it to the right
    for name in ("cats", "dogs"):
        for folder in ("upright", "sideways"):
            (tmp_path / folder / name).mkdir(parents=True)
        for number in range(4):
            shown = random.randint(0, 256, (30, 44, 3)).astype(np.uint8)
            Image.fromarray(shown).save(tmp_path / "upright" / name / f"{number}.png")
            stored = np.ascontiguousarray(np.rot90(shown))  # to the left
            Image.fromarray(stored).save(tmp_path / "sideways" / name / f"{number}.png", exif=exif)
    upright, sideways = (load(tmp_path / folder, tmp_path / "cache") for folder in ("upright", "sideways"))
    assert sideways.checksum() == upright.checksum()
    assert [len(split) for split in upright.named().values()] == [4, 2, 2]


def test_a_class_of_a_part_that_train_does_not_have_is_named(tmp_path: Path) -> None:
    photographs(tmp_path / "train", {"cats": 4, "dogs": 4})
    photographs(tmp_path / "test", {"cats": 1, "emus": 1})
    with pytest.raises(ValueError, match="test/emus is of a class that .*train does not have"):
        load(tmp_path, tmp_path / "cache")


def test_links_into_a_pool_are_of_the_class_whose_folder_holds_them_now(tmp_path: Path) -> None:
    pool = photographs(tmp_path, {"pool": 12}) / "pool"
    images = sorted(pool.iterdir())

    for cats in (6, 8):  # the same images in the same order
        shutil.rmtree(tmp_path / "pets", ignore_errors=True)
        for number, image in enumerate(images):
            folder = tmp_path / "pets" / ("cats" if number < cats else "dogs")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / image.name).symlink_to(image)
        splits = load(tmp_path / "pets", tmp_path / "cache")
        labels = torch.cat([split.targets for split in splits.named().values()])
        assert labels.bincount().tolist() == [cats, 12 - cats]
