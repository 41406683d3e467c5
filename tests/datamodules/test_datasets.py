"""Sources against real files in the real formats."""

import gzip
import hashlib
import importlib.util
import os
import struct
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.filters import threshold_otsu
from sklearn import datasets
from support.data_files import (
    REAL_FASHION_MNIST,
    SMALL,
    SMALL_100,
    SMALL_SVHN,
    cifar100_arrays,
    cifar100_files,
    cifar_arrays,
    cifar_files,
    one_line,
    svhn_arrays,
    write_archive,
    write_binary,
    write_cifar100_parquet,
    write_parquet,
    write_svhn,
    write_svhn_parquet,
)

from datamodules.readers import decoded
from datamodules.readers.cifar_files import CifarFiles
from datamodules.readers.splits import Split, Splits, hold_out, hold_out_each
from datamodules.sources import digits, fashion_mnist, nuclei
from datamodules.sources.cifar import PUBLISHED, load_cifar
from datamodules.sources.digits import load_digits
from datamodules.sources.fashion_mnist import FASHION_MNIST_CLASSES, load_fashion_mnist, load_idx, read_idx
from datamodules.sources.nuclei import load_nuclei
from datamodules.sources.svhn import load_svhn

REAL_CIFAR10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"
needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs the extra `parquet`")


# Splits


def classes_split(count: int = 4, channels: int = 1, labels: list[int] | None = None) -> Split:
    targets = torch.tensor(labels or [index % 2 for index in range(count)])
    return Split(torch.zeros(count, channels, 4, 4, dtype=torch.uint8), targets)


def mask_split() -> Split:
    return Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), "images must be uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), "images must be uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "targets must be int64"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4).long(), "targets must be int64"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3).long(), "2 images, 3 targets"),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(2, 4, 5, dtype=torch.uint8),
            r"\[4, 4\], got \[4, 5\]",
        ),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0).long(), "at least one image"),
    ],
)
def test_malformed_splits_are_refused(images, targets, message):
    with pytest.raises(ValueError, match=message):
        Split(images, targets)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (classes_split(labels=[0, 1, 2, 0]), r"test targets must lie in 0\.\.1, got 0\.\.2"),
        (classes_split(labels=[0, 1, -1, 0]), r"test targets must lie in 0\.\.1, got -1\.\.1"),
        (classes_split(channels=3), "test images must have train's 1 channels, got 3"),
        (mask_split(), "same kind as train's"),
    ],
)
def test_splits_that_disagree_are_refused(test, message):
    with pytest.raises(ValueError, match=message):
        Splits(classes_split(), classes_split(), test, classes=("a", "b"))


def test_checksum_changes_with_any_decoded_value_and_with_the_split():
    def splits(images: torch.Tensor, targets: torch.Tensor, cut: int = 4) -> str:
        train, val = Split(images[:cut], targets[:cut]), Split(images[cut:], targets[cut:])
        return Splits(train, val, classes_split(), classes=("a", "b")).checksum()

    images = torch.arange(8 * 16, dtype=torch.uint8).view(8, 1, 4, 4)
    targets = torch.zeros(8, dtype=torch.int64)
    changed, relabelled = images.clone(), targets.clone()
    changed[5, 0, 3, 3] += 1
    relabelled[2] = 1
    sums = [
        splits(images, targets),
        splits(changed, targets),
        splits(images, relabelled),
        splits(images, targets, cut=5),
        splits(images.view(8, 1, 2, 8), targets),
    ]
    assert len(set(sums)) == 5
    assert splits(images.clone(), targets.clone()) == sums[0]
    # A view with other strides holds the same values.
    assert splits(images.transpose(2, 3).contiguous().transpose(2, 3), targets) == sums[0]


@pytest.mark.parametrize("count", [1, 7, 50, 99])
def test_hold_out_is_stratified_and_disjoint(count):
    targets = np.repeat([0, 1, 2, 3], [10, 20, 30, 40])
    rest, held = hold_out(targets, count, seed=0)
    assert len(held) == count
    assert sorted([*rest, *held]) == list(range(100))
    for label, size in enumerate([10, 20, 30, 40]):
        assert abs((targets[held] == label).sum() - count * size / 100) < 1
    again, other = hold_out(targets, count, seed=0)[1], hold_out(targets, count, seed=1)[1]
    assert np.array_equal(held, again) and not np.array_equal(held, other)


