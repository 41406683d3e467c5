"""From command-line overrides to cells.

A cell is one fully resolved configuration: one network, data set, recipe and seed. Hydra composes it; its directory is a pure
function of it.
"""

import copy
import difflib
import hashlib
import json
import pickle
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from benchmarks.record import short_value

CONF = Path(__file__).resolve().parents[1] / "conf"

# Where a run happens and who watches it: no part of what it computes.
PLACES = ("mode", "output_root", "launch", "logger", "cluster", "trainer.accelerator", "data.root", "data.hub")
# Interpolated from the groups: a departure shows at its home.
WIRING = ("module", "datamodule", "loading", "task", "experiment", "row", "data.source")
# Of an experiment, for the launcher and the report: no run has them in its configuration.
OF_EXPERIMENT = ("rows", "paper")
# The groups whose choice makes a recipe; what differs from it is a departure.
SELECTING = {"model", "data", "recipe", "model/variant@model"}


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

    In a sweep (``multirun``, or an experiment that says ``hydra.mode: MULTIRUN`` or has ``rows``) a cell that cannot be
    composed comes back as ``Impossible``, so that the others can run. An experiment's rows are run one after the other, each
    with everything else that is swept; an override beats the row's.

    Raises:
        ConfigurationError: nothing can be composed, a swept value without ``multirun``, or a row that there is not.
    """
    with _hydra():
        parsed = _parse(overrides)
        multirun, rows, parsed = _sweep_of_experiment(parsed, multirun)
        swept = [override for override in parsed if override.is_sweep_override()]
        if swept and not multirun:
            raise ConfigurationError(f"{swept[0].input_line} is a sweep over several values: add -m")
        [batch] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        composer = _Composer()
        cells: list[Cell | Impossible] = []
        for job in ((*row, *job) for row in rows for job in batch):
            try:
                cells.append(composer.cell(job))
            except ConfigurationError as error:
                cells.append(Impossible(job, str(error)))
    if len(rows) > 1:  # some may be equal by an override
        cells = list({_key(cell): cell for cell in reversed(cells)}.values())[::-1]
    errors = [cell.error for cell in cells if isinstance(cell, Impossible)]
    if len(errors) == len(cells):
        raise ConfigurationError("; ".join(dict.fromkeys(errors)))
    return cells


def paper_facts(experiment: str) -> dict[str, Any]:
    """What the paper of an experiment did that its configuration does not say, by dotted key: its ``paper:`` block.

    Raises:
        ConfigurationError: there is no such experiment.
    """
    with _hydra():
        facts: Any = OmegaConf.to_container(_compose([f"experiment={experiment}"]).paper)
    return flatten(facts)


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
    """SHA-256 of ``identity(config)``; a key that is null counts as absent, so that a new one changes no older hash."""
    told = {key: value for key, value in identity(config).items() if value is not None}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of ``identity`` in which two configurations differ, with both values (None where absent)."""
    a, b = identity(one), identity(other)
    return {key: (a.get(key), b.get(key)) for key in _differing(a, b)}


def choices(group: str) -> list[str]:
    """The options of a configuration group, from ``conf/``."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def register_resolvers() -> None:
    """The functions that names in ``conf/model`` use: text where a flag holds, whether a number is below one, and θ unless it
    is the papers'."""
    OmegaConf.register_new_resolver("when", lambda flag, text: text if flag else "", replace=True)
    OmegaConf.register_new_resolver("below_one", lambda number: number < 1, replace=True)
    OmegaConf.register_new_resolver(
        "theta", lambda number: "" if number in (0.5, 1) else f"_theta{number:g}", replace=True
    )


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


