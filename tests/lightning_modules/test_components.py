"""COCO's AP of connected components: against pycocotools, on one and on several processes, and in a segmentation's test."""

import contextlib
import io

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from support.forked_ranks import answers_of_ranks
from torch import nn
from torch.nn import functional

from datamodules.in_memory import InMemoryDataModule
from datamodules.sources.touching_cells import load_touching_cells
from lightning_modules.metrics.components import ComponentAP
from lightning_modules.segmenter import Segmenter

SIDE = 80


def scene(seed):
    """Discs that may touch, numbered with gaps, and a foreground: some lost, some moved, and specks."""
    random = np.random.RandomState(seed)
    instances, certainty = np.zeros((SIDE, SIDE), np.int32), np.zeros((SIDE, SIDE), np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in 3 * np.arange(1, 13):
        centre, radius = random.uniform(0, SIDE, 2), random.uniform(4, 12)
        instances[np.hypot(y - centre[0], x - centre[1]) < radius] = number
        moved = centre + random.normal(0, 1.5, 2)
        if random.uniform() < 0.8:
            certainty[np.hypot(y - moved[0], x - moved[1]) < radius] = random.choice([0.5, 0.75, 1.0])
    certainty[random.uniform(size=certainty.shape) < 0.005] = 0.75
    return certainty, instances


def pycocotools_ap(scenes):
    """AP, AP50 and AP75 of the components, each a mask, its score the mean of its pixels."""
    annotations, results = [], []

    def area(number, mask):
        return {"image_id": number, "category_id": 1, "segmentation": rle.encode(np.asfortranarray(mask, np.uint8))}

    for number, (certainty, instances) in enumerate(scenes):
        for value in np.unique(instances[instances > 0]):
            of_object = {"id": len(annotations) + 1, "iscrowd": 0, "area": float((instances == value).sum())}
            annotations.append(area(number, instances == value) | of_object)
        labelled, count = ndimage.label(certainty > 0)
        results += [
            area(number, labelled == value) | {"score": float(certainty[labelled == value].mean(dtype=np.float64))}
            for value in range(1, count + 1)
        ]
    truth = COCO()
    images = [{"id": number, "height": SIDE, "width": SIDE} for number in range(len(scenes))]
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}], "info": {}}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("mask_ap", "mask_ap50", "mask_ap75"), evaluation.stats[:3].tolist(), strict=True))


def update(metric, scenes):
    for certainty, instances in scenes:
        metric.update(torch.tensor(certainty)[None], torch.tensor(instances)[None])
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize("seed", range(4))
def test_components_are_scored_as_pycocotools_scores_them(seed):
    scenes = [scene(10 * seed + image) for image in range(4)]
    expected = pycocotools_ap(scenes)
    assert 0 < expected["mask_ap"] < expected["mask_ap50"] < 1
    assert update(ComponentAP(), scenes) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_right_answer_has_average_precision_1_where_two_classes_touch(dtype):
    classes = torch.zeros(2, 12, 12, dtype=torch.int64)
    classes[:, 2:8, 2:6], classes[:, 2:8, 6:10], classes[1, 9:, :3] = 1, 2, 1
    instances = classes.int()
    instances[1, 9:, :3] = 7
    module = Segmenter(nn.Identity(), 3, None, None, None, None)
    logits = 20.0 * functional.one_hot(classes, 3).movedim(-1, 1)
    module.update_metrics("test", logits.to(dtype), (torch.zeros(2, 1, 12, 12, dtype=dtype), classes, None, instances))
    assert module.compute_metrics("test")["mask_ap"] == pytest.approx(1, abs=1e-12)


def test_nothing_where_nothing_is():
    empty = np.zeros((SIDE, SIDE), np.float32)
    _, instances = scene(0)
    assert update(ComponentAP(), [(empty, instances)])["mask_ap"] == 0
    assert np.isnan(update(ComponentAP(), [(empty, instances * 0)])["mask_ap"])


def test_a_metric_begins_anew():
    metric, scenes = ComponentAP(), [scene(1), scene(2)]
    update(metric, scenes)
    metric.reset()
    assert update(metric, scenes[:1]) == update(ComponentAP(), scenes[:1])


def rank_of(rank, world_size):
    rows = range(5 * rank // world_size, 5 * (rank + 1) // world_size)
    own, every = update(ComponentAP(), [scene(row) for row in rows]), [scene(row) for row in range(5)]
    return own, update(ComponentAP(sync_on_compute=False), every)


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_same_at_any_number_of_processes(world_size, tmp_path):
    """Many components are equally sure: their order decides."""
    values = answers_of_ranks(rank_of, world_size, tmp_path)
    alone = update(ComponentAP(), [scene(row) for row in range(5)])
    assert values == [(alone, alone)] * world_size


@pytest.mark.parametrize("dihedral", [False, True])
def test_a_segmentation_of_known_objects_has_its_mask_ap(dihedral):
    brightness = nn.Conv2d(1, 2, 1, bias=False)  # cells are bright
    brightness.weight.data = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    module = Segmenter(brightness, 2, None, None, None, None, dihedral)
    data = InMemoryDataModule(
        lambda: load_touching_cells(train_count=1, val_count=1, test_count=3, size=SIDE, cells=6),
        1, 2, {}, [0.5], [0.25], seed=0,
    )  # fmt: skip
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.test(module, datamodule=data, verbose=False)
    scenes, test = [], data.splits.test
    with torch.no_grad():
        for image, instances in zip(test.images, test.instances, strict=True):
            logits = module.predict_logits((image[None] / 255 - 0.5) / 0.25)
            foreground = logits.softmax(1)[0, 1] * (logits.argmax(1)[0] == 1)
            scenes.append((foreground.numpy(), instances.numpy()))
    metrics = {name: float(trainer.callback_metrics[f"test/{name}"]) for name in ("mask_ap", "mask_ap50", "mask_ap75")}
    assert metrics == pytest.approx(pycocotools_ap(scenes), abs=1e-6) and metrics["mask_ap"] > 0
    assert set(metrics) < set(module.definitions)
