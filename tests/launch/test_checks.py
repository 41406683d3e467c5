"""What is refused before any trial of a sweep starts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.benchmark_command import command
from support.records import make_run

from benchmarks.config import folders
from benchmarks.config.compose import expand, expand_all
from benchmarks.config.trial import CONF, ConfigurationError
from benchmarks.launch.checks import HOW, check_distinct, is_finished, refusal
from benchmarks.training.weights import Weights
from datamodules.readers.parts import part_folders


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["cluster.threads_per_process=1,2"], "cluster.threads_per_process"),
        (["model=resnet,resnext", "launch.workers=1,2"], "launch.workers"),
        (["trainer.accelerator=cpu,gpu", "seed=0,1"], "trainer.accelerator"),
    ],
)
def test_a_sweep_over_how_runs_are_run_is_refused(
    overrides: list[str], keys: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_distinct(expand(overrides, multirun=True))
    assert str(error.value).startswith(f"{keys}: no part of what a run computes") and "\n" not in str(error.value)
    assert command("plan")([*overrides, f"output_root={tmp_path}", "--no-measure"]) == 2
    assert capsys.readouterr().err.rstrip().endswith(str(error.value))


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


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("cluster=slurm", "cluster=local"), "cluster"),
        (("launch.workers=1", "launch.workers=2"), "launch.workers"),
        (("", "launch.fail_fast=true"), "launch.fail_fast"),
        (("", "launch.budget.money=3"), "launch.budget"),
        (("launch.price_per_device_hour=2", ""), "launch.price_per_device_hour"),
    ],
)
def test_what_a_sweep_has_one_of_is_not_taken_from_its_first_row(
    rows: tuple[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"rows": {"a": f"model=resnet {rows[0]}", "b": f"model=resnext {rows[1]}"}}
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(content)}")
    monkeypatch.setattr(folders, "_added", [tmp_path])
    with pytest.raises(ConfigurationError) as error:
        check_distinct(expand(["experiment=mine"], multirun=True))
    assert str(error.value) == f"{said}: a sweep has one; give it on the command line"
    key = "cluster=local" if said == "cluster" else rows[1] or rows[0]
    check_distinct(expand(["experiment=mine", key], multirun=True))


def test_rows_that_differ_in_how_they_are_run_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nrows: {a: launch.retries=1, b: launch.retries=2}\n"
    )
    monkeypatch.setattr(folders, "_added", [tmp_path])
    with pytest.raises(ConfigurationError, match="^launch.retries: no part of what a run computes"):
        check_distinct(expand(["experiment=mine"], multirun=True))


def test_the_docs_name_what_cannot_be_swept() -> None:
    text = " ".join((CONF.parent / "docs" / "start.md").read_text().split())
    named = re.search(r"can be swept but what only says how runs are run: (.*?)\. ", text)
    assert named is not None and re.findall(r"`(.*?)`", named[1]) == [key.removesuffix(".") for key in HOW]


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


def test_a_run_of_a_folder_that_has_another_class_now_is_refused_for_this_cause_alone(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
    asked = ["model=resnet", "data=image_folder", f"data.root={root}", f"output_root={tmp_path / 'outputs'}"]
    [trial] = expand_all(asked)
    trial.directory.mkdir(parents=True)
    (trial.directory / "config.yaml").write_text(yaml.safe_dump(trial.config))
    assert refusal(trial) is None
    (root / "emus").mkdir()
    [trial] = expand_all(asked)
    assert refusal(trial) == (
        f"{trial.directory} holds another configuration (data.num_classes: 2 there, 3 here); choose another data.name or "
        "output_root or move it away"
    )
    [trial] = expand_all([*asked, "data.name=pets2"])
    assert refusal(trial) is None


@pytest.mark.parametrize(
    ("data", "folders"),
    [
        *(("image_folder", ""), ("image_folder", "valid"), ("image_folder", "val test")),
        *(("image_mask_folder", "test"), ("coco_folder", "validation test")),
    ],
)
def test_images_drawn_for_a_part_that_has_a_folder_are_refused(data: str, folders: str, tmp_path: Path) -> None:
    held = {"image_folder": ("cats", "dogs"), "image_mask_folder": ("images", "masks"), "coco_folder": ()}[data]
    for part in ("train", *folders.split()):
        for name in (*held, "."):
            (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / "annotations.json").touch()
    model = {"image_folder": "resnet", "image_mask_folder": "unet", "coco_folder": "mask_rcnn"}[data]
    how, value = ("fraction", "0.3") if data == "image_folder" else ("count", "3")
    given = part_folders(tmp_path, lambda train: True)[0]
    for part in ("val", "test"):
        [trial] = expand_all([f"model={model}", f"data={data}", f"data.root={tmp_path}", f"data.{part}_{how}={value}"])
        said = f"leave out data.{part}_{how}: {tmp_path} has the images of {part}"
        assert refusal(trial) == (said if part in given else None)


def test_a_class_of_images_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").touch()
    [trial] = expand_all(["model=resnet", "data=image_folder", f"data.root={tmp_path}", "data.val_fraction=0.3"])
    assert refusal(trial) is None


def test_one_class_is_nothing_to_tell_apart() -> None:
    for asked, said in (
        ("model=resnet data=digits", "for classification"),
        ("model=unet data=nuclei", "for segmentation, the background one of them"),
    ):
        [trial] = expand_all([*asked.split(), "data.num_classes=1"])
        assert refusal(trial) == f"data.num_classes is 2 or more {said}, got 1"


def test_a_run_in_the_place_of_its_weights_is_refused_and_its_checkpoint_named(tmp_path: Path) -> None:
    [trial] = expand_all(["model=resnet", "mode=test", f"weights={tmp_path}", f"output_root={tmp_path / 'outputs'}"])
    assert refusal(trial) == f"weights={tmp_path}: there is no such file"
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert refusal(trial) == f"weights={tmp_path}: a run's folder, whose weights are {checkpoint}"
    with pytest.raises(OSError, match="a run's folder, whose weights are .*last.ckpt"):
        Weights.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"protocol": {"weights": {"sha256": "0"}}}, None),  # of a run that was trained: none are looked for
        ({"compute": "a"}, "compute must be an object, got str"),
        ({"protocol": "a"}, "protocol must be an object, got str"),
        ({"compute": {"wall_s": "a"}}, "compute.wall_s must be a number"),
        ({"seed": "a"}, "seed must be a int, got 'a'"),
        ({"schema": None}, "not a run's record of schema"),
    ],
)
def test_a_finished_run_whose_record_no_report_reads_is_refused(
    changes: dict[str, Any], problem: str | None, tmp_path: Path
) -> None:
    asked = ["model=resnet", f"output_root={tmp_path / 'outputs'}"]
    [trial] = expand_all(asked)
    trial.directory.mkdir(parents=True)
    (trial.directory / "config.yaml").write_text(yaml.safe_dump(trial.config))
    made = json.loads((make_run(tmp_path / "made") / "record.json").read_text())
    path = trial.directory / "record.json"
    path.write_text(json.dumps(made | changes))
    if problem is None:
        assert refusal(trial) is None and is_finished(trial)
        return
    refused = refusal(trial) or ""
    assert refused.startswith(f"{path}: {problem}")
    assert refused.endswith("; mend it, or move the run's folder away to train again")
    path.write_text(json.dumps(made | changes | {"status": "failed"}))
    assert refusal(trial) is None and not is_finished(trial), "it is trained again anyway"
    path.write_text(json.dumps(made | changes | {"code": {"training_sha256": "of other code"}}))
    [again] = expand_all([*asked, "launch.rerun=stale"])
    assert refusal(again) is None and not is_finished(again)
