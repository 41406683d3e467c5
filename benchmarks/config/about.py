"""What a model's YAML says about its family under ``about``: its look in figures, and what ``complexity match`` varies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.config.folders import added_folders, read_option
from benchmarks.config.trial import ConfigurationError

# Plotly's names, each with the character that stands for it in the terminal; `report/templates/macros.html` draws them.
MARKERS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "triangle-down": "▼",
    "pentagon": "⬟",
    "star": "★",
    "cross": "✚",
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
EXAMPLE = 'look: {colour: "#0072B2", marker: circle, dash: solid}'


@dataclass(frozen=True)
class Look:
    """How a family is drawn in every table and figure: colour ``#RRGGBB``, plotly's marker and dash."""

    colour: str
    marker: str
    dash: str

    @property
    def glyph(self) -> str:
        """The marker in a terminal."""
        return MARKERS[self.marker]


# Without a look of its own.
NEUTRAL = Look("#808080", "cross", "longdash")


@dataclass(frozen=True)
class Second:
    """A second argument that ``complexity match`` moves where the width alone does not come near enough.

    Attributes:
        argument: its name.
        step: between its values.
        least: its least value.
        where: arguments of the network by which this one applies.
    """

    argument: str
    step: int = 1
    least: int = 1
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Matching:
    """What ``complexity match`` varies: the argument ``width`` makes the network wider; of the candidates for a ``second``
    argument the first applies that fits the network."""

    width: str
    second: tuple[Second, ...] = ()


def look_of_family(family: str) -> Look | None:
    """Return the look that the family's file says; None where there is no such file, or none in it."""
    return _look_in(added_folders(), family)


@cache
def _look_in(added: tuple[Path, ...], family: str) -> Look | None:
    """Return the look of a family as long as these are the folders that were added."""
    return read_look(read_option("model", family).get("about") or {})


def read_look(about: Mapping[str, Any]) -> Look | None:
    """Return the look of an ``about`` block, None without one. Raises ConfigurationError for one that cannot be drawn."""
    look = about.get("look")
    if look is None:
        return None
    if not isinstance(look, Mapping) or set(look) != {"colour", "marker", "dash"}:
        raise ConfigurationError(f"about.look has a colour, a marker and a dash, as {EXAMPLE}; got {look!r}")
    if not re.fullmatch("#[0-9A-Fa-f]{6}", str(look["colour"])):
        raise ConfigurationError(f'about.look.colour is as "#0072B2", in quotes, got {look["colour"]!r}')
    for key, known in (("marker", tuple(MARKERS)), ("dash", DASHES)):
        if look[key] not in known:
            raise ConfigurationError(f"about.look.{key} is one of {', '.join(known)}, got {look[key]!r}")
    return Look(**look)


def read_matching(about: Mapping[str, Any]) -> Matching | None:
    """Return what ``complexity match`` varies, None where the ``about`` block does not say it. Raises ConfigurationError for a
    key that is none of its."""
    match = about.get("match")
    if match is None:
        return None
    try:
        second = tuple(Second(**one) for one in match.get("second", ()))
        return Matching(**{**match, "second": second})
    except (TypeError, AttributeError) as error:
        raise ConfigurationError(f"about.match is as {{width: base_channels}}, got {match!r}") from error


def check_about(config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a configuration whose ``about`` block cannot be read."""
    about = config.get("about") or {}
    if not isinstance(about, Mapping) or not set(about) <= {"look", "match"}:
        raise ConfigurationError(f"about has a look and a match, got {about!r}")
    read_look(about)
    read_matching(about)
