"""The commands around runs: ``python -m benchmarks COMMAND``.

The table below is the only list of commands, and ``main`` the only place that parses their words, prints an error and chooses
the exit code of one. A command is two functions of a module, which is imported when the command is called:
``add_arguments(parser)``, and ``run(arguments)``, which returns an exit code or None for 0 and raises ValueError or OSError for
what the user can mend.
"""

import argparse
import importlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.config.folders import add_config_dir, add_config_dir_argument
from benchmarks.terminal import RENAMED, outlive_readers, without_comment
from benchmarks.units import one_line

PROGRAM = "python -m benchmarks"


@dataclass(frozen=True)
class Command:
    """A command, or a group of commands, or both.

    Attributes:
        help: its line in the list of commands.
        module: the module below ``benchmarks``; ``module:name`` where it has several commands, whose functions are then
            ``add_name_arguments`` and ``run_name``; empty for a group.
        commands: the commands below this one, by name.
        config_dir: whether it builds networks or data sets, which may be the user's own.
    """

    help: str
    module: str = ""
    commands: Mapping[str, "Command"] = field(default_factory=dict)
    config_dir: bool = False


VIEWS = {
    "layers": Command(
        "MACs, parameters and activations of every layer: a bar chart per network",
        "report.layers_view",
        config_dir=True,
    ),
    "cardinality": Command("error over cardinality at constant cost", "report.cardinality_view", config_dir=True),
    "deconvolution": Command(
        "what an up-convolution computes and costs, and when it makes checkerboards",
        "report.deconvolution_view",
        config_dir=True,
    ),
    "accuracy": Command("error over the cost of an image, a curve for each family", "report.accuracy_view"),
    "scaling": Command("error over training compute, a fitted curve for each family", "report.scaling_view"),
    "learning_rates": Command(
        "validation loss over learning rate, and the rate of each network", "report.learning_rate_view"
    ),
    "reuse": Command("how much each layer of a trained DenseNet uses of each layer before it", "report.feature_reuse"),
}
REPORT = {
    "reproduce": Command("train what a published table lacks and judge it: exit code 0, 1 or 2", "report.reproduce"),
    "verify": Command(
        "derive anew what a finished run says of itself; with --replay to the bit", "training.verify", config_dir=True
    ),
}
COMPLEXITY = {
    "match": Command(
        "the width with which a network meets a number of MACs or parameters",
        "complexity.equal_cost_networks",
        config_dir=True,
    ),
    "certify": Command("whether every network of the papers' tables is the papers' network", "report.certify"),
}
WEIGHTS = {
    "import": Command(
        "a published file into one that run.py mode=test evaluates", "training.torchvision_weights:import"
    ),
    "export": Command(
        "an imported file or a run's weights into a published layout",
        "training.torchvision_weights:export",
        config_dir=True,
    ),
}
WANDB = {
    "sync": Command("send runs to the W&B server that it lacks, and read them back", "tracking.sync"),
    "workspace": Command("create or update the workspace and the report of a W&B project", "tracking.workspace"),
    "show": Command("show the runs in the terminal: wandb leet", "tracking.show"),
}
MEASURE = {
    "steps": Command("a training step beside a hand-written loop, and the making of batches", "performance.added_time"),
    "options": Command(
        "what each training option costs or saves in time and memory", "performance.option_cost", config_dir=True
    ),
    "layouts": Command("NCHW beside channels_last: which layout is a network's default", "performance.layouts"),
    "launching": Command("what starting, launching and tracking cost", "performance.launching"),
    "decoding": Command("JPEG files: decoding, training batches, workers, waiting", "performance.decoding"),
    "operators": Command("RoIAlign and non-maximum suppression of detectors", "performance.operators"),
    "peers": Command("our training step and input path beside those of other projects", "performance.peers"),
    "processes": Command("whole processes in turns: ours, a Lightning script, a bare loop", "performance.processes"),
    "growth": Command("commands over 10 to 10,000 runs; processes and threads", "performance.growth"),
    "statistics": Command(
        "how often intervals hold the truth and tables claim what is not, by simulation: docs/statistics.md",
        "analysis.operating_characteristics",
    ),
    "page": Command(
        "check docs/performance.md against the committed measurements, or write it", "performance.document"
    ),
}
COMMANDS = Command(
    "the commands around runs; python run.py makes them",
    commands={
        "plan": Command(
            "what a sweep will cost: training FLOPs, device-hours, memory, money", "performance.plan", config_dir=True
        ),
        "status": Command("the grid of a sweep: done, running, failed, missing, stale", "report.status"),
        "report": Command(
            "the table of all runs, and the page; a paper's table; reproduce: as a contract; verify: a run",
            "report.runs_table",
            REPORT,
        ),
        "view": Command(
            "layers, cardinality, deconvolution, accuracy, scaling, learning_rates, reuse: charts of what varies, as pages",
            "",
            VIEWS,
        ),
        "export": Command(
            "all runs and their histories as tables, Parquet or CSV; mirror: to MLflow, TensorBoard, Trackio or CSV files",
            "report.export",
            {"mirror": Command("finished runs to CSV files, MLflow, TensorBoard or Trackio", "tracking.mirror_runs")},
        ),
        "complexity": Command(
            "cost of a network, layer by layer; match: to a given cost; certify: against the papers",
            "complexity.profile",
            COMPLEXITY,
            config_dir=True,
        ),
        "weights": Command("import, export: published weights into our networks and back", "", WEIGHTS),
        "predict": Command(
            "masks, classes or objects of new images, from a finished run", "training.predict", config_dir=True
        ),
        "throughput": Command(
            "latency, images per second and peak memory of a network", "performance.throughput", config_dir=True
        ),
        "tune": Command(
            "the fastest settings on this machine: layout, compile, precision, workers",
            "performance.tune",
            config_dir=True,
        ),
        "wandb": Command("sync, workspace, show: the runs on a W&B server and in its terminal", "", WANDB),
        "measure": Command(f"{', '.join(MEASURE)}: the suite itself, for its developers", "", MEASURE),
    },
)


