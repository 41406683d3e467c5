"""Where commands print."""

import os
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console

PLAIN_WIDTH = 120
STYLED = 500  # rows of a table; rich takes about a millisecond for each


def console(markup: bool = True) -> Console:
    """A terminal's width on a terminal, a fixed one elsewhere (a pipe, a file) unless COLUMNS says another."""
    found = Console(highlight=False, markup=markup)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(highlight=False, markup=markup, width=PLAIN_WIDTH)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Rows of texts as lines, columns padded to the widest; ``right`` are the columns that are flush right."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        cells = [gap + text if i in right else text + gap for i, (text, gap) in enumerate(zip(row, gaps, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
