"""Hydra's parsing and composition, with its errors as one line that says what would be right."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config.folders import GROUPS, choices
from benchmarks.config.trial import WIRING, ConfigurationError, flatten
from benchmarks.units import nearest


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        raise RuntimeError("_parse is called inside _hydra()")
    try:
        return OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigurationError(f"{error.override!r} is not of the form key=value") from error


def compose_overrides(overrides: Sequence[str]) -> DictConfig:
    """Hydra's ``compose`` with its own node."""
    with one_line_of(overrides):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


@contextmanager
def one_line_of(overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's errors about these overrides become one line that names what is nearest."""
    try:
        yield
    except MissingConfigException as error:
        raise ConfigurationError(_missing_option(error.missing_cfg_file or "")) from error
    except ConfigCompositionException as error:
        unknown = re.search(r"Could not override '([^'@]+)", str(error))
        line = _unknown_key(unknown.group(1), overrides) if unknown else first_line(error)
        raise ConfigurationError(line) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(first_line(error)) from error


def _missing_option(missing: str) -> str:
    group, _, option = missing.rpartition("/")
    families, sets, known = choices("model"), choices("data"), choices(group)
    family, _, data = option.partition("_")
    if group in {"recipe", "model/variant"} and family in families and data in sets:
        pairs = [(f, d) for f in families for d in sets if f"{f}_{d}" in known]
        fits = ", ".join(d for f, d in pairs if f == family)
        partners = ", ".join(f for f, d in pairs if d == data)
        if not fits or not partners:  # a network or a data set that is new
            way = ", or use recipe=common" if group == "recipe" else ""
            return f"model={family} has no {group} for data={data}: write conf/{group}/{family}_{data}.yaml{way}"
        return f"model={family} is not set up for data={data}: {family} goes with {fits}, and {data} with {partners}"
    return f"no {group} named {option!r}{nearest(option, known)}; there are {', '.join(known) or 'none'}"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    chosen = [
        str(o.input_line) for o in parse_overrides(overrides) if o.key_or_group in GROUPS and not o.is_sweep_override()
    ]
    keys = _keys(tuple(chosen))
    same_word = [
        k for k in keys if difflib.get_close_matches(key.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1]], cutoff=0.8)
    ]
    hint = nearest(key, [*GROUPS, *keys]) or nearest(same_word[0], same_word) if same_word else ""
    return f"no key {key!r}{hint or '; +' + key + '=… adds a new one'}"


@lru_cache
def _keys(groups: tuple[str, ...]) -> list[str]:
    """The keys that a choice of groups has."""
    composed: Any = OmegaConf.to_container(compose_overrides(groups))
    return [key for key in flatten(composed) if key.split(".")[0] not in {*WIRING, "hydra"}]


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
