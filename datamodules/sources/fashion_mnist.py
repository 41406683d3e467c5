"""Data sets in MNIST's IDX format: MNIST itself and Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from datamodules.readers.decoded import Part, splits_of
from datamodules.readers.listing import contents
from datamodules.readers.splits import Splits

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTE = 0x08
_UNPACKED_BYTES = 60_000_000  # of a compressed file; the largest, 60,000 images, has 47,040,016


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Return the array of one IDX file of unsigned bytes with ndim dimensions, plain or compressed by gzip.

    The header is two zero bytes, the type, the number of dimensions, then each size as a big-endian 32-bit integer
    (LeCun's description of MNIST). Raises ValueError on another header and on more or fewer bytes than it announces.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(_UNPACKED_BYTES + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or truncated ({error}); fetch it again") from error
        if len(data) > _UNPACKED_BYTES:
            raise ValueError(f"{path} unpacks to more than {_UNPACKED_BYTES:,} bytes; fetch it again")
    expected = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if data[:4] != expected:
        raise ValueError(f"{path} must begin with the IDX magic number {expected.hex()}, got {data[:4].hex()}")
    start = 4 + 4 * ndim
    if len(data) < start:
        raise ValueError(f"{path} is truncated: the header takes {start} bytes, got {len(data)}; fetch it again")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{path} must hold {math.prod(shape)} bytes after its header, got {len(data) - start}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _mean_and_std(images: np.ndarray) -> tuple[float, float]:
    """Return the mean and standard deviation over all pixels divided by 255, from the histogram: exact in little memory."""
    histogram = sum(np.bincount(image.ravel(), minlength=256) for image in images)
    values = np.arange(256) / 255
    mean = float((histogram * values).sum() / images.size)
    return mean, math.sqrt(float((histogram * (values - mean) ** 2).sum() / images.size))


def load_idx(
    folder: Path, classes: tuple[str, ...], train_count: int, test_count: int, val_count: int, mean: float, std: float
) -> Splits:
    """Return the four files of a set laid out like MNIST's: images uint8 [N, 1, H, W]; val_count of the training images, fixed
    and stratified, become val.

    mean and std are those published of the training pixels divided by 255, to four decimals: they are compared with the
    decoded arrays, because compressed files differ between distributors while the images do not.
    Raises FileNotFoundError on a missing file and ValueError on a damaged one or on other counts, classes or pixels.
    """

    def read(name: str, ndim: int, count: int) -> np.ndarray:
        names = (name, name.replace("-idx", ".idx"))  # the latter as some archives unpack
        paths = [path for one in names for path in (folder / one, folder / f"{one}.gz") if path.is_file()]
        if not paths:
            raise FileNotFoundError(
                f"{folder / name}[.gz] is missing, {contents(folder)}; put the set's four IDX files into {folder}"
            )
        array = read_idx(paths[0], ndim)
        if len(array) != count:
            raise ValueError(f"{paths[0]} must hold {count} entries, got {len(array)}")
        return array

    def part(prefix: str, count: int) -> Part:
        images = read(f"{prefix}-images-idx3-ubyte", 3, count)[:, None]
        return Part(images, read(f"{prefix}-labels-idx1-ubyte", 1, count).astype(np.int64))

    train, test = part("train", train_count), part("t10k", test_count)
    train.check(folder, "training", train_count, len(classes))
    test.check(folder, "test", test_count, len(classes))
    decoded = _mean_and_std(train.images)
    if abs(decoded[0] - mean) > 5e-5 or abs(decoded[1] - std) > 5e-5:
        raise ValueError(
            f"{folder} holds other images: the training pixels must have mean {mean:.4f} and standard deviation "
            f"{std:.4f}, got {decoded[0]:.4f} and {decoded[1]:.4f}"
        )
    return splits_of(train, test, val_count, classes)


def _folder_of(root: Path, name: str) -> Path:
    """Return the folder of the files: root itself, or <name>/raw in it, as torchvision leaves them."""
    raw = root / name / "raw"
    return raw if raw.is_dir() else root


def load_mnist(folder: str | Path) -> Splits:
    """Return MNIST (LeCun et al. 1998): 55,000 / 5,000 / 10,000 images uint8 [N, 1, 28, 28] of ten digits.

    folder: with the four IDX files, or torchvision's root, with MNIST/raw.
    Raises FileNotFoundError if a file is missing; see load_idx for the rest.
    """
    digits = tuple(str(digit) for digit in range(10))
    folder = _folder_of(Path(folder), "MNIST")
    return load_idx(folder, digits, train_count=60_000, test_count=10_000, val_count=5_000, mean=0.1307, std=0.3081)


def load_fashion_mnist(folder: str | Path) -> Splits:
    """Return Fashion-MNIST: 55,000 / 5,000 / 10,000 images uint8 [N, 1, 28, 28] of ten classes.

    folder: with the four IDX files, where Debian's package dataset-fashion-mnist puts them into
    /usr/share/datasets/fashion-mnist, or torchvision's root, with FashionMNIST/raw.
    Raises FileNotFoundError if folder is missing; see load_idx for the rest.
    """
    folder = _folder_of(Path(folder), "FashionMNIST")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing; install Debian's dataset-fashion-mnist or put Fashion-MNIST's four IDX files there"
        )
    return load_idx(
        folder, FASHION_MNIST_CLASSES, train_count=60_000, test_count=10_000, val_count=5_000, mean=0.2860, std=0.3530
    )
