"""Small files in the layouts in which data sets are published."""

import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from datamodules.sources.cifar import PUBLISHED

CONF = Path(__file__).resolve().parents[2] / "conf"
REAL_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# CIFAR-10

TRAIN, TEST = 200, 50
SMALL = {"train_count": TRAIN, "test_count": TEST, "val_count": 20}


def cifar_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    train, test = (random.randint(256, size=(count, 3, 32, 32)).astype(np.uint8) for count in (TRAIN, TEST))
    return train, random.permutation(TRAIN) % 10, test, random.permutation(TEST) % 10


def write_shard(
    path: Path, images: np.ndarray, columns: dict[str, np.ndarray], image: str, image_format: str = "PNG"
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def encode(pixels: np.ndarray) -> dict[str, bytes | None]:
        buffer = io.BytesIO()
        Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, image_format)
        return {"bytes": buffer.getvalue(), "path": None}

    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([(image, struct_type), *((name, pa.int64()) for name in columns)])
    rows = {image: [encode(one) for one in images], **{name: values.tolist() for name, values in columns.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(rows, schema=schema), path)


def write_parquet(folder: Path, image_format: str = "PNG") -> Path:
    train, train_labels, test, test_labels = cifar_arrays()
    shards = {
        "train-00000-of-00002": (train[:120], train_labels[:120]),
        "train-00001-of-00002": (train[120:], train_labels[120:]),
        "test-00000-of-00001": (test, test_labels),
    }
    for name, (images, labels) in shards.items():
        write_shard(folder / f"{name}.parquet", images, {"label": labels}, "img", image_format)
    return folder


# CIFAR-100

SMALL_100 = {"train_count": 300, "test_count": 100, "val_count": 100}


def cifar100_arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By file: images and fine labels."""
    random = np.random.RandomState(0)
    return {
        name: (random.randint(256, size=(count, 3, 32, 32)).astype(np.uint8), random.permutation(count) % 100)
        for name, count in (("train", 300), ("test", 100))
    }


def write_cifar100_parquet(folder: Path) -> Path:
    for name, (images, fine) in cifar100_arrays().items():
        columns = {"fine_label": fine, "coarse_label": fine % 20}
        write_shard(folder / "cifar100" / f"{name}-00000-of-00001.parquet", images, columns, "img")
    return folder


def cifar_files() -> dict[str, bytes]:
    def records(images: np.ndarray, labels: np.ndarray) -> bytes:
        return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))

    train, train_labels, test, test_labels = cifar_arrays()
    files = {
        f"data_batch_{part + 1}.bin": records(
            train[part * 40 : part * 40 + 40], train_labels[part * 40 : part * 40 + 40]
        )
        for part in range(5)
    }
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return {**files, "test_batch.bin": records(test, test_labels), "batches.meta.txt": "\n".join([*names, ""]).encode()}


def write_binary(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (files or cifar_files()).items():
        (folder / name).write_bytes(data)
    return folder


def write_archive(path: Path, files: dict[str, bytes] | None = None, folder: str = "cifar-10-batches-bin") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (files or cifar_files()).items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def cifar100_files() -> dict[str, bytes]:
    """A record is the coarse label, the fine label and the pixels."""
    files = {
        f"{name}.bin": b"".join(
            bytes([fine % 20, fine]) + image.tobytes() for image, fine in zip(images, labels, strict=True)
        )
        for name, (images, labels) in cifar100_arrays().items()
    }
    return {**files, "fine_label_names.txt": "\n".join([*classes_of("cifar100"), ""]).encode()}


# CIFAR as torchvision, Keras and the authors' page leave it


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes and text as Python 2 wrote its str, and numpy's names as numpy 1 did, like the authors' files."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_str


def as_python_2(content: object) -> bytes:
    buffer = io.BytesIO()
    Python2(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")


def cifar_pickles(dump: Callable[[object], bytes] = as_python_2) -> dict[str, bytes]:
    train, train_labels, test, test_labels = cifar_arrays()
    parts = {f"data_batch_{n + 1}": (train[n * 40 :][:40], train_labels[n * 40 :][:40]) for n in range(5)}
    batches = {
        name: dump(
            {"batch_label": name, "labels": labels.tolist(), "data": images.reshape(-1, 3072), "filenames": ["a"]}
        )
        for name, (images, labels) in (parts | {"test_batch": (test, test_labels)}).items()
    }
    return batches | {"batches.meta": dump({"num_vis": 3072, "label_names": list(classes_of("cifar10"))})}


def cifar100_pickles(dump: Callable[[object], bytes] = as_python_2) -> dict[str, bytes]:
    parts = {
        name: dump(
            {"fine_labels": fine.tolist(), "coarse_labels": (fine % 20).tolist(), "data": images.reshape(-1, 3072)}
        )
        for name, (images, fine) in cifar100_arrays().items()
    }
    return parts | {"meta": dump({"coarse_label_names": ["a"], "fine_label_names": list(classes_of("cifar100"))})}


def classes_of(name: str) -> tuple[str, ...]:
    return PUBLISHED[name].classes


# SVHN

SMALL_SVHN = {"train_count": 60, "extra_count": 50, "test_count": 20, "val_from_train": 2, "val_from_extra": 1}


def svhn_arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By part: images and digits."""
    random = np.random.RandomState(0)
    return {
        name: (random.randint(256, size=(count, 3, 32, 32)).astype(np.uint8), random.permutation(count) % 10)
        for name, count in (("train", 60), ("extra", 50), ("test", 20))
    }


def write_svhn(folder: Path, parts: tuple[str, ...] = ("train", "extra", "test"), **changes: np.ndarray) -> Path:
    """Rows, columns, colours and images in this order, and 10 for the digit 0, as the set's authors describe their files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in parts:
        images, digits = svhn_arrays()[name]
        labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
        variables = {"X": np.moveaxis(images, (2, 3, 1, 0), (0, 1, 2, 3)), "y": labels, **changes}
        savemat(folder / f"{name}_32x32.mat", variables, do_compression=True)
    return folder


def write_svhn_parquet(folder: Path) -> Path:
    for name, (images, digits) in svhn_arrays().items():
        write_shard(folder / "cropped_digits" / f"{name}-00000-of-00001.parquet", images, {"label": digits}, "image")
        write_shard(
            folder / "full_numbers" / f"{name}-00000-of-00001.parquet", images[:1], {"label": digits[:1]}, "image"
        )
    return folder


# One's own photographs


def photographs(folder: Path, counts: dict[str, int]) -> Path:
    """A folder for each class, of JPEGs in different shapes; the classes differ in hue, the images of a class in brightness."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            width, height = 60 + number, 50
            colour = np.roll([255 - 5 * number, 20, 20], label)
            pixels = np.full((height, width, 3), colour, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=95)
    return folder
