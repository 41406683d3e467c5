"""The energy that a run's GPUs use in training, as their own counters (NVML) state it: that of the whole board."""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch


class EnergyMeter:
    """Counts from ``start`` to ``stop``, again and again: ``millijoules`` up to the last ``stop``; None, and never a zero in
    its place, where any part of the run has no counter."""

    def __init__(self) -> None:
        self.millijoules: int | None = 0
        self._counters: Sequence[Callable[[], int]] = ()
        self._before: int | None = None

    def attach(self, trainer: pl.Trainer) -> None:
        """Finds the counters of the trial's devices: of all its processes, so that rank 0 asks alone."""
        device = trainer.strategy.root_device
        try:
            if device.type != "cuda" or trainer.num_nodes > 1:
                raise ValueError("no counter is in reach")
            self._counters = [energy_counter(torch.device("cuda", index)) for index in range(trainer.num_devices)]
        except ValueError:
            self.millijoules = None

    def start(self) -> None:
        """Reads the counters."""
        if self.millijoules is not None:
            self._before = self._read()

    def stop(self) -> None:
        """Adds what has been used since ``start``."""
        self.millijoules, self._before = self.so_far(), None

    def so_far(self) -> int | None:
        """Millijoules, with those since ``start``."""
        if self.millijoules is None or self._before is None:
            return self.millijoules
        return self.millijoules + self._read() - self._before

    @property
    def joules(self) -> float | None:
        """The same in joules; None before training too."""
        return None if self.millijoules is None or not self._counters else self.millijoules / 1000

    def _read(self) -> int:
        return sum(counter() for counter in self._counters)


def energy_counter(device: torch.device) -> Callable[[], int]:
    """A function that reads the energy that a GPU has used, in mJ, as NVML counts it; updated some ten times a second. Raises
    ValueError where the device has no such counter, or the package nvidia-ml-py is not installed."""
    refusal = (
        "this machine has no energy counter: trainer.max_train_joules needs nvidia-ml-py and an NVIDIA GPU since Volta"
    )
    if device.type != "cuda":
        raise ValueError(refusal)
    try:
        import pynvml
    except ImportError:
        raise ValueError(refusal) from None
    try:
        pynvml.nvmlInit()
        # Not by number: CUDA's numbers follow CUDA_VISIBLE_DEVICES, NVML's do not.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        raise ValueError(f"{refusal} ({error})") from error
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
