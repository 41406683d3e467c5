"""How the families of networks look in every table and figure."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.analysis.crossover import Curve
from benchmarks.config.about import NEUTRAL, Look, look_of_family, read_look
from benchmarks.config.trial import ConfigurationError
from benchmarks.records.runs import Run

_DASHES = ("solid", "dash", "dot", "longdash", "dashdot")


def family_look(family: str, recorded: Mapping[str, Any] | None = None) -> Look:
    """Return the look of a family: by its file, else as a record says, else the neutral one."""
    return _own_look(family, recorded) or NEUTRAL


def look_of(drawn: Run | Curve) -> Look:
    """Return the look of a run or a curve."""
    return family_look(drawn.family, drawn.look)


def another_look(look: Look, taken: Sequence[Look]) -> Look:
    """Return the look or, where another curve of the family has it, one with a dash and a marker of its own."""
    if look not in taken:
        return look
    dash = next(dash for dash in itertools.cycle(_DASHES) if dash not in {each.dash for each in taken[-4:]})
    return replace(look, dash=dash, marker=f"{look.marker}-open")


def legend_key(drawn: Run) -> str:
    """Return the family's name where it has a look of its own, else the empty one, which all others share."""
    return drawn.family if _own_look(drawn.family, drawn.look) else ""


def _own_look(family: str, recorded: Mapping[str, Any] | None) -> Look | None:
    try:
        return look_of_family(family) or read_look({"look": recorded or None})
    except ConfigurationError:  # a record is anyone's
        return None
