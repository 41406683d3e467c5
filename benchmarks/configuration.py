"""From command-line overrides to cells.

A cell is one fully resolved configuration: one network, data set, recipe and seed. Hydra composes it; its directory is a pure
function of it.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parents[1] / "conf"

# Where a run happens and who watches it: no part of what it computes.
PLACES = ("output_root", "logger", "cluster", "trainer.accelerator", "data.root")
# Interpolated from the groups: a departure shows at its home.
WIRING = ("module", "datamodule", "task", "experiment", "data.source")


class ConfigurationError(ValueError):
    """A configuration that cannot be composed; the message is one line that says what would be right."""


@dataclass(frozen=True)
class Cell:
    """One run to be: its resolved configuration, and what of it departs from the recipe."""

    config: dict[str, Any]
    departures: dict[str, Any]

    @property
    def directory(self) -> Path:
        """``<output_root>/<data>/<name>/<recipe>[,<departure>…]/seed<k>``."""
        config = self.config
        recipe = ",".join([config["recipe"]["name"], *_short(self.departures)])
        if len(recipe) > 120:
            digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
            recipe = f"{config['recipe']['name']},{digest}"
        return Path(config["output_root"], config["data"]["name"], config["name"], recipe, f"seed{config['seed']}")

    @property
    def label(self) -> str:
        """What a person calls the run: name, departures and seed."""
        return " ".join([self.config["name"], *_short(self.departures), f"seed {self.config['seed']}"])


@dataclass(frozen=True)
class Impossible:
    """Overrides of a sweep that compose to nothing, with the reason in one line."""

    overrides: tuple[str, ...]
    error: str

    @property
    def label(self) -> str:
        """The overrides themselves: there is no network to name."""
        return " ".join(self.overrides)


def expand(overrides: Sequence[str], multirun: bool) -> list[Cell | Impossible]:
    """All cells that ``overrides`` ask for, in the order in which Hydra's sweeper would run them.

    In a sweep (``multirun``, or an experiment that says ``hydra.mode: MULTIRUN``) a cell that cannot be composed comes back
    as ``Impossible``, so that the others can run.

    Raises:
        ConfigurationError: nothing can be composed, or a swept value without ``multirun``.
    """
    with _hydra():
        parsed = _parse(overrides)
        multirun, parsed = _sweep_of_experiment(parsed, multirun)
        swept = [override for override in parsed if override.is_sweep_override()]
        if swept and not multirun:
            raise ConfigurationError(f"{swept[0].input_line} is a sweep over several values: add -m")
        [batch] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        references: dict[tuple[str, ...], dict[str, Any]] = {}
        cells: list[Cell | Impossible] = []
        for job in batch:
            try:
                cells.append(_compose_cell(job, references))
            except ConfigurationError as error:
                cells.append(Impossible(tuple(job), str(error)))
    errors = [cell.error for cell in cells if isinstance(cell, Impossible)]
    if len(errors) == len(cells):
        raise ConfigurationError("; ".join(dict.fromkeys(errors)))
    return cells


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of all leaves; a list is a leaf."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run computes: the flat configuration without places and wiring."""
    return {
        key: value
        for key, value in flatten(config).items()
        if not any(key == place or key.startswith(f"{place}.") for place in (*PLACES, *WIRING))
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of ``identity(config)``."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of ``identity`` in which two configurations differ, with both values (None where absent)."""
    a, b = identity(one), identity(other)
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def choices(group: str) -> list[str]:
    """The options of a configuration group, from ``conf/``."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def register_resolvers() -> None:
    """The two functions that names in ``conf/model`` use: text where a flag holds, and whether a number is below one."""
    OmegaConf.register_new_resolver("when", lambda flag, text: text if flag else "", replace=True)
    OmegaConf.register_new_resolver("below_one", lambda number: number < 1, replace=True)


@contextmanager
def _hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def _parse(overrides: Sequence[str]) -> list[Override]:
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        raise RuntimeError("_parse is called inside _hydra()")
    try:
        return OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigurationError(f"{error.override!r} is not of the form key=value") from error


def _sweep_of_experiment(parsed: list[Override], multirun: bool) -> tuple[bool, list[Override]]:
    """Adds ``hydra.sweeper.params`` of the experiment, where it is one that sweeps; the command line wins."""
    experiment = [o.input_line for o in parsed if o.key_or_group == "experiment" and not o.is_sweep_override()]
    if not experiment:
        return multirun, parsed
    hydra = _compose([str(experiment[0])]).hydra
    given = {override.key_or_group for override in parsed}
    params = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items() if key not in given]
    return multirun or OmegaConf.select(hydra, "mode") is not None, [*_parse(params), *parsed]


def _compose_cell(overrides: Sequence[str], references: dict[tuple[str, ...], dict[str, Any]]) -> Cell:
    composed = _compose(overrides)
    selected = tuple(
        f"{group}={choice}"
        for group, choice in composed.hydra.runtime.choices.items()
        if group in {"model", "data", "recipe", "model/variant@model"}
    )
    if selected not in references:
        references[selected] = _plain(_compose(selected), resolve=False)
    written, config = _plain(composed, resolve=False), _plain(composed, resolve=True)
    named = {f"model.{key}" for key in re.findall(r"\$\{model\.(\w+)\}", written["name"])} | {"name", "seed"}
    resolved = flatten(config)
    differing = dict.fromkeys(_held(key, resolved) for key in differing_keys(written, references[selected]))
    departures = {key: resolved.get(key) for key in differing if key not in named}
    return Cell(config, departures)


def _held(key: str, resolved: Mapping[str, Any]) -> str:
    """The key, or what stands in the place of the mapping that it was in (``recipe.augment.border_weights=null``)."""
    while "." in key and key not in resolved:
        key = key.rpartition(".")[0]
    return key


def _plain(composed: DictConfig, resolve: bool) -> dict[str, Any]:
    HydraConfig.instance().set_config(composed)  # ${hydra:…} reads this singleton
    job = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    try:
        return OmegaConf.to_container(job, resolve=resolve, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigurationError(_first_line(error)) from error


def _compose(overrides: Sequence[str]) -> DictConfig:
    """Hydra's ``compose`` with its own node; its errors become one line that names what is nearest."""
    try:
        return compose("config", overrides=list(overrides), return_hydra_config=True)
    except MissingConfigException as error:
        raise ConfigurationError(_missing_option(error.missing_cfg_file or "")) from error
    except ConfigCompositionException as error:
        unknown = re.search(r"Could not override '([^'@]+)", str(error))
        line = _unknown_key(unknown.group(1), overrides) if unknown else _first_line(error)
        raise ConfigurationError(line) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_first_line(error)) from error


