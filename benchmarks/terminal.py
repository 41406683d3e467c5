"""Where commands print."""

import os

from rich.console import Console

PLAIN_WIDTH = 120


def console(markup: bool = True) -> Console:
    """A terminal's width on a terminal, a fixed one elsewhere (a pipe, a file) unless COLUMNS says another."""
    found = Console(highlight=False, markup=markup)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(highlight=False, markup=markup, width=PLAIN_WIDTH)
