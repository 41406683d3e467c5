"""The lines of a sweep, as a terminal shows them and as a log holds them."""

import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.console import Console
from support.commands import ROOT

from benchmarks.config.trial import Impossible
from benchmarks.launch.progress import SweepProgress, shortened
from benchmarks.launch.trial_job import Outcome

TRAINING = {
    **{"phase": "train", "epoch": 2, "epochs": 4, "done": 40, "total": 70, "elapsed_s": 116.4, "left_s": 87.3},
    **{"images_per_s": 28.13},
    **{"metrics": {"val/top1_err": 4.2, "train/loss": 0.31}, "label": "error (%)"},
}
PREPARING = {"phase": "prepare", "what": "fetching, MB", "done": 1_234, "total": 0, "metrics": {}}
LONG = "resnet18 · image_size=-32-32- num_classes=3 test_views=-10crop-40- train_count=21 epochs=2 · seed 12"
TINY = (
    "model.depth=8",
    "model.base_channels=4",
    "recipe.epochs=2",
    "trainer.accelerator=cpu",
    "logger.mode=none",
    "cluster.threads_per_process=1",
)


def lines(width: int, *progresses: dict) -> list[str]:
    """The sweep's line and one for each of two runs, the first with a long name."""
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    labels = (LONG, "resnet20 · seed 0")
    progress = SweepProgress(console, [Impossible((label,), "") for label in labels])
    for index, (label, content) in enumerate(zip(labels, progresses, strict=True)):
        progress.begin(index, label)
        progress.update(index, content)
    with console.capture() as capture:
        console.print(progress.bars.get_renderable())
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_long_name_leaves_room_for_the_bar_and_for_the_error(width: int) -> None:
    sweep, long, short = lines(width, TRAINING, PREPARING)
    assert all(len(line) <= width for line in (sweep, long, short))
    assert long.startswith("resnet18") and " seed 12 " in long.replace("…", " ")
    assert "━" in long and "epoch 2/4" in long and "val err 4.2 %" in long
    assert ("28.1 img/s" in long) >= ("loss" in long) and ("01:56<01:27" in long) >= ("28.1 img/s" in long)
    assert short.startswith("resnet20 · seed 0 "[: width // 4 - 8]) and "fetching, MB" in short
    assert "0 of 2 runs" in sweep


def test_what_is_said_of_a_run() -> None:
    _, training, preparing = lines(140, TRAINING, PREPARING | {"total": 2_000})
    assert "epoch 2/4  01:56<01:27  28.1 img/s  val err 4.2 %  loss 0.31" in training
    assert "fetching, MB  1,234/2,000" in preparing
    waiting = lines(140, TRAINING, PREPARING | {"what": "job 12", "done": 0})[2]
    assert waiting.rstrip().endswith(" job 12")
    masks, unknown = lines(
        140,
        TRAINING | {"metrics": {"val/dice_err": 6.5}, "label": "100 − Dice (%)"},
        TRAINING | {"metrics": {"val/top1_err": None}},
    )[1:]
    assert "val Dice 93.5 %" in masks
    assert "epoch 2/4" in unknown and "err" not in unknown


@pytest.mark.parametrize("width", [16, 21, 30, len(LONG), 200])
def test_a_name_is_shortened_in_its_middle(width: int) -> None:
    short = shortened(LONG, width)
    assert len(short) == min(width, len(LONG))
    start, _, end = short.partition("…")
    assert LONG.startswith(start) and LONG.endswith(end)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("file", "environment"),
    [(io.StringIO(), {}), (io.StringIO(), {"FORCE_COLOR": "1"}), (Terminal(), {"TERM": "dumb"})],
    ids=["a file", "a file in colour", "a terminal without a cursor"],
)
def test_where_no_bar_can_be_redrawn_an_evaluation_is_a_line_once(
    file: io.StringIO, environment: dict[str, str]
) -> None:
    console = Console(file=file, width=80, color_system=None, soft_wrap=True, _environ=environment)
    with SweepProgress(console, [Impossible(("resnet20",), "")]) as progress:
        progress.begin(0, "resnet20")
        for evaluation in ("epoch 1/2  val err 9 %", "epoch 1/2  val err 9 %", "epoch 2/2  val err 8 %"):
            progress.update(0, TRAINING | {"evaluation": evaluation})
            progress.refresh()
        progress.end(0, "resnet20", Outcome("failed", "killed by SIGKILL"))
    assert file.getvalue().splitlines() == [
        "resnet20  epoch 1/2  val err 9 %",
        "resnet20  epoch 2/2  val err 8 %",
        "resnet20   failed: killed by SIGKILL",
    ]


INTERRUPTED = f"""
import time
from rich.console import Console
from benchmarks.config.trial import Impossible
from benchmarks.launch.progress import SweepProgress
from benchmarks.launch.trial_job import Outcome
label = "resnet20 · seed 0"
with SweepProgress(Console(), [Impossible((label,), ""), Impossible(("other",), "")]) as progress:
    progress.begin(0, label)
    progress.update(0, {TRAINING!r})
    try:
        while True:
            progress.refresh()
            time.sleep(0.05)
    except KeyboardInterrupt:
        time.sleep(0.2)
        progress.refresh()
        progress.end(0, label, Outcome("interrupted", "interrupted by Ctrl-C"))
print("the end")
"""


def test_ctrl_c_leaves_no_bar_behind() -> None:
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(80, 10)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("COLUMNS", None)
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # in a shell's background it is ignored
        os.execv(sys.executable, [sys.executable, "-c", INTERRUPTED])
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 80, 0, 0))
    asked = False
    while True:
        try:
            stream.feed(os.read(terminal, 65536))
        except OSError:  # the last of its writers has closed it
            break
        if not asked and any("epoch 2/4" in line for line in screen.display):
            os.write(terminal, b"\x03")
            asked = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shown = [line.rstrip() for line in screen.display if line.strip()]
    assert shown == ["resnet20 · seed 0   interrupted by Ctrl-C", "the end"]


