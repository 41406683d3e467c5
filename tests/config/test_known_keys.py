"""A key is accepted only where something reads it."""

from pathlib import Path

import pytest

from benchmarks.config import folders
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial

REFUSED = {
    "+recipe.zoom=0.1": "nothing reads recipe.zoom (did you mean",
    "++recipe.epoch=3": "nothing reads recipe.epoch (did you mean 'recipe.epochs'?)",
    "+recipe.optimizer.dmapening=0.1": "nothing reads recipe.optimizer.dmapening (did you mean 'dampening'?); SGD takes",
    "+recipe.scheduler.foo=1": "nothing reads recipe.scheduler.foo; CosineAnnealingLR takes T_max, eta_min",
    "+model.cardinalty=3": "nothing reads model.cardinalty (did you mean 'cardinality'?); ResNet takes ",
    "+model.foo.bar=3": "nothing reads model.foo.bar; ResNet takes ",
    "+data.source.foo=1": "nothing reads data.source.foo; load_digits takes ",
    "+data.foo=1": "nothing reads data.foo",
    "+launch.worker=1": "nothing reads launch.worker (did you mean 'launch.workers'?)",
    "+cluster.partitions=a": "nothing reads cluster.partitions (did you mean 'cluster.partition'?)",
    "+cluster.executor.foo=1": "nothing reads cluster.executor.foo; LocalExecutor takes launch",
    "+logger.foo=1": "nothing reads logger.foo",
    "+trainer.limit_val_batches=2": "nothing reads trainer.limit_val_batches (did you mean 'trainer.limit_train_batches'?)",
    "+trainer.max_time=00:00:01:00": "nothing reads trainer.max_time",
    "+trainer.enable_checkpointing=true": "nothing reads trainer.enable_checkpointing",
    "+trainer.gradient_clip_val=1": "nothing reads trainer.gradient_clip_val",
    "+recipe.test_time_dihedral=true": "nothing reads recipe.test_time_dihedral in classification",
    "+recipe.tiles={tile: 64}": "nothing reads recipe.tiles.tile in classification",
    "+data.root=DIR": "nothing reads data.root with data=digits; it is a key of data=cifar10, cifar100, coco, ",
    "data.root=DIR": "nothing reads data.root with data=digits; it is a key of data=cifar10, cifar100, coco, ",
    "+data.hub=true": "nothing reads data.hub with data=digits; it is a key of data=cifar10, cifar100, imagenet, svhn",
    "+data.shorter_side=100": "nothing reads data.shorter_side in classification",
    "+cluster.partition=gpu": "nothing reads cluster.partition with cluster=local; it is a key of cluster=slurm",
    "cluster.partition=gpu": "nothing reads cluster.partition with cluster=local; it is a key of cluster=slurm",
    "+trainer.allow_reduced_precision=true": "nothing reads trainer.allow_reduced_precision with trainer=default; it is",
    "trainer.tuned=true": "nothing reads trainer.tuned with trainer=default; it is a key of trainer=auto",
    "recipe.optimizer._target_=torch.optim.Adam": "Adam takes no momentum, nesterov; leave out what its file sets: "
    "'~recipe.optimizer.momentum' '~recipe.optimizer.nesterov'",
    "model._target_=lightning_modules.nets.DenseNet": "DenseNet takes no cardinality, ",
    "+foo=1": "nothing reads foo",
    "+foo.bar=1": "nothing reads foo.bar",
}  # fmt: skip


