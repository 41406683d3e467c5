"""What may be built of a configuration that somebody else may have written: an allow list. Imports no torch.

Run folders and files of weights are passed on. Hydra calls whatever a ``_target_`` names, so reading one would run anything.
On one's own command line ``_target_`` is free.
"""

import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

# Networks, modules, metrics, schedules and data of this project, and classes of torch that only compute.
OWN = re.compile(
    r"lightning_modules\.(nets\.[A-Z]\w*|classifier\.Classifier|segmenter\.Segmenter|detector\.Detector"
    r"|metrics\.(scores|coco|components)\.[A-Z]\w*|schedules\.[a-z]\w*|from_timm\.lamb)"
    r"|datamodules\.(in_memory\.InMemoryDataModule|from_files\.ImageNetDataModule|objects\.ObjectDataModule"
    r"|sources\.\w+\.load_\w+)"
    r"|torch\.nn\.[A-Z]\w*|torch\.optim\.([A-Z]\w*|lr_scheduler\.[A-Z]\w*)",
    re.ASCII,
)
# Functions that make a network. Given a text, they also read files and the network, and timm unpickles.
FACTORIES = re.compile(
    r"torchvision\.models\.[a-z]\w*|timm\.create_model|lightning_modules\.from_timm\.timm_network", re.ASCII
)
MODEL_NAME = re.compile(r"[a-z0-9_.]+", re.ASCII)
TRUST_HELP = "also build what RUN names as mine.Network: code that you know; may be given several times"
BUILT = "networks and modules of this project, torch.nn, torchvision.models and timm"


def targets(node: Any) -> Iterator[str]:
    """Yield what a configuration names as ``_target_``, at any depth: of one's own command line, what it trusts."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from (value,) if key == "_target_" else targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from targets(value)


def check_targets(node: Any, path: Path, trusted: Collection[str] = ()) -> None:
    """Check that building ``node`` calls nothing but what is on the list, with plain values.

    Args:
        node: of the configuration in the file ``path``.
        trusted: further names, as ``mine.Network``, that the user of this command has given.

    Raises:
        ValueError: it would, or Python does not find a trusted name; the message names what.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, path, trusted)
        for key, value in node.items():
            check_targets(key, path, trusted)
            check_targets(value, path, trusted)
    elif isinstance(node, list | tuple):
        for value in node:
            check_targets(value, path, trusted)
    elif isinstance(node, str) and "${" in node:
        raise ValueError(f"{path} is not the resolved configuration of a run: it holds {node!r}")
    elif not isinstance(node, str | int | float | None):
        raise ValueError(f"{path} holds a {type(node).__name__}, which a run's configuration never does")


def _check_call(node: Mapping[str, Any], path: Path, trusted: Collection[str]) -> None:
    target = node["_target_"]
    if not isinstance(target, str):
        raise ValueError(f"{path}: _target_ is the name of a class, got {target!r}")
    if OWN.fullmatch(target):
        return
    if target in trusted:
        try:
            pkgutil.resolve_name(target)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path} names {target!r}, and Python finds no such code: {error}; --config-dir DIR or PYTHONPATH says where"
            ) from error
        return
    if not FACTORIES.fullmatch(target):
        raise ValueError(
            f"{path} names {target!r}, which is not run: of a file that somebody may have given you only {BUILT} are built; "
            f"if you know this code, predict, report verify and weights export build it with --trust {target}"
        )
    for key, value in node.items():
        plain = isinstance(value, int | float) and key != "pretrained"
        named = key in {"model_name", "net"} and isinstance(value, str) and MODEL_NAME.fullmatch(value)
        if not (plain or named or value in (None, False) or key == "_target_"):
            raise ValueError(f"{path}: {target} with {key}={value!r} is not run: it takes numbers alone from a run")