@pytest.mark.parametrize("count", [0, 100])
def test_hold_out_leaves_something_on_both_sides(count):
    with pytest.raises(ValueError, match=f"must be positive and leave some of the 100 rows, got {count}"):
        hold_out(np.zeros(100, dtype=int), count, seed=0)


@pytest.mark.parametrize("count", [1, 9])
def test_hold_out_each_takes_as_many_of_every_class(count):
    targets = np.random.RandomState(0).permutation(np.repeat([0, 1, 2], [10, 20, 70]))
    rest, held = hold_out_each(targets, count, seed=0)
    assert np.bincount(targets[held]).tolist() == [count] * 3
    assert sorted([*rest, *held]) == list(range(100))
    assert np.array_equal(held, hold_out_each(targets, count, seed=0)[1])
    assert not np.array_equal(held, hold_out_each(targets, count, seed=1)[1])


@pytest.mark.parametrize("count", [0, 10])
def test_hold_out_each_leaves_something_of_every_class(count):
    with pytest.raises(ValueError, match=rf"must number 1\.\.9, got {count}"):
        hold_out_each(np.repeat([0, 1], [10, 20]), count, seed=0)


# Digits


def test_digits_are_all_of_scikit_learns_once():
    splits, original = load_digits(), datasets.load_digits()
    counts = {name: len(split) for name, split in splits.named().items()}
    assert counts == {"train": 1197, "val": 150, "test": 450}
    found = Counter(
        (image.numpy().tobytes(), int(target))
        for split in splits.named().values()
        for image, target in zip(split.images, split.targets, strict=True)
    )
    # No value is ever half way between two integers but 127.5 (v = 8), which the rule rounds up and rint to even: 128.
    scaled = np.rint(original.images * 255 / 16).astype(np.uint8)
    expected = Counter((image.tobytes(), int(target)) for image, target in zip(scaled, original.target, strict=True))
    assert found == expected
    assert len(splits.train.images.unique()) == 17


def test_digits_files_are_those_of_the_licence():
    licence = (digits.FILE.parent / "LICENCE-DATA").read_text()
    assert "CC BY 4.0" in licence and "BSD 3-Clause" in licence
    assert f"{hashlib.sha256(digits.FILE.read_bytes()).hexdigest()}  digits.csv.gz" in licence
    table = np.loadtxt(digits.FILE, dtype=np.uint8, delimiter=",")
    assert f"\n{hashlib.sha256(table.tobytes()).hexdigest()}\n" in licence
    original = datasets.load_digits()
    assert np.array_equal(table, np.column_stack([original.data, original.target]))


def test_digits_splits_are_stratified_and_fixed():
    first, again = load_digits(), load_digits()
    sizes = torch.bincount(torch.from_numpy(datasets.load_digits().target))
    for split in first.named().values():
        expected = sizes * len(split) / 1797
        assert (torch.bincount(split.targets, minlength=10) - expected).abs().max() < 1.5
    assert first.checksum() == again.checksum() != load_digits(split_seed=1).checksum()


# Nuclei


def png(name: str) -> np.ndarray:
    return np.array(Image.open(nuclei.FOLDER / name))


def test_nuclei_evaluation_tiles_hold_every_pixel_once():
    splits, image, mask = load_nuclei(), png("image.png"), png("mask.png")
    for split, rows in ((splits.val, slice(336, 400)), (splits.test, slice(415, 511))):
        assert len(split) == 2
        assert np.array_equal(np.hstack(list(split.images[:, 0].numpy())), image[rows])
        assert np.array_equal(np.hstack(list(split.targets.numpy())), mask[rows] > 0)


def test_nuclei_training_tiles_cover_the_training_rows_and_no_other():
    splits, image, mask = load_nuclei(), png("image.png"), png("mask.png")
    covered = np.zeros((512, 512), dtype=int)
    corners = [(top, left) for top in range(0, 161, 32) for left in range(0, 353, 32)]
    for (top, left), tile, target in zip(corners, splits.train.images, splits.train.targets, strict=True):
        place = np.s_[top : top + 160, left : left + 160]
        assert np.array_equal(tile[0].numpy(), image[place])
        assert np.array_equal(target.numpy(), mask[place] > 0)
        covered[place] += 1
    assert covered[:320].min() >= 1
    assert covered[320:].max() == 0


