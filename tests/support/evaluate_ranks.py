"""A fixed network tested on N synthetic images each by 1, 2 and 3 processes: ``evaluate_ranks.py OUT N…``."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from support.forked_ranks import by_every_number  # noqa: E402

from datamodules.in_memory import InMemoryDataModule  # noqa: E402
from datamodules.readers.splits import Split, Splits  # noqa: E402
from lightning_modules.classifier import Classifier  # noqa: E402
from lightning_modules.nets import ResNet  # noqa: E402


def noise(count: int) -> Splits:
    generator = torch.Generator().manual_seed(count)

    def split() -> Split:
        images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(0, 7, (count,), generator=generator))

    return Splits(split(), split(), split(), tuple("abcdefg"))


def evaluate(counts: list[int]) -> dict[int, dict[str, Any]]:
    results = {}
    for count in counts:
        torch.manual_seed(0)
        net = ResNet(8, block="basic", base_channels=8, in_channels=1, num_classes=7, stem="cifar")
        module = Classifier(net, 7, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.ConstantLR))
        data = InMemoryDataModule(partial(noise, count), 6, 4, {}, [0.5], [0.25], seed=0)
        trainer = pl.Trainer(
            accelerator="cpu", devices=int(os.environ["LOCAL_WORLD_SIZE"]),
            logger=False, enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.test(module, datamodule=data, verbose=False)
        results[count] = {
            "world_size": trainer.world_size,
            "confusion": module.confusion.tolist(),
            "outcomes": module.outcomes.tolist(),
            **{name: float(value) for name, value in trainer.callback_metrics.items()},
        }
    return results


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[2:]]
    sys.exit(by_every_number(partial(evaluate, counts), Path(sys.argv[1])))
