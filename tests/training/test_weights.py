"""Published weights against torchvision's layout: its key lists and its forward pass are written down here.

``torchvision_layout/<network>.txt`` holds the modules of torchvision 0.29.2's networks in their order, each with the shape of
its weight: four numbers are a convolution without bias, two a linear layer, one a batch normalisation.
"""

import argparse
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import instantiate
from support.benchmark_command import command
from torch import Tensor

from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.launch.checks import check_mode, is_finished, refusal
from benchmarks.performance.plan import check_budget
from benchmarks.records.record import SCHEMA
from benchmarks.training.torchvision_weights import (
    ARCHITECTURES,
    from_published,
    modern_name,
    recognise,
    to_torchvision,
)
from benchmarks.training.train import imported_weights
from benchmarks.training.weights import Weights

main = command("weights")

pytestmark = pytest.mark.usefixtures("one_thread")

LAYOUTS = Path(__file__).parents[1] / "support" / "torchvision_layout"
NORMALISATION = ("weight", "bias", "running_mean", "running_var")
# torchvision's published counts (its `num_params`).
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
}
QUICK = ("resnet18", "resnet50", "resnext50_32x4d", "densenet121")
LOGITS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PARAMETERS]


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """All keys of torchvision's state dict with their shapes, in its order."""
    found: dict[str, tuple[int, ...]] = {}
    for line in (LAYOUTS / f"{name}.txt").read_text().splitlines():
        module, *numbers = line.split()
        shape = tuple(map(int, numbers))
        found[f"{module}.weight"] = shape
        if len(shape) == 1:
            found |= {f"{module}.{part}": shape for part in NORMALISATION[1:]} | {f"{module}.num_batches_tracked": ()}
        if len(shape) == 2:
            found[f"{module}.bias"] = shape[:1]
    return found


