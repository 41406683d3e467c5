"""A network is added by the files that the README names, in a folder of one's own: trained, counted, matched, viewed, drawn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, records, run

NETWORK = """
from torch import nn


class GroupNet(nn.Module):
    part_names = {"blocks": ("unit",)}
    recomputation_stages = ("blocks.*",)

    def __init__(self, width=2, groups=2, in_channels=1, num_classes=10):
        super().__init__()
        channels = width * groups
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=groups), nn.BatchNorm2d(channels), nn.ReLU())
            for _ in range(2)
        )
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))

    def check_image_size(self, height, width):
        pass
"""
CONFIGURATION = """
# @package _global_
name: groupnet${model.groups}x${model.width}
model:
  _target_: group_net.GroupNet
  width: 2
  groups: 2
  in_channels: ${data.in_channels}
  num_classes: ${data.num_classes}
about:
  look: {colour: "#8B4513", marker: star, dash: longdashdot}
  match: {width: width}
"""


def macs(width: int) -> int:
    """Of an image of 8x8 by hand: the stem, two grouped convolutions, the classifier."""
    return 64 * 9 * 2 * width + 2 * 64 * 9 * 2 * width**2 + 2 * width * 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "model").mkdir()
    (folder / "group_net.py").write_text(NETWORK)
    (folder / "model" / "groupnet.yaml").write_text(CONFIGURATION)
    return folder


@pytest.fixture(scope="module")
def outputs(folder: Path) -> Path:
    """The folder of one training of an epoch."""
    root = folder / "outputs"
    done = run(
        *("--config-dir", str(folder), "model=groupnet", "data=digits", "recipe.epochs=1", "logger=none"),
        *("trainer.accelerator=cpu", "trainer.gradient_checkpointing=true"),
        root=root,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "★ groupnet2x2" in done.stdout
    assert "the default recipe, classification: groupnet has none of its own for digits" in done.stdout
    return root


def benchmarks(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_record_names_the_code_the_cost_and_the_look(outputs: Path) -> None:
    record = records(outputs)["groupnet2x2"]
    assert record["status"] == "ok" and record["metrics"]["test/n"] == 450
    assert record["complexity"]["macs"] == macs(2) and list(record["code"]["user_code"]) == ["group_net.py"]
    assert record["look"] == {"colour": "#8B4513", "marker": "star", "dash": "longdashdot"}
    assert record["parallel"]["gradient_checkpointing"] and record["compute"]["hardware_train_flops"] > 0


def test_the_page_draws_the_look_from_the_record_alone(outputs: Path) -> None:
    page = (outputs / "report.html").read_text(encoding="utf-8")
    page_without = benchmarks("report", str(outputs), folder=outputs) and (outputs / "report.html").read_text("utf-8")
    for text in (page, page_without):
        assert 'data-family="groupnet"' in text and "--family:#8B4513" in text
        assert '"groupnet":{"colour":"#8B4513","symbol":"star"' in text


def test_complexity_match_and_view_layers_take_it(folder: Path, outputs: Path) -> None:
    code = f"""
from benchmarks.__main__ import main
mine = ["--config-dir", {str(folder)!r}, "model=groupnet", "data=digits"]
assert main(["complexity", "--csv", *mine]) == 0
assert main(["complexity", "match", "--macs", "{macs(7)}", *mine]) == 0
assert main(["view", "layers", "--out", {str(folder / "layers.html")!r}, *mine]) == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    counted = [line.split(",") for line in done.stdout.splitlines() if line.startswith("groupnet2x2,")]
    assert sum(int(row[4]) for row in counted) == macs(2)
    assert "model.width=7" in done.stdout
    view = (folder / "layers.html").read_text(encoding="utf-8")
    assert "#8B4513" in view and "unit 1" in view and "unit 2" in view


def test_a_changed_file_does_not_pass_for_the_code_of_the_run(folder: Path, outputs: Path) -> None:
    asked = ("--config-dir", str(folder), "model=groupnet", "data=digits", "recipe.epochs=1", "logger=none")
    asked += ("trainer.accelerator=cpu", "trainer.gradient_checkpointing=true")
    assert "by other code" not in run(*asked, root=outputs).stdout
    (folder / "group_net.py").write_text(NETWORK + "\n# changed\n")
    assert "made by other code than this: 1 finished run;" in run(*asked, root=outputs).stdout
