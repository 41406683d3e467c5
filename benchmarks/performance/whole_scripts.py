"""Whole trainings without the suite, each in a process of its own.

``bare`` is a loop in plain torch, ``lightning`` a script as Lightning's documentation writes it. Both train a network of the
suite on the batches that the suite's run has, evaluate it after each epoch and test it at the end.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from hydra.utils import get_method, instantiate
from torch import Tensor, nn
from torch.utils.data import IterableDataset


class Batches(IterableDataset[Any]):
    """The training batches of a run, one epoch each time that they are asked for.

    Args:
        config: a run's configuration.
        split: the training images, a ``datamodules.readers.splits.Split``.
    """

    def __init__(self, config: dict[str, Any], split: Any) -> None:
        data = config["datamodule"]
        self.split, self.seed = split, config["seed"]
        self.mean, self.std = torch.tensor(data["mean"]), torch.tensor(data["std"])
        # By their names, as a configuration has them: datamodules and benchmarks do not know each other.
        self.augmentation = get_method("datamodules.augmentation.crops.Augmentation")(data["augment"])
        sampler = get_method("datamodules.loading.batching.GlobalBatchSampler")
        self.sampler = sampler(len(split), data["batch_size"], self.seed, 0, 1)
        self.mix_seed = get_method("datamodules.readers.seeds.mix_seed")
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.sampler.set_epoch(self.epoch)
        self.epoch += 1
        for item in self.sampler:
            generator = torch.Generator().manual_seed(self.mix_seed("augmentation", self.seed, item.epoch, item.batch))
            height, width = self.split.images.shape[-2:]
            draws = self.augmentation.draw(len(item.rows), height, width, generator)
            images, targets = self.split.images[item.rows], self.split.targets[item.rows]
            yield tuple(self.augmentation.apply(images, targets, draws, self.mean, self.std)[:2])


class Evaluation(IterableDataset[Any]):
    """Batches of images in order, normalised."""

    def __init__(self, config: dict[str, Any], split: Any) -> None:
        data = config["datamodule"]
        self.normalise = get_method("datamodules.augmentation.crops.normalise")
        self.split, self.size = split, data["eval_batch_size"]
        self.mean, self.std = torch.tensor(data["mean"]), torch.tensor(data["std"])

    def __len__(self) -> int:
        return -(-len(self.split) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(self.split), self.size):
            place = slice(first, first + self.size)
            yield self.normalise(self.split.images[place], self.mean, self.std), self.split.targets[place].long()


def bare(config: dict[str, Any]) -> float:
    """Train by a loop in plain torch; return the test error in percent."""
    splits = instantiate(config["datamodule"]["source"])()
    training = Batches(config, splits.train)
    validation, test = (Evaluation(config, split) for split in (splits.val, splits.test))
    net = instantiate(config["model"])
    optimizer = instantiate(config["recipe"]["optimizer"])(net.parameters())
    scheduler = instantiate(config["recipe"]["scheduler"])(optimizer)
    for _ in range(config["recipe"]["epochs"]):
        net.train()
        for images, targets in training:
            optimizer.zero_grad()
            F.cross_entropy(net(images), targets).backward()
            optimizer.step()
        scheduler.step()
        _error(net, validation)
    return _error(net, test)


def _error(net: nn.Module, batches: Evaluation) -> float:
    net.eval()
    with torch.inference_mode():
        hits = sum(int((net(images).argmax(1) == targets).sum()) for images, targets in batches)
    return 100 * (1 - hits / len(batches.split))


def lightning(config: dict[str, Any]) -> float:
    """Train by a LightningModule and a Trainer with its own progress bar, logger and checkpoints; return the test error."""
    import tempfile

    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger
    from torch.utils.data import DataLoader
    from torchmetrics.classification import MulticlassAccuracy

    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = instantiate(config["model"])
            classes = config["model"]["num_classes"]
            self.accuracies = nn.ModuleDict(
                {name: MulticlassAccuracy(classes, average="micro") for name in ("val", "test")}
            )

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.evaluate("val", batch)

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.evaluate("test", batch)

        def evaluate(self, name: str, batch: Any) -> None:
            logits, accuracy = self.net(batch[0]), cast(MulticlassAccuracy, self.accuracies[name])
            accuracy(logits, batch[1])
            self.log(f"{name}_loss", F.cross_entropy(logits, batch[1]))
            self.log(f"{name}_acc", accuracy, prog_bar=True)

        def configure_optimizers(self) -> Any:
            optimizer = instantiate(config["recipe"]["optimizer"])(self.net.parameters())
            return [optimizer], [instantiate(config["recipe"]["scheduler"])(optimizer)]

    splits = instantiate(config["datamodule"]["source"])()
    # Batches are made whole, as in the suite: images one by one would be slower.
    training = DataLoader(Batches(config, splits.train), batch_size=None)
    validation, test = (DataLoader(Evaluation(config, split), batch_size=None) for split in (splits.val, splits.test))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=config["recipe"]["epochs"],
            logger=CSVLogger(folder),
            callbacks=[ModelCheckpoint(monitor="val_acc", mode="max")],
        )
        module = Plain()
        trainer.fit(module, training, validation)
        [results] = trainer.test(module, test, verbose=False)
    return 100 * (1 - results["test_acc"])


SCRIPTS: dict[str, Callable[[dict[str, Any]], float]] = {"bare": bare, "lightning": lightning}


def main(specification: dict[str, Any]) -> dict[str, Any]:
    """Return ``error``, the test error in percent, and ``versions``.

    Args:
        specification: script (of ``SCRIPTS``) and config, a run's configuration, of which model, datamodule, recipe and seed
            count.
    """
    config = specification["config"]
    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    return {"error": SCRIPTS[specification["script"]](config), "versions": f"torch {torch.__version__}"}
