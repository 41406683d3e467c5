"""What the tasks share: a network, an optimiser, a schedule, and losses that are right at any world size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_modules.metrics.sums import MeanLoss, Outcomes

# images, targets, and for masks: weights of pixels (training), instance labels (evaluation)
Batch = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


class Supervised(pl.LightningModule):
    """A network trained by a loss per sample; subclasses state the loss and the metrics of their task.

    Every value is a torchmetrics object that sums over samples and over processes: Lightning's ``sync_dist`` averages the
    ranks' means, which is wrong for shards of unequal size.

    Args:
        net: maps images (N, C, H, W) to logits (N, classes, …).
        optimizer: called with the parameters.
        scheduler: called with the optimiser; stepped once an epoch. One that still needs ``total_steps`` is called with the
            number of training steps too, and stepped after each of them.
        decay_norms_and_biases: False leaves weight decay off them, as He et al. 2019 (Bag of tricks), §3.1.
        clip_gradient_norm: the largest norm of all gradients together (Pascanu et al. 2013); None clips nothing.

    Attributes:
        primary: the metric by which runs are compared; lower is better.
        label: the same for people, with its unit.
        definitions: every metric's full definition, by name.
        examples: pictures of the last test, where the task has some.
        confusion: counts of the last test, rows are true classes; None before it.
        outcomes: what came out for each image of the last test, integers in the order of the test set; None before it.
        schedules: False where a callback sets the learning rate of every step instead.
        micro_batches: parts of a process's share of a training batch, one after the other. Their gradients add up to those of
            the whole; batch-norm layers see the parts.

    Raises:
        ValueError: ``net`` is no torch.nn.Module or its state holds more than tensors, or the schedule follows a metric.
    """

    primary: str
    label: str
    definitions: dict[str, str]
    confusion: Tensor | None = None
    outcomes: Tensor | None = None
    examples: Sequence[tuple[Tensor, ...]] = ()
    schedules = True
    micro_batches = 1

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        decay_norms_and_biases: bool = True,
        clip_gradient_norm: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise ValueError(f"model._target_ makes a network, a torch.nn.Module, got a {type(net).__name__}")
        for name, value in net.state_dict().items():
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"a checkpoint holds tensors alone, and {name} of {type(net).__name__} is a {type(value).__name__}: "
                    "make it a buffer, or leave out get_extra_state"
                )
        if getattr(scheduler, "func", scheduler) is ReduceLROnPlateau:
            raise ValueError(
                "recipe.scheduler is a function of the epoch or step: ReduceLROnPlateau, which follows a metric, is none"
            )
        self.net = net
        self.decay_norms_and_biases = decay_norms_and_biases
        self.clip_gradient_norm = clip_gradient_norm
        self._optimizer = optimizer
        self._scheduler = scheduler
        self.train_loss = MeanLoss()
        self.losses = nn.ModuleDict({"val": MeanLoss(), "test": MeanLoss()})
        self.test_outcomes = Outcomes()

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook before and after it, 56 times a step; nn.Module would look for parameters.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def by_step(self) -> bool:
        """Whether the schedule is stepped after each training step, not after each epoch."""
        total_steps = signature(self._scheduler).parameters.get("total_steps")
        return total_steps is not None and total_steps.default is Parameter.empty

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes, …) of images (N, C, H, W). Raises ValueError where the network gives others."""
        expected = (len(images), *self.logits_shape(*images.shape[-2:]))
        logits = self.net(images)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            given = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            smaller = (
                "; one that gives fewer pixels says so by output_size(height, width)" if len(expected) == 4 else ""
            )
            raise ValueError(
                f"of images {list(images.shape)} the network must give logits {list(expected)}, of data.num_classes="
                f"{expected[1]}, got {given}{smaller}"
            )
        return logits

    def logits_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of an image's logits, (classes, …). Raises ValueError for sides that the network does not take."""
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return the loss of each sample, shape (N,)."""
        raise NotImplementedError

    def training_inputs(self, batch: Batch) -> Sequence[Any]:
        """Return images, targets and weights of a training batch."""
        return batch[:3]

    def sample_losses(self, images: Tensor, targets: Any, weights: Any = None) -> Tensor:
        """Return the loss of each sample of a training batch, shape (N,)."""
        return self.loss(self(images), targets, weights)

    def predict_logits(self, images: Tensor) -> Tensor:
        """Return the logits in evaluation."""
        return self(images)

    def update_metrics(self, split: str, logits: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics of ``split``."""
        raise NotImplementedError

    def compute_metrics(self, split: str) -> dict[str, Tensor]:
        """Return the metrics of ``split`` by name over all processes, and reset them."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimiser and its schedule, per epoch or per step. Raises ValueError where no weight learns."""
        if not any(parameter.requires_grad for parameter in self.net.parameters()):
            raise ValueError(f"{type(self.net).__name__} has no weight that learns: none has requires_grad")
        optimizer = self._optimizer(self.net.parameters() if self.decay_norms_and_biases else self._two_groups())
        if not self.schedules:
            return optimizer
        steps = {"total_steps": self._training_steps()} if self.by_step else {}
        schedule = {"scheduler": self._scheduler(optimizer, **steps), "interval": "step" if self.by_step else "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _two_groups(self) -> list[dict[str, Any]]:
        """Return the weights of layers, and without weight decay biases and what normalisation learns: vectors and numbers."""
        learns = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in learns if parameter.ndim > 1]},
            {"params": [parameter for parameter in learns if parameter.ndim <= 1], "weight_decay": 0.0},
        ]

    def configure_gradient_clipping(self, optimizer: Optimizer, *of_trainer: Any, **options: Any) -> None:
        """Clip the gradients of the whole batch, once all its parts are in."""
        if self.clip_gradient_norm is not None:
            self.clip_gradients(optimizer, self.clip_gradient_norm, "norm")

    def _training_steps(self) -> int:
        """Return the steps of the whole run. Lightning sets up the loader to count them; it does so again once a checkpoint is
        read, as only then does the loader begin at the checkpoint's place."""
        steps = int(self.trainer.estimated_stepping_batches)
        self.trainer.fit_loop._combined_loader = None
        return steps

    def learning_rates(self, count: int) -> list[float]:
        """Return the recipe's learning rate in each of ``count`` epochs, or steps, from its schedule on an optimiser of its
        own."""
        optimizer = self._optimizer([nn.Parameter(torch.zeros(()))])
        scheduler = self._scheduler(optimizer, total_steps=count) if self.by_step else self._scheduler(optimizer)
        rates = []
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of this process's part of the global batch."""
        inputs = self.training_inputs(batch)
        if self.micro_batches > 1:
            return self._accumulate(inputs)
        loss = self.sample_losses(*inputs)
        self.train_loss.update(loss.detach())
        return loss.mean()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Keep the gradients of micro-batches: Lightning calls this after ``training_step``, which then clears before them."""
        if self.micro_batches == 1:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the ``val`` metrics."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the ``test`` metrics."""
        self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Report the ``val`` metrics and the training loss since the last evaluation."""
        if self.train_loss.update_called:
            self._report({"train/loss": computed(self.train_loss)[0]})
        self._report(self._metrics("val"))

    def on_test_epoch_end(self) -> None:
        """Report the ``test`` metrics; keep the outcomes, where the task has some."""
        self._report(self._metrics("test"))
        if self.test_outcomes.update_called:
            self.outcomes = computed(self.test_outcomes).cpu()

    def _accumulate(self, inputs: Sequence[Any]) -> Tensor:
        """Add the gradients of all micro-batches but the last; return the mean loss, whose gradient is the part of the last.

        Under DDP this is within its forward, where it does not yet reduce: ranks meet in the last backward alone.
        """
        self.trainer.optimizers[0].zero_grad()
        images, parts = inputs[0], self.micro_batches
        size = -(-len(images) // parts)
        losses: list[Tensor] = []
        for part in range(1, parts + 1):
            rows = slice((part - 1) * size, part * size)
            share_of_batch: list[Any] = [None if values is None else values[rows] for values in inputs]
            loss = self.sample_losses(*share_of_batch)
            losses.append(loss.detach())
            share = loss.sum() / len(images)
            if part < parts:
                with torch.autocast(images.device.type, enabled=False):
                    self.trainer.strategy.backward(share, None)
        every = torch.cat(losses)
        self.train_loss.update(every)
        return share + (every.mean() - share.detach())

    def _evaluate(self, split: str, batch: Batch) -> None:
        images, targets, _, _ = batch
        logits = self.predict_logits(images)
        losses: Any = self.losses[split]
        losses.update(self.loss(logits, targets, None))
        self.update_metrics(split, logits, batch)

    def _metrics(self, split: str) -> dict[str, Tensor]:
        loss, images = computed(self.losses[split])
        values = {"loss": loss, "n": images.double(), **self.compute_metrics(split)}
        return {f"{split}/{name}": value for name, value in values.items()}

    def _report(self, metrics: Mapping[str, Tensor]) -> None:
        """Put metrics where callbacks read them. ``log`` would reduce them over batches and processes, which is done, and
        takes as long for each name as a layer of a small network."""
        self.trainer.callback_metrics.update(metrics)


def computed(metric: Any) -> Any:
    """Return the value of a metric over all processes, and reset it."""
    value = metric.compute()
    metric.reset()
    return value
