"""Which code made a run: the hashes of what its numbers depend on. Imports no torch."""

import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from benchmarks.records.files import sha256_of

ROOT = Path(__file__).resolve().parents[2]  # the checkout, or where packages are installed
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()
TRAINING = (
    "lightning_modules/**/*.py",
    "datamodules/**/*.py",
    "benchmarks/training/*.py",
    "benchmarks/training/*.csv",
    "benchmarks/complexity/by_*.py",
    "benchmarks/complexity/cost.py",
    "benchmarks/complexity/counting.py",
    "benchmarks/complexity/operator*.py",
)
OURS = {"lightning_modules", "datamodules", "benchmarks"}
_remembered: dict[str, dict[str, str]] = {}  # of the user's modules
LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@lru_cache
def training_sha256() -> str:
    """SHA-256 over names and contents of the source files that train and test; launching and reports are not among them."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in TRAINING for path in ROOT.glob(pattern)}):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def remember(modules: Iterable[str]) -> None:
    """Hash the code that trains and the user's own of ``modules`` now: this process and its forks name that code from here on,
    whatever becomes of the files."""
    training_sha256()
    for module in modules:
        folder = _folder_of_user_code(module.partition(".")[0])
        if folder is not None:
            _remembered[module] = _hashes(module, folder)


def user_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Return name and SHA-256 of each source file of the user's own that a configuration trains with; empty without any.

    These are the modules that the network, the data and the recipe name by ``_target_`` and what those import from beside
    them; not what is installed, whose version is in the record.
    """
    hashes: dict[str, str] = {}
    for module in dict.fromkeys(
        target.rpartition(".")[0] for target in targets([config["module"], config["datamodule"]])
    ):
        folder = _folder_of_user_code(module.partition(".")[0])
        if folder is not None:
            hashes |= _hashes(module, folder)
    return dict(sorted(hashes.items()))


def made_by_other_code(record: Mapping[str, Any]) -> bool:
    """Whether a run was made by other training code than this; not where no rank came as far as to write the code's hash.

    Of the user's own files those count that Python finds here.
    """
    code = record.get("code") or {}
    if not isinstance(code, dict) or not code:
        return False
    if code.get("training_sha256") != training_sha256():
        return True
    own = code.get("user_code")
    for name, sha256 in own.items() if isinstance(own, dict) else ():
        if not Path(name).parts or ".." in Path(name).parts or Path(name).is_absolute():
            return True  # no run writes such a name
        folder = _folder_of_user_code(Path(name).parts[0].removesuffix(".py"))
        if folder is not None and (not (folder / name).is_file() or sha256_of(folder / name) != sha256):
            return True
    return False


def targets(node: Any) -> Iterator[str]:
    """Yield what is named by ``_target_`` anywhere in a configuration."""
    if isinstance(node, Mapping):
        if isinstance(target := node.get("_target_"), str):
            yield target
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from targets(item)


def _folder_of_user_code(package: str) -> Path | None:
    """Return the folder that holds a module or package of the user's own; None for any other, or where there is none."""
    if package in OURS or _is_installed(package):
        return None
    place = _place(package)
    return place.parent if place is not None and place.exists() else None


@lru_cache  # what is installed stays; finding it takes long for each trial of a sweep
def _is_installed(package: str) -> bool:
    place = _place(package)
    return place is not None and any(map(place.is_relative_to, LIBRARIES))


def _place(package: str) -> Path | None:
    """Return the folder of a package or the file of a module; None where Python finds none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else [None]
    return None if places[0] is None else Path(places[0]).resolve()


def _hashes(module: str, folder: Path) -> dict[str, str]:
    """Return name and SHA-256 of the files of a module and of all that it imports from its folder."""
    finder = ModuleFinder(path=[str(folder)])
    while module:
        if module in _remembered:
            return _remembered[module]
        try:
            finder.import_hook(module)
            break
        except AttributeError:  # a package without __init__.py, which the finder does not know
            parts = module.split(".")
            files = (folder.joinpath(*parts[:count]).with_suffix(".py") for count in range(len(parts), 0, -1))
            return _hashed([file for file in files if file.is_file()][:1], folder)
        except (ImportError, SyntaxError):  # a class within a class, or a file with which no run comes to its end
            module = module.rpartition(".")[0]
    paths = (getattr(one, "__file__", None) for one in finder.modules.values())
    return _hashed(sorted(Path(path) for path in paths if path), folder)


def _hashed(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in paths}
