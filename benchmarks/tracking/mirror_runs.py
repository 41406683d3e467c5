"""Writes runs to a mirror after the fact: ``python -m benchmarks export mirror [FOLDER…] --to NAME``."""

import argparse
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.config.folders import choices, read_option
from benchmarks.records.files import CONFIG, HISTORY, read_config
from benchmarks.records.runs import Run, load_runs
from benchmarks.terminal import with_bar
from benchmarks.tracking.content import Content, ended, reason
from benchmarks.tracking.follower import Writer, writer_class
from benchmarks.units import one_line, plural

NOT_HERE = ("none", "wandb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``mirror``."""
    parser.description = (
        "Write finished runs to a mirror, as logger=NAME does while they train; what is there already is not written again. "
        "Settings are those of the run, else of conf/logger/NAME.yaml. Exit code 1 if a run is not there in the end."
    )
    parser.epilog = "For Weights & Biases: python -m benchmarks wandb sync."
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="*", type=Path, help="with runs, or of a run; default: outputs"
    )
    names = [name for name in choices("logger") if name not in NOT_HERE]
    parser.add_argument("--to", metavar="NAME", choices=names, required=True, help=", ".join(names))


def run(arguments: argparse.Namespace) -> int:
    """Write what is missing; return 0 if the mirror holds every run, else 1. Raises ValueError where the mirror's package is
    not installed, FileNotFoundError where there is no such folder."""
    name = arguments.to
    try:
        writer = writer_class(name)
    except ImportError:
        raise ValueError(f"--to {name} needs {name}: pip install -e '.[{name}]'") from None
    loaded = [load_runs(folder) for folder in arguments.folders or [Path("outputs")]]
    runs = {run.directory.resolve(): run for runs, _ in loaded for run in runs}
    problems = [problem for _, problems in loaded for problem in problems]
    rows = complete = 0
    places: dict[str, None] = {}
    for run in with_bar(runs.values(), "mirroring", len(runs)):
        try:
            written, place = _mirror(run, name, writer)
            rows, complete, places[place] = rows + written, complete + 1, None
        except Exception as error:  # of the client, its server or the disk: of many classes
            problems.append(f"{one_line(str(run.directory))}: {reason(error)}")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(
        f"{complete} of {plural(len(runs), 'run')} in {name}, complete; {plural(rows, 'row')} of {HISTORY} written now"
    )
    for place in places:
        print(f"look  {place}")
    return 1 if problems else 0


def _mirror(run: Run, name: str, writer_of: Any) -> tuple[int, str]:
    """Complete a run's mirror; return how many rows it lacked, and how it is looked at."""
    try:
        config = read_config(run.directory)
    except (OSError, ValueError):
        raise ValueError(f"no readable {CONFIG}") from None
    logger = config.get("logger")
    settings: Any = logger.get(name) if isinstance(logger, dict) else None
    if not isinstance(settings, dict):
        settings = OmegaConf.to_container(OmegaConf.create({**read_option("logger", name)}), resolve=True)
    content = Content(run.directory, ended(run), config, settings)
    writer: Writer = writer_of(content)
    missing = content.rows[writer.rows :]
    if missing:
        writer.write(missing)
    writer.close(content)
    return len(missing), writer_of.where(content)