@pytest.mark.parametrize(("override", "line"), REFUSED.items(), ids=str)
def test_a_key_that_nothing_reads_is_refused_with_the_nearest(override: str, line: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        expand([override], multirun=False)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


OF_MIRROR = "; of another mirror it is logger.NAME.finish_timeout"


@pytest.mark.parametrize(
    ("logger", "override", "hint"),
    [
        ("none", "logger.mode=online", ""),
        ("csv", "logger.mode=offline", ""),
        ("csv", "+logger.mode=offline", ""),
        ("csv", "+logger.finish_timeout=3", OF_MIRROR),
        ("none", "logger.finish_timeout=3", OF_MIRROR),
    ],
)
def test_a_key_of_wandb_is_refused_without_it(logger: str, override: str, hint: str) -> None:
    key = override.removeprefix("+").partition("=")[0]
    with pytest.raises(ConfigurationError) as error:
        expand([f"logger={logger}", override], multirun=False)
    assert str(error.value) == f"{key} is a key of W&B's: logger=wandb{hint}"


@pytest.mark.parametrize(
    "overrides", [["logger=none", "logger.mode=none"], ["logger=[csv,wandb]", "logger.mode=offline"]]
)
def test_no_mode_is_taken_of_any_logger_and_keys_of_wandb_beside_another_mirror(overrides: list[str]) -> None:
    assert [type(trial) for trial in expand(overrides, multirun=False)] == [Trial]


@pytest.mark.parametrize(
    "overrides",
    [
        ["+recipe.optimizer.dampening=0.1"],
        ["recipe.label_smoothing=0.1", "recipe.validate_every=2"],
        ["recipe.optimizer._target_=torch.optim.Adam", "~recipe.optimizer.momentum", "~recipe.optimizer.nesterov"],
        ["recipe.optimizer._target_=torch.optim.Adam", "model=unet", "data=nuclei"],
        ["model=densenet", "+model.initial_channels=3"],
        ["+recipe.test_time_dihedral=true", "model=unet", "data=nuclei"],  # its file sets it
        ["+trainer.limit_train_batches=2"],
        ["+recipe.tiles={tile: 64}", "model=unet", "data=nuclei"],
        ["+data.test_views=[10crop]"],
        ["data=touching_cells", "model=unet", "+data.source.train_count=4"],
        ["+recipe.optimizer._convert_=all"],
        ["cluster=slurm", "cluster.additional_parameters={constraint: a100}"],
        ["cluster=slurm", "cluster.partition=gpu", "trainer=auto", "trainer.allow_reduced_precision=true"],
        ["cluster=ray", "trainer=ddp", "logger=none"],
        ["cluster=hosts", "data=fashion_mnist", "data.root=DIR"],
        ["model._target_=not.there.Net", "+model.anything=1"],  # what is not there is said when it is built
    ],
    ids=" ".join,
)
def test_what_something_reads_is_taken(overrides: list[str]) -> None:
    [trial] = expand(overrides, multirun=False)
    assert isinstance(trial, Trial)


def test_a_key_of_a_recipe_is_set_whether_its_file_has_it_or_not() -> None:
    [plain], [added] = (expand([f"{sign}recipe.mixup=0.2"], multirun=False) for sign in ("", "+"))
    assert plain == added and isinstance(plain, Trial) and plain.overrides == {"recipe.mixup": 0.2}
    smoothing = [
        trial.overrides
        for trial in expand(["recipe.label_smoothing=0.1,0.2"], multirun=True)
        if isinstance(trial, Trial)
    ]
    assert smoothing == [{"recipe.label_smoothing": 0.1}, {"recipe.label_smoothing": 0.2}]
    with pytest.raises(ConfigurationError, match="^nothing reads recipe.mixup in segmentation$"):
        expand(["recipe.mixup=0.2", "model=unet", "data=nuclei"], multirun=False)


def test_an_option_of_ones_own_has_the_keys_that_it_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_added", [tmp_path])
    for group, lines in {
        "trainer": "defaults: [auto, _self_]\n",
        "data": "defaults: [digits, _self_]\nname: mine\ntask: classification\nstem: cifar\nroot: here\n",
    }.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(lines)
    [trial] = expand(
        ["trainer=mine", "trainer.allow_reduced_precision=true", "data=mine", "data.root=there"], multirun=False
    )
    assert isinstance(trial, Trial) and trial.config["data"]["root"] == "there"


def test_files_of_ones_own_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_added", [tmp_path])
    (tmp_path / "recipe").mkdir()
    recipe = tmp_path / "recipe" / "mine.yaml"
    recipe.write_text("defaults: [common]\nzoom: 0.1\n")
    with pytest.raises(ConfigurationError, match=r"^nothing reads recipe.zoom \(did you mean"):
        expand(["recipe=mine"], multirun=False)
    recipe.write_text("defaults: [common]\nlength: 7\nepochs: ${recipe.length}\n")
    [trial] = expand(["recipe=mine"], multirun=False)
    assert isinstance(trial, Trial) and trial.config["recipe"]["epochs"] == 7


def test_data_augment_is_refused_where_the_recipe_has_its_own() -> None:
    for override in ("data.augment.crop_padding=3", "+data.augment.horizontal_flip=true"):
        with pytest.raises(ConfigurationError, match="^this recipe does not take data.augment: set recipe.augment, or"):
            expand(["data=digits", override], multirun=False)
        [trial] = expand(["data=digits", "recipe=common", override], multirun=False)
        assert isinstance(trial, Trial)
        key, _, value = override.rpartition(".")[2].partition("=")
        assert str(trial.config["recipe"]["augment"][key]).lower() == value
