"""Modules that Lightning and torchmetrics ask for and most runs do not need, loaded when something uses them."""

import functools
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

_LOADING = threading.RLock()


class Deferred(ModuleType):
    """A package that is loaded when something is asked of it that its class does not have."""

    _is_loading = False

    def __getattr__(self, name: str) -> Any:
        self._load()
        return super().__getattribute__(name)

    def _load(self) -> None:
        with _LOADING:
            if not self._is_loading and self.__spec__ and self.__spec__.loader:
                self._is_loading = True  # it asks itself for names that are not there yet
                self.__spec__.loader.exec_module(self)


class Signal(Deferred):
    """``scipy.signal``. torchmetrics sees whether it has ``hamming`` and sets that where not, for a package not used here."""

    hamming: Any = None

    def _load(self) -> None:
        super()._load()
        if windows := vars(self).get("windows"):
            self.hamming = windows.hamming  # as torchmetrics would have set it


class _Compiled(type):
    """The class of the modules that ``torch.compile`` has made, of which there is none before the compiler is loaded."""

    def __instancecheck__(cls, instance: Any) -> bool:
        compiler = sys.modules.get("torch._dynamo.eval_frame")
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


class Dynamo(Deferred):
    """``torch._dynamo``, the compiler. Lightning asks it for the class of what it has compiled, and has it mark functions that
    are not to be compiled, as torch does; an optimiser's step tells it where compiled code ends."""

    OptimizedModule = _Compiled("OptimizedModule", (), {})

    def graph_break(self, message: str = "") -> None:
        """Do what it does where nothing is being compiled."""

    def disable(self, function: Any = None, recursive: bool = True, **options: Any) -> Any:
        """Return the function with a mark, which it gets when it is called with the compiler loaded."""
        if "disable" in vars(self) or not isinstance(function, FunctionType):
            self._load()
            return vars(self)["disable"](function, recursive, **options)
        marked: Callable[..., Any] | None = None

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal marked
            if marked is None and "disable" in vars(self):
                marked = vars(self)["disable"](function, recursive, **options)
            return (marked or function)(*args, **kwargs)

        return call


class _BeforeItsModules(MetaPathFinder, Loader):
    """Has a deferred package loaded before the import of a module below it, which may be loaded with it."""

    def __init__(self) -> None:
        self._own: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = sys.modules.get(name.rpartition(".")[0])
        if not isinstance(package, Deferred) or package._is_loading:
            return None
        package._load()
        if (module := sys.modules.get(name)) is None:
            return None
        # Else importlib would load it a second time, by the specification that it finds in the module.
        self._own[name] = vars(module).pop("__spec__", None)
        spec = vars(module)["__spec__"] = ModuleSpec(name, self)
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__spec__"] = self._own.pop(module.__name__)


def defer() -> None:
    """Have these modules loaded when they are used, where they are there and not yet loaded. Imports nothing.

    They take 2.8 of the 6.5 s of processor time that importing all of a run takes, and 115 of its 392 MB (medians of five, an
    AMD EPYC with AVX2, torch 2.13.0, SciPy 1.17.1).
    """
    sys.meta_path.insert(0, _BeforeItsModules())
    for name, kind in (("scipy.signal", Signal), ("torch._dynamo", Dynamo)):
        package = importlib.util.find_spec(name.partition(".")[0])
        spec = package and PathFinder.find_spec(name, package.submodule_search_locations)
        if spec and name not in sys.modules:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = kind
            sys.modules[name] = module
