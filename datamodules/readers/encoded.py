"""Encoded photographs: single files, or packed in parquet shards."""

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from datamodules.readers.splits import ThreeSplits

# What Pillow raises on damaged files, by format, and on images of more pixels than a memory should take (its bomb limit).
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)

NAMES_AND_SIZES = "the checksum is of the names and sizes of the files, not of pixels"


class DamagedImageError(ValueError):
    """An image that cannot be read; the message names it, in one line.

    A loader wraps what its worker raises in another error of the same type, with the whole traceback as its text, whose end
    is the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rpartition(f"{DamagedImageError.__name__}: ")[2])


def unreadable(name: object, error: BaseException) -> str:
    """Return the line about an image file that Pillow does not read: damaged, of a format that is not known, or too large."""
    if isinstance(error, UnidentifiedImageError):
        why, remedy = "of no known format, whatever its name says", "convert it to PNG or JPEG, or fetch it again"
    else:
        why, remedy = (str(error).splitlines() or [type(error).__name__])[0], "fetch or write it again"
        if isinstance(error, Image.DecompressionBombError):
            remedy = "cut it into smaller images, or fetch it again if it is none of so many pixels"
    return f"{name} cannot be read as an image ({why}); {remedy}"


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Files below root. paths: bytes [N], relative to it. sizes: int64 [N], in bytes. labels: int64 [N], the classes.

    A name is what the checksum calls an image, which is not to depend on where the data lie; a place what messages call it.
    """

    root: Path
    paths: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    @classmethod
    def single(cls, path: Path) -> Self:
        """Return a file alone, of no class."""
        return cls(Path(), np.array([os.fsencode(path)]), np.array([path.stat().st_size]), np.array([-1]))

    def name(self, row: int) -> str:
        """Return the path below root."""
        return os.fsdecode(self.paths[row])

    def place(self, row: int) -> str:
        """Return the whole path."""
        return str(self.root / self.name(row))

    def read(self, row: int) -> bytes:
        """Return the file's bytes. Raises OSError."""
        return (self.root / self.name(row)).read_bytes()


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images one behind the other in some files. files: int64 [N], the file of each; offsets: int64 [N], its first byte; for
    the rest see FolderImages."""

    paths: Sequence[Path]
    files: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def name(self, row: int) -> str:
        """Return shard, row in it and class."""
        first = int(np.searchsorted(self.files, self.files[row]))
        return f"{self.paths[self.files[row]].stem}.parquet row {row - first} class {self.labels[row]}"

    place = name

    def read(self, row: int) -> bytes:
        """Return the image's bytes. Raises OSError."""
        with open(self.paths[self.files[row]], "rb") as file:
            file.seek(self.offsets[row])
            return file.read(self.sizes[row])


ImageFiles = FolderImages | PackedImages


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Some of the images: rows int64 [n] of files."""

    files: ImageFiles
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def classes(self, numbers: np.ndarray | slice) -> np.ndarray:
        """Return the classes int64 [B] of some images of the split."""
        return self.files.labels[self.rows[numbers]]


@dataclass(frozen=True, eq=False)
class ImageSplits(ThreeSplits[ImageSplit]):
    """Train, validation and test split of encoded images; see ThreeSplits."""

    def checksum(self, names: Sequence[str] = ("train", "val", "test")) -> str:
        """Return SHA-256 over split, name and size in bytes of every image of some splits, as 64 hex digits."""
        digest = hashlib.sha256()
        for name in names:
            split = self.named()[name]
            files = split.files
            for row in split.rows.tolist():
                digest.update(f"{name} {files.name(row)} {files.sizes[row]}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
