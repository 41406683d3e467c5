"""What trainer=auto measures by itself: within its time, kept, once; runs take the fastest of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import records, run_here
from support.configurations import trial

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.performance import brief_tuning, step_time
from benchmarks.records.files import read_json, write_json
from benchmarks.records.hardware import hardware
from benchmarks.training import default_settings, tuned_settings
from benchmarks.training.environment import environment
from benchmarks.training.train import tuned_arguments

SMALL = ("model=resnet", "model.depth=8", "model.base_channels=4", "recipe.batch_size=8", "trainer=auto",
         "cluster.threads_per_process=1", "trainer.accelerator=cpu", "logger=none")  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN, NHWC = tuned_settings.PLAIN, tuned_settings.PLAIN | {"channels_last": True}
BF16, BF16_NHWC = ({**one, "precision": "bf16-mixed"} for one in (PLAIN, NHWC))


def asked(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[Any]:
    """The networks of which a sweep of these overrides has something measured."""
    calls: list[Any] = []

    def ask(module: str, network: Any, threads: int) -> dict[str, Any]:
        calls.append(json.loads(json.dumps(network)))
        return {"line": "chosen"}

    lines: list[str] = []
    monkeypatch.setattr(brief_tuning, "ask", ask)
    monkeypatch.setattr(brief_tuning, "machine", lambda gpu: hardware(environment(torch.device("cpu"))))
    brief_tuning.measure_missing(expand(list(overrides), multirun=True), lines.append)
    assert lines == ["trainer=auto: chosen"] * len(calls)
    return calls


def test_what_is_measured_is_kept_and_taken_by_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_tuning, "MOST_S", 60.0)  # that a busy machine has time; there are 50 rounds at most
    overrides = (*SMALL, "recipe.epochs=5000", f"output_root={tmp_path}")
    config = trial(*overrides).config
    [before] = asked(monkeypatch, *overrides, "seed=0,1")
    assert before["config"]["name"] == config["name"], "two seeds are one network"
    line = brief_tuning.measure(config, before["wanted"])
    [path] = (tmp_path / tuned_settings.FOLDER).glob("*.json")
    [entry] = (read_json(path) or {})["networks"].values()
    assert f"kept in {path}" in line and line.startswith("resnet8: float32 ")
    rows = entry["settings"]
    assert [row["channels_last"] for row in rows] == [False, True] and {row["precision"] for row in rows} == {"32-true"}
    assert all(row["train_images_per_s"] > 0 for row in rows)
    fastest = max(rows, key=lambda row: row["train_images_per_s"])
    gain = fastest["train_images_per_s"] / rows[0]["train_images_per_s"]
    arguments, loading = tuned_arguments(config, tmp_path)
    assert arguments["channels_last"] == (fastest["channels_last"] and gain >= tuned_settings.WORTH)
    assert loading == {}
    assert asked(monkeypatch, *overrides) == [], "a sweep that goes on measures nothing again"
    content = read_json(path) or {}
    write_json(path, content | {"hardware": content["hardware"] | {"torch": "1.0"}})
    assert len(asked(monkeypatch, *overrides)) == 1, "another version of torch has measured it"
    write_json(path, content | {"networks": {key: {"name": "resnet8"} for key in content["networks"]}})
    assert len(asked(monkeypatch, *overrides)) == 1, "nothing that it could take is kept"
    write_json(path.with_name("another_machine.json"), content)
    path.unlink()
    assert len(asked(monkeypatch, *overrides)) == 1, "another machine has measured it"


def test_a_network_that_cannot_be_measured_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a process, and a limit of time, of its own."""

    def ask(module: str, network: Any, threads: int) -> dict[str, Any]:
        if network["config"]["name"] == "resnet8":
            raise ValueError("a few steps took more than 600 s")
        return {"line": f"{network['config']['name']}: float32 NCHW eager"}

    lines: list[str] = []
    monkeypatch.setattr(brief_tuning, "ask", ask)
    others = [text for text in SMALL if not text.startswith("model.depth")]
    trials = expand([*others, "model.depth=8,14", f"output_root={tmp_path}"], multirun=True)
    brief_tuning.measure_missing(trials, lines.append)
    assert lines == [
        "trainer=auto: resnet8: nothing was measured (a few steps took more than 600 s), the default setting stays",
        "trainer=auto: resnet14: float32 NCHW eager",
    ]


