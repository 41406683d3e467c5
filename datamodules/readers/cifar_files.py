"""The files of CIFAR-10 and CIFAR-100 as their authors publish them: binary records, and pickles for Python."""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers.decoded import Decoded, Part
from datamodules.readers.pickles import read_pickle

SHAPE = (3, 32, 32)
# Of an archive: the official binary ones unpack to 184,640,000 and 184,450,000, those for Python to little more.
_UNPACKED_BYTES = 200_000_000
_PIXELS = 3 * 32 * 32  # red, green and blue planes, row by row


@dataclass(frozen=True)
class CifarFiles:
    """One form of a set: the folder that its archive unpacks to, the files in it, and what reads their bytes.

    class_names, images: called with what a message calls a file and its bytes; raise ValueError, beginning with the former.
    """

    folder: str
    archive: str
    train_files: tuple[str, ...]
    test_file: str
    names_file: str
    class_names: Callable[[str, bytes], tuple[str, ...]]
    images: Callable[[str, bytes], Part]

    @property
    def files(self) -> tuple[str, ...]:
        """All files by name."""
        return (*self.train_files, self.test_file, self.names_file)

    def decode_folder(self, classes: tuple[str, ...], folder: Path) -> Decoded:
        """Return the images of a folder.

        Raises FileNotFoundError where a file is missing and ValueError on damaged ones and on other classes.
        """
        for name in self.files:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is missing; unpack all of {self.archive} there")
        return self._decode(classes, folder, lambda name: (folder / name).read_bytes())

    def decode_archive(self, classes: tuple[str, ...], path: Path) -> Decoded:
        """Return the images of an archive. Raises ValueError where it is damaged, lacks a file or has other classes."""
        contents: dict[str, bytes] = {}
        with _opened(path) as archive:
            for member in archive:
                if member.offset_data + member.size > _UNPACKED_BYTES:
                    raise ValueError(
                        f"{path} unpacks to more than {_UNPACKED_BYTES:,} bytes; fetch {self.archive} again"
                    )
                folder, _, name = member.name.rpartition("/")
                if member.isreg() and folder == self.folder and name in self.files:  # no links
                    contents[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
        for name in self.files:
            if name not in contents:
                raise ValueError(f"{path} must contain {self.folder}/{name}; fetch {self.archive} again")
        return self._decode(classes, path, contents.__getitem__)

    def _decode(self, classes: tuple[str, ...], origin: Path, read: Callable[[str], bytes]) -> Decoded:
        names = self.class_names(f"{origin}: {self.names_file}", read(self.names_file))
        if names != classes:
            raise ValueError(f"{origin}: {self.names_file} must name {', '.join(classes)}, got {', '.join(names)}")

        def part(files: tuple[str, ...]) -> Part:
            pieces = [self.images(f"{origin}: {name}", read(name)) for name in files]
            return Part(*map(np.concatenate, zip(*((piece.images, piece.labels) for piece in pieces), strict=True)))

        return Decoded({"train": part(self.train_files), "test": part((self.test_file,))})


def names_of_text(name: str, data: bytes) -> tuple[str, ...]:
    """Return the lines of a text."""
    return tuple(data.decode("ascii", "replace").split())


def images_of_records(name: str, data: bytes, label_bytes: int) -> Part:
    """Return the images of records: label_bytes, of which the last is the label and others are coarser ones, and pixels. Raises
    ValueError on a part of a record."""
    size = label_bytes + _PIXELS
    if not data or len(data) % size:
        raise ValueError(f"{name} must be a whole number of {size}-byte records, got {len(data)} bytes; fetch it again")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
    return Part(records[:, label_bytes:].reshape(-1, *SHAPE), records[:, label_bytes - 1].astype(np.int64))


def names_of_pickle(name: str, data: bytes, key: str) -> tuple[str, ...]:
    """Return the list of names under a key of a pickled dict."""
    return tuple(map(_text, _entries(name, data, key)))


def images_of_pickle(name: str, data: bytes, key: str) -> Part:
    """Return the images under data of a pickled dict, and their labels under a key. Raises ValueError where there are no such
    arrays."""
    images, labels = (_entries(name, data, entry) for entry in ("data", key))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (_PIXELS,):
        raise ValueError(f"{name} must hold images uint8 [N, {_PIXELS}] under data")
    if not isinstance(labels, list) or len(labels) != len(images) or not all(type(label) is int for label in labels):
        raise ValueError(f"{name} must hold {len(images)} integers under {key}")
    return Part(images.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64))


def folder_in(path: Path) -> str:
    """Return the name of the first folder in a .tar.gz archive, "" where there is none. Raises ValueError on a damaged one."""
    with _opened(path) as archive:
        first = archive.next()
        return "" if first is None else first.name.removeprefix("./").split("/")[0]


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); fetch it again") from error


def _entries(name: str, data: bytes, key: str) -> Any:
    """Return what a pickled dict holds under a key."""
    content = read_pickle(name, data)
    entries = {_text(one): value for one, value in content.items()} if isinstance(content, dict) else {}
    if key not in entries:
        raise ValueError(f"{name} must hold a dict with {key}, it holds {', '.join(entries) or type(content).__name__}")
    return entries[key]


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
