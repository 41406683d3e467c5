"""Other projects' training scripts: how one is started with a network of ours, and what is measured of it."""

import json
import sys

import pytest
import torch
from hydra.utils import instantiate
from support.benchmark_command import command
from support.configurations import trial

from benchmarks.performance import peer_scripts
from benchmarks.performance.peer_scripts import Peer, main
from benchmarks.performance.processes import peer_commands

NETWORK = ("model=resnet", "data=digits", "model.depth=8", "recipe.epochs=1", "trainer.accelerator=cpu")
# As the projects' scripts are: another module beside it, a parser, a main block, noise.
SCRIPT = """
import argparse, pathlib, torch, zoo
from beside import NOISE
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--to")
    args = parser.parse_args()
    print(NOISE, len(list(args.images.glob("train/*/*.png"))))
    net = zoo.make(args.model, num_classes=10).train()
    net(torch.randn(64, 3, 8, 8))
    torch.save(net.state_dict(), args.to)
"""


@pytest.fixture
def forgotten():
    """Modules of a script are unknown again after it: another test's may have the same names."""
    yield
    for name in ("beside", "zoo"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("forgotten")
def test_a_script_trains_our_network_and_is_tested(tmp_path, monkeypatch, capsys):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "train.py").write_text(SCRIPT)
    (sources / "beside.py").write_text("NOISE = '{not JSON'\n")
    (sources / "zoo.py").write_text("known = {}\ndef make(name, **arguments): return known[name](**arguments)\n")
    for name in ("argv", "path"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))

    def register(make, work):
        import zoo  # beside the script

        zoo.known["ours"] = make

    def options(work):
        return ["--model=ours", f"--images={work['images']}", f"--to={tmp_path / 'weights'}"]

    monkeypatch.setitem(peer_scripts.PEERS, "numpy", Peer("train.py", options, register))  # a package that is installed
    config = trial(*NETWORK).config
    splits = instantiate(config["datamodule"]["source"])()
    [(name, argv)] = peer_commands(config, {"numpy": sources}, "python3", tmp_path, splits, bfloat16=True).items()
    assert (name, argv[:-1]) == ("numpy", ["python3", "-m", "benchmarks.performance", "performance.peer_scripts"])
    result = main(json.loads(argv[-1]))
    lines = capsys.readouterr()
    assert lines.out == ""
    assert "{not JSON 1197" in lines.err
    net = instantiate(config["model"])
    net.load_state_dict(torch.load(tmp_path / "weights"))
    test = splits.test
    mean, std = config["datamodule"]["mean"][0], config["datamodule"]["std"][0]
    with torch.no_grad():
        wrong = net.eval()((test.images / 255 - mean) / std).argmax(1) != test.targets
    assert result["error"] == pytest.approx(100 * float(wrong.float().mean()))
    assert result["versions"].startswith(f"torch {torch.__version__}, numpy ")


def test_what_the_scripts_cannot_do_is_refused(tmp_path, capsys):
    run = command("measure processes")
    assert run(["--timm", str(tmp_path)]) == 2
    assert f"--timm {tmp_path}: there is no train.py" in capsys.readouterr().err
    (tmp_path / "train.py").touch()
    assert run(["model=resnet", "data=digits", "recipe=common", "--timm", str(tmp_path)]) == 2
    assert "can be given CosineAnnealingLR or MultiStepLR" in capsys.readouterr().err
    recipe = ("recipe=resnet_cifar10", "recipe.epochs=124", "recipe.augment.horizontal_flip=false")
    assert run(["model=resnet", "data=digits", *recipe, "--timm", str(tmp_path)]) == 2
    assert "at most 123 are the same" in capsys.readouterr().err


@pytest.mark.timm
def test_the_projects_make_our_network_and_augment_as_we_do(monkeypatch):
    import timm
    import torchvision
    from timm.data import transforms_factory

    monkeypatch.setattr(torchvision.models, "get_model", None)
    for name in ("RandomResizedCrop", "RandomHorizontalFlip", "Normalize"):
        for module in (torchvision.transforms, torchvision.transforms.transforms):
            monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(transforms_factory, "RandomResizedCropAndInterpolation", None)
    work = {"augment": {"crop_padding": 1}, "mean": [0.3], "std": [0.4]}
    net = torch.nn.Linear(1, 1)

    def make(**_):
        return net

    peer_scripts.register_timm(make, work)
    assert timm.create_model("ours", pretrained=False, in_chans=3, num_classes=10) is net
    crops = [transforms_factory.transforms_imagenet_train((8, 8), hflip=0.0, color_jitter=0.0).transforms[0]]
    peer_scripts.register_torchvision(make, work)
    assert torchvision.models.get_model("ours", weights=None, num_classes=10) is net
    crops.append(torchvision.transforms.RandomResizedCrop(8, interpolation=None))
    assert [(tuple(crop.size), crop.padding) for crop in crops] == [((8, 8), 1)] * 2
    assert torchvision.transforms.RandomHorizontalFlip(0.5).p == 0
    assert torchvision.transforms.Normalize(mean=(0.485,), std=(0.2,)).mean == [0.3]
