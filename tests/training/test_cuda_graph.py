"""Training steps replayed from CUDA graphs are those that Python starts, to the bit."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.configurations import trial

from benchmarks.config.trial import config_hash, differing_keys
from benchmarks.launch.checks import refusal
from benchmarks.training.cuda_graph import forget_captured
from benchmarks.training.options import TrainingOptions
from lightning_modules.nets import DenseNet, MaskRCNN, ResNet

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs are of NVIDIA GPUs")


def trained(net: Any, precision: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Weights and buffers after six steps of momentum, two of them on smaller batches, with an evaluation between."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for count in (16, 16, 12, 16, 16, 12):
        images, targets = torch.randn(count, 3, 32, 32), torch.randint(10, (count,))
        with torch.autocast("cuda", precision or torch.float32, enabled=precision is not None):
            loss = F.cross_entropy(net(images.cuda()), targets.cuda())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        net.eval()
        with torch.no_grad():
            losses.append(net(images.cuda()).sum())
        net.train()
    return {**net.state_dict(), "losses": torch.stack(losses)}


@GPU
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("kind", ["resnet", "densenet"])
def test_replayed_steps_are_the_same_to_the_bit(
    kind: str, precision: torch.dtype | None, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.manual_seed(0)
    net: Any = (
        ResNet(8, block="basic", base_channels=8, stem="cifar", num_classes=10)
        if kind == "resnet"
        else DenseNet(13, 4, dropout=0.2, stem="cifar", num_classes=10)
    )
    captured = copy.deepcopy(net.cuda())
    for one, graph in ((net, False), (captured, True)):
        TrainingOptions(channels_last=channels_last, cuda_graph=graph).apply(one)
    expected, replayed = trained(net, precision), trained(captured, precision)
    assert len(captured.forward.passes) == 2, "one for each shape"
    for name, value in expected.items():
        assert torch.equal(replayed[name], value), name
    forget_captured(captured)
    assert not captured.forward.passes


def test_a_replayed_run_is_the_same_run() -> None:
    plain, replayed = (trial("model=resnet", f"trainer.cuda_graph={value}") for value in ("null", "true"))
    assert (replayed.directory, replayed.overrides) == (plain.directory, {})
    assert config_hash(replayed.config) == config_hash(plain.config)
    assert not differing_keys(replayed.config, plain.config)


def test_what_is_not_captured_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"trainer.cuda_graph=true needs an NVIDIA GPU; this is "):
        TrainingOptions(cuda_graph=True).check(torch.device("cpu"), "32-true")
    net = MaskRCNN(ResNet(18, block="basic", base_channels=8, in_channels=1), 3, pyramid=16)
    with pytest.raises(
        ValueError, match="cuda_graph=true: shapes in a MaskRCNN differ from step to step, so it is not captured"
    ):
        TrainingOptions(cuda_graph=True).apply(net)


@pytest.mark.parametrize(
    "other",
    [
        *("trainer.compile=true", "trainer.gradient_checkpointing=true", "trainer.on_out_of_memory=accumulate"),
        *("trainer.accumulate_grad_batches=2", "trainer.devices=2", "model.memory_efficient=true"),
    ],
)
def test_what_excludes_a_graph_is_named(other: str) -> None:
    problem = refusal(trial("model=densenet", "data=digits", "trainer.cuda_graph=true", other))
    assert problem is not None and problem.startswith("trainer.cuda_graph=true is for one process")
    assert other.partition("=")[0] in problem or "several processes" in problem
    assert refusal(trial("model=densenet", "data=digits", "trainer.cuda_graph=true")) is None
