"""The counter against the reference counts, torch's own counter where that is right, and arithmetic by hand."""

import copy
import json
import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from support.reference_networks import FAMILIES, REFERENCE_COUNTS, check_cost, reference_network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.complexity import by_trace
from benchmarks.complexity.by_dispatch import count_by_dispatch
from benchmarks.complexity.by_trace import conv_flop_count, count_by_trace
from benchmarks.complexity.counting import build, measure
from lightning_modules.nets import DenseNet, ResNet, UNet

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = [name for name, row in REFERENCE_COUNTS.items() if row["family"] in FAMILIES]
# Of every kind of network one that is counted soon; all are, with the rows of the tables, by `test_certify.py`.
QUICK = (
    *("resnet20", "plain34", "resnet50_stride_1x1", "resnext50_32x4d", "densenet40_k12", "densenet_bc100_k12"),
    pytest.param("unet64", marks=pytest.mark.slow),
)


def torch_flops(net: nn.Module, input_size: tuple[int, ...], backward: bool = False) -> int:
    """FlopCounterMode on the meta device: 2 per multiply-add; its backward is right only without groups."""
    counter = FlopCounterMode(display=False)
    with counter:
        output = net(torch.empty(1, *input_size, device="meta"))
        if backward:
            output.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", QUICK)
def test_reference_counts(name):
    net, input_size = reference_network(name)
    complexity = measure(net, input_size)
    check_cost(name, complexity)
    assert torch_flops(net.to("meta"), input_size) == 2 * complexity.macs


def test_weights_that_are_not_drawn_change_no_count() -> None:
    model = {"_target_": "lightning_modules.nets.ResNet", "depth": 20, "block": "basic", "stem": "cifar"}
    model |= {"in_channels": 3, "num_classes": 10}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = torch.get_rng_state()
        _, cost = build(model, (3, 32, 32), initialised=False)
        assert torch.equal(torch.get_rng_state(), before)  # none were drawn
        net, drawn = build(model, (3, 32, 32))
    assert cost == drawn and float(net.classifier.weight.detach().std()) > 0


@pytest.mark.parametrize("name", [name for name in NETWORKS if "1202" not in name])
def test_reference_parameters(name):
    with torch.device("meta"):
        net, _ = reference_network(name)
    assert sum(parameter.numel() for parameter in net.parameters()) == int(REFERENCE_COUNTS[name]["params"])


def test_another_90_classes_are_90_more_outputs():
    wider = {name: name.removesuffix("_100_classes") for name in NETWORKS if name.endswith("_100_classes")}
    assert len(wider) == 12
    for name, ten in wider.items():
        params, macs = (
            int(REFERENCE_COUNTS[name][key]) - int(REFERENCE_COUNTS[ten][key]) for key in ("params", "macs")
        )
        assert macs % 90 == 0 and params == macs + 90


def test_shortcuts_of_resnet34_cost_what_arithmetic_says():
    # Projections 64 to 128, 128 to 256 and 256 to 512 take 6,422,528 multiply-adds each; those of the other blocks, as 64 to 64
    # on 56x56, 12,845,056.
    counts = {name: int(row["macs"]) for name, row in REFERENCE_COUNTS.items()}
    assert counts["resnet34"] - counts["resnet34_shortcut_a"] == 3 * 6_422_528
    assert counts["resnet34_shortcut_c"] - counts["resnet34"] == (3 + 3 + 5 + 2) * 12_845_056
    assert counts["plain34"] == counts["resnet34_shortcut_a"]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet50", 11.3),
        ("resnext50_32x4d", 14.6),
        pytest.param("resnet101", 16.4, marks=pytest.mark.slow),
        pytest.param("resnext101_32x4d", 21.4, marks=pytest.mark.slow),
    ],
)
def test_activations_are_those_of_pycls(name, millions):
    net = ResNet(**json.loads(REFERENCE_COUNTS[name]["arguments"]))
    # pycls also counts the output of the stem's max pooling, 64 maps of 56x56.
    assert round((measure(net, (3, 224, 224)).activations + 64 * 56 * 56) / 1e6, 1) == millions


