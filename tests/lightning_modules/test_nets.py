"""The networks against the papers' equations, figures and rules."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules.nets import DenseNet, ResNet, UNet
from lightning_modules.nets.densenet import DenseBlock, DenseLayer
from lightning_modules.nets.resnet import BasicBlock, Bottleneck, ZeroPadShortcut

pytestmark = pytest.mark.usefixtures("one_thread")


# One small network of every kind, with an image it takes: 7 classes, so that no class count can be hard-coded.
SMALL = {
    "resnet_basic_a": (
        lambda: ResNet(8, block="basic", base_channels=8, stem="cifar", shortcut="A", num_classes=7),
        (3, 32, 32),
    ),
    "resnet_basic_b": (lambda: ResNet(8, block="basic", base_channels=8, stem="cifar", num_classes=7), (3, 32, 32)),
    "resnet_bottleneck_1x1": (
        lambda: ResNet(11, base_channels=8, stem="cifar", stride_in="1x1", num_classes=7),
        (3, 32, 32),
    ),
    "resnet_bottleneck_a": (
        lambda: ResNet(11, base_channels=8, stem="cifar", shortcut="A", num_classes=7),
        (3, 32, 32),
    ),
    "resnet_basic_c": (
        lambda: ResNet(8, block="basic", base_channels=8, stem="cifar", shortcut="C", num_classes=7),
        (3, 32, 32),
    ),
    "plain_basic": (
        lambda: ResNet(8, block="basic", base_channels=8, stem="cifar", shortcut="none", num_classes=7),
        (3, 32, 32),
    ),
    "plain_bottleneck": (
        lambda: ResNet(11, base_channels=8, stem="cifar", shortcut="none", num_classes=7),
        (3, 32, 32),
    ),
    "resnet_imagenet": (lambda: ResNet(18, block="basic", base_channels=8, num_classes=7), (3, 64, 64)),
    "resnext": (
        lambda: ResNet(11, cardinality=8, base_width=2, base_channels=8, in_channels=1, stem="cifar", num_classes=7),
        (1, 8, 8),
    ),
    "resnext_imagenet": (lambda: ResNet(50, cardinality=4, base_width=2, base_channels=8, num_classes=7), (3, 64, 64)),
    "densenet": (lambda: DenseNet(10, 6, stem="cifar", num_classes=7), (3, 32, 32)),
    "densenet_b": (lambda: DenseNet(16, 6, bottleneck=True, stem="cifar", num_classes=7), (3, 32, 32)),
    "densenet_c": (lambda: DenseNet(10, 6, compression=0.5, dropout=0.2, stem="cifar", num_classes=7), (3, 32, 32)),
    "densenet_bc": (
        lambda: DenseNet(16, 6, bottleneck=True, compression=0.5, in_channels=1, stem="cifar", num_classes=7),
        (1, 8, 8),
    ),
    "densenet_imagenet": (lambda: DenseNet(121, 4, bottleneck=True, compression=0.5, num_classes=7), (3, 64, 64)),
    "unet": (lambda: UNet(1, 7, base_channels=4), (1, 188, 188)),
    "unet_padded": (lambda: UNet(3, 7, base_channels=4, depth=2, padded=True, dropout=0.5), (3, 24, 16)),
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_have_the_shape_asked_for_and_every_parameter_a_gradient(name):
    torch.manual_seed(0)
    build, size = SMALL[name]
    net = build()
    net.check_image_size(*size[1:])
    logits = net(torch.randn(2, *size))
    spatial = net.output_size(*size[1:]) if isinstance(net, UNet) else ()
    assert logits.shape == (2, 7, *spatial)
    logits.square().sum().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def randomise_norms(module: nn.Module) -> None:
    """Running statistics and affine parameters as after training, so that a misplaced normalisation shows."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)


