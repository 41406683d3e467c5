"""The sweep in the terminal: `python -m benchmarks show [FOLDER]` hands over to `wandb leet`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Returns what `wandb leet` returns, or 1 with one line on stderr where it has nothing to show or no terminal."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks show",
        description="The runs below FOLDER in the terminal, their curves over the FLOPs spent on training: `wandb leet` over "
        "FOLDER/wandb. Nothing goes over the network.",
        epilog="Esc leads to the list of runs, the arrow keys move in it and Space overlays a run on those that are shown; "
        "y makes the error axis logarithmic, h lists all keys, q leaves. The page, FOLDER/report.html, needs no terminal.",
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="outputs", help="default: outputs")
    folder = Path(parser.parse_args(argv).folder)
    runs = folder / "wandb"
    if not folder.is_dir():
        return _refuse(f"no folder {folder}: give the folder that holds the runs, normally outputs")
    if not any(runs.glob("*run-*")):
        return _refuse(f"no W&B runs in {runs} (logger=none writes none): {_page(folder)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _refuse(f"this is no terminal: {_page(folder)}, or run the command in a terminal")
    return subprocess.call(
        [sys.executable, "-m", "wandb", "leet", str(runs)], env={**os.environ, "WANDB_ERROR_REPORTING": "false"}
    )


def _page(folder: Path) -> str:
    page = folder / "report.html"
    return f"open {page}" if page.exists() else f"`python -m benchmarks report {folder}` writes {page}, open that"


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1
