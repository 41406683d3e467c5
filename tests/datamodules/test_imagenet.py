"""ImageNet's layouts, test views and augmentation, on small trees of generated JPEGs."""

import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_images
from support.evaluated_files import (
    FB,
    MEAN,
    STD,
    WNIDS,
    Pooled,
    classifier,
    datamodule,
    encoded,
    evaluate,
    make_tree,
    picture,
    source,
)
from support.watcher import RecordingWatcher
from torch import nn

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.launch.sweep import Sweep
from benchmarks.launch.trial_job import Outcome
from datamodules.augmentation.imagenet import (
    EIGENVALUES,
    EIGENVECTORS,
    CropByArea,
    CropByShorterSide,
    ImageAugmentation,
    jittered_colours,
    lighting,
    map_colours,
)
from datamodules.augmentation.views import centre, ten_crops, view_of
from datamodules.loading.batching import GlobalBatchSampler, ResumableLoader
from datamodules.readers import preparation, stored_image
from datamodules.readers.encoded import DamagedImageError
from datamodules.readers.stored_image import StoredImage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("imagenet"))


def stored(image: Image.Image, kind: str = "PNG") -> StoredImage:
    data = encoded(image, kind)
    return StoredImage(SimpleNamespace(place=lambda row: "image", read=lambda row: data), 0)


def epoch_of(loader, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.sampler.set_epoch(epoch)
    return [(batch.images, batch.targets) for batch in loader]


# Files


def test_the_validation_part_is_so_many_images_of_each_class(tree: Path) -> None:
    splits = source(tree)()
    assert {name: len(split) for name, split in splits.named().items()} == {"train": 15, "val": 6, "test": 9}
    assert splits.classes == WNIDS
    assert not set(splits.train.rows) & set(splits.val.rows)
    assert np.bincount(splits.val.classes(slice(None))).tolist() == [2, 2, 2]
    assert np.bincount(splits.train.classes(slice(None))).tolist() == [5, 5, 5]
    for split in splits.named().values():
        for row in split.rows:
            assert split.files.name(row).startswith(WNIDS[split.files.labels[row]])
            assert len(split.files.read(row)) == split.files.sizes[row]
    again = source(tree)()
    assert np.array_equal(splits.val.rows, again.val.rows)
    assert not np.array_equal(splits.val.rows % 7, np.tile(splits.val.rows[:2] % 7, 3))  # drawn for each class


def test_the_checksum_is_of_names_and_sizes_wherever_they_lie(tree: Path, tmp_path: Path) -> None:
    there = make_tree(tmp_path / "there")
    same = source(tree)().checksum()
    assert source(there)().checksum() == same
    file = there / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    file.write_bytes(file.read_bytes() + b"\0")
    longer = source(there)().checksum()
    file.rename(file.with_name("other.JPEG"))
    assert len({same, longer, source(there)().checksum()}) == 3


def test_stray_files_are_skipped_and_counted(tree: Path, tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    image = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    for place in (image.with_name(f"._{image.name}"), image.with_name(".nfs00000000a"), root / "val" / ".DS_Store"):
        place.write_bytes(b"x")
    (root / "val" / WNIDS[1] / "Thumbs.db").write_bytes(b"x")
    splits, plain = source(root)(), source(tree)()
    assert splits.checksum() == plain.checksum() and "stray" not in plain.notes
    assert splits.notes.endswith("4 stray files skipped (.DS_Store, Thumbs.db and the like)")


def damage(root: Path, kind: str) -> None:
    folder = root / "train" / WNIDS[1]
    if kind == "no class":
        for file in folder.iterdir():
            file.unlink()
    elif kind == "foreign file":
        (folder / "notes.txt").write_text("x")
    elif kind == "empty file":
        (folder / f"{WNIDS[1]}_2.JPEG").write_bytes(b"")
    elif kind == "foreign folder":
        (root / "train" / "cats").mkdir()
    elif kind == "flat val":
        (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
    elif kind == "other class in val":
        (root / "val" / WNIDS[2]).rename(root / "val" / "n09999999")
    elif kind == "no val":
        (root / "val").rename(root / "validation")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("no class", {}, r"train/n01443537 is empty; unpack"),
        ("foreign file", {}, r"n01443537/notes.txt is not named \*.JPEG"),
        ("empty file", {}, r"n01443537_2.JPEG is empty; fetch it again"),
        ("foreign folder", {}, r"train/cats is no folder named by a WordNet id"),
        ("flat val", {}, r"val_00000001.JPEG is no folder .*sort the images into folders of classes"),
        ("other class in val", {}, r"must hold the same classes, n01484850 is in one of them alone"),
        ("", {"num_classes": 4}, r"must hold 4 class folders, got 3"),
        ("", {"train_count": 22}, r"must hold 22 training images, got 21; .*data.train_count"),
        ("", {"test_count": 50_000}, r"must hold 50000 validation images, got 9"),
        ("", {"val_per_class": 7}, r"held out of each class must number 1..6, got 7"),
        ("", {"val_per_class": 0}, r"held out of each class must number 1..6, got 0"),
    ],
)
def test_what_is_not_the_data_set_is_refused_by_name(tmp_path: Path, kind: str, changes: dict, message: str) -> None:
    damage(make_tree(tmp_path), kind)
    with pytest.raises(ValueError, match=message):
        source(tmp_path, **changes)()


def test_what_is_missing_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="nothing holds no ImageNet, there is no such folder; put the .*parquet"
    ):
        source(tmp_path / "nothing")()
    damage(make_tree(tmp_path), "no val")
    with pytest.raises(FileNotFoundError, match="val is missing; put class folders"):
        source(tmp_path)()
    (tmp_path / "validation").rename(tmp_path / "val")
    os.symlink("/nowhere/n02084071", tmp_path / "train" / "n02084071")
    with pytest.raises(FileNotFoundError, match="train/n02084071 is a link to /nowhere/n02084071, which is not there"):
        source(tmp_path)()


