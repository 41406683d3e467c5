"""Faster R-CNN and Mask R-CNN against published counts and the papers' rules."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.nets import FasterRCNN, MaskRCNN, ResNet
from lightning_modules.nets.boxes import iou
from lightning_modules.nets.fpn import FPN
from lightning_modules.nets.frozen_norm import FrozenBatchNorm2d, freeze_norms
from lightning_modules.nets.rpn import RPN, label_anchors

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "fpn": {"pyramid": 16, "stages": 3, "sides": (16, 32, 64, 128), "head_channels": 32, "canonical_side": 112},
    "c4": {"pyramid": None, "sides": (16, 32, 64)},
    "c4_pool7": {"pyramid": None, "sides": (16, 32, 64), "head_pool": 7},
}  # fmt: skip


def small(form: str, family: type[FasterRCNN] = MaskRCNN, num_classes: int = 7, **arguments: object) -> FasterRCNN:
    torch.manual_seed(0)
    backbone = ResNet(18, block="basic", base_channels=8, in_channels=1, num_classes=2)
    own = {"mask_channels": 16, "mask_convs": 2} if family is MaskRCNN else {}
    limits = {"regions_per_image": 32, "anchors_per_image": 64, "pre_nms": (100, 100), "post_nms": (60, 40)}
    others = {"frozen_norm": False, "freeze_at": 0, **SMALL[form], **limits, **own, **arguments}
    return family(backbone, num_classes, **others)  # type: ignore[arg-type]


def targets_of_two_images(side: int = 96) -> list[dict[str, Tensor]]:
    """One image with two objects, one with none."""
    masks = torch.zeros(2, side, side, dtype=torch.uint8)
    masks[0, 10:50, 12:40] = 1
    masks[1, 40:90, 50:88] = 1
    boxes = torch.tensor([[12.0, 10, 40, 50], [50, 40, 88, 90]])
    common = {"size": torch.tensor([side, side]), "scale": torch.ones(2)}
    return [
        {"boxes": boxes, "labels": torch.tensor([0, 6]), "masks": masks, **common},
        {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0], **common},
    ]


def generators(count: int = 2) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(image) for image in range(count)]


@pytest.mark.parametrize(
    ("family", "params"),
    # torchvision's metadata of fasterrcnn_resnet50_fpn and maskrcnn_resnet50_fpn, 90 classes and the background.
    [(FasterRCNN, 41_755_286), (MaskRCNN, 44_401_393)],
)
def test_parameters_are_those_that_torchvision_publishes(family, params):
    with torch.device("meta"):
        net = family(ResNet(50), 90, release="torchvision")
    assert sum(parameter.numel() for parameter in net.parameters()) == params


@pytest.mark.parametrize("form", [{}, {"pyramid": None}])
def test_the_backbone_keeps_its_own_weights_names(form):
    with torch.device("meta"):
        own = ResNet(50).state_dict()
        net = MaskRCNN(ResNet(50), 80, **form)
    names = net.state_dict().keys()
    taken = {name.removeprefix("backbone.") for name in names if name.startswith("backbone.")}
    taken |= {name.replace("res5.", "stages.3.") for name in names if name.startswith("res5.")}
    assert taken == {name for name in own if not name.startswith("classifier.")}


def test_frozen_normalisation_is_the_evaluated_one_and_has_its_state():
    torch.manual_seed(0)
    net = ResNet(18, block="basic", base_channels=8, in_channels=1, num_classes=3)
    net(torch.randn(4, 1, 64, 64))  # statistics of its own
    frozen = copy.deepcopy(net)
    freeze_norms(frozen)
    images = torch.randn(2, 1, 64, 64)
    assert torch.equal(frozen.train()(images), net.eval()(images))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules()) == 20
    state = frozen.state_dict()
    assert list(state) == list(net.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    learned = {name for name, _ in frozen.named_parameters()}
    assert all(name.endswith("weight") or name.startswith("classifier") for name in learned)


@pytest.mark.parametrize("form", SMALL)
@pytest.mark.parametrize("family", [FasterRCNN, MaskRCNN])
def test_every_parameter_learns_from_objects_and_from_images_without(form, family):
    net = small(form, family)
    images = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    for targets in (targets_of_two_images(), targets_of_two_images()[1:] * 2):
        net.zero_grad()
        losses, counts = net.losses(images, targets, generators())
        expected = {"rpn_cls", "rpn_reg", "box_cls", "box_reg"} | ({"mask"} if family is MaskRCNN else set())
        assert set(losses) == expected and all(values.shape == (2,) for values in losses.values())
        assert all(float(losses[name][1].detach()) == 0 for name in expected - {"rpn_cls", "box_cls"})
        total = torch.stack(list(losses.values())).sum()
        assert total.isfinite()
        total.backward()
        assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
        assert 0 < counts["regions"] <= 64
        assert bool(counts["positives"]) == bool(len(targets[0]["boxes"]))


@pytest.mark.parametrize("form", ["fpn", "c4"])
def test_an_image_has_the_losses_that_it_has_alone(form):
    """Nothing of an image's loss depends on the others, so a batch may be split over processes."""
    net = small(form).eval()  # batch normalisation would mix them
    images, targets = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1)), targets_of_two_images()
    together, _ = net.losses(images, targets, generators())
    for image in range(2):
        alone, _ = net.losses(images[image : image + 1], targets[image : image + 1], generators()[image : image + 1])
        for name, values in together.items():
            assert float(values[image].detach()) == pytest.approx(float(alone[name][0].detach()), rel=1e-4, abs=1e-6), (
                name
            )


