"""``sync`` against a W&B server: run folders as they may be found, and servers as they may answer."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.benchmark_command import command
from support.records import make_run
from support.wandb_server import ENTITY, StoredRun, WandbServer

from benchmarks.config.compose import expand
from benchmarks.records.locks import LAUNCHER, Lock
from benchmarks.records.runs import load_runs
from benchmarks.tracking import sweep_report, sync
from benchmarks.tracking.content import mirrored
from benchmarks.tracking.wandb_run import display_name

BIG = {"epoch": 1, "step": 1, "samples_seen": 1, "wall_s": 1.0, "train_flops": 2**60 + 1, "val/top1_err": 1 / 3}
LOGGER = {"mode": "offline", "project": "p", "entity": None, "init_timeout": 20, "finish_timeout": 20}


def tracked(root: Path, run_id: str, mode: str = "offline", **changes: Any) -> Path:
    """A run folder that belongs on the server."""
    [trial] = expand([f"output_root={root}"], False)
    directory = make_run(root, run_id=run_id, **changes)
    config = trial.config | {"logger": LOGGER | {"mode": mode}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory


def run_sync(root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    code = command("wandb sync")([str(root), *options])
    said = capsys.readouterr()
    return code, said.out, said.err


def rows_of(run: StoredRun) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in run.history]


@pytest.mark.slow
def test_every_run_once_in_parallel_and_what_cannot_be_sent_is_named(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(5):
        tracked(tmp_path, f"many-{seed}", seed=seed)
    tracked(tmp_path, "many-failed", seed=5, status="failed", epochs=2)
    tracked(tmp_path, "many-killed", seed=6, status="running", error=None, epochs=2)
    tracked(tmp_path, "many-none", mode="none", seed=7)
    torn = tracked(tmp_path, "many-torn", seed=8)
    with open(torn / "history.jsonl", "a") as file:
        file.write('{"epoch": 13, "ste')
    big = tracked(tmp_path, "many-big", seed=9, history=[BIG])
    other = tracked(tmp_path, "many-other", seed=10, schema=7)
    bare = tracked(tmp_path, "many-bare", seed=11)
    (bare / "record.json").unlink()
    unnamed = tracked(tmp_path, "", seed=12)
    record = json.loads((unnamed / "record.json").read_text())
    (unnamed / "record.json").write_text(json.dumps({key: record[key] for key in record if key != "run_id"}))
    lost = tracked(tmp_path, "many-lost", seed=13)
    (lost / "config.yaml").write_text("{")
    running = tracked(tmp_path, "many-running", seed=14, status="running", error=None)
    lock = Lock.take(running / LAUNCHER)

    code, out, err = run_sync(tmp_path, capsys)
    assert code == 1
    assert "9 of 9 runs are on the server, complete; 9 sent now; 1 without W&B are left out" in out
    for directory, reason in (
        (other, "schema 7"), (bare, "without its record.json"), (unnamed, "no run_id"), (lost, "no readable config.yaml"),
        (running, "still running"),
    ):  # fmt: skip
        assert [line for line in err.splitlines() if str(directory) in line and reason in line], (reason, err)
    states = {name: (run.state, run.exit_code, run.summary["status"]) for (_, name), run in server.runs.items()}
    assert {name: state for name, state in states.items() if name.startswith("many-")} == {
        **{f"many-{name}": ("finished", 0, "ok") for name in (0, 1, 2, 3, 4, "torn", "big")},
        "many-failed": ("failed", 1, "failed"),
        "many-killed": ("failed", 137, "killed"),
    }
    for run in load_runs(tmp_path)[0]:
        stored = server.runs.get(("p", str(run.record.get("run_id"))))
        if stored is not None:
            assert rows_of(stored) == mirrored(run.history), run.directory
    assert rows_of(server.runs["p", "many-big"])[0]["compute/train_flops"] == 2**60 + 1

    for directory in (other, bare, unnamed, lost, running):
        shutil.rmtree(directory)
    assert lock is not None
    lock.release()
    written = server.written
    code, out, err = run_sync(tmp_path, capsys)
    assert (code, err) == (0, "")
    assert "9 of 9 runs are on the server, complete; 0 sent now" in out
    assert server.written == written
    assert big.exists()


def test_all_that_rows_hold_has_compute_as_its_axis(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names that a module reports beside the metrics of its protocol, too."""
    points = {"step": [1], "train_flops": [2], "loss": [0.5], "lr": [0.1]}
    cost = {"epoch": 1, "step": 2, "samples_seen": 1, "wall_s": 1.0, "train_flops": 3, "lr": 0.1, "steps": points}
    segmented = cost | {"val/dice_err": 3.0, "val/n_pixels": 100.0}
    detected = cost | {"val/box_ap_err": 3.0, "train/loss_rpn_box": 0.5}
    tracked(tmp_path, "axis-masks", task="segmentation", history=[segmented])
    tracked(tmp_path, "axis-boxes", task="detection", name="faster_rcnn", history=[detected])
    assert run_sync(tmp_path, capsys)[0] == 0
    for run_id, row in (("axis-masks", segmented), ("axis-boxes", detected)):
        run = server.runs["p", run_id]
        names = {name for sent in rows_of(run) for name in sent} - {"compute/train_flops", "trainer/global_step"}
        assert {name for name in row if "/" in name} < names
        assert {name: run.axes.get(name) for name in names} == dict.fromkeys(names, "compute/train_flops")


