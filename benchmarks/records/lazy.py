"""NumPy, SciPy's special functions and torch, imported when they are first used: records are read in under a second."""

import importlib
import importlib.util
import sys
import threading
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

_LOADING = threading.RLock()


class Lazy:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        if self._module is None:  # import_module takes 10 us where the module is there
            self._module = importlib.import_module(self._name)
        return getattr(self._module, attribute)


class Deferred(ModuleType):
    """``scipy.signal``, loaded when something is asked of it that is not ``hamming``."""

    hamming: Any = None

    def __getattr__(self, name: str) -> Any:
        with _LOADING:
            if self.hamming is None:
                self.hamming = False  # while it is loaded, which asks for names that are not there yet
                self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
                self.hamming = self.windows.hamming  # as torchmetrics would have set it
        return super().__getattribute__(name)


def defer_scipy_signal() -> None:
    """Have ``scipy.signal`` loaded when it is used. Imports nothing.

    torchmetrics imports it to see whether it has ``hamming``, and sets that where not, for a package that is not used here. It
    takes 0.8 of the 4.3 s of processor time that importing ``benchmarks.training`` takes (AMD EPYC, SciPy 1.17.1).
    """
    scipy = importlib.util.find_spec("scipy")
    spec = scipy and PathFinder.find_spec("scipy.signal", scipy.submodule_search_locations)
    if spec and spec.name not in sys.modules:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = Deferred
        sys.modules[spec.name] = module


if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy import special
else:
    np, special, torch = Lazy("numpy"), Lazy("scipy.special"), Lazy("torch")

__all__ = ["defer_scipy_signal", "np", "special", "torch"]