def test_nuclei_files_are_those_of_the_licence():
    licence = (nuclei.FOLDER / "LICENCE-DATA").read_text()
    assert "CC0 1.0" in licence
    for name in ("image.png", "mask.png"):
        assert f"{hashlib.sha256((nuclei.FOLDER / name).read_bytes()).hexdigest()}  {name}" in licence
        assert f"{hashlib.sha256(png(name).tobytes()).hexdigest()}  {name}" in licence
    assert len(np.unique(png("mask.png"))) == 1 + 125


def test_otsu_baseline_equals_a_direct_search():
    image, truth = png("image.png"), png("mask.png") > 0
    train = image[:320].ravel().astype(float)

    def between_class_variance(threshold: int) -> float:
        low, high = train[train <= threshold], train[train > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    threshold = max(range(int(train.min()), int(train.max())), key=between_class_variance)
    predicted = image[415:511] > threshold
    dice = 2 * (predicted & truth[415:511]).sum() / (predicted.sum() + truth[415:511].sum())
    assert load_nuclei().baselines["otsu_dice"] == pytest.approx(dice, abs=1e-12)
    assert dice == pytest.approx(0.88, abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_otsu_threshold_equals_scikit_images(seed):
    random = np.random.RandomState(seed)
    centres = random.choice([60, 150], size=(20, 20), p=[seed / 20, 1 - seed / 20])
    image = np.clip(random.normal(centres, random.randint(1, 40)), 0, 255).astype(np.uint8)
    assert nuclei.otsu_threshold(image) == threshold_otsu(image)


def test_missing_nuclei_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(nuclei, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"image.png is missing; .* install or check it out again") as error:
        load_nuclei()
    one_line(error)


# IDX


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_arrays() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {
        "train-images-idx3-ubyte": random.randint(256, size=(30, 6, 5)).astype(np.uint8),
        "train-labels-idx1-ubyte": np.arange(30, dtype=np.uint8) % 3,
        "t10k-images-idx3-ubyte": random.randint(256, size=(9, 6, 5)).astype(np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(9, dtype=np.uint8) % 3,
    }


def write_idx(folder: Path, compressed: bool = False) -> Path:
    for name, array in idx_arrays().items():
        data = idx_bytes(array)
        (folder / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(data) if compressed else data)
    return folder


def load_small_idx(folder: Path, **changes) -> Splits:
    pixels = idx_arrays()["train-images-idx3-ubyte"] / 255
    expected = {"train_count": 30, "test_count": 9, "val_count": 6, "mean": pixels.mean(), "std": pixels.std()}
    return load_idx(folder, ("a", "b", "c"), **{**expected, **changes})


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read_whole(tmp_path, compressed):
    splits = load_small_idx(write_idx(tmp_path, compressed))
    arrays = idx_arrays()
    assert {name: len(split) for name, split in splits.named().items()} == {"train": 24, "val": 6, "test": 9}
    assert torch.bincount(splits.val.targets).tolist() == [2, 2, 2]
    assert np.array_equal(splits.test.images[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    assert splits.test.targets.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    originals = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]
    expected = Counter((image.tobytes(), int(label)) for image, label in zip(*originals, strict=True))
    assert expected == Counter(
        (image.numpy().tobytes(), int(label))
        for split in (splits.train, splits.val)
        for image, label in zip(split.images, split.targets, strict=True)
    )
    assert splits.checksum() == load_small_idx(tmp_path).checksum()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x00\x0d\x01" + bytes(8), "magic number 00000801, got 00000d01"),
        (b"\x00\x00\x08\x03" + bytes(12), "magic number 00000801, got 00000803"),
        (b"\x00\x00\x08\x01\x00", "truncated: the header takes 8 bytes, got 5"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "must hold 5 bytes after its header, got 3"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02abc", "must hold 2 bytes after its header, got 3"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02ab")[:-9], "damaged or truncated"),
        (b"", "magic number 00000801, got "),
    ],
    # Without names the bytes would be the test's name, and gzip's header holds the second it was made in.
    ids=["type", "dimensions", "header", "short", "long", "gzip", "empty"],
)
def test_damaged_idx_files_are_refused(tmp_path, data, message):
    (tmp_path / "labels").write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(tmp_path / "labels", ndim=1)
    assert str(tmp_path / "labels") in one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_count": 31}, "train-images-idx3-ubyte must hold 31 entries, got 30"),
        ({"test_count": 10}, "t10k-images-idx3-ubyte must hold 10 entries, got 9"),
        ({"mean": 0.286}, "other images: the training pixels must have mean 0.2860"),
        ({"std": 0.353}, "standard deviation 0.3530"),
    ],
)
def test_other_idx_sets_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        load_small_idx(write_idx(tmp_path), **changes)
    one_line(error)


