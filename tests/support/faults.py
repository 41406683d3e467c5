"""Optimisers that go wrong when they are told to, and that count: how ranks fail and start, in real processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch


class FaultySGD(torch.optim.SGD):
    """SGD that does ``fault`` on ``rank`` at its ``at``-th step of a process; with ``once``, a file, only the first time.

    Args:
        fault: raise, hang, kill (SIGKILL to itself), orphan (SIGKILL to its parent), or none.
    """

    def __init__(self, params: Any, fault: str = "none", rank: int = 0, at: int = 2, once: str | None = None, **rest):
        super().__init__(params, **rest)
        self.fault, self.rank, self.at, self.once, self.steps = fault, rank, at, once, 0

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        self.steps += 1
        if self.steps == self.at and int(os.environ.get("RANK", 0)) == self.rank and self._first_time():
            if self.fault == "raise":
                raise LookupError(f"rank {self.rank} fails on purpose")
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "orphan":
                os.kill(os.getppid(), signal.SIGKILL)
            if self.fault in ("hang", "orphan"):
                time.sleep(1000)
        return result

    def _first_time(self) -> bool:
        if self.once is None:
            return True
        try:
            Path(self.once).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class CountedSGD(torch.optim.SGD):
    """SGD that leaves a line for each process that has built it.

    Args:
        starts: the file of these lines.
    """

    def __init__(self, params: Any, starts: str, **rest: Any) -> None:
        super().__init__(params, **rest)
        with open(starts, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
