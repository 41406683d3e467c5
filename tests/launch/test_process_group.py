"""What the processes of a trial are forked from: the code that it has imported."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import CLEAN, ROOT, in_python

from benchmarks.config.compose import expand
from benchmarks.launch.sweep import imports_of
from benchmarks.records.clean_environment import clean_environment

LIMIT_S = 240
PACKAGES = ("benchmarks", "conf", "datamodules", "lightning_modules")
TINY = (
    *("model=resnet", "data=digits", "recipe.epochs=3", "trainer.limit_train_batches=3", "logger=none"),
    *("trainer.accelerator=cpu", "cluster.threads_per_process=1"),
)
OWN = "from torch.optim import SGD\n\n\nclass OwnSGD(SGD):\n    pass\n"

# Overrides of a trial, and which of the modules of tasks and of ways of loading it uses.
KINDS = {
    "model=resnet data=digits": {"lightning_modules.classifier", "datamodules.in_memory"},
    "model=resnet data=imagenet": {"lightning_modules.classifier", "datamodules.from_files"},
    "model=unet data=nuclei": {"lightning_modules.segmenter", "datamodules.in_memory"},
    "model=mask_rcnn data=nuclei_instances": {"lightning_modules.detector", "datamodules.objects"},
}


def test_only_modules_that_a_trial_uses_are_imported_for_it() -> None:
    """Those of other tasks import SciPy's images, which takes 0.2 s."""
    trials = {overrides: expand(overrides.split(), False) for overrides in KINDS}
    of_kinds = set().union(*KINDS.values())
    for overrides, own in KINDS.items():
        assert of_kinds & {*imports_of(trials[overrides])} == own
    assert of_kinds <= {*imports_of(trial for found in trials.values() for trial in found)}


FORKED = """
import sys
from benchmarks.launch.process_group import _server
if __name__ == "__main__":
    server = _server()
    server.set_forkserver_preload(["benchmarks.launch.process", "statistics"])
    process = server.Process(target=print, args=("forked",))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


def test_a_process_of_a_trial_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "here" / "benchmarks").mkdir(parents=True)
    for name in ("benchmarks/__init__.py", "statistics.py"):
        (tmp_path / "here" / name).write_text("raise RuntimeError(__file__)\n")
    (tmp_path / "launcher.py").write_text(FORKED)
    launcher = [sys.executable, str(tmp_path / "launcher.py")], CLEAN | {"PYTHONPATH": str(ROOT)}
    interpreter = [sys.executable, "-m", "benchmarks.launch.process"], clean_environment(1)
    for (command, environment), said in ((launcher, "forked\n"), (interpreter, "")):
        done = subprocess.run(
            command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert (done.returncode, done.stdout) == (0, said), done.stderr


@pytest.mark.slow
def test_what_trials_are_forked_from_is_not_taken_apart_at_its_end() -> None:
    begins = "import atexit\natexit.register(print, 'taken apart')\n"
    assert in_python(begins).strip() == "taken apart"
    assert in_python(f"{begins}import benchmarks.launch.remembered_code") == ""


@pytest.mark.slow
def test_a_record_names_the_code_that_was_imported_when_the_sweep_began(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    own = tmp_path / "own" / "own_sgd.py"
    own.parent.mkdir()
    own.write_text(OWN)
    process = subprocess.Popen(
        [sys.executable, "run.py", "-m", *TINY, "recipe.optimizer._target_=own_sgd.OwnSGD", "seed=0,1"],
        cwd=tmp_path, env=CLEAN | {"PYTHONPATH": str(own.parent)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + LIMIT_S
    while not list(tmp_path.glob("outputs/digits/*/*/seed0/history.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for path in (own, tmp_path / "lightning_modules" / "classifier.py"):
        with path.open("a") as file:
            file.write("# changed\n")
            os.fsync(file.fileno())
    assert process.wait(LIMIT_S) == 0, process.stdout and process.stdout.read()
    first, second = (
        json.loads(path.read_text())["code"] for path in sorted(tmp_path.glob("outputs/*/*/*/*/record.json"))
    )
    assert list(first["user_code"]) == ["own_sgd.py"]
    assert second == first