def test_what_is_frozen_has_no_gradient():
    net = small("fpn", frozen_norm=True, freeze_at=2)
    losses, _ = net.losses(torch.randn(2, 1, 96, 96), targets_of_two_images(), generators())
    torch.stack(list(losses.values())).sum().backward()
    without = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert without == {n for n, _ in net.named_parameters() if n.startswith(("backbone.stem", "backbone.stages.0"))}


@pytest.mark.parametrize("freeze_at", [1, 2])
def test_what_is_frozen_stays_as_it_is_where_the_rest_learns_its_normalisation(freeze_at):
    net = small("fpn", frozen_norm=False, freeze_at=freeze_at).train()
    parts = [net.backbone.stem, *net.backbone.stages]
    before = copy.deepcopy([part.state_dict() for part in parts])
    images = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1)) * 3 + 1
    net.dense(images)
    changed = [
        any(not torch.equal(value, state[name]) for name, value in part.state_dict().items())
        for part, state in zip(parts, before, strict=True)
    ]
    assert changed == [place >= freeze_at for place in range(len(parts))]
    frozen = nn.Sequential(*parts[:freeze_at])  # an image comes out as it does alone, in evaluation
    together, alone = frozen(images)[:1], frozen.eval()(images[:1])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("shortcut", ["A", "B", "C", "none"])
def test_res5_of_regions_of_seven_pixels_keeps_every_pixel(shortcut):
    backbone = ResNet(18, block="basic", base_channels=8, shortcut=shortcut)
    net = FasterRCNN(backbone, 2, pyramid=None, sides=(16, 32), head_pool=7, frozen_norm=False, freeze_at=0).eval()
    regions = torch.randn(3, 32, 7, 7, generator=torch.Generator().manual_seed(1))
    assert net.res5(regions).shape == (3, 64, 7, 7)
    if shortcut == "A":  # the identity, with zeros for new channels, where the residual paths add nothing
        for block in net.res5:
            nn.init.zeros_(block.residual[-1].weight)
        assert torch.equal(net.res5(regions), torch.cat([regions, torch.zeros_like(regions)], dim=1).relu())


