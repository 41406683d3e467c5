"""A real run verified as it is and with each thing that it says of itself altered, and its last steps trained again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.benchmark_command import command
from support.commands import run_here

from benchmarks.records.files import read_config
from benchmarks.records.runs import load_runs
from benchmarks.training.checkpoints import weights_sha256
from benchmarks.training.verify import _differing_results, score, weights

verify = command("report verify")

TINY = (
    "model=densenet", "model.depth=10", "model.growth_rate=4", "model.dropout=0.2", "recipe.epochs=2",
    "trainer.limit_train_batches=3", "logger=none", "trainer.accelerator=cpu", "+recipe.batch_norm_images=5000",
)  # fmt: skip
SUBJECTS = ("identity", "counts", "data", "score", "weights")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify") / "outputs"
    done = run_here(*TINY, root=root)
    assert done.returncode == 0, done.stderr
    [record] = root.glob("*/*/*/seed0/record.json")
    return record.parent


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, which may be altered, at the same place below another folder."""
    place = Path(*trained.parts[-4:])
    return Path(shutil.copytree(trained, tmp_path / place))


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    return {line[12:].split()[0]: line[:12].strip() for line in lines}


def alter_record(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((directory / "record.json").read_text())
    change(record)
    (directory / "record.json").write_text(json.dumps(record))


def test_a_run_as_it_is_agrees_with_itself(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([str(trained)]) == 0
    assert verdicts(capsys) == dict.fromkeys(SUBJECTS, "ok")


def test_a_record_counts_the_images_that_statistics_were_computed_over(trained: Path) -> None:
    record = json.loads((trained / "record.json").read_text())
    assert record["protocol"]["batch_norm_images"] == record["counts"]["train"] == 1197  # fewer than were asked for


def test_what_is_altered_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def alter(record: dict[str, Any]) -> None:
        record["complexity"]["params"] += 1
        record["dataset"]["sha256"] = "0" * 64
        record["metrics"]["test/top1_err"] += 0.1

    alter_record(copied, alter)
    path = copied / "config.yaml"
    assert "epochs: 2" in path.read_text()
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    name = next(key for key in checkpoint["state_dict"] if key.endswith("weight"))
    checkpoint["state_dict"][name].view(-1)[0] += 1e-3
    torch.save(checkpoint, path)
    assert verify([str(copied)]) == 1
    assert verdicts(capsys) == dict.fromkeys(SUBJECTS, "DIFFERS")


def test_outcomes_of_another_test_set_give_no_score(copied: Path) -> None:
    [run], _ = load_runs(copied)
    sha256 = json.loads((copied / "outcomes.json").read_text())["test_sha256"]
    assert score(run, sha256).agrees and score(run, None).agrees
    assert score(run, "0" * 64).agrees is False
    (copied / "outcomes.json").write_text("{")
    assert "is no file of outcomes" in score(run, sha256).text


def test_averaged_weights_in_32_bits_are_compared_in_those_that_were_tested(copied: Path) -> None:
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    tested = {
        name[len("net.") :]: value.bfloat16() if value.is_floating_point() else value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("net.")
    }
    alter_record(copied, lambda record: record["parallel"].update(precision="bf16-true"))
    alter_record(copied, lambda record: record.update(weights_sha256=weights_sha256(tested)))
    [run], _ = load_runs(copied)
    assert weights(run, read_config(copied)).agrees
    name = next(key for key in checkpoint["state_dict"] if key.endswith("weight"))
    checkpoint["state_dict"][name].view(-1)[0] *= 1.1
    torch.save(checkpoint, path)
    assert weights(run, read_config(copied)).agrees is False


def test_what_is_not_there_is_not_checked(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    (copied / "outcomes.json").unlink()
    [run], _ = load_runs(copied)
    assert score(run, None).agrees is None
    assert weights(run, read_config(copied)).agrees is None


def test_data_that_need_a_package_that_is_not_here_are_not_checked(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def needs(**arguments: Any) -> None:
        raise ImportError("reading parquet needs pyarrow") from ModuleNotFoundError("No module named 'pyarrow'")

    monkeypatch.setattr("datamodules.sources.digits.load_digits", needs)
    assert verify([str(trained)]) == 0
    assert "not checked  data       cannot be read here: reading parquet needs pyarrow" in capsys.readouterr().out


@pytest.mark.slow
def test_the_last_steps_trained_again_give_the_same_bits(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "3"}.items():
        monkeypatch.setenv(key, value)  # as within another launcher
    assert verify([str(copied), "--replay", "3"]) == 0
    assert verdicts(capsys)["replay"] == "ok"
    # An altered history: that the replay is compared with it, and not with itself.
    rows = [json.loads(line) for line in (copied / "history.jsonl").read_text().splitlines()]
    rows[-1]["train/loss"] += 1e-6
    (copied / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert verify([str(copied), "--replay", "5"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS      replay     3 steps from previous.ckpt: train/loss after step 6 is" in out


def test_what_a_replay_lacks_differs_as_what_it_adds(trained: Path) -> None:
    [run] = load_runs(trained)[0]
    again = {"metrics": dict(run.part("metrics")), "weights_sha256": run.record["weights_sha256"]}
    rows = [dict(row) for row in run.history]
    assert [row["step"] for row in rows] == [3, 6]
    assert _differing_results(run, again, rows, 6) == _differing_results(run, again, rows[1:], 3) == ""
    assert (
        _differing_results(run, again, rows[:1], 6) == "no evaluation after step 6, which the run's history.jsonl has"
    )
    del rows[1]["val/loss"]
    assert _differing_results(run, again, rows, 6).startswith(
        "val/loss after step 6 is None, in the run's history.jsonl "
    )
    del again["metrics"]["test/top1_err"]
    assert _differing_results(run, again, run.history, 6).startswith("test/top1_err is None, in the record ")


@pytest.mark.parametrize("kind", ["train_seconds", "train_joules"])
def test_what_a_clock_has_ended_is_not_replayed(kind: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = {"kind": kind, "limit": 1, "spent": 1.2}
    alter_record(copied, lambda record: record["protocol"].update(budget=budget))
    assert verify([str(copied), "--replay", "9"]) == 2
    assert f"ended with a budget of {kind[6:]}: trained again it takes other steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replay", "2"], "the last checkpoint before the end is 3 steps back, --replay 3 would do"),
        (["--replay", "-1"], "a number of steps from 1"),
    ],
)
def test_a_replay_that_is_not_possible_is_refused(
    trained: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify([str(trained), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_a_run_whose_last_checkpoints_are_of_one_step_is_replayed_from_its_start(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where checkpoints are saved within epochs: one stands before the last evaluation, one after it."""
    shutil.copyfile(copied / "checkpoints" / "last.ckpt", copied / "checkpoints" / "previous.ckpt")
    assert verify([str(copied), "--replay", "3"]) == 2
    assert "the start of training is 6 steps back, --replay 6 would do" in capsys.readouterr().err
    assert verify([str(copied), "--replay", "6"]) == 0
    assert verdicts(capsys)["replay"] == "ok"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "previous.ckpt is damaged or holds no weights"),
        (
            lambda path: torch.save({"state_dict": {}}, path),
            "previous.ckpt is no checkpoint of a run: it has no global_step",
        ),
    ],
    ids=["cut off", "no step"],
)
def test_a_replay_from_a_damaged_checkpoint_is_refused(
    damage: Callable[[Path], Any], message: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copied / "checkpoints" / "previous.ckpt")
    assert verify([str(copied), "--replay", "3"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_counts_that_a_record_lacks_are_not_checked(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter_record(copied, lambda record: record.update(complexity=None))
    assert verify([str(copied)]) == 0
    assert "not checked  counts     the record has none" in capsys.readouterr().out


@pytest.mark.filterwarnings("error")
def test_outcomes_of_no_image_differ(copied: Path) -> None:
    path = copied / "outcomes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n": 0, "hits": {"top1_err": ""}}))
    [run] = load_runs(copied)[0]
    assert score(run, None) == (False, f"{path} is no file of outcomes: ValueError: n is 0")


def test_only_a_finished_run_is_verified(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter_record(copied, lambda record: record.update(status="failed"))
    assert verify([str(copied)]) == 2
    assert "is failed: only a finished run can be verified" in capsys.readouterr().err
    assert verify([str(tmp_path)]) == 2
    assert "is no folder of a run" in capsys.readouterr().err


def test_a_foreign_class_is_not_built(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "config.yaml"
    path.write_text(path.read_text().replace("lightning_modules.classifier.Classifier", "os.system"))
    assert verify([str(copied)]) == 2
    assert "names 'os.system', which is not run" in capsys.readouterr().err
    path.write_text(path.read_text().replace("os.system", "gone.Module"))
    assert verify([str(copied), "--trust", "gone.Module"]) == 2
    assert "'gone.Module', and Python finds no such code: No module named 'gone'" in capsys.readouterr().err
