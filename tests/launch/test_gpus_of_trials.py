"""Which GPUs each of several trials has on one machine."""

from typing import Any

import pytest
from support.configurations import trial

from benchmarks.launch import checks, sweep
from benchmarks.launch.checks import missing_resources
from benchmarks.launch.sweep import LocalExecutor


def taken(count: int, devices: int, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The GPUs of each trial, all at a time, of four."""
    monkeypatch.setattr(sweep, "gpus", lambda: 4)
    executor: Any = LocalExecutor({"workers": count})
    return [list(executor._take_gpus({"trainer": {"devices": devices}})) for _ in range(count)]


def test_each_trial_has_its_own_gpus_while_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(4, 1, monkeypatch) == [["0"], ["1"], ["2"], ["3"]]
    assert taken(2, 2, monkeypatch) == [["0", "1"], ["2", "3"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b,GPU-a")
    assert taken(2, 1, monkeypatch) == [["GPU-b"], ["GPU-a"]]


def test_more_trials_share_them_evenly_and_the_next_has_the_gpu_that_is_free_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert taken(6, 1, monkeypatch) == [["0"], ["1"], ["2"], ["3"], ["0"], ["1"]]
    assert taken(3, 2, monkeypatch) == [["0", "1"], ["2", "3"], ["0", "1"]], "a trial's own differ"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    executor: Any = LocalExecutor({"workers": 4})
    one = {"trainer": {"devices": 1}}
    assert [executor._take_gpus(one) for _ in range(4)] == [["5"], ["7"], ["5"], ["7"]]
    executor._give_back(["7"])
    assert executor._take_gpus(one) == ["7"]


@pytest.mark.parametrize(
    ("overrides", "at_a_time", "said"),
    [
        ([], 2, None),
        (
            [],
            3,
            "for each of launch.workers=3, but this machine has 2 GPUs; cluster.oversubscribe=true lets trials share a GPU",
        ),
        (["cluster.oversubscribe=true"], 16, None),
        (["trainer.devices=2", "cluster.oversubscribe=true"], 3, None),
        (["trainer.devices=3"], 1, "trainer.devices=3, but this machine has 2 GPUs"),
        (["trainer.devices=3", "cluster.oversubscribe=true"], 2, "trainer.devices=3, but this machine has 2 GPUs"),
    ],
)
def test_trials_may_share_gpus_and_the_processes_of_one_may_not(
    overrides: list[str], at_a_time: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "on_gpu", lambda config: True)
    monkeypatch.setattr(checks, "gpus", lambda: 2)
    problem = missing_resources(trial("recipe.batch_size=24", *overrides), at_a_time)
    assert problem is None if said is None else problem is not None and problem.endswith(said)