UNGROUPED = {
    "resnet_basic": (
        ResNet,
        {"depth": 20, "block": "basic", "base_channels": 16, "stem": "cifar", "shortcut": "A"},
        32,
    ),
    "resnet_bottleneck": (ResNet, {"depth": 50, "stride_in": "1x1", "base_channels": 16}, 64),
    "densenet": (DenseNet, {"depth": 22, "growth_rate": 6, "stem": "cifar", "dropout": 0.2}, 32),
    "densenet_bc": (DenseNet, {"depth": 121, "growth_rate": 8, "bottleneck": True, "compression": 0.5}, 64),
    "unet": (UNet, {"base_channels": 8}, 188),
    "unet_padded": (UNet, {"base_channels": 8, "depth": 3, "padded": True, "dropout": 0.5}, 48),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", UNGROUPED)
def test_training_cost_is_torchs_count_where_nothing_is_grouped(name, frozen):
    family, arguments, side = UNGROUPED[name]
    net = family(**arguments, in_channels=3, num_classes=7)
    # Frozen: the first half of the parameters, and the weights of one layer among the rest.
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    if frozen:
        for layer in [*layers[: len(layers) // 2], layers[3 * len(layers) // 4]]:
            layer.requires_grad_(False)
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.requires_grad_(False)
    complexity = measure(net, (3, side, side))
    assert complexity.train_flops_per_sample == torch_flops(net.to("meta"), (3, side, side), backward=True)
    assert frozen == (complexity.train_macs_per_sample < 3 * complexity.macs - complexity.layers[0].macs)


def test_grouped_convolution_trains_at_three_times_its_forward():
    net = nn.Sequential(nn.Conv2d(3, 128, 1), nn.Conv2d(128, 128, 3, padding=1, groups=32))
    first, grouped = measure(net, (3, 16, 16)).layers
    assert grouped.macs == 16 * 16 * 9 * 128 * 128 // 32
    assert grouped.training_macs == 3 * grouped.macs
    # 32 separate convolutions, which torch's counter counts right.
    separate = sum(
        torch_flops(
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)).to("meta"), (3, 16, 16), backward=True
        )
        for _ in range(32)
    )
    assert 2 * (first.training_macs + grouped.training_macs) == separate
    assert first.training_macs == 2 * first.macs == 2 * 16 * 16 * 3 * 128
    alone = measure(nn.Conv2d(128, 128, 3, padding=1, groups=32), (128, 16, 16))
    assert alone.train_macs_per_sample == 2 * alone.macs == 2 * grouped.macs


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_convolution_trains_at_three_times_its_forward(groups):
    net = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ConvTranspose2d(64, 32, 2, stride=2, groups=groups))
    _, transposed = measure(net, (3, 16, 16)).layers
    assert transposed.kind == "conv_transpose"
    assert (
        transposed.macs == 64 // groups * 32 * 32 * 32
    )  # every output pixel sees one tap per input channel of its group
    assert transposed.training_macs == 3 * transposed.macs
    assert transposed.activations == 32 * 32 * 32
    assert transposed.params == 64 * 32 // groups * 4 + 32


def test_layers_carry_their_own_costs():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5), nn.Linear(5, 7, bias=False)
    )
    net[3].requires_grad_(False)
    complexity = measure(net, (2, 8, 8))
    costs = [(c.name, c.kind, c.macs, c.params, c.activations, c.gradient_macs) for c in complexity.layers]
    assert costs == [
        ("0", "conv", 36 * 9 * 2 * 4, 2 * 4 * 9 + 4, 4 * 36, 36 * 9 * 2 * 4),
        ("3", "linear", 144 * 5, 144 * 5 + 5, 5, 144 * 5),
        ("4", "linear", 5 * 7, 5 * 7, 7, 2 * 5 * 7),
    ]
    assert complexity.as_dict() == {
        "input_size": [2, 8, 8],
        "params": 76 + 725 + 35,
        "macs": 2592 + 720 + 35,
        "flops": 2 * 3347,
        "activations": 144 + 5 + 7,
        "train_macs_per_sample": 2 * 2592 + 2 * 720 + 3 * 35,
        "train_flops_per_sample": 2 * (2 * 2592 + 2 * 720 + 3 * 35),
    }
    json.dumps(complexity.as_dict())


