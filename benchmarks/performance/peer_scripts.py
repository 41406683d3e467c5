"""Training scripts of other projects, started with a network of ours in the place of one of theirs.

``PYTHON -m benchmarks.performance performance.peer_scripts WORK`` runs a script to its end, tests the network, and prints what
``main`` returns. PYTHON may be of another environment: it needs what the script needs.
The script is as its authors wrote it. It reads folders of PNG files: ``train``, ``val`` and ``test``, a folder for each class.
"""

import hashlib
import random
import runpy
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

SCHEDULES = ("CosineAnnealingLR", "MultiStepLR")
AUGMENTATIONS = {"crop_padding", "horizontal_flip"}
Work = Mapping[str, Any]  # of ``main``


@dataclass(frozen=True)
class Peer:
    """A project with a training script.

    Attributes:
        script: its path in the sources.
        options: returns the script's arguments for a work.
        register: makes the script find a network by the name ``ours``, as a function makes it, and augment as the work says.
        bfloat16: arguments for it; None where the script has none on a CPU.
    """

    script: str
    options: Callable[[Work], list[str]]
    register: Callable[[Callable[..., Any], Work], None]
    bfloat16: tuple[str, ...] | None = None


def check(work: Work) -> None:
    """Raise ValueError where the scripts cannot do the same work."""
    schedule, augment = _schedule(work), work["augment"]
    if schedule not in SCHEDULES or not augment.keys() <= AUGMENTATIONS or work["size"][0] != work["size"][1]:
        raise ValueError(
            f"other projects' scripts can be given {' or '.join(SCHEDULES)}, {' and '.join(sorted(AUGMENTATIONS))}, and square "
            f"images; this is {schedule}, {', '.join(augment) or 'no augmentation'}, {work['size']}"
        )
    milestones = work["scheduler"].get("milestones", [])
    if len(milestones) > 1 and work["epochs"] > milestones[1]:
        raise ValueError(
            f"torchvision's script lowers the learning rate every {milestones[0]} epochs: at most {milestones[1]} are the same"
        )


def write_images(root: Path, splits: Any) -> None:
    """Write the images of a data set as PNG files. splits: with ``train``, ``val`` and ``test``, uint8 (N, C, H, W)."""
    from PIL import Image

    for name in ("train", "val", "test"):
        split = getattr(splits, name)
        for number, (image, target) in enumerate(zip(split.images, split.targets.tolist(), strict=True)):
            path = root / name / f"{target:04d}" / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(path)


def _schedule(work: Work) -> str:
    return str(work["scheduler"]["_target_"].rpartition(".")[2])


def _shared_options(work: Work) -> list[str]:
    optimizer = work["optimizer"]
    values = {
        **{"model": "ours", "device": "cpu", "workers": 1, "batch-size": work["batch_size"], "epochs": work["epochs"]},
        **{"lr": optimizer["lr"], "momentum": optimizer["momentum"], "weight-decay": optimizer["weight_decay"]},
    }
    return [f"--{key}={value}" for key, value in values.items()]


def torchvision_options(work: Work) -> list[str]:
    """Return the arguments of torchvision's references/classification/train.py, which evaluates with the training's batch."""
    size, scheduler = work["size"][0], work["scheduler"]
    if _schedule(work) == "MultiStepLR":  # the same up to the second milestone, see ``check``
        schedule = ["steplr", f"--lr-step-size={scheduler['milestones'][0]}", f"--lr-gamma={scheduler['gamma']}"]
    else:
        schedule = ["cosineannealinglr"]
    return [
        *_shared_options(work),
        *(f"--data-path={work['images']}", f"--output-dir={work['output']}"),
        *(f"--{name}-size={size}" for name in ("train-crop", "val-crop", "val-resize")),
        f"--opt={'sgd_nesterov' if work['optimizer'].get('nesterov') else 'sgd'}",
        *("--lr-scheduler", *schedule),
    ]


