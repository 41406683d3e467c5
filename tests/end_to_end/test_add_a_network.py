"""A network is added by the files that the README names, in a folder of one's own: trained, counted, matched, viewed, drawn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
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


@pytest.mark.slow
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
    assert f"python run.py --config-dir {folder} model=groupnet data=digits model.width=7\n" in done.stdout
    view = (folder / "layers.html").read_text(encoding="utf-8")
    assert "#8B4513" in view and "unit 1" in view and "unit 2" in view


def test_a_changed_file_does_not_pass_for_the_code_of_the_run(folder: Path, outputs: Path) -> None:
    asked = ("--config-dir", str(folder), "model=groupnet", "data=digits", "recipe.epochs=1", "logger=none")
    asked += ("trainer.accelerator=cpu", "trainer.gradient_checkpointing=true")
    assert "by other code" not in run(*asked, root=outputs).stdout
    (folder / "group_net.py").write_text(NETWORK + "\n# changed\n")
    assert "made by other code than this: 1 finished run;" in run(*asked, root=outputs).stdout


FACTORY = """
from torch import nn


def tiny(*, weights=None, progress=True, **arguments):
    layers = nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(6, arguments["num_classes"]))
"""


def shown(page: str) -> tuple[list[str], list[str]]:
    """Return the Python and the YAML that a page of docs/how_to/ shows."""
    text = (ROOT / "docs" / "how_to" / page).read_text(encoding="utf-8")
    python, yaml = (
        re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for language in ("python", "yaml")
    )
    return python, yaml


@pytest.mark.slow
def test_the_files_that_the_pages_show_are_a_network_and_a_data_set(tmp_path: Path) -> None:
    """Of network.md a class with its YAML, and the YAML of a function as torchvision's; of images.md data of one's own."""
    [network], [own, of_function] = shown("network.md")
    [function], [of_data] = shown("images.md")
    mine = tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "mynet.py").write_text(network)
    (mine / "model" / "mynet.yaml").write_text(own)
    (mine / "functions.py").write_text(FACTORY)
    (mine / "model" / "tiny.yaml").write_text(
        of_function.replace("torchvision.models.mobilenet_v3_small", "functions.tiny")
    )
    asked = ("recipe.epochs=1", "trainer.limit_train_batches=2", "trainer.accelerator=cpu", "logger=none")
    (mine / "data").mkdir()
    (mine / "myimages.py").write_text(function)
    (mine / "data" / "mydata.yaml").write_text(of_data)
    counts = {"train": 16, "val": 4, "test": 8}
    arrays = {f"{part}_images": np.arange(n * 3072, dtype=np.uint8).reshape(n, 3, 32, 32) for part, n in counts.items()}
    np.savez(mine / "images.npz", **arrays, **{f"{part}_targets": np.arange(n) % 2 for part, n in counts.items()})
    done = run("--config-dir", str(mine), "-m", "model=mynet,tiny", "data=digits", *asked, root=tmp_path / "outputs")
    assert done.returncode == 0, done.stdout + done.stderr
    trained = records(tmp_path / "outputs")
    assert trained["mynet8"]["complexity"]["macs"] == 64 * 9 * 8 + 8 * 10
    assert trained["torchvision_mobilenet_v3_small"]["complexity"]["macs"] == 36 * 9 * 6 + 6 * 10
    for record in trained.values():
        assert record["status"] == "ok" and record["metrics"]["test/n"] == 450
    [checkpoint] = (tmp_path / "outputs").glob("*/torchvision_*/*/seed0/checkpoints/last.ckpt")
    tested = ("mode=test", f'weights="{checkpoint}"', "model=tiny", "data=digits")
    done = run("--config-dir", str(mine), *tested, *asked[2:], root=tmp_path / "tested")
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = records(tmp_path / "tested").values()
    metrics = trained["torchvision_mobilenet_v3_small"]["metrics"]
    assert record["metrics"]["test/top1_err"] == metrics["test/top1_err"]
    done = run(
        *("--config-dir", str(mine), "data=mydata", f"data.root={mine}/images.npz"),
        *("model=resnet", "model.base_channels=4", "recipe.batch_size=8", *asked),
        root=tmp_path / "two",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kind, name in (("variant", "resnet_cifar"), ("recipe", "classification")):
        assert f"the default {kind}, {name}: resnet has none of its own for mydata" in done.stdout
    [record] = records(tmp_path / "two").values()
    assert record["counts"] == counts and record["dataset"]["classes"] == ["round", "square"]
    code = f"""
from benchmarks.__main__ import main
match = ["complexity", "match", "--config-dir", {str(mine)!r}, "data=digits", "--macs"]
assert main([*match, "{64 * 9 * 20 + 20 * 10}", "model=mynet"]) == 0
assert main([*match, "1e4", "model=tiny"]) == 2
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "model.width=20" in done.stdout, done.stderr
    assert "model=tiny does not say which argument is its width" in done.stderr
