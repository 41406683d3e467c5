"""CIFAR-10 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images) from files on this machine."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from datamodules.splits import Split, Splits, hold_out

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_FILES = (*_TRAIN_FILES, "test_batch.bin", "batches.meta.txt")
_SHAPE = (3, 32, 32)
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# Part of the cache's key: raise it when the decoding below changes.
_DECODER_VERSION = 1


@dataclass(frozen=True, eq=False)
class _Decoded:
    """images uint8 [N, 3, 32, 32], labels int64 [N], by split as published, and what a reader must know of them."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    notes: str


def _decode_records(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one binary file: per image one byte of label, then red, green and blue planes, row by row."""
    size = 1 + int(np.prod(_SHAPE))
    if not data or len(data) % size:
        raise ValueError(f"{name} must be a whole number of {size}-byte records, got {len(data)} bytes; fetch it again")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
    return records[:, 1:].reshape(-1, *_SHAPE), records[:, 0].astype(np.int64)


def _decode_binary(origin: Path, read: Callable[[str], bytes]) -> _Decoded:
    """Decode the official binary files; read returns the bytes of a file by its name."""
    names = tuple(read("batches.meta.txt").decode("ascii", "replace").split())
    if names != CLASSES:
        raise ValueError(f"{origin}: batches.meta.txt must name {', '.join(CLASSES)}, got {', '.join(names)}")
    train = [_decode_records(f"{origin}: {name}", read(name)) for name in _TRAIN_FILES]
    test_images, test_labels = _decode_records(f"{origin}: test_batch.bin", read("test_batch.bin"))
    train_images, train_labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    return _Decoded(train_images, train_labels, test_images, test_labels, notes="")


def _decode_archive(path: Path) -> _Decoded:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.startswith(f"{FOLDER}/") else None
                if file is not None:
                    contents[Path(member.name).name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); fetch {ARCHIVE} again") from error
    for name in _FILES:
        if name not in contents:
            raise ValueError(f"{path} must contain {FOLDER}/{name}; fetch {ARCHIVE} again")
    return _decode_binary(path, contents.__getitem__)


def _decode_folder(folder: Path) -> _Decoded:
    for name in _FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; unpack all of {ARCHIVE} there")
    return _decode_binary(folder, lambda name: (folder / name).read_bytes())


def _decode_parquet(files: dict[str, list[Path]]) -> _Decoded:
    """Decode the files of the hub's schema: img is a struct with the encoded bytes, label an integer."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError('reading parquet needs pyarrow: pip install -e ".[parquet]"') from error

    formats: set[str | None] = set()
    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, paths in files.items():
        images: list[np.ndarray] = []
        labels: list[int] = []
        for path in paths:
            try:
                table = parquet.read_table(path, columns=["img", "label"])
                column, path_labels = table["img"].to_pylist(), table["label"].to_pylist()
            except (ArrowException, KeyError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"{path} must be parquet with the columns img and label ({reason})") from error
            for row, encoded in enumerate(column):
                try:
                    image = Image.open(io.BytesIO(encoded["bytes"]))
                    pixels = np.asarray(image.convert("RGB"))
                except (UnidentifiedImageError, OSError, TypeError, KeyError) as error:
                    raise ValueError(f"{path} row {row}: img.bytes must be an encoded image ({error})") from error
                if pixels.shape != (32, 32, 3):
                    raise ValueError(f"{path} row {row}: an image must be 32x32, got {image.height}x{image.width}")
                formats.add(image.format)
                images.append(pixels.transpose(2, 0, 1))
            labels.extend(path_labels)
        arrays[split] = np.stack(images), np.array(labels, dtype=np.int64)
    return _Decoded(*arrays["train"], *arrays["test"], notes="lossy JPEG" if "JPEG" in formats else "")


def _find(path: Path) -> tuple[list[Path], Callable[[], _Decoded]]:
    """The files of CIFAR-10 at path and what decodes them."""
    if path.is_file() and path.name.endswith(".tar.gz"):
        return [path], partial(_decode_archive, path)
    for folder in (path, path / FOLDER):
        present = [folder / name for name in _FILES if (folder / name).is_file()]
        if present:
            return present, partial(_decode_folder, folder)
    if (path / ARCHIVE).is_file():
        return _find(path / ARCHIVE)
    shards = {split: sorted(path.rglob(f"{split}-*.parquet")) for split in ("train", "test")}
    if shards["train"] and shards["test"]:
        return shards["train"] + shards["test"], partial(_decode_parquet, shards)
    raise FileNotFoundError(
        f"{path} holds no CIFAR-10; put {ARCHIVE} (www.cs.toronto.edu/~kriz/cifar.html), its unpacked {FOLDER}, or "
        "train-*.parquet and test-*.parquet of the hub's uoft-cs/cifar10 there"
    )


def _cache_key(files: list[Path]) -> str:
    """A hash of what the cache depends on: names, sizes and modification times of the files, and the decoder."""
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([_DECODER_VERSION, facts]).encode()).hexdigest()[:16]


