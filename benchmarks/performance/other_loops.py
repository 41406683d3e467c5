"""Other projects' training loops, each given the same work: torchvision's, timm's, Lightning's and ignite's.

torchvision's and timm's loops are in scripts that no package holds: their paths are arguments.
"""

import copy
import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
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

from benchmarks.performance.cases import Case
from benchmarks.performance.hand_written_loop import BareLoop, InterleavedLoader, measure, prepare

# What a script's ``train_one_epoch`` may ask for by these names.
ARGUMENTS = {"model", "criterion", "loss_fn", "optimizer", "data_loader", "loader", "device", "epoch", "args"}


@dataclass(frozen=True)
class Work:
    """What a loop is to do.

    Attributes:
        net: in training mode, on ``device``.
        optimizer, scheduler: of the network; the schedule goes by epochs.
        loader: batches of images and targets; its sampler is told the epoch.
        classes: of the network.
        folder: for what the loop keeps.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: InterleavedLoader
    epochs: int
    classes: int
    folder: Path
    device: torch.device


class Pictures(Dataset[Any]):
    """A data module's training images in memory as ``torchvision.datasets.CIFAR10`` has them.

    Attributes:
        images: uint8 (N, H, W, C).
        targets: N numbers of classes.
        mean, std: per channel, of values from 0 to 1.
        transform: what a project makes of an image.
    """

    def __init__(self, datamodule: Any) -> None:
        train = datamodule.splits.train
        self.images = np.ascontiguousarray(train.images.permute(0, 2, 3, 1).numpy())
        self.targets = train.targets.tolist()
        self.mean, self.std = datamodule.mean, datamodule.std
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


class PlainModule(pl.LightningModule):
    """As the documentations of Lightning and torchmetrics write it."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.net = work.net
        self.accuracy = MulticlassAccuracy(work.classes)
        self._made = [work.optimizer], [work.scheduler]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch; it and the accuracy go to the progress bar and the logger."""
        images, targets = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits, targets)
        self.accuracy(logits, targets)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_acc", self.accuracy, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the work's."""
        return self._made


def lightning_peer() -> Peer:
    """Return a plain trainer."""

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
    """Return the engine of its quick start."""
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


def script_peer(name: str, path: Path) -> Peer:
    """Return the loop of a training script of ``SCRIPTS``, its function ``train_one_epoch``, with the default arguments.

    Raises:
        TypeError: the function needs an argument that is not known here.
    """
    parse, batches = SCRIPTS[name]
    script, digest = read_script(path)
    signature = inspect.signature(script.train_one_epoch)
    shared = {"args": parse(script), **dict.fromkeys(("criterion", "loss_fn"), nn.CrossEntropyLoss())}

    def train(work: Work) -> None:
        values = shared | {"model": work.net, "optimizer": work.optimizer, "device": work.device}
        values |= dict.fromkeys(("data_loader", "loader"), work.loader)
        for epoch in range(work.epochs):  # as the scripts' main functions do
            work.loader.sampler.set_epoch(epoch)
            script.train_one_epoch(**{key: (values | {"epoch": epoch})[key] for key in takes})
            work.scheduler.step()

    takes = [key for key in signature.parameters if key in ARGUMENTS]
    signature.bind(**dict.fromkeys(takes))
    loader = partial(batches, script.torchvision.transforms)
    return Peer(name, f"{version(name)}, train_one_epoch {digest}", train, loader)


def read_script(path: Path) -> tuple[ModuleType, str]:
    """Return a training script as a module, beside the files that it imports, and the start of its train_one_epoch's SHA-256.

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


def timm_arguments(script: ModuleType) -> Any:
    """Return the default arguments of timm's train.py, with what its main function sets."""
    arguments = script.parser.parse_args([])
    # The loader's batches are moved once more, for nothing.
    vars(arguments).update(prefetcher=False, distributed=False, world_size=1, rank=0)
    return arguments


def torchvision_batches(transforms: ModuleType, pictures: Pictures, batch: int, device: torch.device) -> Any:
    """Return batches of pictures that go through PIL one by one. transforms: torchvision's."""
    pictures.transform = transforms.Compose(
        [
            transforms.RandomCrop(pictures.images.shape[1], padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(pictures.mean, pictures.std),
        ]
    )
    return DataLoader(pictures, batch_size=batch, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")


def timm_batches(transforms: ModuleType, pictures: Pictures, batch: int, device: torch.device) -> Any:
    """Return its loader, which normalises whole batches. transforms: torchvision's."""
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


# By project: what its train_one_epoch is given as arguments, and its loader of pictures.
SCRIPTS: dict[str, tuple[Callable[[ModuleType], Any], Callable[..., Any]]] = {
    "torchvision": (lambda script: script.get_args_parser().parse_args([]), torchvision_batches),
    "timm": (timm_arguments, timm_batches),
}


def find_peers(torchvision: Path | None, timm: Path | None) -> tuple[list[Peer], list[str]]:
    """Return ours and those that can be had here, and for each other one a line that says why not.

    Args:
        torchvision: the folder references/classification of its sources.
        timm: train.py of its sources.
    """
    peers, left_out = [Peer("ours", version("compute-accuracy"), None)], []
    paths = {"torchvision": torchvision and torchvision / "train.py", "timm": timm}
    makers = {name: partial(script_peer, name, path) if path else None for name, path in paths.items()}
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


def train_interleaved(case: Case, steps: int, peer: Peer, own_batches: bool = False) -> InterleavedLoader:
    """Train a loop and the hand-written one beside it.

    own_batches: whether the loop's come from its own input path, where it has one.
    """
    if peer.train is None:
        return measure(case, case.batch, steps)[-1].beside
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as root:
        config, datamodule = prepare(case, steps, Path(root))
        net = instantiate(config["module"]).net.to(device).train()
        recipe, loader = config["recipe"], datamodule.train_dataloader()
        bare = BareLoop(copy.deepcopy(net), recipe, datamodule.train_dataloader())
        batches = loader
        if own_batches and peer.batches is not None:
            batches = peer.batches(Pictures(datamodule), recipe["batch_size"], device)
        beside = InterleavedLoader(batches, bare, loader.sampler, parts=2)
        optimizer = instantiate(recipe["optimizer"])(net.parameters())
        scheduler = instantiate(recipe["scheduler"])(optimizer)
        epochs, classes = config["trainer"]["max_epochs"], config["data"]["num_classes"]
        work = Work(net, optimizer, scheduler, beside, epochs, classes, Path(root), device)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            peer.train(work)
    return beside
