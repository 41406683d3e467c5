"""The sweep in the terminal: `python -m benchmarks wandb show [FOLDER]` hands over to `wandb leet`."""

import argparse
import os
import subprocess
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``wandb show``."""
    parser.description = (
        "The runs below FOLDER in the terminal, their curves over the FLOPs spent on training: `wandb leet` over FOLDER/wandb. "
        "Nothing goes over the network."
    )
    parser.epilog = (
        "Esc leads to the list of runs, the arrow keys move in it and Space overlays a run on those that are shown; y makes "
        "the error axis logarithmic, h lists all keys, q leaves. The page, FOLDER/report.html, needs no terminal."
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="outputs", help="default: outputs")


def run(arguments: argparse.Namespace) -> int:
    """Hand over to `wandb leet` and return its exit code.

    Raises:
        ValueError: there is nothing to show, or no terminal to show it on.
    """
    folder = Path(arguments.folder)
    runs = folder / "wandb"
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: give the folder that holds the runs, normally outputs")
    if not any(runs.glob("*run-*")):
        raise ValueError(f"no W&B runs in {runs} (logger=none writes none): {_page(folder)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError(f"this is no terminal: {_page(folder)}, or run the command in a terminal")
    return subprocess.call(
        [sys.executable, "-m", "wandb", "leet", str(runs)], env={**os.environ, "WANDB_ERROR_REPORTING": "false"}
    )


def _page(folder: Path) -> str:
    """Say which page shows the same."""
    page = folder / "report.html"
    return f"open {page}" if page.exists() else f"`python -m benchmarks report {folder}` writes {page}, open that"
