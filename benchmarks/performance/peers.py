"""Our training step beside other people's training loops on the same work: ``python -m benchmarks peers``.

Each trains the same network from the same weights on the same batches with the same optimiser and schedule, in turns with
the hand-written loop of ``bare_loop`` in the same process; on a CPU all end with the same weights, to the bit.
torchvision's and timm's loops are in scripts that no package holds: the command is told where they lie.
"""

import argparse
import copy
import hashlib
import importlib.util
import inspect
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

from benchmarks import terminal
from benchmarks.performance import bare_loop
from benchmarks.performance.bare_loop import (
    TURN,
    WARM_UP,
    BareLoop,
    Case,
    TakingTurns,
    configuration,
    measure,
    summarise,
    waiter,
)
from benchmarks.performance.document import add_to_record, add_write_option, table, write_record
from benchmarks.performance.interleaved import median_interval
from benchmarks.performance.step_cost import INPUT, INPUT_STEPS
from benchmarks.training.environment import code, environment
from benchmarks.training.rank import quiet

WHOLE = "resnet20_cifar"  # whose batches are also made by each loop's own input path
CASES = {name: bare_loop.CASES[name] for name in ("resnext29_8x64d", "densenet_bc100_k12", "resnet20_digits")} | {
    WHOLE: Case(("model=resnet", "data=cifar10", "model.depth=20"), 128, 80, None)
}
COLUMNS = {
    "network": ("network", "s"),
    "batch": ("batch", "d"),
    "loop": ("loop", "s"),
    "version": ("version", "s"),
    "images_per_s": ("images/s", ".1f"),
    "ratio": ("ratio to bare", ".3f"),
    "ratio_low": ("from", ".3f"),
    "ratio_high": ("to", ".3f"),
    "added_us": ("added, µs", ".0f"),
    "turns": ("turns", "d"),
}
TITLE = "Public training loops beside a hand-written loop"
NOTE = (
    "Each loop takes turns with the same bare loop in one process, as in the table of our training step: the same "
    "initial weights, batches (made by our loader), optimiser and schedule, float32. `torchvision` and `timm` are "
    "train_one_epoch of their training scripts (with the start of its text's SHA-256) and the scripts' defaults, but "
    "without label smoothing (torchvision has no wheel for torch's CPU build: there its compiled operators were "
    "declared and not loaded, and none of these loops uses one); `lightning` is a LightningModule and a pl.Trainer as"
    " Lightning's documentation writes them, with loss and torchmetrics accuracy logged in each step, CSVLogger and "
    "ModelCheckpoint; `ignite` is create_supervised_trainer with its loss printed every 100 steps. What they print is"
    " discarded. A test shows on a small network that loops end with the same weights as the bare loop, to the bit. "
    "Ratio and what is added are medians over turns, on a CPU of processor time in one thread, with the ratio's 95 % "
    "interval; images/s are those of the bare loop, over all its turns, divided by the ratio."
)
INPUT_COLUMNS = {
    "loop": ("pipeline", "s"),
    "version": ("version", "s"),
    "batch": ("batch", "d"),
    "images_per_s": ("images/s on one core", ",.0f"),
    "low": ("from", ",.0f"),
    "high": ("to", ",.0f"),
    "times": ("time of ours", ".1f"),
    "whole_images_per_s": ("ResNet-20 with it, images/s", ".1f"),
    "whole_ratio": ("ratio to bare", ".3f"),
    "whole_ratio_low": ("from", ".3f"),
    "whole_ratio_high": ("to", ".3f"),
}
INPUT_TITLE = "Making batches of small images, and whole steps with them"
INPUT_NOTE = (
    "Random images of 3x32x32 in memory, padded by 4, cropped, flipped and normalised. `torchvision`: "
    "Image.fromarray, as its CIFAR10 has it, RandomCrop, RandomHorizontalFlip, ToTensor and Normalize through a "
    "DataLoader without workers (PILToTensor and ConvertImageDtype, which the script's presets have, take longer). "
    "`timm`: its create_loader, which collates bytes and normalises whole batches, with the same crop and flip in "
    "place of its resized crop. A batch of each in turn, processor time of one thread, medians with 95 % intervals. "
    "On the right each loop trains ResNet-20 on batches from its own pipeline, in turns with the bare loop, which has "
    "ours."
)