class Dropping(nn.Module):
    """Draws random numbers in eval mode too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(F.dropout(self.norm(self.conv(x)), training=True))


@pytest.mark.parametrize("grad", [True, False])
def test_measure_leaves_the_network_and_the_random_state_alone(grad):
    net = Dropping().train()
    net.norm.eval()
    net.conv.bias.requires_grad_(False)
    net.conv.weight.grad = torch.ones_like(net.conv.weight)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    with torch.set_grad_enabled(grad):
        measured = measure(net, (3, 8, 8))
        assert torch.is_grad_enabled() == grad
    assert torch.equal(torch.get_rng_state(), state)
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert (net.training, net.conv.training, net.norm.training) == (True, True, False)
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True, True, True]
    assert torch.equal(net.conv.weight.grad, torch.ones_like(net.conv.weight)) and net.norm.weight.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    # The gradients that training will compute are told under no_grad as well.
    conv, last = measured.layers
    assert (conv.gradient_macs, last.gradient_macs) == (conv.macs, 2 * last.macs)


def test_measure_is_silent(capfd, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        measure(UNet(base_channels=2, depth=1), (1, 18, 18))
        measure(DenseNet(10, 4, stem="cifar", dropout=0.2), (3, 8, 8))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


UNCOUNTED = {
    "fft_fft2": lambda x: torch.fft.fft2(x).real,
    "im2col": lambda x: F.unfold(x, 3),
    "Double": lambda x: Double.apply(x),
    "bilinear": lambda x: F.bilinear(x, x, torch.ones(2, 6, 6)),
}


class Calls(nn.Module):
    """A convolution, then a function that is no module."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize("operator", UNCOUNTED)
def test_operator_that_is_neither_counted_nor_free_is_named_beside_the_count(operator):
    measured = measure(Calls(UNCOUNTED[operator]), (3, 8, 8))
    [name] = measured.uncounted
    assert name.endswith(operator) and measured.macs == 36 * 9 * 3 * 4
    assert measured.as_dict()["uncounted"] == [name]
    assert measured.warning == f"MACs leave out what {name} computes: neither counted nor known to be free"


@pytest.mark.parametrize(
    "free",
    [
        nn.AvgPool2d(2),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.UpsamplingNearest2d(9),
    ],
)
def test_pooling_normalisation_and_copies_are_free(free):
    assert measure(Calls(free), (3, 8, 8)).macs == 36 * 9 * 3 * 4