def write_shards(tree: Path, folder: Path, names: bool = True) -> Path:
    """The tree's images in the hub's layout, training images in two shards."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    features = {
        "info": {"features": {"label": {"_type": "ClassLabel", "names": ["tench", "goldfish", "great white shark"]}}}
    }
    for part, split, shards in (("train", "train", 2), ("val", "validation", 1)):
        files = [(label, file) for label, wnid in enumerate(WNIDS) for file in sorted((tree / part / wnid).iterdir())]
        for shard in range(shards):
            rows = files[len(files) * shard // shards : len(files) * (shard + 1) // shards]
            images = [{"bytes": file.read_bytes(), "path": file.name} for _, file in rows]
            table = arrow.table({"image": images, "label": [label for label, _ in rows]})
            if names:
                table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
            name = f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            parquet.write_table(table, folder / "data" / name, row_group_size=4)
    return folder


def test_parquet_and_tree_give_the_same_batches(tree: Path, tmp_path: Path) -> None:
    shards = write_shards(tree, tmp_path / "hub")
    loaded = datamodule(tree, source=source(shards, tmp_path / "cache"))
    assert loaded.splits.classes == ("tench", "goldfish", "great white shark")
    expected = datamodule(tree)
    assert np.array_equal(loaded.splits.val.rows, expected.splits.val.rows)
    for one, other in zip(loaded.train_dataloader(), expected.train_dataloader(), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)
    for one, other in zip(loaded.test_dataloader()[0], expected.test_dataloader()[0], strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_shards_are_unpacked_once_and_checked(tree: Path, tmp_path: Path) -> None:
    shards, cache = write_shards(tree, tmp_path / "hub", names=False), tmp_path / "cache"
    splits = source(shards, cache)()
    assert splits.classes == ("0", "1", "2")
    [folder] = cache.iterdir()
    assert sorted(path.suffix for path in folder.iterdir()) == ["", *[".bin"] * 3, *[".npz"] * 3]
    [first] = folder.glob("train-00000*.bin")
    before = first.stat().st_mtime_ns
    assert source(shards, cache)().checksum() == splits.checksum()
    assert first.stat().st_mtime_ns == before
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cache .* is damaged .*delete that folder"):
        source(shards, cache)()
    (shards / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="train-00001-of-00002.parquet is missing"):
        source(shards, cache)()


def test_parts_whose_files_have_the_same_names_are_told_apart(tree: Path, tmp_path: Path) -> None:
    """The hub's conversions call them default/train/0000.parquet and default/validation/0000.parquet."""
    published = write_shards(tree, tmp_path / "hub")
    for file in sorted((published / "data").iterdir()):
        part, number = file.name.split("-")[:2]
        converted = tmp_path / "converted" / "default" / part / f"{int(number):04d}.parquet"
        converted.parent.mkdir(parents=True, exist_ok=True)
        file.rename(converted)
    splits, expected = source(tmp_path / "converted", tmp_path / "cache")(), source(tree)()
    for name, split in splits.named().items():
        of_tree = expected.named()[name]
        assert [split.files.read(row) for row in split.rows] == [of_tree.files.read(row) for row in of_tree.rows]
    assert splits.test.files.name(0).startswith("validation-0000.parquet row 0")


