"""Published weights into the suite's networks, and back into the layout in which they are published.

``python -m benchmarks weights import|export``; ``run.py mode=test weights=FILE`` evaluates what was imported, or a run's
checkpoint.
"""

import argparse
import hashlib
import inspect
import io
import pickle
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from hydra.utils import get_object
from torch import Tensor, nn

from benchmarks.config.known_keys import NODE_KEYS
from benchmarks.config.trusted import OWN, check_targets
from benchmarks.records.files import (
    CHECKPOINTS,
    CONFIG,
    RECORD,
    read_bytes,
    read_config,
    read_json,
    weights_of_run,
    write_atomic,
)
from benchmarks.records.record import ImportedWeights
from benchmarks.training.checkpoints import check_archive, check_fits
from benchmarks.units import one_line

FORMAT = 1
KEPT = ("name", "network", "source", "state_dict")
# Of a network's arguments, those that do nothing in evaluation.
WITHOUT_EFFECT = {"dropout"}


@dataclass(frozen=True)
class Weights:
    """Weights with what their network is and where they come from, as plain types and tensors.

    Attributes:
        name: of the network, as its publisher or the run calls it.
        network: `_target_` and arguments.
        source: `layout`, `file` (its name) and `sha256` of what was imported.
        state_dict: the network's own.
        path, sha256: the file that ``read`` has read, and its checksum.
        dataset: of a run's checkpoint, what the run's record says of the data that it was trained on.
    """

    name: str
    network: dict[str, Any]
    source: dict[str, str]
    state_dict: dict[str, Tensor]
    path: Path | None = None
    sha256: str | None = None
    dataset: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, trusted: Collection[str] = ()) -> Self:
        """What ``write`` wrote, or a checkpoint in a run's folder; it may name the ``trusted`` networks beside those of
        ``check_targets``. Raises ValueError or OSError where the file is something else, damaged or missing."""
        content, digest = load_file(path)
        run = path.parent.parent
        if path.parent.name == CHECKPOINTS and (run / CONFIG).is_file():
            config = read_config(run, {"name": str, "module.net": dict, "module.net._target_": str})
            check_targets(config["module"]["net"], run / CONFIG, trusted)
            weights = _of_checkpoint(content, path).items()
            state_dict = {key.removeprefix("net."): tensor for key, tensor in weights if key.startswith("net.")}
            source = {"layout": "run", "file": str(path), "sha256": digest}
            dataset = (read_json(run / RECORD) or {}).get("dataset")
            known = dataset if isinstance(dataset, dict) else {}
            return cls(config["name"], config["module"]["net"], source, state_dict, path, digest, known)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(
                f"{path} was not written by `python -m benchmarks weights import`, nor is it a checkpoint in a run's folder: "
                "import it first"
            )
        for key, kind in {"name": str, "network": dict, "source": dict, "state_dict": dict}.items():
            if not isinstance(content.get(key), kind):
                raise ValueError(f"{path} is damaged or of another version: {key} must be a {kind.__name__}")
        check_targets(content["network"], path, trusted)
        return cls(**{key: content[key] for key in KEPT}, path=path, sha256=digest)

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        save_file({"format": FORMAT, **{key: getattr(self, key) for key in KEPT}}, path)

    @property
    def origin(self) -> ImportedWeights:
        """The file of the weights, and the published file that they were made of."""
        return ImportedWeights(
            file=str(self.path),
            sha256=self.sha256,
            source=self.source["layout"],
            source_file=self.source["file"],
            source_sha256=self.source["sha256"],
        )

    def check_network(self, network: Mapping[str, Any]) -> None:
        """Raises ValueError, naming what differs, if ``network`` (`_target_` and arguments) is another than the weights'. In
        the suite's own networks None stands for what follows from other arguments, and is no difference."""
        there, here = network_arguments(self.network), network_arguments(network)
        follows = (None,) if OWN.fullmatch(network["_target_"]) else ()
        differing = [
            f"{key} is {there[key]!r} there, {here[key]!r} here"
            for key in there.keys() & here.keys()
            if key not in WITHOUT_EFFECT and there[key] != here[key]
            if there[key] not in follows and here[key] not in follows
        ]
        if there["network"] != here["network"]:
            differing = [f"a {there['network']}, and this is a {here['network']}"]
        if differing:
            raise ValueError(f"{self.path} holds another network, {self.name}: {'; '.join(sorted(differing))}")

    def statistics(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the mean and std by which images were standardised in training, for a configuration of ``data`` that leaves
        them to the data; empty where it does not, or they are not known."""
        known = {name: self.dataset.get(name) for name in ("mean", "std")}
        return known if all(known.values()) and all(data.get(name) is None for name in known) else {}

    def check_classes(self, classes: Sequence[str]) -> str | None:
        """Return a note where the classes of the data have other names than those of training. Raises ValueError where a class
        of both has another number: what the network says of it would be counted as another class."""
        trained = list(self.dataset.get("classes") or classes)
        if trained == list(classes):
            return None
        differing = f"{_shortened(trained)} in training, {_shortened(classes)} in these data"
        for number, name in enumerate(classes):
            if name in trained and trained[number : number + 1] != [name]:
                raise ValueError(
                    f"{self.path} is of other classes: {differing}; {name} is number {trained.index(name)} there, {number} here"
                )
        return f"classes are matched by their numbers, as their names differ: {differing}"

    def load_into(self, net: nn.Module) -> None:
        """Gives ``net`` these weights. Raises ValueError naming the first that does not fit."""
        check_fits(Path(str(self.path)), self.state_dict, net)
        net.load_state_dict(self.state_dict)


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def class_of(network: Mapping[str, Any]) -> str:
    return network["_target_"].rpartition(".")[2]


def network_arguments(network: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a network, with the defaults of its class or function, and that itself as ``network``. Raises ValueError
    where there is none such, or it has no such arguments."""
    arguments = {key: value for key, value in network.items() if key not in NODE_KEYS}
    try:
        bound = inspect.signature(get_object(network["_target_"])).bind(**arguments)
    except (KeyError, TypeError, ImportError) as error:
        raise ValueError(f"no network can be built of {dict(network)}: {one_line(str(error))}") from error
    bound.apply_defaults()
    return {"network": class_of(network), **bound.arguments}


class _Arrays(pickle.Unpickler):
    """Reads a pickle of numpy's arrays and plain types, as detectron2 publishes weights."""

    ALLOWED = {
        **{
            f"{module}.multiarray._reconstruct": np.empty(0).__reduce__()[0] for module in ("numpy.core", "numpy._core")
        },
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (function := self.ALLOWED.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return function


def _as_tensors(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _as_tensors(value) for key, value in node.items()}
    return torch.from_numpy(node.copy()) if isinstance(node, np.ndarray) else node


def load_file(path: Path) -> tuple[Any, str]:
    """Tensors and plain types from a file, of a ``.pkl`` its arrays as tensors, without running code, and its SHA-256. Raises
    OSError where it cannot be read, ValueError where it holds code, no weights, or is damaged."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise type(error)(f"cannot read {path}: {weights_of_run(path) or error.strerror}") from error
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            check_archive(io.BytesIO(content))
        if path.suffix == ".pkl":
            loaded = _as_tensors(_Arrays(io.BytesIO(content), encoding="latin1").load())
        else:
            # Training scripts save their arguments so: attributes alone, which nothing here reads.
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of damage: whatever the readers trip over
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise ValueError(
                f"{path} holds code, {code[1]}, which is not run: save the network's state_dict() instead"
            ) from error
        cause = "not written by torch.save" if isinstance(error, pickle.UnpicklingError) else str(error).split(". ")[0]
        raise ValueError(f"{path} is damaged or holds no weights ({cause or type(error).__name__})") from error
    return loaded, hashlib.sha256(content).hexdigest()


def checkpoint_weights(path: Path, module: nn.Module | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict of a run's checkpoint and the file's SHA-256. Raises ValueError or OSError where it is damaged or missing,
    is no checkpoint, or is not of ``module``."""
    content, digest = load_file(path)
    state_dict = _of_checkpoint(content, path)
    if module is not None:
        check_fits(path, state_dict, module)
    return state_dict, digest


def _of_checkpoint(content: Any, path: Path) -> dict[str, Tensor]:
    state_dict = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise ValueError(f"{path} is no checkpoint of a run: it has no state_dict of tensors")
    return state_dict


def save_file(content: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    torch.save(content, file)
    write_atomic(path, file.getbuffer())
