"""What is drawn in a step does not depend on what came before it."""

from pathlib import Path

import pytest
from support.forked_trials import outcome
from support.plans import Plan, die

RECIPE = (
    *("+recipe.mixup=0.2", "+recipe.cutmix=1", "+recipe.label_smoothing=0.1", "+recipe.clip_gradient_norm=1"),
    *("+recipe.decay_norms_and_biases=false", "recipe.epochs=1"),
)


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