def normalise(x, norm, channels=slice(None)):
    return F.batch_norm(
        x,
        norm.running_mean[channels],
        norm.running_var[channels],
        norm.weight[channels],
        norm.bias[channels],
        eps=norm.eps,
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_the_three_forms_of_resnext_figure_3_agree(stride):
    torch.manual_seed(0)
    cardinality, base_width = 8, 4
    block = Bottleneck(48, cardinality * base_width, 64, cardinality, stride, "3x3", "B").double().eval()
    randomise_norms(block)
    x = torch.randn(2, 48, 9, 9, dtype=torch.float64)
    conv1, norm1, _, conv2, norm2, _, conv3, norm3 = block.residual

    form_a = 0  # C paths of 1x1 to d, 3x3 to d, 1x1 to 64, summed
    paths = []
    for group in range(cardinality):
        own = slice(group * base_width, (group + 1) * base_width)
        path = F.relu(normalise(F.conv2d(x, conv1.weight[own]), norm1, own))
        path = F.relu(normalise(F.conv2d(path, conv2.weight[own], stride=stride, padding=1), norm2, own))
        paths.append(path)
        form_a = form_a + F.conv2d(path, conv3.weight[:, own])
    form_b = F.conv2d(torch.cat(paths, 1), conv3.weight)  # the paths concatenated, one 1x1
    for form in (form_a, form_b):
        torch.testing.assert_close(F.relu(normalise(form, norm3) + block.shortcut(x)), block(x))


def test_basic_block_is_equation_1_of_he_et_al():
    torch.manual_seed(0)
    block = BasicBlock(8, 8, 1, "A").double().eval()
    randomise_norms(block)
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    conv1, norm1, _, conv2, norm2 = block.residual
    inner = F.relu(normalise(F.conv2d(x, conv1.weight, padding=1), norm1))
    outer = normalise(F.conv2d(inner, conv2.weight, padding=1), norm2)
    torch.testing.assert_close(block(x), F.relu(outer + x))


def test_option_a_subsamples_pads_with_zeros_and_has_no_parameters():
    shortcut = ZeroPadShortcut(4, 2)
    x = torch.randn(2, 4, 6, 6)
    y = shortcut(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert not y[:, 4:].any()
    net = ResNet(20, block="basic", base_channels=16, stem="cifar", shortcut="A", num_classes=10)
    assert not [name for name, _ in net.named_parameters() if "shortcut" in name]
    projected = ResNet(20, block="basic", base_channels=16, stem="cifar", shortcut="B", num_classes=10)
    # Two projections, 16 to 32 and 32 to 64, with their normalisations.
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert count(projected) - count(net) == extra


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_option_c_is_a_projection_in_every_block():
    nets = {option: ResNet(20, block="basic", base_channels=16, stem="cifar", shortcut=option) for option in "BC"}
    # Of the 9 blocks, those that change the shape have projections in both; C adds 3 of 16 to 16, 2 of 32 to 32 and 2 of 64 to
    # 64 channels, with their normalisations.
    extra = 3 * (16 * 16 + 2 * 16) + 2 * (32 * 32 + 2 * 32) + 2 * (64 * 64 + 2 * 64)
    assert count(nets["C"]) - count(nets["B"]) == extra
    torch.manual_seed(0)
    block = BasicBlock(8, 8, 1, "C").double().eval()
    randomise_norms(block)
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    conv, norm = block.shortcut
    projected = normalise(F.conv2d(x, conv.weight), norm)
    torch.testing.assert_close(block(x), F.relu(block.residual(x) + projected))
    assert not torch.allclose(block(x), F.relu(block.residual(x) + x))


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 20, "block": "basic", "base_channels": 4},
        {"depth": 29, "cardinality": 4, "base_width": 2, "base_channels": 4},
    ],
)
def test_without_shortcuts_a_network_is_its_residual_paths_one_after_the_other(arguments):
    torch.manual_seed(0)
    net = ResNet(**arguments, stem="cifar", shortcut="none", num_classes=7).double().eval()
    randomise_norms(net)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    plain = nn.Sequential(*[nn.Sequential(block.residual, nn.ReLU()) for stage in net.stages for block in stage])
    torch.testing.assert_close(net(x), net.classifier(net.pool(plain(net.stem(x)))), rtol=0, atol=0)
    # The shortcuts of option A are free of parameters: their network has the same weights, and another output.
    residual = ResNet(**arguments, stem="cifar", shortcut="A", num_classes=7).double().eval()
    residual.load_state_dict(net.state_dict())
    assert count(net) == count(residual)
    assert not torch.allclose(net(x), residual(x))


@pytest.mark.parametrize(("stride_in", "expected"), [("1x1", ["2x2", "1x1", "1x1"]), ("3x3", ["1x1", "2x2", "1x1"])])
def test_stride_sits_where_the_paper_puts_it(stride_in, expected):
    net = ResNet(50, base_channels=4, stride_in=stride_in, num_classes=7)
    for stage, blocks in enumerate(net.stages):
        for index, block in enumerate(blocks):
            strides = ["{}x{}".format(*m.stride) for m in block.residual if isinstance(m, nn.Conv2d)]
            assert strides == (expected if stage > 0 and index == 0 else ["1x1"] * 3)


