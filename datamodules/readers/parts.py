"""Where a folder's images for training, validation and test lie: all in one place, or within train/, val/ and test/."""

from collections.abc import Callable, Collection
from pathlib import Path

from datamodules.readers.listing import as_utf8, list_folder

_VAL = ("val", "valid", "validation")


def part_folders(root: Path, holds_images: Callable[[Path], bool]) -> tuple[dict[str, Path], list[str]]:
    """Return the folders by part, and remarks; root alone, as "train", where holds_images says no of its train/.

    Where there is val/ (or valid/, validation/) and no test/, it is the test set. A remark names other folders beside train/.
    Raises ValueError on two folders of validation images.
    """
    train = root / "train"
    if not (train.is_dir() and holds_images(train)):
        return {"train": root}, []
    named = [name for name in _VAL if (root / name).is_dir()]
    if len(named) > 1:
        raise ValueError(f"{root} holds {' and '.join(f'{name}/' for name in named)}; keep one of them")
    val = root / named[0] if named else None
    parts = {"train", "test", *named}
    others = [f"{as_utf8(entry.name)}/" for entry in list_folder(root)[0] if entry.is_dir() and entry.name not in parts]
    left_out = f"{root}: {', '.join(others)} beside train/ left out; parts are called train/, val/ and test/"
    remarks = [left_out] if others else []
    folders = {"train": train} | ({} if val is None else {"val": val})
    if (root / "test").is_dir():
        return folders | {"test": root / "test"}, remarks
    if val is None:
        return folders, remarks
    return {"train": train, "test": val}, [
        f"{root} has no test/: {val.name}/ is the test set, val is drawn from train/",
        *remarks,
    ]


def drawn_note(parts: Collection[str], seed: int) -> list[str]:
    """Return what a reader of a result must know of the parts that no folder had."""
    if not parts:
        return []
    return [f"{'split' if len(parts) == 2 else ''.join(parts)} drawn with seed {seed}"]
