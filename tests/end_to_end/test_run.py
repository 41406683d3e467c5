"""run.py as a user meets it: real processes, real files, the real W&B client."""

import contextlib
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from support.commands import CLEAN, ROOT, inspect, records, rows, run, run_here, start

TINY = ("recipe.epochs=2", "recipe.batch_size=290")  # 4 batches of the digits
ONE_THREAD = "cluster.threads_per_process=1"  # as of ``run_here``: bits depend on it
SWEEP = ("-m", "model=resnext,unet,densenet,resnet", *TINY, ONE_THREAD)
SMALL = ("model=resnet", "model.depth=8", "model.base_channels=4", "recipe.epochs=500", ONE_THREAD)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Three good trials and an impossible one among them, with W&B offline."""
    root = tmp_path_factory.mktemp("sweep") / "outputs"
    return root, run(*SWEEP, root=root)


def test_good_trials_finish_beside_an_impossible_one(sweep) -> None:
    root, done = sweep
    assert done.returncode == 1, done.stderr
    assert {name: record["status"] for name, record in records(root).items()} == dict.fromkeys(
        ("resnext20_8x4d", "densenet_bc40_k12", "resnet20"), "ok"
    )
    assert "model=unet is not set up for data=digits" in done.stdout
    assert "1 of 4 runs have no result." in done.stdout
    assert str(root / "report.html") in done.stdout
    assert f"python -m benchmarks wandb show {root}" in done.stdout


def test_the_record_is_the_runs_passport(sweep) -> None:
    root, _ = sweep
    for record in records(root).values():
        cost, spent = record["complexity"], record["compute"]
        assert cost["flops"] == 2 * cost["macs"]
        assert spent["samples_seen"] == 2 * 4 * 290  # epochs x batches x global batch
        assert spent["train_flops"] == spent["samples_seen"] * cost["train_flops_per_sample"]
        assert record["counts"] == {"train": 1197, "val": 150, "test": 450}
        assert record["metrics"]["test/n"] == 450 == sum(map(sum, record["confusion"]))
        hits = sum(row[index] for index, row in enumerate(record["confusion"]))
        assert record["metrics"]["test/top1_err"] == 100 * (450 - hits) / 450
        assert record["protocol"]["checkpoint"] == "last"
        assert record["environment"]["threads"] >= 1
        assert record["environment"]["packages"]["torch"] == torch.__version__
        assert record["overrides"] == {"recipe.epochs": 2, "recipe.batch_size": 290}


def test_every_run_leaves_pictures(sweep) -> None:
    root, _ = sweep
    assert len(list(root.glob("digits/*/*/seed0/pictures/test-0.png"))) == 3


def test_the_history_has_a_row_per_evaluation(sweep) -> None:
    root, _ = sweep
    for path in root.glob("*/*/*/seed0"):
        history = rows(path)
        assert [row["epoch"] for row in history] == [1, 2]
        assert [row["step"] for row in history] == [4, 8]
        record = json.loads((path / "record.json").read_text())
        for row in history:
            assert row["train_flops"] == row["samples_seen"] * record["complexity"]["train_flops_per_sample"]
            assert row["val/n"] == 150
            assert math.isfinite(row["train/loss"])
        assert history[-1]["train_flops"] == record["compute"]["train_flops"]


def test_checkpoints_are_plain_and_hold_the_recorded_weights(sweep) -> None:
    from benchmarks.training.checkpoints import weights_sha256

    root, _ = sweep
    for path in root.glob("*/*/*/seed0"):
        record = json.loads((path / "record.json").read_text())
        weights = {
            name: torch.load(path / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
            for name in ("last", "best")
        }
        net = {key.removeprefix("net."): value for key, value in weights["last"].items() if key.startswith("net.")}
        assert weights_sha256(net) == record["weights_sha256"]
        assert weights["best"].keys() == weights["last"].keys()


def test_one_tracked_run_per_trial(sweep) -> None:
    root, _ = sweep
    folders = sorted((root / "wandb").glob("offline-run-*"))
    assert len(folders) == 3 + 1
    seen = {}
    for folder in folders:
        lines = inspect(folder)
        [header] = [line["run"] for line in lines if line["type"] == "run"]
        if header["job_type"] == "report":
            continue
        [ended] = [line["exit"] for line in lines if line["type"] == "exit"]
        config = header["config"]["update"]
        record = records(root)[config["name"]]
        assert header["display_name"].split(" · ")[:2] == [record["name"], "digits"]
        assert header["display_name"].endswith(" · seed 0")
        assert header["run_id"] == record["run_id"] == record["wandb"]["id"]
        assert config["hash"] == record["config_hash"]
        assert ended.get("exit_code", 0) == 0
        axes = {line["metric"]["name"]: line["metric"].get("step_metric") for line in lines if line["type"] == "metric"}
        assert not any("*" in name for name in axes)
        history = rows(next(root.glob(f"*/{record['name']}/*/seed0")))
        validated = {name for row in history for name in row if name.startswith("val/")}
        assert {name: axes.get(name) for name in validated} == dict.fromkeys(validated, "compute/train_flops")
        seen[record["name"]] = header["run_id"]
        logged = [line["history"] for line in lines if line["type"] == "history"]
        assert len(logged) == len(history)
        assert json.dumps(lines).count('"test/top1_err"') >= 1  # flat summary key
    assert len(set(seen.values())) == 3  # and the report


def test_a_finished_sweep_returns_at_once_and_writes_nothing(sweep) -> None:
    root, _ = sweep
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*/*/seed0/**/*") if path.is_file()}
    done = run(*SWEEP, root=root)
    assert done.stdout.count("finished before") == 3
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/*/*/seed0/**/*") if path.is_file()} == before
    assert len(list((root / "wandb").glob("offline-run-*"))) == 3 + 1  # the sweep's report


def test_the_same_run_untracked_has_the_same_weights_and_numbers(sweep, tmp_path: Path) -> None:
    root, _ = sweep
    again = run_here("model=resnet", *TINY, "logger=none", root=tmp_path / "outputs")
    assert again.returncode == 0, again.stderr
    first, second = records(root)["resnet20"], records(tmp_path / "outputs")["resnet20"]
    for key in ("weights_sha256", "config_hash", "metrics", "confusion", "complexity", "counts", "dataset"):
        assert first[key] == second[key], key
    assert second["wandb"] is None
    assert not (tmp_path / "outputs" / "wandb").exists()


@pytest.mark.slow
def test_imported_weights_are_tested_without_training(sweep, tmp_path: Path) -> None:
    from benchmarks.records.runs import load_runs
    from benchmarks.report.page import write_page
    from benchmarks.report.status import trial_states
    from benchmarks.training.weights import Weights

    root, _ = sweep
    [checkpoint] = root.glob("digits/resnet20/*/seed0/checkpoints/last.ckpt")
    Weights.read(checkpoint).write(tmp_path / "mine.pt")
    trials = ("-m", "mode=test", "weights=mine.pt", "model=resnet,densenet", "trainer.devices=1,3", "logger=none")
    done = run_here(*trials, "cluster.oversubscribe=true", "trainer.accelerator=cpu", root=tmp_path / "outputs")
    assert done.returncode == 1, done.stdout + done.stderr
    refused = [line for line in done.stdout.splitlines() if line.endswith(": a ResNet, and this is a DenseNet")]
    assert len(refused) == 2 and "failed: mine.pt holds another network, resnet20" in refused[0]

    trained = records(root)["resnet20"]
    runs, problems = load_runs(tmp_path / "outputs")
    assert not problems and [found.status for found in runs] == 2 * ["failed"] + 2 * ["ok"]
    for tested in runs[2:]:
        assert tested.record["metrics"] == trained["metrics"] | {
            "test/loss": pytest.approx(trained["metrics"]["test/loss"], rel=1e-6)
        }
        for key in ("weights_sha256", "confusion", "complexity", "counts", "dataset"):
            assert tested.record[key] == trained[key], key
        assert tested.part("protocol")["checkpoint"] == "imported"
        digest = hashlib.sha256((tmp_path / "mine.pt").read_bytes()).hexdigest()
        weights = tested.part("protocol")["weights"]
        assert (weights["file"], weights["sha256"], weights["source"]) == ("mine.pt", digest, "run")
        assert tested.train_flops is None and tested.wall_s is None and tested.history == []
        assert not (tested.directory / "checkpoints").exists()
    names = {found.directory.parent.name for found in runs[2:]}
    assert names == {"resnet_digits,weights=mine", "resnet_digits,devices=3,weights=mine"}  # of 3, no batch of training

    states, _ = trial_states(tmp_path / "outputs")
    assert sorted(state.state for state in states) == ["done", "done", "failed", "failed"]
    write_page(tmp_path / "outputs")
    assert digest in (tmp_path / "outputs" / "report.html").read_text()
    again = run_here("mode=test", "weights=mine.pt", "model=resnet", "logger=none", root=tmp_path / "outputs")
    assert again.returncode == 0 and "finished before" in again.stdout
    full = f"weights={tmp_path / 'mine.pt'}"  # the same file
    again = run_here("mode=test", full, "model=resnet", "logger=none", root=tmp_path / "outputs")
    assert again.returncode == 0 and "finished before" in again.stdout
    (tmp_path / "mine.pt").unlink()
    again = run_here("mode=test", full, "model=resnet", "logger=none", root=tmp_path / "outputs")
    assert again.returncode == 1 and f"refused: {full}: there is no such file" in again.stdout
    assert {found.status for found in load_runs(tmp_path / "outputs")[0]} == {"failed", "ok"}

    done = run_here("mode=test", f"weights={checkpoint}", "model=resnet", "logger=none", root=tmp_path / "of_a_run")
    assert done.returncode == 0, done.stdout + done.stderr
    [tested] = load_runs(tmp_path / "of_a_run")[0]
    assert tested.record["metrics"] == runs[2].record["metrics"]
    recipe = checkpoint.parents[2].name.replace(",", "-")
    assert tested.directory.parent.name == f"resnet_digits,weights=digits-resnet20-{recipe}-seed0-last"
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert {digest} == {tested.part("protocol")["weights"][key] for key in ("sha256", "source_sha256")}


def test_another_configuration_in_the_directory_is_refused(sweep) -> None:
    root, _ = sweep
    directory = next(root.glob("digits/resnet20/*/seed0"))
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["recipe"]["optimizer"]["lr"] = 0.25
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    done = run_here("model=resnet", *TINY, root=root)
    assert done.returncode == 1
    assert "recipe.optimizer.lr: 0.25 there, 0.01 here" in done.stdout
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    arguments = ("model=densenet", "recipe.epochs=3", "trainer.limit_train_batches=8", "logger=none", ONE_THREAD)
    straight = run(*arguments, root=tmp_path / "straight")
    assert straight.returncode == 0, straight.stdout
    directory = next((tmp_path / "straight").glob("*/*/*/seed0")).relative_to(tmp_path / "straight")

    process = start(*arguments, root=tmp_path / "killed")
    killed = tmp_path / "killed" / directory
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child = json.loads((killed / "progress.json").read_text())["pid"]
    os.kill(child, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    record = json.loads((killed / "record.json").read_text())
    assert record["status"] == "failed"
    assert "killed by SIGKILL" in record["error"] and "killed by SIGKILL" in out

    resumed = run(*arguments, root=tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stdout
    again, first = (
        json.loads((path / "record.json").read_text()) for path in (killed, tmp_path / "straight" / directory)
    )
    assert again["weights_sha256"] == first["weights_sha256"]
    assert len(again["resumptions"]) == 1
    assert again["compute"]["train_flops"] == first["compute"]["train_flops"]
    keep = ("epoch", "step", "samples_seen", "train_flops", "lr", "train/loss", "val/loss", "val/top1_err")
    one, two = (
        [{key: row[key] for key in keep} for row in rows(path)] for path in (killed, tmp_path / "straight" / directory)
    )
    assert one == two


def exit_code(root: Path) -> int:
    """Of the only tracked run below ``root``; the client leaves a zero out."""
    [folder] = (root / "wandb").glob("offline-run-*")
    [ended] = [line["exit"] for line in inspect(folder) if line["type"] == "exit"]
    return ended.get("exit_code", 0)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGINT, "Ctrl-C"),
        *(pytest.param(number, number.name, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_ctrl_c_stops_and_records(number: signal.Signals, name: str, tmp_path: Path) -> None:
    process = start(*SMALL, root=tmp_path / "outputs")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "outputs").rglob("history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    [progress] = (tmp_path / "outputs").rglob("progress.json")
    child = json.loads(progress.read_text())["pid"]
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in out and "report.html" in out
    [record] = records(tmp_path / "outputs").values()
    assert (record["status"], record["error"]) == ("interrupted", f"interrupted by {name}")
    assert not Path(f"/proc/{child}").exists()
    assert exit_code(tmp_path / "outputs") == 128 + signal.SIGTERM  # the launcher's word to its ranks


@pytest.mark.slow
def test_ctrl_c_while_the_server_of_processes_imports_prints_no_traceback(tmp_path: Path) -> None:
    process = start(*SMALL, "logger=none", root=tmp_path / "outputs")
    children, deadline = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + 60
    servers: list[int] = []
    while not servers and time.monotonic() < deadline:
        time.sleep(0.1)
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if b"multiprocessing.forkserver" in Path("/proc", child, "cmdline").read_bytes():
                    servers.append(int(child))
    for pid in (*servers, process.pid):  # a terminal signals every process in its foreground
        os.kill(pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert servers and (process.returncode, err) == (130, "")


@pytest.mark.slow
def test_ctrl_c_while_a_mirror_is_waited_for_leaves_the_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = "import sys, time\nif 'benchmarks.tracking.follower' in sys.orig_argv: time.sleep(300)\n"
    (tmp_path / "sitecustomize.py").write_text(hang)
    monkeypatch.setitem(CLEAN, "PYTHONPATH", str(tmp_path))
    root = tmp_path / "outputs"
    arguments = ("model=resnet", *TINY, ONE_THREAD, "logger=csv")
    process = start(*arguments, root=root)
    deadline = time.monotonic() + 120
    while not (there := records(root)) or there["resnet20"]["status"] != "ok" and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "test error" in out
    assert records(root) == there and there["resnet20"]["error"] is None
    again = run_here(*arguments, root=root)
    assert again.returncode == 0 and "finished before" in again.stdout


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_process(tmp_path: Path) -> None:
    process = start(*SMALL, "logger=none", root=tmp_path / "outputs")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "outputs").rglob("history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    [progress] = (tmp_path / "outputs").rglob("progress.json")
    child = Path("/proc", str(json.loads(progress.read_text())["pid"]))
    process.kill()
    process.communicate(timeout=10)
    deadline = time.monotonic() + 30
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.exists()
    [record] = records(tmp_path / "outputs").values()
    assert (record["status"], record["error"]) == ("interrupted", "interrupted by SIGTERM")


@pytest.mark.slow
def test_a_failed_run_is_tracked_as_failed(tmp_path: Path) -> None:
    done = run_here("model=resnet", "recipe.optimizer.lr=1e30", root=tmp_path / "outputs")
    assert done.returncode == 1
    assert exit_code(tmp_path / "outputs") == 1
    [record] = records(tmp_path / "outputs").values()
    assert record["status"] == "failed" and record["compute"]["train_flops"] > 0
    assert "not finite" in record["error"] and "not finite" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.depth=21"], "9n+2"),
        (["model.cardinality=3", "model.base_width=21.5"], "base_width"),
        (["recipe.batch_size=5000"], "5000"),
        (["model.stem=imagenet", "model.depth=50"], "too small"),
        (["data.image_size=[8,9]"], "data.image_size must be [8, 8], the size of the images, got [8, 9]"),
        (
            ["model=unet", "data=nuclei", "recipe.augment.crop_size=64"],
            "data.image_size must be [64, 64], the size that recipe.augment trains on, for which compute is counted, got [128,",
        ),
        (
            ["model=unet", "data=touching_cells", "recipe.augment.elastic.output_size=[128,64]"],
            "recipe.augment.elastic.output_size must be at least [128, 128], what the network puts out, got [128, 64]",
        ),
        (["recipe.optimizer._target_=nothing.SGD"], "No module named 'nothing'"),
        (["data=cifar10", "data.root=/nowhere"], "cifar-10-binary.tar.gz"),
        (
            ["model=resnet", "model.base_channels=17", "data.in_channels=3", "data.image_size=[32,32]"],
            "the network called resnet20 has 304,327 parameters, the paper's has 269,722",
        ),
    ],
)
def test_bad_values_fail_in_one_line_and_are_recorded(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run_here(*arguments, "logger=none", root=tmp_path / "outputs")
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if " failed: " in line]
    assert said in line
    [record] = records(tmp_path / "outputs").values()
    assert record["status"] == "failed" and said in record["error"]


def test_a_full_disk_fails_the_trial_in_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        done = run_here("model=resnext", "trainer.limit_train_batches=2", "logger=none", root=disk / "outputs")
        assert done.returncode == 1
        assert "failed: no space left on the disk, or no inodes; what was written before is intact" in done.stdout
        assert "Traceback" not in done.stderr
        assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trainer.devices=3"], "cannot be divided among 3 processes"),
        (["trainer.devices=64", "recipe.batch_size=64", "trainer.accelerator=cpu"], "this machine has"),
        (["trainer.sync_batchnorm=true"], "needs several GPUs"),
        (["trainer.max_epochs=3"], "trainer.max_epochs follows recipe.epochs: set recipe.epochs=3"),
    ],
)
def test_what_cannot_start_is_refused_before_anything_is_written(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = run_here(*arguments, root=tmp_path / "outputs")
    assert done.returncode == 1
    assert said in done.stdout
    assert not (tmp_path / "outputs").exists()


def test_help_and_cfg_need_no_torch(tmp_path: Path) -> None:
    code = "import sys, run; code = run.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    command = [sys.executable, "-c", code, "--cfg", "job"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "cardinality: 8" in done.stdout
    done = subprocess.run([sys.executable, "run.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "model=resnext,densenet" in done.stdout and "nuclei" in done.stdout


def test_a_schedule_that_never_lowers_the_rate_is_noted(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    short = ("recipe=resnet_cifar10", "recipe.epochs=1", "trainer.limit_train_batches=1", "logger=none")
    done = run_here("model=resnet", "model.depth=8", "model.base_channels=4", *short, root=root)
    assert done.returncode == 0, done.stderr
    [record] = records(root).values()
    note = "the learning rate is never lowered: recipe.epochs=1 ends before recipe.scheduler.milestones=[82, 123]"
    assert note in record["notes"] and note in done.stdout.splitlines()


def test_an_unknown_model_says_which_there_are(tmp_path: Path) -> None:
    done = run_here("data=digits", "-m", "model=resnxt", root=tmp_path / "outputs")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "did you mean 'resnext'?" in done.stderr