def test_widths_of_resnext50_are_those_of_table_1():
    with torch.device("meta"):
        net = ResNet(50, cardinality=32, base_width=4)
    assert [len(stage) for stage in net.stages] == [3, 4, 6, 3]
    inner = [block.residual[3] for block in (stage[0] for stage in net.stages)]
    assert [(conv.in_channels, conv.out_channels, conv.groups) for conv in inner] == [
        (128, 128, 32), (256, 256, 32), (512, 512, 32), (1024, 1024, 32)
    ]  # fmt: skip
    assert [stage[-1].residual[6].out_channels for stage in net.stages] == [256, 512, 1024, 2048]


@pytest.mark.parametrize(("stem", "size", "maps"), [("imagenet", 224, [56, 28, 14, 7]), ("cifar", 32, [32, 16, 8])])
def test_maps_of_the_stages_are_those_of_the_papers(stem, size, maps):
    with torch.device("meta"):
        image = torch.empty(1, 3, size, size)
        resnet = ResNet(50 if stem == "imagenet" else 29, stem=stem)
        densenet = DenseNet(121 if stem == "imagenet" else 40, 12, bottleneck=True, compression=0.5, stem=stem)
        seen = []
        for stage in resnet.stages:
            stage.register_forward_hook(lambda *call: seen.append(call[2].shape[-1]))
        resnet(image)
        assert seen == maps
        seen.clear()
        for dense_block in densenet.stages[::2]:
            dense_block.register_forward_hook(lambda *call: seen.append(call[2].shape[-1]))
        densenet(image)
        assert seen == maps


@pytest.mark.parametrize("bottleneck", [False, True])
def test_dense_block_is_equation_2_of_huang_et_al(bottleneck):
    torch.manual_seed(0)
    block = DenseBlock(*[DenseLayer(10 + 6 * i, 6, bottleneck, 0.0) for i in range(4)]).double().eval()
    randomise_norms(block)
    features = [torch.randn(2, 10, 8, 8, dtype=torch.float64)]
    for layer in block:
        norms = [m for m in layer.composite if isinstance(m, nn.BatchNorm2d)]
        convs = [m for m in layer.composite if isinstance(m, nn.Conv2d)]
        h = torch.cat(features, 1)
        for norm, conv in zip(norms, convs, strict=True):
            h = F.conv2d(F.relu(normalise(h, norm)), conv.weight, padding=conv.weight.shape[-1] // 2)
        assert h.shape[1] == 6
        features.append(h)
    torch.testing.assert_close(block(features[0]), torch.cat(features, 1))
    if bottleneck:
        assert [m.out_channels for m in block[0].composite if isinstance(m, nn.Conv2d)] == [24, 6]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"depth": 40, "stem": "cifar"}, 16),
        ({"depth": 40, "stem": "cifar", "compression": 0.5}, 16),
        ({"depth": 40, "stem": "cifar", "bottleneck": True}, 16),
        ({"depth": 40, "stem": "cifar", "bottleneck": True, "compression": 0.5}, 24),
        ({"depth": 121, "bottleneck": True, "compression": 0.5}, 24),
        ({"depth": 40, "stem": "cifar", "initial_channels": 5}, 5),
    ],
)
def test_first_convolution_of_densenet_has_the_papers_channels(arguments, expected):
    assert DenseNet(growth_rate=12, **arguments).stem[0].out_channels == expected


def test_transition_keeps_floor_theta_m_maps():
    net = DenseNet(10, 5, compression=0.5, stem="cifar", num_classes=7)  # 16 + 2 * 5 = 26 -> 13; 13 + 2 * 5 = 23 -> 11
    convs = [net.stages[index][2] for index in (1, 3)]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(26, 13), (23, 11)]
    assert net.classifier.in_features == 21


def test_dropout_of_densenet_follows_every_convolution_but_the_first():
    net = DenseNet(40, 12, bottleneck=True, compression=0.5, dropout=0.2, stem="cifar", num_classes=10)
    order = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Dropout)]
    assert isinstance(order[0], nn.Conv2d)
    assert [type(m) for m in order[1:]] == [nn.Conv2d, nn.Dropout] * 38
    assert {m.p for m in order if isinstance(m, nn.Dropout)} == {0.2}


