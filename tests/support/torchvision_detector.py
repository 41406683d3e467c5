"""Mask R-CNN as torchvision computes it in float64, on weights and images that a generator of numpy draws: ours must, too.

In float32 the boxes of this network differ by up to 0.004 pixels between processors with AVX2 and with AVX-512.

python tests/support/torchvision_detector.py     # where torchvision is installed: writes torchvision_detector.json
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXPECTED = Path(__file__).with_suffix(".json")
CLASSES = 3  # and the background
PROPOSALS = 12  # of an image
EVERYTHING = 10**6  # anchors and regions that a loss may take: all, so that none are drawn
BATCHES = (((96, 128), (128, 96), (112, 112)), ((128, 160), (70, 150)))  # height and width of each image
MASK_STEP = 9  # every ninth row and column of a mask is kept


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights of these names and shapes, torchvision's, float32: with them scores and boxes vary from region to region."""
    random = np.random.RandomState(7)
    tensors = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif name.endswith(("bias", "running_mean")):
            values = 0.1 * random.standard_normal(shape)
        elif len(shape) == 1:  # of normalisation; small at the end of a block, as there are sixteen
            values = random.uniform(0.5, 1.5, shape) * (0.3 if "bn3" in name else 1)
        else:
            last = any(word in name for word in ("predictor", "cls_logits", "bbox"))
            values = random.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5 * (0.3 if last else 1)
            values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)  # else what regions share prevails
        tensors[name] = torch.from_numpy(np.asarray(values, np.float32))
    return tensors


def images() -> list[list[Tensor]]:
    """The images of each batch, float32 [3, H, W], 0 to 1."""
    random = np.random.RandomState(8)
    return [
        [torch.from_numpy(random.uniform(size=(3, *size)).astype(np.float32)) for size in batch] for batch in BATCHES
    ]


def objects(height: int, width: int) -> dict[str, Tensor]:
    """Three objects of an image, labels from 1; their masks are the whole image, so that no way to cut out a mask matters."""
    boxes = [[5, 8, 60, 50], [30, 20, width - 4, height - 9], [2, 30, 40, height - 3]]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.tensor([1, 2, 3]),
        "masks": torch.ones(3, height, width, dtype=torch.uint8),
    }


def main() -> None:
    """Write what torchvision computes."""
    import torchvision
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    net = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1,
        rpn_post_nms_top_n_test=PROPOSALS, rpn_post_nms_top_n_train=PROPOSALS,
        rpn_batch_size_per_image=EVERYTHING, box_batch_size_per_image=EVERYTHING,
    )  # fmt: skip
    shapes = {
        name: list(tensor.shape) for name, tensor in net.state_dict().items() if not name.endswith("batches_tracked")
    }
    net.load_state_dict(weights(shapes), strict=False)
    net.double().eval()
    net.transform.resize = lambda image, target=None: (image, target)
    calls: dict[str, Any] = {}
    for name, module in (("rpn", net.rpn), ("box", net.roi_heads.box_predictor), ("heads", net.roi_heads)):
        module.register_forward_hook(lambda module, args, output, name=name: calls.update({name: deepcopy(output)}))
    detections, losses = [], []
    for batch in images():
        with torch.no_grad():
            net([image.double() for image in batch])
        proposals = calls["rpn"][0]
        logits, deltas = (output.split([len(boxes) for boxes in proposals]) for output in calls["box"])
        for place, found in enumerate(calls["heads"][0]):
            masks = found["masks"][:, 0, ::MASK_STEP, ::MASK_STEP]
            of_image = {
                "proposals": proposals[place],
                "logits": logits[place],
                "deltas": deltas[place],
                **found,
                "masks": masks,
            }
            detections.append({name: rounded(tensor.tolist()) for name, tensor in of_image.items()})
    net.train()
    for module in net.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # as the frozen one that a network with downloaded weights has
    for image in [image for batch in images() for image in batch]:
        with torch.no_grad():
            given = objects(*image.shape[1:])
            values = net([image.double()], [given | {"boxes": given["boxes"].double()}])
        losses.append({name: value.item() for name, value in values.items()})
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    EXPECTED.write_text(json.dumps({**versions, "shapes": shapes, "detections": detections, "losses": losses}) + "\n")


def rounded(values: Any) -> Any:
    """Numbers of nested lists, to eight decimals."""
    return [rounded(value) for value in values] if isinstance(values, list) else round(values, 8)


if __name__ == "__main__":
    main()
