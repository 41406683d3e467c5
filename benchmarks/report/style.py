"""How a family of networks looks in every table and figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyStyle:
    """How a family of networks is drawn: colour, plotly marker symbol, plotly line dash, terminal glyph."""

    colour: str
    symbol: str
    dash: str
    glyph: str


# Okabe & Ito, "Color Universal Design", 2008: told apart with every common colour vision deficiency; marker and dash
# say the same again, so that colour is never the only cue.
FAMILY_STYLES = {
    "resnet": FamilyStyle("#0072B2", "circle", "solid", "●"),
    "resnext": FamilyStyle("#D55E00", "square", "dash", "■"),
    "densenet": FamilyStyle("#009E73", "diamond", "dot", "◆"),
    "unet": FamilyStyle("#CC79A7", "triangle-up", "dashdot", "▲"),
}
OTHER_FAMILY = FamilyStyle("#808080", "cross", "longdash", "✚")


def family_style(family: str) -> FamilyStyle:
    """Return the style of a family; one without its own gets the neutral one."""
    return FAMILY_STYLES.get(family, OTHER_FAMILY)


def drawn_family(family: str) -> str:
    """Return the family's name where it has a style of its own, else the empty one, which all others share."""
    return family if family in FAMILY_STYLES else ""