def find(argv: Sequence[str]) -> tuple[Command, str, list[str]]:
    """Return the command or group that ``argv`` names, its whole name, and the words after it."""
    command, words, rest = COMMANDS, [PROGRAM], list(argv)
    while rest and rest[0] in command.commands:
        words.append(rest.pop(0))
        command = command.commands[words[-1]]
    return command, " ".join(words), rest


class Paragraphs(argparse.HelpFormatter):
    """Wraps each line of a description by itself, so that commands below it stand on lines of their own."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(super(Paragraphs, self)._fill_text(line, width, indent) for line in text.splitlines())


def parser_of(command: Command, name: str) -> argparse.ArgumentParser:
    """Return what parses the words after a command's name."""
    parser = argparse.ArgumentParser(prog=name, formatter_class=Paragraphs)
    _function(command, "add_arguments")(parser)
    if command.config_dir:
        add_config_dir_argument(parser)
    if command.commands:
        below = (f"{name} {word}: {below.help}" for word, below in command.commands.items())
        parser.epilog = "\n".join(filter(None, (parser.epilog, *below)))
    return parser


def _function(command: Command, name: str) -> Callable[..., Any]:
    """Return ``add_arguments`` or ``run`` of a command: of a module with several, ``add_NAME_arguments`` and ``run_NAME``."""
    module_name, _, action = command.module.partition(":")
    words = name.split("_")
    words[1:1] = [action] if action else []
    return getattr(importlib.import_module(f"benchmarks.{module_name}"), "_".join(words))


def main(argv: Sequence[str]) -> int:
    """Run the command that ``argv`` names and return its exit code: 2 for what the user can mend, in one line on stderr, 130
    after Ctrl-C."""
    outlive_readers()
    argv = without_comment(argv)
    command, name, rest = find(argv)
    if not command.module:
        return _list(command, name, rest)
    arguments = parser_of(command, name).parse_intermixed_args(rest)
    arguments.command_line = shlex.join([*PROGRAM.split(), *argv])
    try:
        add_config_dir(getattr(arguments, "config_dir", None))
        return _function(command, "run")(arguments) or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        known = error.filename is not None and error.strerror is not None
        message = f"cannot read or write {error.filename}: {error.strerror}" if known else str(error)
        if isinstance(error, PermissionError) and getattr(arguments, "out", "") is None:
            message += "; --out writes elsewhere"
    except ValueError as error:
        message = str(error)
    print(f"{name}: {one_line(message)}", file=sys.stderr)
    return 2


def _list(group: Command, name: str, rest: Sequence[str]) -> int:
    """Print the commands of a group, or why ``rest`` names none of them; return the exit code."""
    if rest and rest[0] not in {"-h", "--help"}:
        if name == PROGRAM and rest[0] in RENAMED:
            print(f"{name}: {rest[0]!r} is now {RENAMED[rest[0]]!r}", file=sys.stderr)
        else:
            meant = " and ".join(_called(rest[0], COMMANDS, PROGRAM))
            there_are = f"there is {meant}" if meant else f"there are {', '.join(group.commands)}"
            print(f"{name}: no command {one_line(rest[0])!r}; {there_are}", file=sys.stderr)
        return 2
    print(f"usage: {name} COMMAND …\n")
    width = max(12, *map(len, group.commands))
    for word, command in group.commands.items():
        print(f"  {word:<{width}} {command.help}")
    print(f"\n{name} COMMAND --help says more.")
    return 0 if rest else 2


def _called(word: str, group: Command, name: str) -> Iterator[str]:
    """Yield the whole names of the commands below a group that are called ``word``, wherever they stand."""
    for called, command in group.commands.items():
        if called == word:
            yield f"{name} {called}"
        yield from _called(word, command, f"{name} {called}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
