"""Trains and tests networks: composes the trials, runs each in a process of its own, shows the results."""

import argparse
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console

from benchmarks.analysis import published
from benchmarks.config.folders import add_config_dir, add_config_dir_argument, choices
from benchmarks.config.trial import CONF, ConfigurationError, Impossible, Trial
from benchmarks.launch.checks import check_distinct, check_mirrors, check_mode, is_stale
from benchmarks.launch.progress import SweepProgress
from benchmarks.launch.trial_job import Outcome
from benchmarks.records.files import LOG
from benchmarks.records.runs import Run, load_runs
from benchmarks.terminal import interrupt_on, outlive_readers, without_comment
from benchmarks.units import FULL_DISK, full_disk, plural

OWN_FLAGS = ("--cfg", "--info", "--package", "--config-dir")  # which take a value
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # of Hydra
PAGE = "report.html"
AUTO = "seed=auto"
Loaded = tuple[list[Run], list[str]]  # what `load_runs` returns
PAGE_EVERY_S = 30
PAGE_SHARE = 0.05  # of the time of a sweep that writing its page may take: a report of 10,000 runs takes 10 s
LOGS_SHOWN = 3
GROUPS = ("model", "backbone", "data", "recipe", "experiment", "trainer", "logger", "cluster")

EXAMPLES = """\
examples:
  python run.py model=densenet                                 one run: DenseNet on the bundled digits
  python run.py -m model=resnext,densenet                      a sweep: one run after the other, then the table
  python run.py -m model=resnet,resnext,densenet seed=0,1,2    three seeds each
  python run.py -m model=resnet,resnext seed=auto              3 seeds, then 5, 8, 12 where networks are not told apart
  python run.py model=unet data=nuclei                         segmentation
  python run.py model=resnext trainer=ddp trainer.devices=2    two processes
  python run.py model=resnext recipe=common recipe.epochs=5    another recipe, another value
  python run.py -m model=resnet,resnext launch.workers=2       two runs at a time
  python run.py mode=test weights=weights/x.pt data=imagenet   imported weights as they are: python -m benchmarks weights import
  python run.py experiment=resnext_table7 seed=0,1,2           the rows of a paper's table that are missing; row=… for some
  python run.py model=densenet --cfg job                       print the configuration, run nothing

A run lives in outputs/<data>/<name>/<recipe>/seed<k>. A finished run that is asked for again returns at once; an interrupted
one goes on from its last checkpoint. The page of all runs is outputs/report.html."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 only if every trial has its result."""
    outlive_readers()
    try:
        return _main(without_comment(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # before a run has started
        return 128 + signal.SIGINT
    except (ConfigurationError, NotWritten) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1 if isinstance(error, NotWritten) else 2


def _main(argv: list[str]) -> int:
    # `wandb agent` writes --seed=1 for seed=1
    argv = [text.removeprefix("--") if "=" in text and text.split("=")[0] not in OWN_FLAGS else text for text in argv]
    arguments = _parser().parse_intermixed_args(argv)
    add_config_dir(arguments.config_dir)
    if arguments.package is not None and not arguments.cfg:
        raise ConfigurationError("--package says which part --cfg prints: add --cfg job")
    of_hydra = arguments.package or arguments.info or arguments.hydra_help
    if arguments.cfg == "job" and not of_hydra:
        return _show_configuration(arguments)
    if arguments.cfg or arguments.resolve or of_hydra:
        return _hydra(arguments.overrides, argv)
    interrupt_on(signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # the last is a scheduler's warning
    # Hydra takes longer to import than --help may take.
    from benchmarks.config.compose import expand

    console = Console(soft_wrap=True)
    if AUTO in arguments.overrides:
        return _until_decided(console, arguments.overrides, argv)
    return _finish(console, _launch(console, expand(arguments.overrides, arguments.multirun), argv))


class NotWritten(Exception):
    """What a sweep writes cannot be written; the message says why."""


@dataclass
class Launched:
    """The trials of a call, and how those that were started have ended, by their place."""

    trials: list[Trial | Impossible]
    outcomes: dict[int, Outcome]
    interrupted: bool
    watcher: "PageWriter"

    @property
    def complete(self) -> bool:
        """Whether every trial has its result."""
        return len(self.outcomes) == len(self.trials) and all(outcome.good for outcome in self.outcomes.values())


def _launch(
    console: Console, trials: list[Trial | Impossible], argv: Sequence[str], ran: Sequence[Trial] = ()
) -> Launched:
    """Run what is missing of the trials.

    Args:
        ran: trials that this call has run before, which count in the budget.

    Raises:
        ConfigurationError: they cannot be run together, lack a mirror's package, or are above the budget.
        NotWritten: the disk is full, or a folder cannot be written.
    """
    from benchmarks.launch.sweep import Sweep
    from benchmarks.performance.plan import check_budget

    check_mode(trials)
    check_distinct(trials)
    check_mirrors(trials)
    check_budget(trials, ran)
    if any(isinstance(trial, Trial) and trial.config["trainer"].get("tuned") for trial in trials):
        from benchmarks.performance.brief_tuning import measure_missing

        measure_missing(trials, partial(console.print, markup=False, highlight=False))
    watcher = PageWriter(console, trials)
    sweep = Sweep(trials, watcher, argv)
    interrupted = False
    try:
        with watcher:
            sweep.run()
    except KeyboardInterrupt:
        interrupted = True
        ended = len(sweep.outcomes)
        console.print(f"interrupted; {ended} of {plural(len(trials), 'run')} ended, the same command goes on from here")
    except OSError as error:
        raise NotWritten(FULL_DISK if full_disk(error) else f"{error.filename}: {error.strerror}") from error
    return Launched(trials, sweep.outcomes, interrupted, watcher)


def _finish(console: Console, launched: Launched) -> int:
    """Show the table of the trials and write the page; return the exit code."""
    trials, outcomes = launched.trials, launched.outcomes
    loaded = {root: load_runs(root) for root in filter(Path.is_dir, launched.watcher.roots)}
    launched.watcher.write_pages(loaded)
    runs = _runs(trials, loaded)
    _show(console, trials, outcomes, runs)
    if len(trials) > 1 and not launched.interrupted:
        from benchmarks.tracking.sweep_report import write_report_run

        logger = next(trial.config["logger"] for trial in trials if isinstance(trial, Trial))
        for root, members in runs.items():
            write_report_run(root, members, logger)
    if launched.interrupted:
        return 128 + signal.SIGINT
    return 0 if launched.complete else 1


def _until_decided(console: Console, overrides: Sequence[str], argv: Sequence[str]) -> int:
    """Run few seeds of each network, and more where a comparison is open; return the exit code. Raises ConfigurationError as
    `_launch`, and where there are no two networks to compare."""
    from benchmarks.analysis.differences import ALL_PAIRS_UP_TO, EQUAL_COST
    from benchmarks.analysis.sequential import LOOKS, Judged, Pair, judge, mixed_seeds
    from benchmarks.config.compose import expand

    judged: dict[Pair, Judged] = {}
    by_place: dict[Path | str, tuple[Trial | Impossible, Outcome]] = {}
    open_folders: set[Path] = set()
    ran: list[Trial] = []
    launched, stopped = None, ""
    for look, seeds in enumerate(LOOKS):
        asked = [f"seed=range({seeds})" if override == AUTO else override for override in overrides]
        trials = [trial for trial in expand(asked, True) if not look or _folder(trial) in open_folders]
        networks = {_folder(trial) for trial in trials} - {None}  # which an impossible one has
        if len(networks) < 2:
            raise ConfigurationError(
                f"{AUTO} adds seeds until networks are told apart: give at least two, as model=resnet,resnext"
            )
        console.print(f"{AUTO}: {seeds} seeds of {plural(len(networks), 'network')}")
        try:
            launched = _launch(console, trials, argv, ran)
        except ConfigurationError as error:
            if not look:
                raise
            stopped = str(error)
            break
        for index, outcome in launched.outcomes.items():
            trial = launched.trials[index]
            by_place[trial.directory if isinstance(trial, Trial) else trial.label] = trial, outcome
            if isinstance(trial, Trial) and outcome.status != "finished":
                ran.append(trial)
        good = {index for index, outcome in launched.outcomes.items() if outcome.good}
        possible = {index for index, trial in enumerate(launched.trials) if isinstance(trial, Trial)}
        if launched.interrupted or not possible <= good:
            stopped = "" if launched.interrupted else "not every run has a result"
            break
        runs = _runs(
            (trial for trial, _ in by_place.values()), {root: load_runs(root) for root in launched.watcher.roots}
        )
        seen = [run for members in runs.values() for run in members]
        if stopped := mixed_seeds(seen):
            break
        judged = judge(seen, look, judged)
        open_folders = {folder for pair, one in judged.items() if one.state == "open" for folder in pair}
        if not open_folders:
            equal_cost = f"of more than {ALL_PAIRS_UP_TO} networks MACs within {100 * EQUAL_COST:g} %"
            none = f"no two networks are compared: that needs the same test images, whole epochs, and {equal_cost}"
            stopped = "" if judged else none
            break
    else:
        stopped = f"{LOOKS[-1]} seeds are the most"
    assert launched is not None
    launched.trials = [trial for trial, _ in by_place.values()]
    launched.outcomes = {index: outcome for index, (_, outcome) in enumerate(by_place.values())}
    code = _finish(console, launched)
    for one in judged.values():
        console.print(one.text, markup=False, highlight=False)
    if stopped:
        console.print(f"{AUTO} stopped: {stopped}", markup=False, highlight=False)
    return code


def _folder(trial: Trial | Impossible) -> Path | None:
    """Return the folder of a trial's seeds."""
    return trial.directory.parent.resolve() if isinstance(trial, Trial) else None


def _runs(trials: Iterable[Trial | Impossible], loaded: Mapping[Path, Loaded]) -> dict[Path, list[Run]]:
    """Return the runs of this call that have left a record, by output root."""
    directories = {trial.directory.resolve() for trial in trials if isinstance(trial, Trial)}
    return {root: [run for run in runs if run.directory.resolve() in directories] for root, (runs, _) in loaded.items()}


class PageWriter(SweepProgress):
    """Shows the sweep's progress and keeps the page of all runs up to date."""

    def __init__(self, console: Console, trials: Sequence[Trial | Impossible]) -> None:
        super().__init__(console, trials)
        self.roots = dict.fromkeys(Path(trial.config["output_root"]) for trial in trials if isinstance(trial, Trial))
        self._due = time.monotonic() + PAGE_EVERY_S

    def end(self, index: int, label: str, outcome: Outcome) -> None:
        """A trial has ended; the page follows now and then, but not a trial that was finished before: the page has it."""
        super().end(index, label, outcome)
        if outcome.status != "finished" and time.monotonic() > self._due:
            self.write_pages()

    def write_pages(self, loaded: Mapping[Path, Loaded] | None = None) -> None:
        """Write the page of every output root, from `loaded` where the runs have been read already."""
        from benchmarks.report.page import write_page

        began = time.monotonic()
        for root in filter(Path.is_dir, self.roots):
            try:
                write_page(root, (loaded or {}).get(root))
            except OSError as error:
                self.say(f"run.py: the page was not written: {error.strerror or error}")
        ended = time.monotonic()
        self._due = ended + max(PAGE_EVERY_S, (ended - began) / PAGE_SHARE)


def _show(
    console: Console,
    trials: Sequence[Trial | Impossible],
    outcomes: Mapping[int, Outcome],
    runs: Mapping[Path, Sequence[Run]],
) -> None:
    """The table of this call's runs, what could not start, and where to look; of a single failure its line says all."""
    from benchmarks.report.runs_table import print_runs

    bad = [(trials[index], outcome) for index, outcome in sorted(outcomes.items()) if not outcome.good]
    if len(trials) > 1 or not bad:
        listed = [run for members in runs.values() for run in members]
        console.print()
        print_runs(listed)
        for note in dict.fromkeys(note for run in listed for note in run.record.get("notes") or ()):
            console.print(note, markup=False, highlight=False)
        stale = sum(is_stale(run.record) for run in listed)
        if stale:
            console.print(
                f"made by other code than this: {plural(stale, 'finished run')}; launch.rerun=stale runs them again"
            )
    if bad and len(trials) > 1:
        console.print(f"\n{len(bad)} of {len(trials)} runs have no result.", style="bold red")
        for trial, outcome in bad:
            if outcome.status == "refused":  # the table names the others
                console.print(f"  {trial.label}: {outcome.error}", markup=False, highlight=False)
    if len(outcomes) < len(trials):
        console.print(f"not started: {plural(len(trials) - len(outcomes), 'run')}; the same command starts them")
    console.print()
    logs = [trial.directory / LOG for trial, outcome in bad if isinstance(trial, Trial) and outcome.status == "failed"]
    for log in logs[:LOGS_SHOWN]:
        console.print(f"log       {log}", markup=False, highlight=False)
    if len(logs) > LOGS_SHOWN:
        console.print(f"          and {LOG} of the other {len(logs) - LOGS_SHOWN}", markup=False, highlight=False)
    experiment = next((trial.config["experiment"] for trial in trials if isinstance(trial, Trial)), None)
    for root in runs:
        quoted = shlex.quote(str(root))
        if (root / PAGE).exists():
            console.print(f"page      {root / PAGE}", markup=False, highlight=False)
        if experiment in published.tables():
            console.print(f"table     python -m benchmarks report {experiment} {quoted}", markup=False, highlight=False)
        if (root / "wandb").exists():
            console.print(f"terminal  python -m benchmarks wandb show {quoted}", markup=False, highlight=False)


def _show_configuration(arguments: argparse.Namespace) -> int:
    """Print the configuration of a run with its references, or of every run as its ``config.yaml`` has it."""
    from benchmarks.config.compose import composed, expand_all

    if not arguments.resolve and not arguments.multirun:
        print(composed(arguments.overrides), end="")
        return 0
    trials = expand_all(arguments.overrides, arguments.multirun)
    for trial in trials:
        print(f"--- # {trial.label}\n" if len(trials) > 1 else "", end="")
        print(yaml.safe_dump(trial.config, sort_keys=False, allow_unicode=True), end="")
    return 0


def _hydra(overrides: Sequence[str], argv: Sequence[str]) -> int:
    """Hydra's own flags, which print and run nothing."""
    import hydra

    from benchmarks.config.compose import register_resolvers, with_defaults

    job = with_defaults(overrides)
    register_resolvers()
    # It takes its overrides in one piece.
    sys.argv = [sys.argv[0], *job, *(text for text in argv if text not in overrides)]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda config: None)()
    except ValueError as error:  # of options that do not go together
        raise ConfigurationError(str(error)) from error
    return 0


def _parser() -> argparse.ArgumentParser:
    listed = (f"{group:<10} {', '.join(choices(group)) or 'none yet'}" for group in GROUPS)
    groups = "\n".join(textwrap.fill(line, 118, initial_indent="  ", subsequent_indent=" " * 13) for line in listed)
    keys = (
        "  seed=0           output_root=outputs\n"
        "  model.*          the network: model.depth, model.cardinality, model.growth_rate, model.base_channels, …\n"
        "  recipe.*         recipe.epochs, recipe.batch_size (global), recipe.optimizer.lr, …\n"
        "  trainer.*        trainer.devices, trainer.accelerator, trainer.precision, trainer.sync_batchnorm, …\n"
        "  launch.*         launch.workers, launch.retries, launch.fail_fast, launch.time_limit_s, launch.rerun=stale, …"
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
    add_config_dir_argument(parser)
    parser.add_argument(
        *("--cfg", "-c"),
        choices=("job", "hydra", "all"),
        metavar="job",
        help="print the composed configuration, with -m of each run, and stop",
    )
    parser.add_argument(
        "--resolve", action="store_true", help="with --cfg: fill in references, as config.yaml has them"
    )
    # Hydra's own, which --hydra-help describes
    parser.add_argument("--package", "-p", help=argparse.SUPPRESS)
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=INFO, help=argparse.SUPPRESS)
    parser.add_argument("--hydra-help", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
