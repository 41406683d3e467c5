"""How the families of networks look in every table and figure."""

from collections.abc import Mapping
from typing import Any

from benchmarks.analysis.crossover import Curve
from benchmarks.config.about import NEUTRAL, Look, look_of_family, read_look
from benchmarks.config.trial import ConfigurationError
from benchmarks.records.runs import Run


def family_look(family: str, recorded: Mapping[str, Any] | None = None) -> Look:
    """Return the look of a family: by its file, else as a record says, else the neutral one."""
    return _own_look(family, recorded) or NEUTRAL


def look_of(drawn: Run | Curve) -> Look:
    """Return the look of a run or a curve."""
    return family_look(drawn.family, drawn.look)


def legend_key(drawn: Run) -> str:
    """Return the family's name where it has a look of its own, else the empty one, which all others share."""
    return drawn.family if _own_look(drawn.family, drawn.look) else ""


def _own_look(family: str, recorded: Mapping[str, Any] | None) -> Look | None:
    try:
        return look_of_family(family) or read_look({"look": recorded or None})
    except ConfigurationError:  # a record is anyone's
        return None