VIEWS = {
    **{name: lambda x, name=name: getattr(x[0, 0], name) for name in ("T", "H", "mT", "mH")},
    **{name: lambda x, name=name: getattr(torch, name)(x) for name in ("adjoint", "ravel", "diag_embed", "median")},
    **{
        name: lambda x, name=name: getattr(torch, name)([x, x])
        for name in ("column_stack", "dstack", "hstack", "vstack")
    },
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic", antialias=True),
    "unpooling": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "unpooling 3d": lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2),
    "fractional": lambda x: F.fractional_max_pool2d(x, 2, output_size=3),
    "fractional 3d": lambda x: F.fractional_max_pool3d(x, 2, output_size=(1, 3, 3)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_pooling_or_resampling_is_named_as_arithmetic(name):
    measured = measure(Calls(VIEWS[name]), (3, 8, 8))
    assert (measured.macs, measured.uncounted) == (36 * 9 * 3 * 4, ())


class Direct(Calls):
    """Calls the layer's forward past the module, so no hook sees it."""

    def forward(self, x):
        return self.function(self.conv.forward(x))


def test_products_outside_a_layer_are_counted_where_they_are_taken():
    kernel, weight = torch.ones(2, 4, 3, 3), torch.ones(5, 6, requires_grad=True)
    conv, macs = 36 * 9 * 3 * 4, 16 * 9 * 4 * 2
    measured = measure(Calls(lambda x: F.conv2d(x, kernel)), (3, 8, 8))
    assert [(layer.name, layer.kind, layer.macs, layer.gradient_macs) for layer in measured.layers] == [
        ("", "conv", macs, macs),  # to the maps, the kernel being a constant
        ("conv", "conv", conv, conv),
    ]
    linear, _ = measure(Calls(lambda x: F.linear(x, weight)), (3, 8, 8)).layers
    assert (linear.kind, linear.macs, linear.gradient_macs) == ("matmul", 4 * 6 * 6 * 5, 2 * 4 * 6 * 6 * 5)
    [direct] = measure(Direct(nn.ReLU()), (3, 8, 8)).layers
    assert (direct.name, direct.kind, direct.macs, direct.gradient_macs) == ("", "conv", conv, conv)


def test_a_product_of_weights_alone_is_counted_for_the_image():
    first, second = torch.ones(6, 3, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    product, _ = measure(Calls(lambda x: x @ (first @ second)), (3, 8, 8)).layers
    macs = 6 * 3 * 5 + 4 * 6 * 6 * 5
    assert (product.macs, product.gradient_macs) == (macs, 2 * macs)


def test_layer_applied_twice_costs_twice_and_its_gradients_as_they_are():
    shared = nn.Conv2d(3, 3, 1)
    [layer] = measure(nn.Sequential(shared, nn.ReLU(), shared), (3, 8, 8)).layers
    once = 64 * 9
    assert (layer.macs, layer.activations, layer.params) == (2 * once, 2 * 3 * 64, 12)
    assert layer.gradient_macs == once + 2 * once  # the image has no gradient, what the first application gives has one


def test_a_weight_that_two_layers_share_is_in_one_row():
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    net[1].weight = net[0].weight
    complexity = measure(net, (3, 8, 8))
    assert [row.params for row in complexity.layers] == [3 * 3 * 9 + 3, 3]
    assert complexity.params == 3 * 3 * 9 + 3 + 3
    assert [row.macs for row in complexity.layers] == 2 * [3 * 3 * 9 * 64]


def test_layer_that_is_not_used_costs_parameters_only():
    net = Calls(nn.ReLU())
    net.spare = nn.Linear(5, 5)
    complexity = measure(net, (3, 8, 8))
    assert [layer.name for layer in complexity.layers] == ["conv"]
    assert complexity.params == 3 * 4 * 9 + 4 + 30


@pytest.mark.parametrize("input_size", [(3, 8), (3, 0, 8), (1, 3, 8, 8)])
def test_input_size_is_channels_height_width(input_size):
    with pytest.raises(ValueError, match="input_size is \\(channels, height, width\\)"):
        measure(nn.Conv2d(3, 4, 1), input_size)


def test_compiled_network_is_refused():
    with pytest.raises(ValueError, match="measure it before"):
        measure(torch.compile(nn.Conv2d(3, 4, 1)), (3, 8, 8))


WITNESSED: dict[str, tuple[nn.Module, tuple[int, int, int]]] = {
    "ResNet": (ResNet(20, block="basic", base_channels=16, num_classes=10, stem="cifar"), (3, 32, 32)),
    "ResNeXt": (ResNet(29, block="bottleneck", cardinality=8, base_width=4, num_classes=10, stem="cifar"), (3, 32, 32)),
    "DenseNet": (DenseNet(40, 12, stem="cifar"), (3, 32, 32)),
    "U-Net": (UNet(base_channels=8), (1, 188, 188)),
    "one layer": (nn.Conv2d(3, 4, 3), (3, 8, 8)),
}


@pytest.mark.parametrize("gradient", [False, True], ids=["of weights", "of the image too"])
@pytest.mark.parametrize("name", WITNESSED)
def test_two_counters_agree_layer_by_layer(name, gradient):
    net, input_size = WITNESSED[name]
    net = copy.deepcopy(net).eval()
    traced = count_by_trace(net, torch.zeros(1, *input_size))
    on_meta = count_by_dispatch(net.to("meta"), torch.empty(1, *input_size, device="meta", requires_grad=gradient))
    forward = {key: cost._replace(gradient_macs=0) for key, cost in on_meta.costs.items()}
    assert traced.costs == forward and traced.uncounted == on_meta.uncounted == set()
    assert all(cost.gradient_macs == 2 * cost.macs for cost in on_meta.costs.values()) == gradient
    assert torch_flops(net, input_size) == 2 * traced.totals().macs


def test_a_count_in_which_the_counters_differ_is_an_error(monkeypatch):
    once_too_often = lambda *shapes, **options: conv_flop_count(*shapes, **options) + 1  # noqa: E731
    monkeypatch.setattr(by_trace, "conv_flop_count", once_too_often)
    with pytest.raises(ValueError, match="two counters differ for Conv2d: 3,889 MACs by fvcore, 3,888 by torch"):
        measure(nn.Conv2d(3, 4, 3), (3, 8, 8))


class Untraceable(nn.Module):
    """Cannot be traced."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, stride=2))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("no trace of this")
        return self.head(self.body(x).mean((2, 3)))


def test_a_network_that_fvcore_cannot_trace_is_counted_by_torch_alone(capfd):
    net = Untraceable()
    measured = measure(net, (3, 8, 8))
    assert [layer.macs for layer in measured.layers] == [36 * 27 * 8, 144 * 8 * 4, 4 * 5]
    assert [layer.activations for layer in measured.layers] == [36 * 8, 144 * 4, 5]
    assert [layer.gradient_macs // layer.macs for layer in measured.layers] == [1, 2, 2]
    assert measured.params == sum(parameter.numel() for parameter in net.parameters())
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(
        "fvcore cannot trace Untraceable (RuntimeError: no trace of this): its compute is counted by torch"
    )


def test_an_error_of_the_network_itself_is_raised(capfd):
    with pytest.raises(RuntimeError, match="expected input.* to have 3 channels"):
        measure(nn.Conv2d(3, 4, 3), (1, 8, 8))
    assert capfd.readouterr().err == ""
