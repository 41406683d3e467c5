"""What is refused before any trial of a sweep starts."""

from pathlib import Path

import pytest

from benchmarks.config.compose import expand, expand_all
from benchmarks.config.trial import ConfigurationError
from benchmarks.launch.checks import check_distinct, refusal


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["cluster.threads_per_process=1,2"], "cluster.threads_per_process"),
        (["model=resnet,resnext", "launch.workers=1,2"], "launch.workers"),
        (["trainer.accelerator=cpu,gpu", "seed=0,1"], "trainer.accelerator"),
    ],
)
def test_a_sweep_over_how_runs_are_run_is_refused(overrides: list[str], keys: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_distinct(expand(overrides, multirun=True))
    assert str(error.value).startswith(f"{keys}: no part of what a run computes") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=resnet,resnext", "seed=0,0"],
        ["trainer.devices=1,2"],
        ["cluster.threads_per_process=1,2", "output_root='outputs/${cluster.threads_per_process}'"],
        ["launch.workers=2", "model.depth=20,26"],  # the second is impossible
        ["experiment=resnext_table7", "seed=0,1"],
    ],
)
def test_any_other_sweep_is_run(overrides: list[str]) -> None:
    check_distinct(expand(overrides, multirun=True))


def test_a_test_is_bound_by_options_of_the_network_and_not_by_batches_of_training(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    tested = [
        "model=resnet",
        "mode=test",
        f"weights={tmp_path / 'w.pt'}",
        "trainer.devices=3",
        f"output_root={tmp_path}",
    ]
    for options, said in (
        ([], None),
        (["trainer.compile=true", "trainer.gradient_checkpointing=true"], "exclude each other"),
        (["trainer.cuda_graph=true"], "not with several processes"),
    ):
        [trial] = expand_all([*tested, *options])
        problem = refusal(trial)
        assert problem is None if said is None else said in str(problem)
