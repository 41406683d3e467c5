"""Checks of arguments and of image sizes that the networks share."""

from collections.abc import Sequence


def check_counts(**counts: object) -> None:
    """Raise ValueError unless every argument is an integer of at least 1."""
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_each(*kinds: type, **lists: object) -> None:
    """Raise ValueError unless every argument is a list of positive numbers of these kinds."""
    for name, values in lists.items():
        if not isinstance(values, Sequence) or not all(type(number) in kinds and number > 0 for number in values):
            whole = "" if float in kinds else "whole "
            raise ValueError(f"{name} must be a list of positive {whole}numbers, got {values!r}")


def check_reduction(height: int, width: int, reduction: int, what: str) -> None:
    """Raise ValueError for an image (in pixels) so small that the last map, reduced so often, would be less than a pixel."""
    if min(height, width) < reduction:
        raise ValueError(
            f"an image of {height}x{width} is too small: {what} {reduction} times, "
            f"so the smallest is {reduction}x{reduction}"
        )