@dataclass(frozen=True)
class Work:
    """What a loop is to do.

    Attributes:
        net: in training mode, on its device.
        optimizer, scheduler: of the network; the schedule goes by epochs.
        loader: batches of images and targets; its sampler is told the epoch.
        classes: of the network.
        folder: for what the loop keeps.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: TakingTurns
    epochs: int
    classes: int
    folder: Path

    @property
    def device(self) -> torch.device:
        """The network's."""
        return next(self.net.parameters()).device

    def by_epochs(self, train: Callable[[int], object]) -> None:
        """Calls ``train`` with the number of each epoch, as the scripts' main functions do."""
        for epoch in range(self.epochs):
            self.loader.sampler.set_epoch(epoch)
            train(epoch)
            self.scheduler.step()


class Pictures(Dataset[Any]):
    """Images in memory as ``torchvision.datasets.CIFAR10`` has them.

    Args:
        images: uint8 (N, C, H, W).
        targets: (N,).
        mean, std: per channel, of values from 0 to 1.
    """

    def __init__(self, images: Tensor, targets: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        self.images = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        self.targets = targets.tolist()
        self.mean, self.std = mean, std
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


@dataclass(frozen=True)
class Peer:
    """A public training loop.

    Attributes:
        train: does the work; None for ours.
        batches: its own loader of pictures, by batch size and device; None where it has none.
    """

    name: str
    version: str
    train: Callable[[Work], None] | None
    batches: Callable[[Pictures, int, torch.device], Any] | None = None


class Pairs:
    """Batches as other loops take them: images and targets. sampler: what is told the epoch."""

    def __init__(self, batches: Any, sampler: Any) -> None:
        self.batches = batches
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield batch[:2]


class PlainModule(pl.LightningModule):
    """As the documentations of Lightning and torchmetrics write it."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.net = work.net
        self.accuracy = MulticlassAccuracy(work.classes)
        self._made = [work.optimizer], [work.scheduler]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a batch; it and the accuracy go to the progress bar and the logger."""
        images, targets = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits, targets)
        self.accuracy(logits, targets)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_acc", self.accuracy, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """The work's."""
        return self._made


def lightning_peer() -> Peer:
    """A plain trainer."""

    def train(work: Work) -> None:
        trainer = pl.Trainer(
            max_epochs=work.epochs,
            accelerator=work.device.type,
            devices=1,
            logger=CSVLogger(work.folder),
            callbacks=[ModelCheckpoint(dirpath=work.folder)],
            enable_model_summary=False,
        )
        trainer.fit(PlainModule(work), train_dataloaders=work.loader)

    return Peer("lightning", version("pytorch-lightning"), train)


def ignite_peer() -> Peer:
    """The engine of its quick start."""
    from ignite.engine import Events, create_supervised_trainer

    def train(work: Work) -> None:
        trainer = create_supervised_trainer(work.net, work.optimizer, nn.CrossEntropyLoss(), work.device)
        trainer.add_event_handler(
            Events.EPOCH_STARTED, lambda engine: work.loader.sampler.set_epoch(engine.state.epoch - 1)
        )
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: work.scheduler.step())
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(every=100),
            lambda engine: print(f"Epoch[{engine.state.epoch}] Loss: {engine.state.output:.2f}"),
        )
        trainer.run(work.loader, max_epochs=work.epochs)

    return Peer("ignite", version("pytorch-ignite"), train)


def torchvision_peer(folder: Path) -> Peer:
    """The loop of references/classification, and the usual transforms for CIFAR."""
    script, digest = read_script(folder / "train.py")
    arguments = script.get_args_parser().parse_args([])

    def train(work: Work) -> None:
        criterion = nn.CrossEntropyLoss()
        work.by_epochs(
            lambda epoch: script.train_one_epoch(
                work.net, criterion, work.optimizer, work.loader, work.device, epoch, arguments
            )
        )

    batches = partial(torchvision_batches, script.torchvision.transforms)
    return Peer("torchvision", f"{version('torchvision')}, train_one_epoch {digest}", train, batches)