def random_state(name: str) -> dict[str, Tensor]:
    """Random weights under which activations keep their scale, so that a mistake anywhere shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes(name).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) > 1:
            state[key] = torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            low, high = {"weight": (0.3, 0.7), "running_var": (0.5, 2)}.get(key.rpartition(".")[2], (-0.3, 0.3))
            state[key] = torch.empty(shape).uniform_(low, high, generator=generator)
    return state


def empty_state(name: str) -> dict[str, Tensor]:
    """Zeros of the right shapes that take no room in a file."""
    zero, none = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    return {key: (zero if shape else none).expand(shape) for key, shape in shapes(name).items()}


def forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of torchvision's ResNets (stride in the 3x3) and DenseNets, by the names of their tensors alone."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias, mean, var = (state[f"{name}.{part}"] for part in NORMALISATION)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)

    def layers(pattern: str, first: int, probe: str) -> list[str]:
        names: list[str] = []
        for number in count(first):
            if f"{pattern.format(number)}.{probe}.weight" not in state:
                return names
            names.append(pattern.format(number))
        raise AssertionError

    if "fc.weight" in state:
        x = F.max_pool2d(F.relu(norm("bn1", conv("conv1", x, 2))), 3, 2, 1)
        for layer in range(1, 5):
            for number, block in enumerate(layers(f"layer{layer}.{{}}", 0, "conv1")):
                stride = 2 if layer > 1 and number == 0 else 1
                bottleneck = f"{block}.conv3.weight" in state
                y = F.relu(norm(f"{block}.bn1", conv(f"{block}.conv1", x, 1 if bottleneck else stride)))
                y = norm(f"{block}.bn2", conv(f"{block}.conv2", y, stride if bottleneck else 1))
                if bottleneck:
                    y = norm(f"{block}.bn3", conv(f"{block}.conv3", F.relu(y)))
                if f"{block}.downsample.0.weight" in state:
                    x = norm(f"{block}.downsample.1", conv(f"{block}.downsample.0", x, stride))
                x = F.relu(x + y)
        return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    x = F.max_pool2d(F.relu(norm("features.norm0", conv("features.conv0", x, 2))), 3, 2, 1)
    for number in range(1, 5):
        for layer in layers(f"features.denseblock{number}.denselayer{{}}", 1, "conv1"):
            y = conv(f"{layer}.conv1", F.relu(norm(f"{layer}.norm1", x)))
            x = torch.cat([x, conv(f"{layer}.conv2", F.relu(norm(f"{layer}.norm2", y)))], 1)
        if number < 4:
            transition = f"features.transition{number}"
            x = F.avg_pool2d(conv(f"{transition}.conv", F.relu(norm(f"{transition}.norm", x))), 2)
    x = F.relu(norm("features.norm5", x)).mean((2, 3))
    return F.linear(x, state["classifier.weight"], state["classifier.bias"])


def built(weights: Weights, **arguments: Any) -> torch.nn.Module:
    """The network with its weights, in evaluation."""
    with torch.device("meta"):
        net = instantiate(weights.network | arguments).eval()
    net.load_state_dict(weights.state_dict, assign=True)
    return net


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_name_and_shape_is_torchvisions(name: str, tmp_path: Path) -> None:
    assert set(PARAMETERS) == set(ARCHITECTURES)
    expected = shapes(name)
    trained = {key: shape for key, shape in expected.items() if key.endswith(("weight", "bias"))}
    assert sum(map(math.prod, trained.values())) == PARAMETERS[name]
    weights = from_published(saved(empty_state(name), tmp_path / "file.pth"), name)
    assert [(key, tuple(tensor.shape)) for key, tensor in to_torchvision(weights).items()] == list(expected.items())


@torch.no_grad()
@pytest.mark.parametrize("name", LOGITS)
def test_imported_weights_give_torchvisions_logits_and_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    state = random_state(name)
    weights = from_published(saved(OrderedDict(state), tmp_path / "file.pth"), name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = forward(state, x)
    assert expected.std() > 0.1
    assert (built(weights)(x) - expected).abs().max() <= 1e-5
    if name == "resnet50":
        assert (built(weights, stride_in="1x1")(x) - expected).abs().max() > 1e-2
    back = to_torchvision(weights)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_published_densenets_have_older_names_and_no_counters(tmp_path: Path) -> None:
    def older(key: str) -> str:
        for part in ("norm", "conv"):
            for number in "12":
                key = key.replace(f".{part}{number}.", f".{part}.{number}.") if ".denselayer" in key else key
        return key

    state = {key: tensor for key, tensor in random_state("densenet121").items() if "num_batches" not in key}
    old = {older(key): tensor for key, tensor in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old and "features.transition1.norm.weight" in old
    assert [modern_name(key) for key in old] == list(state)
    back = to_torchvision(from_published(saved(old, tmp_path / "densenet121.pth"), "densenet121"))
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    assert {int(tensor) for key, tensor in back.items() if key not in state} == {0}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet18-f37072fd.pth", "resnet18"),
        ("resnet152.pth", "resnet152"),
        ("resnext50_32x4d-7cdf4587.pth", "resnext50_32x4d"),
        ("resnext101_64x4d-173b62eb.pth", "resnext101_64x4d"),
        ("densenet161-8d451a50.pth", "densenet161"),
        ("resnet50_of_mine.pth", "resnet50"),
        ("wide_resnet50_2-95faca4d.pth", None),
        ("resnet1520.pth", None),
        ("model.pth", None),
    ],
)
def test_the_network_in_a_files_name(file: str, name: str | None) -> None:
    assert recognise(file) == name


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if name != key}


class _Code:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "another family": (
        lambda state: empty_state("densenet121"),
        "is no resnet18 in torchvision's layout: conv1.weight and 101 more missing; features.conv0.weight and ",
    ),
    "another depth": (lambda state: empty_state("resnet34"), "layer1.2.conv1.weight and 95 more unexpected"),
    "a missing key": (lambda state: without(state, "layer2.0.bn1.bias"), "layout: layer2.0.bn1.bias missing"),
    "another shape": (
        lambda state: state | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        "layout: conv1.weight is (64, 1, 7, 7) and should be (64, 3, 7, 7)",
    ),
    "classes that disagree": (
        lambda state: state | {"fc.bias": torch.zeros(10)}, "fc.bias is (10,) and should be (1000,)",
    ),
    "integers": (
        lambda state: state | {"fc.bias": torch.zeros(1000, dtype=torch.int8)},
        "fc.bias is torch.int8 and should be torch.float32",
    ),
    "not a number": (lambda state: state | {"bn1.bias": torch.full((64,), math.nan)}, "layout: bn1.bias is not finite"),
    "an unknown checkpoint": (
        lambda state: {"net": state, "epoch": 3}, "holds no plain state dict but net, epoch: names and tensors",
    ),
    "code in a checkpoint": (
        lambda state: {"model": state, "args": argparse.Namespace(hook=_Code())}, "which is not run",
    ),
    "no state dict": (lambda state: [torch.zeros(1)], "holds no plain state dict: names and tensors"),
    "a whole network": (lambda state: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear, which is not run"),
    "code": (lambda state: {"conv1.weight": _Code()}, "which is not run: save the network's state_dict() instead"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_by_name_and_shape(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, said = WRONG[case]
    saved(make(empty_state("resnet18")), tmp_path / "resnet18.pth")
    refused(["import", "resnet18.pth"], said, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["resnet18.pth"]  # nothing written, nothing run


# As training scripts save a checkpoint, and what is said of it: PyTorch Lightning and timm, torchvision's references, averages
# of the weights, DistributedDataParallel, torch.compile.
WRAPPED: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "state_dict": (
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, "its state_dict, not its epoch, optimizer",
    ),
    "model": (
        lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, "its model, not its epoch, args",
    ),
    "model_ema": (
        lambda state: {"model_ema": {"n_averaged": torch.tensor(9)} | prefixed(state, "module.")},
        "its model_ema; names without module.",
    ),
    "module.": (lambda state: prefixed(state, "module."), "names without module."),
    "_orig_mod.": (lambda state: {"model": prefixed(state, "_orig_mod.")}, "its model; names without _orig_mod."),
    "both": (lambda state: prefixed(state, "_orig_mod.module."), "names without _orig_mod.; names without module."),
}  # fmt: skip


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("case", WRAPPED)
def test_a_wrapped_state_dict_is_unwrapped_and_that_is_said(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrap, said = WRAPPED[case]
    state = empty_state("resnet18") | {"fc.bias": torch.arange(1000.0)}
    saved(wrap(state), tmp_path / "resnet18.pth")
    assert main(["import", "resnet18.pth"]) == 0
    assert f"taken of the file: {said}\n" in capsys.readouterr().out
    weights = Weights.read(tmp_path / "weights" / "resnet18.pt")
    assert torch.equal(weights.state_dict["classifier.bias"], torch.arange(1000.0))
    assert weights.source["taken"] == said


def refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and said in err


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_is_refused(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resnet18.pth"
    state = empty_state("resnet18") | {"fc.bias": torch.ones(1000)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for damaged in (content[:-200], content[: len(content) // 2], b"", b"<html>404</html>"):
        path.write_bytes(damaged)
        refused(["import", str(path)], "is damaged or holds no weights", capsys)
    if not legacy:
        path.write_bytes(content.replace(10 * b"\x00\x00\x80\x3f", 10 * b"\x00\x00\x00\x40", 1))  # 1.0 becomes 2.0
        refused(["import", str(path)], "wrong checksum of", capsys)
    named = tmp_path / "resnet18-0123abcd.pth"
    named.write_bytes(content)
    refused(["import", str(named)], "its name says 0123abcd; if that is a date or the like, rename the file", capsys)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    state = empty_state("resnet18") | {"fc.weight": torch.ones(1000, 512)}
    saved(state, Path("mine.pth"))
    refused(["import", "mine.pth"], "the name mine.pth says no network: --model, one of resnet18, ", capsys)
    assert main(["import", "--from", "torchvision", "mine.pth", "--model", "resnet18"]) == 0
    out = capsys.readouterr().out
    assert "weights/mine.pt: resnet18, 1000 classes, from mine.pth (SHA-256 " in out
    assert "run.py mode=test weights=weights/mine.pt data=imagenet model=resnet model.depth=18 model.block=basic" in out
    before = Path("weights/mine.pt").read_bytes()
    again = ["import", "mine.pth", "--model", "resnet18"]
    refused(again, "weights/mine.pt is there already: --force overwrites it, --out writes elsewhere", capsys)
    refused(["import", "no.pth", "--model", "resnet18"], "cannot read no.pth: No such file", capsys)
    assert Path("weights/mine.pt").read_bytes() == before
    assert main([*again, "--force"]) == 0
    assert main(["export", "weights/mine.pt"]) == 0
    back = torch.load("weights/resnet18.pth", weights_only=True)
    assert list(back) == list(state) and torch.equal(back["fc.weight"], state["fc.weight"])
    capsys.readouterr()
    refused(["export", "weights/mine.pt"], "weights/resnet18.pth is there already", capsys)
    refused(["export", "mine.pth", "--out", "other.pth"], "mine.pth was not written by", capsys)


@cache
def imagenet(name: str) -> dict[str, Any]:
    """The configuration of the command that is printed for a network."""
    model, arguments = ARCHITECTURES[name]
    values = [f"model.{key}={value}" for key, value in arguments.items()]
    [trial] = expand([f"model={model}", "data=imagenet", *values], multirun=False)
    assert isinstance(trial, Trial)
    return trial.config


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext101_64x4d", "densenet161"])
def test_the_printed_command_builds_the_network(name: str) -> None:
    network = imagenet(name)["module"]["net"]
    with torch.device("meta"):
        state = instantiate(network).state_dict()
    weights = Weights(name, network, {}, state)
    assert {key: tuple(tensor.shape) for key, tensor in to_torchvision(weights).items()} == shapes(name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"stride_in": "1x1"}, "stride_in is '3x3' there, '1x1' here"),
        ({"depth": 101}, "depth is 50 there, 101 here"),
        ({"num_classes": 10}, "num_classes is 1000 there, 10 here"),
        ({"shortcut": "A"}, "shortcut is 'B' there, 'A' here"),
        ({"stem": "cifar", "depth": 47}, "depth is 50 there, 47 here; stem is 'imagenet' there, 'cifar' here"),
        ({"_target_": "lightning_modules.nets.UNet", "in_channels": 3}, "a ResNet, and this is a UNet"),
    ],
)
def test_weights_of_another_network_are_refused(arguments: dict[str, Any], said: str) -> None:
    network = imagenet("resnet50")["module"]["net"]
    weights = Weights("resnet50", network, {}, {}, Path("weights/r50.pt"))
    weights.check_network(network | {"base_width": 64})  # as without: it is base_channels then
    other = arguments if "_target_" in arguments else network | arguments
    with pytest.raises(ValueError) as error:
        weights.check_network(other)
    assert str(error.value) == f"weights/r50.pt holds another network, resnet50: {said}"


def test_of_a_function_that_makes_a_network_its_arguments_are_compared() -> None:
    network = {"_target_": "lightning_modules.from_timm.timm_network", "net": "resnet18"}
    network |= {"in_channels": 3, "num_classes": 10}
    weights = Weights("timm_resnet18", network, {}, {}, Path("last.ckpt"))
    weights.check_network(network | {"_convert_": "all"})  # of how Hydra calls it
    for changed, said in (
        ({"num_classes": 7}, "num_classes is 10 there, 7 here"),
        ({"drop_rate": 0.1}, "arguments is {} there, {'drop_rate': 0.1} here"),
    ):
        with pytest.raises(ValueError, match=rf"holds another network, timm_resnet18: {said}$"):
            weights.check_network(network | changed)
    with pytest.raises(ValueError, match="no network can be built of"):
        weights.check_network({"_target_": "nothing.Net"})


def folder_of_a_run(folder: Path, config: dict[str, Any], **arguments: Any) -> Path:
    config = config | {"module": {"net": config["module"]["net"] | arguments}}
    net = instantiate(config["module"]["net"])
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"net.{key}": tensor for key, tensor in net.state_dict().items()} | {"losses.val.value": torch.zeros(())}
    saved({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


OF_ONES_OWN = """
import torch


