"""Steps that take less: micro-batches, recomputation, compiled and channels-last networks, memory that does not suffice."""

import copy
import dataclasses
import json
import subprocess
import sys
from collections import UserList
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import DoublePrecision, HalfPrecision, Precision
from support.configurations import CPU, trial
from support.forked_trials import ROOT, outcome
from support.plans import Plan, die
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.complexity.counting import measure
from benchmarks.config.trial import differing_keys
from benchmarks.launch.checks import missing_resources, refusal
from benchmarks.training import options, out_of_memory
from benchmarks.training.options import TrainingOptions
from benchmarks.training.recomputation import recompute_stages, recomputed_macs, stages
from benchmarks.training.train import fit_evaluation_batch
from datamodules.in_memory import InMemoryDataModule
from datamodules.loading.batch import Batch
from datamodules.readers.splits import Split, Splits
from lightning_modules.classifier import Classifier
from lightning_modules.nets import DenseNet, MaskRCNN, ResNet, UNet


class Batches(UserList[Batch]):
    """To Lightning a loader, where a list would be one loader each."""


def trained(parts: int, norm: type[nn.Module]) -> tuple[dict[str, Tensor], float]:
    """Weights and mean training loss after three steps of momentum on batches of 12."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), norm(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    module = Classifier(
        net.double(),
        num_classes=3,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=0.5, momentum=0.9),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer),
    )
    module.micro_batches = parts
    images, targets = torch.randn(3, 12, 1, 6, 6).double(), torch.randint(3, (3, 12))
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, **quiet)
    trainer.fit(module, Batches(Batch(*pair) for pair in zip(images, targets, strict=True)))
    return module.net.state_dict(), float(module.train_loss.compute()[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_micro_batches_make_the_step_of_the_whole_batch() -> None:
    whole, loss = trained(1, nn.Identity)
    parts, mean = trained(3, nn.Identity)
    assert mean == pytest.approx(loss, abs=1e-12)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-9)
    with_norm = [trained(parts, nn.BatchNorm2d)[0]["5.weight"] for parts in (1, 3)]
    assert not torch.allclose(*with_norm, atol=1e-6), "batch-norm layers see the parts"


@pytest.mark.slow
def test_a_killed_run_in_micro_batches_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    one_epoch = "recipe.epochs=1"
    runs = {"parts": ([one_epoch, "trainer.accumulate_grad_batches=4"], 1), "whole": ([one_epoch], 1)}
    plan = Plan(tmp_path, runs)
    plan.add("undisturbed", "parts", None)
    plan.add("killed", "parts", die("after Checkpoints.on_train_batch_end", 3), None)
    plan.add("whole", "whole", None)
    done = plan.run(timeout=120)
    assert done["killed"]["codes"][0] != 0 and [entry["step"] for entry in done["killed"]["resumptions"]] == [4]
    undisturbed, killed, whole = (outcome(tmp_path / name) for name in ("undisturbed", "killed", "whole"))
    assert undisturbed["status"] == "ok" and killed == undisturbed
    assert undisturbed["compute"] == whole["compute"], "steps, images and FLOPs are the whole batch's"
    assert undisturbed["weights_sha256"] != whole["weights_sha256"]


class Sum(nn.Module):
    """A convolution of one input, scaled, with another added."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, first: Tensor, scale: float) -> Tensor:
        return self.convolution(x).mul(scale).add(first)


