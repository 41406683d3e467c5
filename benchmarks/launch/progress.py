"""Progress in the terminal: one bar for the sweep and one for each run; a line per event where there is no terminal."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from benchmarks.launch.trial_job import Outcome
from benchmarks.records.progress import part_of, where_it_is

MARKS = {
    "ok": "[green]done[/]",
    "finished": "[green]finished before[/]",
    "interrupted": "[yellow]interrupted[/]",
    "preempted": "[yellow]preempted[/]",
}


def shortened(label: str, width: int) -> str:
    """``label`` in ``width`` characters: its beginning and its end, where network and seed stand."""
    if len(label) <= width:
        return label
    end = max(len(" seed 12"), width // 3)
    return f"{label[: width - end - 1]}…{label[-end:]}"


class SweepProgress:
    """Shows ``total`` trials as they run.

    Args:
        console: where to; bars only if it is a terminal.
        total: number of trials; the sweep's bar is left out for one.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.ended = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=min(28, console.width // 8)),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            # What the others leave: a long note would take the bar away.
            TextColumn("{task.fields[note]}", style="dim", table_column=Column(ratio=1, no_wrap=True)),
        )
        self.bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True)
        self.sweep = self.bars.add_task("sweep", total=total, note=f"of {total} runs") if total > 1 else None
        self.runs: dict[int, TaskID] = {}
        self.parts: dict[int, float] = {}
        self.failed = 0

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def begin(self, index: int, label: str) -> None:
        """A trial starts."""
        shown = shortened(label, max(16, self.console.width // 4))
        self.runs[index] = self.bars.add_task(shown, total=None, note="starting")

    def update(self, index: int, progress: dict[str, Any]) -> None:
        """A trial has written ``progress.json``, or waits in a queue."""
        note, total = ", ".join(where_it_is(progress)), progress["total"] or None
        self.bars.update(self.runs[index], total=total, completed=progress["done"], note=note)
        if (part := part_of(progress)) is not None:
            self.parts[index] = part
        self._show_sweep()

    def wait(self, index: int, label: str, reason: str) -> None:
        """A trial is with another launcher."""
        self.bars.update(self.runs[index], note=reason)
        self.console.print(f"{label}: {reason}; waiting for it", markup=False, highlight=False)

    def end(self, index: int, label: str, outcome: Outcome) -> None:
        """A trial has ended; its line stays."""
        self.bars.remove_task(self.runs.pop(index))
        self.parts.pop(index, None)
        self.ended += 1
        self.failed += not outcome.good
        place = f"[{self.ended}/{self.total}] " if self.total > 1 else ""
        cause = f": {outcome.error}" if outcome.error else ""
        mark = MARKS.get(outcome.status, f"[bold red]{outcome.status}[/]")
        self.console.print(rf"\{place}{label} {mark}" if place else f"{label} {mark}", end="", highlight=False)
        self.console.print(cause, markup=False, highlight=False)
        self._show_sweep()

    def _show_sweep(self) -> None:
        if self.sweep is not None:
            failed = f", {self.failed} without a result" if self.failed else ""
            note = f"{self.ended} of {self.total} runs ended{failed}"
            self.bars.update(self.sweep, completed=self.ended + sum(self.parts.values()), note=note)
