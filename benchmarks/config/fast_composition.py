"""What has Hydra compose in about half of the time: a file is read once, by libyaml, an interpolation is parsed once, and a
node's metadata is copied without a look at each field."""

import copy
import os
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import _utils, base, basecontainer, grammar_parser

TEXTS = 4096  # interpolations whose parse trees are kept; they are only read


def speed_up() -> None:
    """Replace Hydra's reader of files, and OmegaConf's YAML loader, parser of interpolations and copies of metadata, by what
    gives the same."""
    if base.parse is not grammar_parser.parse:
        return  # done before
    base.parse = lru_cache(TEXTS)(grammar_parser.parse)
    base.Metadata.__deepcopy__ = _copied  # type: ignore[attr-defined]
    Plugins.instance()  # imports the sources anew and registers them
    files: Any = SourcesRegistry.instance().resolve("file")
    files.load_config = _read_once(files.load_config)
    if yaml.__with_libyaml__:
        # Its constructors and rules come before those of CSafeLoader's bases, and libyaml's parser before its own.
        loader = type("Loader", (yaml.CSafeLoader, _utils.get_yaml_loader()), {})
        _utils.get_yaml_loader = basecontainer.get_yaml_loader = lambda: loader


def _copied(metadata: base.Metadata, memo: dict[int, Any]) -> base.Metadata:
    """Return a copy. Types, keys and truths stay the objects that they are; flags and what resolvers keep are its own."""
    made = object.__new__(type(metadata))
    kept = copy.deepcopy(metadata.resolver_cache, memo) if metadata.resolver_cache else defaultdict(dict)
    made.__dict__.update(metadata.__dict__, flags=copy.copy(metadata.flags), resolver_cache=kept)
    return made


def _read_once(load: Callable[[ConfigSource, str], ConfigResult]) -> Callable[[ConfigSource, str], ConfigResult]:
    """Return what reads a file again only where it has changed. Hydra alters what it gets, so it gets copies."""
    read: dict[tuple[str, str, str], tuple[tuple[int, ...], ConfigResult]] = {}

    @wraps(load)
    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        try:
            state = os.stat(os.path.join(self.path, self._normalize_file_name(config_path)))
        except OSError:
            return load(self, config_path)  # which says what is wrong
        version = state.st_ino, state.st_mtime_ns, state.st_size
        key = self.provider, self.path, config_path
        if key not in read or read[key][0] != version:
            read[key] = version, load(self, config_path)
        return copy.deepcopy(read[key][1])

    return load_config
