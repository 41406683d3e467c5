"""Single configurations for tests."""

import torch

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial

CPU = torch.device("cpu")


def trial(*overrides: str) -> Trial:
    [found] = expand([*overrides, "trainer.accelerator=cpu"], multirun=False)
    assert isinstance(found, Trial)
    return found
