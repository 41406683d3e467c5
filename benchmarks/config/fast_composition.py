"""What makes OmegaConf compose a quarter faster: YAML is read by libyaml, and an interpolation is parsed once."""

from functools import lru_cache

import yaml
from omegaconf import _utils, base, basecontainer, grammar_parser

TEXTS = 4096  # interpolations whose parse trees are kept; they are only read


def speed_up() -> None:
    """Replace OmegaConf's YAML loader and its parser of interpolations by what gives the same."""
    if base.parse is not grammar_parser.parse:
        return  # done before
    base.parse = lru_cache(TEXTS)(grammar_parser.parse)
    if yaml.__with_libyaml__:
        # Its constructors and rules come before those of CSafeLoader's bases, and libyaml's parser before its own.
        loader = type("Loader", (yaml.CSafeLoader, _utils.get_yaml_loader()), {})
        _utils.get_yaml_loader = basecontainer.get_yaml_loader = lambda: loader