def test_unet_maps_are_those_of_figure_1():
    # 572 570 568 | 284 282 280 | ... | 392 390 388: what each pooling, convolution and up-convolution leaves.
    expected = [570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28]
    expected += [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388]
    with torch.device("meta"):
        net = UNet()
        seen = []
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
                module.register_forward_hook(lambda *call: seen.append(call[2].shape[-1]))
        assert net(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert seen == expected
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convs) == 23
    assert [level[2].out_channels for level in net.contracting] + [net.bottom[2].out_channels] == [
        64,
        128,
        256,
        512,
        1024,
    ]
    assert [level[2].out_channels for level in net.expanding] == [512, 256, 128, 64]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_unet_accepts_the_sides_that_every_pooling_halves_evenly(depth, padded):
    net = UNet(base_channels=1, depth=depth, padded=padded)
    change = 0 if padded else -4

    def trace(side: int) -> int | None:
        """Output side, or None where a pooling meets an odd side or nothing is left (papers' rule, step by step)."""
        for _ in range(depth):
            side += change
            if side < 2 or side % 2:
                return None
            side //= 2
        side += change
        for _ in range(depth):
            side = 2 * side + change
        return side if side > 0 else None

    accepted = 0
    for side in range(1, 260):
        expected = trace(side)
        if expected is None:
            with pytest.raises(ValueError, match="legal sides nearest"):
                net.check_image_size(side, side)
        else:
            accepted += 1
            assert net.output_size(side, side) == (expected, expected)
    assert accepted > 3
    legal = next(side for side in range(1, 260) if trace(side))
    with torch.no_grad():
        assert net(torch.zeros(1, 1, legal, legal + 2**depth)).shape[-2:] == net.output_size(legal, legal + 2**depth)


def test_unpadded_unet_centres_its_output_on_the_input():
    # Mirroring the image mirrors a network whose kernels are symmetric, only if every crop is central.
    net = UNet(base_channels=2, depth=3).double().eval()
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data + parameter.data.flip(-1)
    side = 8 * 20 - 4
    x = torch.randn(1, 1, side, side, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x.flip(-1)), net(x).flip(-1))


@pytest.mark.parametrize(
    ("padded", "size", "nearest"),
    [
        (False, (512, 572), "508 and 524"),
        (False, (572, 573), "572 and 588"),
        (False, (100, 100), "188 and 204"),
        (True, (572, 512), "560 and 576"),
        (True, (8, 16), "16 and 32"),
    ],
)
def test_unet_names_the_two_nearest_legal_sides(padded, size, nearest):
    with pytest.raises(ValueError, match=f"nearest to .* are {nearest}$"):
        UNet(base_channels=1, padded=padded).check_image_size(*size)
    assert UNet().output_size(572, 572) == (388, 388)


def test_dropout_of_unet_ends_the_contracting_path():
    net = UNet(base_channels=2, dropout=0.5)
    places = [name for name, m in net.named_modules() if isinstance(m, nn.Dropout)]
    assert places == ["contracting.3.4", "bottom.4"]
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.5}


@pytest.mark.parametrize(
    ("net", "smallest"),
    [
        (ResNet(8, block="basic", base_channels=2, stem="cifar"), 4),
        (ResNet(18, block="basic", base_channels=2), 32),
        (DenseNet(10, 2, stem="cifar"), 4),
        (DenseNet(121, 2, bottleneck=True), 32),
    ],
)
def test_too_small_an_image_is_refused(net, smallest):
    net.check_image_size(smallest, smallest)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises(ValueError, match=f"the smallest is {smallest}x{smallest}"):
            net.check_image_size(*size)


def test_initialisation_is_the_papers():
    torch.manual_seed(0)
    for net in (ResNet(50, cardinality=32, base_width=4), DenseNet(121, 32, bottleneck=True, compression=0.5)):
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is None
                if module.weight.numel() > 20_000:
                    std = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
                    assert module.weight.std().item() == pytest.approx(std, rel=0.03)
            elif isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and (module.bias == 0).all()
        assert (net.classifier.bias == 0).all()
    for module in UNet().modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert (module.bias == 0).all()
            if module.weight.numel() > 20_000:
                taps = 1 if isinstance(module, nn.ConvTranspose2d) else module.kernel_size[0] ** 2
                std = math.sqrt(2 / (taps * module.in_channels))
                assert module.weight.std().item() == pytest.approx(std, rel=0.03)


