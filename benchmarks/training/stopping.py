"""How a rank is asked to stop: at once outside of training; in training after a checkpoint at a step that all agree on."""

import signal
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from benchmarks.units import signal_name

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
GRACE_S = 15  # then the kernel ends the process: a collective whose peer hangs lets no Python handler run


class Interrupted(BaseException):
    """The process was asked to stop; the message names the signal."""


def interruption_behind(error: BaseException | None) -> Interrupted | None:
    """Return the interruption that led to an error: a library's clean-up may fail on what the signal left half done."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error


class StopRequest:
    """Whether this process, or in training any rank, has been asked to stop. A rank waits ``timeout_s`` for its peers'
    answer."""

    def __init__(self, timeout_s: float) -> None:
        self.received: str | None = None
        self.group: Any = None  # of the ranks, on the CPU: asking must not wait for a GPU
        self._timeout = timedelta(seconds=timeout_s)
        self._deferred = False

    def listen(self) -> None:
        """Take the signals over. SIGUSR2 is left to the supervisor."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def begin_training(self, trainer: pl.Trainer) -> None:
        """From here on a signal only leaves a note; every rank calls it."""
        if trainer.world_size > 1:
            self.group = dist.new_group(backend="gloo", timeout=self._timeout)
        self._deferred = True

    def end_training(self) -> None:
        """Raise Interrupted if a signal came too late for ``agreed``; from here on one ends the process at once."""
        self._deferred = False
        if self.received is not None:
            raise Interrupted(self.received)

    def agreed(self) -> bool:
        """Tell whether any rank has been asked to stop; all ranks call it at the same step."""
        requested = self.received is not None
        if self.group is None:
            return requested
        flag = torch.tensor(int(requested))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.group)
        if flag and not requested:
            self.received = "a signal to another rank"
        return bool(flag)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received is not None:
            return
        self.received = signal_name(number)
        signal.alarm(GRACE_S)
        if not self._deferred:
            raise Interrupted(self.received)


def silence(trainer: pl.Trainer) -> None:
    """Leave out Lightning's own handling of signals: its SIGTERM handler starts a collective, which deadlocks when the ranks
    are elsewhere, and its question at every step waits for the GPU (pytorch-lightning 2.6; issue 20806)."""
    connector, loop = trainer._signal_connector, trainer.fit_loop.epoch_loop
    connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
