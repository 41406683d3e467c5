"""Progress in the terminal: one bar for the sweep and one for the run; a line per event where there is no terminal."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.launch import Outcome

MARKS = {"ok": "[green]done[/]", "finished": "[green]finished before[/]", "interrupted": "[yellow]interrupted[/]"}


class SweepProgress:
    """Shows ``total`` cells as they run.

    Args:
        console: where to; bars only if it is a terminal.
        total: number of cells; the sweep's bar is left out for one.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.started = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self.bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.sweep = self.bars.add_task("sweep", total=total, note="") if total > 1 else None
        self.run: TaskID | None = None

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def begin(self, label: str) -> None:
        """A cell starts."""
        self.started += 1
        self.run = self.bars.add_task(label, total=None, note="starting")
        if self.sweep is not None:
            self.bars.update(self.sweep, note=f"run {self.started} of {self.total}")

    def update(self, progress: dict[str, Any]) -> None:
        """A cell has written ``progress.json``."""
        if self.run is None:
            return
        note = f"epoch {progress['epoch']}/{progress['epochs']}" if progress["phase"] == "train" else "testing"
        shown = [f"{name} {value:.3g}" for name, value in progress["metrics"].items()]
        self.bars.update(self.run, total=progress["total"], completed=progress["done"], note=", ".join([note, *shown]))
        if self.sweep is not None and progress["total"]:
            self.bars.update(self.sweep, completed=self.started - 1 + progress["done"] / progress["total"])

    def end(self, label: str, outcome: Outcome) -> None:
        """A cell has ended; its line stays."""
        if self.run is not None:
            self.bars.remove_task(self.run)
        place = f"[{self.started}/{self.total}] " if self.total > 1 else ""
        cause = f": {outcome.error}" if outcome.error else ""
        mark = MARKS.get(outcome.status, f"[bold red]{outcome.status}[/]")
        self.console.print(rf"\{place}{label} {mark}" if place else f"{label} {mark}", end="", highlight=False)
        self.console.print(cause, markup=False, highlight=False)
        if self.sweep is not None:
            self.bars.update(self.sweep, completed=self.started)