class Norm(torch.nn.BatchNorm2d):
    pass


class Net(torch.nn.Module):
    def __init__(self, norm, act=None):
        super().__init__()
        self.norm = norm(3)
"""


def test_parts_of_ones_own_network_are_trusted_and_all_its_arguments_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_ones_own.py").write_text(OF_ONES_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    net = {"_target_": "of_ones_own.Net", "norm": {"_target_": "of_ones_own.Norm", "_partial_": True}}
    file = folder_of_a_run(tmp_path / "run", {"name": "mine", "module": {"net": net}}) / "checkpoints" / "last.ckpt"
    tested = {"mode": "test", "weights": str(file), "module": {"net": net}}
    weights = imported_weights(tested)
    assert weights is not None and weights.state_dict.keys() >= {"norm.weight", "norm.running_mean"}
    with pytest.raises(ValueError, match="another network, mine: act is None there, 'square' here"):
        imported_weights(tested | {"module": {"net": net | {"act": "square"}}})
    with pytest.raises(ValueError, match="names 'of_ones_own.Norm', which is not run"):
        imported_weights(tested | {"module": {"net": {"_target_": "of_ones_own.Net"}}})


def test_a_runs_weights_are_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder_of_a_run(tmp_path / "run", imagenet("resnet18"), num_classes=7)
    assert main(["export", str(run), "--out", str(tmp_path / "out.pth")]) == 0
    capsys.readouterr()
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    expected = shapes("resnet18") | {"fc.weight": (7, 512), "fc.bias": (7,)}
    assert {key: tuple(tensor.shape) for key, tensor in exported.items()} == expected
    assert from_published(tmp_path / "out.pth", "resnet18").network["num_classes"] == 7
    refused(["export", str(run), "--checkpoint", "best"], "holds no checkpoints/best.ckpt", capsys)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=resnet"], "torchvision has no resnet20 with stem=cifar, shortcut=A"),
        (["model=densenet"], "with stem=cifar"),
        (["model=unet", "data=nuclei"], "torchvision has no UNet: ResNet and DenseNet can be exported"),
    ],
)
def test_what_torchvision_does_not_have_is_not_exported(
    overrides: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [trial] = expand(overrides, multirun=False)
    run = folder_of_a_run(tmp_path / "run", trial.config)
    refused(["export", str(run), "--out", str(tmp_path / "out.pth")], said, capsys)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["mode=test"],
            "mode=test needs weights=FILE: a run's checkpoint, or what `python -m benchmarks weights import` writes",
        ),
        (["weights=a.pt"], "weights=a.pt needs mode=test"),
        (["mode=test,train", "weights=a.pt"], "a sweep has mode=train or mode=test, not both"),
        (["mode=test", "weights=a.pt", "seed=0,1"], "leave out seed=1"),
        (
            ["mode=test", "weights=a.pt", "trainer.ema_decay=0.9", "trainer.limit_train_batches=2"],
            "leave out trainer.limit_train_batches, trainer.ema_decay, or",
        ),
        *(
            (["mode=test", "weights=a.pt", f"trainer.{option}"], f"leave out trainer.{option.partition('=')[0]}, or")
            for option in (
                *("accumulate_grad_batches=2", "gradient_checkpointing=true", "on_out_of_memory=accumulate"),
                *("max_train_flops=1e9", "max_train_seconds=9", "max_train_joules=9", "cuda_graph=true"),
            )
        ),
    ],
)
def test_modes_that_contradict(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_mode(expand(overrides, multirun=True))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_test_has_no_forecast_and_a_place_of_its_own() -> None:
    trials = expand(["mode=test", "weights=weights/resnext-1.pt", "launch.budget.train_flops=1e12"], multirun=False)
    check_mode(trials)
    with pytest.raises(ConfigurationError, match="mode=test trains nothing"):
        check_budget(trials)
    assert trials[0].directory == Path("outputs/digits/resnext20_8x4d/resnext_digits,weights=resnext-1/seed0")


def test_a_weights_file_that_was_replaced_is_tested_anew(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pt"
    weights.write_bytes(b"first")
    [trial] = expand(["mode=test", f"weights={weights}", f"output_root={tmp_path}"], multirun=False)
    assert isinstance(trial, Trial)
    trial.directory.mkdir(parents=True)
    tested = {"sha256": hashlib.sha256(b"first").hexdigest()}
    required = dict.fromkeys(("data", "family", "name", "recipe"), "") | {"schema": SCHEMA, "seed": 0}
    record = required | {"status": "ok", "protocol": {"weights": tested}}
    (trial.directory / "record.json").write_text(json.dumps(record))
    assert is_finished(trial)
    weights.write_bytes(b"second")
    assert not is_finished(trial)
    weights.unlink()
    assert not is_finished(trial) and refusal(trial) == f"weights={weights}: there is no such file"


def test_classes_of_a_run_and_of_the_data_it_is_tested_on_have_the_same_numbers() -> None:
    weights = Weights("mine", {}, {}, {}, Path("last.ckpt"), dataset={"classes": ["cats", "dogs", "dogs"]})
    assert weights.check_classes(("cats", "dogs", "dogs")) is None
    differing = "cats, dogs, dogs in training, emus, dogs, dogs in these data"
    assert weights.check_classes(("emus", "dogs", "dogs")) == (
        f"classes are matched by their numbers, as their names differ: {differing}"
    )
    with pytest.raises(ValueError, match="last.ckpt is of other classes: .*; dogs is number 1 there, 0 here"):
        weights.check_classes(("dogs", "emus", "foxes"))
    assert Weights("published", {}, {}, {}).check_classes(("dogs", "emus")) is None


def test_statistics_of_a_runs_training_are_taken_where_the_data_set_none() -> None:
    weights = Weights("mine", {}, {}, {}, dataset={"mean": [0.2], "std": [0.3]})
    assert weights.statistics({"mean": None, "std": None}) == {"mean": [0.2], "std": [0.3]}
    assert weights.statistics({"mean": [0.1], "std": [0.4]}) == {}
    assert Weights("published", {}, {}, {}).statistics({"mean": None, "std": None}) == {}
