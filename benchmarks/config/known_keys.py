"""Which keys of a configuration something reads: the table's, those that others refer to, and arguments of a target."""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

from benchmarks.config.folders import choices, read_option
from benchmarks.config.schema import CLOSED, KEYS, MIRRORS
from benchmarks.config.trial import ConfigurationError, flatten
from benchmarks.units import nearest

# Made of the groups, for the code: no override reaches them, see `overrides.py`.
DERIVED = ("module", "datamodule", "loading", "task", "family", "defaulted", "rows", "paper")
ELSEWHERE = ("experiment", "row", "about")  # checked where they are read
NODE_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
OF_OPTIONS = ("cluster", "data", "trainer")  # groups of which an option has keys that no other one has a use for
NAMES = re.compile(r"[a-z_]\w*(?:\.\w+)*")


def references(written: Mapping[str, Any]) -> set[str]:
    """Return the dotted keys that the interpolations of an unresolved configuration name."""
    texts = [value for _, value in leaves(written) if isinstance(value, str) and "${" in value]
    return {name for text in texts for name in NAMES.findall(text)}


def check_keys(
    config: Mapping[str, Any],
    named: Collection[str],
    of_others: Collection[str],
    of_files: Mapping[str, Any],
    chosen: Mapping[str, str],
) -> None:
    """Check that something reads every key of a resolved configuration.

    Args:
        named: keys that its interpolations name.
        of_others: those that only another task's module or another way of loading names.
        of_files: the configuration that the files alone make. An argument of a target that stands in it with that target is
            the file's to answer for, and the target is not imported for it.
        chosen: the option of each group.

    Raises:
        ConfigurationError: nothing reads one of them; the message names the nearest that is read.
    """
    known = flatten(of_files)
    for key in flatten(config):
        if line := of_wandb(key, config):
            raise ConfigurationError(line)
        target = _target_above(key, config)
        if target and key in known and not key.startswith(CLOSED):
            if known.get(f"{target}._target_") != _node(config, target)["_target_"]:
                _check_left_over(target, config)
            continue
        if key not in known and any(f"{key}.".startswith(f"{other}.") for other in of_others):
            raise ConfigurationError(f"nothing reads {key} in {config['data']['task']}")
        if key not in known and key not in named and (line := of_other_options(key, chosen)):
            raise ConfigurationError(line)
        if not is_read(key, config, named):
            raise ConfigurationError(f"nothing reads {key}{instead(key, config)}")


def _check_left_over(target: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a node whose ``_target_`` is not its file's has arguments of the file's alone."""
    node = _node(config, target)
    takes = _arguments(node["_target_"])
    left_over = [] if takes is None else [name for name in node if name not in (*NODE_KEYS, *takes)]
    if left_over:
        leave_out = " ".join(f"'~{target}.{name}'" for name in left_over)
        of_target = node["_target_"].rpartition(".")[2]
        raise ConfigurationError(
            f"{of_target} takes no {', '.join(left_over)}; leave out what its file sets: {leave_out}"
        )


def of_other_options(key: str, chosen: Mapping[str, str]) -> str:
    """Return what to say of a key that other options of its group have and the chosen one has not; empty of any other key."""
    group, _, name = key.partition(".")
    if group not in OF_OPTIONS or key not in KEYS or group not in chosen:
        return ""
    options = [option for option in choices(group) if name in read_option(group, option)]
    if not options or chosen[group] in options:
        return ""
    return f"nothing reads {key} with {group}={chosen[group]}; it is a key of {group}={', '.join(options)}"


def of_wandb(key: str, config: Mapping[str, Any]) -> str:
    """Return what to say of a key of W&B's where that is not among the loggers; empty of any other key, and of no mode."""
    group, _, name = key.partition(".")
    if group != "logger" or "." in name or key not in KEYS or "_target_" in config[group]:
        return ""
    if (name, config[group].get(name)) == ("mode", "none"):
        return ""
    of_mirror = any(f"{group}.{mirror}.{name}" in KEYS for mirror in MIRRORS)
    hint = f"; of another mirror it is {group}.NAME.{name}" if of_mirror else ""
    return f"{key} is a key of W&B's: logger=wandb{hint}"


def is_read(key: str, config: Mapping[str, Any], named: Iterable[str]) -> bool:
    """Tell whether something reads ``key``, which may be one that the configuration does not have yet."""
    names = key.split(".")
    above = [".".join(names[:count]) for count in range(1, len(names))]
    target = _target_above(key, config)
    if names[0] in (*DERIVED, *ELSEWHERE) or any(known == key or known.startswith(f"{key}.") for known in KEYS):
        return True
    if any(place in KEYS and len(place) > len(target) for place in above):
        return True
    if key.startswith(CLOSED):
        return False
    # What refers to a target's whole node hands it on to be built.
    if any(f"{key}.".startswith(f"{name}.") and len(name) > len(target) for name in named):
        return True
    if not target:
        return False
    argument = key.removeprefix(f"{target}.").split(".")[0]
    takes = _arguments(_node(config, target)["_target_"])
    return argument in NODE_KEYS or takes is None or argument in takes


def instead(key: str, config: Mapping[str, Any]) -> str:
    """Return what to write in the place of a key that nothing reads."""
    block, _, word = key.rpartition(".")
    target = _target_above(key, config)
    if target and not key.startswith(CLOSED):
        of_target = _node(config, target)["_target_"]
        known = sorted(_arguments(of_target) or ())
        return f"{nearest(word, known)}; {of_target.rpartition('.')[2]} takes {', '.join(known)}"
    beside = [name for name in (*KEYS, *flatten(config)) if name.split(".")[0] not in DERIVED]
    close = nearest(key, [name for name in beside if name != key])
    siblings = dict.fromkeys(
        name.removeprefix(f"{block}.").split(".")[0] for name in beside if name.startswith(f"{block}.")
    )
    listed = ", ".join(name for name in siblings if name not in (*NODE_KEYS, word))
    return close or (f"; {block} has {listed}" if listed else "")


def _target_above(key: str, config: Mapping[str, Any]) -> str:
    """Return the innermost node with a ``_target_`` that a key lies in; empty where there is none."""
    names = key.split(".")
    for count in range(len(names) - 1, 0, -1):
        node = _node(config, ".".join(names[:count]))
        if isinstance(node, Mapping) and isinstance(node.get("_target_"), str):
            return ".".join(names[:count])
    return ""


def _node(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _arguments(target: str) -> list[str] | None:
    """Return the arguments that a target takes; None where it takes any, or cannot be imported, as is said when it is built."""
    try:
        parameters = inspect.signature(resolve_name(target)).parameters.values()
    except Exception:  # of the module's own code: of any class
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values, each with the last key on the way to it."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from leaves(child, str(name))
    elif isinstance(node, list):
        for child in node:
            yield from leaves(child, key)
    else:
        yield key, node
