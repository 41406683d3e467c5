"""A key is accepted only where something reads it."""

from pathlib import Path

import pytest

from benchmarks.config import folders
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial

REFUSED = {
    "+recipe.zoom=0.1": "nothing reads recipe.zoom, did you mean",
    "++recipe.epoch=3": "nothing reads recipe.epoch, did you mean 'recipe.epochs'?",
    "+recipe.optimizer.dmapening=0.1": "nothing reads recipe.optimizer.dmapening, did you mean 'dampening'?; SGD takes",
    "+recipe.scheduler.foo=1": "nothing reads recipe.scheduler.foo; CosineAnnealingLR takes T_max, eta_min",
    "+model.cardinalty=3": "nothing reads model.cardinalty, did you mean 'cardinality'?; ResNet takes ",
    "+model.foo.bar=3": "nothing reads model.foo.bar; ResNet takes ",
    "+data.source.foo=1": "nothing reads data.source.foo; load_digits takes ",
    "+data.foo=1": "nothing reads data.foo",
    "+launch.worker=1": "nothing reads launch.worker, did you mean 'launch.workers'?",
    "+cluster.partitions=a": "nothing reads cluster.partitions, did you mean 'cluster.partition'?",
    "+cluster.executor.foo=1": "nothing reads cluster.executor.foo; LocalExecutor takes launch",
    "+logger.foo=1": "nothing reads logger.foo",
    "+trainer.limit_val_batches=2": "nothing reads trainer.limit_val_batches, did you mean 'trainer.limit_train_batches'?",
    "+trainer.max_time=00:00:01:00": "nothing reads trainer.max_time",
    "+trainer.enable_checkpointing=true": "nothing reads trainer.enable_checkpointing",
    "+trainer.gradient_clip_val=1": "nothing reads trainer.gradient_clip_val",
    "+recipe.test_time_dihedral=true": "nothing reads recipe.test_time_dihedral in classification",
    "+recipe.tiles={tile: 64}": "nothing reads recipe.tiles.tile in classification",
    "+foo=1": "nothing reads foo",
    "+foo.bar=1": "nothing reads foo.bar",
}  # fmt: skip


@pytest.mark.parametrize(("override", "line"), REFUSED.items(), ids=str)
def test_a_key_that_nothing_reads_is_refused_with_the_nearest(override: str, line: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        expand([override], multirun=False)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+recipe.optimizer.dampening=0.1"],
        ["model=densenet", "+model.initial_channels=3"],
        ["+recipe.test_time_dihedral=true", "model=unet", "data=nuclei"],  # its file sets it
        ["+trainer.limit_train_batches=2"],
        ["+recipe.tiles={tile: 64}", "model=unet", "data=nuclei"],
        ["+data.test_views=[10crop]"],
        ["data=touching_cells", "model=unet", "+data.source.train_count=4"],
        ["+recipe.optimizer._convert_=all"],
        ["cluster=slurm", "cluster.additional_parameters={constraint: a100}"],
        ["model._target_=not.there.Net", "+model.anything=1"],  # what is not there is said when it is built
    ],
    ids=" ".join,
)
def test_what_something_reads_is_taken(overrides: list[str]) -> None:
    [trial] = expand(overrides, multirun=False)
    assert isinstance(trial, Trial)


def test_files_of_ones_own_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_added", [tmp_path])
    (tmp_path / "recipe").mkdir()
    recipe = tmp_path / "recipe" / "mine.yaml"
    recipe.write_text("defaults: [common]\nzoom: 0.1\n")
    with pytest.raises(ConfigurationError, match="^nothing reads recipe.zoom, did you mean"):
        expand(["recipe=mine"], multirun=False)
    recipe.write_text("defaults: [common]\nlength: 7\nepochs: ${recipe.length}\n")
    [trial] = expand(["recipe=mine"], multirun=False)
    assert isinstance(trial, Trial) and trial.config["recipe"]["epochs"] == 7
