"""Annotation files in COCO's format: polygons, run lengths, crowds, gaps between ids, and what is wrong with a file."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as reference
from pycocotools.coco import COCO

from datamodules.augmentation.objects import targets_of
from datamodules.objects import ObjectDataModule
from datamodules.readers import rle
from datamodules.readers.coco_file import read_coco_file
from datamodules.readers.encoded import NAMES_AND_SIZES, DamagedImageError
from datamodules.sources.coco import load_coco, load_coco_folder

SIZES = [(30, 40), (40, 30), (30, 40), (24, 24), (30, 40), (30, 40), (30, 40)]
COLOURS = [(40 * number, 255 - 30 * number, 10) for number in range(7)]


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (((y - 12) / 8) ** 2 + ((x - 15) / 10) ** 2 <= 1).astype(np.uint8)


def text_mask(height: int, width: int) -> dict:
    encoded = reference.encode(np.asfortranarray(ellipse(height, width)))
    return {"size": [height, width], "counts": encoded["counts"].decode()}


def dataset() -> dict:
    """Seven images out of order, categories 3, 7 and 90, every kind of mask; image 60 has no object."""
    images = [
        {"id": 10 * row, "file_name": f"{row}.png", "height": height, "width": width}
        for row, (height, width) in enumerate(SIZES)
    ]
    square = [[5.0, 5.0, 20.5, 5.0, 20.5, 15.0, 5.0, 15.0]]
    two_parts = [[1, 1, 8, 1, 8, 9], [12.3, 4.5, 20, 4, 15, 18.7]]
    runs = {"size": [30, 40], "counts": rle.encode(ellipse(30, 40))}
    annotations = [
        annotation(1, 0, 7, [5, 5, 15.5, 10], square, area=155),
        annotation(2, 0, 90, [1, 1, 19, 17.7], two_parts, area=120.5),
        annotation(3, 0, 3, [5, 4, 21, 17], runs, area=240, iscrowd=1),
        annotation(4, 10, 3, [5, 4, 21, 17], text_mask(40, 30), area=250),
        annotation(5, 20, 90, [5, 5, 15.5, 10], square, area=150),
        annotation(6, 30, 7, [5, 5, 15.5, 10], square, area=155),
        annotation(7, 40, 7, [5, 5, 15.5, 10], square, area=155),
        annotation(0, 50, 7, [5, 5, 15.5, 10], square, area=155),
    ]
    categories = [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}, {"id": 7, "name": "train"}]
    return {"images": images[::-1], "annotations": annotations, "categories": categories}


def annotation(number: int, image: int, category: int, box: list, segmentation, **more) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, **more}


def folder(root: Path, content=None) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for row, (height, width) in enumerate(SIZES):
        Image.new("RGB", (width, height), COLOURS[row]).save(root / "images" / f"{row}.png")
    (root / "annotations.json").write_text(content if isinstance(content, str) else json.dumps(content or dataset()))
    return root


def load(root: Path, **changes):
    arguments = {
        "annotations": "annotations.json",
        "images": "images",
        "in_channels": 3,
        "val_count": 1,
        "test_count": 2,  # of one image only it would be that without objects
    }
    return load_coco_folder(root, **(arguments | changes))


# Parts of one's own


def test_parts_of_ones_own_are_read_as_they_are(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        folder(tmp_path / part)
    splits = load(tmp_path, keep_empty=True)
    assert [len(split) for split in splits.named().values()] == [7, 7, 7]
    assert (splits.notes, splits.remarks) == (NAMES_AND_SIZES, ())
    assert [split.folder.parent.name for split in splits.named().values()] == ["train", "valid", "test"]


def test_without_a_test_part_the_validation_part_is_the_test_set(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val")
    splits = load(tmp_path, keep_empty=True, val_count=2)
    assert [(len(split), split.folder.parent.name) for split in splits.named().values()] == [
        (5, "train"), (2, "train"), (7, "val")
    ]  # fmt: skip
    assert splits.notes == f"val drawn with seed 0; {NAMES_AND_SIZES}" and "val/ is the test set" in splits.remarks[0]


def test_the_file_may_lie_beside_its_images(tmp_path: Path) -> None:
    """As Roboflow exports a data set."""
    for part in ("train", "valid", "test"):
        folder(tmp_path / part)
        for file in (tmp_path / part / "images").iterdir():
            file.rename(tmp_path / part / file.name)
        (tmp_path / part / "annotations.json").rename(tmp_path / part / "_annotations.coco.json")
    splits = load(tmp_path, annotations="_annotations.coco.json", images=".")
    assert [len(split) for split in splits.named().values()] == [6, 7, 7]
    assert splits.test.image(0).shape == (*SIZES[0], 3)


def test_parts_have_the_same_categories_and_kinds_of_annotation(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    content = dataset()
    content["categories"].append({"id": 91, "name": "cat"})
    folder(tmp_path / "val", content)
    with pytest.raises(
        ValueError, match="train/annotations.json and .*val/annotations.json must have the same categories"
    ):
        load(tmp_path)
    content = dataset()  # the ids of train/, of which two stand for each other's class
    for category, name in zip(content["categories"][:2], ("car", "brush"), strict=True):
        category["name"] = name
    folder(tmp_path / "val", content)
    with pytest.raises(ValueError, match="val/annotations.json must have the same categories, ids and names"):
        load(tmp_path)
    content = dataset()
    content["annotations"] = [each | {"segmentation": []} for each in content["annotations"] if "iscrowd" not in each]
    folder(tmp_path / "val", content)
    with pytest.raises(
        ValueError, match="val/annotations.json has boxes alone and .*train/annotations.json masks, too"
    ):
        load(tmp_path)


# Run lengths


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_pycocotools(seed):
    random = np.random.RandomState(seed)
    for height, width in ((1, 1), (7, 5), (64, 300), (200, 3)):
        for density in (0, 0.02, 0.5, 1):
            mask = (random.uniform(size=(height, width)) < density).astype(np.uint8)
            encoded = reference.encode(np.asfortranarray(mask))
            runs = rle.encode(mask)
            assert rle.to_text(runs) == encoded["counts"].decode()
            assert rle.from_text(encoded["counts"].decode()) == runs
            assert (rle.decode(runs, height, width) == mask).all()


# Files


def test_objects_are_those_of_pycocotools(tmp_path):
    folder(tmp_path)
    file, other = read_coco_file(tmp_path / "annotations.json"), COCO(tmp_path / "annotations.json")
    assert (file.classes, file.category_ids) == (("car", "train", "brush"), (3, 7, 90))
    assert file.notes == ()
    for row, image in enumerate(sorted(other.getImgIds())):
        annotations = other.loadAnns(other.getAnnIds(image))
        objects = file.objects(row)
        assert [file.category_ids[label] for label in objects.labels] == [each["category_id"] for each in annotations]
        assert objects.area.tolist() == [each["area"] for each in annotations]
        assert objects.crowd.tolist() == [bool(each.get("iscrowd")) for each in annotations]
        for box, mask, each in zip(objects.boxes, objects.masks, annotations, strict=True):
            x, y, width, height = each["bbox"]
            assert box.tolist() == [x, y, x + width, y + height]
            assert (mask == other.annToMask(each)).all() and mask.any()


def test_every_image_is_in_one_split(tmp_path):
    splits = load(folder(tmp_path), val_count=2, test_count=2, keep_empty=True)
    colours = [tuple(split.image(row)[0, 0]) for split in splits.named().values() for row in range(len(split))]
    assert sorted(colours) == sorted(COLOURS)
    assert [len(split) for split in splits.named().values()] == [3, 2, 2]
    assert splits.category_ids == (3, 7, 90)
    assert splits.checksum() == load(tmp_path, val_count=2, test_count=2, keep_empty=True).checksum()
    fewer = load(tmp_path, val_count=1, test_count=2, keep_empty=True)
    assert splits.checksum() != fewer.checksum()
    assert splits.checksum(["test"]) == fewer.checksum(["test"]) != splits.checksum(["val"])


def test_the_checksum_sees_files_of_another_size_and_classes_of_another_name(tmp_path):
    before = load(folder(tmp_path)).checksum()
    noise = np.random.RandomState(0).randint(0, 256, (*SIZES[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "images" / "0.png")
    noisy = load(tmp_path)
    assert noisy.checksum() != before and noisy.notes.endswith("sizes of the files, not of pixels")
    assert load(folder(tmp_path)).checksum() == before
    content = dataset()
    content["categories"][0]["name"] = "broom"
    assert load(folder(tmp_path, content)).checksum() != before


def test_a_link_to_an_image_that_is_gone_is_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "images" / "3.png").unlink()
    (tmp_path / "images" / "3.png").symlink_to("/nowhere/3.png")
    with pytest.raises(FileNotFoundError, match="images/3.png is a link to /nowhere/3.png, which is not there"):
        load(tmp_path).checksum()


def test_an_image_without_objects_is_left_out_of_training_alone(tmp_path):
    two = {"val_count": 2, "test_count": 2}
    splits = [load(folder(tmp_path), split_seed=seed, **two) for seed in range(8)]
    counts = [tuple(len(split) for split in each.named().values()) for each in splits]
    assert set(counts) == {(2, 2, 2), (3, 2, 2)}
    for count, each in zip(counts, splits, strict=True):
        assert ("1 training images without objects left out" in each.notes) == (count[0] == 2)
    assert all(len(load(tmp_path, split_seed=seed, keep_empty=True, **two).train) == 3 for seed in range(8))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_without_objects_would_have_no_score_and_is_refused(part, tmp_path):
    splits, content = load(folder(tmp_path)), dataset()
    split = splits.test if part == "test" else splits.val
    names = [split.annotations.names[row] for row in split.rows]
    drawn = {image["id"] for image in content["images"] if image["file_name"] in names}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in drawn]
    with pytest.raises(ValueError, match=rf"annotations.json: the {len(split)} {part} images hold no object, .* raise"):
        load(folder(tmp_path, content))


def test_coco_itself(tmp_path):
    content = dataset()
    for name in ("train", "val"):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(content))
        (tmp_path / f"{name}2017").mkdir()
        for row, (height, width) in enumerate(SIZES):
            Image.new("RGB", (width, height), COLOURS[row]).save(tmp_path / f"{name}2017" / f"{row}.png")
    splits = load_coco(tmp_path, 3, val_count=2)
    assert (len(splits.val), len(splits.test)) == (2, 7)
    assert "2 validation images drawn out of train2017" in splits.notes
    (tmp_path / "val2017" / "2.png").unlink()
    (tmp_path / "val2017" / "5.png").unlink()
    with pytest.raises(
        FileNotFoundError, match="2.png is missing, and 1 more of the 7 images in .*instances_val2017.json"
    ):
        load_coco(tmp_path, 3, val_count=2)
    with pytest.raises(
        ValueError, match="data.val_count must be positive and leave some of the 7 images of .*instances_train2017.json"
    ):
        load_coco(tmp_path, 3, val_count=7)


def test_batches_of_a_folder(tmp_path):
    folder(tmp_path)
    data = ObjectDataModule(
        lambda: load(tmp_path), 2, 1, {"shorter_side": [48, 64], "horizontal_flip": True},
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0, image_size=[64, 96], num_classes=3, shorter_side=60, longest_side=70,
    )  # fmt: skip
    data.setup()
    for batch in data.train_dataloader():
        for target in batch.targets:
            assert len(target["boxes"]) == len(target["masks"]) == len(target["labels"]) > 0
            for mask, (x0, y0, x1, y1) in zip(target["masks"], target["boxes"].tolist(), strict=True):
                rows, columns = torch.nonzero(mask, as_tuple=True)
                assert (
                    x0 - 1 <= columns.min() and columns.max() < x1 + 1 and y0 - 1 <= rows.min() and rows.max() < y1 + 1
                )
    batch, _ = data.test_dataloader()
    assert batch.images.shape[1] == 3 and max(batch.targets[0]["size"]) <= 70
    assert data.manifest()["classes"] == ["car", "train", "brush"]
    assert data.manifest()["image_shape"] == [3, 64, 96]


@pytest.mark.parametrize("written", [{}, {"segmentation": None}, {"segmentation": []}, {"segmentation": [[]]}])
def test_boxes_alone(written, tmp_path):
    """Label Studio, CVAT and Roboflow write an empty segmentation beside a box."""
    content = dataset()
    for each in content["annotations"]:
        del each["segmentation"]
        each.pop("area")
        each.update(written)
    file = read_coco_file(folder(tmp_path, content) / "annotations.json")
    objects = file.objects(0)
    assert objects.masks is None and objects.area.tolist() == [155, 19 * 17.7, 21 * 17]


def test_an_area_that_is_null_is_that_of_the_box(tmp_path):
    content = dataset()
    for each in content["annotations"]:
        each.update(area=None, iscrowd=None, segmentation=[])
    objects = read_coco_file(folder(tmp_path, content) / "annotations.json").objects(0)
    assert objects.area.tolist() == [155, 19 * 17.7, 21 * 17] and not objects.crowd.any()


def test_a_grey_network_gets_grey_images(tmp_path):
    splits = load(folder(tmp_path), in_channels=1)
    assert splits.test.image(0).ndim == 2
    with pytest.raises(ValueError, match="data.in_channels of a folder of images is 1, grey, or 3, RGB, got 2"):
        load(tmp_path, in_channels=2)


def test_a_turned_photograph_is_turned_where_its_annotation_is(tmp_path):
    """Orientation 6: the camera stored 30 rows of 40 columns of what is shown as 40 rows of 30."""
    folder(tmp_path)
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, :10] = 255  # the stored left is the shown top
    exif = Image.Exif()
    exif[0x0112] = 6
    for row in (0, 1):  # annotated as stored, and as shown
        Image.fromarray(pixels).save(tmp_path / "images" / f"{row}.png", exif=exif)
    file = load(tmp_path).train.annotations
    split = type(load(tmp_path).train)(file, tmp_path / "images", np.arange(2), 3)
    assert (split.image(0) == pixels).all()
    shown = split.image(1)
    assert shown.shape == (40, 30, 3) and shown[:10].all() and not shown[10:].any()


def test_what_coco_leaves_out_is_counted(tmp_path):
    content = dataset()
    content["annotations"] += [
        annotation(20, 0, 3, [5, 5, 3, 3], [[5, 5, 8, 8]], area=0),
        annotation(21, 10, 3, [5, 5, 3, 3], [[5, 5, 8, 8], [5, 5]], area=0),
        annotation(22, 10, 3, [5, 5, 0, 3], [[5, 5, 5, 8, 5, 6]], area=0),
    ]
    file = read_coco_file(folder(tmp_path, content) / "annotations.json")
    assert file.notes == (
        "annotations.json: 2 annotations without a polygon of three points left out (first: annotation 20)",
        "annotations.json: 1 annotations with a box under a pixel wide or high within the image left out of training "
        "(first: annotation 22)",
    )
    assert len(file.objects(0)) == 3
    assert len(file.objects(1)) == 2  # evaluation keeps what has no extent


def test_learnable_is_what_training_gets(tmp_path):
    """Boxes that reach out of the image, polygons beside it, empty run lengths, crowds."""
    random = np.random.RandomState(0)
    content = dataset()
    content["images"] = [{"id": row, "file_name": f"{row}.png", "height": 30, "width": 40} for row in range(200)]
    content["annotations"] = []
    for row in range(200):
        for _ in range(random.randint(3)):
            x, y = random.uniform(-9, 40), random.uniform(-9, 30)
            width, height = max(random.uniform(0, 10), -x), max(random.uniform(0, 10), -y)
            mask: Any = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            if random.randint(4) == 0:
                mask = {"size": [30, 40], "counts": rle.encode(np.zeros((30, 40)))}
            content["annotations"].append(
                annotation(
                    len(content["annotations"]),
                    row,
                    3,
                    [x, y, width, height],
                    mask,
                    iscrowd=int(random.randint(4) == 0),
                )
            )
    for masks in (True, False):
        if not masks:
            content["annotations"] = [each | {"segmentation": []} for each in content["annotations"]]
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        file = read_coco_file(path)
        learned = [len(targets_of(file.objects(row), 30, 40)) > 0 for row in range(200)]
        assert file.learnable.tolist() == learned and 40 < sum(learned) < 160


def test_more_objects_than_a_detector_finds_are_remarked(tmp_path):
    content = dataset()
    content["annotations"] += [
        content["annotations"][row % 8] | {"id": 100 + row, "iscrowd": row % 9 == 0} for row in range(8 * 130)
    ]
    splits = load(folder(tmp_path, content))
    objects = [splits.test.objects(row) for row in range(len(splits.test))]
    counts = [int((~each.crowd).sum()) for each in objects]
    many = [count for count in counts if count > 100]
    assert splits.remarks == (
        f"{len(many)} of 2 test images hold more than 100 objects, up to {max(many)}: AP counts the 100 surest that are "
        "found in an image, so that it cannot be 1",
    )


# Bad files


def changed(change) -> dict:
    content = copy.deepcopy(dataset())
    change(content)
    return content


def set_annotation(**values):
    return lambda content: content["annotations"][3].update(values)


BAD = {
    "reversed box": (set_annotation(bbox=[20, 5, -4, 6]), "annotation 4 has a reversed bbox, -4 wide and 6 high"),
    "box outside": (set_annotation(bbox=[31, 5, 4, 6]), r"annotation 4 has the bbox \[31, 5, 4, 6\], outside of its image"),
    "infinite box": (set_annotation(bbox=[float("inf"), 5, 4, 6]), "annotation 4 has a bbox of which a number is not finite"),
    "no number": (set_annotation(bbox=["a", 5, 4, 6]), r"annotation 4 must have a bbox \[x, y, width, height\], got"),
    "no box": (set_annotation(bbox=None), "annotation 4 has no bbox; write the box around its mask"),
    "unknown image": (set_annotation(image_id=11), "annotation 4 is of image 11, which the file does not list"),
    "unknown category": (set_annotation(category_id=4), "annotation 4 is of category 4, which the file does not list"),
    "half a point": (set_annotation(segmentation=[[1, 2, 3, 4, 5]]), "annotation 4 has a polygon of 5 numbers"),
    "NaN in a polygon": (
        set_annotation(segmentation=[[1, 2, 3, 4, float("nan"), 6]]),
        "annotation 4 has a polygon with a point that is not finite or far outside of its image of 30 x 40 pixels",
    ),
    "endless polygon": (set_annotation(segmentation=[[1, 2, 3, 4, 5, float("inf")]]), "annotation 4 has a polygon with a"),
    "polygon far outside": (set_annotation(segmentation=[[1, 2, 3, 1e12, 5, 6]]), "annotation 4 has a polygon with a point"),
    "no polygon": (set_annotation(segmentation=[[{}]]), "annotation 4 must have polygons"),
    "another size": (
        set_annotation(segmentation=text_mask(30, 40)),
        r"annotation 4 has a mask of size \[30, 40\], its image is \[40, 30\]",
    ),
    "too few runs": (
        set_annotation(segmentation={"size": [40, 30], "counts": [7, 9]}),
        "annotation 4 has a damaged run-length mask: its runs must add up to 40 x 30 pixels, got 16",
    ),
    "no code": (set_annotation(segmentation={"size": [40, 30], "counts": "é"}), "annotation 4 has a damaged run-length mask"),
    "no counts": (set_annotation(segmentation={"size": [40, 30]}), "annotation 4 has a damaged run-length mask: its counts"),
    "no mask": (set_annotation(segmentation=None), "annotation 4 has no segmentation, and others have one"),
    "area of text": (set_annotation(area="9"), "annotation 4 has the area '9'; write a number of pixels"),
    "area below 0": (set_annotation(area=-1), "annotation 4 has the area -1; write"),
    "area above all floats": (set_annotation(area=10**400), "annotation 4 has the area 1000"),
    "box above all floats": (set_annotation(bbox=[5, 5, 10**400, 6]), "annotation 4 has a bbox of which a number is not"),
    "runs above int64": (
        set_annotation(segmentation={"size": [40, 30], "counts": [2**70, 9]}),
        "annotation 4 has a damaged run-length mask",
    ),
    "height above int64": (lambda content: content["images"][0].update(height=2**70), "image 60 must have a height and"),
    "name of a number": (
        lambda content: content["categories"][0].update(name=5),
        "the name of category 90 must be a text, got 5",
    ),
    "crowd of text": (set_annotation(iscrowd="0"), "annotation 4 must have an iscrowd of 0, one object, or 1, .* got '0'"),
    "image in a list": (set_annotation(image_id=[10]), r"annotation 4 is of image \[10\], which the file does not list"),
    "no file name": (lambda content: content["images"][0].update(file_name=5), "the file_name of image 60 must be a text, got"),
    "a file twice": (
        lambda content: content["images"][0].update(file_name="0.png"),
        "0.png is the file of two images, 0 and 60, which could lie in two splits; write it once, with all its annotations",
    ),
    "a file twice, once from the folder": (
        lambda content: content["images"][0].update(file_name="./0.png"),
        r"0.png is the file of two images, 0 and 60, which could lie in two splits",
    ),
    "an id twice": (set_annotation(id=5), "the id 5 is used twice among annotations"),
    "no category": (lambda content: content["annotations"][3].pop("category_id"), r"annotations\[3\] has no category_id"),
    "no name": (lambda content: content["categories"][0].pop("name"), r"categories\[0\] has no name; it needs id, name"),
    "no height": (lambda content: content["images"][0].update(height=0), "image 60 must have a height and width in pixels"),
    "no images": (lambda content: content.update(images=[]), "lists no images"),
    "no lists": (lambda content: content.pop("annotations"), "is not COCO's JSON: it must be an object with the lists"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line(case, tmp_path):
    change, message = BAD[case]
    path = folder(tmp_path, changed(change)) / "annotations.json"
    with pytest.raises(ValueError, match=message) as error:
        read_coco_file(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "holds a list, as detections are written"), ("{}", "is not COCO's"), ("{", "is not JSON"), ("1", "is not COCO's")],
)  # fmt: skip
def test_what_is_not_coco_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_coco_file(folder(tmp_path, content) / "annotations.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="annotations.json is missing; put COCO's annotation file there"):
        load(tmp_path)
    folder(tmp_path)
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match="3.png is missing of the 7 images in .*annotations.json"):
        load(tmp_path)


def test_a_doubled_slash_in_a_file_name_is_one(tmp_path):
    content = dataset()
    for image in content["images"]:
        image["file_name"] = f"images//{image['file_name']}"
    folder(tmp_path, content)
    assert load(tmp_path, images=".").test.image(0).shape == (*SIZES[0], 3)


def test_a_damaged_or_other_image_is_named(tmp_path):
    split = load(folder(tmp_path)).test
    path = split.folder / split.annotations.names[split.rows[0]]
    good = path.read_bytes()
    path.write_bytes(good[:60])
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read as an image \(.*\); fetch or write it again"):
        split.image(0)
    Image.new("RGB", (11, 12)).save(path)
    with pytest.raises(ValueError, match=rf"{path.name} is 12 x 11, and .* in .*annotations.json \(height x width\)"):
        split.image(0)


def test_a_worker_names_a_damaged_image_in_one_line(tmp_path):
    folder(tmp_path)
    data = ObjectDataModule(
        lambda: load(tmp_path), 2, 1, {}, [0.5] * 3, [0.2] * 3, 0, image_size=[64, 96], loader_workers=1, num_classes=3
    )
    data.setup()
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no image")
    loader = data.test_dataloader()
    with pytest.raises(DamagedImageError) as error:
        list(loader)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)
    loader._iterator._shutdown_workers()  # as Lightning does after an error


def test_no_images_are_left_to_train_on(tmp_path):
    both = "data.val_count and data.test_count must be positive and leave some of the 7 images of .* to train on, got 6 and 2"
    with pytest.raises(ValueError, match=both):
        load(folder(tmp_path), val_count=6)
    content = dataset() | {"annotations": []}
    content["images"] = content["images"][:1]
    with pytest.raises(ValueError, match="leave some of the 1 images of .* to train on, got 1 and 2"):
        load(folder(tmp_path, content))
