"""``--cfg job`` behind any command: what would be run, and nothing runs."""

from pathlib import Path

import pytest
import yaml

from benchmarks.config import folders
from run import main


def test_of_a_sweep_the_configuration_of_each_run_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "model=resnet,densenet", "seed=0,1", "--cfg", "job"]) == 0
    out = capsys.readouterr().out
    shown = [(config["name"], config["seed"]) for config in yaml.safe_load_all(out)]
    assert shown == [("resnet20", 0), ("resnet20", 1), ("densenet_bc40_k12", 0), ("densenet_bc40_k12", 1)]
    assert [line for line in out.splitlines() if line.startswith("---")][0] == "--- # resnet20 · seed 0"
    assert main(["-m", "model=resnet", "-c", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "resnet20"


CELLS = ["model=unet", "data=touching_cells"]


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--cfg", "job", "--resolve"], ["-m", "-c", "job"]])
def test_what_is_left_out_is_left_out_of_what_is_shown(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CELLS, "~recipe.augment.border_weights", *flags]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert list(shown["recipe"]["augment"]) == ["elastic"]


@pytest.mark.parametrize("resolve", [[], ["--resolve"]])
def test_flags_stand_anywhere_among_overrides(
    resolve: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_added", [])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small.yaml").write_text("defaults: [resnet]\ndepth: 8\n")
    assert (
        main(["--config-dir", str(tmp_path), "model=small", "recipe=common", "--cfg", "job", *resolve, "seed=3"]) == 0
    )
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["model"]["depth"], shown["seed"]) == (8, 3)


def test_hydras_own_flags_stand_anywhere_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert main(["model=resnet", "--cfg", "job", "--package", "model", "seed=3"]) == 0
    assert "depth: 20" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--package", "_global_"]])
def test_of_an_experiments_row_its_configuration_is_shown(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert main(["experiment=resnet_table6", "row=resnet110", "--cfg", "job", *flags]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["row"], shown["model"]["depth"]) == ("resnet110", 110)
    assert shown["family"] == "${hydra:runtime.choices.model}"


@pytest.mark.parametrize("arguments", [["--cfg", "joob"], ["--info", "model=resnet"]])
def test_what_a_flag_does_not_take_is_refused_with_our_own_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "") and err.startswith("usage: python run.py")
    assert f"python run.py: error: argument {arguments[0]}/{arguments[0][1:3]}: invalid choice: {arguments[1]!r}" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cfg", "job", "seed=0,1"], "seed=0,1 is a sweep over several values: add -m"),
        (["--cfg", "job", "-m", "seed=0,x"], "seed is a whole number from 0 to 4294967295, got 'x'"),
        (["--cfg", "job", "model=resnet", "sede"], "'sede' is not of the form key=value"),
        (["--cfg", "job", "--resolve", "model=resnet", "sede"], "'sede' is not of the form key=value"),
        (["-m", "--cfg", "job", "model=resnet", "sede"], "'sede' is not of the form key=value"),
        (["--cfg", "job", "model=resnt"], "no model named 'resnt' (did you mean 'resnet'?)"),
        (["--cfg", "hydra", "model=resnet", "recipe.epoch=3"], "no key 'recipe.epoch'"),
        (["--cfg", "job", "model=resnet", "+foo=1"], "nothing reads foo"),
        (["--cfg", "job", "experiment=resnet_table6", "seed=0"], "these are 6 runs: -m --cfg job shows each"),
        (["--package", "model"], "--package says which part --cfg prints: add --cfg job"),
        (["--resolve"], "--resolve flag can only be used in conjunction with --cfg"),
        (["-m", "--info"], "Only one of"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("run.py: ") and said in err and err.count("\n") == 1
