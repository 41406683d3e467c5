"""Published detectors into our networks: Faster R-CNN and Mask R-CNN on a feature pyramid, of torchvision and of detectron2.

A layout differs in names, and in three things that the weights take up: the order of classes, what normalisation adds to the
variance, and the colours of an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.training.torchvision_names import RESIDUAL, torchvision_name

if TYPE_CHECKING:
    from torch import Tensor

# The published name by layout, and what makes run.py build the network beside `data=coco model.release=<layout>`.
DETECTORS: dict[str, dict[str, tuple[str, ...]]] = {
    "torchvision": {
        "fasterrcnn_resnet50_fpn": ("model=faster_rcnn", "model.backbone.stride_in=3x3"),
        "maskrcnn_resnet50_fpn": ("model=mask_rcnn", "model.backbone.stride_in=3x3"),
    },
    "detectron2": {
        f"{model}_{backbone}": (f"model={model}", *overrides)
        for model in ("faster_rcnn", "mask_rcnn")
        for backbone, overrides in {
            "R_50_FPN": (),
            "R_101_FPN": ("model.backbone.depth=101",),
            "X_101_32x8d_FPN": ("backbone=resnext", "model.backbone.depth=101", "model.backbone.base_width=8"),
        }.items()
    },
}
# Their names of what stands outside the backbone.
MODULES = {
    "torchvision": {
        "fpn.lateral": "backbone.fpn.inner_blocks.{}.0",
        "fpn.output": "backbone.fpn.layer_blocks.{}.0",
        "rpn.conv": "rpn.head.conv.0.0",
        "rpn.cls": "rpn.head.cls_logits",
        "rpn.reg": "rpn.head.bbox_pred",
        "box_head.layers.1": "roi_heads.box_head.fc6",
        "box_head.layers.3": "roi_heads.box_head.fc7",
        "box_head.cls": "roi_heads.box_predictor.cls_score",
        "box_head.reg": "roi_heads.box_predictor.bbox_pred",
        **{f"mask_head.{2 * conv}": f"roi_heads.mask_head.{conv}.0" for conv in range(4)},
        "mask_head.8": "roi_heads.mask_predictor.conv5_mask",
        "mask_head.10": "roi_heads.mask_predictor.mask_fcn_logits",
    },
    "detectron2": {
        "fpn.lateral": "backbone.fpn_lateral{}",
        "fpn.output": "backbone.fpn_output{}",
        "rpn.conv": "proposal_generator.rpn_head.conv",
        "rpn.cls": "proposal_generator.rpn_head.objectness_logits",
        "rpn.reg": "proposal_generator.rpn_head.anchor_deltas",
        "box_head.layers.1": "roi_heads.box_head.fc1",
        "box_head.layers.3": "roi_heads.box_head.fc2",
        "box_head.cls": "roi_heads.box_predictor.cls_score",
        "box_head.reg": "roi_heads.box_predictor.bbox_pred",
        **{f"mask_head.{2 * conv}": f"roi_heads.mask_head.mask_fcn{conv + 1}" for conv in range(4)},
        "mask_head.8": "roi_heads.mask_head.deconv",
        "mask_head.10": "roi_heads.mask_head.predictor",
    },
}
CLS = {layout: names["box_head.cls"] for layout, names in MODULES.items()}
# torchvision's published files have the names of before its release 0.13.
OLDER = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    *((rf"roi_heads\.mask_head\.mask_fcn{n + 1}\.(.*)", rf"roi_heads.mask_head.{n}.0.\1") for n in range(4)),
)
# Their outputs are COCO's category ids, 0 for the background and 1 to 90, of which these are no category.
WITH_GAPS = 91
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
EPSILON = 1e-5  # that batch normalisation adds to the variance, here and in detectron2
# detectron2 takes blue, green, red of 0 to 255 less the mean; ours is red, green, blue of 0 to 1, less the mean, over these.
STD = (0.229, 0.224, 0.225)


def overrides(layout: str, name: str) -> list[str]:
    """What makes ``run.py`` build the published network ``name``."""
    return [*DETECTORS[layout][name], "data=coco", f"model.release={layout}"]


def network(layout: str, name: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`_target_` and arguments of the network, with the number of classes that ``weights`` have."""
    from benchmarks.config.compose import expand_all

    [trial] = expand_all(overrides(layout, name), multirun=False)
    head = weights.get(f"{CLS[layout]}.weight")
    classes = trial.config["data"]["num_classes"] if head is None else len(head) - 1
    return {**trial.config["model"], "num_classes": classes}


