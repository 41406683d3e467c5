"""``python -m benchmarks COMMAND`` in the process of a test."""

from collections.abc import Callable, Sequence

from benchmarks.__main__ import main


def command(name: str) -> Callable[[Sequence[str]], int]:
    """Return what runs the command of that name with arguments, and returns its exit code."""
    return lambda arguments: main([*name.split(), *arguments])