def _load_cache(folder: Path) -> _Decoded:
    try:
        train_images, train_labels, test_images, test_labels = (np.load(folder / f"{name}.npy") for name in _ARRAYS)
        notes = json.loads((folder / "notes.json").read_text())
    except (ValueError, OSError) as error:
        raise ValueError(f"the cache {folder} is damaged ({error}); delete that folder and run again") from error
    return _Decoded(train_images, train_labels, test_images, test_labels, notes)


def _save_cache(decoded: _Decoded, folder: Path) -> None:
    """Write all files into a temporary folder, then rename it: no reader ever sees half a cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile.mkdtemp: it would keep the cache from the other users of a shared disk.
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name in _ARRAYS:
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, getattr(decoded, name))
                file.flush()
                os.fsync(file.fileno())
        (temporary / "notes.json").write_text(json.dumps(decoded.notes))
        temporary.rename(folder)
    except OSError:
        # Another process was first, and its cache is as good; anything else is an error.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_cifar10(
    path: str | Path,
    cache_dir: str | Path,
    train_count: int = 50_000,
    test_count: int = 10_000,
    val_count: int = 5_000,
) -> Splits:
    """45,000 / 5,000 / 10,000 images uint8 [N, 3, 32, 32] of ten classes.

    path: cifar-10-binary.tar.gz, its unpacked folder cifar-10-batches-bin, a folder that holds either, or a folder with
    train-*.parquet and test-*.parquet of the hub's uoft-cs/cifar10 (needs the extra `parquet`). The images are decoded
    once and kept as .npy files in a subfolder of cache_dir. val is a fixed, stratified part of the training images.
    Raises FileNotFoundError on missing files and ValueError on damaged ones or other counts; every class must hold a
    tenth of a split, as in the published set. ImportError without pyarrow when the files are parquet.
    """
    files, decode = _find(Path(path))
    cache = Path(cache_dir) / f"cifar10-{_cache_key(files)}"
    if cache.is_dir():
        decoded = _load_cache(cache)
    else:
        decoded = decode()
    for name, labels, count in (
        ("train", decoded.train_labels, train_count),
        ("test", decoded.test_labels, test_count),
    ):
        if len(labels) != count:
            raise ValueError(f"{path} must hold {count} {name} images, got {len(labels)}; fetch all files again")
        each = count // len(CLASSES)
        sizes = [int((labels == label).sum()) for label in range(len(CLASSES))]
        if set(sizes) != {each}:
            raise ValueError(f"{path} must hold {each} {name} images of each class 0..9, got {sizes}")
    if not cache.is_dir():
        _save_cache(decoded, cache)

    def split(images: np.ndarray, labels: np.ndarray) -> Split:
        return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))

    train, val = hold_out(decoded.train_labels, val_count, seed=0)
    return Splits(
        train=split(decoded.train_images[train], decoded.train_labels[train]),
        val=split(decoded.train_images[val], decoded.train_labels[val]),
        test=split(decoded.test_images, decoded.test_labels),
        classes=CLASSES,
        notes=decoded.notes,
    )