def test_what_is_listed_and_copied_is_told(tree: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with preparation.reporting_to(lambda *what: told.append(what)):
        source(tree)()
        listed, told = told, []
        source(write_shards(tree, tmp_path / "hub"), tmp_path / "cache")()
    counts = [(done, 3) for done in (1, 2, 3)]
    assert listed == [(f"listing images of {part}", *count) for part in ("train", "val") for count in counts]
    assert told == [("copying images from parquet", *count) for count in counts]
    source(tree)()
    assert len(told) == 3  # nobody listens any more


@pytest.mark.slow
def test_a_run_waits_for_images_that_another_process_copies_as_long_as_it_gets_on(tree: Path, tmp_path: Path) -> None:
    """Its longest silence is 20 s, and the other takes 33 s for its three files."""
    shards = write_shards(tree, tmp_path / "hub")
    source(shards, tmp_path / "cache")()
    [folder] = (tmp_path / "cache").iterdir()
    indices = [(path, path.read_bytes()) for path in folder.glob("*.npz")]
    for path, _ in indices:
        path.unlink()
    limits, told = ("logger=none", "recipe.epochs=1", "launch.stall_s=20"), RecordingWatcher()
    its = Sweep(expand([*composed(shards, tmp_path), *limits], multirun=False), told, ())
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=its.run)
        thread.start()
        for path, data in indices:
            time.sleep(11)
            path.write_bytes(data)
    thread.join()
    assert its.outcomes[0] == Outcome("ok")
    whats = {seen["what"] for seen in told.seen if seen["phase"] == "prepare"}
    # The first sign may be seen before the copying begins.
    assert {"copying images from parquet", "counting MACs"} == whats - {"loading imagenet"}


def test_foreign_parquet_is_refused_by_name(tree: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    shards = write_shards(tree, tmp_path / "hub")
    with pytest.raises(ValueError, match=r"train-\*.parquet must hold the classes 0..3, got 3 classes 0..2"):
        source(shards, tmp_path / "a", num_classes=4)()
    wrong = shards / "data" / "validation-00000-of-00001.parquet"
    parquet.write_table(arrow.table({"image": [{"bytes": None, "path": "x"}], "label": [0]}), wrong)
    with pytest.raises(
        ValueError, match=r"validation-00000.*parquet row 0 has no image.bytes, and a path alone is not read"
    ):
        source(shards, tmp_path / "b")()
    wrong.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="validation-00000-of-00001.parquet must be parquet with the columns"):
        source(shards, tmp_path / "b")()


# Views


def close(one: np.ndarray, other: np.ndarray) -> None:
    """Equal but for the rounding of Pillow's fixed-point weights."""
    difference = np.abs(one.astype(int) - other)
    assert difference.max() <= 2 and difference.mean() < 0.01


def test_the_centre_is_that_of_the_scaled_image() -> None:
    # 500x375 scaled to a shorter side of 256 is 341x256; fb.resnet.torch rounds the margins up: 58.5 to 59, and 16.
    across, down = 500 / 341, 375 / 256
    expected = (59 * across, 16 * down, 283 * across, 240 * down)
    assert centre(500, 375, side=256, size=224) == pytest.approx(expected)
    assert centre(375, 500, side=256, size=224) == pytest.approx([expected[i] for i in (1, 0, 3, 2)])
    assert centre(256, 256, side=256, size=224) == (16, 16, 240, 240)


@pytest.mark.parametrize("shape", [(90, 61), (61, 90), (33, 33), (70, 32), (20, 25)])
def test_a_window_is_what_a_crop_of_the_scaled_image_is(shape: tuple[int, int]) -> None:
    """Scaling first and then cutting out, step by step, as the papers' code does it."""
    image = picture(*shape, seed=1)
    short = min(shape)
    scaled = image.resize((shape[0] * 32 // short, shape[1] * 32 // short), Image.Resampling.BICUBIC)
    left, top = (math.ceil((length - 28) / 2) for length in scaled.size)
    expected = np.asarray(scaled)[top : top + 28, left : left + 28]
    view, crops = view_of("1crop", 28)
    found = view(stored(image))
    assert (found.shape, found.dtype, crops) == ((28, 28, 3), np.uint8, 1)
    close(found, expected)


@pytest.mark.parametrize("window", [(0, 0, 90, 61), (3, 7, 70, 60), (10, 10, 20, 15)])
def test_a_window_on_whole_pixels_is_cut_out_and_scaled_as_pillow_does(window: tuple[int, int, int, int]) -> None:
    image = picture(90, 61, seed=2)
    found = stored(image).resample(window, 30, 28)
    difference = np.abs(found - np.asarray(image.crop(window).resize((30, 28), Image.Resampling.BICUBIC)).astype(int))
    assert found.shape == (28, 30, 3) and difference.max() <= 1 and difference.mean() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_a_window_on_whole_pixels_of_the_scaled_image_is_pillows(seed: int) -> None:
    """He et al.'s crops, as Pillow cuts and scales them: a grey level here and there."""
    image = picture(75, 50, seed=2)
    window = CropByShorterSide(32, 60).window(75, 50, 28, generator(seed))
    assert not all(float(edge).is_integer() for edge in window)
    expected = np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC, window)).astype(int)
    difference = np.abs(stored(image).resample(window, 28, 28) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.05


def test_ten_crops_are_centre_and_corners_and_those_of_the_mirror_image() -> None:
    y, x = np.mgrid[:32, :41]
    image = Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8))
    crops = ten_crops(stored(image), side=32, size=28)
    assert crops.shape == (10, 28, 28, 3)
    # Column and row of the top left and of the bottom right pixel of each, by hand; margins of 13 and 4 pixels.
    corners = [(7, 2), (0, 0), (13, 0), (0, 4), (13, 4)]
    mirrored = [(40 - 7, 2), (40, 0), (40 - 13, 0), (40, 4), (40 - 13, 4)]
    assert [tuple(crop[0, 0, :2].tolist()) for crop in crops] == corners + mirrored
    assert [tuple(crop[-1, -1, :2].tolist()) for crop in crops] == [
        *((left + 27, top + 27) for left, top in corners),
        *((left - 27, top + 27) for left, top in mirrored),
    ]
    assert all((np.diff(crop[..., 0].astype(int), axis=1) == 1).all() for crop in crops[:5])


