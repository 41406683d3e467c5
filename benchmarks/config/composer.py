"""Composes the trials of a sweep with one call of Hydra for each choice of groups."""

import copy
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config.hydra_errors import compose_overrides, first_line, one_line_of, parse_overrides
from benchmarks.config.trial import ConfigurationError, Trial, differing, flatten, identity

# Of an experiment, for the launcher and the report: no run has them in its configuration.
OF_EXPERIMENT = ("rows", "paper")
# The groups whose choice makes a recipe; what differs from it is an override.
SELECTING = {"model", "data", "recipe", "model/variant@model"}


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
        """Whether something refers to what Hydra alone knows of a trial, beside the choice of groups."""
        return any(re.search(r"hydra:(?!runtime\.choices\.)", text) for text in self.references)

    def is_plain(self, key: str) -> bool:
        """Whether ``key`` is a value, and whoever refers to it does so by ``${key}`` alone, not within another text."""
        word = re.compile(rf"\b{re.escape(key.rpartition('.')[2])}\b")
        mentions = (text for text in self.references if text != f"${{{key}}}")
        return tuple(key.split(".")) in self.leaves and not any(map(word.search, mentions))


@dataclass(frozen=True)
class _Template:
    """Trials that differ in plain values alone.

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


class Composer:
    """Composes the trials of a sweep to what Hydra's ``compose`` makes of each, calling it once per choice of groups.

    Other overrides are applied to a copy of that, by Hydra's own function. Trials that differ in plain values (``seed=3``)
    are resolved once: where the values go is found by resolving with stand-ins.
    """

    def __init__(self) -> None:
        self.parsed: dict[str, tuple[Override, bool]] = {}
        self.bases: dict[tuple[str, ...], _Base | str] = {}
        self.references: dict[tuple[str, ...], dict[str, Any]] = {}
        self.plain: dict[tuple[int, str], bool] = {}
        self.templates: dict[tuple[Any, ...], _Template | None] = {}

    def trial(self, job: Sequence[str]) -> Trial:
        """The trial of these overrides.

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
        return Trial(config, _overrides(written, base.reference, flatten(config)))

    def _configuration(self, base: _Base, values: list[Override]) -> tuple[dict[str, Any], dict[str, Any]]:
        """As ``_apply``, from a template from the third trial of a kind on."""
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
        composed = compose_overrides(overrides)
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
            [override] = parse_overrides([text])
            repository = GlobalHydra.instance().hydra.config_loader.repository  # type: ignore[union-attr]
            is_group = repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
            self.parsed[text] = override, is_group
        return self.parsed[text]


def _apply(base: _Base, values: list[Override]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The identity of the configuration with its values overridden, unresolved, and the configuration, resolved."""
    job = copy.deepcopy(base.job)
    with one_line_of([*base.overrides, *(str(override.input_line) for override in values)]):
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
    HydraConfig.instance().cfg = base.hydra  # ${hydra:…} reads this singleton
    try:
        written: Any = OmegaConf.to_container(job, throw_on_missing=True)
        config: Any = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(first_line(error)) from error
    return identity(written), config


def _template(
    base: _Base, values: list[Override], free: Mapping[str, Any], written: dict[str, Any], config: dict[str, Any]
) -> _Template | None:
    """From one trial's configuration; None where values do more than stand somewhere."""
    kinds: dict[type, Any] = {int: 900_000_001, float: 900_000_001.5, str: "stand_in_"}
    stand_ins = {
        kinds[type(value)] + (str(number) if isinstance(value, str) else number): key
        for number, (key, value) in enumerate(free.items())
    }
    try:
        _, other = _apply(
            base, [*values, *parse_overrides([f"{key}={stand_in}" for stand_in, key in stand_ins.items()])]
        )
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


def _overrides(written: Mapping[str, Any], reference: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What of a trial departs from its recipe, beside what its name and seed say: by dotted key, resolved."""
    named = {f"model.{key}" for key in re.findall(r"\$\{model\.(\w+)\}", written["name"])} | {"name", "seed"}
    held = dict.fromkeys(_held(key, resolved) for key in differing(written, reference))
    return {key: resolved.get(key) for key in held if key not in named}


def _held(key: str, resolved: Mapping[str, Any]) -> str:
    """The key, or what stands in the place of the mapping that it was in (``recipe.augment.border_weights=null``)."""
    while "." in key and key not in resolved:
        key = key.rpartition(".")[0]
    return key