IN_THE_BACKGROUND = """
import os, signal, sys
from benchmarks.launch.progress import without_echo_of_keys
child = os.fork()
if child == 0:
    os.setpgid(0, 0)  # as a shell starts a command with & behind it
    with without_echo_of_keys():
        pass
    sys.stdin = None  # as behind <&-
    with without_echo_of_keys():
        os._exit(0)
status = os.waitpid(child, os.WUNTRACED)[1]
os.kill(child, signal.SIGKILL) if os.WIFSTOPPED(status) else None
sys.exit(os.WIFSTOPPED(status) or os.waitstatus_to_exitcode(status))
"""


def test_a_sweep_in_the_background_is_not_stopped_by_its_terminal() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", IN_THE_BACKGROUND])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_the_bars_are_drawn_by_the_thread_that_says_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich's own thread wrote bars over the results of one run in forty, where four ended at a time."""
    screen = Terminal()
    console = Console(width=80, force_terminal=True, color_system=None, legacy_windows=False, file=screen)
    threads = threading.enumerate()
    with SweepProgress(console, [Impossible((name,), "") for name in "ab"]) as progress:
        assert threading.enumerate() == threads
        progress.begin(0, "resnet20 · seed 0")
        progress.refresh()
        drawn = len(screen.getvalue())
        progress.refresh()
        assert len(screen.getvalue()) == drawn, "a moment after the last time"
        monkeypatch.setattr("benchmarks.launch.progress.REFRESH_S", 0)
        progress.update(0, TRAINING)
        progress.refresh()
        assert "epoch 2/4" in screen.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 120])
def test_a_real_sweep_leaves_one_whole_line_for_each_run(tmp_path: Path, width: int) -> None:
    pyte = pytest.importorskip("pyte")
    screen = pyte.HistoryScreen(width, 50)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    command = [sys.executable, "run.py", "-m", "model=resnet", "seed=0,1", *TINY, f"output_root={tmp_path / 'o'}"]
    environment = os.environ | {"TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as sweep:
        os.close(theirs)
        seen = set()
        while True:
            try:
                shown = os.read(ours, 65536)
            except OSError:  # the last of its writers has closed it
                break
            stream.feed(shown)
            seen.update(line.rstrip() for line in screen.display)
    os.close(ours)
    assert sweep.returncode == 0
    ended = [line.rstrip() for line in screen.display if re.match(r"\S+ .*· seed \d   ", line)]
    assert len(ended) == 2
    for seed, line in enumerate(ended):
        assert re.fullmatch(rf"resnet8 .*· seed {seed}   test error \d+\.\d\d %   [\d.]+ (s|min \d\d s)", line)
    bars = [line for line in seen if "━" in line or "╸" in line]
    assert bars and all(re.match(r"(sweep|resnet8\S* .*) +[━╸╺ ]+  ?\S", line) for line in bars), bars
    assert not [line for line in screen.display if "━━" in line and line.startswith(("sweep", "resnet8"))]
    for log in tmp_path.rglob("log.txt"):
        epochs = [line.split("  ")[0] for line in log.read_text().splitlines() if line.startswith("epoch ")]
        assert epochs == ["epoch 1/2", "epoch 2/2"]
