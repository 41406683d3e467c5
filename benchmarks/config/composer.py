"""Composes the trials of a sweep, with one call of Hydra for all that differ in plain numbers and names alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config.about import check_about
from benchmarks.config.folders import state_of_files
from benchmarks.config.hydra_errors import compose_overrides, first_line
from benchmarks.config.known_keys import check_keys, leaves, references
from benchmarks.config.schema import check_values, takes_fractions
from benchmarks.config.trial import PLACES, ConfigurationError, Trial, differing, flatten, identity

# Of Hydra, and of an experiment for the launcher and the report: no run has them in its configuration.
OF_NO_RUN = ("hydra", "rows", "paper")
# The groups whose choice makes a recipe; what differs from it is an override.
SELECTING = {"model", "data", "recipe", "model/variant@model", "backbone", "backbone/variant@model.backbone"}
NUMBER = re.compile(r"(\+{0,2}(?!hydra\.)[a-z][\w.]*)=(-?(?:0|[1-9]\d*)(\.\d+)?(e-?\d+)?)")
TEXT = re.compile(r"(row|name)=(?!(?:null|true|false|nan|inf)$)([a-z][\w.-]*)", re.IGNORECASE)
STAND_IN = 900_000_000  # and above: numbers in the place of a sweep's
WORD = "stand_in_"  # in the place of a row's or a network's name
STAND_INS = re.compile(rf"{STAND_IN // 1000}\d{{3}}(?:\.5)?|{WORD}\d+")
REFERENCE = re.compile(r"\$\{[\w.]+\}")


@dataclass(frozen=True, eq=False)
class _Composed:
    """What Hydra makes of some overrides: its own settings, ``job`` with interpolations, the same as plain containers
    ``config`` resolved and ``written`` unresolved, ``chosen`` the option of each group."""

    hydra: Any
    job: DictConfig
    config: dict[str, Any]
    written: dict[str, Any]
    chosen: dict[str, str]
    _computed: dict[frozenset[Any], dict[str, Any] | None] = field(default_factory=dict)

    @cached_property
    def selected(self) -> tuple[str, ...]:
        """The options that make the recipe."""
        return tuple(f"{group}={option}" for group, option in self.chosen.items() if group in SELECTING)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a run of it computes, unresolved, with the source's arguments: what is set there has no other home."""
        flat = flatten(self.written)
        return identity(self.written) | {key: flat[key] for key in flat if key.startswith("data.source.")}

    @cached_property
    def named(self) -> set[str]:
        """The keys that its interpolations name."""
        return references(self.written)

    @cached_property
    def of_others(self) -> set[str]:
        """The keys that only the modules of other tasks or other ways of loading name."""
        data = self.config["data"]
        used = {"task": data["task"], "loading": data.get("loading", "memory")}
        return self.named - references(
            self.written | {group: self.written[group].get(one) for group, one in used.items()}
        )

    @cached_property
    def computed_with(self) -> set[float | str]:
        """The stand-ins with which something is computed: they are part of a text, or of a key that an expression mentions."""
        texts = [value for _, value in leaves(self.written) if isinstance(value, str) and "${" in value]
        expressions = " ".join(text for text in texts if not REFERENCE.fullmatch(text))
        mentioned = {*re.findall(r"\w+", expressions)}
        within = [one if one.startswith(WORD) else float(one) for one in _within(self.config)]
        values = leaves(self.config)
        return {*within, *(value for key, value in values if type(value) in (int, float, str) and key in mentioned)}

    @cached_property
    def stand_ins(self) -> dict[str, float | str]:
        """The stand-ins that are values, by dotted key."""
        values = flatten(self.written).items()
        return {
            key: value for key, value in values if type(value) in (int, float, str) and STAND_INS.fullmatch(str(value))
        }

    def computed(self, values: Mapping[float | str, Any]) -> dict[str, Any] | None:
        """Return the configuration in which these values stand wherever something is computed with their stand-ins; None
        where Hydra itself has computed with one, as the text of all overrides."""
        needed = {one: value for one, value in values.items() if one in self.computed_with}
        if not needed:
            return self.config
        key = frozenset(needed.items())
        if key not in self._computed:
            # To make it anew of plain containers takes as long as to resolve it.
            for name, stand_in in self.stand_ins.items():
                OmegaConf.update(self.job, name, needed.get(stand_in, stand_in))
            config = _resolved(self.job, self.hydra)
            self._computed[key] = None if _within(config) else config
        return self._computed[key]


# Of this process, by what is selected and the files' state: the tables of the papers have many rows of few recipes.
_references: dict[tuple[tuple[str, ...], frozenset[tuple[str, int, int]]], _Composed] = {}


