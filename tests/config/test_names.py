"""A run's folder lies below its output root, under names that every reader finds."""

from pathlib import Path

import pytest

import run
from benchmarks.config.compose import expand
from benchmarks.config.trial import LONGEST_NAME, Trial


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("name=../../x", "name is the name of a folder"),
        ("name=..", "name is the name of a folder"),
        ("name=/abs", "name is the name of a folder"),
        ("name=a/b", "name is the name of a folder"),
        ("name=' '", "name is a text"),
        ("name=''", "name is a text"),
        ("name=null", "name is a text"),
        ("name=5", "name is a text"),
        ('name="a\tb"', "name is the name of a folder"),
        ("recipe.name=../x", "recipe.name is the name of a folder"),
        ("data.name=../x", "data.name is the name of a folder"),
        ("data.name=sweeps", "data.name=sweeps is a folder of output_root that holds no runs"),
        ("data.name=wandb", "data.name=wandb is a folder of output_root that holds no runs"),
        ("seed=-1", "seed is a whole number"),
        ("seed=../x", "seed is a whole number"),
        ("seed=null", "seed is a whole number"),
        ("seed=1.5", "seed is a whole number"),
    ],
)
def test_a_name_that_leaves_its_place_is_refused_before_anything_starts(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main(["model=resnet", override, "output_root=outputs"]) == 2
    _, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "theta"), [("0.25", 0.25), ("abc", "abc"), ("null", None), ("[1]", [1])])
def test_a_wrong_theta_is_left_to_the_network_to_refuse(value: str, theta: object) -> None:
    [trial] = expand(["model=densenet", f"model.compression={value}"], multirun=False)
    assert isinstance(trial, Trial) and trial.config["model"]["compression"] == theta
    assert trial.config["name"].endswith(f"_theta{theta}")


def test_names_longer_than_a_file_system_takes_end_in_a_hash(tmp_path: Path) -> None:
    long = "x" * 300
    directories = set()
    for name in (f"{long}1", f"{long}2"):
        [trial] = expand([f"name={name}", f"recipe.name={name}", f"output_root={tmp_path}"], multirun=False)
        assert isinstance(trial, Trial)
        parts = trial.directory.relative_to(tmp_path).parts
        assert len(parts) == 4 and all(len(part.encode()) <= LONGEST_NAME for part in parts)
        trial.directory.mkdir(parents=True)
        directories.add(trial.directory)
    assert len(directories) == 2


@pytest.mark.parametrize(
    "argument", ["data.source.name=cifar100", "+data.source.val_count=9", "+data.source.train_count=99"]
)
def test_arguments_of_a_source_name_the_run(argument: str) -> None:
    """They choose other images: two such runs had one folder, and the second was taken for finished."""
    [plain], [other] = (expand(["model=resnet", "data=cifar10", *more], multirun=False) for more in ([], [argument]))
    assert isinstance(plain, Trial) and isinstance(other, Trial)
    key, _, value = argument.lstrip("+").partition("=")
    assert other.directory != plain.directory and str(other.overrides[key]) == value
    assert not any(name.startswith("data.source") for name in plain.overrides)
