"""Steps on a device that is not there: prints by name what they would wait for, as JSON; a text is an error.

Tensors of PyTorch's FakeTensorMode carry shapes and devices and no values: whatever needs a value raises, and so does whatever
mixes devices; copies between devices are listed. A process of its own, as the device is the whole process's.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.augmentation.crops import Augmentation
from datamodules.augmentation.elastic import Elastic
from datamodules.in_memory import DeformedBatches, EvaluationBatches, TrainBatches
from datamodules.loading.batching import TrainRows
from datamodules.readers.splits import Split
from lightning_modules.classifier import Classifier
from lightning_modules.segmenter import Segmenter
from lightning_modules.supervised import Supervised

GPU = torch.device("privateuseone", 0)  # for which PyTorch has no code; "cuda" would look for its driver
COUNT, CLASSES = 8, 10


@cache
def fake_mode() -> FakeTensorMode:
    """The mode, made at the first step: it loads the compiler, and every process of tests reads the names of the steps."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class Copies(TorchDispatchMode):
    """Lists what is copied between devices without ``non_blocking``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        waits = not (kwargs or {}).get("non_blocking")
        if waits and function is torch.ops.aten._to_copy.default and result.device != args[0].device:
            self.found.append(f"{list(args[0].shape)} from {args[0].device} to {result.device}")
        if function is torch.ops.aten.copy_.default and args[0].device != args[1].device and not any(args[2:]):
            self.found.append(f"{list(args[1].shape)} from {args[1].device} into {args[0].device}")
        return result


def with_values(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments)

    return called


@contextmanager
def copies() -> Iterator[list[str]]:
    """The waiting copies of what is done within, without gradients: for these PyTorch's engine would look for the GPU."""
    listed = Copies()
    with torch.no_grad(), fake_mode(), listed:
        yield listed.found


def fake(values: Tensor) -> Tensor:
    with fake_mode():
        return torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device=GPU)


def moved(batches: Any) -> Any:
    """A set of batches, its arrays on the GPU."""
    split = batches.split
    batches.split = replace(split, images=fake(split.images), targets=fake(split.targets))
    for name, value in vars(batches).items():
        if isinstance(value, Tensor | torch.device):
            setattr(batches, name, fake(value) if isinstance(value, Tensor) else GPU)
    return batches


def loaded(module: Supervised) -> Supervised:
    """A module with its weights and metrics on the GPU; what it shows of a test has been taken."""
    module.examples = [(torch.zeros(()),)] * 100
    return module._apply(fake)


CLASSES_SPLIT = Split(torch.zeros(COUNT, 3, 8, 8, dtype=torch.uint8), torch.zeros(COUNT, dtype=torch.int64))
MASKS_SPLIT = Split(torch.zeros(COUNT, 1, 16, 16, dtype=torch.uint8), torch.zeros(COUNT, 16, 16, dtype=torch.uint8))
ROWS = TrainRows(torch.tensor([5, 0, 3, 2]), epoch=1, batch=2, first=0, global_rows=torch.tensor([5, 0, 3, 2]))


def augmented() -> Any:
    augmentation = Augmentation({"crop_padding": 2, "horizontal_flip": True})
    return TrainBatches(CLASSES_SPLIT, augmentation, torch.tensor([0.5] * 3), torch.tensor([0.2] * 3), 0), ROWS


def turned() -> Any:
    augmentation = Augmentation({"crop_size": 8, "dihedral": True, "gain": 0.1})
    return TrainBatches(MASKS_SPLIT, augmentation, torch.tensor([0.5]), torch.tensor([0.2]), 0), ROWS


def deformed() -> Any:
    elastic = Elastic((12, 12), (8, 8), shift=2)
    weights, mean, std = torch.zeros(COUNT, 16, 16), torch.tensor([0.5]), torch.tensor([0.2])
    return DeformedBatches(MASKS_SPLIT, elastic, weights, mean, std, 0), ROWS


def evaluated() -> Any:
    return EvaluationBatches(CLASSES_SPLIT, torch.tensor([0.5] * 3), torch.tensor([0.2] * 3)), range(2, 7)


def classifier() -> tuple[Supervised, Tensor, Tensor]:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
    module = Classifier(net, CLASSES, None, None)
    return loaded(module), fake(torch.zeros(COUNT, 3, 8, 8)), fake(torch.zeros(COUNT, dtype=torch.int64))


def segmenter() -> tuple[Supervised, Tensor, Tensor]:
    module = Segmenter(nn.Conv2d(1, 3, 3, padding=1), 3, None, None, scores=None, tiles=None)
    return loaded(module), fake(torch.zeros(COUNT, 1, 8, 8)), fake(torch.zeros(COUNT, 8, 8, dtype=torch.int64))


def make_batch(make: Callable[[], Any]) -> None:
    batches, rows = make()
    moved(batches)
    with copies() as waited:
        batch = batches[rows]
    assert {part.device for part in batch if part is not None} == {GPU}, "made elsewhere"
    assert waited == [], waited


def train_and_evaluate(make: Callable[[], Any]) -> None:
    module, images, targets = make()
    batch = (images, targets, None, None)
    with copies() as waited:
        assert module.training_step(batch, 0).device == GPU
        module.validation_step(batch, 0)
        module.test_step(batch, 0)
    assert waited == [], waited


def copy_back(values: Tensor) -> None:
    with copies() as waited:
        values.cpu()
    assert waited == [], waited


def given(function: Callable[[Tensor], Any]) -> Callable[[], None]:
    def called() -> None:
        with copies():
            function(fake(torch.zeros(3)))

    return called


# What waits, so that a test can tell that it would be noticed.
WAITING: dict[str, Callable[[], Any]] = {
    "copy back": lambda: copy_back(fake(torch.zeros(3))),
    "read a value": given(lambda values: values.sum().item()),
    "count by bincount": given(lambda values: torch.bincount(values.long(), minlength=3)),
    "copy a number": given(lambda values: torch.as_tensor(1.0, device=GPU)),
}
STEPS: dict[str, Callable[[], Any]] = {
    **{make.__name__: lambda make=make: make_batch(make) for make in (augmented, turned, deformed, evaluated)},
    **{make.__name__: lambda make=make: train_and_evaluate(make) for make in (classifier, segmenter)},
}


def problem(step: Callable[[], Any]) -> str | None:
    """What would be waited for."""
    try:
        step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


if __name__ == "__main__":
    backend_registration._setup_privateuseone_for_python_backend()
    # Pinning memory needs a GPU's driver; random numbers are drawn in the machine's memory, and have values.
    Tensor.pin_memory = lambda values: torch.empty(values.shape, dtype=values.dtype)  # type: ignore[method-assign]
    for kind in (Augmentation, Elastic):
        kind.draw = with_values(kind.draw)  # type: ignore[method-assign]
    print(json.dumps({name: problem(step) for name, step in (WAITING | STEPS).items()}))
