"""What was measured as fastest, by machine: kept, chosen from, ignored elsewhere."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.benchmark_command import command

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.performance import subprocesses, tune
from benchmarks.performance.document import MeasuredTable
from benchmarks.records.hardware import hardware
from benchmarks.training import tuned_settings
from benchmarks.training.environment import environment
from benchmarks.training.train import tuned_arguments
from benchmarks.training.tuned_settings import specification

tune_command = command("tune")

MACHINE = {"device": "cpu", "device_name": "A CPU (R) 3 GHz", "cores": 8, "torch": "2.13", "cuda": None, "cudnn": None}


def row(rate: Any, **setting: Any) -> dict[str, Any]:
    return {**tuned_settings.PLAIN, **setting, "train_images_per_s": rate}


ROWS = [
    row(100), row(130, channels_last=True), row(120, compile=True), row(125, channels_last=True, compile=True),
    row(180, tf32=True, compile=True), row(90, tf32=False), row(200, precision="bf16-mixed", channels_last=True),
    row(None, precision="bf16-mixed", compile=True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "allowed", "pinned", "best"),
    [
        (ROWS, False, {}, {"channels_last": True}),
        (ROWS, True, {}, {"precision": "bf16-mixed", "channels_last": True}),
        (ROWS, False, {"channels_last": False}, {"compile": True}),
        (ROWS, True, {"channels_last": False}, {"tf32": True, "compile": True}),
        (ROWS, False, {"compile": True}, {"channels_last": True, "compile": True}),
        (ROWS, False, {"tf32": False}, {"tf32": False}),
        (ROWS, False, {"precision": "bf16-mixed"}, {"precision": "bf16-mixed", "channels_last": True}),
        ([row(100), row(102, compile=True)], True, {}, {}),  # within the scatter
        ([row(None), row(50, channels_last=True)], False, {}, {"channels_last": True}),  # the plain one does not fit
        ([row(None)], True, {"compile": False}, {}),
    ],
)
def test_the_best_setting(
    rows: list[dict[str, Any]], allowed: bool, pinned: dict[str, Any], best: dict[str, Any]
) -> None:
    assert tuned_settings.choose(rows, allowed, pinned) == tuned_settings.PLAIN | best


@pytest.mark.parametrize(("images", "compiles"), [(10_000, False), (18_000, False), (36_000, True), (None, True)])
def test_a_setting_that_compiles_is_best_where_its_start_is_made_up_for(images: float | None, compiles: bool) -> None:
    """18,000 images take 180 s at 100 a second, and 30 s of compiling and 150 s at 120 a second."""
    rows = [row(100, start_s=0.1), row(120, compile=True, start_s=30)]
    assert tuned_settings.choose(rows, False, {}, images)["compile"] == compiles


def test_how_many_images_a_process_trains_on() -> None:
    two = config("recipe.epochs=3", "trainer=ddp", "trainer.devices=2")
    entry = {"data": "digits", "epoch_images": 1000}
    assert tuned_settings.images_of(two, entry) == 1500

    def images(*overrides: str, **measured: Any) -> float | None:
        return tuned_settings.images_of(config("recipe.epochs=3", *overrides), entry | measured)

    assert images("trainer.limit_train_batches=5") == 3 * 5 * 32
    assert images("trainer.limit_train_batches=100") == 3000
    flops = "trainer.max_train_flops=1e6"  # in place of epochs
    assert images(flops, train_flops_per_sample=100) == 10_000
    assert images(flops, "trainer=ddp", "trainer.devices=2", train_flops_per_sample=100) == 5000
    assert images(flops) is None, "as a file of before says nothing of it"
    assert images("trainer.max_train_seconds=60", settings=ROWS) == 60 * 100
    assert images("trainer.max_train_seconds=60", settings=[row(None), row(9, compile=True)]) is None
    assert images("trainer.max_train_joules=60", train_flops_per_sample=100) is None
    assert tuned_settings.images_of(two, entry | {"data": "cifar10"}) is None, "of other data"
    assert tuned_settings.images_of(two, {"data": "digits"}) is None, "as a brief measurement says nothing of it"


def test_the_fewest_workers_and_the_smallest_evaluation_batch_that_are_nearly_best() -> None:
    loading = [{"workers": n, "train_images_per_s": rate} for n, rate in ((0, 90), (1, 100), (2, 102), (4, None))]
    assert tuned_settings.choose_least(loading, "workers", "train_images_per_s") == 1
    assert tuned_settings.choose_least([{"workers": 0, "pace": None}], "workers", "pace") is None
    forward = [{"batch": n, "forward_images_per_s": rate} for n, rate in ((64, 10), (128, 30), (256, 29), (512, None))]
    assert tuned_settings.choose_least(forward, "batch", "forward_images_per_s") == 128
    assert tuned_settings.choose_least([], "batch", "forward_images_per_s") is None


def test_a_file_of_another_machine_or_version_is_ignored_with_a_line(tmp_path: Path) -> None:
    entry = {"settings": ROWS, "workers": [], "batches": []}
    assert tuned_settings.find(tmp_path, MACHINE, "a") == (
        None,
        tuned_settings.find(tmp_path / "none", MACHINE, "a")[1],
    )
    path = tuned_settings.keep(tmp_path, MACHINE, "a", entry)
    assert path == tmp_path / "tuning" / "A_CPU_R_3_GHz_8_cores.json"
    assert tuned_settings.find(tmp_path, MACHINE, "a") == (entry, None)
    tuned_settings.keep(tmp_path, MACHINE, "b", {})
    assert tuned_settings.find(tmp_path, MACHINE, "a") == (entry, None)

    def said(machine: dict[str, Any], key: str = "a") -> str:
        found, line = tuned_settings.find(tmp_path, machine, key)
        assert found is None and line is not None and "\n" not in line and "python -m benchmarks tune" in line
        return line

    assert "has nothing of this network" in said(MACHINE, "c")
    assert "(torch 2.13 there, 2.14 here) and ignored" in said(MACHINE | {"torch": "2.14"})
    assert "A_CPU_R_3_GHz_8_cores.json is of another machine and ignored" in said(MACHINE | {"device_name": "another"})
    tuned_settings.keep(tmp_path, MACHINE | {"torch": "2.14"}, "c", entry)
    assert [*json.loads(path.read_text())["networks"]] == ["c"], "what older versions measured is gone"
    path.write_text("{")
    assert "is damaged and ignored" in said(MACHINE)


EMPTY: dict[str, list[Any]] = {part: [] for part in tuned_settings.ROWS}


@pytest.mark.parametrize(
    "content",
    [
        {"networks": []},
        {"networks": 1},
        {"hardware": "this"},
        *(
            {"networks": {"a": entry}}
            for entry in (
                {"name": "resnet20"}, {"settings": []}, [], None,
                EMPTY | {"settings": [row("9")]}, EMPTY | {"settings": [row(0)]}, EMPTY | {"settings": [row(9, start_s="1")]},
                EMPTY | {"settings": [{"train_images_per_s": 9}]}, EMPTY | {"settings": ["9"]},
                EMPTY | {"workers": [{"train_images_per_s": 9}]}, EMPTY | {"batches": [{"batch": 9}]},
                EMPTY | {"epoch_images": "9"}, EMPTY | {"train_flops_per_sample": "9"},
            )
        ),
    ],
)  # fmt: skip
def test_a_file_that_holds_something_else_is_ignored_with_a_line_and_measured_anew(
    content: dict[str, Any], tmp_path: Path
) -> None:
    path = tuned_settings.keep(tmp_path, MACHINE, "a", EMPTY)
    assert tuned_settings.find(tmp_path, MACHINE, "a") == (EMPTY, None)
    path.write_text(json.dumps({"hardware": MACHINE} | content))
    found, line = tuned_settings.find(tmp_path, MACHINE, "a")
    assert found is None and line is not None and line.startswith(f"{path} is damaged and ignored: ")
    assert tuned_settings.is_known(tmp_path, "a") == isinstance(content.get("networks"), dict)
    tuned_settings.keep(tmp_path, MACHINE, "a", EMPTY)
    assert tuned_settings.find(tmp_path, MACHINE, "a") == (EMPTY, None)


def test_the_combinations_that_a_machine_has() -> None:
    plain = {"tf32": False, "bf16": False, "compile": "no compiler"}
    found, left_out = tune.settings(plain, checkpointing=False)
    assert found == [tuned_settings.PLAIN, tuned_settings.PLAIN | {"channels_last": True}]
    assert left_out == [
        "TF32: this device has none",
        "bf16: this device has no bfloat16 arithmetic",
        "compile: no compiler",
    ]
    found, left_out = tune.settings({"tf32": True, "bf16": True, "compile": None}, checkpointing=False)
    assert left_out == [] and len(found) == 4 * 2 * 2 == len({json.dumps(one) for one in found})
    assert len({tune.label(one) for one in found}) == 16 and found[0] == tuned_settings.PLAIN
    found, left_out = tune.settings({"tf32": True, "bf16": True, "compile": None}, checkpointing=True)
    assert not any(one["compile"] for one in found) and len(left_out) == 1


def test_keys_tell_what_a_measurement_depends_on() -> None:
    plain = config("cluster.threads_per_process=2")

    def key(**values: Any) -> str:
        changed = copy.deepcopy(plain)
        for path, value in values.items():
            group, _, name = path.partition("__")
            changed[group][name] = value
        return tuned_settings.key_of(specification(changed))

    others = [
        key(recipe__batch_size=64), key(model__depth=32), key(trainer__devices=2), key(cluster__threads_per_process=3),
        key(trainer__gradient_checkpointing=True), key(trainer__ema_decay=0.9),
        tuned_settings.key_of(specification(plain) | {"gpu": True}),
    ]  # fmt: skip
    assert len({key(), *others}) == 1 + len(others)
    assert {key(recipe__epochs=1), key(trainer__compile=True), key(trainer__precision="bf16-mixed")} == {key()}


def config(*overrides: str) -> dict[str, Any]:
    [trial] = expand(["model=resnet", "trainer.accelerator=cpu", *overrides], multirun=False)
    assert isinstance(trial, Trial)
    return trial.config


def test_auto_takes_what_was_measured_here_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = hardware(environment(torch.device("cpu")))
    here = config("trainer=auto", "cluster.threads_per_process=2", f"output_root={tmp_path}")
    loading = [{"workers": 1, "train_images_per_s": 9}]
    batches = [{"batch": 128, "forward_images_per_s": 9}]
    entry = {"settings": ROWS, "workers": loading, "batches": batches}

    def taken(name: str, **trainer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        (tmp_path / name).mkdir(exist_ok=True)
        its = here | {"trainer": here["trainer"] | trainer}
        arguments, loading = tuned_arguments(its, tmp_path / name)
        return {key: arguments[key] for key in tuned_settings.SETTING}, loading

    unset = {"precision": "32-true", "tf32": None, "channels_last": None, "compile": None}
    tuned_settings.keep(tmp_path, machine | {"torch": "0.1"}, tuned_settings.key_of(specification(here)), entry)
    assert taken("too early") == (unset, {})
    assert f"(torch 0.1 there, {machine['torch']} here) and ignored" in capsys.readouterr().err
    tuned_settings.keep(tmp_path, machine, tuned_settings.key_of(specification(here)), entry)
    best = tuned_settings.PLAIN | {"channels_last": True}
    assert taken("run") == (best, {"loader_workers": 1, "eval_batch_size": 128})
    here["cluster"]["loader_workers"] = 0
    assert taken("workers set") == (best, {"eval_batch_size": 128})
    allowed, _ = taken("allowed", allow_reduced_precision=True)
    assert allowed == best | {"precision": "bf16-mixed"}
    assert taken("set", channels_last=False)[0] == tuned_settings.PLAIN | {"compile": True}
    assert taken("recomputed", gradient_checkpointing=True)[0] == unset, "another step than was measured"
    tuned_settings.keep(tmp_path, machine, tuned_settings.key_of(specification(here)), entry | {"settings": [row(1)]})
    assert taken("run")[0] == best, "a run ends with what it has started with"
    assert taken("later")[0] == tuned_settings.PLAIN


def test_auto_leaves_open_what_was_not_measured() -> None:
    entry = {"settings": [row(1), row(None, precision="bf16-mixed")], "workers": [], "batches": []}
    for precision in ("64-true", "bf16-mixed"):
        asked = config("trainer=auto", f"trainer.precision={precision}")
        assert tuned_settings.choice(asked, entry)["trainer"] == {"precision": precision}


@pytest.mark.parametrize("option", ["cuda_graph", "gradient_checkpointing"])
def test_auto_compiles_nothing_beside_what_is_refused_with_compilation(option: str) -> None:
    entry = {"settings": [row(1), row(9, compile=True), row(2, channels_last=True)], "workers": [], "batches": []}
    auto = config("trainer=auto")
    assert tuned_settings.choice(auto, entry)["trainer"] == tuned_settings.PLAIN | {"compile": True}
    auto["trainer"][option] = True
    assert tuned_settings.choice(auto, entry)["trainer"] == tuned_settings.PLAIN | {"channels_last": True}


class Asked:
    """In place of ``measuring.ask``: layout and bfloat16 double the rate, more than 100 images do not fit. The machine is three
    times slower while the second and the fourth process measure.

    Attributes:
        steps: images, and whether it compiles, of each process that measured steps.
        fails: what a process ends with, by its number.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[int, bool]] = []
        self.fails: dict[int, type[BaseException]] = {}
        self.turns = True

    def __call__(self, module: str, argument: Any, threads: int, ranks: int = 1, limit_s: int = 1) -> dict[str, Any]:
        if module == "training.options":
            return {"tf32": False, "bf16": True, "compile": None, "hardware": MACHINE}
        if module == "performance.peak":
            return {"peaks": {"32-true": 1e9, "bf16-mixed": 2e9}, "environment": MACHINE | {"packages": {}}}
        self.steps.append((argument["batch"], argument["options"]["compile"]))
        if error := self.fails.pop(len(self.steps), None):
            raise error("killed")
        return {"passes": [self._one(argument | one) for one in argument["passes"]]}

    def _one(self, argument: dict[str, Any]) -> dict[str, Any]:
        if argument["batch"] > 100:
            return {"error": "out of memory"}
        found = {"step_s": self._seconds(argument), "memory_bytes": 10**6, "options": {"tf32": None}}
        found["first_s"] = found["step_s"] + (3 if argument["options"]["compile"] else 0.5)
        beside = self._seconds(argument | argument["beside"], datamodule=False)
        return found | ({"beside_s": beside, "ratios": [found["step_s"] / beside]} if self.turns else {})

    def _seconds(self, argument: dict[str, Any], datamodule: bool = True) -> float:
        rate = 200 if argument["precision"] == "bf16-mixed" else 100
        if argument["options"]["channels_last"]:
            rate *= 2
        if datamodule and "datamodule" in argument:
            rate *= 1 + argument["datamodule"]["loader_workers"]
        return argument["batch"] / rate * (3 if len(self.steps) in {2, 4} else 1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(subprocesses, "ask", found)
    monkeypatch.setattr(tune, "cores", lambda: 2)
    return found


def test_the_command_measures_prints_and_keeps(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(MeasuredTable, "write", lambda *arguments: written.append(arguments))
    assert tune_command(["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}", "--write"]) == 0
    out = capsys.readouterr().out
    assert "\n           bf16 channels_last eager, with trainer" in out
    assert "left out   TF32: this device has none" in out and re.search(r"\n\s*128 .*out of memory", out)
    assert "evaluation batch 8; loader workers 2" in out
    assert asked.steps == [(32, False)] * 4 + [(32, True)] * 4 + [(n, False) for n in (8, 16, 64, 128, 32)]
    entry, line = tuned_settings.find(tmp_path, MACHINE, tuned_settings.key_of(specification(config())))
    assert entry is not None and line is None
    assert [one["batch"] for one in entry["batches"]] == [8, 16, 32, 64, 128]
    cost = tune.counts(config())
    shares = {tune.label(one): one["train_of_peak"] for one in entry["settings"]}
    assert [*shares] == [
        f"{width} {layout} {execution}" for width in ("float32", "bf16") for layout in ("NCHW", "channels_last")
        for execution in ("eager", "compile")
    ]  # fmt: skip
    assert shares["bf16 NCHW eager"] == pytest.approx(200 * cost["train_flops_per_sample"] / 2e9)
    assert [one["start_s"] for one in entry["settings"]] == pytest.approx([1, 6] * 4), "of a forward pass and a step"
    epoch, epochs = 1197 // 32 * 32, config()["trainer"]["max_epochs"]
    assert (entry["data"], entry["epoch_images"]) == ("digits", epoch)
    assert entry["train_flops_per_sample"] == cost["train_flops_per_sample"]
    assert f"best       float32 channels_last eager, over {epoch * epochs:,} images with the start counted" in out
    [(table, _, command, rows)] = written
    assert (table.kind, command[:30]) == ("tune", "python -m benchmarks tune mode")
    assert len(rows) == 8 and all(set(table.columns) | set(table.same) <= set(row) for row in rows)
    assert {row["setting"]: row["best"] for row in rows if row["best"]} == {
        "float32 channels_last eager": "best",
        "bf16 channels_last eager": "best if allowed",
    }
    assert tune_command(["model=resnet", "recipe.batch_size=0"]) == 2
    assert capsys.readouterr().err.endswith("tune: recipe.batch_size is a whole number from 1, got 0\n")


def test_an_interrupted_tune_goes_on_where_it_was(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]
    asked.fails[6] = KeyboardInterrupt
    assert tune_command(command) == 130
    assert "the same command goes on" in capsys.readouterr().err and len(asked.steps) == 6
    [kept] = (tmp_path / "tuning").iterdir()
    found, line = tuned_settings.find(tmp_path, MACHINE, tuned_settings.key_of(specification(config())))
    assert found is None and line is not None and "nothing is tuned" in line
    assert tune_command(command) == 0
    assert len(asked.steps) == 6 + 13 - 5 and not kept.exists()
    assert tune_command(command) == 0 and len(asked.steps) == 14 + 13, "what is complete is measured anew"


def test_a_training_step_that_is_killed_leaves_the_forward_pass(tmp_path: Path, asked: Asked) -> None:
    asked.fails[1] = ValueError
    assert tune_command(["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]) == 0
    entry, _ = tuned_settings.find(tmp_path, MACHINE, tuned_settings.key_of(specification(config())))
    assert entry is not None
    first = entry["settings"][0]
    assert first["forward_images_per_s"] == 100 and first["train_images_per_s"] is None
    assert first["problem"] == "killed"


def test_without_turns_times_are_what_was_measured(tmp_path: Path, asked: Asked) -> None:
    """Where memory holds one network and not two."""
    asked.turns = False
    assert tune_command(["model=resnet", "trainer.accelerator=cpu", f"output_root={tmp_path}"]) == 0
    entry, _ = tuned_settings.find(tmp_path, MACHINE, tuned_settings.key_of(specification(config())))
    assert entry is not None
    rates = [one["train_images_per_s"] for one in entry["settings"]]
    assert rates == pytest.approx([100, 100, 200 / 3, 200, 200, 200, 400 / 3, 400])


def test_a_data_set_that_is_not_there_leaves_out_the_workers(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["model=resnet", "data=cifar10", "trainer.accelerator=cpu", f"output_root={tmp_path}"]
    assert tune_command(given) == 0
    out, err = capsys.readouterr()
    assert "loader workers are not measured, and starting is not counted: data/cifar10 holds no CIFAR-10" in err
    assert out.count("holds no CIFAR-10") == 1 and "loader workers not measured" in out
    [path] = (tmp_path / "tuning").glob("*.json")
    [entry] = json.loads(path.read_text())["networks"].values()
    assert entry["workers"] == [] and tuned_settings.choose_least([], "workers", "train_images_per_s") is None
