"""A depthwise network of the real timm beside ours: counted, trained, tabled and drawn. timm lies in a folder of its own."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.commands import CLEAN, ROOT, records
from support.data_files import photographs

TIMM = Path(sys.prefix) / "timm"  # `make .venv/slow` puts it there
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not TIMM.is_dir(), reason="needs timm in .venv/timm")]
NETS = "timm_mobilenetv3_small_100", "resnet20"
TORCHS_COUNT = """
import timm, torch
from torch.utils.flop_counter import FlopCounterMode
net = timm.create_model("mobilenetv3_small_100", in_chans=1, num_classes=10).eval()
with FlopCounterMode(display=False) as counter:
    net(torch.zeros(1, 1, 8, 8))
print(counter.get_total_flops() // 2, sum(parameter.numel() for parameter in net.parameters()))
"""


@cache
def environment() -> dict[str, str]:
    """One in which timm starts, with a torchvision of torch's build or of another."""
    plain = CLEAN | {"PYTHONPATH": str(TIMM), "OMP_NUM_THREADS": "1"}
    works = subprocess.run([sys.executable, "-c", "import torchvision"], env=plain, capture_output=True).returncode == 0
    declared = os.pathsep.join((str(ROOT / "tests" / "support" / "torchvision_operators"), str(TIMM)))
    return plain if works else plain | {"PYTHONPATH": declared}


def python(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, *arguments], env=environment(), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_sweeps_beside_ours_and_costs_what_torch_counts(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    short = ("recipe=common", "recipe.epochs=1", "trainer.limit_train_batches=2", "logger=none")
    place = (f"output_root={root}", "cluster.threads_per_process=1", "trainer.accelerator=cpu")
    shown = python(str(ROOT / "run.py"), "-m", "model=timm,resnet", "data=digits", *short, *place, cwd=tmp_path)
    made = records(root)
    assert made.keys() == {*NETS} and all(record["status"] == "ok" for record in made.values())
    cost = made[NETS[0]]["complexity"]
    assert [cost["macs"], cost["params"]] == [*map(int, python("-c", TORCHS_COUNT).split())]
    page = (root / "report.html").read_text()
    for name in NETS:
        assert name in shown and name in page and name in python("-m", "benchmarks", "report", str(root))
    layers = python("-m", "benchmarks", "complexity", "model=timm", "data=digits")
    assert f"{cost['macs'] / 1e6:.2f} M MACs" in layers


def test_it_trains_on_a_folder_of_two_times_twenty_photographs(tmp_path: Path) -> None:
    pets, root = photographs(tmp_path / "pets", {"cats": 20, "dogs": 20}), tmp_path / "outputs"
    quick = ("data.image_size=[32,32]", "recipe.epochs=1", "logger=none", f"output_root={root}")
    python(str(ROOT / "run.py"), "model=timm", "data=image_folder", f"data.root={pets}", *quick, cwd=tmp_path)
    [record] = records(root).values()
    assert (record["name"], record["recipe"], record["status"]) == (NETS[0], "image_folder", "ok")
    assert record["counts"] == {"train": 28, "val": 6, "test": 6}


def test_networks_cost_what_their_papers_print() -> None:
    tests = python(
        "-m", "pytest", "tests/lightning_modules/test_from_timm.py", "-k", "papers or unknown", "-p", "no:xdist"
    )
    assert "5 passed" in tests and "skipped" not in tests
