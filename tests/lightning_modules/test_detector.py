"""The detector's task: losses, predictions in pixels of the annotation, scores, and what its sampling depends on."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.detector import Detector
from lightning_modules.nets import FasterRCNN, MaskRCNN, ResNet

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64
OPTIMISER = partial(torch.optim.SGD, lr=0.01)
SCHEDULE = partial(torch.optim.lr_scheduler.ConstantLR)
SMALL: dict[str, Any] = {
    "pyramid": 16, "stages": 3, "sides": (16, 32, 64, 128), "canonical_side": 112, "head_channels": 16,
    "regions_per_image": 16, "anchors_per_image": 32, "pre_nms": (60, 60), "post_nms": (30, 30),
    "frozen_norm": False, "freeze_at": 0,
}  # fmt: skip


def detector(family: type[FasterRCNN] = MaskRCNN, seed: int = 0, **arguments: Any) -> Detector:
    torch.manual_seed(0)
    own = {"mask_channels": 8, "mask_convs": 1} if family is MaskRCNN else {}
    backbone = ResNet(18, block="basic", base_channels=8, in_channels=1, num_classes=2)
    return Detector(family(backbone, 3, **SMALL, **own, **arguments), 3, OPTIMISER, SCHEDULE, seed)


def target(row: int, count: int, scale: float = 1.0) -> dict[str, Tensor]:
    """An image with so many squares, each of another place and class."""
    side = int(SIDE / scale)
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    boxes = torch.zeros(count, 4)
    for n in range(count):
        left, top, length = (int(value / scale) for value in (4 + 28 * n, 8 + 20 * n, 24))
        masks[n, top : top + length, left : left + length] = 1
        boxes[n] = torch.tensor([left, top, left + length, top + length])
    return {
        "boxes": boxes, "labels": torch.arange(count) % 3, "masks": masks, "scale": torch.full((2,), scale),
        "size": torch.tensor([SIDE, SIDE]), "image": torch.tensor(row),
    }  # fmt: skip


def batch(*counts: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(len(counts))
    return torch.randn(len(counts), 1, SIDE, SIDE, generator=generator), [target(n, c) for n, c in enumerate(counts)]


def at_step(module: Detector, step: int) -> Detector:
    module._trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]
    return module


def test_what_is_learned_from_depends_on_seed_step_and_image_alone():
    images, targets = batch(2, 1)
    module = at_step(detector(), 3).eval()
    losses = module.sample_losses(images, targets)
    torch.manual_seed(99)  # another process, another history
    swapped = module.sample_losses(images.flip(0), targets[::-1]).flip(0)
    torch.testing.assert_close(swapped, losses, rtol=1e-4, atol=1e-5)
    for other in (at_step(detector(), 4).eval(), at_step(detector(seed=1), 3).eval()):
        assert not torch.allclose(other.sample_losses(images, targets), losses, rtol=1e-4)


def test_a_network_that_is_no_detector_is_refused():
    with pytest.raises(ValueError, match="Identity is no detector: model=faster_rcnn and model=mask_rcnn are"):
        Detector(torch.nn.Identity(), 3, OPTIMISER, SCHEDULE, 0)
    net = torch.nn.Sequential()
    net.losses = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="Sequential is no detector"):
        Detector(net, 3, OPTIMISER, SCHEDULE, 0)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_network_of_other_classes_than_the_data_is_refused(classes):
    with pytest.raises(ValueError, match=f"model.num_classes must be {classes}, that of the data, got 3"):
        Detector(detector().net, classes, OPTIMISER, SCHEDULE, 0)


def test_masks_are_not_learned_from_boxes_alone():
    images, targets = batch(2, 1)
    without = [{name: value for name, value in truth.items() if name != "masks"} for truth in targets]
    at_step(detector(FasterRCNN), 0).sample_losses(images, without)
    for use in (at_step(detector(), 0).sample_losses, lambda *given: detector()._evaluate("test", given)):
        with pytest.raises(ValueError, match="boxes and no masks: model=faster_rcnn"):
            use(images, without)


def test_the_loss_is_the_sum_of_its_parts_which_are_kept_apart():
    images, targets = batch(2, 0, 1)
    module = at_step(detector(), 0)
    module.sample_losses(*batch(1))  # tried, as where it is not known what fits into memory
    loss = module.training_step((images, targets, None), 0)
    parts = {name: metric.compute() for name, metric in module.part_losses.items()}
    assert set(parts) == {"rpn_cls", "rpn_reg", "box_cls", "box_reg", "mask"}
    assert sum(float(value) for value, _ in parts.values()) == pytest.approx(float(loss.detach()))
    assert {int(count) for _, count in parts.values()} == {3}
    assert 3 * 16 >= module.processed["regions"] > module.processed["positives"] > 0


def test_masks_of_scaled_images_are_learned_and_predicted_in_pixels_of_the_annotation():
    """Twice as large an image with boxes that are scaled to it: the same targets, and predictions of half the size."""
    images, targets = batch(2)
    module = at_step(detector(), 0).eval()
    plain = module.sample_losses(images, targets)
    scaled = module.sample_losses(images, [target(0, 2, scale=2.0)])
    assert float(scaled.detach()) == pytest.approx(
        float(plain.detach()), rel=0.02
    )  # bitmaps of half the size are coarser
    with torch.no_grad():
        module.net.box_head.cls.bias[0] = -5  # an untrained network finds something
    (one,), (half,) = module.detect(images, targets), module.detect(images, [target(0, 2, scale=2.0)])
    torch.testing.assert_close(half["boxes"] * 2, one["boxes"])
    assert len(one["boxes"]) > 0
    assert one["masks"].shape == (len(one["boxes"]), SIDE, SIDE) and one["masks"].dtype == torch.bool
    assert half["masks"].shape == (len(one["boxes"]), SIDE // 2, SIDE // 2)
    (alone,) = module.detect(images, [{"size": torch.tensor(images.shape[-2:]), "scale": torch.tensor([2.0, 2.0])}])
    assert alone["masks"].shape == half["masks"].shape and torch.equal(alone["boxes"], half["boxes"])


@pytest.mark.parametrize("family", [MaskRCNN, FasterRCNN])
def test_a_fit_logs_each_loss_and_every_score_of_boxes_and_masks(family):
    module = detector(family)
    loader = DataLoader([batch(2, 0), batch(0, 0), batch(1, 1)], batch_size=None, collate_fn=lambda given: given)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    metrics = dict(trainer.callback_metrics)
    trainer.test(module, loader, verbose=False)
    kinds = ("box", "mask") if family is MaskRCNN else ("box",)
    assert module.primary == f"{kinds[-1]}_ap_err"
    assert {f"train/loss_{name}" for name in module.net.loss_names} | {"train/loss", "val/n", "val/n_proposals"} <= set(
        metrics
    )
    tested = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}
    for kind in kinds:
        assert tested[f"{kind}_ap_err"] == pytest.approx(100 * (1 - tested[f"{kind}_ap"]))
    assert tested["n"] == 6 and 0 < tested["n_proposals"] <= 30
    named = {name for name in tested if name.startswith(("box_", "mask_", "n_"))}
    assert named == set(module.definitions)
    assert len(module.examples) == 4
    for image, truth, prediction in module.examples:
        assert image.shape[1:] == truth["masks"].shape[1:] and len(prediction["boxes"]) == len(prediction["scores"])


def test_the_right_answer_has_average_precision_1():
    module = detector()
    images, targets = batch(2, 1)
    for kind in module.kinds:
        perfect = [truth | {"scores": torch.ones(len(truth["boxes"]))} for truth in targets]
        module.scores[f"val_{kind}"].update(perfect, targets)
        assert float(module.scores[f"val_{kind}"].compute()["ap"]) == 1


def test_examples_of_a_test_are_in_pixels_of_the_annotation():
    """A batch that is twice as large as its annotation and padded below: its examples lie on their objects."""
    masks = torch.zeros(1, 20, 24, dtype=torch.uint8)
    masks[0, 4:12, 6:14] = 1
    pixels = masks.float().repeat_interleave(2, 1).repeat_interleave(2, 2)
    images = torch.nn.functional.pad(pixels[None], (0, 16, 0, 24))
    truth = {
        "boxes": torch.tensor([[6.0, 4, 14, 12]]), "labels": torch.tensor([1]), "masks": masks,
        "scale": torch.full((2,), 2.0), "size": torch.tensor([40, 48]), "image": torch.tensor(0),
    }  # fmt: skip
    module = detector().eval()
    module._evaluate("test", (images, [truth]))
    [(image, drawn, _)] = module.examples
    assert torch.equal(image > 0.5, masks > 0) and torch.equal(drawn["masks"], masks)
