"""What DenseNet and U-Net keep in memory, and that keeping less changes no result."""

import copy
import json
import math
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from support.forked_trials import unused_port
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from benchmarks.complexity.counting import measure
from benchmarks.performance.kept_memory import exponents, growth, kept_bytes, training_macs, view
from benchmarks.performance.subprocesses import compare_steps
from benchmarks.training.recomputation import recompute_stages
from lightning_modules.nets import DenseNet, UNet

KINDS = {
    "bc": {"depth": 22, "bottleneck": True, "compression": 0.5},
    "bc_dropout": {"depth": 22, "bottleneck": True, "compression": 0.5, "dropout": 0.2},
    "basic_dropout": {"depth": 13, "dropout": 0.2},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def pair(**arguments: Any) -> tuple[DenseNet, DenseNet]:
    """The plain and the memory-efficient network with the same weights."""
    torch.manual_seed(0)
    plain = DenseNet(growth_rate=6, stem="cifar", num_classes=7, **arguments)
    efficient = DenseNet(growth_rate=6, stem="cifar", num_classes=7, memory_efficient=True, **arguments)
    assert list(plain.state_dict()) == list(efficient.state_dict())
    efficient.load_state_dict(plain.state_dict())
    return plain, efficient


def train(net: nn.Module, steps: int, rank: int = 0) -> dict[str, Any]:
    """A few steps: losses, gradients of the last, all parameters and buffers, and where the random numbers are."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    losses = []
    torch.manual_seed(1 + rank)
    for step in range(steps):
        images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(10 * step + rank))
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), torch.arange(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {
        "losses": losses,
        "gradients": [parameter.grad for parameter in net.parameters()],
        "state": list(net.state_dict().values()),
        "random": torch.get_rng_state(),
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in one:
        for a, b in zip(tree_leaves(one[name]), tree_leaves(other[name]), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", KINDS)
def test_memory_efficient_training_is_the_same_to_the_bit(kind):
    plain, efficient = pair(**KINDS[kind])
    there = [train(net, 2) for net in (plain, efficient)]
    assert_same(*there)
    counts = {int(buffer) for name, buffer in efficient.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {2}  # each batch seen once by the running statistics
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(plain.eval()(images), efficient.eval()(images))


def test_gradients_are_the_same_with_frozen_statistics_and_several_passes_forward_and_backward():
    found = []
    for net in pair(depth=16, bottleneck=True):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        loss = net(images).sum() + net(2 * images).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        found.append([parameter.grad for parameter in net.parameters()] + list(net.buffers()))
    assert_same({"all": found[0]}, {"all": found[1]})


def ranks(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    there = [train(DistributedDataParallel(net), 2, rank) for net in pair(**KINDS["bc_dropout"])]
    assert_same(*there)
    gradients = torch.cat([gradient.flatten() for gradient in there[1]["gradients"]])
    both = [torch.empty_like(gradients) for _ in range(2)]
    dist.all_gather(both, gradients)
    assert torch.equal(*both)
    Path(folder, str(rank)).write_text(json.dumps([float(loss) for loss in there[1]["losses"]]))
    dist.destroy_process_group()


def test_memory_efficient_training_is_the_same_on_two_ranks(tmp_path):
    context = mp.start_processes(ranks, (unused_port(), str(tmp_path)), nprocs=2, join=False, start_method="fork")
    deadline = time.monotonic() + 60
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline
    finally:
        for process in context.processes:
            process.kill()
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert first != second  # each had its own images


def test_nothing_is_convolved_again_and_compute_is_counted_as_before():
    arguments = KINDS["bc"] | {"growth_rate": 6, "stem": "cifar", "num_classes": 7}
    model = {"_target_": "lightning_modules.nets.DenseNet", **arguments}
    plain, efficient = pair(**KINDS["bc"])
    macs = training_macs(model, (3, 16, 16))
    assert training_macs(model | {"memory_efficient": True}, (3, 16, 16)) == macs
    assert measure(plain, (3, 16, 16)) == measure(efficient.train(), (3, 16, 16))
    assert macs == measure(plain, (3, 16, 16)).train_macs_per_sample


def kept(depth: int, memory_efficient: bool) -> int:
    net = DenseNet(depth, 4, bottleneck=True, compression=0.5, stem="cifar", memory_efficient=memory_efficient)
    return kept_bytes(net.train(), torch.randn(2, 3, 8, 8))


def test_memory_is_linear_in_depth_and_quadratic_plainly():
    """With k even and θ = 1/2 no map is rounded away: bytes over the layers of a block are a polynomial, exactly."""
    depths = range(16, 46, 6)
    plain, efficient = ([kept(depth, form) for depth in depths] for form in (False, True))
    steps = [[b - a for a, b in zip(values, values[1:], strict=False)] for values in (plain, efficient)]
    assert len(set(steps[1])) == 1
    bends = {b - a for a, b in zip(steps[0], steps[0][1:], strict=False)}
    assert len(bends) == 1
    # One more layer per block reads k more maps than the one before it, in the first block by itself and in the later ones
    # also through what transitions hand on: 2k, 2·(k + k/2), 2·(k + k/2 + k/4) maps, concatenated and normalised, on 8², 4²
    # and 2² pixels of 2 images; and normalisation keeps a mean and a deviation of each concatenated map.
    maps = [4, 4 + 2 * 2, 4 + 2 * (2 + 1)]
    pixels = sum(2 * count * 2 * side * side * 4 for count, side in zip(maps, (8, 4, 2), strict=True))
    assert bends == {pixels + sum(2 * count * 4 for count in maps)}


@pytest.mark.slow
def test_compiled_networks_update_their_statistics_once_and_keep_less_too():
    found, sizes = [], []
    for net in pair(depth=16, bottleneck=True):
        compiled = torch.compile(net, backend="aot_eager_decomp_partition")  # the compiler's own choice of what to keep
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        sizes.append(kept_bytes(compiled, images))
        compiled(images).square().sum().backward()
        found.append([*(parameter.grad for parameter in net.parameters()), *net.buffers()])
    for plain, efficient in zip(*found, strict=True):
        torch.testing.assert_close(plain, efficient)
    assert sizes[1] < 0.8 * sizes[0]


class Published(nn.Module):
    """The layout of public DenseNets, torchvision's among them: layers that read a list of features. Its memory-efficient form
    computes the first convolution again."""

    def __init__(self, net: DenseNet, memory_efficient: bool) -> None:
        super().__init__()
        self.net = net
        self.memory_efficient = memory_efficient

    def forward(self, x: Tensor) -> Tensor:
        x = self.net.stem(x)
        for index, stage in enumerate(self.net.stages):
            if index % 2:
                for layer in stage:
                    x = layer(x)
                continue
            features = [x]
            for layer in stage:
                first, second = layer.composite[:4], layer.composite[4:]

                def narrow(*features: Tensor, first: nn.Module = first) -> Tensor:
                    return nn.Sequential(*first)(torch.cat(features, 1))

                inner = (
                    checkpoint(narrow, *features, use_reentrant=False) if self.memory_efficient else narrow(*features)
                )
                features.append(nn.Sequential(*second)(inner))
            x = torch.cat(features, 1)
        return self.net.classifier(self.net.pool(x))


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_no_more_is_kept_than_by_public_implementations(memory_efficient):
    net = DenseNet(121, 4, bottleneck=True, compression=0.5, num_classes=7, memory_efficient=memory_efficient).train()
    images = torch.randn(2, 3, 64, 64)
    ours, published = kept_bytes(net, images), kept_bytes(Published(copy.deepcopy(net), memory_efficient), images)
    assert ours <= (0.7 * published if memory_efficient else published)


def test_growth_is_told_by_its_powers():
    rows = [
        {"depth": depth, "network": f"n{depth}", "batch": 2, "time_ratio": 1.5, "recomputed_macs": 0}
        | {f"{quantity}_plain_mib": 3 * depth**2 for quantity in ("kept", "peak")}
        | {f"{quantity}_efficient_mib": 5 * depth for quantity in ("kept", "peak")}
        for depth in (10, 20, 40)
    ]
    assert exponents(rows) == pytest.approx({"plain": 2, "efficient": 1})
    assert growth(rows).endswith("2.00 plain and 1.00 memory-efficient.") and growth(rows[:1]) == ""
    assert growth([*rows, rows[-1]]) == ""  # the two deepest are as deep: of two growth rates, say
    traces = view(rows).figures[0].choices[0]["traces"]
    assert [trace["y"] for trace in traces[:2]] == [[300, 1200, 4800], [50, 100, 200]]
    with pytest.raises(ValueError, match="give several"):
        view(rows[:1])


@pytest.mark.slow
def test_times_of_two_steps_are_compared():
    """A network beside one of twenty more layers."""
    head = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 16, "kernel_size": 3}
    layer = head | {"out_channels": 3, "padding": 1}
    step = {"image": [3, 64, 64], "batch": 4, "gpu": False, "precision": "32-true", "threads": 1, "measured_s": 0.3}
    step["optimizer"] = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}
    deeper = {"_target_": "torch.nn.Sequential", "_args_": [*[layer] * 20, head]}
    compared = compare_steps(step | {"model": head}, step | {"model": deeper}, repeats=7)
    assert compared["rounds"] == 7
    assert 1 < compared["time_ratio_low"] <= compared["time_ratio"] <= compared["time_ratio_high"] < math.inf
    assert compared["memory_plain_mib"] < compared["memory_mib"]


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return found

    def gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def unet_as_equations(net: UNet, x: Tensor) -> Tensor:
    """Every skip cropped where it is used."""
    skips = []
    for level in net.contracting:
        x = level(x)
        skips.append(x)
        x = net.pool(x)
    x = net.bottom(x)
    for up_conv, level in zip(net.up_convs, net.expanding, strict=True):
        up, skip = up_conv(x), skips.pop()
        margin = (skip.shape[-1] - up.shape[-1]) // 2
        crop = slice(margin, skip.shape[-1] - margin)
        x = level(torch.cat([skip[:, :, crop, crop], up][net.order], 1))
    return net.classifier(x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("arguments", [{}, {"padded": True}, {"release": True}])
def test_unet_is_the_same_to_the_bit_with_and_without_gradients(arguments, layout):
    torch.manual_seed(0)
    net = UNet(1, 2, base_channels=4, depth=2, **arguments).to(memory_format=layout).eval()
    side = 60 if not arguments.get("padded") else 64
    image = torch.randn(2, 1, side, side).to(memory_format=layout)
    expected = unet_as_equations(net, image)
    assert torch.equal(net(image), expected)
    with torch.no_grad():
        assert torch.equal(net(image), expected)


def test_a_large_tile_needs_no_more_than_the_two_first_maps_of_unet():
    """Unpadded at Figure 1's size: the maps of 570 and 568 pixels, the image and nothing else are alive at the peak."""
    net = UNet(1, 2, base_channels=4).eval()
    live = Live()
    image = torch.randn(1, 1, 572, 572)
    with torch.no_grad(), live:
        net(image)
    assert live.peak == 4 * 4 * (570**2 + 568**2)


def test_recomputing_twice_is_refused() -> None:
    net = DenseNet(22, 4, stem="cifar", memory_efficient=True)
    with pytest.raises(ValueError, match="compute the same again: choose one"):
        recompute_stages(net)