def _missing_option(missing: str) -> str:
    group, _, option = missing.rpartition("/")
    families, sets, known = choices("model"), choices("data"), choices(group)
    family, _, data = option.partition("_")
    if group in {"recipe", "model/variant"} and family in families and data in sets:
        pairs = [(f, d) for f in families for d in sets if f"{f}_{d}" in known]
        fits = ", ".join(d for f, d in pairs if f == family)
        partners = ", ".join(f for f, d in pairs if d == data)
        return f"model={family} is not set up for data={data}: {family} goes with {fits}, and {data} with {partners}"
    return f"no {group} named {option!r}{_nearest(option, known)}; there are {', '.join(known) or 'none'}"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    chosen = [str(o.input_line) for o in _parse(overrides) if o.key_or_group in groups and not o.is_sweep_override()]
    composed = OmegaConf.to_container(_compose(chosen), resolve=False)
    keys = [k for k in flatten(composed) if k.split(".")[0] not in {*WIRING, "hydra"}]  # type: ignore[arg-type]
    same_word = [
        k for k in keys if difflib.get_close_matches(key.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1]], cutoff=0.8)
    ]
    nearest = _nearest(key, [*groups, *keys]) or _nearest(same_word[0], same_word) if same_word else ""
    return f"no key {key!r}{nearest or '; +' + key + '=… adds a new one'}"


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _short(departures: Mapping[str, Any]) -> list[str]:
    """``key=value`` with the last word of the key where that is unambiguous, safe in a path."""
    words = [key.rsplit(".", 1)[-1] for key in departures]
    texts = []
    for word, (key, value) in zip(words, departures.items(), strict=True):
        text = f"{word if words.count(word) == 1 else key}={value if isinstance(value, str) else json.dumps(value)}"
        texts.append(re.sub(r"[^\w.=+-]+", "-", text))
    return texts
