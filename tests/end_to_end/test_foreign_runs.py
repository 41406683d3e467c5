"""Reading a run that somebody else has made executes nothing of it."""

import json
import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from PIL import Image
from support.benchmark_command import command
from support.commands import ROOT, run_here
from support.configurations import trial

from benchmarks.config.trial import CONF
from benchmarks.config.trusted import check_targets
from benchmarks.training.checkpoints import newest_intact
from benchmarks.training.train import tuned_arguments
from benchmarks.training.tuned_settings import CHOSEN
from benchmarks.training.weights import FORMAT

TINY = ("model=unet", "data=nuclei", "model.base_channels=2", "model.depth=2")


class Touches:
    """Unpickled, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def calls(sentinel: Path) -> dict[str, dict[str, Any]]:
    """Nodes of a configuration that create ``sentinel`` when Hydra builds them, or the module of them is imported."""
    touch, python = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w')"
    pickled = sentinel.with_name("pickled.pth")
    pickled.write_bytes(pickle.dumps(Touches(sentinel)))
    return {
        "a command": {"_target_": "os.system", "command": touch},
        "a command of torch": {"_target_": "torch.utils.collect_env.run", "command": touch},
        "an expression of numpy": {"_target_": "numpy.f2py.crackfortran.myeval", "e": python},
        "our own helper": {
            "_target_": "benchmarks.launch.slurm_queue.answer_lines",
            "_args_": ["touch", str(sentinel)],
        },
        "a partial": {"_target_": "subprocess.check_output", "_args_": [["touch", str(sentinel)]], "_partial_": True},
        "an import": {"_target_": "hostile.Net"},
        "Hydra itself": {"_target_": "hydra.utils.call", "config": {"_target_": "os.system", "command": touch}},
        "within a list": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system", "command": touch}]},
        "a pickle of timm's": {
            "_target_": "timm.create_model",
            "model_name": "resnet18",
            "checkpoint_path": str(pickled),
        },
        "a name below torch.nn": {"_target_": "torch.nn.modules.os.system", "command": touch},
        "an interpolation": {"_target_": "torch.nn.Identity", "unused": "${oc.env:HOME}"},
    }


CALLS = list(calls(Path("/tmp/never")))


@pytest.fixture
def sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that must not appear; a module ``hostile`` that creates it can be imported here and in children."""
    path = tmp_path / "executed"
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "hostile.py").write_text(f"open({str(path)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    return path


@cache
def configuration() -> dict[str, Any]:
    return trial(*TINY).config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished segmentation run."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    config = configuration()
    module = instantiate(config["module"])
    torch.save({"state_dict": module.state_dict()}, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "record.json").write_text(json.dumps({"dataset": {"mean": [0.5], "std": [0.25]}}))
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    edit(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def refused(name: str, *arguments: str | Path, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command(name)([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and said in err and "Traceback" not in err, err


PLACES: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "module": lambda config, call: config.update(module=call),
    "net": lambda config, call: config["module"].update(net=call),
    "scores": lambda config, call: config["module"].update(scores=call),
    "datamodule": lambda config, call: config.update(datamodule=call),
    "source": lambda config, call: config["datamodule"].update(source=call),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", CALLS)
def test_predict_builds_nothing_that_is_not_on_the_list(
    kind: str, place: str, folder: Path, sentinel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / "image.png"
    Image.new("L", (32, 32)).save(image)
    change(folder, lambda config: PLACES[place](config, calls(sentinel)[kind]))
    refused("predict", folder, image, said="config.yaml", capsys=capsys)
    assert not sentinel.exists() and not (folder / "predictions").exists()


@pytest.mark.parametrize("kind", CALLS)
def test_weights_export_imports_nothing_that_is_not_on_the_list(
    kind: str, folder: Path, sentinel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = calls(sentinel)[kind]
    change(folder, lambda config: config["module"].update(net=call))
    refused("weights export", folder, "--out", tmp_path / "out.pth", said="config.yaml", capsys=capsys)
    weights = tmp_path / "weights.pt"
    torch.save({"format": FORMAT, "name": "x", "network": call, "source": {}, "state_dict": {}}, weights)
    refused("weights export", weights, "--out", tmp_path / "out.pth", said="weights.pt", capsys=capsys)
    assert not sentinel.exists() and not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("kind", CALLS)
def test_a_view_of_weights_builds_nothing_that_is_not_on_the_list(
    kind: str, folder: Path, sentinel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = calls(sentinel)[kind]
    change(folder, lambda config: config["module"].update(net=call))
    change(folder, lambda config: config.update(family="densenet"))
    refused("view reuse", folder, "--out", tmp_path / "v", said="last.ckpt", capsys=capsys)
    assert not sentinel.exists() and not (tmp_path / "v").exists()


@pytest.mark.parametrize("name", ["predict", "weights export", "view reuse"])
def test_a_checkpoint_with_code_is_refused(
    name: str, folder: Path, sentinel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    Image.new("L", (32, 32)).save(image)
    (folder / "checkpoints" / "last.ckpt").write_bytes(pickle.dumps({"state_dict": Touches(sentinel)}))
    change(folder, lambda config: config.update(family="densenet"))
    rest = {
        "predict": [image],
        "weights export": ["--out", tmp_path / "out.pth"],
        "view reuse": ["--out", tmp_path / "v"],
    }
    refused(name, folder, *rest[name], said="last.ckpt", capsys=capsys)
    assert not sentinel.exists()


def test_imported_weights_execute_nothing(sentinel: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    network = {"_target_": "hostile.Net"}
    torch.save({"format": FORMAT, "name": "x", "network": network, "source": {}, "state_dict": {}}, weights)
    done = run_here("mode=test", f"weights={weights}", "logger=none", root=tmp_path / "outputs")
    assert done.returncode == 1 and "'hostile.Net', which is not run" in done.stdout, done.stdout + done.stderr
    assert not sentinel.exists()


def test_a_resumed_run_executes_nothing(sentinel: Path, tmp_path: Path) -> None:
    call = calls(sentinel)["a command"]
    config = trial("model=resnet", "trainer=auto", f"output_root={tmp_path}").config
    tuned_arguments(config, tmp_path)
    chosen = json.loads((tmp_path / CHOSEN).read_text())
    for hostile in ({"trainer": {"precision": call}}, {"trainer": call}, {"datamodule": {"source": call}}):
        (tmp_path / CHOSEN).write_text(json.dumps(chosen | hostile))
        with pytest.raises(ValueError, match=r"holds what .* does not write"):
            tuned_arguments(config, tmp_path)
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Touches(sentinel)))
    torch.save({"loops": Touches(sentinel)}, tmp_path / "previous.ckpt")
    path, _, problems = newest_intact(tmp_path)
    assert path is None and len(problems) == 2
    assert not sentinel.exists()


def test_what_this_project_builds_is_on_the_list() -> None:
    targets = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            targets.add(node.get("_target_"))
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            collect(value)

    for path in [
        CONF / "config.yaml",
        *(path for group in ("data", "model", "recipe") for path in (CONF / group).glob("*.yaml")),
    ]:
        collect(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert len(targets) > 20
    for target in targets - {None}:
        check_targets({"_target_": target}, ROOT)


def test_ones_own_code_is_built_when_it_is_named(
    folder: Path, sentinel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    Image.new("L", (32, 32)).save(image)
    own = tmp_path / "modules" / "mine.py"
    own.write_text("from lightning_modules.nets import UNet\n\nclass Net(UNet):\n    pass\n")
    change(folder, lambda config: config["module"]["net"].update(_target_="mine.Net"))
    refused("predict", folder, image, said="weights export build it with --trust mine.Net", capsys=capsys)
    assert command("predict")([str(folder), str(image), "--trust", "mine.Net"]) == 0
    refused(
        "predict",
        folder,
        own.parent,
        "--trust",
        "mine.Net",
        said=f"{own.parent} is a folder: IMAGE is a file",
        capsys=capsys,
    )


@pytest.mark.parametrize("name", ["predict", "weights export"])
def test_ones_own_code_that_python_does_not_find_is_asked_for(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, lambda config: config["module"]["net"].update(_target_="gone.Net"))
    rest = [folder / "pictures"] if name == "predict" else []
    said = "'gone.Net', and Python finds no such code: No module named 'gone'; --config-dir DIR"
    refused(name, folder, *rest, "--trust", "gone.Net", said=said, capsys=capsys)
