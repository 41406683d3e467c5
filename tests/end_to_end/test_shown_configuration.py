"""``--cfg job`` behind any command: what would be run, and nothing runs."""

import pytest
import yaml

from run import main


def test_of_a_sweep_the_configuration_of_each_run_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "model=resnet,densenet", "seed=0,1", "--cfg", "job"]) == 0
    out = capsys.readouterr().out
    shown = [(config["name"], config["seed"]) for config in yaml.safe_load_all(out)]
    assert shown == [("resnet20", 0), ("resnet20", 1), ("densenet_bc40_k12", 0), ("densenet_bc40_k12", 1)]
    assert [line for line in out.splitlines() if line.startswith("---")][0] == "--- # resnet20 · seed 0"
    assert main(["-m", "model=resnet", "-c", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "resnet20"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cfg", "job", "seed=0,1"], "seed=0,1 is a sweep over several values: add -m"),
        (["--cfg", "job", "-m", "seed=0,x"], "seed is a whole number from 0 to 4294967295, got 'x'"),
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
