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
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.performance.cases import Case
from benchmarks.performance.hand_written_loop import ROUND_STEPS, BareLoop, InterleavedLoader, measure, prepare, waiter
from benchmarks.performance.other_input_paths import Pictures, pictures_of, timm_batches, torchvision_batches


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
    loader: InterleavedLoader
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
    peers, left_out = [Peer("ours", version("compute-accuracy"), None)], []
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


def train_interleaved(case: Case, steps: int, peer: Peer, own_batches: bool = False) -> InterleavedLoader:
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
        loader = InterleavedLoader(Pairs(batches, mine.sampler), bare, ROUND_STEPS[device.type], waiter(device))
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