def torchvision_batches(transforms: ModuleType, pictures: Pictures, batch: int, device: torch.device) -> Any:
    """Every picture by itself, through PIL. transforms: torchvision's."""
    pictures.transform = transforms.Compose(
        [
            transforms.RandomCrop(pictures.images.shape[1], padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(pictures.mean, pictures.std),
        ]
    )
    return DataLoader(pictures, batch_size=batch, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")


def timm_peer(path: Path) -> Peer:
    """The loop of train.py, and timm's loader.

    Raises:
        TypeError: the script's function takes other arguments.
    """
    script, digest = read_script(path)
    arguments = script.parser.parse_args([])
    # What the script's main function sets; the loader's batches are moved once more, for nothing.
    vars(arguments).update(prefetcher=False, distributed=False, world_size=1, rank=0)

    takes = ("epoch", "model", "loader", "optimizer", "loss_fn", "args", "device")
    inspect.signature(script.train_one_epoch).bind(**dict.fromkeys(takes))

    def train(work: Work) -> None:
        criterion = nn.CrossEntropyLoss()
        work.by_epochs(
            lambda epoch: script.train_one_epoch(
                epoch=epoch,
                model=work.net,
                loader=work.loader,
                optimizer=work.optimizer,
                loss_fn=criterion,
                args=arguments,
                device=work.device,
            )
        )

    batches = partial(timm_batches, script.torchvision.transforms)
    return Peer("timm", f"{version('timm')}, train_one_epoch {digest}", train, batches)


def timm_batches(transforms: ModuleType, pictures: Pictures, batch: int, device: torch.device) -> Any:
    """Its loader, which normalises whole batches. transforms: torchvision's."""
    from timm.data import create_loader
    from timm.data.transforms import ToNumpy

    height, width, channels = pictures.images.shape[1:]
    loader = create_loader(
        pictures,
        input_size=(channels, height, width),
        batch_size=batch,
        is_training=True,
        mean=tuple(pictures.mean),
        std=tuple(pictures.std),
        num_workers=0,
        persistent_workers=False,
        pin_memory=device.type == "cuda",
        device=device,
    )
    pictures.transform = transforms.Compose(
        [transforms.RandomCrop(height, padding=4), transforms.RandomHorizontalFlip(), ToNumpy()]
    )
    return loader


def read_script(path: Path) -> tuple[ModuleType, str]:
    """A training script as a module, beside the files that it imports, and the start of its train_one_epoch's SHA-256.

    Raises:
        FileNotFoundError: there is none.
    """
    spec: Any = importlib.util.spec_from_file_location(f"{__name__}.{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module, hashlib.sha256(inspect.getsource(module.train_one_epoch).encode()).hexdigest()[:8]


def find_peers(torchvision: Path | None, timm: Path | None) -> tuple[list[Peer], list[str]]:
    """Ours and those that can be had here, and for each other one a line that says why not.

    Args:
        torchvision: the folder references/classification of its sources.
        timm: train.py of its sources.
    """
    peers, left_out = [Peer("ours", str(code().version), None)], []
    scripts = {"torchvision": (torchvision_peer, torchvision), "timm": (timm_peer, timm)}
    makers = {name: partial(make, path) if path else None for name, (make, path) in scripts.items()}
    for name, maker in {**makers, "lightning": lightning_peer, "ignite": ignite_peer}.items():
        if maker is None:
            left_out.append(f"{name}: --{name} does not say where its training script is")
            continue
        try:
            peers.append(maker())
        except Exception as error:  # other people's code: whatever importing it raises
            lines = str(error).splitlines() or [""]
            left_out.append(f"{name}: {type(error).__name__}: {lines[0]}")
    return peers, left_out


def take_turns(case: Case, steps: int, peer: Peer, own_batches: bool = False) -> TakingTurns:
    """A loop and the hand-written one beside it, both trained.

    own_batches: whether the loop's come from its own input path, where it has one.
    """
    if peer.train is None:
        return measure(case, case.batch, steps).beside
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as root:
        config, datamodule = prepare(case, steps, Path(root))
        net = instantiate(config["module"]).net.to(device).train()
        recipe, mine = config["recipe"], datamodule.train_dataloader()
        bare = BareLoop(
            copy.deepcopy(net), recipe["optimizer"], recipe["scheduler"], datamodule.train_dataloader(), "32-true"
        )
        batches = mine
        if own_batches and peer.batches is not None:
            batches = peer.batches(pictures_of(datamodule), recipe["batch_size"], device)
        loader = TakingTurns(Pairs(batches, mine.sampler), bare, TURN[device.type], waiter(device))
        optimizer = instantiate(recipe["optimizer"])(net.parameters())
        work = Work(
            net,
            optimizer,
            instantiate(recipe["scheduler"])(optimizer),
            loader,
            config["trainer"]["max_epochs"],
            config["data"]["num_classes"],
            Path(root),
        )
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            peer.train(work)
    return loader


def prepare(case: Case, steps: int, root: Path) -> tuple[dict[str, Any], Any]:
    """The configuration and the datamodule of a case, as a run has them before it builds its network."""
    config = configuration(case, root, case.batch, steps, ()).config
    torch.set_num_threads(1)
    pl.seed_everything(config["seed"], verbose=False)
    datamodule = instantiate(config["datamodule"])
    datamodule.setup("fit")
    return config, datamodule


def pictures_of(datamodule: Any) -> Pictures:
    """The training images for other input paths."""
    train = datamodule.splits.train
    return Pictures(train.images, train.targets, datamodule.mean, datamodule.std)


def step_rows(name: str, peers: Sequence[Peer], steps: int, own_batches: bool = False) -> list[dict[str, Any]]:
    """The hand-written loop's row of the table and one for each peer.

    Images a second are of the hand-written loop, all its turns together, divided by the ratios: these do not depend on what
    the machine had to do while a loop was measured.
    """
    found = []
    for peer in peers:
        print(f"measuring {name}, {peer.name}", file=sys.stderr)
        found.append(take_turns(CASES[name], steps, peer, own_batches))
    bare = found[0].bare
    batch, processor = bare.loader.sampler.batch_size, bare.device.type == "cpu"
    turns = [turn for beside in found for turn in beside.turns[WARM_UP:]]
    speed = batch / statistics.median(turn.bare_processor if processor else turn.bare for turn in turns)
    rows = [dict.fromkeys(COLUMNS) | {"network": name, "batch": batch, "loop": "bare", "images_per_s": speed}]
    for peer, beside in zip(peers, found, strict=True):
        row = summarise(beside.turns, processor)
        row |= {"loop": peer.name, "version": peer.version, "images_per_s": speed / row["ratio"]}
        rows.append({"network": name, "batch": batch, **row})
    return rows


def input_rows(peers: Sequence[Peer], batches: int, steps: int) -> list[dict[str, Any]]:
    """Making batches by each input path in turn, and whole steps with them."""
    case = CASES[WHOLE]
    assert case.batch is not None
    with tempfile.TemporaryDirectory() as root:
        _, datamodule = prepare(case, batches, Path(root))
    paths = [peer for peer in peers if peer.train is None or peer.batches is not None]
    loaders = [
        iter(
            datamodule.train_dataloader()
            if peer.batches is None
            else peer.batches(pictures_of(datamodule), case.batch, torch.device("cpu"))
        )
        for peer in paths
    ]
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(batches):
        for loader, found in zip(loaders, times, strict=True):
            begun = time.thread_time()
            next(loader)
            found.append(time.thread_time() - begun)
    rows = []
    _, *wholes = step_rows(WHOLE, paths, steps, own_batches=True)
    for peer, found, whole in zip(paths, times, wholes, strict=True):
        low, middle, high = median_interval(found[WARM_UP:])
        ratios = [theirs / ours for theirs, ours in zip(found[WARM_UP:], times[0][WARM_UP:], strict=True)]
        rows.append(
            {
                "loop": peer.name,
                "version": peer.version,
                "batch": case.batch,
                "images_per_s": case.batch / middle,
                "low": case.batch / high,
                "high": case.batch / low,
                "times": statistics.median(ratios),
                **{f"whole_{key}": whole[key] for key in ("images_per_s", "ratio", "ratio_low", "ratio_high")},
            }
        )
    return rows


def main(argv: Sequence[str]) -> int:
    """The command; returns 0, whatever could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peers",
        description="Time training steps of the suite and of public training loops on the same work, each in turns with a "
        "hand-written loop in one process, and their input paths. Loops that are not installed are left out.",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}, {INPUT} (input paths), default: all"
    )
    parser.add_argument("--torchvision", type=Path, metavar="FOLDER", help="references/classification of its sources")
    parser.add_argument("--timm", type=Path, metavar="FILE", help="train.py of its sources")
    parser.add_argument("--steps", type=int, help="default: by case")
    add_write_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    names = arguments.cases or [*CASES, INPUT]
    if unknown := [name for name in names if name not in CASES and name != INPUT]:
        parser.error(f"no case {unknown[0]}; there are {', '.join(CASES)}, {INPUT}")
    quiet()
    torch.set_num_threads(1)
    peers, left_out = find_peers(arguments.torchvision, arguments.timm)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    where = environment(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    command = " ".join(["python -m benchmarks peers", *argv])
    missing = "".join(f" Left out: {line}." for line in left_out)
    for name in (name for name in names if name in CASES):
        steps = step_rows(name, peers, arguments.steps or CASES[name].steps)
        terminal.console().print(table(COLUMNS, steps))
        if arguments.write:  # what is finished is kept, should a later case be interrupted
            add_to_record("peers", where, command, TITLE, COLUMNS, steps, NOTE + missing, same=("network",))
    if INPUT in names:
        inputs = input_rows(peers, INPUT_STEPS, arguments.steps or CASES[WHOLE].steps)
        terminal.console().print(table(INPUT_COLUMNS, inputs))
        if arguments.write:
            write_record("peers_input", where, command, INPUT_TITLE, INPUT_COLUMNS, inputs, INPUT_NOTE + missing)
    return 0
