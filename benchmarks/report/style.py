"""How the families of networks look in every table and figure."""

from collections.abc import Mapping
from typing import Any, Protocol

from benchmarks.config.about import NEUTRAL, Look, look_of_family, read_look
from benchmarks.config.trial import ConfigurationError


class OfFamily(Protocol):
    """What is drawn: a run, or a curve of runs."""

    @property
    def family(self) -> str:
        """The name of the family."""

    @property
    def look(self) -> Mapping[str, Any]:
        """The look that the record says; empty where it does not."""


def family_look(family: str, recorded: Mapping[str, Any] | None = None) -> Look:
    """Return the look of a family: by its file, else as a record says, else the neutral one."""
    return _own_look(family, recorded) or NEUTRAL


def look_of(drawn: OfFamily) -> Look:
    """Return the look of a run or a curve."""
    return family_look(drawn.family, drawn.look)


def legend_key(drawn: OfFamily) -> str:
    """Return the family's name where it has a look of its own, else the empty one, which all others share."""
    return drawn.family if _own_look(drawn.family, drawn.look) else ""


def _own_look(family: str, recorded: Mapping[str, Any] | None) -> Look | None:
    try:
        return look_of_family(family) or read_look({"look": recorded or None})
    except ConfigurationError:  # a record is anyone's
        return None
