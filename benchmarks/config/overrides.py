"""Overrides as a user writes them: quoted where Hydra's grammar needs it, and refused where they would have no effect."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from math import isfinite

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.errors import OverrideParseException

from benchmarks.config.folders import GROUPS, choices
from benchmarks.config.known_keys import DERIVED, ELSEWHERE
from benchmarks.config.schema import KEYS, check_value
from benchmarks.config.trial import ConfigurationError
from benchmarks.units import grouped, nearest

SEVERAL = "logger"  # the group of which a run may have several options at once
HOME = re.compile(r"(?<=[=,])~(?=/|,|$)")
INSTEAD_OF_HYDRA = {  # what to set in the place of Hydra's own keys, by patterns of these
    "hydra.(run|sweep)": "runs lie in output_root/<data>/<name>/<recipe>/seed<k>: set output_root=DIR",
    "hydra.job": "set name=… or output_root=DIR",
    "hydra.launcher": "set cluster=local, hosts, slurm or ray, and launch.workers",
    "hydra.sweeper": "list the values: -m KEY=A,B",
    "hydra.mode": "-m sweeps",
}


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse ``KEY=VALUE``s; ``~`` is the home folder, and a value that Hydra's grammar cannot read is a text as it stands.
    Raises ConfigurationError for what has no such form, RuntimeError where Hydra is not set up."""
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        raise RuntimeError("parse_overrides is called inside compose._hydra()")
    for before, text in pairwise(overrides):
        if "=" not in text and (before.endswith(",") or text.startswith(",")):
            joined = f"{before.rstrip(',')},{text.lstrip(',')}"
            raise ConfigurationError(f"{text!r} is not of the form key=value; values have no spaces between: {joined}")
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    return [_parse(parser, HOME.sub(os.path.expanduser("~"), text)) for text in overrides]


def _parse(parser: OverridesParser, text: str) -> Override:
    try:
        text.encode()
    except UnicodeEncodeError:  # a byte of the command line that Python could not decode
        raise ConfigurationError(f"{ascii(text)} is not UTF-8, in which a run's record is written") from None
    key, equals, value = text.partition("=")
    for form in (text, f"{key}='{escaped(value)}'") if equals else (text,):
        with suppress(OverrideParseException, ValueError):  # an integer of more digits than Python reads
            [override] = parser.parse_overrides([form])
            if _may_be_unset(override):
                [override] = parser.parse_overrides([f"++{form.lstrip('+')}"])  # whether a file sets it or not
            if isinstance(values := override.value(), RangeSweep):
                _take_as_written(values)
            if override.key_or_group:
                return override
    raise ConfigurationError(f"{text!r} is not of the form key=value")


def _take_as_written(values: RangeSweep) -> None:
    """Let a range of fractions have its decimal values: in binary, 0.1 + 0.1 + 0.1 is beyond 0.3, and 0.7 + 3 x 0.1 below 1."""
    if any(isinstance(number, float) for number in (values.start, values.stop, values.step)):
        for name in ("start", "stop", "step"):
            setattr(values, name, Decimal(str(getattr(values, name))))


def _may_be_unset(override: Override) -> bool:
    """Whether a key is set that a file may leave out: one that is added, or of a recipe."""
    key = str(override.key_or_group)
    if key not in KEYS or override.is_delete() or override.is_force_add():
        return False
    group, _, name = key.partition(".")
    return override.is_add() or (group == "recipe" and "." not in name and not KEYS[key].required)


def as_text(override: Override) -> str:
    """Return an override as Hydra's grammar reads it, whatever the user wrote; of a sweep, the sweep."""
    if override.is_sweep_override():
        return str(override.input_line)
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def escaped(value: str) -> str:
    r"""Return a text as it stands within Hydra's single quotes: ``\'`` for a quote, doubled backslashes before one."""
    return re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + (match[2] and rf"\{match[2]}"), value)


