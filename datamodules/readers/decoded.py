"""Images that are decoded once: the arrays of a published set as .npy files, mapped into memory when they are read again."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from datamodules.readers.splits import Split, Splits, hold_out

# Part of the cache's key: raise it when any decoder changes what it returns.
_DECODER_VERSION = 2


@dataclass(frozen=True, eq=False)
class Part:
    """Images uint8 [N, C, H, W] and labels int64 [N] of a part of a set, as published: the training images, say."""

    images: np.ndarray
    labels: np.ndarray

    def check(self, origin: Path, name: str, count: int, classes: int) -> None:
        """Raise ValueError unless there are count images, and of every class 0..classes-1 some."""
        if len(self.labels) != count:
            raise ValueError(f"{origin} must hold {count} {name} images, got {len(self.labels)}; fetch all files again")
        present = np.unique(self.labels).tolist()
        if present != list(range(classes)):
            raise ValueError(f"{origin}: {name} labels must be 0..{classes - 1}, each of them, got {present}")


@dataclass(frozen=True, eq=False)
class Decoded:
    """The parts of a set by name, and what a reader of a result must know of them ("" normally)."""

    parts: dict[str, Part]
    notes: str = ""


def decoded_once(
    name: str,
    files: Sequence[Path],
    parts: Sequence[str],
    decode: Callable[[], Decoded],
    check: Callable[[Decoded], None],
    cache_dir: Path,
) -> Decoded:
    """Decode these files once: return what decode returns, from a folder of cache_dir if it is there.

    The folder's name is of the files' paths, sizes and modification times. Arrays are read-only and mapped, not read:
    what a caller copies is all that takes memory. Only what passes check is written.
    Raises ValueError naming the folder if it is damaged, and what decode and check raise.
    """
    # Of a link its own path too: a pool of images is sorted into classes by the folders of links.
    paths = [dict.fromkeys((str(file.resolve()), os.path.abspath(file))) for file in files]
    facts = [(*path, file.stat().st_size, file.stat().st_mtime_ns) for path, file in zip(paths, files, strict=True)]
    key = hashlib.sha256(json.dumps([_DECODER_VERSION, facts]).encode()).hexdigest()[:16]
    cache = cache_dir / f"{name}-{key}"
    if not cache.is_dir():
        fresh = decode()
        check(fresh)
        _save(fresh, cache)
        del fresh
    decoded = _load(parts, cache)
    check(decoded)
    return decoded


def gather(pieces: Sequence[tuple[Part, np.ndarray]]) -> Split:
    """Copy rows of each part, one after the other, into one split."""
    shape = (sum(len(rows) for _, rows in pieces), *pieces[0][0].images.shape[1:])
    images = np.empty(shape, dtype=np.uint8)
    start = 0
    for part, rows in pieces:
        # mode="raise" would go through a buffer as large as the result.
        np.take(part.images, rows, axis=0, out=images[start : start + len(rows)], mode="clip")
        start += len(rows)
    labels = np.concatenate([part.labels[rows] for part, rows in pieces])
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def splits_of(train: Part, test: Part, val_count: int, classes: tuple[str, ...], notes: str = "") -> Splits:
    """Return the splits of a set without validation images: val_count of the training images, fixed and stratified, are val."""
    rest, held_out = hold_out(train.labels, val_count, seed=0)
    every = np.arange(len(test.labels))
    return Splits(gather([(train, rest)]), gather([(train, held_out)]), gather([(test, every)]), classes, notes=notes)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a name of its own, and rename it to path at the end: no reader ever sees half a file, and
    of two writers the last one wins."""
    # Not tempfile: it would keep the file from the other users of a shared disk.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(parts: Sequence[str], folder: Path) -> Decoded:
    def read(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    try:
        notes = json.loads((folder / "notes.json").read_text())
        return Decoded({part: Part(read(f"{part}_images"), read(f"{part}_labels")) for part in parts}, notes)
    except (ValueError, OSError) as error:
        raise ValueError(f"the cache {folder} is damaged ({error}); delete that folder and run again") from error


def _save(decoded: Decoded, folder: Path) -> None:
    """Write all files into a temporary folder, then rename it: no reader ever sees half a cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name, part in decoded.parts.items():
            for kind, array in (("images", part.images), ("labels", part.labels)):
                with whole_file(temporary / f"{name}_{kind}.npy") as file:
                    np.save(file, array)
        (temporary / "notes.json").write_text(json.dumps(decoded.notes))
        temporary.rename(folder)
    except OSError:
        # Another process was first, and its cache is as good; anything else is an error.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
