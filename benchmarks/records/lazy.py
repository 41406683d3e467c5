"""NumPy, SciPy's special functions and torch, imported when they are first used: records are read in under a second."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Lazy:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        if self._module is None:  # import_module takes 10 us where the module is there
            self._module = importlib.import_module(self._name)
        return getattr(self._module, attribute)


if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy import special
else:
    np, special, torch = Lazy("numpy"), Lazy("scipy.special"), Lazy("torch")

__all__ = ["np", "special", "torch"]