def check_overrides(parsed: Sequence[Override]) -> None:
    """Raise ConfigurationError for an override that would be ignored, names an unknown option, or sweeps over no value."""
    for key, given in grouped(parsed, lambda override: str(override.key_or_group)).items():
        if len(given) > 1 and any(override.is_sweep_override() for override in given):
            raise ConfigurationError(f"{key} is given twice: {' and '.join(str(one.input_line) for one in given)}")
    for override in parsed:
        key, text = str(override.key_or_group), str(override.input_line)
        if re.split("[./]", key)[0] == "hydra":
            hints = [
                hint
                for name, hint in INSTEAD_OF_HYDRA.items()
                if re.fullmatch(rf"{name}([.].*)?", key.replace("/", "."))
            ]
            raise ConfigurationError(f"{text} would have no effect{''.join(f'; {hint}' for hint in hints)}")
        if key.split(".")[0] in DERIVED:
            raise ConfigurationError(
                f"{key} is put together from the groups: set model.*, data.*, recipe.* or trainer.*"
            )
        if key in GROUPS and text.startswith("+") and not isinstance(override.value(), dict):
            raise ConfigurationError(f"{text}: an option of a group is chosen without +: {text.lstrip('+')}")
        if override.is_sweep_override():
            _check_sweep(override, text)
        elif key in GROUPS:
            _check_option(key, override, text)
        elif key in KEYS and key not in ELSEWHERE and not override.is_delete() and "${" not in text:
            check_value(key, override.value())


def _check_sweep(override: Override, text: str) -> None:
    key, values = str(override.key_or_group), override.value()
    if key == SEVERAL:
        raise ConfigurationError(f"{text}: a run has all its {key}s at once; {_several(text.partition('=')[2])}")
    if override.is_interval_sweep():
        raise ConfigurationError(f"{text}: an interval has no list of values; list them: {key}=A,B")
    if isinstance(values, RangeSweep):
        numbers = [number or 0 for number in (values.start, values.stop, values.step)]
        if not (numbers[-1] and all(map(isfinite, numbers))):
            raise ConfigurationError(f"{text}: a range has finite ends, and a step other than 0; range(0,3) is 0, 1, 2")
    if isinstance(values, RangeSweep) and not [*override.sweep_iterator()]:
        raise ConfigurationError(f"{text} has no value; range(0,3) is 0, 1, 2")
    if isinstance(values, Glob) and not choices(key):
        raise ConfigurationError(f"{text}: a glob chooses options of a group; list the values: {key}=A,B")
    if isinstance(values, Glob) and not [*override.sweep_iterator()]:
        raise ConfigurationError(f"{text} names no {key}; there are {', '.join(choices(key))}")


def _check_option(group: str, override: Override, text: str) -> None:
    value, known = override.value(), choices(group)
    if override.is_delete():
        raise ConfigurationError(f"{text}: a run has one; {group}={', '.join(known)}")
    if isinstance(value, dict) and group != "experiment":  # values of the group's keys
        return
    if isinstance(value, str) and (group != "experiment" or value in known):  # of the others composing says it
        return
    if group == SEVERAL and isinstance(value, list):
        _check_several(value, known)
        return
    hint = nearest(value, known) if isinstance(value, str) else ""
    named = repr(value) if isinstance(value, str) else text.partition("=")[2]
    several = f"; of several, one run each: -m {group}={known[0]},{known[1]}" if isinstance(value, list) else ""
    raise ConfigurationError(f"no {group} named {named}{hint}; there are {', '.join(known)}{several}")


def _check_several(values: Sequence[object], known: Sequence[str]) -> None:
    """Let options of the group pass of which a run has several at once."""
    for value in map(str, values):
        if value not in known:
            line = f"no {SEVERAL} named {value!r}{nearest(value, known)}; there are {', '.join(known)}"
            raise ConfigurationError(f"{line}; several at once: {_several('wandb,tensorboard')}")
    if not values:
        raise ConfigurationError(f"{SEVERAL}=[] names none: {SEVERAL}=none")
    if len({*map(str, values)}) < len(values) or len(values) > 1 and "none" in values:
        named = ",".join(dict.fromkeys(str(value) for value in values if value != "none"))
        raise ConfigurationError(
            f"{SEVERAL}=[{','.join(map(str, values))}]: each once, and none alone; {_several(named)}"
        )


def _several(names: str) -> str:
    return f"'{SEVERAL}=[{names}]', in quotes"
