"""From command-line overrides to trials."""

import os
import shlex
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from os.path import realpath
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from benchmarks.config.composer import OF_NO_RUN, TEXT, Composer
from benchmarks.config.fast_composition import speed_up
from benchmarks.config.folders import added_folders, state_of_files
from benchmarks.config.hydra_errors import compose_overrides
from benchmarks.config.overrides import as_text, check_overrides, escaped, parse_overrides
from benchmarks.config.own_folders import class_folders, folder_name
from benchmarks.config.schema import BLOCK, is_number, shown
from benchmarks.config.trial import CONF, ConfigurationError, Impossible, Trial, flatten
from benchmarks.units import nearest


def expand(overrides: Sequence[str], multirun: bool) -> list[Trial | Impossible]:
    """All trials that ``overrides`` ask for, in the order in which Hydra's sweeper would run them.

    In a sweep (``multirun``, or an experiment that says ``hydra.mode: MULTIRUN`` or has ``rows``) a trial that cannot be
    composed comes back as ``Impossible``, so that the others can run. An experiment's rows are run one after the other, each
    with everything else that is swept; an override beats the row's.

    Raises:
        ConfigurationError: nothing can be composed, a swept value without ``multirun``, or a row that there is not.
    """
    with _hydra():
        composer = Composer()
        trials: list[Trial | Impossible] = []
        by_directory: dict[Path, list[Trial]] = {}
        for job in _jobs(overrides, multirun):
            try:
                trial = composer.trial(job)
            except ConfigurationError as error:
                trials.append(Impossible(job, str(error)))
                continue
            there = by_directory.setdefault(trial.directory, [])
            if not any(_are_equal(trial, other) for other in there):
                there.append(trial)
                trials.append(trial)
    errors = [trial.error for trial in trials if isinstance(trial, Impossible)]
    if len(errors) == len(trials):
        raise ConfigurationError("; ".join(dict.fromkeys(errors)))
    return trials


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each trial that ``overrides`` ask for without an experiment, in the order of ``expand`` and as
    Hydra's grammar reads them. Raises ConfigurationError for what is not of the form key=value."""
    with _hydra():
        [batch] = BasicSweeper.split_arguments(parse_overrides(overrides), max_batch_size=None)
    return [list(job) for job in batch]


