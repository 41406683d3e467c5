"""The energy of training: sums over devices, stops in evaluation, goes on after a resume, and is never a zero for nothing."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.training import energy
from benchmarks.training.energy import EnergyMeter


def trainer(device: str = "cuda", devices: int = 2, nodes: int = 1) -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, num_devices=devices, num_nodes=nodes)


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the devices' counters show, in mJ."""
    shown = [1_000_000, 5_000_000]
    monkeypatch.setattr(energy, "energy_counter", lambda device: lambda: shown[device.index])
    return shown


def test_training_alone_is_counted_over_all_devices(counters: list[int]) -> None:
    meter = EnergyMeter()
    assert meter.joules is None
    meter.attach(trainer())
    meter.start()
    counters[0] += 3000
    counters[1] += 500
    meter.stop()
    counters[0] += 70_000  # evaluation
    assert meter.joules == 3.5
    meter.start()
    counters[1] += 250
    assert meter.joules == 3.5
    assert meter.so_far() == 3750  # what a checkpoint amid an epoch holds

    resumed = EnergyMeter()
    resumed.millijoules = meter.so_far()
    counters[:] = [0, 0]  # another machine
    resumed.attach(trainer())
    resumed.start()
    counters[0] += 250
    resumed.stop()
    assert resumed.joules == 4.0


@pytest.mark.parametrize("where", [trainer("cpu"), trainer(nodes=2)], ids=["cpu", "two machines"])
def test_without_a_counter_for_all_of_it_there_is_none(counters: list[int], where: Any) -> None:
    meter = EnergyMeter()
    meter.attach(where)
    meter.start()
    meter.stop()
    assert meter.joules is None and meter.so_far() is None
    resumed = EnergyMeter()
    resumed.millijoules = meter.so_far()  # a part that nobody counted
    resumed.attach(trainer())
    resumed.start()
    counters[0] += 250
    resumed.stop()
    assert resumed.joules is None