def test_half_uploaded_runs_are_completed_and_foreign_rows_are_reported(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tracked(tmp_path, "half", epochs=6)
    (directory / "pictures").mkdir()
    from PIL import Image

    Image.new("RGB", (4, 4)).save(directory / "pictures" / "test-0.png")
    assert run_sync(tmp_path, capsys)[0] == 0
    monkeypatch.setattr(sync, "READ_BACK_S", 5)
    run = server.runs["p", "half"]
    whole = list(run.streams["wandb-history.jsonl"])

    def lose_rows() -> None:
        del run.streams["wandb-history.jsonl"][4:]
        run.summary["_step"] = 3

    def lose_state() -> None:
        run.state, run.exit_code = "running", None

    def lose_summary() -> None:
        del run.summary["test/top1_err"]

    def lose_picture() -> None:
        [path] = [path for path in server.storage if path.startswith("run/p/half/media/images")]
        del server.storage[path]

    for lose in (lose_rows, lose_state, lose_summary, lose_picture):
        lose()
        code, out, err = run_sync(tmp_path, capsys)
        assert (code, "; 1 sent now" in out) == (0, True), (lose, err)
        assert [{**json.loads(row), "_runtime": 0, "_timestamp": 0} for row in run.streams["wandb-history.jsonl"]] == [
            {**json.loads(row), "_runtime": 0, "_timestamp": 0} for row in whole
        ]
        assert (run.state, run.exit_code) == ("finished", 0)
        assert "; 0 sent now" in run_sync(tmp_path, capsys)[1]

    row = json.loads(run.streams["wandb-history.jsonl"][2])
    run.streams["wandb-history.jsonl"][2] = json.dumps(row | {"val/top1_err": 0.0})
    code, _, err = run_sync(tmp_path, capsys)
    assert code == 1
    assert "is not that of history.jsonl" in err


def test_an_artifact_that_is_not_the_file_is_sent_again(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tracked(tmp_path, "artifact", epochs=2)
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["logger"]["checkpoints"] = True
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / "checkpoints" / "last.ckpt").write_bytes(b"old")
    assert run_sync(tmp_path, capsys)[0] == 0
    (directory / "checkpoints" / "last.ckpt").write_bytes(b"new")
    assert "; 1 sent now" in run_sync(tmp_path, capsys)[1]
    versions = [artifact for artifact in server.artifacts if artifact.name == "checkpoints-artifact"]
    assert [server.storage[version.files["last.ckpt"]] for version in versions] == [b"old", b"new"]
    assert "; 0 sent now" in run_sync(tmp_path, capsys)[1]


def test_a_run_that_went_on_after_an_interruption_has_no_error_there(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tracked(tmp_path, "went-on", status="interrupted", error="interrupted by Ctrl-C")
    whole = (directory / "history.jsonl").read_text()
    (directory / "history.jsonl").write_text("".join(whole.splitlines(keepends=True)[:5]))
    assert run_sync(tmp_path, capsys)[0] == 0
    stored = server.runs["p", "went-on"]
    assert stored.summary["error"] == "interrupted by Ctrl-C"
    shutil.rmtree(directory)
    tracked(tmp_path, "went-on")  # to its end
    assert run_sync(tmp_path, capsys)[0] == 0
    assert (stored.summary["status"], stored.summary.get("error")) == ("ok", None)
    stored.summary["error"] = "of an earlier version of this suite"
    assert "; 1 sent now" in run_sync(tmp_path, capsys)[1]
    assert stored.summary.get("error") is None


def test_a_sweep_has_a_report_with_its_statistics_once(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, error in enumerate((2.0, 3.0, 4.0)):
        tracked(tmp_path, f"swept-{seed}", seed=seed, metrics={"test/top1_err": error})
    tracked(tmp_path, "swept-dear", name="resnet20", metrics={"test/top1_err": 5.0})
    runs, _ = load_runs(tmp_path)
    sweep_report.write_report_run(tmp_path, runs, LOGGER)
    assert len(list((tmp_path / "wandb").glob("offline-run-*-report-*"))) == 1
    sweep_report.write_report_run(tmp_path, runs, LOGGER)  # nothing new: nothing is written
    assert len(list((tmp_path / "wandb").glob("offline-run-*-report-*"))) == 1
    code, out, err = run_sync(tmp_path, capsys)
    assert (code, err) == (0, "") and "5 of 5" in out
    [report] = [run for run in server.runs.values() if run.job_type == "report"]
    assert (report.state, report.group) == ("finished", "digits")
    media = {key: report.summary[key]["path"] for key in ("summary", "digits/curves", "digits/front")}
    content = {key: json.loads(server.storage[f"run/p/{report.name}/{path}"]) for key, path in media.items()}
    rows = [dict(zip(content["summary"]["columns"], row, strict=True)) for row in content["summary"]["data"]]
    by_name = {row["network"]: row for row in rows}
    swept = by_name["resnext29_8x4d"]
    assert (swept["n"], swept["mean"]) == (3, 3.0)
    # Student's t of two degrees of freedom, 4.3027, on the logit scale: ± 4.3027 · 0.01 / √3 / (0.03 · 0.97).
    half = 4.3027 * 0.01 / math.sqrt(3) / (0.03 * 0.97)
    expected = [100 / (1 + math.exp(sign * half) * 0.97 / 0.03) for sign in (1, -1)]
    assert [swept["low"], swept["high"]] == pytest.approx(expected, rel=1e-3)
    assert swept["on_front"] and not by_name["resnet20"]["on_front"]
    assert (by_name["resnet20"]["n"], by_name["resnet20"]["low"]) == (1, None)
    assert any(trace.get("fill") == "toself" for trace in content["digits/curves"]["data"])
    assert "; 0 sent now" in run_sync(tmp_path, capsys)[1]


def test_seeds_that_were_evaluated_at_different_compute_are_curves_of_their_own(tmp_path: Path) -> None:
    """What a detector computes depends on its images, so that its seeds share no FLOPs."""
    errors = {("faster_rcnn", 0): 40.0, ("faster_rcnn", 1): 41.0, ("mask_rcnn", 0): 30.0, ("mask_rcnn", 1): 31.0}
    for (name, seed), error in errors.items():
        flops = [1_000 + seed, 2_000 + seed] if name == "faster_rcnn" else [3_000, 4_000]
        rows = [
            {
                "epoch": epoch,
                "step": epoch,
                "samples_seen": epoch,
                "wall_s": 1.0,
                "train_flops": spent,
                "val/top1_err": error,
            }
            for epoch, spent in enumerate(flops, 1)
        ]
        make_run(tmp_path, name=name, family=name, seed=seed, history=rows)
    traces = sweep_report.curves(load_runs(tmp_path)[0], "coco")["traces"]
    lines = {trace["name"]: (trace["x"], trace["y"]) for trace in traces if "name" in trace}
    assert lines == {
        "faster_rcnn (n = 2), seed 0": ([1_000, 2_000], [40.0, 40.0]),
        "faster_rcnn (n = 2), seed 1": ([1_001, 2_001], [41.0, 41.0]),
        "mask_rcnn (n = 2)": ([3_000, 4_000], [30.5, 30.5]),
    }
    assert len(traces) == 4  # and one band


def test_folds_of_a_data_set_have_fronts_of_their_own(tmp_path: Path) -> None:
    """Of two folds the error of one network on the one says nothing of another on the other."""
    for fold, first, second in ((0, 2.0, 3.0), (1, 5.0, 6.0)):
        for name, error in (("resnet20", first), ("resnet29", second)):
            for seed in range(3):
                tracked(
                    tmp_path, f"{name}-{fold}-{seed}", name=name, seed=seed, recipe=f"fold{fold}",
                    dataset={"sha256": str(fold) * 64}, metrics={"test/top1_err": error + 0.1 * seed},
                )  # fmt: skip
    rows = [dict(zip(sweep_report.COLUMNS, row, strict=True)) for row in sweep_report.table(load_runs(tmp_path)[0])]
    assert len(rows) == 4 and len({row["data"] for row in rows}) == 2
    assert [row["on_front"] for row in rows if row["network"] == "resnet20"] == [True, True]


def test_no_tracking_has_no_report(tmp_path: Path) -> None:
    tracked(tmp_path, "none")
    sweep_report.write_report_run(tmp_path, load_runs(tmp_path)[0], LOGGER | {"mode": "none"})
    assert not (tmp_path / "wandb").exists()


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracked(tmp_path, "read-only")
    (tmp_path / "wandb").touch()  # stands for a folder that may only be read
    sweep_report.write_report_run(tmp_path, load_runs(tmp_path)[0], LOGGER)
    place = tmp_path / "wandb" / "reports"
    assert capsys.readouterr().err == f"W&B: the report was not written: {place}: Not a directory\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"WANDB_API_KEY": ""}, "no W&B key"), ({"WANDB_API_KEY": "short"}, "40"), ({"WANDB_API_KEY": "1" * 40}, "")],
    ids=["no key", "short key", "wrong key"],
)
def test_a_bad_key_is_one_line(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str], said: str,
) -> None:  # fmt: skip
    import wandb

    wandb.teardown()
    tracked(tmp_path, "unsent")
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    code, _, err = run_sync(tmp_path, capsys)
    assert code != 0
    lines = [line for line in err.splitlines() if not line.startswith("wandb: ")]
    assert len(lines) == 1 and said in lines[0], err
    assert ("p", "unsent") not in server.runs
    wandb.teardown()


def test_a_server_that_is_away_is_one_line(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked(tmp_path, "away")
    server.stop()
    code, _, err = run_sync(tmp_path, capsys)
    assert code == 2 and "does not answer" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_server_that_answers_500_is_one_line_and_the_next_call_sends(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked(tmp_path, "broken")
    server.fault = lambda kind, name: 500 if name == "UpsertBucket" else None
    code, out, err = run_sync(tmp_path, capsys)
    assert code == 1 and "500" in err and "0 of 1 runs" in out
    server.fault = lambda kind, name: None
    assert run_sync(tmp_path, capsys)[0] == 0


def test_an_unknown_entity_is_one_line_and_another_place_can_be_named(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked(tmp_path, "placed")
    code, _, err = run_sync(tmp_path, capsys, "--to", "nobody/p")
    assert code == 1 and "nobody" in err
    assert run_sync(tmp_path, capsys, "--to", f"{ENTITY}/elsewhere")[0] == 0
    assert ("elsewhere", "placed") in server.runs


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("wandb sync")([str(tmp_path / "nowhere")]) == 2
    assert "give the folder that holds the runs" in capsys.readouterr().err


def test_a_run_of_many_overrides_has_a_name_that_the_server_takes() -> None:
    overrides = {f"recipe.optimizer.option_{number}": number for number in range(9)}
    record = {"data": "digits", "name": "resnet20", "recipe": "common", "seed": 7, "overrides": {}}
    assert display_name(record) == "resnet20 · digits · common · seed 7"
    long = display_name(record | {"overrides": overrides})
    assert len(long.encode()) <= 128
    assert long.startswith("resnet20 · digits · common, ") and long.endswith(" · seed 7")
