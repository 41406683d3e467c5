"""Every key has a type and a range, checked when a trial is composed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support.commands import ROOT

from benchmarks.config.compose import expand
from benchmarks.config.folders import choices
from benchmarks.config.schema import KEYS
from benchmarks.config.trial import CONF, ConfigurationError, Impossible, Trial, flatten

COUNT = "a whole number from 1"
SEED = "a whole number from 0 to 4294967295"
REFUSED = {
    "seed=1e3": f"seed is {SEED}, got 1000.0",
    "seed=1.5": f"seed is {SEED}, got 1.5",
    "seed=null": f"seed is {SEED}, got null",
    "seed=abc": f"seed is {SEED}, got 'abc'",
    "seed=-1": f"seed is {SEED}, got -1",
    "seed=4294967296": f"seed is {SEED}, got 4294967296",
    "seed=[1,2]": f"seed is {SEED}, got [1, 2]; of several, one run each: -m seed=1,2",
    "trainer.precision=[32-true,half]": "trainer.precision is auto, 64-true, 32-true, 16-true, bf16-true, 16-mixed or "
    "bf16-mixed, got ['32-true', 'half']",
    "data.image_size=[8,8,8]": "data.image_size is two whole numbers from 1, as [32, 32], got [8, 8, 8]",
    "output_root=2024": "output_root is a text, got 2024; in quotes it is a text: 'output_root=\"2024\"'",
    "output_root=": "output_root is a text, got ''",
    "name=null": "name is a text, got null",
    "~name": "name is missing; it is a text; a network's file sets it, below the line `# @package _global_`",
    "mode=tset": "mode is train or test, got 'tset'; `python -m benchmarks plan` forecasts",
    "mode=null": "mode is train or test, got null; `python -m benchmarks plan` forecasts",
    "weights=3": "weights is null or a text, got 3; in quotes it is a text: 'weights=\"3\"'",
    "data.root=2024": "data.root is a text, got 2024; in quotes it is a text: 'data.root=\"2024\"'",
    "logger.tags=7": "logger.tags is null or a list of texts, got 7; in quotes it is a text: 'logger.tags=\"7\"'",
    "launch=null": "launch is a block of keys, got null",
    "launch.workers=0": f"launch.workers is {COUNT}, got 0",
    "launch.workers=-1": f"launch.workers is {COUNT}, got -1",
    "launch.workers=auto": f"launch.workers is {COUNT}, got 'auto'",
    "launch.workers=true": f"launch.workers is {COUNT}, got true",
    "launch.retries=x": "launch.retries is a whole number from 0, got 'x'",
    f"trainer.max_train_flops=1{'0' * 400}": f"trainer.max_train_flops is null or a positive number, got 1{'0' * 199}… (401 "
    "characters)",
    f"recipe.epochs={2**63}": f"recipe.epochs is {COUNT}, got {2**63}",
    f"recipe.epochs=1{'0' * 5000}": f"recipe.epochs is {COUNT}, got '1{'0' * 198}… (5,003 characters)",
    "launch.fail_fast=maybe": "launch.fail_fast is true or false, got 'maybe'",
    "launch.rerun=all": "launch.rerun is null or stale, got 'all'",
    "launch.checkpoint_every_steps=true": f"launch.checkpoint_every_steps is null or {COUNT}, got true",
    "launch.checkpoint_every_steps=1.5": f"launch.checkpoint_every_steps is null or {COUNT}, got 1.5",
    "launch.time_limit_s=-5": "launch.time_limit_s is null or a positive number, got -5",
    "launch.stall_s=-1": "launch.stall_s is null or a positive number, got -1",
    "launch.collective_timeout_s=null": "launch.collective_timeout_s is a positive number, got null",
    "launch.budget=null": "launch.budget is a block of keys, got null",
    "launch.budget.device_hours=0": "launch.budget.device_hours is null or a positive number, got 0",
    "launch.price_per_device_hour=free": "launch.price_per_device_hour is null or a number from 0, got 'free'",
    "~launch.stall_s": "launch.stall_s is missing; it is null or a positive number",
    "cluster.executor=null": "cluster.executor is a block of keys, got null",
    "cluster.oversubscribe=1": "cluster.oversubscribe is true or false, got 1",
    "cluster.loader_workers=-1": "cluster.loader_workers is null or a whole number from 0, got -1",
    "logger.mode=on": "logger.mode is none, auto, online or offline, got 'on'",
    "logger.init_timeout=x": "logger.init_timeout is a positive number, got 'x'",
    "trainer.devices=0": f"trainer.devices is {COUNT}, got 0",
    "trainer.devices=auto": f"trainer.devices is {COUNT}, got 'auto'",
    "~trainer.devices": f"trainer.devices is missing; it is {COUNT}",
    "trainer.accelerator=abacus": "trainer.accelerator is auto, cpu, gpu or cuda, got 'abacus'",
    "trainer.precision=half": "trainer.precision is auto, 64-true, 32-true, 16-true, bf16-true, 16-mixed or bf16-mixed, "
    "got 'half'",
    "trainer.compile=yes": "trainer.compile is null, true or false, got 'yes'",
    "trainer.accumulate_grad_batches=0": f"trainer.accumulate_grad_batches is null or {COUNT}, got 0",
    "trainer.on_out_of_memory=retry": "trainer.on_out_of_memory is null, fail or accumulate, got 'retry'",
    "trainer.ema_decay=1.5": "trainer.ema_decay is null or a number between 0 and 1, as 0.999, got 1.5",
    "trainer.max_train_flops=0": "trainer.max_train_flops is null or a positive number, got 0",
    "trainer.max_train_seconds=inf": "trainer.max_train_seconds is null or a positive number, got inf",
    "trainer.max_train_joules=nan": "trainer.max_train_joules is null or a positive number, got nan",
    "trainer.max_train_joules=true": "trainer.max_train_joules is null or a positive number, got true",
    "recipe.epochs=-1": f"recipe.epochs is {COUNT}, got -1",
    "recipe.epochs=0": f"recipe.epochs is {COUNT}, got 0",
    "recipe.epochs=1.5": f"recipe.epochs is {COUNT}, got 1.5",
    "recipe.epochs=abc": f"recipe.epochs is {COUNT}, got 'abc'",
    "recipe.epochs=null": f"recipe.epochs is {COUNT}, got null",
    "recipe.batch_size=true": f"recipe.batch_size is {COUNT}, got true",
    "recipe.optimizer=null": "recipe.optimizer is a block of keys, got null",
    "recipe.optimizer.lr=abc": "recipe.optimizer.lr is a number from 0, got 'abc'",
    "recipe.scheduler=null": "recipe.scheduler is a block of keys, got null",
    "recipe=common data.augment=null": "data.augment is a block of keys, got null; recipe.augment={} is none",
    "recipe.augment=null": "recipe.augment is a block of keys, got null",
}  # fmt: skip


@pytest.mark.parametrize(("override", "line"), REFUSED.items(), ids=str)
def test_a_value_of_another_kind_is_refused_in_one_line(override: str, line: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        expand(override.split(), multirun=False)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("data", "override", "line"),
    [
        ("model=unet data=image_mask_folder", "instance_masks=no", "is true or false, got 'no'"),
        (
            "model=unet data=image_mask_folder",
            "mask_suffix=7",
            "is null or a text, got 7; in quotes it is a text: 'data.mask_suffix=\"7\"'",
        ),
        ("model=unet data=image_mask_folder", "val_count=a", f"is {COUNT}, got 'a'"),
        ("model=mask_rcnn data=coco_folder", "keep_empty=no", "is true or false, got 'no'"),
        ("data=svhn", "extra=no", "is true or false, got 'no'"),
        ("model=unet data=isbi2012", "fold=a", "is a whole number from 0, got 'a'"),
        ("data=image_folder data.root={root}", "val_fraction=a", "is a number between 0 and 1, as 0.15, got 'a'"),
    ],
)
def test_options_of_data_sets_have_kinds(data: str, override: str, line: str, tmp_path: Path) -> None:
    """Hydra reads no as a text, which Python takes for true."""
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError) as error:
        expand([*data.format(root=tmp_path).split(), f"data.{override}"], multirun=False)
    assert str(error.value) == f"data.{override.partition('=')[0]} {line}"


def test_in_a_sweep_the_other_trials_run() -> None:
    trials = expand(["seed=0,-1,1", "recipe.epochs=2,0"], multirun=True)
    assert [type(trial) for trial in trials] == [Trial, Impossible, Impossible, Impossible, Trial, Impossible]
    assert trials[2].error == f"seed is {SEED}, got -1" and trials[1].error == f"recipe.epochs is {COUNT}, got 0"


def test_every_key_of_the_files_has_a_kind_and_every_kind_a_key() -> None:
    """Not of the targets' own arguments, which are theirs to check."""
    own = ("recipe.optimizer.", "recipe.scheduler.", "recipe.augment.", "recipe.tiles.", "cluster.executor.")
    launch: Any = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    keys = {f"launch.{key}" for key in flatten(launch["launch"])}
    for group in ("cluster", "data", "logger", "recipe", "trainer"):
        for option in choices(group):
            file = CONF / group / f"{option}.yaml"
            node: Any = OmegaConf.to_container(OmegaConf.load(file))
            package = re.match(r"# @package (\w+\.\w+)\n", file.read_text(encoding="utf-8"))
            place = package[1] if package else group
            keys |= {f"{place}.{key}" for key in flatten(node) if key not in ("defaults", "_target_")}
    keys = {key for key in keys if not key.startswith(own)}
    # The nodes of a data set, as its source, have arguments.
    checked = {key for key in keys if not key.startswith("data.") or key.count(".") == 1}
    assert checked <= {*KEYS, "recipe.augment"}
    beside = {key for key in KEYS if "." in key and not key.startswith(own) and not key.endswith("_target_")}
    assert beside <= {*keys, "recipe.augment", "recipe.tiles", "data.augment", "data.source"}


def test_nothing_is_started_or_written(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "launch.workers=-1", f"output_root={tmp_path / 'outputs'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"run.py: launch.workers is {COUNT}, got -1\n"
    assert not (tmp_path / "outputs").exists()
