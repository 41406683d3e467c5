"""What a folder holds, without what operating systems leave in it."""

import os
import re
from pathlib import Path

# Hidden files (.DS_Store, macOS's ._x.jpg beside x.jpg, NFS's .nfs… of deleted files) and those of Windows.
_STRAY = re.compile(r"\..*|__MACOSX|(eh)?thumbs(_vista)?\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)

_SHOWN = 5


def list_folder(folder: Path) -> tuple[list[os.DirEntry[str]], int]:
    """Return what a folder holds, in the order of names and without stray files, and the number of stray files."""
    with os.scandir(folder) as entries:
        every = sorted(entries, key=lambda entry: entry.name)
    present = [entry for entry in every if not _STRAY.fullmatch(entry.name)]
    return present, len(every) - len(present)


def as_utf8(name: str) -> str:
    """Return a name of the file system as text that can be written: bytes that are no UTF-8 as ``\\xe9``."""
    return os.fsencode(name).decode(errors="backslashreplace")


def size_of(entry: os.DirEntry[str] | Path) -> int:
    """Return the size of a file in bytes. Raises FileNotFoundError naming a link that leads nowhere."""
    try:
        return entry.stat().st_size
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{os.fspath(entry)} is a link to {os.readlink(entry)}, which is not there") from error


def stray_note(count: int) -> list[str]:
    """Return what a reader of a result must know of skipped files."""
    return [f"{count} stray files skipped (.DS_Store, Thumbs.db and the like)"] if count else []


def contents(folder: Path) -> str:
    """Return in words what there is at a path, for a message: some names, or that there is nothing."""
    if folder.is_file():
        return "it is a file"
    if not folder.is_dir():
        return "there is no such folder"
    names = [_shown(entry) for entry in list_folder(folder)[0]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"it holds {', '.join(names[:_SHOWN])}{more}" if names else "it is empty"


def _shown(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink() and not os.path.exists(entry.path):
        return f"{entry.name} (a link that leads nowhere)"
    return f"{entry.name}/" if entry.is_dir() else entry.name