def values_given(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Return the values that ``overrides`` give a key, several of a sweep, as Hydra's grammar reads them. Raises
    ConfigurationError for what is not of the form key=value."""
    with _hydra():
        return {str(one.key_or_group): _values(one) for one in parse_overrides(overrides)}


def composed(overrides: Sequence[str]) -> str:
    """Return the configuration of the one run of ``overrides`` with its references, as YAML. Raises as ``with_defaults``."""
    config = _only_run(overrides)[1]
    OmegaConf.set_struct(config, False)
    for key in OF_NO_RUN:
        del config[key]
    return OmegaConf.to_yaml(config)


def with_defaults(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the one run of ``overrides``, with its row's and those that choose the default recipe or variant
    where network and data set have none. Raises ConfigurationError as ``expand_all``, and for several runs."""
    job, config = _only_run(overrides)
    keys = {"recipe": "recipe", "variant": "model/variant@model"}
    chosen = [(f"{keys[kind]}={name}", f"++defaulted.{kind}={name}") for kind, name in config.defaulted.items()]
    return [*job, *(text for pair in chosen for text in pair)]


def _only_run(overrides: Sequence[str]) -> tuple[tuple[str, ...], DictConfig]:
    count = len(expand_all(overrides, multirun=False))
    if count > 1:
        raise ConfigurationError(f"these are {count} runs: -m --cfg job shows each")
    with _hydra():
        job = _jobs(overrides, multirun=False)[0]
        return job, compose_overrides(job)


def _jobs(overrides: Sequence[str], multirun: bool) -> list[tuple[str, ...]]:
    """Return the overrides of each trial, a row's first. Raises as ``expand``, but for what cannot be composed."""
    parsed = parse_overrides(overrides)
    check_overrides(parsed)
    multirun, rows, parsed = _sweep_of_experiment(parsed, multirun)
    if not multirun:
        _check_no_sweep(parsed)
    [batch] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [(*row, *job) for row in rows for job in batch]


def _check_no_sweep(parsed: Sequence[Override], instead: str = "add -m") -> None:
    """Raise ConfigurationError for a key with several values; it says what to do instead."""
    for override in parsed:
        if override.is_sweep_override():
            key, _, values = str(override.input_line).partition("=")
            one = f"as one value: '{key}=\"{values}\"'"
            raise ConfigurationError(f"{key}={values} is a sweep over several values: {instead}, or {one}")


def paper_facts(experiment: str) -> dict[str, Any]:
    """What the paper of an experiment did that its configuration does not say, by dotted key: its ``paper:`` block. Raises
    ConfigurationError where there is no such experiment."""
    with _hydra():
        facts: Any = OmegaConf.to_container(_composed_experiment((f"experiment={experiment}",), state_of_files()).paper)
    return flatten(facts)


@lru_cache
def _composed_experiment(asked: tuple[str, ...], files: Hashable) -> DictConfig:
    """Return what an experiment composes to by itself, where its rows and what it sweeps are read. files: the state of those
    that it depends on."""
    return compose_overrides(asked)


def register_resolvers() -> None:
    """The functions that names in ``conf/model`` use: text where a flag holds, whether a number is below one, θ unless it
    is the papers', and of a detector its backbone and what stands on it; those of ``conf/data`` on one's own folders; and that
    of ``conf/logger``: an environment variable, or the default where it is unset or empty."""
    resolvers: dict[str, Callable[..., Any]] = {
        "class_folders": class_folders,
        "env_variable": lambda name, default: os.environ.get(name) or default,
        "folder_name": folder_name,
        "real_path": realpath,
        "when": lambda flag, text: text if flag else "",
        # What is no number is the network's to refuse.
        "below_one": lambda number: is_number(number) and number < 1,
        "theta": lambda number: "" if number in (0.5, 1) else f"_theta{f'{number:g}' if is_number(number) else number}",
        "backbone": lambda depth, groups, width: (
            f"resnet{depth}" if groups == 1 else f"resnext{depth}_{groups}x{width}d"
        ),
        # 256: Lin et al. 2017
        "neck": lambda channels: "c4" if not channels else "fpn" if channels == 256 else f"fpn{channels}",
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


class _ConfigDirs(SearchPathPlugin):
    """Lets Hydra find the configurations of ``--config-dir``; its own switch is one of ``hydra.main`` alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in added_folders():
            search_path.append("--config-dir", f"file://{folder}")


@contextmanager
def _hydra() -> Iterator[None]:
    speed_up()
    register_resolvers()
    Plugins.instance().register(_ConfigDirs)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def _sweep_of_experiment(parsed: list[Override], multirun: bool) -> tuple[bool, list[tuple[str, ...]], list[Override]]:
    """Return of the experiment, where one is chosen: whether it sweeps, its rows as overrides, and all other overrides.

    The command line wins over both, and what the experiment sweeps over its rows. Without rows there is one, which overrides
    nothing; a row that is null is left out.
    """
    asked = [override for override in parsed if override.key_or_group == "experiment"]
    chosen = [override for override in parsed if override.key_or_group == "row"]
    if any(override.is_sweep_override() for override in asked):
        raise ConfigurationError(f"{asked[-1].input_line}: one experiment at a time")
    config = _composed_experiment(tuple(map(as_text, asked)), state_of_files()) if asked else None
    experiment = str(asked[-1].value()) if asked else ""
    rows = _rows(config, experiment) if config is not None else {}
    if chosen and not rows:
        raise ConfigurationError(f"{chosen[-1].input_line}: rows are those of an experiment, experiment=…")
    if config is None:
        return multirun, [()], parsed
    given = {override.key_or_group for override in parsed}
    swept = {key: value for key, value in (config.hydra.sweeper.params or {}).items() if key not in given}
    params = [f"{key}={value}" for key, value in swept.items()]
    others = [*parse_overrides(params), *(override for override in parsed if override.key_or_group != "row")]
    if not rows:
        return multirun or OmegaConf.select(config.hydra, "mode") is not None, [()], others
    wanted = _chosen_rows(chosen[-1], rows, experiment) if chosen else list(rows)
    place = f"experiment {experiment}, row"
    return True, [_row_overrides(row, rows[row], {*given, *swept}, place) for row in wanted], others


def _rows(config: DictConfig, experiment: str) -> dict[str, Any]:
    """Return what an experiment's file has for each row, but for those that are null. Raises ConfigurationError for a file
    without its first line, and for rows that are no block."""
    if not OmegaConf.is_interpolation(config, "experiment"):  # the file's keys are then those of its group
        raise ConfigurationError(f'experiment {experiment}: its file begins with the line "# @package _global_"')
    rows: Any = config.rows
    rows = OmegaConf.to_container(rows) if OmegaConf.is_config(rows) else rows
    if not BLOCK.holds(rows):
        raise ConfigurationError(f"experiment {experiment}: rows is {BLOCK.words}, got {shown(rows)}")
    return {str(row): text for row, text in rows.items() if text is not None}


def _chosen_rows(override: Override, rows: Mapping[Any, Any], experiment: str) -> list[str]:
    names = _values(override)
    for name in names:
        if name not in rows:
            raise ConfigurationError(
                f"{experiment} has no row {name!r}{nearest(name, list(rows))}; there are {', '.join(rows)}"
            )
    return names


def _values(override: Override) -> list[str]:
    return [*map(str, override.sweep_string_iterator() if override.is_sweep_override() else [override.value()])]


def _are_equal(one: Trial, other: Trial) -> bool:
    """Tell whether two trials are one run: of equal values, or of rows that an override makes equal."""
    return {**one.config, "row": None} == {**other.config, "row": None}


def _row_overrides(row: str, text: object, given: Collection[str], place: str) -> tuple[str, ...]:
    """The overrides of one row, ``key=value key=value``, but for those that the command line has. Raises ConfigurationError,
    which begins with ``place`` and the row, for what is no such text."""
    try:
        if not isinstance(text, str):
            raise ConfigurationError(f"it is a text, as model=resnet seed=1, got {shown(text)}")
        parsed = parse_overrides(shlex.split(text))
        _check_no_sweep(parsed, "write a row for each")
    except ValueError as error:  # shlex's where a quote is not closed
        raise ConfigurationError(f"{place} {row}: {error}") from error
    overrides = [as_text(override) for override in parsed if override.key_or_group not in given]
    named = f"row={row}"
    return *overrides, named if TEXT.fullmatch(named) else f"row='{escaped(row)}'"


def expand_all(overrides: Sequence[str], multirun: bool = True) -> list[Trial]:
    """Return the trials of ``overrides``. Raises ConfigurationError as ``expand``, and for the first that cannot be
    composed."""
    trials = []
    for trial in expand(overrides, multirun):
        if not isinstance(trial, Trial):
            raise ConfigurationError(f"{trial.label}: {trial.error}")
        trials.append(trial)
    return trials
