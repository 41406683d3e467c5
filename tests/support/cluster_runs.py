"""Long runs on clusters: their command, their progress, their results."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from support.commands import rows
from support.forked_trials import TIMES

LONG = ("model=resnet", "logger=none", "recipe.epochs=30", "trainer.limit_train_batches=8")


def until(true: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def directory(root: Path) -> Path | None:
    return next(root.glob("digits/*/*/seed0"), None)


def record(root: Path) -> dict:
    folder = directory(root)
    if folder is None or not (folder / "record.json").exists():
        return {"status": None}
    return json.loads((folder / "record.json").read_text())


def trains(root: Path) -> Callable[[], bool]:
    """Whether there is a checkpoint to go on from: that of an epoch is written after its row in the history."""

    def reached() -> bool:
        folder = directory(root)
        return folder is not None and (folder / "checkpoints" / "last.ckpt").exists()

    return reached


def assert_same_result(root: Path, undisturbed: Path) -> None:
    straight = json.loads((undisturbed / "record.json").read_text())
    again = record(root)
    for key in ("weights_sha256", "metrics", "confusion"):
        assert again[key] == straight[key], key
    one, two = ([{k: v for k, v in row.items() if k not in TIMES} for row in rows(folder)]
                for folder in (directory(root), undisturbed))  # fmt: skip
    assert one == two
    assert len(one) == 30
