"""Small files in the layouts in which data sets are published."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

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