class Composer:
    """Composes the trials of a sweep to what Hydra's ``compose`` makes of each.

    Hydra is called with stand-ins for plain numbers and names, and all trials of one kind are filled in from the result.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, ...], _Composed | ConfigurationError] = {}
        self._checked: set[tuple[_Composed, _Composed]] = set()

    def trial(self, job: Sequence[str]) -> Trial:
        """The trial of these overrides. Raises ConfigurationError where they compose to nothing, to a key that nothing reads,
        or to a value of another kind than its key's."""
        template, values = self._template(job)
        computed = template.computed(values)
        if computed is None:
            template, values = self._compose(tuple(job)), {}
            computed = template.config
        config = _filled(computed, values)
        reference = template if all(map(_selects, job)) else self._reference(template, job)
        if (template, reference) not in self._checked:  # trials that differ in values have the same keys
            check_keys(template.config, template.named, template.of_others, reference.config, template.chosen)
            self._checked.add((template, reference))
        if "data.augment" not in template.named and _augment(template) != _augment(reference):
            raise ConfigurationError("this recipe does not take data.augment: set recipe.augment, or recipe=common")
        check_values(config)
        _write_fractions(config, reference.config)
        written = _filled(template.identity, values)
        return Trial(config, _overrides(written, reference.identity, flatten(config)))

    def _template(self, job: Sequence[str]) -> tuple[_Composed, dict[float | str, Any]]:
        """A configuration with stand-ins, and the trial's value for each of them."""
        overrides = list(job)
        values: dict[float | str, Any] = {}
        for place, text in enumerate(job):
            stand_in: float | str
            if match := TEXT.fullmatch(text):
                stand_in, value = f"{WORD}{place}", match[2]
            elif match := NUMBER.fullmatch(text):
                is_float = match[3] or match[4]
                stand_in, value = STAND_IN + place + (0.5 if is_float else 0), (float if is_float else int)(match[2])
            else:
                continue
            values[stand_in] = value
            overrides[place] = f"{match[1]}={stand_in}"
        try:
            return self._compose(tuple(overrides)), values
        except ConfigurationError as error:
            if STAND_INS.search(str(error)):
                return self._compose(tuple(job)), {}
            raise

    @cached_property
    def _files(self) -> frozenset[tuple[str, int, int]]:
        return state_of_files()

    def _reference(self, template: _Composed, job: Sequence[str]) -> _Composed:
        """The recipe as its files have it. Of it are read its keys, the kinds of its values and what it computes unresolved:
        nothing that the environment sets."""
        # A data set may count what is in its folder.
        if place := [text for text in job if text.startswith("data.root=")]:
            return self._compose((*template.selected, *place))
        key = template.selected, self._files
        if key not in _references:
            _references[key] = self._compose(template.selected)
        return _references[key]

    def _compose(self, overrides: tuple[str, ...]) -> _Composed:
        if overrides not in self._results:
            try:
                self._results[overrides] = _compose(overrides)
            except ConfigurationError as error:
                self._results[overrides] = error
        result = self._results[overrides]
        if isinstance(result, ConfigurationError):
            raise result
        return result


def _augment(one: _Composed) -> Any:
    return one.written["data"].get("augment")


def _compose(overrides: Sequence[str]) -> _Composed:
    composed = compose_overrides(overrides)
    HydraConfig.instance().set_config(composed)
    hydra = HydraConfig.instance().cfg
    chosen = {str(group): str(option) for group, option in composed.hydra.runtime.choices.items()}
    OmegaConf.set_struct(composed, False)
    for key in OF_NO_RUN:
        composed.pop(key, None)
    try:
        written: Any = OmegaConf.to_container(composed, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(first_line(error)) from error
    return _Composed(hydra, composed, _resolved(composed, hydra), written, chosen)


def _resolved(job: DictConfig, hydra: Any) -> dict[str, Any]:
    """Return the values of a run's configuration; ``hydra`` is what ``${hydra:…}`` reads."""
    HydraConfig.instance().cfg = hydra
    try:
        config: Any = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(first_line(error)) from error
    check_about(config)
    config["logger"].setdefault("mode", "none")  # W&B is one of several
    return config


def _within(config: Mapping[str, Any]) -> list[str]:
    """The stand-ins that are a part of a text."""
    texts = [value for _, value in leaves(config) if isinstance(value, str) and not STAND_INS.fullmatch(value)]
    return [one for text in texts for one in STAND_INS.findall(text)]


def _selects(override: str) -> bool:
    """Whether an override chooses an option of a group that makes a recipe; a mapping would set values of its keys."""
    key, _, value = override.partition("=")
    return key in SELECTING and not value.startswith("{")


def _filled(node: Any, values: Mapping[float | str, Any]) -> Any:
    """Return a copy with values in the place of their stand-ins."""
    if isinstance(node, dict):
        return {key: _filled(child, values) for key, child in node.items()}
    if isinstance(node, list):
        return [_filled(child, values) for child in node]
    return values.get(node, node) if type(node) in (int, float, str) else node


def _write_fractions(config: dict[str, Any], reference: Mapping[str, Any], above: str = "") -> None:
    """Write 1.0 for 1 where the files have a fraction, or nothing at a key that takes fractions: both are one value, with one
    hash. What no hash is of stays as it is."""
    for name, value in config.items():
        there = reference.get(name)
        if above + name in PLACES:
            continue
        if isinstance(value, dict):
            _write_fractions(value, there if isinstance(there, dict) else {}, f"{above}{name}.")
        elif type(value) is int and (
            type(there) is float or (type(there) is not int and takes_fractions(above + name))
        ):
            config[name] = float(value)


def _overrides(written: Mapping[str, Any], reference: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a trial that differ from its recipe and are not in its name or seed: by dotted key, resolved."""
    named = {f"model.{key}" for key in re.findall(r"\$\{model\.([\w.]+)\}", str(written["name"]))} | {"name", "seed"}
    keys = dict.fromkeys(_present(key, resolved) for key in differing(written, reference))
    return {key: resolved.get(key) for key in keys if key not in named}


def _present(key: str, resolved: Mapping[str, Any]) -> str:
    """The key, or what stands in the place of the mapping that it was in (``recipe.augment.border_weights=null``)."""
    place = key
    while "." in place and place not in resolved:
        place = place.rpartition(".")[0]
    return place if place in resolved else key