def timm_options(work: Work) -> list[str]:
    """Return the arguments of timm's train.py."""
    size, scheduler = map(str, work["size"]), work["scheduler"]
    if _schedule(work) == "MultiStepLR":
        schedule = ["multistep", f"--decay-rate={scheduler['gamma']}", "--decay-milestones"]
        schedule += map(str, scheduler["milestones"])
    else:
        schedule = ["cosine"]
    mean, std = (list(map(str, work[key] * (3 // len(work[key])))) for key in ("mean", "std"))
    return [
        *_shared_options(work),
        *(f"--data-dir={work['images']}", f"--output={work['output']}", "--val-split=val", f"--seed={work['seed']}"),
        *(f"--num-classes={work['model']['num_classes']}", f"--validation-batch-size={work['eval_batch_size']}"),
        *("--input-size", "3", *size, "--mean", *mean, "--std", *std),
        *("--crop-pct=1", "--smoothing=0", "--color-jitter=0"),
        f"--hflip={0.5 if work['augment'].get('horizontal_flip') else 0}",
        f"--opt={'sgd' if work['optimizer'].get('nesterov') else 'momentum'}",
        *("--warmup-epochs=0", "--min-lr=0", "--sched", *schedule),
    ]


def register_torchvision(make: Callable[..., Any], work: Work) -> None:
    """Give torchvision a network; its script has no option for the mean, the flip and a padded crop."""
    transforms = import_module("torchvision.transforms")
    models: Any = import_module("torchvision.models")
    models.get_model = lambda name, **_: make()
    flip = 0.5 if work["augment"].get("horizontal_flip") else 0.0
    replaced = {
        "RandomResizedCrop": _padded_crop(transforms, work),
        "RandomHorizontalFlip": lambda *_, flipped=transforms.RandomHorizontalFlip: flipped(flip),
        "Normalize": lambda normalise=transforms.Normalize, **_: normalise(work["mean"], work["std"]),
    }
    for module in (transforms, transforms.transforms):  # the script's versions look in the one or the other
        for name, maker in replaced.items():
            setattr(module, name, maker)


def register_timm(make: Callable[..., Any], work: Work) -> None:
    """Register a network with timm; its script has no option for a padded crop."""
    make.__name__ = "ours"
    import_module("timm.models").register_model(make)
    factory: Any = import_module("timm.data.transforms_factory")
    factory.RandomResizedCropAndInterpolation = _padded_crop(import_module("torchvision.transforms"), work)


def _padded_crop(transforms: Any, work: Work) -> Callable[..., Any]:
    crop, padding = transforms.RandomCrop, work["augment"].get("crop_padding", 0)
    return lambda size, **_: crop(size, padding)


PEERS = {
    "torchvision": Peer("references/classification/train.py", torchvision_options, register_torchvision),
    "timm": Peer("train.py", timm_options, register_timm, bfloat16=("--amp", "--amp-dtype=bfloat16")),
}


def train(work: Work, peer: Peer) -> Any:
    """Run the script as ``python train.py`` does; return the network that it has trained."""
    import torch

    model = work["model"]
    module, _, name = model["_target_"].rpartition(".")
    network = partial(getattr(import_module(module), name), **{k: v for k, v in model.items() if k != "_target_"})
    nets = []

    def ours(**_: Any) -> Any:
        nets.append(network())
        # A folder of images is read as RGB.
        nets[-1].register_forward_pre_hook(lambda _, inputs: (inputs[0][:, : model["in_channels"]],))
        return nets[-1]

    torch.manual_seed(work["seed"])
    random.seed(work["seed"])
    script = Path(work["folder"]) / peer.script
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *peer.options(work), *(peer.bfloat16 or () if work["bfloat16"] else ())]
    peer.register(ours, work)
    runpy.run_path(str(script), run_name="__main__")
    return nets[-1]


def test_error(net: Any, work: Work) -> float:
    """Return the error of a network in percent over the images of the folder ``test``."""
    import numpy as np
    import torch
    from PIL import Image

    paths, size = sorted((Path(work["images"]) / "test").glob("*/*.png")), work["eval_batch_size"]
    mean, std = (torch.tensor(work[key]).view(-1, 1, 1) for key in ("mean", "std"))
    hits = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=work["bfloat16"]):
        for first in range(0, len(paths), size):
            batch = paths[first : first + size]
            pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in batch]))
            classes = net.eval()((pixels.permute(0, 3, 1, 2) / 255 - mean) / std).argmax(1)
            hits += sum(int(path.parent.name) == number for path, number in zip(batch, classes.tolist(), strict=True))
    return 100 * (1 - hits / len(paths))


def main(work: Work) -> dict[str, Any]:
    """Return ``error``, the test error in percent, and ``versions``.

    Args:
        work: peer (of ``PEERS``), folder (of its sources), images (a folder), output (a folder), bfloat16; size (height,
            width), batch_size, eval_batch_size, epochs, seed, mean, std, augment; model, optimizer and scheduler of a
            configuration.
    """
    import torch

    peer = PEERS[work["peer"]]
    with redirect_stdout(sys.stderr):
        net = train(work, peer)
    digest = hashlib.sha256((Path(work["folder"]) / peer.script).read_bytes()).hexdigest()[:8]
    versions = f"torch {torch.__version__}, {work['peer']} {metadata.version(work['peer'])}, train.py {digest}"
    return {"error": test_error(net, work), "versions": versions}