def test_idx_labels_must_be_the_classes(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(9, dtype=np.uint8) % 2))
    with pytest.raises(ValueError, match=r"test labels must be 0\.\.2, each of them, got \[0, 1\]"):
        load_small_idx(tmp_path)


def test_missing_idx_files_are_named(tmp_path):
    (write_idx(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"t10k-labels-idx1-ubyte\[\.gz\] is missing, it holds t10k-images.*; put the set's"
    ) as error:
        load_small_idx(tmp_path)
    one_line(error)
    with pytest.raises(FileNotFoundError, match="nowhere is missing; install Debian's dataset-fashion-mnist") as error:
        load_fashion_mnist(tmp_path / "nowhere")
    one_line(error)


@pytest.mark.skipif(not REAL_FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_the_published_set():
    splits = load_fashion_mnist(REAL_FASHION_MNIST)
    assert {name: list(split.images.shape) for name, split in splits.named().items()} == {
        "train": [55_000, 1, 28, 28],
        "val": [5_000, 1, 28, 28],
        "test": [10_000, 1, 28, 28],
    }
    assert splits.classes == FASHION_MNIST_CLASSES
    for split in splits.named().values():
        assert torch.bincount(split.targets).tolist() == [len(split) // 10] * 10


@pytest.mark.parametrize("kind", ["a link", "a link to itself", "a hard link", "far too much"])
def test_a_hostile_archive_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    if kind == "far too much":
        member.size = 300_000_000  # it is not there: the size alone must do
        path.write_bytes(gzip.compress(member.tobuf() + bytes(1024)))
    else:
        member.type = tarfile.LNKTYPE if "hard" in kind else tarfile.SYMTYPE
        member.linkname = member.name if "itself" in kind else "../../etc/passwd"
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(member)
    with pytest.raises(ValueError, match=r"^[^\n]*cifar-10-binary.tar.gz (must contain|unpacks to more than)[^\n]*$"):
        load_cifar("cifar10", path, tmp_path / "cache", **SMALL)


def test_a_compressed_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(70_000_000), compresslevel=1))
    with pytest.raises(ValueError, match=r"idx3-ubyte.gz unpacks to more than 60,000,000 bytes"):
        fashion_mnist.read_idx(path, 3)


def test_cifar10_binary_folder_is_read_whole(tmp_path):
    splits = load_cifar("cifar10", write_binary(tmp_path / "cifar-10-batches-bin"), tmp_path / "cache", **SMALL)
    train, train_labels, test, test_labels = cifar_arrays()
    assert np.array_equal(splits.test.images.numpy(), test)
    assert splits.test.targets.tolist() == test_labels.tolist()
    rest, held = hold_out(train_labels, 20, seed=0)
    for split, rows in ((splits.train, rest), (splits.val, held)):
        assert np.array_equal(split.images.numpy(), train[rows])
        assert split.targets.tolist() == train_labels[rows].tolist()
    assert torch.bincount(splits.val.targets).tolist() == [2] * 10
    assert splits.notes == ""


@needs_pyarrow
def test_cifar10_is_the_same_in_all_its_formats(tmp_path):
    write_binary(tmp_path / "unpacked" / "cifar-10-batches-bin")
    (tmp_path / "packed").mkdir()
    archive = write_archive(tmp_path / "packed" / "cifar-10-binary.tar.gz")
    write_parquet(tmp_path / "parquet" / "plain_text")
    places = [tmp_path / "unpacked", archive, archive.parent, tmp_path / "parquet"]
    splits = [load_cifar("cifar10", place, tmp_path / "cache", **SMALL) for place in places]
    assert len({split.checksum() for split in splits}) == 1
    assert {split.notes for split in splits} == {""}


@needs_pyarrow
def test_cifar10_of_jpeg_says_that_it_is_lossy(tmp_path):
    folder = write_parquet(tmp_path / "jpeg", "JPEG")
    for _ in ("decoded", "from the cache"):
        assert load_cifar("cifar10", folder, tmp_path / "cache", **SMALL).notes == "lossy JPEG"


def test_cifar10_is_decoded_once(tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz")
    checksum = load_cifar("cifar10", archive, tmp_path / "cache", **SMALL).checksum()
    (cache,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(CifarFiles, "decode_archive", pytest.fail)
        assert load_cifar("cifar10", archive, tmp_path / "cache", **SMALL).checksum() == checksum
    # A process that lost the race to write the cache keeps the winner's and leaves nothing behind.
    decoded._save(decoded._load(["train", "test"], cache), cache)
    assert list((tmp_path / "cache").iterdir()) == [cache]
    (cache / "train_images.npy").write_bytes((cache / "train_images.npy").read_bytes()[:5000])
    with pytest.raises(ValueError, match="is damaged .* delete that folder and run again") as error:
        load_cifar("cifar10", archive, tmp_path / "cache", **SMALL)
    assert str(cache) in one_line(error)


def test_changed_cifar10_files_are_decoded_again(tmp_path):
    folder = write_binary(tmp_path / "cifar-10-batches-bin")
    first = load_cifar("cifar10", folder, tmp_path / "cache", **SMALL)
    data = bytearray((folder / "test_batch.bin").read_bytes())
    data[1] ^= 255
    (folder / "test_batch.bin").write_bytes(data)
    later = time.time_ns() + 10**9
    os.utime(folder / "test_batch.bin", ns=(later, later))
    second = load_cifar("cifar10", folder, tmp_path / "cache", **SMALL)
    assert int((first.test.images != second.test.images).sum()) == 1


def test_bad_cifar10_is_never_cached(tmp_path):
    folder = write_binary(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(ValueError, match="must hold 50000 train images, got 200; fetch all files again") as error:
        load_cifar("cifar10", folder, tmp_path / "cache")
    one_line(error)
    assert not (tmp_path / "cache").exists()


def test_cifar10_without_files_says_what_to_get(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=r"no CIFAR-10, (it is empty|there is no .*); put cifar-10-bin"
        ) as error:
            load_cifar("cifar10", place, tmp_path / "cache")
        one_line(error)
    (write_binary(tmp_path / "cifar-10-batches-bin") / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin is missing; unpack all of") as error:
        load_cifar("cifar10", tmp_path, tmp_path / "cache")
    one_line(error)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "data_batch_2.bin",
            bytes(3073 * 2 - 1),
            "data_batch_2.bin must be a whole number of 3073-byte records, got 6145",
        ),
        ("data_batch_2.bin", bytes(3073 * 39), "must hold 200 train images, got 199"),
        ("data_batch_2.bin", bytes(3073 * 40), "must hold 20 train images of each class"),
        ("test_batch.bin", bytes([10, *[0] * 3072]) * 50, r"test labels must be 0\.\.9, each of them, got \[10\]"),
        (
            "test_batch.bin",
            b"".join(bytes([min(i, 9), *[0] * 3072]) for i in range(50)),
            "must hold 5 test images of each",
        ),
        ("batches.meta.txt", b"truck\nship\n", "batches.meta.txt must name airplane, .*, got truck, ship"),
    ],
)
def test_damaged_cifar10_files_are_refused(tmp_path, name, data, message):
    files = {**cifar_files(), name: data}
    for place in (write_binary(tmp_path / "folder", files), write_archive(tmp_path / "cifar-10-binary.tar.gz", files)):
        with pytest.raises(ValueError, match=message) as error:
            load_cifar("cifar10", place, tmp_path / "cache", **SMALL)
        one_line(error)


def test_damaged_cifar10_archives_are_refused(tmp_path):
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz")
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(
        ValueError, match=r"cifar-10-binary\.tar\.gz is damaged or truncated .* fetch it again"
    ) as error:
        load_cifar("cifar10", archive, tmp_path / "cache", **SMALL)
    one_line(error)
    files = cifar_files()
    del files["test_batch.bin"]
    with pytest.raises(ValueError, match=r"must contain cifar-10-batches-bin/test_batch\.bin") as error:
        load_cifar("cifar10", write_archive(archive, files), tmp_path / "cache", **SMALL)
    one_line(error)


@needs_pyarrow
def test_damaged_parquet_is_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    folder = write_parquet(tmp_path / "parquet")
    shard = folder / "test-00000-of-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="must be parquet with the columns img and label") as error:
        load_cifar("cifar10", folder, tmp_path / "cache", **SMALL)
    one_line(error)
    parquet.write_table(pa.table({"image": [1], "label": [1]}), shard)
    with pytest.raises(ValueError, match="must be parquet with the columns img and label") as error:
        load_cifar("cifar10", folder, tmp_path / "cache", **SMALL)
    one_line(error)
    parquet.write_table(pa.table({"img": [{"bytes": b"nonsense"}], "label": [1]}), shard)
    with pytest.raises(ValueError, match=r"row 0: img\.bytes must be an encoded image") as error:
        load_cifar("cifar10", folder, tmp_path / "cache", **SMALL)
    one_line(error)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    for split in ("train", "test"):
        (tmp_path / f"{split}-00000-of-00001.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[parquet\]"') as error:
        load_cifar("cifar10", tmp_path, tmp_path / "cache")
    one_line(error)


@needs_pyarrow
@pytest.mark.skipif(not REAL_CIFAR10.is_dir(), reason=f"needs CIFAR-10 as parquet in {REAL_CIFAR10}")
def test_real_cifar10_has_the_published_mean_and_std(tmp_path):
    splits = load_cifar("cifar10", REAL_CIFAR10, tmp_path)
    assert {name: len(split) for name, split in splits.named().items()} == {
        "train": 45_000,
        "val": 5_000,
        "test": 10_000,
    }
    # fb.resnet.torch, datasets/cifar10.lua, over the 50,000 published training images; these are JPEG, so roughly.
    pixels = torch.cat([splits.train.images, splits.val.images]).transpose(0, 1).flatten(1)
    histograms = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
    values = torch.arange(256).double()
    mean = (histograms * values).sum(1) / histograms.sum(1)
    std = ((histograms * (values - mean[:, None]) ** 2).sum(1) / histograms.sum(1)).sqrt()
    assert mean.tolist() == pytest.approx([125.3, 123.0, 113.9], abs=0.5)
    assert std.tolist() == pytest.approx([63.0, 62.1, 66.7], abs=1.0)
    assert splits.notes == "lossy JPEG"


@needs_pyarrow
def test_a_missing_shard_is_named(tmp_path):
    (write_parquet(tmp_path) / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-00000-of-00002\.parquet is missing; fetch it") as error:
        load_cifar("cifar10", tmp_path, tmp_path / "cache", **SMALL)
    one_line(error)


@needs_pyarrow
def test_cifar100_has_the_fine_labels_in_all_its_formats(tmp_path):
    folder = write_binary(tmp_path / "unpacked" / "cifar-100-binary", cifar100_files())
    archive = write_archive(tmp_path / "cifar-100-binary.tar.gz", cifar100_files(), "cifar-100-binary")
    write_cifar100_parquet(tmp_path / "parquet")
    places = [folder.parent, archive, tmp_path / "parquet"]
    splits = [load_cifar("cifar100", place, tmp_path / "cache", **SMALL_100) for place in places]
    assert len({split.checksum() for split in splits}) == 1

    arrays = cifar100_arrays()
    assert np.array_equal(splits[0].test.images.numpy(), arrays["test"][0])
    assert splits[0].test.targets.tolist() == arrays["test"][1].tolist()
    rest, held = hold_out(arrays["train"][1], 100, seed=0)
    for split, rows in ((splits[0].train, rest), (splits[0].val, held)):
        assert np.array_equal(split.images.numpy(), arrays["train"][0][rows])
        assert split.targets.tolist() == arrays["train"][1][rows].tolist()
    assert torch.bincount(splits[0].val.targets).tolist() == [1] * 100


def test_cifar100_classes_are_a_hundred_in_order():
    classes = PUBLISHED["cifar100"].classes
    assert len(set(classes)) == 100
    assert list(classes) == sorted(classes)
    # Superclasses "large carnivores" and "vehicles 2" of Krizhevsky's list.
    assert {"bear", "leopard", "lion", "tiger", "wolf", "lawn_mower", "rocket", "streetcar", "tank", "tractor"} <= {
        *classes
    }


def test_foreign_cifar100_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no CIFAR-100, it holds batches.* and 2 more; put") as error:
        load_cifar("cifar100", write_binary(tmp_path / "cifar-10-batches-bin"), tmp_path / "cache")
    one_line(error)
    files = {**cifar100_files(), "test.bin": bytes(3073 * 100)}
    with pytest.raises(ValueError, match="test.bin must be a whole number of 3074-byte records, got 307300") as error:
        load_cifar("cifar100", write_binary(tmp_path / "folder", files), tmp_path / "cache", **SMALL_100)
    one_line(error)


def rows_of(split: Split, name: str) -> list[int]:
    """Of every image of split that is in a part of SVHN, its row there."""
    rows = {image.tobytes(): row for row, image in enumerate(svhn_arrays()[name][0])}
    return [rows[image.numpy().tobytes()] for image in split.images if image.numpy().tobytes() in rows]


@pytest.mark.parametrize("extra", [True, False])
def test_svhn_is_read_whole(tmp_path, extra):
    splits = load_svhn(write_svhn(tmp_path), tmp_path / "cache", extra=extra, **SMALL_SVHN)
    arrays = svhn_arrays()
    assert splits.test.images.numpy().tobytes() == arrays["test"][0].tobytes()
    assert splits.test.targets.tolist() == arrays["test"][1].tolist()

    found = {name: rows_of(splits.train, name) + rows_of(splits.val, name) for name in ("train", "extra")}
    assert sorted(found["train"]) == list(range(60))
    assert sorted(found["extra"]) == list(range(50 if extra else 0))
    for split in (splits.train, splits.val):
        digits = [arrays[name][1][row] for name in ("train", "extra") for row in rows_of(split, name)]
        assert split.targets.tolist() == digits
    # 400 of each class from train and 200 from extra in the published sizes; 2 and 1 here.
    held = {name: np.bincount(arrays[name][1][rows_of(splits.val, name)], minlength=10).tolist() for name in found}
    assert held == {"train": [2 if extra else 3] * 10, "extra": [1 if extra else 0] * 10}


@needs_pyarrow
def test_svhn_is_the_same_as_parquet(tmp_path):
    places = [write_svhn(tmp_path / "mat"), write_svhn_parquet(tmp_path / "parquet")]
    checksums = [load_svhn(place, tmp_path / "cache", **SMALL_SVHN).checksum() for place in (*places, places[0])]
    assert len(set(checksums)) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 6


def test_svhn_needs_the_extra_images_only_where_they_are_used(tmp_path):
    folder = write_svhn(tmp_path, ("train", "test"))
    assert len(load_svhn(folder, tmp_path / "cache", extra=False, **SMALL_SVHN).train) == 30
    with pytest.raises(FileNotFoundError, match=r"holds no extra_32x32\.mat of SVHN, it holds .*; put that") as error:
        load_svhn(folder, tmp_path / "cache", **SMALL_SVHN)
    one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros((20, 1), dtype=np.uint8)}, "labels must be 1..10, where 10 is the digit 0, got 0"),
        ({"y": np.ones((20, 1), dtype=np.uint8)}, r"test labels must be 0\.\.9, each of them, got \[1\]"),
        ({"y": np.ones((19, 1), dtype=np.uint8)}, r"X uint8 \[32, 32, 3, N\] and y \[N, 1\], got uint8 .* \[19, 1\]"),
        ({"X": np.zeros((20, 3, 32, 32), dtype=np.uint8)}, r"X uint8 .*, got uint8 \[20, 3, 32, 32\]"),
        ({"X": np.zeros((32, 32, 3, 20))}, "X uint8 .*, got float64"),
        (
            {"X": np.zeros((32, 32, 3, 19), np.uint8), "y": np.ones((19, 1), np.uint8)},
            "must hold 20 test images, got 19",
        ),
    ],
)
def test_other_svhn_files_are_refused(tmp_path, changes, message):
    write_svhn(tmp_path, ("train",))
    write_svhn(tmp_path, ("test",), **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_svhn(tmp_path, tmp_path / "cache", extra=False, **SMALL_SVHN)
    assert "test_32x32.mat" in one_line(error) or str(tmp_path) in one_line(error)
    assert not list((tmp_path / "cache").glob("svhn-test-*"))


MATLAB_7_3 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"


@pytest.mark.parametrize(
    "data", [b"", b"nonsense" * 100, MATLAB_7_3, None], ids=["empty", "nonsense", "7.3", "truncated"]
)
def test_damaged_svhn_files_are_refused(tmp_path, data):
    file = write_svhn(tmp_path, ("train", "test")) / "train_32x32.mat"
    file.write_bytes(file.read_bytes()[:-1000] if data is None else data)
    with pytest.raises(
        ValueError, match=r"train_32x32\.mat must be a MATLAB 5 file with X and y .* fetch it again"
    ) as error:
        load_svhn(tmp_path, tmp_path / "cache", extra=False, **SMALL_SVHN)
    one_line(error)
