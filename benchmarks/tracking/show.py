"""The sweep in the terminal: `python -m benchmarks wandb show [FOLDER]` hands over to `wandb leet`."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.analysis.seeds import short_labels
from benchmarks.records.files import write_json
from benchmarks.records.runs import load_runs
from benchmarks.tracking.wandb_run import folder_of

LEET_STATE = ".wandb-leet.json"  # in the folder that it shows: what it opens with
LONGEST_NAME = 120  # bytes; a file's name may have 255, with what stands around it
OVERLAID = 10  # runs at first: it has ten colours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``wandb show``."""
    parser.description = (
        "The runs below FOLDER in the terminal under their names: `wandb leet` over those of FOLDER/wandb that train. It opens "
        f"on the validation error over the FLOPs spent on training, of the {OVERLAID} latest runs. It uses no network."
    )
    parser.epilog = (
        "Ctrl-L shows all charts, / chooses some by name. Esc leads to the list of runs, the arrow keys move in it and Space "
        "shows or hides a run. y makes the error axis logarithmic, h lists all keys, q leaves. The page, FOLDER/report.html, "
        "needs no terminal."
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="outputs", help="default: outputs")


def run(arguments: argparse.Namespace) -> int:
    """Hand over to `wandb leet` and return its exit code. Raises ValueError where there is nothing to show, or no terminal."""
    folder = Path(arguments.folder)
    runs = folder_of(folder) / "wandb"
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: give the folder that holds the runs, normally outputs")
    if not any(runs.glob("*run-*")):
        raise ValueError(f"no W&B runs in {runs} (logger=none writes none): {_page(folder)}")
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise ValueError(f"this is no terminal: {_page(folder)}, or run the command in a terminal")
    with tempfile.TemporaryDirectory() as scratch:
        links = Path(scratch) / "wandb"
        shown = links if link_named_runs(folder, runs, links) else runs
        return subprocess.call(
            [sys.executable, "-m", "wandb", "leet", str(shown)], env={**os.environ, "WANDB_ERROR_REPORTING": "false"}
        )


def link_named_runs(folder: Path, runs: Path, links: Path) -> int:
    """Make a folder of links to the W&B files of the runs below ``folder``, and return how many they are.

    `wandb leet` lists folders by their names, so a link bears the run's; what has no record, as a sweep's report, is left out.
    It orders charts by name, so it is told to open on those of the reported metrics.

    Args:
        runs: W&B's own folder.
        links: the one to be made.
    """
    recorded = load_runs(folder)[0]
    labels = {str(run.record.get("run_id")): label for run, label in zip(recorded, short_labels(recorded), strict=True)}
    files: dict[str, Path] = {}
    for path in sorted(runs.glob("*run-*/run-*.wandb"), key=lambda path: path.parent.name.removeprefix("offline-")):
        files[path.stem.removeprefix("run-")] = path  # the latest of a run that was resumed has all of it
    names: set[str] = set()
    folders: list[str] = []
    for run_id, path in files.items():
        began = re.search(r"run-\d{8}_\d{6}-", path.parent.name)
        if run_id not in labels or began is None:
            continue
        name = _file_name(labels[run_id])
        name = f"{name} {run_id}" if name in names else name
        names.add(name)
        folders.append(f"{began[0]}{name}")
        link = links / folders[-1] / f"run-{name}.wandb"
        link.parent.mkdir(parents=True)
        link.symlink_to(path.resolve())
    if folders:
        metrics = sorted({run.val_metric for run in recorded if run.val_metric})
        charts = (
            {"metrics_filter": {"query": "|".join(f"^{re.escape(metric)}$" for metric in metrics)}} if metrics else {}
        )
        write_json(links / LEET_STATE, {**charts, "selected_runs": folders[-OVERLAID:]})
    return len(folders)


def _file_name(label: str) -> str:
    """Return a label as a part of a file's name; of one too long for that its two ends: network, last overrides and seed."""
    name = re.sub(r"[^\w.,=-]+", " ", label).strip()
    encoded = name.encode()
    if len(encoded) <= LONGEST_NAME:
        return name
    half = LONGEST_NAME // 2
    return " ".join(end.decode(errors="ignore").strip() for end in (encoded[:half], encoded[-half:]))


def _page(folder: Path) -> str:
    """Say which page shows the same."""
    page = folder / "report.html"
    command = f"`python -m benchmarks report {shlex.quote(str(folder))}`"
    return f"open {page}" if page.exists() else f"{command} writes {page}, open that"
