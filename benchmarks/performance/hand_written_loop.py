"""A hand-written training loop beside Lightning's, interleaved, with the same weights at the end."""

import copy
import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from math import ceil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import get_class, instantiate
from torch import Tensor, nn

from benchmarks.config.compose import expand_all
from benchmarks.launch.new_record import new_record
from benchmarks.performance.cases import Case
from benchmarks.performance.interleaved import with_interval
from benchmarks.records.files import RECORD, write_json
from benchmarks.records.hardware import on_gpu
from benchmarks.records.record import to_json
from benchmarks.training.open_run import OpenRun
from benchmarks.training.options import synchronize
from benchmarks.training.stopping import StopRequest
from benchmarks.training.train import train
from benchmarks.units import plural

# A GPU runs behind the host, and is waited for where the round ends. Fewer than an epoch has: its last round does not count.
ROUND_STEPS = {"cpu": 1, "cuda": 4}  # steps
WARM_UP = 3  # rounds left out


@dataclass(frozen=True)
class Round:
    """Seconds of a step in one round, the suite's and the hand-written loop's: clock and processor time.

    ``batch_processor`` is what of the hand-written loop's went into making the batch.
    """

    suite: float
    bare: float
    suite_processor: float
    bare_processor: float
    batch_processor: float


class BareLoop:
    """Training as one would write it by hand.

    Args:
        net: on its device, in its layout.
        recipe: a configuration's; the schedule goes by epochs, or by steps where it takes ``total_steps``.
        loader: batches of images, targets, weights of pixels or None, and one thing more; or of images and the objects of each.
        precision: ``32-true`` or ``bf16-mixed``.
        epochs: in all, for a schedule by steps.
        seed: of the run, for a detector's drawing of regions.

    Raises:
        ValueError: another precision.
    """

    def __init__(
        self,
        net: nn.Module,
        recipe: Mapping[str, Any],
        loader: Any,
        precision: str = "32-true",
        epochs: int = 1,
        seed: int = 0,
    ) -> None:
        if precision not in {"32-true", "bf16-mixed"}:
            raise ValueError(f"both loops have trainer.precision=32-true and bf16-mixed, got {precision}")
        self.net: Any = net
        self.optimizer = instantiate(recipe["optimizer"])(net.parameters())
        schedule = instantiate(recipe["scheduler"])
        self.by_step = "total_steps" in signature(schedule).parameters
        total = {"total_steps": epochs * len(loader)} if self.by_step else {}
        self.scheduler = schedule(self.optimizer, **total)
        self.loader = loader
        self.seed = seed
        self.steps = 0
        self.device = next(net.parameters()).device
        self.half = precision == "bf16-mixed"
        self.batch_s = 0.0
        self._batches: Iterator[Any] = iter(())

    def begin(self, epoch: int) -> None:
        """Start an epoch."""
        if epoch and not self.by_step:
            self.scheduler.step()
        self.loader.sampler.set_epoch(epoch)
        self._batches = iter(self.loader)

    def step(self) -> None:
        """Make a step; the processor time of making its batch is added to ``batch_s``."""
        started = time.thread_time()
        batch = next(self._batches)
        self.batch_s += time.thread_time() - started
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            loss = self._of_objects(*batch) if isinstance(batch[1], list) else self._of_classes(*batch[:3])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.by_step:
            self.scheduler.step()
        self.steps += 1

    def _of_classes(self, *batch: Tensor | None) -> Tensor:
        images, targets, weights = (part if part is None else part.to(self.device, non_blocking=True) for part in batch)
        return mean_loss(self.net(images), targets, weights)

    def _of_objects(self, images: Tensor, objects: Sequence[Mapping[str, Tensor]]) -> Tensor:
        targets, generators = [], []
        for one in objects:
            target = {name: value.to(self.device, non_blocking=True) for name, value in one.items()}
            targets.append(target | {"boxes": target["boxes"] * target["scale"].repeat(2)})
            # The suite's numbers, so that both loops learn from the same regions.
            place = f"regions {self.seed} {self.steps} {int(one['image'])}".encode()
            number = int.from_bytes(hashlib.blake2b(place, digest_size=7).digest())
            generators.append(torch.Generator().manual_seed(number))
        losses, _ = self.net.losses(images.to(self.device, non_blocking=True), targets, generators)
        return torch.stack(list(losses.values())).sum(dim=0).mean()