@pytest.mark.parametrize("form", SMALL)
def test_detections_are_within_the_image_by_falling_score(form):
    net = small(form).eval()
    sizes = torch.tensor([[96, 80], [64, 96]])
    with torch.no_grad():
        net.box_head.cls.bias[0] = -5  # so that an untrained network finds something
        net.box_head.reg.weight.mul_(30)
        detections = net(torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(3)), sizes)
    side = 28 if form == "fpn" else 14
    for detection, (height, width) in zip(detections, sizes.tolist(), strict=True):
        boxes, scores = detection["boxes"], detection["scores"]
        assert 0 < len(boxes) <= 100 and detection["masks"].shape == (len(boxes), side, side)
        assert bool((boxes[:, :2] >= 0).all()) and bool((boxes[:, 2:] <= torch.tensor([width, height])).all())
        assert bool((scores[:-1] >= scores[1:]).all()) and float(scores.min()) > 0.05
        assert set(detection["labels"].tolist()) <= set(range(7))
        assert float(detection["masks"].min()) >= 0 and float(detection["masks"].max()) <= 1


@pytest.mark.slow
def test_a_detector_learns_an_image_by_heart():
    """All parts of the loss together: 120 steps find both objects and their masks."""
    net = small("fpn", num_classes=7)
    target = targets_of_two_images()[0]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 96, 96, generator=generator) * 0.1
    for box, label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
        image[0, 0, box[1] : box[3], box[0] : box[2]] += 1 + label / 6
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(120):
        losses, _ = net.losses(image, [target], [generator])
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        (detection,) = net.eval()(image)
    assert set(detection["labels"][:2].tolist()) == {0, 6}
    order = detection["labels"][:2].argsort()
    assert float(iou(detection["boxes"][:2][order], target["boxes"]).diag().min()) > 0.7
    assert float(detection["masks"][:2].mean()) > 0.7  # the objects fill their boxes


def test_the_pyramid_is_the_papers_sum():
    """Lin et al. 2017, §3: P = 3x3(lateral(C) + upsampled coarser sum); the extra level is the coarsest subsampled."""
    torch.manual_seed(0)
    fpn = FPN([4, 6, 8], 5)
    c2, c3, c4 = (torch.randn(1, channels, side, side) for channels, side in ((4, 16), (6, 8), (8, 4)))
    m4 = fpn.lateral[2](c4)
    m3 = fpn.lateral[1](c3) + m4.repeat_interleave(2, -1).repeat_interleave(2, -2)
    m2 = fpn.lateral[0](c2) + m3.repeat_interleave(2, -1).repeat_interleave(2, -2)
    levels = fpn([c2, c3, c4])
    expected = [fpn.output[0](m2), fpn.output[1](m3), fpn.output[2](m4)]
    for level, wanted in zip(levels, [*expected, expected[-1][:, :, ::2, ::2]], strict=True):
        assert torch.allclose(level, wanted, atol=1e-6)


def rpn(centred: bool = True) -> RPN:
    return RPN(4, [4], [[16, 32]], [0.5, 1, 2], (100, 100), (50, 50), 64, centred, rounded=not centred)


def test_anchors_have_their_area_ratio_and_place():
    (anchors,) = rpn().anchors([torch.zeros(1, 4, 3, 5)])
    assert anchors.shape == (3 * 5 * 6, 4)
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    assert torch.allclose(width * height, torch.tensor([16.0**2, 32**2]).repeat(45))
    assert torch.allclose((height / width).view(15, 3, 2), torch.tensor([0.5, 1, 2]).view(1, 3, 1).expand(15, 3, 2))
    centres = ((anchors[:, 2:] + anchors[:, :2]) / 2).view(3, 5, 6, 2)
    assert torch.allclose(centres[2, 4], torch.tensor([18.0, 10]).expand(6, 2))
    # torchvision's AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),)), cell 0: whole pixels about the corner.
    (corner,) = rpn(centred=False).anchors([torch.zeros(1, 4, 1, 1)])
    assert corner[[0, 1, 2, 5]].tolist() == [[-11, -6, 11, 6], [-23, -11, 23, 11], [-8, -8, 8, 8], [-11, -23, 11, 23]]


