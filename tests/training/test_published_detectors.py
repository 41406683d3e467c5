"""Published detectors: torchvision's own figures (``support/torchvision_detector.json``), and detectron2's layout as its source
has it (modeling/backbone/resnet.py and fpn.py, proposal_generator/rpn.py, roi_heads/)."""

import hashlib
import json
import math
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from support import torchvision_detector as theirs
from torch import Tensor

from benchmarks.__main__ import main
from benchmarks.config.compose import expand_all
from benchmarks.training.torchvision_weights import from_published
from benchmarks.training.weights import Weights
from lightning_modules.nets.heads import mask_targets
from lightning_modules.nets.roi_align import roi_align
from lightning_modules.nets.rpn import label_anchors
from lightning_modules.nets.sampling import IGNORED

pytestmark = pytest.mark.usefixtures("one_thread")
MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)[:, :, None, None]
NAME = "maskrcnn_resnet50_fpn"


@cache
def expected() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(theirs.EXPECTED.read_text())
    return result


def batch_of(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Normalised images, float64, padded to a multiple of 32, and their sizes."""
    sizes = torch.tensor([list(image.shape[1:]) for image in images])
    height, width = (-(-int(side) // 32) * 32 for side in sizes.max(dim=0).values)
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    for row, image in enumerate(images):
        batch[row, :, : image.shape[1], : image.shape[2]] = (image.double() - MEAN) / STD
    return batch, sizes


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path = tmp_path_factory.mktemp("published") / f"{NAME}.pth"
    torch.save(theirs.weights(expected()["shapes"]), path)
    return from_published(path, NAME)


@pytest.mark.slow
def test_mask_rcnn_finds_what_torchvisions_own_finds(weights: Weights) -> None:
    """Proposals, logits, detections and masks of five images in two batches, to 1e-4: ours rounds boxes to float32."""
    net = instantiate(weights.network, post_nms=(theirs.PROPOSALS, theirs.PROPOSALS))
    weights.load_into(net)
    net.double().eval()
    outputs: dict[str, list[Any]] = {"proposals": [], "heads": []}
    net.pooling.register_forward_hook(lambda module, arguments, output: outputs["proposals"].append(arguments[1]))
    net.box_head.register_forward_hook(lambda module, arguments, output: outputs["heads"].append(output))
    figures = iter(expected()["detections"])
    for images in theirs.images():
        with torch.no_grad():
            detections = net(*batch_of(images))
        proposals = outputs["proposals"][-2]  # the last are the boxes of masks
        logits, deltas = (output.split([len(boxes) for boxes in proposals]) for output in outputs["heads"][-1])
        for row, detection in enumerate(detections):
            of_image = next(figures)
            ours = {
                "proposals": proposals[row],
                "logits": logits[row],
                "deltas": deltas[row].flatten(1),
                "boxes": detection["boxes"],
                "scores": detection["scores"],
                "labels": detection["labels"] + 1,
                "masks": detection["masks"][:, :: theirs.MASK_STEP, :: theirs.MASK_STEP],
            }
            assert of_image.keys() == ours.keys() and len(of_image["boxes"]) > 20
            for name, tensor in ours.items():
                torch.testing.assert_close(tensor.double(), torch.tensor(of_image[name]).double(), atol=1e-4, rtol=0)
    assert next(figures, None) is None


@pytest.mark.slow
def test_losses_are_torchvisions_where_nothing_is_drawn(weights: Weights) -> None:
    count = theirs.EVERYTHING
    post_nms = (theirs.PROPOSALS, theirs.PROPOSALS)
    net = instantiate(weights.network, post_nms=post_nms, regions_per_image=count, anchors_per_image=count)
    weights.load_into(net)
    net.double().train()
    for image, figures in zip(
        [image for images in theirs.images() for image in images], expected()["losses"], strict=True
    ):
        batch, sizes = batch_of([image])
        given = theirs.objects(*image.shape[1:])
        given["boxes"] = given["boxes"].double()
        target = given | {"labels": given["labels"] - 1, "size": sizes[0], "scale": torch.ones(2)}
        with torch.no_grad():
            losses, counts = net.losses(batch, [target], [torch.Generator()])
            labels, _ = label_anchors(torch.cat(net.rpn.anchors(net.dense(batch)[0])), given["boxes"])
        assert counts["regions"] == theirs.PROPOSALS + 3 and counts["positives"] > 3
        learned_from = int((labels != IGNORED).sum())  # theirs is the mean over these
        ours = {
            "loss_classifier": losses["box_cls"],
            "loss_box_reg": losses["box_reg"],
            "loss_mask": losses["mask"],
            "loss_objectness": losses["rpn_cls"] * count / learned_from,
            "loss_rpn_box_reg": losses["rpn_reg"] * count / learned_from,
        }
        assert {name: float(loss) for name, loss in ours.items()} == pytest.approx(figures, abs=1e-4)


def test_targets_of_masks_are_not_torchvisions_at_their_edges() -> None:
    """torchvision's are shares, by as many samples as a bin has pixels, half a pixel off: 0.03 from ours, as the docs say. The
    figures of its losses are of masks that fill their boxes."""
    y, x = torch.meshgrid(torch.arange(160) + 0.5, torch.arange(160) + 0.5, indexing="ij")
    ellipse = (((x - 70) / 60) ** 2 + ((y - 80) / 50) ** 2 <= 1).to(torch.uint8)[None]
    box, first = torch.tensor([[12.5, 28, 132, 134]], dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    samples = math.ceil(120 / 28)
    shares = roi_align([ellipse[:, None].double()], [1], box, first, first, 28, samples, half_pixel=False)[:, 0]
    difference = (mask_targets(ellipse, box, first, 28) - shares).abs()
    assert float(difference.mean()) == pytest.approx(0.03, abs=0.01)
    assert float((difference > 1e-9).float().mean()) < 0.15  # at edges alone


@pytest.mark.slow
def test_a_published_file_of_91_ids_becomes_80_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the names were before torchvision 0.13, and with nothing added to the variance, of which some are small."""
    state = theirs.weights(of_classes(91))
    for name in list(state):
        older = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        older = older.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "fpn" in name else older
        if "mask_head" in name:
            older = f"roi_heads.mask_head.mask_fcn{int(name.split('.')[2]) + 1}.{name.split('.')[-1]}"
        state[older] = state.pop(name)
    state["backbone.body.bn1.running_var"][::2] *= 1e-6
    torch.save(state, tmp_path / "file.pth")
    digest = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    path = (tmp_path / "file.pth").rename(tmp_path / f"{NAME}_coco-{digest[:8]}.pth")
    out = tmp_path / "out.pt"
    assert main(["weights", "import", str(path), "--out", str(out)]) == 0
    overrides = capsys.readouterr().out.splitlines()[-1].split("run.py ")[1].split()
    [trial] = expand_all(overrides, multirun=False)
    weights = Weights.read(out)
    weights.check_network(trial.config["model"])
    assert trial.config["mode"] == "test" and weights.network["num_classes"] == 80
    net = instantiate(trial.config["model"]).eval()
    weights.load_into(net)

    stop_sign, stop_sign_id = 11, 13  # COCO's twelfth category; 12 is no category's id
    cls = state["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(net.box_head.cls.weight[1 + stop_sign], cls[stop_sign_id])
    reg = state["roi_heads.box_predictor.bbox_pred.weight"].view(91, 4, -1)
    assert torch.equal(net.box_head.reg.weight.view(81, 4, -1)[1 + 79], reg[90])
    mask = state["roi_heads.mask_predictor.mask_fcn_logits.bias"]
    assert torch.equal(net.mask_head[-1].bias[1 + stop_sign], mask[stop_sign_id])
    image = torch.randn(1, 3, 32, 32)
    norm = [state[f"backbone.body.bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    stem = F.batch_norm(F.conv2d(image, state["backbone.body.conv1.weight"], stride=2, padding=3), *norm, eps=0.0)
    with torch.no_grad():
        torch.testing.assert_close(net.backbone.stem[:2](image), stem, rtol=1e-4, atol=1e-3)


def of_classes(outputs: int) -> dict[str, list[int]]:
    shapes = dict(expected()["shapes"])
    for name, each in (
        ("box_predictor.cls_score", 1),
        ("box_predictor.bbox_pred", 4),
        ("mask_predictor.mask_fcn_logits", 1),
    ):
        for tensor in ("weight", "bias"):
            shapes[f"roi_heads.{name}.{tensor}"] = [each * outputs, *shapes[f"roi_heads.{name}.{tensor}"][1:]]
    return shapes


def detectron2_shapes(blocks: tuple[int, ...], groups: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of detectron2's Mask R-CNN on a pyramid, of COCO's 80 categories."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int) -> None:  # without a bias, with FrozenBN
        shapes[f"{name}.weight"] = shape
        shapes.update(
            {f"{name}.norm.{part}": (shape[0],) for part in ("weight", "bias", "running_mean", "running_var")}
        )

    def biased(name: str, *shape: int, outputs: int = 0) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (outputs or shape[0],)

    conv("backbone.bottom_up.stem.conv1", 64, 3, 7, 7)
    before = 64
    for stage, count in enumerate(blocks):
        inner, out = groups * width * 2**stage, 256 * 2**stage
        for block in range(count):
            name = f"backbone.bottom_up.res{stage + 2}.{block}"
            if block == 0:
                conv(f"{name}.shortcut", out, before, 1, 1)
            conv(f"{name}.conv1", inner, before, 1, 1)
            conv(f"{name}.conv2", inner, inner // groups, 3, 3)
            conv(f"{name}.conv3", out, inner, 1, 1)
            before = out
        biased(f"backbone.fpn_lateral{stage + 2}", 256, out, 1, 1)
        biased(f"backbone.fpn_output{stage + 2}", 256, 256, 3, 3)
    biased("proposal_generator.rpn_head.conv", 256, 256, 3, 3)
    biased("proposal_generator.rpn_head.objectness_logits", 3, 256, 1, 1)
    biased("proposal_generator.rpn_head.anchor_deltas", 12, 256, 1, 1)
    biased("roi_heads.box_head.fc1", 1024, 256 * 7 * 7)
    biased("roi_heads.box_head.fc2", 1024, 1024)
    biased("roi_heads.box_predictor.cls_score", 81, 1024)
    biased("roi_heads.box_predictor.bbox_pred", 320, 1024)
    for layer in range(1, 5):
        biased(f"roi_heads.mask_head.mask_fcn{layer}", 256, 256, 3, 3)
    biased("roi_heads.mask_head.deconv", 256, 256, 2, 2)
    biased("roi_heads.mask_head.predictor", 80, 256, 1, 1)
    return shapes


@pytest.mark.parametrize(
    ("name", "blocks", "groups", "width"),
    [
        ("mask_rcnn_R_50_FPN", (3, 4, 6, 3), 1, 64),
        pytest.param("mask_rcnn_X_101_32x8d_FPN", (3, 4, 23, 3), 32, 8, marks=pytest.mark.slow),
    ],
)
def test_detectron2s_weights_compute_here_what_they_do_there(
    name: str, blocks: tuple[int, ...], groups: int, width: int, tmp_path: Path
) -> None:
    random = np.random.RandomState(1)
    arrays = {
        key: random.uniform(0.5, 1.5, shape).astype(np.float32)
        for key, shape in detectron2_shapes(blocks, groups, width).items()
    }
    extra = {
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
        "pixel_mean": np.zeros(3),
    }
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {**arrays, **extra}, "__author__": "Detectron2 Model Zoo"}))
    out = tmp_path / "out.pt"
    arguments = ["weights", "import", "--from", "detectron2", "--model", name, str(path), "--out", str(out)]
    assert main(arguments) == 0
    weights = Weights.read(out)
    net = instantiate(weights.network).eval()
    weights.load_into(net)
    assert len(weights.state_dict) - sum(key.endswith("batches_tracked") for key in weights.state_dict) == len(arrays)

    image = torch.rand(3, 32, 32)
    there = 255 * image.flip(0) - torch.tensor([103.53, 116.28, 123.675])[:, None, None]  # blue, green, red
    if "_X_" in name:
        there /= torch.tensor([57.375, 57.12, 58.395])[:, None, None]
    conv1 = torch.from_numpy(arrays["backbone.bottom_up.stem.conv1.weight"])
    ours = net.backbone.stem[0](((image - MEAN)[None] / STD).float())
    torch.testing.assert_close(
        ours, F.conv2d(there[None], conv1, stride=2, padding=3), rtol=1e-4, atol=0.1 if width == 64 else 1e-3
    )
    cls = arrays["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(net.box_head.cls.weight.detach(), torch.from_numpy(np.roll(cls, 1, axis=0)))  # background first
    last = arrays["backbone.bottom_up.res3.0.conv2.norm.running_var"]
    assert torch.equal(net.backbone.stages[1][0].residual[4].running_var, torch.from_numpy(last))
    corner = net.rpn.anchors([torch.zeros(1, 1, 2, 2)] * 5)[0][1]  # of ratio 1 in the first cell
    assert corner.tolist() == [-16, -16, 16, 16]
    wide = net.rpn.anchors([torch.zeros(1, 1, 2, 2)] * 5)[0][0]
    assert wide.tolist() == pytest.approx([-(512**0.5), -(128**0.5), 512**0.5, 128**0.5])


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": _Code()}}))
    detectron2 = ["weights", "import", "--from", "detectron2", str(path), "--out", str(tmp_path / "out.pt")]
    for arguments, message in (
        ([*detectron2, "--model", "mask_rcnn_R_50_FPN"], "holds code, builtins.print, which is not run"),
        (detectron2, "says no network: --model, one of faster_rcnn_R_50_FPN, "),
        ([*detectron2, "--model", "mask_rcnn_R50"], "detectron2 has no network 'mask_rcnn_R50' here (did you mean "),
    ):
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and message in lines[0]
    torch.save(theirs.weights({"backbone.body.conv1.weight": [64, 3, 7, 7]}), tmp_path / f"{NAME}.pth")
    with pytest.raises(ValueError, match=f"is no {NAME} in torchvision's layout: .* more missing"):
        from_published(tmp_path / f"{NAME}.pth", NAME)
