"""torchvision's layouts of weights into our networks and back: names, shapes, files."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.config.folders import read_option
from benchmarks.config.trusted import TRUST_HELP
from benchmarks.records.files import checkpoint_of
from benchmarks.training.torchvision_names import modern_name, torchvision_name
from benchmarks.units import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.training.weights import Weights

FOLDER = Path("weights")
# What all of torchvision's networks of a class have in common, as arguments of ours.
FIXED: dict[str, dict[str, Any]] = {
    "ResNet": {"stem": "imagenet", "shortcut": "B", "stride_in": "3x3", "base_channels": 64, "in_channels": 3},
    "DenseNet": {"stem": "imagenet", "bottleneck": True, "compression": 0.5, "in_channels": 3},
}
# torchvision's name: our model, and what tells it from the others (torchvision/models/resnet.py, densenet.py).
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet", {"depth": 18, "block": "basic", "stride_in": "3x3"}),
    "resnet34": ("resnet", {"depth": 34, "block": "basic", "stride_in": "3x3"}),
    "resnet50": ("resnet", {"depth": 50, "block": "bottleneck", "stride_in": "3x3"}),
    "resnet101": ("resnet", {"depth": 101, "block": "bottleneck", "stride_in": "3x3"}),
    "resnet152": ("resnet", {"depth": 152, "block": "bottleneck", "stride_in": "3x3"}),
    "resnext50_32x4d": ("resnext", {"depth": 50, "cardinality": 32, "base_width": 4}),
    "resnext101_32x8d": ("resnext", {"depth": 101, "cardinality": 32, "base_width": 8}),
    "resnext101_64x4d": ("resnext", {"depth": 101, "cardinality": 64, "base_width": 4}),
    "densenet121": ("densenet", {"depth": 121, "growth_rate": 32}),
    "densenet161": ("densenet", {"depth": 161, "growth_rate": 48}),
    "densenet169": ("densenet", {"depth": 169, "growth_rate": 32}),
    "densenet201": ("densenet", {"depth": 201, "growth_rate": 32}),
}
IMAGENET_CLASSES = 1000
# Where training scripts put the network's weights: PyTorch Lightning and timm; torchvision's references; both with averages.
KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
# What DistributedDataParallel, AveragedModel and torch.compile put before every name.
PREFIXES = ("module.", "_orig_mod.")
# Of torch.optim.swa_utils.AveragedModel, beside the weights.
COUNTERS = {"n_averaged"}


def recognise(file_name: str, known: Iterable[str] = ARCHITECTURES) -> str | None:
    """The architecture in the name of a published file, as in ``resnext50_32x4d-7cdf4587.pth``."""
    names = [name for name in known if re.match(rf"{name}(?![a-zA-Z0-9])", file_name)]
    return max(names, key=len, default=None)


def from_published(path: Path, name: str, layout: str = "torchvision") -> Weights:
    """The weights of a file that holds a state dict of the network ``name`` as ``layout`` has it, of any number of classes.
    Raises ValueError or FileNotFoundError where it holds something else, is damaged or missing."""
    import torch
    from hydra.utils import instantiate

    from benchmarks.training import published_detectors
    from benchmarks.training.weights import Weights, class_of, load_file

    content, digest = load_file(path)
    published = re.fullmatch(r".*-([0-9a-f]{8})\.pth", path.name)  # torch.hub checks the same
    if published and not digest.startswith(published[1]):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins with {digest[:8]}, its name says {published[1]}; if that is a date or the "
            "like, rename the file"
        )
    weights, unwrapping = unwrapped(content, path)
    if name in ARCHITECTURES:
        present = {modern_name(key): tensor for key, tensor in weights.items()}
        network = _network(name, present)
        published_name: Callable[[str, str], str] = torchvision_name
        of = class_of(network)
    else:
        present = published_detectors.prepared(weights, layout, name, published is not None)
        network = published_detectors.network(layout, name, present)
        published_name, of = published_detectors.published_name, layout
    with torch.device("meta"):
        state_dict: dict[str, Tensor] = instantiate(network).state_dict()
    names = {key: published_name(key, of) for key in state_dict}
    expected = {names[key]: tensor for key, tensor in state_dict.items()}
    for key, tensor in expected.items():
        if key.endswith(".num_batches_tracked"):  # files of before torch 0.4.1 have none
            present.setdefault(key, torch.zeros((), dtype=tensor.dtype))
    if differences := _differences(expected, present):
        raise ValueError(f"{path} is no {name} in {layout}'s layout: {differences}")
    converted = {key: present[names[key]].to(tensor.dtype) for key, tensor in state_dict.items()}
    source = {"layout": layout, "file": path.name, "sha256": digest} | ({"taken": unwrapping} if unwrapping else {})
    return Weights(name, network, source, converted)


def unwrapped(content: Any, path: Any) -> tuple[dict[str, Any], str]:
    """Return the state dict in what ``torch.load`` returned of the file ``path``, and what was unwrapped, in words ("" for a
    plain one). Raises ValueError where it holds no state dict, naming what it holds."""
    said = []
    if not _is_state_dict(content):
        key = next((key for key in KEYS if isinstance(content, Mapping) and _is_state_dict(content.get(key))), None)
        if key is None:
            held = f" but {', '.join(map(str, content))}" if isinstance(content, Mapping) else ""
            raise ValueError(
                f"{path} holds no plain state dict{held}: names and tensors are needed, by themselves or as {', '.join(KEYS)}"
            )
        others = [str(other) for other in content if other != key]
        said.append(f"its {key}" + (f", not its {', '.join(others)}" if others else ""))
        content = content[key]
    weights = {str(name): tensor for name, tensor in content.items() if name not in COUNTERS}
    while prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        said.append(f"names without {prefix}")
    return weights, "; ".join(said)


def _is_state_dict(content: Any) -> bool:
    from torch import Tensor

    return isinstance(content, Mapping) and bool(content) and all(isinstance(one, Tensor) for one in content.values())


def to_torchvision(weights: Weights) -> dict[str, Tensor]:
    """The state dict as torchvision names it. Raises ValueError where torchvision has no such network."""
    from benchmarks.training.weights import network_arguments

    arguments = network_arguments(weights.network)
    fixed = FIXED.get(arguments["network"])
    if fixed is None:
        raise ValueError(f"torchvision has no {arguments['network']}: {' and '.join(FIXED)} can be exported")
    differing = [f"{key}={arguments[key]}" for key, value in fixed.items() if arguments[key] != value]
    if differing:
        expected = ", ".join(f"{key}={value}" for key, value in fixed.items())
        raise ValueError(f"torchvision has no {weights.name} with {', '.join(differing)}: its networks have {expected}")
    return {torchvision_name(key, arguments["network"]): tensor for key, tensor in weights.state_dict.items()}


def of_run(run: Path, checkpoint: str, trusted: Collection[str] = ()) -> Weights:
    """The weights of the ``last`` or ``best`` checkpoint of the run in a folder, as ``Weights.read``. Raises ValueError or
    FileNotFoundError where there is none, or it is damaged."""
    from benchmarks.training.weights import Weights

    return Weights.read(checkpoint_of(run, checkpoint), trusted)


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``weights import``."""
    parser.description = (
        "Checks every name and shape of a published state dict, and writes it as our network has it, with what the network is "
        "and the file's name and SHA-256."
    )
    known = _known()
    parser.epilog = "networks of " + "; of ".join(f"{layout}: {', '.join(names)}" for layout, names in known.items())
    parser.add_argument("file", metavar="FILE", type=Path, help="as in resnext50_32x4d-7cdf4587.pth")
    parser.add_argument(
        "--from", choices=tuple(known), default="torchvision", dest="layout", help="whose layout (default: torchvision)"
    )
    parser.add_argument("--model", metavar="NAME", help="default: what FILE's name says")
    parser.add_argument("--out", metavar="PATH", type=Path, help="default: weights/<name of FILE>.pt")
    _add_force(parser)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``weights export``."""
    parser.description = (
        "Writes a state dict in a published layout: torchvision's networks load it with load_state_dict."
    )
    parser.add_argument(
        "source", metavar="SOURCE", type=Path, help="an imported file, a run's checkpoint, or its folder"
    )
    parser.add_argument("--to", choices=("torchvision",), default="torchvision", help="whose layout (the only one)")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help="of a run (default: last)")
    parser.add_argument("--out", metavar="PATH", type=Path, help="default: weights/<network>.pth")
    parser.add_argument("--trust", metavar="NAME", action="append", default=[], help=TRUST_HELP)
    _add_force(parser)


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def run_import(arguments: argparse.Namespace) -> None:
    """Write the weights of a published file as our network has them. Raises ValueError or OSError where the file is missing,
    damaged or of another network, or ``--out`` is there already."""
    known = _known()[arguments.layout]
    name = arguments.model or recognise(arguments.file.name, known)
    if name is None:
        raise ValueError(f"the name {arguments.file.name} says no network: --model, one of {', '.join(known)}")
    if name not in known:
        raise ValueError(
            f"{arguments.layout} has no network {name!r} here{nearest(name, known)}: one of {', '.join(known)}"
        )
    out = arguments.out or FOLDER / f"{arguments.file.stem}.pt"
    _check_free(out, arguments.force)
    weights = from_published(arguments.file, name, arguments.layout)
    weights.write(out)
    classes = weights.network["num_classes"]
    overrides = _overrides(name, arguments.layout, classes)
    print(f"{out}: {name}, {classes} classes, from {arguments.file} (SHA-256 {weights.source['sha256']})")
    if "taken" in weights.source:
        print(f"taken of the file: {weights.source['taken']}")
    print(f"evaluate it: {shlex.join(['python', 'run.py', 'mode=test', f'weights={out}', *overrides])}")


def run_export(arguments: argparse.Namespace) -> None:
    """Write our weights in a published layout. Raises ValueError or OSError where there are no such weights, torchvision has no
    such network, or ``--out`` is there already."""
    from benchmarks.training.weights import Weights, save_file

    source: Path = arguments.source
    trusted = arguments.trust
    weights = of_run(source, arguments.checkpoint, trusted) if source.is_dir() else Weights.read(source, trusted)
    out = arguments.out or FOLDER / f"{weights.name}.pth"
    _check_free(out, arguments.force)
    save_file(to_torchvision(weights), out)
    print(f"{out}: {weights.name} in torchvision's layout, from {source}")


def _check_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ValueError(f"{path} is there already: --force overwrites it, --out writes elsewhere")


def _known() -> dict[str, list[str]]:
    """The networks of each layout."""
    from benchmarks.training.published_detectors import DETECTORS

    return {
        layout: [*(ARCHITECTURES if layout == "torchvision" else ()), *names] for layout, names in DETECTORS.items()
    }


def _overrides(name: str, layout: str, classes: int) -> list[str]:
    """What makes ``run.py`` build the network."""
    if name not in ARCHITECTURES:
        from benchmarks.training import published_detectors

        return published_detectors.overrides(layout, name)
    model, arguments = ARCHITECTURES[name]
    data = "imagenet" if classes == IMAGENET_CLASSES else "…"
    return [f"data={data}", f"model={model}", *(f"model.{key}={value}" for key, value in arguments.items())]


def _network(name: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`_target_` and arguments of torchvision's network ``name``, with the number of classes that ``weights`` have."""
    model, arguments = ARCHITECTURES[name]
    target = read_option("model", model)["model"]["_target_"]
    kind = target.rpartition(".")[2]
    head = weights.get(torchvision_name("classifier.weight", kind))
    classes = len(head) if head is not None and head.ndim == 2 else IMAGENET_CLASSES
    return {"_target_": target, **FIXED[kind], **arguments, "num_classes": classes}


def _differences(expected: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> str:
    """What is wrong with the tensors of a file, in words; empty where nothing is."""
    both = [(key, tensor, present[key]) for key, tensor in expected.items() if key in present]
    differences = (
        _listed([key for key in expected if key not in present], " missing"),
        _listed([key for key in present if key not in expected], " unexpected"),
        _listed(
            f"{key} is {tuple(there.shape)} and should be {tuple(here.shape)}"
            for key, here, there in both
            if there.shape != here.shape
        ),
        _listed(
            f"{key} is {there.dtype} and should be {here.dtype}"
            for key, here, there in both
            if there.is_floating_point() != here.is_floating_point()
        ),
        _listed(f"{key} is not finite" for key, _, there in both if not there.isfinite().all()),
    )
    return "; ".join(filter(None, differences))


def _listed(items: Iterable[str], what: str = "") -> str:
    """``conv1.weight and 61 more missing``; empty for nothing."""
    first, *others = [*items] or [""]
    return first and f"{first}{f' and {len(others)} more' if others else ''}{what}"