def test_labels_of_anchors_follow_the_papers_rule():
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 60]])
    anchors = torch.tensor([
        [0.0, 0, 10, 10],    # 1
        [0, 0, 10, 8],       # 0.8: positive
        [0, 0, 10, 5],       # 0.5: ignored
        [0, 0, 10, 2],       # 0.2: negative
        [40, 40, 60, 50],    # 0.5, the most that the second box has: positive
        [40, 50, 60, 60],    # as much: positive
        [90, 90, 99, 99],    # none
    ])  # fmt: skip
    labels, matches = label_anchors(anchors, boxes)
    assert labels.tolist() == [1, 1, -1, 0, 1, 1, 0]
    assert matches[[0, 1, 4, 5]].tolist() == [0, 0, 1, 1]
    assert label_anchors(anchors, boxes[:0])[0].tolist() == [0] * 7


def test_proposals_of_a_network_that_has_diverged_are_none():
    net = rpn()
    scores, deltas = [torch.full((1, 90), torch.nan)], [torch.full((1, 90, 4), torch.nan)]
    (proposals,) = net.proposals(scores, deltas, net.anchors([torch.zeros(1, 4, 3, 5)]), torch.tensor([[12, 20]]))
    assert len(proposals) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "without the background"),
        ({"sides": (16, 32)}, "each of the 4 maps"),
        ({"stages": 5}, "stages is 2 to 4"),
        ({"freeze_at": 3}, "freeze_at is 0"),
        ({"frozen_norm": "no"}, "frozen_norm is true .* or false, got 'no'"),
        ({"num_classes": "abc"}, "without the background: at least 1, got 'abc'"),
        ({"stages": "abc"}, "stages must be an integer of at least 1, got 'abc'"),
        ({"pyramid": 0}, "pyramid must be an integer of at least 1, got 0"),
        ({"head_channels": None}, "head_channels must be an integer"),
        ({"regions_per_image": 1.5}, "regions_per_image must be an integer"),
        ({"anchors_per_image": [1]}, "anchors_per_image must be an integer"),
        ({"sides": None}, "sides must be a list of positive numbers, got None"),
        ({"sides": (16, 32, 64, "a")}, "sides must be a list of positive numbers"),
        ({"pre_nms": (100, 1.5)}, "pre_nms must be a list of positive whole numbers"),
        ({"post_nms": (100,)}, "pre_nms and post_nms are two numbers"),
        ({"canonical_side": "abc"}, "canonical_side must be a positive number of pixels, got 'abc'"),
        ({"canonical_side": float("nan")}, "canonical_side must be a positive number of pixels, got nan"),
        ({"mask_channels": None}, "mask_channels must be an integer of at least 1"),
        ({"mask_convs": -1}, "mask_convs must be an integer of at least 0"),
        ({"head_pool": 9}, "head_pool is 7 or 14"),
        ({"release": "detectron"}, "release is null, 'torchvision' or 'detectron2'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small("fpn", **arguments)


def test_an_image_that_the_last_map_would_not_see_is_refused():
    net = small("fpn")
    net.check_image_size(16, 16)
    with pytest.raises(ValueError, match="the smallest is 16x16"):
        net.check_image_size(16, 15)
    with pytest.raises(ValueError, match="needs the 4 stages"):
        MaskRCNN(ResNet(20, block="basic", stem="cifar"), 3, pyramid=None)


@pytest.mark.parametrize("form", ["fpn", "c4"])
def test_a_backbone_begins_with_the_weights_of_a_classifier(form):
    torch.manual_seed(5)
    classifier = ResNet(18, block="basic", base_channels=8, in_channels=1, num_classes=3)
    classifier(torch.randn(4, 1, 64, 64))  # statistics of its own
    net = small(form, frozen_norm=True)
    net.load_backbone(classifier.state_dict())
    images = torch.randn(2, 1, 64, 64)
    classifier.eval()
    maps = classifier.stages[:3](classifier.stem(images))
    assert torch.equal(net.backbone(images)[2], maps)
    if net.res5 is not None:
        assert torch.equal(net.res5(maps), classifier.stages[3](maps))
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_backbone({})