def test_a_process_measures_a_network_or_says_why_not(tmp_path: Path) -> None:
    """A training of one step, whose two per cent are no whole second, is too short to keep anything."""
    config = trial(*SMALL, "recipe.epochs=1", "trainer.limit_train_batches=1", f"output_root={tmp_path}").config
    line = brief_tuning.main({"config": config, "wanted": [PLAIN, NHWC]})["line"]
    seconds = re.match(r"resnet8: (\S+) s of measuring, 2% of its training at most, do not cover its steps; ", line)
    assert seconds is not None and 0 < float(seconds[1]) < 1
    assert not (tmp_path / tuned_settings.FOLDER).exists()
    joules = {"config": config | {"trainer": config["trainer"] | {"max_train_joules": 1}}, "wanted": [PLAIN, NHWC]}
    assert brief_tuning.main(joules)["error"].startswith("trainer.max_train_joules cannot be forecast")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ([], [PLAIN, NHWC]),
        (["trainer.precision=bf16-mixed"], [BF16, BF16_NHWC]),
        (["trainer.precision=auto"], [BF16, BF16_NHWC]),
        (["trainer.allow_reduced_precision=true"], [PLAIN, NHWC, BF16, BF16_NHWC]),
        (["trainer.allow_reduced_precision=true,false"], [PLAIN, NHWC, BF16, BF16_NHWC]),
        (["trainer.allow_reduced_precision=false,true"], [PLAIN, NHWC, BF16, BF16_NHWC]),
        (["trainer.allow_reduced_precision=true", "trainer.channels_last=true"], [NHWC, BF16_NHWC]),
        *(([f"trainer.precision={name}"], []) for name in ("64-true", "bf16-true", "16-true")),
        (["trainer.compile=true"], []),
    ],
)
def test_what_is_measured_is_what_the_trials_may_take(
    overrides: list[str], wanted: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplies_bf16(monkeypatch)
    networks = asked(monkeypatch, *SMALL, f"output_root={tmp_path}", *overrides)
    assert [network["wanted"] for network in networks] == ([wanted] if wanted else [])


def multiplies_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_tuning, "multiplies_bf16", lambda gpu: True)
    monkeypatch.setattr(default_settings, "multiplies_bf16", lambda gpu: True)


def test_what_was_not_measured_before_is_measured_with_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplies_bf16(monkeypatch)
    overrides = (*SMALL, f"output_root={tmp_path}")
    key = tuned_settings.key_of(tuned_settings.specification(trial(*overrides).config))
    kept = [one | {"train_images_per_s": rate} for one, rate in ((PLAIN, 1.0), (BF16, 2.0), (BF16_NHWC, None))]
    here = hardware(environment(torch.device("cpu")))
    tuned_settings.keep(tmp_path, here, key, {"settings": kept, "workers": [], "batches": []})
    assert asked(monkeypatch, *overrides, "trainer.precision=bf16-mixed") == [], (
        "its time did not suffice for the other"
    )
    for allowed in ("null", "true"):
        [network] = asked(monkeypatch, *overrides, f"trainer.allow_reduced_precision={allowed}")
        assert network["wanted"] == [PLAIN, NHWC, BF16, BF16_NHWC]


def test_a_precision_that_is_set_is_measured_and_its_layout_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brief_tuning, "MOST_S", 60.0)
    monkeypatch.setattr(
        step_time, "interleaved", lambda plain, one, *_: {"ratios": [3 if one["options"]["channels_last"] else 2]}
    )
    overrides = (*SMALL, "recipe.epochs=5000", f"output_root={tmp_path}")
    config = trial(*overrides, "trainer.precision=bf16-mixed").config
    line = brief_tuning.measure(config, [BF16, BF16_NHWC])
    assert line.startswith(
        "resnet8: bf16 channels_last eager; images/s as a multiple of those of float32 NCHW eager: bf16 NCHW eager 2.00, "
        "bf16 channels_last eager 3.00 ("
    )
    arguments, _ = tuned_arguments(config, tmp_path)
    assert {name: arguments[name] for name in BF16_NHWC} == BF16_NHWC


def test_what_is_set_or_runs_elsewhere_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"output_root={tmp_path}"
    assert len(asked(monkeypatch, *SMALL, root)) == 1
    for override in ("trainer=default", "trainer.channels_last=true", "cluster=slurm"):
        others = [text for text in SMALL if text.split("=")[0] != override.split("=")[0]]
        assert asked(monkeypatch, *others, override, root) == [], override
    allowed = asked(monkeypatch, *SMALL, "trainer.channels_last=true", "trainer.allow_reduced_precision=true", root)
    assert len(allowed) == 1, "precision is left to choose"


@pytest.mark.slow
def test_short_training_is_not_measured_and_runs(tmp_path: Path) -> None:
    """Two per cent of a few steps are less than a step; the command says so and trains with the default."""
    done = run_here(*SMALL, "recipe.epochs=1", "trainer.limit_train_batches=3", root=tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("trainer=auto: ")]
    assert "2% of its training at most, do not cover its steps; the default setting stays" in line
    assert not (tmp_path / "outputs" / tuned_settings.FOLDER).exists()
    [record] = records(tmp_path / "outputs").values()
    assert record["parallel"]["tuned"] is True


def test_an_evaluation_batch_that_is_set_stays(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    overrides = (*SMALL, "recipe.epochs=1", "trainer.limit_train_batches=1", "data.eval_batch_size=40")
    key = tuned_settings.key_of(tuned_settings.specification(trial(*overrides).config))
    entry = {"settings": [{**PLAIN, "train_images_per_s": 1.0}, {**NHWC, "train_images_per_s": 0.5}], "workers": []}
    batches = [{"batch": 64, "forward_images_per_s": 9.0}]
    tuned_settings.keep(root, hardware(environment(torch.device("cpu"))), key, entry | {"batches": batches})
    done = run_here(*overrides, root=root)
    assert done.returncode == 0, done.stderr
    assert "trainer=auto: " not in done.stdout + done.stderr, "what was tuned is found"
    [record] = records(root).values()
    assert record["parallel"]["eval_batch_size"] == 40


def test_trials_of_this_machine_are_known_by_their_executor() -> None:
    [one] = expand(["model=resnet"], multirun=False)
    assert isinstance(one, Trial) and one.config["cluster"]["executor"]["_target_"] == brief_tuning.LOCAL
