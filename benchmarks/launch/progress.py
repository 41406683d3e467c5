"""Progress in the terminal: a line for the sweep and one for each run; where none can be redrawn, one for each evaluation."""

import os
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from benchmarks.config.trial import Impossible, Trial
from benchmarks.launch.trial_job import Outcome
from benchmarks.records.files import RECORD, read_json
from benchmarks.records.progress import clock, part_of, progress_line
from benchmarks.records.runs import Run
from benchmarks.terminal import can_redraw
from benchmarks.units import duration, plural, result_text

STYLES = {"ok": "green", "finished": "green", "interrupted": "yellow", "preempted": "yellow"}
REFRESH_S = 0.1
STARTING = {"phase": "prepare", "what": "starting a process", "done": 0, "total": 0}


def shortened(label: str, width: int) -> str:
    """``label`` in ``width`` characters: its beginning and its end, where network and seed stand."""
    if len(label) <= width:
        return label
    end = max(len(" · seed 12"), width // 3)
    return f"{label[: width - end - 1]}…{label[-end:]}"


class Fitted:
    """Shows how far a run is in the room that its name and bar leave."""

    def __init__(self, progress: dict[str, Any]) -> None:
        self.progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(progress_line(self.progress, options.max_width), no_wrap=True, overflow="ellipsis")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, options.max_width)


class NoteColumn(ProgressColumn):
    """What a run says of itself; of the sweep, how many runs have ended and the time that they took and the others will."""

    def render(self, task: Task) -> Any:
        """Return the note of a task."""
        if "progress" in task.fields:
            return Fitted(task.fields["progress"])
        left = clock(task.time_remaining) if task.time_remaining is not None else "?"
        return Text(f"{task.fields['note']}  {clock(task.elapsed)}<{left}", no_wrap=True, overflow="ellipsis")


@contextmanager
def without_echo_of_keys() -> Iterator[None]:
    """Keep keys, as the ``^C`` of an interrupt, off the screen: beside a full line they begin another, and a bar stays."""
    if not _has_the_keys():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before]
    quiet[3] = before[3] & ~termios.ECHO  # the local modes
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        if _has_the_keys():  # after Ctrl-Z and bg the shell has set the terminal as it likes
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _has_the_keys() -> bool:
    """Whether keys of the terminal go to this process: one in the background would be stopped if it set the terminal."""
    try:
        return sys.stdin is not None and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no terminal, another session's, or closed
        return False


class SweepProgress:
    """Shows trials as they run.

    Args:
        console: where to; bars only where they can be redrawn. Whatever is printed while they are shown goes through it.
        trials: in their order; the sweep's bar is left out for one.
    """

    def __init__(self, console: Console, trials: Sequence[Trial | Impossible]) -> None:
        self.console = console
        self.draws = can_redraw(console)
        self.trials = trials
        self.ended = self.failed = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=min(28, console.width // 10)),
            NoteColumn(table_column=Column(ratio=1, no_wrap=True)),
        )
        # Rich's refresh thread may redraw the bars after the place of a printed line is computed from their height and before
        # the line is written, which then covers an earlier line. So the thread that prints the lines draws the bars, too.
        self.bars = Progress(
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not self.draws,
            expand=True,
        )
        several = len(trials) > 1
        self.sweep = self.bars.add_task("sweep", total=len(trials), note=self._ended_text()) if several else None
        self.runs: dict[int, TaskID] = {}
        self.parts: dict[int, float] = {}
        self.evaluations: dict[int, str] = {}  # the last one that was printed
        self._terminal = ExitStack()
        self._drawn_s = 0.0

    def __enter__(self) -> Self:
        if self.draws:
            self._terminal.enter_context(without_echo_of_keys())
        self.bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.bars.stop()
        self._terminal.close()

    def refresh(self) -> None:
        """Draw the bars anew, if the last time is a while ago."""
        now = time.monotonic()
        if now >= self._drawn_s + REFRESH_S:
            self._drawn_s = now
            self.bars.refresh()

    def begin(self, index: int, label: str) -> None:
        """A trial starts."""
        short = shortened(label, max(16, self.console.width // 4))
        self.runs[index] = self.bars.add_task(short, total=None, progress=STARTING)

    def update(self, index: int, progress: dict[str, Any]) -> None:
        """A trial has written ``progress.json``, or waits in a queue."""
        self.bars.update(
            self.runs[index], total=progress["total"] or None, completed=progress["done"], progress=progress
        )
        if (part := part_of(progress)) is not None:
            self.parts[index] = part
        evaluation = progress.get("evaluation")
        if evaluation and evaluation != self.evaluations.get(index) and not self.draws:
            self.evaluations[index] = evaluation
            self.say(f"{self.trials[index].label}  {evaluation}")
        self._show_sweep()

    def wait(self, index: int, label: str, reason: str) -> None:
        """A trial is with another launcher."""
        self.bars.update(self.runs[index], progress=STARTING | {"what": reason})
        self.say(f"{label}  {reason}; waiting for it")

    def end(self, index: int, label: str, outcome: Outcome) -> None:
        """A trial has ended; its result stays as one line."""
        self.bars.remove_task(self.runs.pop(index))
        self.parts.pop(index, None)
        self.ended += 1
        self.failed += not outcome.good
        self.say(f"{label}   ", Text(self._result(index, outcome), STYLES.get(outcome.status, "bold red")))
        self._show_sweep()

    def say(self, *texts: str | Text) -> None:
        """Print a line; above the bars where there are some."""
        self.console.print(Text.assemble(*texts))

    def _result(self, index: int, outcome: Outcome) -> str:
        trial = self.trials[index]
        if not outcome.good or isinstance(trial, Impossible):
            cause = outcome.error or ""
            return cause if cause.startswith(outcome.status) else ": ".join(filter(None, (outcome.status, cause)))
        record = read_json(trial.directory / RECORD)
        if record is None:
            return outcome.status
        run = Run(trial.directory, record)
        before = "finished before" if outcome.status == "finished" else ""
        debug = "debug" if run.is_debug else ""
        texts = (result_text(run.measured, run.metric_label), duration(run.wall_s), debug, before)
        return "   ".join(filter(None, texts))

    def _ended_text(self) -> str:
        failed = f", {self.failed} without a result" if self.failed else ""
        return f"{self.ended} of {plural(len(self.trials), 'run')}{failed}"

    def _show_sweep(self) -> None:
        if self.sweep is not None:
            self.bars.update(
                self.sweep, completed=self.ended + sum(self.parts.values()), note=self._ended_text(), refresh=False
            )