def mean_loss(logits: Tensor, targets: Any, weights: Tensor | None) -> Tensor:
    """Return the cross-entropy, mean over images and pixels, each pixel times its weight if given."""
    if weights is None:
        return F.cross_entropy(logits, targets)
    return (F.cross_entropy(logits, targets, reduction="none") * weights).mean()


class InterleavedLoader:
    """The trainer's loader; before each round of its steps the hand-written loop makes as many.

    A step of ours lasts from the asking for its batch to the asking for the next: with all that the trainer does between.

    Args:
        loader: the trainer's own.
        sampler: what the trainer tells the epoch, by default the loader's.
        parts: how many parts of a batch the trainer takes, as images and targets; by default all.
    """

    def __init__(self, loader: Any, bare: BareLoop, sampler: Any = None, parts: int | None = None) -> None:
        self.loader = loader
        self.sampler = sampler or loader.sampler
        self.bare = bare
        self.parts = parts
        self.rounds: list[Round] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """Yield an epoch's batches. Its last round is not counted: evaluation follows, and nobody asks for another batch."""
        self.bare.begin(self.sampler.epoch)
        batches, left = iter(self.loader), len(self)
        while left:
            round_steps = min(ROUND_STEPS[self.bare.device.type], left)
            begun, batch_s = self._now(), self.bare.batch_s
            for _ in range(round_steps):
                self.bare.step()
            between = self._now()
            for _ in range(round_steps):
                batch = next(batches)
                yield batch if self.parts is None else batch[: self.parts]
            after, left = self._now(), left - round_steps
            suite, bare = (
                tuple((b - a) / round_steps for a, b in zip(first, last, strict=True))
                for first, last in ((between, after), (begun, between))
            )
            self.rounds.append(Round(suite[0], bare[0], suite[1], bare[1], (self.bare.batch_s - batch_s) / round_steps))

    def _now(self) -> tuple[float, float]:
        synchronize(self.bare.device)
        return time.perf_counter(), time.thread_time()


class Trainer(pl.Trainer):
    """The trainer, with the hand-written loop beside it; ``beside`` is made by ``fit``."""

    recipe: Mapping[str, Any]
    beside: InterleavedLoader

    def fit(self, model: Any, *, datamodule: Any, **keywords: Any) -> None:  # type: ignore[override]
        """Train both."""
        device = self.strategy.root_device
        net, make_loader = copy.deepcopy(model.net).to(device).train(), datamodule.train_dataloader
        if model.net._compiled_call_impl is not None:  # which a copy is not
            net.compile()

        def train_dataloader() -> InterleavedLoader:
            seed = getattr(model, "seed", 0)
            bare = BareLoop(net, self.recipe, make_loader(), self.precision, self.max_epochs or 1, seed)
            self.beside = InterleavedLoader(make_loader(), bare)
            return self.beside

        datamodule.train_dataloader = train_dataloader
        super().fit(model, datamodule=datamodule, **keywords)


def random_classes(count: int, held_out: int, shape: Sequence[int], classes: int) -> Any:
    """Return random images uint8 of a data set's size: ``count`` for training, ``held_out`` each for val and test."""
    # By their names, as a configuration has them: datamodules and benchmarks do not know each other.
    splits, split = (get_class(f"datamodules.readers.splits.{name}") for name in ("Splits", "Split"))
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Any:
        images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
        return split(images, torch.arange(count) % classes)

    return splits(train=part(count), val=part(held_out), test=part(held_out), classes=tuple(map(str, range(classes))))


def length(case: Case, batch: int, steps: int) -> tuple[int, int]:
    """Return the steps of an epoch, and how many epochs cover ``steps``; raise ValueError where an epoch has no batch."""
    per_epoch = steps if case.images is None else case.images // batch
    if not per_epoch:
        raise ValueError(f"--batch={batch}: the training split has {case.images} images")
    return per_epoch, ceil(steps / per_epoch)


