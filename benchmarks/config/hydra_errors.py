"""Hydra's composition, with its errors as one line that says what would be right."""

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import yaml
from hydra import compose
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config.folders import GROUPS, choices, read_option
from benchmarks.config.known_keys import instead, is_read, of_other_options, of_wandb, references
from benchmarks.config.overrides import parse_overrides
from benchmarks.config.trial import WIRING, ConfigurationError, flatten
from benchmarks.units import nearest, one_line


def compose_overrides(overrides: Sequence[str]) -> DictConfig:
    """Hydra's ``compose`` with its own node; a default recipe or variant serves where a network and a data set have none.
    Raises ConfigurationError, which says Hydra's error in one line that names what is nearest."""
    try:
        try:
            return compose("config", overrides=list(overrides), return_hydra_config=True)
        except MissingConfigException as error:
            default = _default_for(error.missing_cfg_file or "", overrides)
            if not default:
                raise
    except MissingConfigException as error:
        raise ConfigurationError(_missing_option(error.missing_cfg_file or "")) from error
    except ConfigCompositionException as error:
        unknown = re.search(r"Could not override '([^'@]+)", str(error))
        within = re.search(r"full_key: (\S+)", str(error.__cause__))  # of a mapping that was given
        keys = [match.group(1) for match in (unknown, within) if match]
        line = _unknown_key(max(keys, key=len), overrides) if unknown else first_line(error)
        if deleted := re.search(r"Could not delete from config. '(.+)' does not exist", line):
            line = f"{deleted[1]} is null already, or there is no such key: do without ~{deleted[1]}"
        raise ConfigurationError(line) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(one_line(str(error))) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last of a file's "# @package" line
        raise ConfigurationError(first_line(error)) from error
    return compose_overrides([*overrides, *default])


def _default_for(missing: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that choose a default in the place of a missing file, none where there is no default."""
    group, _, option = missing.rpartition("/")
    key = {"recipe": "recipe", "model/variant": "model/variant@model"}.get(group)
    family, data = _pair(option)
    if group == "model/variant" and f"{option}_instances" in choices(group):  # a detector takes the images' objects
        return [f"data={data}_instances"]
    if key is None or not family or not data or any(text.startswith(f"{key}=") for text in overrides):
        return []
    stem = next(
        (text.partition("=")[2].strip("'\"") for text in reversed(overrides) if text.startswith("data.stem=")), None
    )
    name = next((name for name in _default_names(group, family, data, stem) if name in choices(group)), None)
    return [f"{key}={name}", f"++defaulted.{group.rpartition('/')[2]}={name}"] if name else []


def _default_names(group: str, family: str, data: str, stem: str | None = None) -> list[str]:
    """Return the names of files that would serve: a recipe of the data set or by the task, a variant by stem or task. stem: in
    the place of the data set's own."""
    content = {**read_option("data", data), **({} if stem is None else {"stem": stem})}
    kinds = [str(content.get(key)) for key in ("stem", "task") if content.get(key)]
    return [data, *kinds[-1:]] if group == "recipe" else [f"{family}_{kind}" for kind in kinds]


def _pair(option: str) -> tuple[str, str]:
    """Return the network and the data set of an option ``<model>_<data>``; empty where they do not exist."""
    pairs = ((family, option.removeprefix(f"{family}_")) for family in sorted(choices("model"), key=len, reverse=True))
    family, data = next(((family, data) for family, data in pairs if data != option), ("", ""))
    return family, data if data in choices("data") else ""


def _missing_option(missing: str) -> str:
    group, _, option = missing.rpartition("/")
    known = choices(group)
    family, data = _pair(option)
    if group == "model/variant" and family and not data:  # Hydra looks for the network's variant first
        group, option, known = "data", option.removeprefix(f"{family}_"), choices("data")
    elif group in {"recipe", "model/variant"} and data and not {*_default_names(group, family, data)} & {*known}:
        served = _default_names if group == "model/variant" else lambda *pair: ()  # a default recipe serves any network
        pairs = [
            (f, d) for f in choices("model") for d in choices("data") if {f"{f}_{d}", *served(group, f, d)} & {*known}
        ]
        fits, partners = ", ".join(d for f, d in pairs if f == family), ", ".join(f for f, d in pairs if d == data)
        goes = [f"{family} goes with {fits}"] * bool(fits) + [f"{data} with {partners}"] * bool(partners)
        files = " or ".join(f"conf/{group}/{name}.yaml" for name in (option, *_default_names(group, family, data)))
        there = f": {', and '.join(goes)}" if goes else ""
        return f"model={family} is not set up for data={data}{there}; missing: {files}"
    return f"no {group} named {option!r}{nearest(option, known)}; there are {', '.join(known) or 'none'}"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    parsed = parse_overrides(overrides)
    chosen = [override for override in parsed if override.key_or_group in GROUPS and override.key_or_group != key]
    config, options = _composed(tuple(str(o.input_line) for o in chosen if isinstance(o.value(), str)))
    if key in GROUPS:
        have = [name for name in choices("model") if f"'/{key}'" in str(read_option("model", name).get("defaults"))]
        return f"nothing reads {key} with model={options['model']}; model={', '.join(have)} has one"
    named = references(config)
    if key not in named and (line := of_other_options(key, options) or of_wandb(key, config)):
        return line
    if is_read(key, config, named):
        return f"no file sets {key}; write +{key}=…"
    keys = [*GROUPS, *(name for name in flatten(config) if name.split(".")[0] not in {*WIRING, "hydra"})]
    word = key.rsplit(".", 1)[-1]
    same_word = [name for name in keys if name.rsplit(".", 1)[-1] == word]
    like_it = [name for name in keys if difflib.get_close_matches(word, [name.rsplit(".", 1)[-1]], cutoff=0.8)]
    hint = ""
    if same_word:  # in another place: recipe.lr is recipe.optimizer.lr
        hint = nearest(word, same_word) or nearest(key, same_word) or nearest(same_word[0], same_word)
    elif like_it:
        hint = nearest(key, keys) or nearest(like_it[0], like_it)
    return f"no key {key!r}{hint or instead(key, config)}"


@lru_cache
def _composed(groups: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a choice of groups makes, unresolved, and the option of each group."""
    composed: Any = OmegaConf.to_container(compose_overrides(groups))
    options = composed["hydra"]["runtime"]["choices"]
    return {key: value for key, value in composed.items() if key != "hydra"}, options


def unwrapped(error: BaseException) -> BaseException:
    """Return what a target of ``instantiate`` raised, without Hydra's wrapping; Hydra's own errors as they are."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: Exception) -> str:
    """Return the first line of one of Hydra's errors, without the kind of what a resolver or a file's merging raised."""
    text = re.sub(r"\w+ raised while (resolving interpolation: |composing config:\n)", "", str(error).strip())
    return text.splitlines()[0].replace(
        "Cannot merge DictConfig with ListConfig", "a list stands where a block of keys is expected"
    )