IMPOSSIBLE = [
    (ResNet, {"depth": 30, "stem": "cifar"}, r"depth 9n\+2 \(29, 47, 164…\), got 30"),
    (ResNet, {"depth": 2, "stem": "cifar"}, r"depth 9n\+2"),
    (ResNet, {"depth": 29, "stem": "cifar", "block": "basic"}, r"depth 6n\+2 \(20, 32, 44, 56, 110…\), got 29"),
    (ResNet, {"depth": 34}, "depth 50, 101, 152, 200, got 34; 34 is a depth of block='basic'"),
    (ResNet, {"depth": 51}, "depth 50, 101, 152, 200, got 51$"),
    (ResNet, {"depth": 50, "block": "basic"}, "depth 18, 34, got 50"),
    (ResNet, {"depth": 50.0}, "depth must be an integer"),
    (ResNet, {"depth": 50, "cardinality": 0}, "cardinality must be an integer of at least 1, got 0"),
    (ResNet, {"depth": 50, "cardinality": 2.0, "base_width": 4}, "cardinality must be an integer"),
    (ResNet, {"depth": 50, "cardinality": True}, "cardinality must be an integer"),
    (
        ResNet,
        {"depth": 50, "cardinality": 32, "base_width": 3.125},
        r"of one of the 32 groups \(inner width / cardinality\)",
    ),
    (ResNet, {"depth": 50, "cardinality": 32, "base_width": 0}, "base_width must be an integer of at least 1"),
    (ResNet, {"depth": 18, "block": "basic", "cardinality": 32}, "a basic block has cardinality 1"),
    (ResNet, {"depth": 18, "block": "basic", "base_width": 64}, "no base_width"),
    (ResNet, {"depth": 18, "block": "basic", "stride_in": "1x1"}, "stride_in must be '3x3'"),
    (ResNet, {"depth": 50, "block": "preact"}, "block is 'basic' or 'bottleneck', got 'preact'"),
    (ResNet, {"depth": 50, "stem": "mnist"}, "stem is 'imagenet' or 'cifar', got 'mnist'"),
    (ResNet, {"depth": 50, "shortcut": "D"}, "shortcut is 'A' or 'B' or 'C' or 'none', got 'D'"),
    (ResNet, {"depth": 50, "stride_in": "7x7"}, "stride_in is '1x1' or '3x3'"),
    (ResNet, {"depth": 50, "base_channels": -1}, "base_channels must be"),
    (ResNet, {"depth": 50, "num_classes": 0}, "num_classes must be an integer of at least 1, got 0"),
    (ResNet, {"depth": 50, "in_channels": 0}, "in_channels must be"),
    (DenseNet, {"depth": 41, "growth_rate": 12, "stem": "cifar"}, r"depth 3n\+4 \(40, 100…\), got 41"),
    (DenseNet, {"depth": 4, "growth_rate": 12, "stem": "cifar"}, r"depth 3n\+4"),
    (DenseNet, {"depth": 43, "growth_rate": 12, "stem": "cifar", "bottleneck": True}, r"depth 6n\+4"),
    (DenseNet, {"depth": 100, "growth_rate": 12, "bottleneck": True}, "depth 121, 161, 169, 201, 264, got 100"),
    (DenseNet, {"depth": 121, "growth_rate": 32}, "bottleneck must be true"),
    (DenseNet, {"depth": 40, "growth_rate": 0, "stem": "cifar"}, "growth_rate must be"),
    (DenseNet, {"depth": 121, "growth_rate": None, "bottleneck": True}, "growth_rate must be .* got None"),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "svhn"}, "stem is 'imagenet' or 'cifar'"),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "cifar", "bottleneck": 4}, "bottleneck is true"),
    (
        DenseNet,
        {"depth": 40, "growth_rate": 12, "stem": "cifar", "compression": 0},
        r"compression \(θ\) must be in \(0, 1\]",
    ),
    (
        DenseNet,
        {"depth": 40, "growth_rate": 12, "stem": "cifar", "compression": 1.5},
        r"compression \(θ\) must be in \(0, 1\]",
    ),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "cifar", "compression": 0.001}, "leaves none of 160 maps"),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "cifar", "dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "cifar", "dropout": -0.1}, r"dropout must be in \[0, 1\)"),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "cifar", "initial_channels": 0}, "initial_channels must be"),
    (DenseNet, {"depth": 40, "growth_rate": 12, "stem": "cifar", "num_classes": 0}, "num_classes must be"),
    (UNet, {"depth": 0}, "depth must be an integer of at least 1"),
    (UNet, {"base_channels": 0}, "base_channels must be"),
    (UNet, {"num_classes": 0}, "num_classes must be"),
    (UNet, {"dropout": 1}, r"dropout must be in \[0, 1\)"),
    (UNet, {"padded": 1}, "padded is true"),
    (UNet, {"release": "no"}, "release is true"),
]


@pytest.mark.parametrize(("net", "arguments", "message"), IMPOSSIBLE)
def test_impossible_values_fail_at_construction_and_say_what_would_be_right(net, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        net(**arguments)
    assert "\n" not in str(error.value)