def test_views_have_the_sizes_of_the_papers() -> None:
    image = picture(500, 375, seed=0)
    shapes = {}
    for name in ("1crop", "10crop", 320):
        view, crops = view_of(name, 224)
        shapes[name] = (view(stored(image)).shape, crops)
    assert shapes == {"1crop": ((224, 224, 3), 1), "10crop": ((10, 224, 224, 3), 10), 320: ((320, 320, 3), 3)}
    plain = np.asarray(image.resize((426, 320), Image.Resampling.BICUBIC))[:, 53:373]
    close(view_of(320, 224)[0](stored(image)), plain)
    for wrong in ("5crop", 0, 1.5, True, "320"):
        with pytest.raises(ValueError, match="data.test_views are 10crop or a side in pixels such as 320"):
            view_of(wrong, 224)


@pytest.mark.parametrize("photo", [0, 1], ids=["china", "flower"])
def test_scaled_decoding_departs_little(photo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs of 640x427 down to 96x96: a mean of under 0.7 grey levels, and nothing at all where less is asked for."""
    image = Image.fromarray(load_sample_images().images[photo])
    whole = (0, 0, *image.size)
    window = (100.5, 11, 630, 420)
    scaled = [stored(image, "JPEG").resample(box, 96, 96).astype(float) for box in (whole, window)]
    little = stored(image, "JPEG").resample(whole, 160, 160)
    monkeypatch.setattr(stored_image, "GAP", 100)
    exact = [stored(image, "JPEG").resample(box, 96, 96).astype(float) for box in (whole, window)]
    for one, other in zip(scaled, exact, strict=True):
        assert 0 < np.abs(one - other).mean() < 0.7
        assert np.percentile(np.abs(one - other), 99) <= 4
    assert np.array_equal(little, stored(image, "JPEG").resample(whole, 160, 160))


def test_grey_and_cmyk_become_colours() -> None:
    grey = view_of("1crop", 28)[0](stored(picture(40, 40, 0, "L"), "JPEG"))
    assert (grey == grey[..., :1]).all()
    colour = picture(40, 40, 0)
    one, other = (view_of("1crop", 28)[0](stored(image, "JPEG")) for image in (colour, colour.convert("CMYK")))
    assert np.abs(one.astype(int) - other).mean() < 12  # another colour space and its chroma resolution


# Augmentation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_areas_and_shapes_are_distributed_as_in_the_source() -> None:
    crop, random = CropByArea((0.08, 1.0), (3 / 4, 4 / 3)), generator()
    windows = np.array([crop.window(2000, 2000, 224, random) for _ in range(6000)])
    width, height = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    assert windows.min() >= 0 and windows.max() <= 2000 and (windows == np.rint(windows)).all()
    area, shape = width * height / 2000**2, np.sqrt(width / height)
    # Of these every attempt fits, so that what is kept of them is not selected.
    free = area < 9 / 16
    assert 2000 < free.sum() < 4500
    assert stats.kstest(area[free], stats.uniform(0.08, 9 / 16 - 0.08).cdf).pvalue > 0.01
    one = stats.uniform(3 / 4, 4 / 3 - 3 / 4).cdf
    assert stats.kstest(shape[free], lambda s: (one(s) + 1 - one(1 / s)) / 2).pvalue > 0.01
    assert stats.kstest(shape[free], one).pvalue < 0.001  # the test can tell
    assert area.max() > 0.95 and shape.max() > 1.3 and shape.min() < 0.77
    narrow = width < 2000
    assert stats.kstest((windows[:, 0] / (2000 - width).clip(1))[free & narrow], stats.uniform.cdf).pvalue > 0.01
    low = height < 2000
    assert stats.kstest((windows[:, 1] / (2000 - height).clip(1))[free & low], stats.uniform.cdf).pvalue > 0.01


@pytest.mark.parametrize("recipe", ["a3", "torchvision_2021", "vit_imagenet"])
def test_recipes_of_today_crop_width_over_height_log_uniform_from_three_quarters_to_four_thirds(recipe: str) -> None:
    [trial] = expand(["model=resnet", "data=imagenet", f"recipe={recipe}"], multirun=False)
    augment = {name: value for name, value in trial.config["recipe"]["augment"].items() if value is not None}
    crop, random = ImageAugmentation(augment, 224).crop, generator()
    windows = np.array([crop.window(4000, 4000, 224, random) for _ in range(6000)])
    width, height = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    free = width * height / 4000**2 < 3 / 4  # of these every attempt fits
    log_shape = np.log(width / height)[free]
    limit = math.log(4 / 3)
    assert free.sum() > 3000 and 0.98 * limit < np.abs(log_shape).max() < limit + 2 / width.min()
    assert stats.kstest(log_shape, stats.uniform(-limit, 2 * limit).cdf).pvalue > 0.01


def test_after_ten_attempts_the_centre_is_taken() -> None:
    crop = CropByArea((0.08, 1.0), (3 / 4, 4 / 3))
    assert {crop.window(1000, 10, 5, generator(seed)) for seed in range(50)} == {centre(1000, 10, 5, 5)}
    assert centre(1000, 10, 5, 5) == (496, 0, 506, 10)


def test_the_shorter_side_is_any_of_its_range() -> None:
    random, crop = generator(), CropByShorterSide(256, 480)
    windows = np.array([crop.window(640, 512, 224, random) for _ in range(4500)])
    sides = 512 * 224 / (windows[:, 3] - windows[:, 1])
    assert np.allclose(sides, np.rint(sides))
    counts = np.bincount(np.rint(sides).astype(int), minlength=481)[256:]
    assert counts.sum() == 4500 and stats.chisquare(counts).pvalue > 0.01
    left = np.rint(windows[:, 0] * np.rint(sides * 1.25) / 640)
    assert (left >= 0).all() and (windows[:, 2] <= 640 + 1e-9).all()
    # Whole numbers 0..n each with probability 1/(n+1), spread within their bin.
    inside = (left + np.random.RandomState(0).rand(4500)) / (np.rint(sides * 1.25) - 224 + 1)
    assert stats.kstest(inside, stats.uniform.cdf).pvalue > 0.01


def one_after_another(image: np.ndarray, strength: float, random: torch.Generator) -> np.ndarray:
    """The changes of colour as datasets/transforms.lua has them, on a whole image [H, W, 3] of values in 0..1."""
    alphas = [1 + strength * (2 * part - 1) for part in torch.rand(3, generator=random).tolist()]

    def grey() -> np.ndarray:
        return (image @ [0.299, 0.587, 0.114])[..., None]

    for change in torch.randperm(3, generator=random).tolist():
        other = [lambda: np.zeros(1), lambda: grey().mean(), grey][change]()
        image = alphas[change] * image + (1 - alphas[change]) * other
    return image


def test_the_affine_map_of_colours_is_the_changes_one_after_another() -> None:
    image = np.random.RandomState(0).rand(6, 7, 3)
    results = []
    for seed in range(12):
        matrix, offset = jittered_colours(image.mean((0, 1)), 0.4, generator(seed))
        results.append(image @ matrix.T + offset)
        np.testing.assert_allclose(results[-1], one_after_another(image, 0.4, generator(seed)), atol=1e-12)
    assert np.std(results, axis=0).min() > 0.01


@pytest.mark.parametrize("matrix", [np.diag([0.5, 2.0, -1.0]), np.array([[1, 0.5, 0.1], [0, 2, -1], [0.3, 0.7, 0.9]])])
def test_colours_are_mapped_whatever_the_number_of_threads(matrix: np.ndarray) -> None:
    colours = (np.random.RandomState(0).rand(3, 50_176) * 255).astype(np.float32)
    offset = np.array([0.1, -2.0, 3.0])
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            results.append(np.empty_like(colours))
            map_colours(colours, matrix, offset, results[-1])
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(results[0], matrix @ colours.astype(float) + offset[:, None], atol=1e-4)
    assert np.array_equal(*results)


def test_brightness_is_uniform_and_lighting_has_the_covariance_of_colours() -> None:
    grey = np.full(3, 0.5)  # which contrast and saturation leave alone
    random = generator()
    maps = [jittered_colours(grey, 0.4, random) for _ in range(2000)]
    factors = np.array([(matrix @ grey + offset) / grey for matrix, offset in maps])
    assert np.ptp(factors, axis=1).max() < 1e-12
    assert stats.kstest(factors[:, 0], stats.uniform(0.6, 0.8).cdf).pvalue > 0.01
    shifts = np.array([lighting(0.1, random) for _ in range(20_000)])
    expected = EIGENVECTORS @ np.diag((0.1 * EIGENVALUES) ** 2) @ EIGENVECTORS.T
    assert np.abs(shifts.mean(0)).max() < 4 * np.sqrt(expected.max() / 20_000)
    np.testing.assert_allclose(np.cov(shifts.T), expected, rtol=0.05, atol=0.01 * expected.max())


def test_the_whole_augmentation_is_its_parts_in_order() -> None:
    """Crop, mirror, colours and normalisation, one by one from the same draws; half of the images are mirrored."""
    image = picture(60, 45, seed=3)
    augmentation = ImageAugmentation(FB, 28)
    mean, std = np.array(MEAN), np.array(STD)
    mirrored = 0
    for seed in range(40):
        found = np.full((3, 28, 28), np.nan, dtype=np.float32)
        augmentation(stored(image), mean, std, generator(seed), out=found)
        random = generator(seed)
        window = CropByArea((0.08, 1.0), (3 / 4, 4 / 3)).window(60, 45, 28, random)
        pixels = np.asarray(image.crop(window).resize((28, 28), Image.Resampling.BICUBIC))
        if torch.rand((), generator=random) < 0.5:
            pixels, mirrored = pixels[:, ::-1], mirrored + 1
        colours = one_after_another(pixels / 255, 0.4, random) + lighting(0.1, random)
        difference = np.abs(found.transpose(1, 2, 0) - (colours - mean) / std) * std * 255
        assert (
            difference.max() < 1.5 * 1.4**3 and difference.mean() < 0.25
        )  # a grey level here and there, and its colours
    assert 10 <= mirrored <= 30


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"crop_padding": 1}, "augment of files takes area, .*got 'crop_padding'"),
        ({"horizontal_flip": True}, "either area and aspect or shorter_side"),
        ({"area": [0.1, 1]}, "either area and aspect or shorter_side"),
        (FB | {"shorter_side": [256, 480]}, "either area and aspect or shorter_side"),
        (FB | {"area": [0.1, 1.5]}, "parts of an image, up to 1, got 1.5"),
        (FB | {"area": [1, 0.5]}, r"augment.area is a range of two positive numbers"),
        (FB | {"aspect": 1}, r"augment.aspect is a range of two positive numbers"),
        (FB | {"colour_jitter": 4}, "augment.colour_jitter is a strength in 0..1"),
        (FB | {"lighting": True}, "augment.lighting is a strength in 0..1"),
        (FB | {"horizontal_flip": 0.5}, "augment.horizontal_flip must be true or false"),
        ({"shorter_side": [200, 480]}, "two whole numbers from 224, the crop's, got 200 and 480"),
    ],
)
def test_settings_that_make_no_sense_are_refused(augment: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageAugmentation(augment, 224)


# Batches


@pytest.mark.parametrize("off", ["shorter_side", "horizontal_flip", "colour_jitter", "lighting"])
def test_what_is_null_is_off(tree: Path, off: str) -> None:
    batches, without = (
        epoch_of(datamodule(tree, augment=augment).train_dataloader(), 1)
        for augment in (FB | {off: None}, {name: value for name, value in FB.items() if name != off})
    )
    assert all(torch.equal(one[0], other[0]) for one, other in zip(batches, without, strict=True))


@pytest.mark.parametrize("augment", [FB, {"shorter_side": [32, 60], "lighting": 0.1, "horizontal_flip": True}])
def test_training_batches_depend_on_seed_and_epoch_alone(tree: Path, augment: dict) -> None:
    expected = epoch_of(datamodule(tree, augment=augment).train_dataloader(), 1)
    assert [images.shape for images, _ in expected] == [(6, 3, 28, 28)] * 2
    for world_size in (2, 3):
        ranks = [datamodule(tree, rank, world_size, augment=augment) for rank in range(world_size)]
        parts = [epoch_of(module.train_dataloader(), 1) for module in ranks]
        for whole, *shares in zip(expected, *parts, strict=True):
            assert torch.equal(torch.cat([images for images, _ in shares]), whole[0])
            assert torch.equal(torch.cat([targets for _, targets in shares]), whole[1])
    other_epoch = epoch_of(datamodule(tree, augment=augment).train_dataloader(), 0)
    other_seed = epoch_of(datamodule(tree, augment=augment, seed=1).train_dataloader(), 1)
    firsts = [batches[0][0] for batches in (expected, other_epoch, other_seed)]
    assert not any(torch.equal(firsts[a], firsts[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_workers_start_once_and_change_nothing(tree: Path) -> None:
    alone = datamodule(tree)
    several = datamodule(tree, loader_workers=2)
    one, other = alone.train_dataloader(), several.train_dataloader()
    for epoch in (0, 1):
        for (a, b), (c, d) in zip(epoch_of(one, epoch), epoch_of(other, epoch), strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)
    other.load_state_dict({"epoch": 1, "batch": 1})  # in the middle of an epoch, by workers that are there already
    [(images, _)] = epoch_of(other, 1)
    assert torch.equal(images, epoch_of(one, 1)[1][0])
    for one, other in zip(alone.test_dataloader(), several.test_dataloader(), strict=True):
        for a, c in zip(one, other, strict=True):
            assert torch.equal(a.images, c.images) and torch.equal(a.targets, c.targets)


@pytest.mark.parametrize(
    ("workers", "device", "expected"), [(None, "cpu", 1), (None, "cuda", 2), (0, "cuda", 0), (2, "cpu", 2)]
)
def test_a_gpu_has_a_worker_for_each_thread_of_its_process(
    tree: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, device: str, expected: int
) -> None:
    module = datamodule(tree, loader_workers=workers)
    module.trainer.strategy.root_device = torch.device(device)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    loaders = [module.train_dataloader(), module.val_dataloader(), *module.test_dataloader()]
    assert [loader.num_workers for loader in loaders] == [expected] * 5
    assert {loader.pin_memory for loader in loaders} == {device == "cuda"}


class Pids(torch.utils.data.Dataset):
    def __getitem__(self, item) -> tuple[int, int]:
        return os.getpid(), item.batch


def test_an_epoch_left_early_leaves_nothing_to_the_next() -> None:
    loader = ResumableLoader(Pids(), GlobalBatchSampler(40, 4, 0, 0, 1), 2)
    first = iter(loader)
    pids = {next(first)[0] for _ in range(3)}
    first.close()
    loader.sampler.set_epoch(1)
    rest = list(loader)
    assert [batch for _, batch in rest] == list(range(10))
    assert {pid for pid, _ in rest} == pids and os.getpid() not in pids


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_view_has_each_image_once_in_order(tree: Path, world_size: int) -> None:
    modules = [datamodule(tree, rank, world_size) for rank in range(world_size)]
    files = modules[0].splits.test
    sides = [28, 28, 40]
    for number, (name, side) in enumerate(zip(("1crop", "10crop", 40), sides, strict=True)):
        batches = [batch for module in modules for batch in module.test_dataloader()[number]]
        pixels = [view_of(name, 28)[0](StoredImage(files.files, row)) for row in files.rows]
        expected = (np.stack(pixels) / 255 - MEAN) / STD
        images = torch.cat([batch.images for batch in batches])
        assert images.shape == (9, 10, 3, side, side) if name == "10crop" else (9, 3, side, side)
        np.testing.assert_allclose(images.movedim(-3, -1).double(), expected, atol=1e-5)
        assert torch.cat([batch.targets for batch in batches]).tolist() == [0] * 3 + [1] * 3 + [2] * 3
        # Four images of 28x28 at a time; ten crops take one, and 40x40 one as well.
        assert max(len(batch.images) for batch in batches) == min(4 if name == "1crop" else 1, 9 // world_size)
    validation = torch.cat([batch.targets for module in modules for batch in module.val_dataloader()])
    assert validation.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_image_beyond_pillows_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = datamodule(make_tree(tmp_path), loader_workers=0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(
        DamagedImageError, match=r"^\S*\.JPEG cannot be read as an image \(.*decompression bomb.*$"
    ) as error:
        list(module.test_dataloader()[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    module = datamodule(make_tree(tmp_path), loader_workers=workers)
    file = tmp_path / "val" / WNIDS[1] / f"{WNIDS[1]}_0.JPEG"
    whole = file.read_bytes()
    for content, reason, remedy in (
        (whole[:-500], "image file is truncated", "; fetch or write it again"),
        (b"<html>", "of no known format", "; convert it to PNG or JPEG, or fetch it again"),
    ):
        file.write_bytes(content)
        loader = module.test_dataloader()[0]
        with pytest.raises(DamagedImageError) as error:
            list(loader)
        message = f"{file} cannot be read as an image ({reason}"
        assert str(error.value).startswith(message)
        assert str(error.value).endswith(remedy) and "\n" not in str(error.value)
        if workers:
            loader._iterator._shutdown_workers()  # as Lightning does after an error


def test_the_manifest_identifies_the_data(tree: Path) -> None:
    manifest = datamodule(tree).manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert len(manifest.pop("sha256")) == 64
    assert manifest == {
        "counts": {"train": 15, "val": 6, "test": 9},
        "classes": list(WNIDS),
        "image_shape": [3, 28, 28],
        "mean": MEAN,
        "std": STD,
        "notes": "the checksum is of the names and sizes of the files, not of pixels",
        "baselines": {},
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_views_are_scored_by_their_mean_softmax(tree: Path) -> None:
    found = evaluate(tree)
    data, net = datamodule(tree), Pooled()
    for suffix, loader in zip(("", "_10crop", "_40"), data.test_dataloader(), strict=True):
        wrong = 0
        for batch in loader:
            for image, target in zip(batch.images, batch.targets, strict=True):
                crops = image if image.ndim == 4 else image[None]
                wrong += int(net(crops).softmax(1).mean(0).argmax() != target)
        assert found[f"test/top1_err{suffix}"] == pytest.approx(100 * wrong / 9)
        assert found[f"test/n{suffix}"] == 9
        assert 0 < wrong < 9
    # 4 images at a time, or the ten crops of one.
    assert "test/top5_err" not in found
    assert classifier().definitions.keys() == {"top1_err", "loss", "top1_err_10crop", "top1_err_40"}
    assert classifier(()).definitions.keys() == {"top1_err", "loss"}


def test_ten_crops_are_a_mean_of_probabilities_not_of_logits() -> None:
    logits = torch.tensor([[8.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    module = classifier()
    module.net = nn.Flatten()
    scores = module.predict_views(logits.view(1, 3, 3, 1, 1))
    assert torch.allclose(scores, logits.softmax(1).mean(0, keepdim=True))
    assert torch.equal(module.predict_views(logits.view(3, 3, 1, 1)), logits)


@pytest.mark.slow
def test_processes_agree_on_every_view(tree: Path, tmp_path: Path) -> None:
    """By gloo, on 9 images: shares of 9, of 4 and 5, and of 3."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "support" / "evaluate_views.py"), str(tree), str(tmp_path)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    alone, *several = (json.loads((tmp_path / f"{world_size}.json").read_text()) for world_size in (1, 2, 3))
    assert alone.pop("world") == 1 and alone["test/n"] == alone["test/n_10crop"] == alone["test/n_40"] == 9
    loss = alone.pop("test/loss")
    for world_size, found in enumerate(several, start=2):
        assert found.pop("world") == world_size
        assert found.pop("test/loss") == pytest.approx(loss, rel=1e-6)
        assert found == alone


# Configuration


def composed(root: Path, output_root: Path) -> list[str]:
    """A small network on the small set."""
    return [
        "model=resnet", "model.depth=18", "model.block=basic", "model.stride_in=3x3", "+model.base_channels=8",
        "data=imagenet", f"data.root={root}", f"output_root={output_root}", "data.num_classes=3",
        "data.train_count=21", "data.test_count=9", "data.val_per_class=2", "data.image_size=[32,32]",
        "data.test_views=[10crop,40]", "recipe.batch_size=6", "recipe.augment.shorter_side=[36,50]",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_composed_run_trains_and_tests(tree: Path, tmp_path: Path) -> None:
    [cell] = expand(composed(tree, tmp_path), multirun=False)
    assert isinstance(cell, Trial)
    data, module = instantiate(cell.config["datamodule"]), instantiate(cell.config["module"])
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert math.isfinite(float(trainer.callback_metrics["val/loss"]))
    trainer.test(module, datamodule=data, verbose=False)
    for view in ("", "_10crop", "_40"):
        assert trainer.callback_metrics[f"test/n{view}"] == 9
        assert 0 <= trainer.callback_metrics[f"test/top1_err{view}"] <= 100


def test_the_recipes_are_the_papers() -> None:
    """Learning rates by epoch, and what the papers have in common."""
    lengths = {"resnet": 120, "resnext": 100, "densenet": 90}
    for model, epochs in lengths.items():
        [cell] = expand([f"model={model}", "data=imagenet"], multirun=False)
        assert isinstance(cell, Trial)
        recipe = cell.config["recipe"]
        assert (recipe["batch_size"], recipe["epochs"], recipe["optimizer"]["weight_decay"]) == (256, epochs, 1e-4)
        rates = instantiate(cell.config["module"] | {"net": Pooled()}).learning_rates(epochs)
        drops = [epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1]]
        assert rates[0] == 0.1 and drops == list(range(30, epochs, 30))
        assert rates[-1] == pytest.approx(0.1 * 0.1 ** len(drops))
        assert cell.config["datamodule"]["image_size"] == [224, 224]
