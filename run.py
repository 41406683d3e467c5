"""Trains and tests networks: composes the cells, runs each in a process of its own, shows the results."""

import argparse
import signal
import sys
import textwrap
from pathlib import Path

from rich.console import Console

from benchmarks.configuration import CONF, Cell, ConfigurationError, Impossible, choices, expand, register_resolvers
from benchmarks.launch import Outcome, run_cell
from benchmarks.progress import SweepProgress
from benchmarks.record import LOG

HYDRA_FLAGS = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--package",
    "-p",
    "--resolve",
    "--hydra-help",
    "--shell-completion",
    "-sc",
)
PAGE = "report.html"
GROUPS = ("model", "data", "recipe", "trainer", "logger", "cluster")

EXAMPLES = """\
examples:
  python run.py model=densenet                                 one run: DenseNet on the bundled digits
  python run.py -m model=resnext,densenet                      a sweep: one run after the other, then the table
  python run.py -m model=resnet,resnext,densenet seed=0,1,2    three seeds each
  python run.py model=unet data=nuclei                         segmentation
  python run.py model=resnext trainer=ddp trainer.devices=2    two processes
  python run.py model=resnext recipe=common recipe.epochs=5    another recipe, another value
  python run.py model=densenet --cfg job                       print the configuration, run nothing

A run lives in outputs/<data>/<name>/<recipe>/seed<k>. A finished run that is asked for again returns at once; an interrupted
one goes on from its last checkpoint. The page of all runs is outputs/report.html."""


def main(argv: list[str]) -> int:
    """The command line; returns the exit code: 0 only if every cell has its result."""
    if any(argument.split("=")[0] in HYDRA_FLAGS for argument in argv):
        return _hydra(argv)
    arguments = _parser().parse_args(argv)
    console = Console(soft_wrap=True)
    try:
        cells = expand(arguments.overrides, arguments.multirun)
    except ConfigurationError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    try:
        with SweepProgress(console, len(cells)) as progress:
            for cell in cells:
                progress.begin(cell.label)
                if isinstance(cell, Impossible):
                    outcome = Outcome("refused", cell.error)
                else:
                    outcome = run_cell(cell, progress.update)
                progress.end(cell.label, outcome)
                outcomes.append(outcome)
                _write_page(cell)
    except KeyboardInterrupt:
        _write_page(cells[len(outcomes)])
        console.print(f"interrupted; {len(outcomes)} of {len(cells)} runs ended, the same command goes on from here")
        _show(console, cells, outcomes)
        return 128 + signal.SIGINT
    _show(console, cells, outcomes)
    return 0 if all(outcome.good for outcome in outcomes) else 1


def _write_page(cell: Cell | Impossible) -> None:
    from benchmarks.page import write_page

    if isinstance(cell, Cell) and cell.directory.exists():
        try:
            write_page(cell.config["output_root"])
        except OSError as error:
            print(f"run.py: the page was not written: {error.strerror}", file=sys.stderr)


def _show(console: Console, cells: list[Cell | Impossible], outcomes: list[Outcome]) -> None:
    """The table of this call's runs, what could not start, and where to look; of a single failure its line says all."""
    from benchmarks.report import print_table
    from benchmarks.results import load_runs

    pairs = list(zip(cells, outcomes, strict=False))
    composed = [cell for cell in cells if isinstance(cell, Cell)]
    roots = dict.fromkeys(Path(cell.config["output_root"]) for cell in composed)
    bad = [(cell, outcome) for cell, outcome in pairs if not outcome.good]
    if len(cells) > 1 or not bad:
        mine = {cell.directory.resolve() for cell in composed}
        runs = [run for root in roots for run in load_runs(root)[0] if run.directory.resolve() in mine]
        console.print()
        print_table(runs)
    if bad and len(cells) > 1:
        console.print(f"\n{len(bad)} of {len(cells)} runs have no result.", style="bold red")
        for cell, outcome in bad:
            if outcome.status == "refused":
                console.print(f"  {cell.label}: {outcome.error}", markup=False, highlight=False)
    console.print()
    for cell, outcome in bad:
        if isinstance(cell, Cell) and outcome.status == "failed":
            console.print(f"log       {cell.directory / LOG}", markup=False, highlight=False)
    for root in roots:
        if (root / PAGE).exists():
            console.print(f"page      {root / PAGE}", markup=False, highlight=False)
        if (root / "wandb").exists():
            console.print(f"terminal  wandb leet {root / 'wandb'}", markup=False, highlight=False)


def _hydra(argv: list[str]) -> int:
    """Hydra's own switches, which print a configuration and run nothing."""
    import hydra

    register_resolvers()
    sys.argv = [sys.argv[0], *argv]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda config: None)()
    return 0


def _parser() -> argparse.ArgumentParser:
    listed = {group: ", ".join(choices(group)) for group in GROUPS}
    groups = "\n".join(
        textwrap.fill(f"{group:<10} {options or 'none yet'}", 118, initial_indent="  ", subsequent_indent=" " * 13)
        for group, options in listed.items()
    )
    keys = (
        "  seed=0           output_root=outputs\n"
        "  model.*          the network: model.depth, model.cardinality, model.growth_rate, model.base_channels, …\n"
        "  recipe.*         recipe.epochs, recipe.batch_size (global), recipe.optimizer.lr, …\n"
        "  trainer.*        trainer.devices, trainer.accelerator, trainer.precision, trainer.sync_batchnorm, …"
    )
    parser = argparse.ArgumentParser(
        prog="python run.py",
        description="How much accuracy does a connectivity pattern buy for its compute? "
        "Trains a network on a data set under a recipe.",
        epilog=f"groups (KEY=OPTION):\n{groups}\n\nvalues (KEY=VALUE; --cfg job shows all):\n{keys}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from model=resnext data=digits")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: several values of a key, separated by commas"
    )
    parser.add_argument(
        "--cfg", metavar="job", help="print the composed configuration and stop; --resolve fills in references"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
