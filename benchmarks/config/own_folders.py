"""What a configuration needs to know of a user's own folder of images before anything is read. Imports no torch."""

import os
import re
from pathlib import Path


def class_folders(root: str) -> int:
    """Return the number of classes in a folder: of the folders in it, or in its train/ where that holds folders. Raises
    ValueError where there is no such folder, less than two classes in it, or a link in it that leads nowhere."""
    path = Path(root)
    if not path.is_dir():
        raise ValueError(f"data.root={root} is no folder: it holds a folder of images for each class")
    outside, within_train = _folders(path), _folders(path / "train")
    count = within_train or outside
    if count < 2:
        held = f"{path / 'train' if within_train else path} holds {count}"
        raise ValueError(f"data.root={root} must hold a folder of images for each of two classes or more; {held}")
    return count


def _folders(path: Path) -> int:
    if not path.is_dir():
        return 0
    entries = [entry for entry in path.iterdir() if not re.match(r"\.|__MACOSX$", entry.name)]
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            raise ValueError(f"{entry} is a link to {os.readlink(entry)}, which is not there")
    return sum(entry.is_dir() for entry in entries)


def given_parts(root: str, annotations: str) -> set[str]:
    """Return those of val and test that have a folder in ``root``, beside a train/ that holds folders or the file
    ``annotations``; val/ alone is the test set. As ``part_folders`` of the readers, which draw what is missing."""
    train = Path(root, "train")
    if not (any(entry.is_dir() for entry in train.glob("[!.]*")) or (train / annotations).is_file()):
        return set()
    val = any(Path(root, name).is_dir() for name in ("val", "valid", "validation"))
    if Path(root, "test").is_dir():
        return {"val", "test"} if val else {"test"}
    return {"test"} if val else set()


def folder_name(root: str) -> str:
    """Return the last part of a folder's full path, as a name in paths."""
    return re.sub(r"[^\w.+-]+", "-", Path(os.path.realpath(root)).name)
