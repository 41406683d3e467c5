"""What is drawn in a step does not depend on what came before it."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.forked_trials import outcome
from support.plans import Plan, die

from benchmarks.training.step_seed import StepSeed

RECIPE = (
    *("+recipe.mixup=0.2", "+recipe.cutmix=1", "+recipe.label_smoothing=0.1", "+recipe.clip_gradient_norm=1"),
    *("+recipe.decay_norms_and_biases=false", "recipe.epochs=1"),
)


def drawn(seed: int, step: int, rank: int) -> float:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_step=step, global_rank=rank, strategy=strategy)
    StepSeed(seed).on_train_batch_start(trainer)
    return torch.rand((), dtype=torch.float64).item()


def test_every_seed_step_and_rank_draws_numbers_of_its_own() -> None:
    places = list(itertools.product((0, 1, 12), repeat=3))
    numbers = [drawn(*place) for place in places]
    assert len(set(numbers)) == len(places)
    assert [drawn(*place) for place in reversed(places)] == numbers[::-1]


@pytest.mark.slow
def test_a_killed_run_on_mixed_images_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    plan = Plan(tmp_path, {"mixed": ([*RECIPE], 1), "plain": (["recipe.epochs=1"], 1)})
    plan.add("undisturbed", "mixed", None)
    plan.add("killed", "mixed", die("after Checkpoints.on_train_batch_end", 3), None)
    plan.add("plain", "plain", None)
    results = plan.run()
    assert all(result["status"] == "ok" for result in results.values())
    undisturbed, killed, plain = (
        outcome(Path(results[name]["directory"])) for name in ("undisturbed", "killed", "plain")
    )
    assert killed == undisturbed != plain
    assert [entry["step"] for entry in results["killed"]["resumptions"]] == [4]
