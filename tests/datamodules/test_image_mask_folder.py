"""Folders of images and masks as people have them."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageFile
from support.data_files import one_line
from torch import nn

from datamodules.augmentation.elastic import Elastic
from datamodules.augmentation.weight_map import border_weights
from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.image_files import open_stored
from datamodules.readers.instances import InstanceSplit, components
from datamodules.readers.masks import class_mask
from datamodules.readers.pairs import image_mask_pairs
from datamodules.readers.splits import Splits
from datamodules.sources.image_mask_folder import load_image_mask_folder

SIZES = [(20, 30), (33, 18), (26, 26), (20, 30), (41, 19), (18, 22)]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pair_of(number: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(number)
    image = random.randint(1, 256, size).astype(np.uint8)
    mask = np.zeros(size, dtype=np.uint8)
    mask[2 : 4 + number, 3:9] = mask[12:16, 10:15] = 255
    return image, mask


def write_folder(root: Path, sizes: list[tuple[int, int]] = SIZES) -> Path:
    for number, size in enumerate(sizes):
        image, mask = pair_of(number, size)
        write(root / "images" / f"{number}.png", image)
        write(root / "masks" / f"{number}.png", mask)
    return root


def by_size(splits: Splits) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Image, mask and instances of every image, by their first pixel and size."""
    found = {}
    for split in splits.named().values():
        assert isinstance(split, InstanceSplit)
        for row in range(len(split)):
            place = (row, ..., *split.extent(row))
            image, mask, instances = (part[place].numpy() for part in (split.images, split.targets, split.instances))
            found[(int(image[0, 0, 0]), *mask.shape)] = image, mask, instances
    return found


