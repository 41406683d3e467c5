"""What was counted or measured before, in a file."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.config.hydra_errors import unwrapped
from benchmarks.records.files import read_json, write_json
from benchmarks.units import as_key


class Results:
    """Results by what they depend on; each is written at once, so that an interrupted command goes on where it was.

    Args:
        path: the file.
        conditions: what all of them depend on, as the code and the machine.
    """

    def __init__(self, path: Path, conditions: Any = None) -> None:
        self.path = path
        self._conditions = conditions
        self._content = read_json(path) or {}
        self._failed: dict[str, str] = {}

    def find(self, depends_on: Any) -> dict[str, Any] | None:
        """Return a result, or None where there is none."""
        return self._content.get(self._key(depends_on))

    def get(self, depends_on: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a result, or make it now and write it.

        Raises:
            ValueError: it cannot be made, with the reason in one line; it is tried once.
        """
        key = self._key(depends_on)
        if key in self._failed:
            raise ValueError(self._failed[key])
        if key not in self._content:
            try:
                self._content[key] = make()
            except Exception as error:
                self._failed[key] = _reason(error)
                raise ValueError(self._failed[key]) from error
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, (read_json(self.path) or {}) | self._content)
        return self._content[key]

    def _key(self, depends_on: Any) -> str:
        text = as_key([self._conditions, depends_on])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _reason(error: BaseException) -> str:
    """Return the cause in one line, without Hydra's wrapping."""
    lines = str(error := unwrapped(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
