"""The bars of a sweep, as a terminal shows them."""

import pytest
from rich.console import Console

from benchmarks.launch.progress import SweepProgress, shortened

TRAINING = {"phase": "train", "epoch": 3, "epochs": 10, "done": 40, "total": 100, "metrics": {"val/top1_err": 12.345}}
PREPARING = {"phase": "prepare", "what": "fetching, MB", "done": 1_234, "total": 0, "metrics": {}}
LONG = "resnet18 image_size=-32-32- num_classes=3 test_views=-10crop-40- train_count=21 epochs=2 seed 12"


def lines(width: int, *progresses: dict) -> list[str]:
    """The sweep's bar and one for each of two runs, the first with a long name."""
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    progress = SweepProgress(console, total=2)
    for index, (label, content) in enumerate(zip((LONG, "resnet20 seed 0"), progresses, strict=True)):
        progress.begin(index, label)
        progress.update(index, content)
    with console.capture() as capture:
        console.print(progress.bars.get_renderable())
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_long_name_leaves_room_for_the_bar_and_for_what_is_said(width: int) -> None:
    sweep, long, short = lines(width, TRAINING, PREPARING)
    assert all(len(line) <= width for line in (sweep, long, short))
    assert long.startswith("resnet18") and " seed 12 " in long.replace("…", " ")
    assert "━" in long and "40 %" in long and " 0:00:" in long and "epoch 3/10" in long
    assert short.startswith("resnet20 seed 0 ") and "fetching, MB" in short
    # 40 % of one of two runs; data that are being fetched are no part of a sweep.
    assert "20 %" in sweep


def test_what_is_said_of_a_run() -> None:
    _, training, preparing = lines(140, TRAINING, PREPARING | {"total": 2_000})
    assert "epoch 3/10, val/top1_err 12.3" in training
    assert "fetching, MB, 1,234/2,000" in preparing and "62 %" in preparing
    waiting = lines(140, TRAINING, PREPARING | {"what": "job 12", "done": 0})[2]
    assert waiting.rstrip().endswith(" job 12")
    testing, unknown = lines(140, TRAINING | {"phase": "test"}, TRAINING | {"metrics": {"val/top1_err": None}})[1:]
    assert "testing, val/top1_err 12.3" in testing
    assert "epoch 3/10" in unknown and "top1_err" not in unknown


@pytest.mark.parametrize("width", [16, 21, 30, len(LONG), 200])
def test_a_name_is_shortened_in_its_middle(width: int) -> None:
    short = shortened(LONG, width)
    assert len(short) == min(width, len(LONG))
    start, _, end = short.partition("…")
    assert LONG.startswith(start) and LONG.endswith(end)