def test_images_of_different_sizes_keep_their_pixels_and_their_size(tmp_path: Path) -> None:
    splits = load_image_mask_folder(write_folder(tmp_path), 1, 2)
    found = by_size(splits)
    assert len(found) == len(SIZES)
    for number, size in enumerate(SIZES):
        image, mask = pair_of(number, size)
        read = found[(int(image[0, 0]), *size)]
        assert np.array_equal(read[0][0], image) and np.array_equal(read[1], mask // 255)
        assert np.array_equal(read[2], components(mask // 255))
    areas = [read[1].size for read in by_size(Splits(splits.train, splits.train, splits.train, ("a", "b"))).values()]
    assert splits.foreground() == int(splits.train.targets.sum()) / sum(areas)


ELASTIC = {"input_size": [16, 16], "output_size": [16, 16], "displacement": 2}


def module_of(splits: Splits, tmp_path: Path, border: dict | None = None, **changes: int) -> InMemoryDataModule:
    arguments = {"batch_size": 3, "eval_batch_size": 1} | changes
    augment = {"elastic": ELASTIC, "border_weights": border}
    module = InMemoryDataModule(
        lambda: splits, augment=augment, mean=None, std=None, seed=1, cache_dir=tmp_path / "cache", **arguments
    )
    module.setup()
    return module


def test_tiles_of_images_of_different_sizes_are_those_of_each_alone(tmp_path: Path) -> None:
    splits = load_image_mask_folder(write_folder(tmp_path), 1, 2)
    train = splits.train
    assert isinstance(train, InstanceSplit)
    module = module_of(splits, tmp_path, {"w0": 10, "sigma": 5})
    pixels = torch.cat([train.images[(row, ..., *train.extent(row))].flatten() for row in range(3)]).double() / 255
    assert module.mean == pytest.approx([pixels.mean().item()]) and module.std == pytest.approx([pixels.std().item()])
    targets = torch.cat([train.targets[(row, *train.extent(row))].flatten() for row in range(3)])
    balance = len(targets) / (2 * torch.bincount(targets.long()).double())

    loader = module.train_dataloader()
    rows = next(iter(loader.sampler)).rows
    batch = next(iter(loader))
    elastic = Elastic(**ELASTIC)
    for place, row in enumerate(rows.tolist()):
        part = (slice(row, row + 1), ..., *train.extent(row))
        mask = train.targets[part]
        border = border_weights((train.instances[part][0] * (mask[0] != 0)).numpy(), 10, 5)
        weights = balance[mask.long()].float() + torch.from_numpy(border)[None]
        expected = elastic.apply(train.images[part], mask, weights, elastic.draw(1, 0, [row]))
        image = (expected.images / 255 - module.mean[0]) / module.std[0]
        assert torch.allclose(batch.images[place], image[0], atol=1e-5)
        assert torch.equal(batch.targets[place], expected.targets[0].long())
        assert torch.allclose(batch.weights[place], expected.weights[0], rtol=1e-5)


def test_training_images_of_different_sizes_are_seen_without_what_belongs_to_none(tmp_path: Path) -> None:
    train = load_image_mask_folder(write_folder(tmp_path), 1, 2).train
    module = module_of(load_image_mask_folder(tmp_path, 1, 2), tmp_path)
    images = list(module.training_images(3, batch_size=2))
    assert len(images) == len(train) == 3
    for row, image in enumerate(images):
        pixels = train.images[(row, ..., *train.extent(row))]
        assert torch.allclose(image[0], (pixels / 255 - module.mean[0]) / module.std[0], atol=1e-5)
    values = torch.cat([image.flatten() for image in images])
    assert values.mean().abs() < 1e-5 and values.std() == pytest.approx(1, abs=1e-5)


def test_images_of_different_sizes_are_evaluated_each_once_in_its_own_size(tmp_path: Path) -> None:
    splits = load_image_mask_folder(write_folder(tmp_path), 1, 2)
    module = module_of(splits, tmp_path)
    batches = list(module.test_dataloader())
    sizes = [tuple(splits.test.targets[(row, *splits.test.extent(row))].shape) for row in range(2)]
    assert [tuple(batch.images.shape) for batch in batches] == [(1, 1, *size) for size in sizes]
    assert [tuple(batch.targets.shape) for batch in batches] == [(1, *size) for size in sizes]
    assert [tuple(batch.instances.shape) for batch in batches] == [(1, *size) for size in sizes]
    with pytest.raises(ValueError, match="images of different sizes need data.eval_batch_size=1, got 2"):
        module_of(splits, tmp_path, eval_batch_size=2)
    whole = InMemoryDataModule(lambda: splits, 1, 1, {"horizontal_flip": True}, None, None, seed=0)
    with pytest.raises(ValueError, match="of different sizes: a recipe that cuts tiles out of them is needed") as error:
        whole.setup()
    one_line(error)


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    opened: Counter[bytes] = Counter()

    def counting(encoded: bytes) -> ImageFile.ImageFile:
        opened[encoded] += 1
        return open_stored(encoded)

    monkeypatch.setattr("datamodules.readers.image_files.open_stored", counting)
    load_image_mask_folder(tmp_path, 1, 2)
    assert opened == Counter(path.read_bytes() for path in tmp_path.glob("*/*.png")) and len(opened) == 2 * len(SIZES)


def test_images_that_their_camera_turned_are_counted(tmp_path: Path) -> None:
    image, mask = pair_of(0, (20, 30))
    exif = Image.Exif()
    for number in range(6):
        exif[0x0112] = 1 if number % 2 else 3
        write(tmp_path / "masks" / f"{number}.png", mask)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image + number).save(tmp_path / "images" / f"{number}.png", exif=exif)
    said = "3 of 6 images were turned as their camera noted (EXIF): masks are taken to fit the turned ones"
    assert load_image_mask_folder(tmp_path, 1, 2).remarks == (said,)
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    for number in (0, 2, 4):  # masks that are turned likewise
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png", exif=upside_down)
    assert load_image_mask_folder(tmp_path, 1, 2).remarks == ()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "images" / "0.png", exif=exif)
    said = r"0.png, turned as its camera noted \(EXIF\), \(30x20\) and its mask .*0.png \(20x30\) must be of one size"
    with pytest.raises(ValueError, match=said):
        load_image_mask_folder(tmp_path, 1, 2)


def test_an_image_that_is_there_twice_is_counted_where_train_and_another_part_have_it(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert load_image_mask_folder(tmp_path, 1, 2).remarks == ()
    for number, size in enumerate(SIZES):
        image, mask = pair_of(number, size)
        write(tmp_path / "images" / f"{number} (1).png", image)
        write(tmp_path / "masks" / f"{number} (1).png", mask)
    splits = load_image_mask_folder(tmp_path, 1, 5)
    images = {
        part: [split.images[(row, ..., *split.extent(row))].numpy().tobytes() for row in range(len(split))]
        for part, split in splits.named().items()
    }
    count = sum(image in images["train"] for image in images["test"])
    assert count and splits.remarks == (
        "1 of 1 validation images are training images, too, equal in every pixel",
        f"{count} of 5 test images are training images, too, equal in every pixel",
    )


def test_folders_beside_those_of_parts_are_named(tmp_path: Path) -> None:
    for part in ("train", "testing", "More"):
        write_folder(tmp_path / part)
    assert load_image_mask_folder(tmp_path, 1, 2).remarks == (
        f"{tmp_path}: More/, testing/ beside train/ left out; parts are called train/, val/ and test/",
    )


def test_counts_that_are_drawn_are_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.val_count and data.test_count must be positive .* got 1 and None"):
        load_image_mask_folder(write_folder(tmp_path), 1, None)  # data.test_count=null


def test_more_objects_than_their_score_counts_are_remarked(tmp_path: Path) -> None:
    write_folder(tmp_path, [(40, 40)] * 6)
    for number in range(6):
        mask = np.zeros((40, 40), np.uint8)
        mask[: 38 if number else 20 : 2, :38:2] = 255
        write(tmp_path / "masks" / f"{number}.png", mask)
    module = InMemoryDataModule(lambda: load_image_mask_folder(tmp_path, 1, 2), 2, 2, {}, None, None, seed=0)
    counts = [len(labels.unique()) - 1 for labels in module.splits.test.instances]
    assert set(counts) <= {190, 361} and module.remarks() == [
        f"2 of 2 test images hold more than 100 objects, up to {max(counts)}: AP counts the 100 surest that are found in an "
        "image, so that it cannot be 1"
    ]


def test_greys_in_three_equal_channels_are_grey_where_one_channel_is_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path)
    expected = load_image_mask_folder(tmp_path, 1, 2, in_channels=1)
    for number in (1, 4):
        write(tmp_path / "images" / f"{number}.png", np.stack([pair_of(number, SIZES[number])[0]] * 3, -1))
    found = load_image_mask_folder(tmp_path, 1, 2, in_channels=1)
    assert found.checksum() == expected.checksum() and found.notes == expected.notes


def test_grey_and_colour_side_by_side(tmp_path: Path) -> None:
    write_folder(tmp_path)
    image, _ = pair_of(2, SIZES[2])
    colour = np.stack([image, image // 2, 255 - image], -1)
    write(tmp_path / "images" / "2.png", colour)
    splits = load_image_mask_folder(tmp_path, 1, 2, in_channels=3)
    assert "5 of 6 images are grey and become RGB" in splits.notes
    found = by_size(splits)
    assert np.array_equal(found[(int(image[0, 0]), *SIZES[2])][0], colour.transpose(2, 0, 1))
    grey, _ = pair_of(1, SIZES[1])
    assert np.array_equal(found[(int(grey[0, 0]), *SIZES[1])][0], np.stack([grey] * 3))
    with pytest.raises(ValueError, match="images/2.png is a colour image: data.in_channels=3 takes colours"):
        load_image_mask_folder(tmp_path, 1, 2, in_channels=1)
    module = module_of(splits, tmp_path)
    slices, _ = module.read_slices(tmp_path / "images" / "1.png", 3, None)
    assert slices.shape == (1, 3, *SIZES[1])


def test_a_number_of_classes_is_enough_and_values_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for number, size in enumerate(SIZES):
        write(tmp_path / "masks" / f"{number}.png", pair_of(number, size)[1] // 255 * (1 + number % 2))
    splits = load_image_mask_folder(tmp_path, 1, 2, classes=3)
    assert splits.classes == ("background", "1", "2")
    assert {int(value) for split in splits.named().values() for value in split.targets.unique()} == {0, 1, 2}
    with pytest.raises(ValueError) as error:
        load_image_mask_folder(tmp_path, 1, 2, classes=2)
    assert "masks/1.png must hold classes 0..1 or 0 and 255, got 2" in one_line(error)
    assert one_line(error).endswith("all masks together hold 0, 1, 2: data.num_classes=3")
    write(tmp_path / "masks" / "1.png", pair_of(1, SIZES[1])[1] // 255 * 85)
    with pytest.raises(ValueError, match="got 85; all masks together hold 0, 1, 2, 85$"):
        load_image_mask_folder(tmp_path, 1, 2, classes=3)


@pytest.mark.parametrize(
    ("image", "mask", "suffix"),
    [
        ("a.png", "a.png", None),
        ("a.jpg", "a_mask.gif", None),
        ("a.png", "a_seg.png", "_seg"),
        ("a_0000.png", "a.png", None),
        ("a_0007.png", "a_0007.png", None),
        ("a.ome.png", "a.ome.png", None),
        ("a.ome.tif", "a.png", None),
        ("a.webp", "a.webp", None),
        ("a.b.png", "a.b_mask.png", None),
    ],
)
def test_pairs_of_many_names(tmp_path: Path, image: str, mask: str, suffix: str | None) -> None:
    pixels, labels = pair_of(0, (20, 30))
    names = [(image.replace("a", letter, 1), mask.replace("a", letter, 1)) for letter in "pqrs"]
    for of_image, of_mask in names:
        write(tmp_path / "images" / of_image, pixels)
        write(tmp_path / "masks" / of_mask, np.stack([labels] * 3, -1) if mask.endswith("webp") else labels)
    if mask.endswith("webp"):  # lossless
        for _, of_mask in names:
            Image.fromarray(labels).save(tmp_path / "masks" / of_mask, lossless=True)
    pairs, others = image_mask_pairs(tmp_path, suffix)
    assert [(one.name, other.name) for one, other in pairs] == names and others == 0
    splits = load_image_mask_folder(tmp_path, 1, 1, mask_suffix=suffix)
    assert all(np.array_equal(target, labels // 255) for target in splits.train.targets.numpy())


def test_nnunets_folders_are_read_and_their_channels_refused(tmp_path: Path) -> None:
    pixels, labels = pair_of(0, (20, 30))
    for number in range(4):
        write(tmp_path / "imagesTr" / f"case{number}_0000.png", pixels)
        write(tmp_path / "labelsTr" / f"case{number}.png", labels)
    assert len(load_image_mask_folder(tmp_path, 1, 1).train) == 2
    write(tmp_path / "imagesTr" / "case2_0001.png", pixels)
    with pytest.raises(ValueError, match="case2_0001.png is another channel of an image with the mask .*case2.png"):
        load_image_mask_folder(tmp_path, 1, 1)


def test_names_that_do_not_fit_say_what_would(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "masks" / "3.png").rename(tmp_path / "masks" / "3_label.png")
    with pytest.raises(ValueError) as error:
        image_mask_pairs(tmp_path)
    assert "3.png has no mask" in one_line(error) and "must hold a file 3.* or 3_mask.* (6 images, 6 masks)" in str(
        error.value
    )
    assert "data.mask_suffix" in str(error.value)
    os.symlink("/nowhere/9.png", tmp_path / "images" / "9.png")
    with pytest.raises(FileNotFoundError, match="images/9.png is a link to /nowhere/9.png, which is not there"):
        image_mask_pairs(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing/images is missing, there is no such folder; put images into"):
        image_mask_pairs(tmp_path / "nothing")
    (tmp_path / "linked").mkdir()
    os.symlink("/nowhere/images", tmp_path / "linked" / "images")
    with pytest.raises(FileNotFoundError, match=r"it holds images \(a link that leads nowhere\); put images into"):
        image_mask_pairs(tmp_path / "linked")


def test_a_file_of_another_format_than_its_name_says_is_no_damaged_one(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "images" / "3.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(ValueError) as error:
        load_image_mask_folder(tmp_path, 1, 2)
    assert one_line(error) == (
        f"{tmp_path}/images/3.png cannot be read as an image (of no known format, whatever its name says); convert it to PNG "
        "or JPEG, or fetch it again"
    )


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    values = np.array([[0, 299]])
    with pytest.raises(ValueError, match="m.png may hold 256 classes, background included, got data.num_classes=300"):
        class_mask(values, tuple(map(str, range(300))), "m.png")
    assert class_mask(np.array([[0, 255]]), tuple(map(str, range(256))), "m.png").tolist() == [[0, 255]]


def test_images_without_objects_are_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path, [(20, 30)] * 8)
    for number in (1, 4, 6):
        write(tmp_path / "masks" / f"{number}.png", np.zeros((20, 30), np.uint8))
    splits = load_image_mask_folder(tmp_path, 2, 2)
    assert "3 of 8 masks are all background" in splits.notes
    assert all(split.targets.any() for split in splits.named().values())
    assert sum(int((split.targets.flatten(1).max(1).values == 0).sum()) for split in splits.named().values()) == 3
    instances = load_image_mask_folder(tmp_path, 2, 2, instance_masks=True)
    assert sum(int((split.targets.flatten(1).max(1).values == 0).sum()) for split in instances.named().values()) == 3
    for number in range(7):
        write(tmp_path / "masks" / f"{number}.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(ValueError, match="the masks of all .* images are empty, all background; annotate some objects"):
        load_image_mask_folder(tmp_path, 2, 2)


def test_sixteen_bits_of_different_sizes_are_scaled_by_their_own_pixels(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for number, size in enumerate(SIZES):
        write(tmp_path / "images" / f"{number}.png", pair_of(number, size)[0].astype(np.uint16) * 16 + 1000)
    splits = load_image_mask_folder(tmp_path, 1, 2)
    assert splits.grey_range is not None and splits.grey_range[0] >= 1016  # no zeros of what lies beyond an image
    tifffile.imwrite(tmp_path / "images" / "0.tif", np.zeros((20, 30), np.uint8))
    (tmp_path / "images" / "0.png").unlink()
    with pytest.raises(ValueError, match="all images must have as many bits: .*0.tif is uint8, .*1.png is uint16"):
        load_image_mask_folder(tmp_path, 1, 2)


def test_a_network_learns_from_images_of_different_sizes(tmp_path: Path) -> None:
    module = module_of(load_image_mask_folder(write_folder(tmp_path), 1, 2), tmp_path)
    net = nn.Conv2d(1, 2, 3, padding=1)
    for batch in module.train_dataloader():
        assert net(batch.images).shape == (3, 2, 16, 16)


@pytest.mark.parametrize(
    ("classes", "instances", "levels"), [(2, True, (9, 18)), (2, False, (255, 255)), (64, False, (9, 18))]
)
def test_a_mask_whose_values_jpeg_has_changed_is_refused(
    tmp_path: Path, classes: int, instances: bool, levels: tuple[int, int]
) -> None:
    write_folder(tmp_path)
    rows, columns = np.mgrid[:26, :26]
    discs = np.zeros((26, 26), dtype=np.uint8)  # two objects, of JPEG some twenty values
    for value, centre in zip(levels, (6, 18), strict=True):
        discs[(rows - centre) ** 2 + (columns - centre) ** 2 < 25] = value
    for number in range(len(SIZES)):
        write(tmp_path / "images" / f"{number}.png", pair_of(number, (26, 26))[0])
        write(tmp_path / "masks" / f"{number}.png", discs)
    found = load_image_mask_folder(tmp_path, 1, 1, classes, instances).train.instances
    assert len(np.unique(found[0])) == 1 + 2
    (tmp_path / "masks" / "3.png").unlink()
    write(tmp_path / "masks" / "3.jpg", discs)
    with pytest.raises(
        ValueError, match=r"3\.jpg is a JPEG, which changes the values of a mask; write .* as PNG or TIFF"
    ):
        load_image_mask_folder(tmp_path, 1, 1, classes, instances)
    if levels[0] == 255:  # blocks of one value stay as they are
        write(tmp_path / "masks" / "3.jpg", np.pad(np.full((8, 8), 255, dtype=np.uint8), ((8, 10), (8, 10))))
        load_image_mask_folder(tmp_path, 1, 1, classes, instances)