def _sweep_of_experiment(parsed: list[Override], multirun: bool) -> tuple[bool, list[tuple[str, ...]], list[Override]]:
    """Of the experiment, where one is asked for: whether it sweeps, its rows as overrides, and everything else that is swept.

    The command line wins over both. Without rows there is one, which overrides nothing.
    """
    asked = [override for override in parsed if override.key_or_group == "experiment"]
    chosen = [override for override in parsed if override.key_or_group == "row"]
    if any(override.is_sweep_override() for override in asked):
        raise ConfigurationError(f"{asked[-1].input_line}: one experiment at a time")
    config = _compose([str(override.input_line) for override in asked]) if asked else None
    rows = OmegaConf.to_container(config.rows) if config is not None else {}
    if chosen and not rows:
        raise ConfigurationError(f"{chosen[-1].input_line}: rows are those of an experiment, experiment=…")
    if config is None:
        return multirun, [()], parsed
    given = {override.key_or_group for override in parsed}
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items() if key not in given]
    others = [*_parse(params), *(override for override in parsed if override.key_or_group != "row")]
    if not isinstance(rows, dict) or not rows:
        return multirun or OmegaConf.select(config.hydra, "mode") is not None, [()], others
    wanted = _chosen_rows(chosen[-1], rows, str(asked[-1].value())) if chosen else [str(row) for row in rows]
    return True, [_row_overrides(row, str(rows[row]), given) for row in wanted], others


def _chosen_rows(override: Override, rows: Mapping[Any, Any], experiment: str) -> list[str]:
    wanted = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    names = [str(row) for row in wanted]
    for name in names:
        if name not in rows:
            raise ConfigurationError(
                f"{experiment} has no row {name!r}{_nearest(name, list(rows))}; there are {', '.join(rows)}"
            )
    return names


def _key(cell: Cell | Impossible) -> Any:
    """What two equal cells share."""
    return cell if isinstance(cell, Impossible) else (cell.directory, config_hash(cell.config))


def _row_overrides(row: str, text: str, given: Collection[str]) -> tuple[str, ...]:
    """The overrides of one row, ``key=value key=value``, but for those that the command line has."""
    mine = [override for override in text.split() if override.split("=")[0].lstrip("+~") not in given]
    return *mine, f"row={row}"


@dataclass(frozen=True)
class _Base:
    """What a choice of groups composes to, before values are overridden.

    overrides: the choice. job: without Hydra's node. hydra: what ``${hydra:…}`` reads. written: job, unresolved.
    reference: the identity of the model, data and recipe alone, unresolved.
    """

    overrides: tuple[str, ...]
    job: DictConfig
    hydra: Any
    written: dict[str, Any]
    reference: dict[str, Any]

    @cached_property
    def leaves(self) -> dict[tuple[str | int, ...], Any]:
        """``written`` by path."""
        return _leaves(self.written)

    @cached_property
    def references(self) -> list[str]:
        """All values of ``written`` with references in them."""
        return [text for text in self.leaves.values() if isinstance(text, str) and "${" in text]

    @property
    def reads_overrides(self) -> bool:
        """Whether something refers to what Hydra alone knows of a cell, beside the choice of groups."""
        return any(re.search(r"hydra:(?!runtime\.choices\.)", text) for text in self.references)

    def is_plain(self, key: str) -> bool:
        """Whether ``key`` is a value, and whoever refers to it does so by ``${key}`` alone, not within another text."""
        word = re.compile(rf"\b{re.escape(key.rpartition('.')[2])}\b")
        mentions = (text for text in self.references if text != f"${{{key}}}")
        return tuple(key.split(".")) in self.leaves and not any(map(word.search, mentions))


