"""The folders that hold configurations: ``conf/``, and those that ``--config-dir`` adds. Imports no Hydra."""

import argparse
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import yaml

from benchmarks.config.trial import CONF, ConfigurationError

GROUPS = tuple(sorted(path.name for path in CONF.iterdir() if path.is_dir()))
_added: list[Path] = []


def add_config_dir_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command take ``--config-dir``."""
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        help="a folder of your own configurations, laid out as conf/; their Python files lie in it too, or on PYTHONPATH",
    )


def add_config_dir(folder: str | None) -> None:
    """Take configurations from ``folder`` too, and let Python find the modules in it, here and in processes that are started.
    Raises ConfigurationError where it is no folder of configurations, or one of its files would never be read."""
    if folder is None:
        return
    path = Path(folder).resolve()
    if not path.is_dir():
        raise ConfigurationError(f"--config-dir {folder}: there is no such folder")
    if path in _added:
        return
    own = [file.relative_to(path) for group in GROUPS for file in sorted((path / group).rglob("*.yaml"))]
    if not own:
        raise ConfigurationError(f"--config-dir {folder}: no configuration in it, as model/NAME.yaml or data/NAME.yaml")
    for file in own:
        if (CONF / file).exists():
            raise ConfigurationError(f"--config-dir {folder}: conf/{file} is there already; give {file} another name")
    for module in sorted(path.glob("*.py")):
        if module.stem in sys.stdlib_module_names:
            raise ConfigurationError(
                f"--config-dir {folder}: {module.name} would hide Python's own; give it another name"
            )
        # In processes that are started, PYTHONPATH comes before what is installed.
        spec = PathFinder.find_spec(module.stem) if module.stem.isidentifier() else None
        if spec and spec.origin and {"site-packages", "dist-packages"} & {*Path(spec.origin).parts}:
            raise ConfigurationError(
                f"--config-dir {folder}: {module.name} would hide the installed {module.stem}; give it another name"
            )
    _added.append(path)
    sys.path.append(str(path))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(path))))


def added_folders() -> tuple[Path, ...]:
    """Return the folders of ``--config-dir``."""
    return tuple(_added)


def choices(group: str) -> list[str]:
    """Return the options of a configuration group, from all folders."""
    return sorted({path.stem for folder in (CONF, *_added) for path in (folder / group).glob("*.yaml")})


def state_of_files() -> frozenset[tuple[str, int, int]]:
    """Return the path, time of change in ns and size of every configuration in all folders: what compositions depend on."""
    files = [str(CONF / "config.yaml")]
    for group in (folder / group for folder in (CONF, *_added) for group in GROUPS):
        files += [os.path.join(at, name) for at, _, names in os.walk(group) for name in names if name.endswith(".yaml")]
    states = ((path, os.stat(path)) for path in files if os.path.exists(path))  # a link may lead nowhere
    return frozenset((path, state.st_mtime_ns, state.st_size) for path, state in states)


def read_option(group: str, option: str) -> Mapping[str, Any]:
    """Return what the file of an option holds, and the files that it begins with; empty where there is no such file, or no
    mapping in it."""
    return _read((CONF, *_added), group, option)


@cache
def _read(folders: tuple[Path, ...], group: str, option: str) -> dict[str, Any]:
    paths = (folder / group / f"{option}.yaml" for folder in folders)
    path = next((path for path in paths if path.is_file()), None)
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
    if not isinstance(content, dict):
        return {}
    below = (name for name in content.get("defaults", ()) if isinstance(name, str) and name != "_self_")
    return {key: value for name in below for key, value in _read(folders, group, name).items()} | content
