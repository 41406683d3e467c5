"""Evaluation of a folder of photographs."""

import io
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from datamodules.from_files import ImageNetDataModule
from datamodules.sources.imagenet import load_imagenet
from lightning_modules.classifier import Classifier

WNIDS = ("n01440764", "n01443537", "n01484850")
SIZES = [(60, 45), (45, 60), (50, 50), (90, 40), (33, 71), (48, 48), (52, 41)]  # of the training images of a class
FB = {"area": [0.08, 1.0], "aspect": [3 / 4, 4 / 3], "colour_jitter": 0.4, "lighting": 0.1, "horizontal_flip": True}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Coarse noise enlarged, so that neighbours resemble one another as in a photograph."""
    coarse = np.random.RandomState(seed).randint(256, size=(5, 5, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return out.getvalue()


def make_tree(root: Path) -> Path:
    """Three classes of 7 training and 3 validation images; among them grey, CMYK, and a PNG that is called JPEG."""
    for label, wnid in enumerate(WNIDS):
        for part, sizes in (("train", SIZES), ("val", SIZES[:3])):
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for number, (width, height) in enumerate(sizes):
                mode = {3: "L", 4: "CMYK"}.get(number, "RGB")
                kind = "PNG" if number == 5 else "JPEG"
                image = picture(width, height, 100 * label + number + 50 * (part == "val"), mode)
                (folder / f"{wnid}_{number}.JPEG").write_bytes(encoded(image, kind))
    return root


def source(path: Path, cache_dir: Path | None = None, **changes):
    arguments = {"num_classes": 3, "train_count": 21, "test_count": 9, "val_per_class": 2}
    return partial(load_imagenet, path, cache_dir=cache_dir or path / "cache", **{**arguments, **changes})


def datamodule(path: Path, rank: int = 0, world_size: int = 1, **changes) -> ImageNetDataModule:
    arguments = {
        "source": source(path),
        "image_size": [28, 28],
        "batch_size": 6,
        "eval_batch_size": 4,
        "test_views": ["10crop", 40],
        "augment": FB,
        "mean": MEAN,
        "std": STD,
        "seed": 0,
        "loader_workers": 0,
    }
    module = ImageNetDataModule(**{**arguments, **changes})
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)
    module.setup()
    return module


# Metrics


class Pooled(nn.Module):
    """Logits from the mean colour: of any image size, and different from crop to crop."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.classifier = nn.Linear(3, 3)
        nn.init.constant_(self.classifier.bias, 0.0)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.tensor([[3.0, -2, 0], [-1, 2.5, 0], [0, 0.5, 2]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.largest = max(self.largest, len(images))
        return self.classifier(images.mean((2, 3)))


def classifier(test_views=("10crop", 40)) -> Classifier:
    return Classifier(
        Pooled(), 3, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.ConstantLR), test_views
    )


def evaluate(tree: Path) -> dict[str, float]:
    trainer = pl.Trainer(
        accelerator="cpu", devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        logger=False, enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip
    module, data = classifier(), datamodule(tree)
    trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()} | {"world": trainer.world_size}