@dataclass(frozen=True)
class _Template:
    """Cells that differ in plain values alone.

    config: the resolved configuration of one, pickled (the quickest copy). written: its identity before it was resolved.
    places: where in config each of the values stands.
    """

    config: bytes
    written: dict[str, Any]
    places: dict[str, list[tuple[str | int, ...]]]

    def fill(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """As ``_apply``, for other values."""
        config = pickle.loads(self.config)
        for key, places in self.places.items():
            for *path, last in places:
                node = config
                for step in path:
                    node = node[step]
                node[last] = values[key]
        return self.written | {key: value for key, value in values.items() if key in self.written}, config


class _Composer:
    """Composes the cells of a sweep to what Hydra's ``compose`` makes of each, calling it once per choice of groups.

    Other overrides are applied to a copy of that, by Hydra's own function. Cells that differ in plain values alone (``seed=3``)
    are resolved once: where the values go is found by resolving with stand-ins.
    """

    def __init__(self) -> None:
        self.parsed: dict[str, tuple[Override, bool]] = {}
        self.bases: dict[tuple[str, ...], _Base | str] = {}
        self.references: dict[tuple[str, ...], dict[str, Any]] = {}
        self.plain: dict[tuple[int, str], bool] = {}
        self.templates: dict[tuple[Any, ...], _Template | None] = {}

    def cell(self, job: Sequence[str]) -> Cell:
        """The cell of these overrides.

        Raises:
            ConfigurationError: they compose to nothing.
        """
        parsed = [self._parse(text) for text in job]
        values = [override for override, is_group in parsed if not is_group]
        by_hydra = any(o.key_or_group.startswith("hydra") or "hydra:" in str(o.value()) for o in values)
        chosen = [text for text, (_, is_group) in zip(job, parsed, strict=True) if is_group]
        base = self._base(tuple(job if by_hydra else chosen))
        if by_hydra or base.reads_overrides:
            base, values = self._base(tuple(job)), []
        written, config = self._configuration(base, values)
        return Cell(config, _departures(written, base.reference, flatten(config)))

    def _configuration(self, base: _Base, values: list[Override]) -> tuple[dict[str, Any], dict[str, Any]]:
        """As ``_apply``, from a template from the third cell of a kind on."""
        free = self._free(base, values)
        kind = (base.overrides, tuple(str(o.input_line) for o in values if o.key_or_group not in free), *free)
        template = self.templates.get(kind)
        if template is not None:
            return template.fill(free)
        written, config = _apply(base, values)
        if free and kind in self.templates:
            self.templates[kind] = _template(base, values, free, written, config)
        self.templates.setdefault(kind, None)
        return written, config

    def _free(self, base: _Base, values: Sequence[Override]) -> dict[str, Any]:
        """Of the overrides those that put a plain number or text in the place of a value, and touch nothing else."""
        free: dict[str, Any] = {}
        others: list[str] = []
        for override in values:
            key, value = override.key_or_group, override.value()
            if (base_key := (id(base), key)) not in self.plain:
                self.plain[base_key] = base.is_plain(key)
            plain = self.plain[base_key] and type(value) in (int, float, str) and value != "???"
            if override.is_delete() or "$" in str(override.input_line):
                return {}  # may depend on any value
            if override.type == OverrideType.CHANGE and plain and not override.package:
                free[key] = value
                continue
            if override.is_add() and any(".".join(map(str, path)).startswith(key) for path in base.leaves):
                return {}  # as above: what is there already decides
            free.pop(key, None)
            others.append(key)
        return {
            key: value
            for key, value in free.items()
            if not any(f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.") for other in others)
        }

    def _base(self, overrides: tuple[str, ...]) -> _Base:
        if overrides not in self.bases:
            try:
                self.bases[overrides] = self._new_base(overrides)
            except ConfigurationError as error:
                self.bases[overrides] = str(error)
        base = self.bases[overrides]
        if isinstance(base, str):
            raise ConfigurationError(base)
        return base

    def _new_base(self, overrides: tuple[str, ...]) -> _Base:
        composed = _compose(overrides)
        HydraConfig.instance().set_config(composed)
        hydra = HydraConfig.instance().cfg
        job = copy.deepcopy(composed)
        with open_dict(job):
            for key in ("hydra", *OF_EXPERIMENT):
                del job[key]
        written: Any = OmegaConf.to_container(job)
        choices = composed.hydra.runtime.choices
        selected = tuple(f"{group}={choice}" for group, choice in choices.items() if group in SELECTING)
        if selected not in self.references:
            selecting = all(self._parse(text)[0].get_key_element() in SELECTING for text in overrides)
            self.references[selected] = identity(written) if selecting else self._base(selected).reference
        return _Base(overrides, job, hydra, written, self.references[selected])

    def _parse(self, text: str) -> tuple[Override, bool]:
        """The override, and whether it chooses an option of a group."""
        if text not in self.parsed:
            [override] = _parse([text])
            repository = GlobalHydra.instance().hydra.config_loader.repository  # type: ignore[union-attr]
            is_group = repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
            self.parsed[text] = override, is_group
        return self.parsed[text]


def _apply(base: _Base, values: list[Override]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The identity of the configuration with its values overridden, unresolved, and the configuration, resolved."""
    job = copy.deepcopy(base.job)
    with _one_line([*base.overrides, *(str(override.input_line) for override in values)]):
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
    HydraConfig.instance().cfg = base.hydra  # ${hydra:…} reads this singleton
    try:
        written: Any = OmegaConf.to_container(job, throw_on_missing=True)
        config: Any = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(_first_line(error)) from error
    return identity(written), config


def _template(
    base: _Base, values: list[Override], free: Mapping[str, Any], written: dict[str, Any], config: dict[str, Any]
) -> _Template | None:
    """From one cell's configuration; None where values do more than stand somewhere."""
    kinds: dict[type, Any] = {int: 900_000_001, float: 900_000_001.5, str: "stand_in_"}
    stand_ins = {
        kinds[type(value)] + (str(number) if isinstance(value, str) else number): key
        for number, (key, value) in enumerate(free.items())
    }
    try:
        _, other = _apply(base, [*values, *_parse([f"{key}={stand_in}" for stand_in, key in stand_ins.items()])])
    except ConfigurationError:
        return None
    here, there = _leaves(config), _leaves(other)
    places: dict[str, list[tuple[str | int, ...]]] = {key: [] for key in free}
    for path in {**here, **there}:
        if path not in here or path not in there or here[path] != there[path]:
            key = stand_ins.get(there.get(path))
            if key is None or here.get(path) != free[key]:
                return None
            places[key].append(path)
    if any(tuple(key.split(".")) not in found for key, found in places.items()):
        return None
    return _Template(pickle.dumps(config), written, places)


def _leaves(node: Any, path: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], Any]:
    """All values by path, through mappings and lists; an empty one is None."""
    if not isinstance(node, dict | list):
        return {path: node}
    found: dict[tuple[str | int, ...], Any] = {}
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        found |= _leaves(value, (*path, key))
    return found or {path: None}


def _departures(
    written: Mapping[str, Any], reference: Mapping[str, Any], resolved: Mapping[str, Any]
) -> dict[str, Any]:
    """What of a cell departs from its recipe, beside what its name and seed say: by dotted key, resolved."""
    named = {f"model.{key}" for key in re.findall(r"\$\{model\.(\w+)\}", written["name"])} | {"name", "seed"}
    differing = dict.fromkeys(_held(key, resolved) for key in _differing(written, reference))
    return {key: resolved.get(key) for key in differing if key not in named}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _held(key: str, resolved: Mapping[str, Any]) -> str:
    """The key, or what stands in the place of the mapping that it was in (``recipe.augment.border_weights=null``)."""
    while "." in key and key not in resolved:
        key = key.rpartition(".")[0]
    return key


def _compose(overrides: Sequence[str]) -> DictConfig:
    """Hydra's ``compose`` with its own node."""
    with _one_line(overrides):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


@contextmanager
def _one_line(overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's errors about these overrides become one line that names what is nearest."""
    try:
        yield
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
    keys = _keys(tuple(chosen))
    same_word = [
        k for k in keys if difflib.get_close_matches(key.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1]], cutoff=0.8)
    ]
    nearest = _nearest(key, [*groups, *keys]) or _nearest(same_word[0], same_word) if same_word else ""
    return f"no key {key!r}{nearest or '; +' + key + '=… adds a new one'}"


@lru_cache
def _keys(groups: tuple[str, ...]) -> list[str]:
    """The keys that a choice of groups has."""
    composed: Any = OmegaConf.to_container(_compose(groups))
    return [key for key in flatten(composed) if key.split(".")[0] not in {*WIRING, "hydra"}]


def _nearest(word: str, known: Sequence[str]) -> str:
    swapped = [other for other in known if sorted(other) == sorted(word)]  # modle is model rather than mode
    close = swapped or difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _short(departures: Mapping[str, Any]) -> list[str]:
    """``key=value`` with the last word of the key where that is unambiguous, safe in a path; of a file of weights its stem."""
    words = [key.rsplit(".", 1)[-1] for key in departures]
    texts = []
    for word, (key, value) in zip(words, departures.items(), strict=True):
        said = Path(str(value)).stem if key == "weights" else short_value(value)
        text = f"{word if words.count(word) == 1 else key}={said}"
        texts.append(re.sub(r"[^\w.=+-]+", "-", text))
    return texts
