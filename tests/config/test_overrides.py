"""Overrides as users write them: what Hydra's grammar cannot read, and what would be ignored."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from benchmarks.config.compose import expand
from benchmarks.config.trial import CONF, ConfigurationError, Trial

IN_PLACE = "runs lie in output_root/<data>/<name>/<recipe>/seed<k>: set output_root=DIR"
DERIVED = "is put together from the groups: set model.*, data.*, recipe.* or trainer.*"
REFUSED = {
    "model=null": "no model named null; there are densenet, ",
    "data=null": "no data named null; there are cifar10, ",
    "recipe=null": "no recipe named null; there are ",
    "trainer=null": "no trainer named null; there are auto, ddp, default",
    "cluster=null": "no cluster named null; there are hosts, local, ray, slurm",
    "logger=null": "no logger named null; there are ",
    "logger=[wandb,tensorbord]": "no logger named 'tensorbord' (did you mean 'tensorboard'?); there are csv, mlflow, none, ",
    "logger=[tensorbord]": "; several at once: 'logger=[wandb,tensorboard]', in quotes",
    "logger=[none,csv]": "logger=[none,csv]: each once, and none alone; 'logger=[csv]', in quotes",
    "logger=[csv,csv]": "each once",
    "logger=[]": "logger=[] names none: logger=none",
    "logger=wandb,csv": "logger=wandb,csv: a run has all its loggers at once; 'logger=[wandb,csv]', in quotes",
    "-m logger=wandb,csv": "a run has all its loggers at once",
    "experiment=null": "no experiment named null; there are ",
    "data=3": "no data named 3; there are ",
    "model=[1]": "no model named [1]; there are ",
    "model=[resnet,densenet]": "; of several, one run each: -m model=",
    "+model=resnet": "+model=resnet: an option of a group is chosen without +: model=resnet",
    "++logger=none": "++logger=none: an option of a group is chosen without +: logger=none",
    "-m +experiment=connectivity": "an option of a group is chosen without +: experiment=connectivity",
    "backbone=resnext": "nothing reads backbone with model=resnext; model=faster_rcnn, mask_rcnn has one",
    "~model": "~model: a run has one; model=densenet, ",
    "experiment={a:1}": "no experiment named {a:1}; there are ",
    "experiment=resnext_tabel7": "no experiment named 'resnext_tabel7' (did you mean 'resnext_table7'?); there are ",
    "-m recipe.optimizer.lr=interval(0,1)": "an interval has no list of values; list them: recipe.optimizer.lr=A,B",
    "-m seed=range(0,0)": "seed=range(0,0) has no value; range(0,3) is 0, 1, 2",
    "-m seed=range(0,3,0)": "seed=range(0,3,0): a range has finite ends, and a step other than 0",
    "-m recipe.optimizer.lr=range(0,1,0.0)": "a range has finite ends, and a step other than 0",
    "-m recipe.optimizer.lr=range(0,inf)": "a range has finite ends, and a step other than 0",
    "-m model=glob(zzz*)": "model=glob(zzz*) names no model; there are densenet, ",
    "hydra.run.dir=x": f"hydra.run.dir=x would have no effect; {IN_PLACE}",
    "hydra.sweep.dir=x": f"hydra.sweep.dir=x would have no effect; {IN_PLACE}",
    "hydra.sweep.subdir=x": IN_PLACE,
    "hydra/launcher=joblib": "would have no effect; set cluster=local, hosts, slurm or ray, and launch.workers",
    "hydra/sweeper=optuna": "hydra/sweeper=optuna would have no effect; list the values: -m KEY=A,B",
    'hydra.sweeper.params={seed:"1,2"}': "would have no effect; list the values: -m KEY=A,B",
    "hydra.mode=MULTIRUN": "hydra.mode=MULTIRUN would have no effect; -m sweeps",
    "+hydra.foo=1": "+hydra.foo=1 would have no effect",
    "module.seed=3": f"module.seed {DERIVED}",
    "loading.memory.batch_size=1": f"loading.memory.batch_size {DERIVED}",
    "family=resnet": f"family {DERIVED}",
    "=3": "'=3' is not of the form key=value",
    "recipe.epochs": "'recipe.epochs' is not of the form key=value",
    "output_root=a\udcff": "'output_root=a\\udcff' is not UTF-8",
    "-m seed=0,1 seed=2": "seed is given twice: seed=0,1 and seed=2",
    "-m seed=2 seed=0,1": "seed is given twice: seed=2 and seed=0,1",
    "-m model=resnet,resnext model=glob(r*)": "model is given twice: model=resnet,resnext and model=glob(r*)",
    "-m model.depth=glob(2*)": "model.depth=glob(2*): a glob chooses options of a group; list the values: model.depth=A,B",
    "seed=auto": "got 'auto'; seed=auto, with no other seed, is for running a sweep, and begins with seed=range(3)",
    "-m seed=auto,auto": "got 'auto'; seed=auto, with no other seed, is for running a sweep",
    "output_root=a,b": "add -m, or as one value: 'output_root=\"a,b\"'",
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), REFUSED.items(), ids=str)
def test_what_would_be_ignored_is_refused_in_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        expand(text.removeprefix("-m ").split(), multirun=text.startswith("-m "))
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "é/ö/日本",
        "a(b)",
        "(a)",
        "a#b",
        "a=b",
        "a{b",
        "a[1]",
        "it's",
        "a\\'b",
        "a\\",
        'say "x"',
        "-a",
        "a:b",
        "50%",
    ],
)
def test_a_value_is_the_text_that_the_shell_hands_over(value: str) -> None:
    [trial] = expand(["data=cifar10", f"data.root={value}", f"output_root={value}"], multirun=False)
    assert isinstance(trial, Trial)
    assert trial.config["data"]["root"] == value == trial.config["datamodule"]["source"]["path"]
    assert trial.directory == Path(value, "cifar10", "resnext29_8x64d", "resnext_cifar10", "seed0")


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("range(0.1,0.4,0.1)", [0.1, 0.2, 0.3]),
        ("range(0.7,1.0,0.1)", [0.7, 0.8, 0.9]),
        ("range(0.3,0,-0.1)", [0.3, 0.2, 0.1]),
        ("range(0,1,0.25)", [0, 0.25, 0.5, 0.75]),
        ("range(1e-3,4e-3,1e-3)", [1e-3, 2e-3, 3e-3]),
        ("range(3)", [0, 1, 2]),
    ],
)
def test_a_range_of_fractions_has_its_decimal_values_without_its_end(text: str, rates: list[float]) -> None:
    trials = expand(["model=resnet", f"recipe.optimizer.lr={text}"], multirun=True)
    assert [trial.config["recipe"]["optimizer"]["lr"] for trial in trials if isinstance(trial, Trial)] == rates


def test_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    trials = expand(["data=cifar10", "data.root=~/a,~/b", "output_root=~"], multirun=True)
    roots = [trial.config["data"]["root"] for trial in trials if isinstance(trial, Trial)]
    assert roots == ["/home/me/a", "/home/me/b"]


def test_values_of_a_group_are_overrides_like_others() -> None:
    """They were taken for the choice of an option, so that the run had the name and the folder of another one."""
    [one] = expand(["recipe={epochs:3}"], multirun=False)
    [other] = expand(["recipe.epochs=3"], multirun=False)
    assert one == other and isinstance(one, Trial) and one.overrides == {"recipe.epochs": 3}


def test_every_experiment_is_found_by_its_name() -> None:
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        if not OmegaConf.load(path).get("rows"):
            assert expand([f"experiment={path.stem}"], multirun=True)


def test_a_run_has_several_mirrors_at_once_and_wandbs_keys_are_the_groups_own() -> None:
    loggers = {}
    for text in ("wandb", "csv", "[csv]", "[wandb,tensorboard]", "[mlflow,trackio,wandb]", "none"):
        [trial] = expand([f"logger={text}"], multirun=False)
        assert isinstance(trial, Trial)
        logger = loggers[text] = trial.config["logger"]
        assert {name for name, node in logger.items() if isinstance(node, dict)} == {*text.strip("[]").split(",")} - {
            "wandb",
            "none",
        }
        assert logger["mode"] == ("auto" if "wandb" in text else "none")
    assert loggers["csv"] == loggers["[csv]"]
    [trial] = expand(["logger=[mlflow,wandb]", "logger.mode=offline", "logger.mlflow.experiment=x"], multirun=False)
    assert isinstance(trial, Trial)
    assert (trial.config["logger"]["mode"], trial.config["logger"]["mlflow"]["experiment"]) == ("offline", "x")
