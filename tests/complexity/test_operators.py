"""Networks with the blocks of today, whose cost and training cost are known by hand or by a real backward pass."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.complexity.by_dispatch import count_by_dispatch
from benchmarks.complexity.by_trace import count_by_trace
from benchmarks.complexity.counting import measure
from benchmarks.complexity.operators import FREE, einsum_products, is_free

pytestmark = pytest.mark.usefixtures("one_thread")


class SqueezeExcitation(nn.Module):
    """Hu et al. 2018: a gate for each channel."""

    def __init__(self, channels: int, squeezed: int, gate: type[nn.Module]):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


def inverted_residual(
    channels: int, activation: type[nn.Module], gate: type[nn.Module], stride: int = 1
) -> nn.Sequential:
    """Expansion by 4, depthwise 3x3, squeeze-and-excitation, projection."""
    wide = 4 * channels
    return nn.Sequential(
        *(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), activation()),
        *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation()),
        SqueezeExcitation(wide, channels, gate),
        *(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)),
    )


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022: depthwise 7x7, layer norm over channels, two linear maps at every position, a scale."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(1e-6 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021, one block; attention as one operator, by hand, as torch's module or by einsum."""

    def __init__(self, attention: str, width: int = 12, heads: int = 3):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 17, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        if attention == "module":
            self.multihead = nn.MultiheadAttention(width, heads, batch_first=True)
        else:
            self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 10)

    def attend(self, x: Tensor) -> Tensor:
        if self.attention == "module":
            return self.multihead(x, x, x, need_weights=False)[0]
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.attention == "operator":
            y = F.scaled_dot_product_attention(query, key, value)
        elif self.attention == "by hand":
            y = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1) @ value
        else:
            y = torch.einsum("bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", query, key).softmax(dim=-1), value)
        return self.projection(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        x = x + self.attend(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.head(x[:, 0])


class BilinearUNet(nn.Module):
    """One level down and up, by interpolation instead of a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.top, self.bottom, self.up = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(16, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        top = F.leaky_relu(self.top(x))
        below = F.mish(self.bottom(F.max_pool2d(top, 2)))
        above = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        return self.up(torch.cat([top, above], dim=1)).sigmoid()


def classifier(*blocks: nn.Module, channels: int = 8) -> nn.Sequential:
    stem = nn.Conv2d(3, channels, 3, 2, 1)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def attention_macs() -> int:
    width, tokens = 12, 17
    linear = tokens * (3 * width * width + width * width + 2 * 4 * width * width)
    return 3 * 16 * width * 16 + linear + 2 * tokens * tokens * width + 10 * width


# Of each network the multiply-adds of one image of 3x16x16, by hand; the stem of the classifiers gives 8x8x8.
STEM, HEAD = 8 * 8 * 9 * 3 * 8, 8 * 10
SE = 2 * 8 * 32
INVERTED = 64 * (8 * 32 + 9 * 32 + 32 * 8) + SE
NETWORKS = {
    "MobileNetV3": (lambda: classifier(inverted_residual(8, nn.Hardswish, nn.Hardsigmoid)), STEM + INVERTED + HEAD),
    "EfficientNet": (lambda: classifier(inverted_residual(8, nn.SiLU, nn.Sigmoid)), STEM + INVERTED + HEAD),
    "ConvNeXt": (lambda: classifier(ConvNeXtBlock(8)), STEM + 64 * (49 * 8 + 2 * 8 * 32) + HEAD),
    **{
        f"ViT, attention as {form}": (lambda form=form: VisionTransformer(form), attention_macs())
        for form in ("operator", "by hand", "module", "einsum")
    },
    "bilinear U-Net": (BilinearUNet, 256 * 9 * 3 * 8 + 64 * 9 * 8 * 8 + 256 * 16 * 2),
    "shared layers": (lambda: classifier(*[nn.Conv2d(8, 8, 3, padding=1)] * 3), STEM + 3 * 64 * 9 * 64 + HEAD),
    "grouped transposed": (lambda: classifier(nn.ConvTranspose2d(8, 8, 2, 2, groups=4)), STEM + 64 * 4 * 2 * 8 + HEAD),
    "padding by name": (lambda: classifier(nn.Conv2d(8, 8, 3, padding="same")), STEM + 64 * 9 * 64 + HEAD),
}


def convolution_backward(gradient, x, weight, *arguments, out_shape=None, **options) -> int:
    """FLOPs of it: the forward's for each gradient that is asked for. torch's own formula is wrong with groups."""
    transposed, mask = arguments[4], arguments[7]
    positions = math.prod((x if transposed else gradient)[2:])
    return 2 * gradient[0] * positions * math.prod(weight) * sum(mask[:2])


def flops_of_a_training_step(net: nn.Module) -> int:
    """What torch's counter sees of a real forward and backward pass."""
    aten = torch.ops.aten
    counter = FlopCounterMode(display=False, custom_mapping={aten.convolution_backward: convolution_backward})
    with counter, sdpa_kernel(SDPBackend.MATH):
        net(torch.randn(1, 3, 16, 16)).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_today_are_counted_by_hand_and_by_a_real_step(name):
    make, macs = NETWORKS[name]
    net = make().eval()
    measured = measure(net, (3, 16, 16))
    assert measured.macs == macs
    assert measured.uncounted == () and measured.warning is None and "uncounted" not in measured.as_dict()
    assert measured.train_flops_per_sample == flops_of_a_training_step(net)
    first = net.top if isinstance(net, BilinearUNet) else net.patches if "ViT" in name else net[0]
    [layer] = [layer for layer in measured.layers if net.get_submodule(layer.name) is first]
    assert measured.train_macs_per_sample == 3 * measured.macs - layer.macs


@pytest.mark.parametrize("name", NETWORKS)
def test_two_counters_agree_row_by_row(name):
    net = NETWORKS[name][0]().eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        traced = count_by_trace(net, torch.zeros(1, 3, 16, 16))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    on_meta = count_by_dispatch(net.to("meta"), torch.empty(1, 3, 16, 16, device="meta"))
    assert traced.costs == {key: cost._replace(gradient_macs=0) for key, cost in on_meta.costs.items()}
    assert traced.uncounted == on_meta.uncounted == set()


def test_frozen_attention_costs_its_forward():
    net = VisionTransformer("module").requires_grad_(False)
    measured = measure(net, (3, 16, 16))
    assert (measured.macs, measured.train_macs_per_sample) == (attention_macs(), attention_macs())


def test_a_backbone_without_gradient_has_none_to_its_weights():
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            with torch.no_grad():
                x = self.body(x).mean((2, 3))
            return self.head(x)

    measured = measure(Probe(), (3, 8, 8))
    body, head = measured.layers
    assert measured.uncounted == ()
    assert (head.macs, head.gradient_macs) == (20, 20)
    assert body.training_macs in {body.macs, 2 * body.macs}


class TwoProducts(torch.autograd.Function):
    """A matrix by two others, whose gradient is the code of its own backward."""

    @staticmethod
    def forward(ctx, x, first, second):
        ctx.save_for_backward(x, first, second)
        return x @ first @ second

    @staticmethod
    def backward(ctx, gradient):
        x, first, second = ctx.saved_tensors
        inner = gradient @ second.T
        return inner @ first.T, x.T @ inner, (x @ first).T @ gradient


@pytest.mark.parametrize("kind", ["own function", "reentrant", "not reentrant"])
def test_gradients_that_autograd_does_not_follow_are_named(kind):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first, self.second = (nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, x):
            x = self.stem(x.mean(1)[0])
            if kind == "own function":
                return TwoProducts.apply(x, self.first.weight, self.second.weight)
            return checkpoint(lambda x: self.second(self.first(x)), x, use_reentrant=kind == "reentrant")

    measured = measure(Inner(), (3, 4, 4))
    assert measured.macs == 3 * 64
    if kind == "not reentrant":
        assert measured.uncounted == () and measured.train_macs_per_sample == 3 * measured.macs - 64
    else:
        assert measured.uncounted == ("the gradient of mm",)


class Recurrent(nn.Module):
    """Reads an image as a sequence of its rows."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(24, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.cell(x.transpose(1, 2).flatten(2))[0][:, -1])


def test_what_the_trace_knows_as_one_operator_torch_counts_taken_apart():
    measured = measure(Recurrent(), (3, 8, 8))
    assert measured.macs == 8 * 3 * 6 * (24 + 6) + 30
    assert measured.uncounted == ()


EINSUMS = {
    "bij,bjk->bik": ([2, 3, 4], [2, 4, 5]),
    "bhqd,bhkd->bhqk": ([2, 3, 5, 4], [2, 3, 6, 4]),
    "...ij,...jk": ([2, 3, 4], [2, 4, 5]),
    "i,j->ij": ([3], [4]),
    "ij,ij->ij": ([3, 4], [3, 4]),
    "ij,kl->ik": ([3, 4], [5, 6]),
    "ij,jk,kl->il": ([3, 4], [4, 5], [5, 6]),
    "ij,jk,kl,lm->im": ([3, 4], [4, 5], [5, 6], [6, 7]),
    "bij,jk->bik": ([1, 3, 4], [4, 5]),
    "ij->ji": ([3, 4],),
    "nchw,ndhw->ncd": ([1, 3, 4, 5], [1, 2, 4, 5]),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsum_takes_the_products_that_torch_takes(equation):
    shapes = EINSUMS[equation]
    with FlopCounterMode(display=False) as counter, torch.backends.opt_einsum.flags(enabled=False):
        torch.einsum(equation, *(torch.empty(shape, device="meta") for shape in shapes))
    products = einsum_products(equation, shapes, ())
    assert 2 * sum(macs for macs, _ in products) == counter.get_total_flops()


@pytest.mark.parametrize("path", [(2, 3, 0, 1, 0, 1), (1, 2, 1, 2, 0, 1), (0, 3, 0, 1, 0, 1)])
def test_einsum_follows_a_path(path):
    equation, shapes = "ij,jk,kl,lm->im", [[3, 4], [4, 5], [5, 6], [6, 7]]
    with FlopCounterMode(display=False) as counter:
        torch._VF.einsum(equation, [torch.empty(shape, device="meta") for shape in shapes], path=path)
    assert 2 * sum(macs for macs, _ in einsum_products(equation, shapes, path)) == counter.get_total_flops()


def test_free_operators_are_operators_of_torch():
    known = {name.split("::")[1].split(".")[0].strip("_") for name in torch._C._dispatch_get_all_op_names()}
    names = [name for text in FREE.values() for name in text.split()]
    assert set(names) <= known
    assert len(names) == len(set(names))


def test_no_product_of_tensors_is_free():
    products = "conv2d convolution matmul mm bmm einsum linear bilinear fft_fft2 im2col lstm"
    assert not any(is_free(f"aten::{name}") for name in products.split())
    free = "aten::mul_ aten::silu aten::__and__ aten::hardswish_ aten::_softmax sigmoid"
    assert all(map(is_free, free.split()))


class NeedsValues(nn.Module):
    """A branch on a value, a number taken out of a tensor, and a tensor made without a device: nothing for the meta device."""

    def __init__(self, needs: bool):
        super().__init__()
        self.needs = needs
        self.first, self.second = nn.Conv2d(3, 8, 3, groups=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.needs:
            y = y * torch.linspace(0.5, 1.0, y.shape[-1]) / max(1.0, y.abs().max().item())
            y = y if y.sum() > -math.inf else -y
        return self.second(y)


def test_a_network_that_needs_values_is_counted_on_the_cpu() -> None:
    plain, needing = (measure(NeedsValues(needs), (3, 16, 16)) for needs in (False, True))
    assert needing.macs == 14 * 14 * (3 * 9 * 8 + 8 * 4)
    assert needing == plain  # layers with their gradients too


def test_an_error_of_the_networks_own_is_the_one_that_is_raised() -> None:
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        measure(NeedsValues(True), (1, 16, 16))