def published_name(key: str, layout: str) -> str:
    """The name in ``layout`` of ``key``, a name in the state dict of a detector of ours."""
    module, _, tensor = key.rpartition(".")
    match key.split("."):
        case ["backbone", *of_backbone] if layout == "torchvision":
            return f"backbone.body.{torchvision_name('.'.join(of_backbone), 'ResNet')}"
        case ["backbone", "stem", place, tensor]:
            return f"backbone.bottom_up.stem.conv1.{_detectron2_tensor(int(place) % 3, tensor)}"
        case ["backbone", "stages", stage, block, "residual", place, tensor]:
            conv = f"conv{RESIDUAL[place][-1]}"
            return f"backbone.bottom_up.res{int(stage) + 2}.{block}.{conv}.{_detectron2_tensor(int(place) % 3, tensor)}"
        case ["backbone", "stages", stage, block, "shortcut", place, tensor]:
            of_shortcut = _detectron2_tensor(int(place), tensor)
            return f"backbone.bottom_up.res{int(stage) + 2}.{block}.shortcut.{of_shortcut}"
        case ["fpn", kind, level, tensor]:
            first = {"torchvision": 0, "detectron2": 2}[layout]  # level 0 is P2
            return f"{MODULES[layout][f'fpn.{kind}'].format(int(level) + first)}.{tensor}"
    return f"{MODULES[layout][module]}.{tensor}"


def _detectron2_tensor(place: int, tensor: str) -> str:
    """A tensor of a convolution (place 0) or of the normalisation after it, which is its child."""
    return f"norm.{tensor}" if place else tensor


def prepared(state_dict: Mapping[str, Tensor], layout: str, name: str, published: bool) -> dict[str, Tensor]:
    """The tensors of a file by the names of today's releases, and such that our network computes with them what theirs does.

    published: of torchvision, one of its own files, whose networks it builds with nothing added to the variance.
    """
    tensors = dict(state_dict)
    return _of_detectron2(tensors, name) if layout == "detectron2" else _of_torchvision(tensors, published)


def _of_torchvision(tensors: dict[str, Tensor], published: bool) -> dict[str, Tensor]:
    import torch

    for pattern, replacement in OLDER:
        tensors = {re.sub(f"^{pattern}$", replacement, key): tensor for key, tensor in tensors.items()}
    # A detection of an id that is no category cannot be right, so that only its share of the softmax goes.
    rows = torch.tensor([row for row in range(WITH_GAPS) if row not in GAPS])
    for module in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits"):
        for tensor in ("weight", "bias"):
            key = f"roi_heads.{module}.{tensor}"
            each = 4 if module.endswith("bbox_pred") else 1
            if key in tensors and len(tensors[key]) == each * WITH_GAPS:
                tensors[key] = tensors[key].unflatten(0, (WITH_GAPS, each))[rows].flatten(0, 1)
    variances = [key for key in tensors if key.endswith("running_var")] if published else []
    for key in variances:
        weight, variance = key.replace("running_var", "weight"), tensors[key].double()
        if weight in tensors:
            tensors[weight] = (tensors[weight].double() / variance.sqrt()).to(tensors[weight].dtype)
            tensors[key] = torch.full_like(tensors[key], 1 - EPSILON)
    return tensors


def _of_detectron2(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    import torch

    tensors = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(("pixel_", "proposal_generator.anchor_generator."))  # not learned
    }
    for tensor in ("weight", "bias"):
        if (key := f"{CLS['detectron2']}.{tensor}") in tensors:
            tensors[key] = tensors[key].roll(1, dims=0)  # the background is last there, first here
    if (key := "backbone.bottom_up.stem.conv1.weight") in tensors and tensors[key].shape[1:2] == (3,):
        # ResNeXt's images are divided by the standard deviation there too; ResNet's weights have it within them.
        scale = torch.ones(3) if "_X_" in name else 255 * torch.tensor(STD)
        tensors[key] = tensors[key].flip(1) * scale[:, None, None]
    return tensors