class OwnStages(nn.Module):
    """Stages that are layers themselves, and stages of two inputs and an option."""

    recomputation_stages = ("layers.*", "sums.*")

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)])
        self.sums = nn.ModuleList([Sum(), Sum()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        first = x
        for stage in self.sums:
            x = stage(x, first, scale=2.0).relu()
        return x


NETS: dict[str, tuple[nn.Module, tuple[int, int, int]]] = {
    "resnet": (ResNet(8, block="basic", base_channels=4, stem="cifar", num_classes=5), (3, 8, 8)),
    "densenet": (DenseNet(16, 4, bottleneck=True, dropout=0.3, stem="cifar", num_classes=5), (3, 8, 8)),
    "own": (OwnStages(), (3, 8, 8)),
    "unet": (UNet(depth=2, base_channels=4, padded=True, dropout=0.3), (1, 16, 16)),
}


def plain_and_recomputing(net: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Copies in training mode, the second one without what its stages can compute again."""
    plain, other = copy.deepcopy(net).train(), copy.deepcopy(net).train()
    recompute_stages(other)
    return plain, other


@pytest.mark.parametrize("name", NETS)
def test_recomputed_stages_give_the_same_step(name: str) -> None:
    net, size = NETS[name]
    cost = measure(net, size)
    plain, other = plain_and_recomputing(net)
    assert [*other.state_dict()] == [*net.state_dict()]
    other = copy.deepcopy(other)  # as averaging of weights does
    images = torch.randn(2, *size)
    flops = []
    for one in (plain, other):
        torch.manual_seed(1)
        with FlopCounterMode(display=False) as counter:
            logits = one(images)
            logits.square().sum().backward()
        flops.append(counter.get_total_flops())
        again = logits.detach()
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(net).train()(images), again)
    for (path, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None and torch.equal(one.grad, two.grad), path
    for (path, one), two in zip(plain.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(one, two[1]), path
    assert flops[1] - flops[0] == 2 * len(images) * recomputed_macs(net, cost) > 0


def test_recomputed_stages_can_be_gone_through_backward_again() -> None:
    net, size = NETS["resnet"]
    images, found = torch.randn(2, *size), []
    for one in plain_and_recomputing(net):
        loss = one(images).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        found.append([parameter.grad for parameter in one.parameters()] + list(one.buffers()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_recomputation_keeps_less() -> None:
    """Bytes that autograd holds between the two passes; a stage is left with its input."""
    net, size = NETS["densenet"]
    images, kept = torch.randn(2, *size), []
    for one in plain_and_recomputing(net):
        held: dict[int, int] = {}

        def note(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            one(images)
        kept.append(sum(held.values()))
    assert kept[1] < kept[0] / 3
    with pytest.raises(ValueError, match="a Linear has no stages"):
        recompute_stages(nn.Linear(1, 1))
    assert [*stages(NETS["unet"][0])] == ["contracting.0", "contracting.1", "bottom", "expanding.0", "expanding.1"]


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.ModuleDict])
def test_a_list_of_stages_is_no_stage(kind: type[nn.Module]) -> None:
    net = nn.Sequential()
    net.stages = kind()
    net.recomputation_stages = ("stages",)
    with pytest.raises(ValueError) as error:
        recompute_stages(net)
    assert str(error.value) == (
        f"trainer.gradient_checkpointing: recomputation_stages names stages, a {kind.__name__}, which is never called "
        'itself: "stages.*" names what is in it'
    )


def test_switched_networks_keep_their_names_and_numbers() -> None:
    net, size = NETS["resnet"]
    one = copy.deepcopy(net).eval()
    images = torch.randn(2, *size)
    expected = one(images)
    TrainingOptions(compile=True, channels_last=True).apply(one)
    assert [*one.state_dict()] == [*net.state_dict()]
    assert one.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    one.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].stride(1)))
    torch.testing.assert_close(one._call_impl(images), expected, rtol=1e-4, atol=1e-5)  # without its compilation
    assert seen == [1]


@pytest.mark.slow
def test_a_compiled_run_leaves_plain_names(tmp_path: Path) -> None:
    smallest = ["model.depth=7", "model.bottleneck=false", "recipe.epochs=1"]
    plan = Plan(tmp_path, {"compiled": ([*smallest, "trainer.compile=true", "trainer.channels_last=true"], 1)})
    plan.add("straight", "compiled", None)
    plan.add("killed", "compiled", die("after Checkpoints.on_train_batch_end", 3), None)
    done = plan.run(timeout=580)
    assert [done[name]["status"] for name in ("straight", "killed")] == ["ok", "ok"]
    straight, killed = (json.loads((tmp_path / name / "record.json").read_text()) for name in ("straight", "killed"))
    assert killed["resumptions"] and killed["weights_sha256"] == straight["weights_sha256"]
    checkpoint = torch.load(tmp_path / "straight" / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "_orig_mod" in name]
    assert straight["parallel"]["compile"] and straight["parallel"]["channels_last"]


def test_switches_that_are_off_change_no_identity() -> None:
    plain = trial("model=resnet")
    assert plain.overrides == {}
    older = copy.deepcopy(plain.config)
    for key in (option.name for option in dataclasses.fields(options.TrainingOptions)):
        assert older["trainer"].pop(key) is None
    assert differing_keys(older, plain.config) == {}, "a run made before there were switches goes on"
    other = trial("model=resnet", "trainer.accumulate_grad_batches=2", "trainer.compile=true")
    assert other.overrides == {"trainer.accumulate_grad_batches": 2, "trainer.compile": True}
    assert other.directory != plain.directory
    auto = trial("model=resnet", "trainer=auto")
    assert auto.overrides == {"trainer.tuned": True}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["trainer.accumulate_grad_batches=3"],
            "trainer.accumulate_grad_batches divides each process's 32 images, got 3; [1, 2, 4, 8, 16, 32] would do",
        ),
        (
            ["trainer.accumulate_grad_batches=4", "trainer.devices=16"],
            "each process's 2 images, got 4; [1, 2] would do",
        ),
        (["trainer.compile=true", "trainer.gradient_checkpointing=true"], "exclude each other"),
        (
            ["trainer.accumulate_grad_batches=4", "trainer.on_out_of_memory=accumulate", "trainer.channels_last=true"],
            None,
        ),
    ],
)
def test_wrong_switches_are_refused(overrides: list[str], said: str | None, tmp_path: Path) -> None:
    problem = refusal(trial("model=resnet", f"output_root={tmp_path}", *overrides))
    assert problem is None if said is None else said in (problem or "")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("16-true", torch.float16)])
def test_boxes_are_not_held_in_16_bits(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert torch.tensor(1300.3).to(dtype) in (1300, 1304)  # an edge of a box
    detection = ["model=faster_rcnn", "data=nuclei_instances", f"output_root={tmp_path}"]
    problem = refusal(trial(*detection, f"trainer.precision={precision}")) or ""
    mixed = f"{precision[:-4]}mixed"
    assert problem.endswith(f"would round the edges of boxes: {mixed} keeps them in 32 bits")
    assert refusal(trial(*detection, f"trainer.precision={mixed}")) is None
    assert refusal(trial("model=resnet", f"output_root={tmp_path}", f"trainer.precision={precision}")) is None


def test_what_a_device_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a CPU has no TF32" in (missing_resources(trial("trainer.tf32=true")) or "")
    assert "needs an NVIDIA GPU" in (missing_resources(trial("trainer.cuda_graph=true")) or "")
    with pytest.raises(ValueError, match=r"trainer.tf32=true needs an NVIDIA GPU since Ampere; this is "):
        TrainingOptions(tf32=True).check(CPU, "32-true")
    assert "a CPU's mixed precision is bf16-mixed" in (missing_resources(trial("trainer.precision=16-mixed")) or "")
    with pytest.raises(ValueError, match=r"trainer.precision=16-mixed needs a GPU; this is "):
        TrainingOptions().check(CPU, "16-mixed")
    monkeypatch.setattr(options, "has_bf16", lambda device: False)
    monkeypatch.setattr(options, "PROBE", (2, 4, 8))
    said = r"trainer.precision=bf16-mixed: .* has no bfloat16 arithmetic; emulated, a convolution takes [\d.]+ times as long"
    with pytest.raises(ValueError, match=said):
        TrainingOptions().check(CPU, "bf16-mixed")
    TrainingOptions().check(CPU, "32-true")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match=r"trainer.compile=true: torch.compile needs a C\+\+ compiler, and there is no no-such"
    ):
        TrainingOptions(compile=True).check(CPU, "32-true")


# Trains a network that takes 4 MB for an image where memory is limited, from the first step on, to 600 MB more than is in use:
# with each action in a process forked from this one. The allocation that fails is PyTorch's: oneDNN has no mercy with a process
# that is nearly full.
LIMITED = """
import json, os, resource, sys
from pathlib import Path
import torch, yaml
from benchmarks.config.compose import expand
from benchmarks.launch.new_record import new_record
from benchmarks.records import files
from benchmarks.records.record import to_json
from benchmarks.training import out_of_memory, rank
from lightning_modules.nets import ResNet

forward, start = ResNet.forward, out_of_memory.OutOfMemory.on_train_start

def greedy(self, images):
    taken = torch.empty(len(images), 2**20)
    return forward(self, images) if len(taken) else None

def limited(self, trainer, module):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 600 * 2**20, -1))
    start(self, trainer, module)

ResNet.forward, out_of_memory.OutOfMemory.on_train_start = greedy, limited
codes = {}
for action in ("fail", "accumulate"):
    own = (f"trainer.on_out_of_memory={action}", f"output_root={sys.argv[1]}/{action}")
    [trial] = expand([*sys.argv[2:], *own], False)
    trial.directory.mkdir(parents=True)
    (trial.directory / files.CONFIG).write_text(yaml.safe_dump(trial.config))
    files.write_json(trial.directory / files.RECORD, to_json(new_record(trial.config, trial.overrides, None)))
    pid = os.fork()
    if pid == 0:
        os._exit(rank.main(trial.directory))
    codes[action] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps(codes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory by Linux's means")
def test_memory_that_does_not_suffice(tmp_path: Path) -> None:
    overrides = [
        "model=resnet", "model.depth=8", "recipe.batch_size=512", "data.eval_batch_size=64", "recipe.epochs=1",
        "trainer.limit_train_batches=1", "trainer.accelerator=cpu", "cluster.threads_per_process=1", "logger=none",
    ]  # fmt: skip
    command = [sys.executable, "-c", LIMITED, str(tmp_path), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == {"fail": 1, "accumulate": 0}, done.stderr[-2000:]
    [failed], [accumulated] = (
        [json.loads(path.read_text()) for path in (tmp_path / action).rglob("record.json")] for action in codes
    )
    assert accumulated["status"] == "ok" and accumulated["parallel"]["accumulate_grad_batches"] == 4
    assert accumulated["compute"]["samples_seen"] == 512 and accumulated["compute"]["steps"] == 1
    assert failed["status"] == "failed" and failed["parallel"]["accumulate_grad_batches"] == 1
    assert failed["error"] == (
        "out of memory with 512 images a process; 128 fit: trainer.accumulate_grad_batches=4 or "
        "trainer.on_out_of_memory=accumulate keeps the batch"
    )


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_of_memory(error: Exception, is_one: bool) -> None:
    assert out_of_memory.is_out_of_memory(error) is is_one


class Room(nn.Module):
    """Holds so many images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.images:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images


@pytest.mark.parametrize(
    ("room", "start", "most", "expected"),
    [(37, 4, 1000, 32), (37, 4, 20, 20), (37, 100, 1000, 25), (37, 37, 37, 37), (1, 8, 8, 1), (37, 100, 30, 30)],
)
def test_the_largest_evaluation_batch_that_fits(room: int, start: int, most: int, expected: int) -> None:
    place = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(strategy=place, precision_plugin=SimpleNamespace(val_step_context=nullcontext))
    module = pl.LightningModule()
    module.net = Room(room)
    assert out_of_memory.largest_evaluation_batch(trainer, module, (1, 2, 2), start, most) == expected
    module.net = Room(0)
    with pytest.raises(MemoryError, match="one image in evaluation"):
        out_of_memory.largest_evaluation_batch(trainer, module, (1, 2, 2), start, most)


PRECISIONS = [Precision(), DoublePrecision(), HalfPrecision("bf16-true")]


def classifier() -> Classifier:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(net, 2, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.StepLR, step_size=9))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_evaluation_batch_is_tried_before_training_in_any_precision(precision: Precision) -> None:
    module = classifier()
    if isinstance(precision, DoublePrecision):
        precision.convert_module(
            module
        )  # as make_trainer does; Lightning converts to narrower ones when training starts
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=CPU), precision_plugin=precision)
    assert out_of_memory.largest_evaluation_batch(trainer, module, (1, 4, 4), 2, 5) == 5
    assert (
        next(module.parameters()).dtype
        == module.dtype
        == (torch.float64 if precision.precision == "64-true" else torch.float32)
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parts_of_a_training_batch_are_tried_in_the_precision_of_the_network(precision: Precision) -> None:
    split = Split(torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2), torch.arange(8) % 2)
    data = InMemoryDataModule(lambda: Splits(split, split, split, ("a", "b")), 4, 4, {}, [0.0], [1.0], seed=0)
    data.setup()
    place = SimpleNamespace(root_device=CPU, batch_to_device=lambda batch, device: batch)
    trainer: Any = SimpleNamespace(strategy=place, precision_plugin=precision, datamodule=data, world_size=1)
    assert out_of_memory.fewest_parts(trainer, precision.convert_module(classifier()), 1) == 1


@pytest.mark.parametrize(
    ("size", "task", "expected"),
    [
        (32, "classification", 64),
        (28, "classification", 83),
        (8, "classification", 500),
        (224, "classification", 500),
        (32, "segmentation", 500),
    ],
)
def test_small_images_are_evaluated_64_at_once_on_a_cpu(size: int, task: str, expected: int) -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    data = SimpleNamespace(eval_batch_size=500)
    fit_evaluation_batch({"data": {"task": task, "image_size": [size, size]}}, trainer, nn.Module(), data)
    assert data.eval_batch_size == expected


def test_a_detector_is_not_compiled() -> None:
    net = MaskRCNN(ResNet(18, block="basic", base_channels=8, in_channels=1), 3, pyramid=16)
    with pytest.raises(ValueError, match="shapes in a MaskRCNN differ from step to step"):
        TrainingOptions(compile=True).apply(net)
    with pytest.raises(ValueError, match="a MaskRCNN has no stages to compute again"):
        TrainingOptions(gradient_checkpointing=True).apply(net)


def test_a_network_with_an_attribute_called_losses_is_no_detector() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net.losses = nn.ModuleList()
    TrainingOptions(compile=True).apply(net)


def test_a_detector_takes_images_as_nhwc_and_their_sizes_as_they_are() -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {"pyramid": 16, "head_channels": 16, "frozen_norm": False, "freeze_at": 0}
    net = MaskRCNN(ResNet(18, block="basic", base_channels=8, in_channels=1), 3, **small).eval()
    images, sizes = torch.randn(2, 1, 64, 96), torch.tensor([[64, 96], [50, 96]])
    with torch.no_grad():
        plain = net(images, sizes)
        TrainingOptions(channels_last=True).apply(net)
        found = net(images, sizes)
    assert all(len(one["boxes"]) for one in plain)
    for one, other in zip(plain, found, strict=True):
        torch.testing.assert_close(other["boxes"], one["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(other["scores"], one["scores"])