def counted_rounds(per_epoch: int, epochs: int, device: str) -> int:
    """Return how many rounds count on a ``cpu`` or ``cuda``: not each epoch's last, nor the first few; below 1 if none."""
    return epochs * (ceil(per_epoch / ROUND_STEPS[device]) - 1) - WARM_UP


def configuration(case: Case, root: Path, batch: int | None, steps: int, overrides: Sequence[str]) -> Any:
    """Return the trial of a case, with epochs enough for ``steps`` and random images where it has none; raise as ``length``."""
    sizes = [] if batch is None else [f"recipe.batch_size={batch}"]
    place = (f"output_root={root}", "logger=none", "cluster.threads_per_process=1")
    [run] = expand_all([*case.overrides, *sizes, *place, *overrides], multirun=False)
    config, data = run.config, run.config["data"]
    batch_size = config["recipe"]["batch_size"]
    per_epoch, epochs = length(case, batch_size, steps)
    config["trainer"] |= {"_target_": f"{__name__}.Trainer", "max_epochs": epochs}
    if case.images is None:
        config["datamodule"]["source"] = {
            "_target_": f"{__name__}.random_classes",
            "_partial_": True,
            "count": per_epoch * batch_size,
            "held_out": case.held_out,
            "shape": [data["in_channels"], *data["image_size"]],
            "classes": data["num_classes"],
        }
        config["datamodule"]["sha256"] = None
    return run


def prepare(case: Case, steps: int, root: Path) -> tuple[dict[str, Any], Any]:
    """Return the configuration and the datamodule of a case, as a run has them before it builds its network."""
    config = configuration(case, root, case.batch, steps, ()).config
    torch.set_num_threads(1)
    pl.seed_everything(config["seed"], verbose=False)
    datamodule = instantiate(config["datamodule"])
    datamodule.setup("fit")
    return config, datamodule


def measure(
    case: Case, batch: int | None, steps: int, overrides: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any], Trainer]:
    """Run a case in this process, with one thread, tested and recorded as any run; return what ``run_trial`` does.

    Raises:
        ValueError: as ``configuration``, or no round would count.
    """
    with tempfile.TemporaryDirectory() as root:
        trial = configuration(case, Path(root), batch, steps, overrides)
        per_epoch, epochs = length(case, trial.config["recipe"]["batch_size"], steps)
        if counted_rounds(per_epoch, epochs, "cuda" if on_gpu(trial.config) else "cpu") < 1:
            raise ValueError(
                f"no round would count of {plural(epochs, 'epoch')} of {plural(per_epoch, 'step')}: the first {WARM_UP} do "
                "not, nor each epoch's last; more --steps or a smaller --batch make more"
            )
        Trainer.recipe = trial.config["recipe"]
        return run_trial(trial)


def run_trial(trial: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Run a trial in this process; return its record, its trainer's configuration with what was in effect, and its trainer."""
    config = trial.config
    trial.directory.mkdir(parents=True)
    record = new_record(config, trial.overrides, None)
    write_json(trial.directory / RECORD, to_json(record))
    run = OpenRun(trial.directory, config, record, StopRequest(config["launch"]["collective_timeout_s"]))
    train(run)
    measured = to_json(run.record)
    in_effect = {name: measured["parallel"][name] for name in ("precision", "channels_last", "compile")}
    return measured, config["trainer"] | in_effect, run.trainer


def summarise(rounds: Sequence[Round], processor: bool) -> dict[str, Any]:
    """Return medians over the rounds after the first few; times in ms, what is added in microseconds.

    processor: ratios and differences are of processor time, which does not depend on what else the machine does.
    """
    counted = rounds[WARM_UP:]
    suite = [timing.suite_processor if processor else timing.suite for timing in counted]
    bare = [timing.bare_processor if processor else timing.bare for timing in counted]
    return {
        "rounds": len(counted),
        "ours_ms": 1e3 * statistics.median(timing.suite for timing in counted),
        "bare_ms": 1e3 * statistics.median(timing.bare for timing in counted),
        **with_interval("ratio", [a / b for a, b in zip(suite, bare, strict=True)]),
        "added_us": 1e6 * statistics.median(a - b for a, b in zip(suite, bare, strict=True)),
        "batch_share": statistics.median(timing.batch_processor / timing.bare_processor for timing in counted),
    }
