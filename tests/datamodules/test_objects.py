"""Images with objects: augmentation moves image, boxes and masks alike, and batches are the same for everyone."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datamodules.augmentation.objects import ObjectAugmentation, cropped, scaled_size, targets_of
from datamodules.objects import ObjectDataModule
from datamodules.readers.objects import InstanceMaps, Objects, ObjectSplits, boxes_of, objects_of
from datamodules.sources.digit_scenes import load_digit_scenes
from datamodules.sources.digits import load_digits
from datamodules.sources.nuclei import load_nuclei, load_nuclei_instances
from datamodules.sources.touching_cells import load_touching_cells, load_touching_cells_instances
from lightning_modules.metrics.components import ComponentAP

SIDE = 40


def blobs(seed: int, count: int = 3, height: int = SIDE, width: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """An image whose grey value is 50 times the number of the object, so that pixels show where an object went."""
    random = np.random.RandomState(seed)
    instances = np.zeros((height, width), np.int32)
    for number in range(1, count + 1):
        top, left = random.randint(height - 12), random.randint(width - 12)
        instances[top : top + random.randint(6, 12), left : left + random.randint(6, 12)] = number
    return (50 * instances).astype(np.uint8), instances


class Sizes:
    """A split whose images differ in size."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.pairs = [blobs(seed, 2, *size) for seed, size in enumerate(sizes)]
        self.sizes = np.array(sizes)

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, row: int) -> np.ndarray:
        return self.pairs[row][0]

    def objects(self, row: int) -> Objects:
        return objects_of(self.pairs[row][1])

    def digest(self, digest) -> None:
        pass


def memory() -> ObjectSplits:
    images, instances = (np.stack(arrays) for arrays in zip(*(blobs(seed) for seed in range(13)), strict=True))
    split = InstanceMaps(images, instances)
    return ObjectSplits(split, split, split, ("blob",))


def of_sizes() -> ObjectSplits:
    split = Sizes([(40, 60), (60, 40), (30, 61), (55, 33), (40, 50), (44, 40), (32, 64), (64, 48), (40, 40)])
    return ObjectSplits(split, split, split, ("blob",))


def module(source=memory, rank=0, world_size=1, **changes) -> ObjectDataModule:
    arguments = {
        "image_size": [32, 32],
        "batch_size": 6,
        "eval_batch_size": 4,
        "augment": {"crop_size": 32, "dihedral": True},
        "mean": [0.0],
        "std": [1.0],
        "seed": 0,
        "loader_workers": 0,
        "num_classes": 1,
        "pad_multiple": 16,
    }
    data = ObjectDataModule(source, **(arguments | changes))
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=world_size, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    data.setup()
    return data


def flat(batch) -> list[torch.Tensor]:
    return [batch.images, *(value for target in batch.targets for _, value in sorted(target.items()))]


def same(one, two) -> bool:
    pairs = list(zip(map(flat, one), map(flat, two), strict=True))
    return bool(pairs) and all(len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in pairs)


def epoch(data: ObjectDataModule, number: int = 0) -> list:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


# What a batch holds


@pytest.mark.parametrize("augment", [{"crop_size": 32, "dihedral": True}, {"horizontal_flip": True}, {}])
def test_image_boxes_and_masks_move_alike(augment):
    """Each object has one grey value: under its mask the image shows that and nothing else, and its box is the mask's."""
    seen = 0
    for batch in epoch(module(augment=augment)):
        for image, target in zip(batch.images, batch.targets, strict=True):
            height, width = target["size"].tolist()
            assert target["masks"].shape[1:] == (height, width)
            for mask, box in zip(target["masks"], target["boxes"], strict=True):
                values = image[0, :height, :width][mask.bool()].unique()
                assert len(values) == 1 and values > 0
                assert boxes_of(mask[None].numpy()).tolist() == [box.tolist()]
                seen += 1
    assert seen > 15


def test_a_mirrored_image_has_mirrored_boxes():
    data = module(augment={"horizontal_flip": True})
    original = {row: data.splits.train.objects(row).boxes for row in range(13)}
    mirrored = 0
    for batch in epoch(data):
        for target in batch.targets:
            before, after = original[int(target["image"])], target["boxes"].double().numpy()
            flipped = np.stack([SIDE - before[:, 2], before[:, 1], SIDE - before[:, 0], before[:, 3]], 1)
            assert (after == before).all() or (after == flipped).all()
            mirrored += bool((after == flipped).all())
    assert 0 < mirrored < 12


def test_scale_jitter_scales_the_image_and_not_its_annotation():
    augment = {"shorter_side": [48, 64], "longest_side": 90}
    sizes = set()
    for batch in epoch(module(of_sizes, augment=augment, batch_size=2)):
        assert batch.images.shape[2] % 16 == 0 and batch.images.shape[3] % 16 == 0
        for image, target in zip(batch.images, batch.targets, strict=True):
            height, width = target["size"].tolist()
            sizes.add(min(height, width))
            assert max(height, width) <= 90
            stored = target["masks"].shape[1:]
            assert target["scale"].tolist() == pytest.approx([width / stored[1], height / stored[0]])
            assert not image[:, height:].any() and not image[:, :, width:].any()
            if len(target["masks"]):
                x, y = ((target["boxes"][-1, :2] + target["boxes"][-1, 2:]) / 2 * target["scale"]).tolist()
                inside = image[0, int(y), int(x)] * 255
                assert inside == pytest.approx(50 * len(target["masks"]), abs=1)  # the last object lies on top
    assert {48, 64} <= sizes


def test_scaled_size_is_detectrons():
    """ResizeShortestEdge of detectron2: newh, neww = int(x + 0.5), the longer side at most 1333."""
    assert scaled_size(480, 640, 800, 1333) == (800, 1067)
    assert scaled_size(427, 640, 800, 1333) == (800, 1199)
    assert scaled_size(640, 320, 800, 1333) == (1333, 667)
    assert scaled_size(10, 5000, 800, None) == (800, 400000)


def test_gain_changes_the_image_alone():
    plain, bright = (epoch(module(augment=augment)) for augment in ({}, {"gain": 0.5}))
    ratios = []
    for one, two in zip(plain, bright, strict=True):
        for before, after, target, same_target in zip(one.images, two.images, one.targets, two.targets, strict=True):
            assert all(torch.equal(target[name], same_target[name]) for name in target)
            uncut = (before > 0) & (after < 1)
            ratios.append(float((after[uncut] / before[uncut]).mean()))
    assert 0.6 < min(ratios) < 0.95 and 1.05 < max(ratios) < 1.66


def test_a_crop_lies_at_every_place_of_an_image():
    augmentation, generator = ObjectAugmentation({"crop_size": 3}), torch.Generator().manual_seed(0)
    places = {augmentation.draw(5, 6, generator).window[:2] for _ in range(300)}
    assert places == {(top, left) for top in range(3) for left in range(4)}


def test_gain_is_cut_at_white():
    augmentation, (pixels, instances) = ObjectAugmentation({"gain": 1.0}), blobs(0, 5)  # up to 250
    draw = augmentation.draw(SIDE, SIDE, torch.Generator().manual_seed(0))
    bright, _ = augmentation.apply(pixels, objects_of(instances), replace(draw, gain=1.5))
    assert np.array_equal(bright, np.minimum(1.5 * pixels.astype(float), 255)) and bright.max() == 255


def test_a_crop_drops_what_it_barely_shows():
    masks = np.zeros((2, 40, 40), np.uint8)
    masks[0, 0:10, 30:34] = 1  # 2 columns of 10 pixels are left
    masks[1, 20:29, 30:40] = 1  # 18 pixels are left
    objects = Objects(boxes_of(masks), np.array([0, 1]), np.array([40.0, 90.0]), np.zeros(2, bool), masks)
    generator = torch.Generator().manual_seed(0)
    draw = ObjectAugmentation({"crop_size": 32}).draw(32, 32, generator)
    assert draw.window == (0, 0, 32, 32)
    _, left = ObjectAugmentation({"crop_size": 32}).apply(np.zeros((40, 40), np.uint8), objects, draw)
    assert left.boxes.tolist() == [[30, 0, 32, 10]] and left.labels.tolist() == [0]
    boxes_alone = replace(objects, masks=None)
    _, left = ObjectAugmentation({"crop_size": 32}).apply(np.zeros((40, 40), np.uint8), boxes_alone, draw)
    assert left.boxes.tolist() == [[30, 0, 32, 10]] and left.masks is None


@pytest.mark.parametrize("side", [1, 4])
def test_a_crop_keeps_what_is_small_and_whole(side):
    """A crop as large as the image drops nothing; one that cuts a small object drops it."""
    masks = np.zeros((3, 40, 40), np.uint8)
    for mask, place in zip(masks, (0, 7, 40 - side), strict=True):
        mask[place : place + side, place : place + side] = 1
    objects = Objects(boxes_of(masks), np.arange(3), np.full(3, side**2, float), np.zeros(3, bool), masks)
    boxes_alone = replace(objects, masks=None)
    for each in (objects, boxes_alone, replace(boxes_alone, boxes=objects.boxes - [0, 0, 0.3, 0.3])):
        assert cropped(each, 0, 0, 40, 40).labels.tolist() == [0, 1, 2]
        assert cropped(each, 3, 2, 30, 30).labels.tolist() == [1]
        assert cropped(each, 0, 0, 40, 7 + side // 2).labels.tolist() == [0]


@pytest.mark.parametrize(("right", "kept"), [(64.4, 0), (65.0, 1)])
def test_a_crop_leaves_no_box_under_a_pixel_wide(right, kept):
    alone = Objects(np.array([[20.0, 0, right, 60]]), np.zeros(1, np.int64), np.ones(1), np.zeros(1, bool), None)
    assert len(cropped(alone, 0, 64, 64, 64)) == len(targets_of(cropped(alone, 0, 64, 64, 64), 64, 64)) == kept


def test_training_leaves_out_crowds_and_what_has_no_extent():
    masks = np.ones((5, 10, 10), np.uint8)
    masks[3] = 0
    boxes = np.array([[0, 0, 5, 5], [0, 0, 5, 5], [2, 2, 2.5, 9], [0, 0, 5, 5], [-3, -2, 12, 4]], float)
    crowd = np.array([False, True, False, False, False])
    objects = targets_of(Objects(boxes, np.arange(5), np.ones(5), crowd, masks), 10, 10)
    assert objects.labels.tolist() == [0, 4]
    assert objects.boxes.tolist() == [[0, 0, 5, 5], [0, 0, 10, 4]]


def test_evaluation_keeps_every_object():
    data = module(of_sizes, eval_batch_size=1, augment={}, shorter_side=64, longest_side=100, batch_size=2)
    batches = list(data.test_dataloader())
    assert [int(batch.targets[0]["image"]) for batch in batches] == list(range(9))
    for row, batch in enumerate(batches):
        (target,) = batch.targets
        objects = data.splits.test.objects(row)
        assert target["boxes"].dtype == torch.float64 and (target["boxes"].numpy() == objects.boxes).all()
        assert (target["masks"].numpy() == objects.masks).all() and target["area"].tolist() == objects.area.tolist()
        assert target["crowd"].tolist() == [False] * len(objects)
        assert min(target["size"]) == 64 or max(target["size"]) == 100


def test_an_image_without_objects_has_empty_targets():
    split = InstanceMaps(np.zeros((2, 32, 32), np.uint8), np.zeros((2, 32, 32), np.int32))
    data = module(lambda: ObjectSplits(split, split, split, ("blob",)), batch_size=2)
    for batch in (*epoch(data), *data.val_dataloader()):
        for target in batch.targets:
            assert (target["boxes"].shape, target["labels"].shape, target["masks"].shape) == ((0, 4), (0,), (0, 32, 32))


# The same batches for everyone


@pytest.mark.parametrize(
    ("source", "changes"),
    [(memory, {"augment": {"crop_size": 32, "dihedral": True, "gain": 0.5}}),
     (of_sizes, {"augment": {"shorter_side": [32, 40, 48], "longest_side": 70, "horizontal_flip": True}})],
)  # fmt: skip
def test_batches_do_not_depend_on_processes_workers_or_interruptions(source, changes):
    alone = epoch(module(source, **changes), 3)
    for world_size in (2, 3):
        parts = [epoch(module(source, rank, world_size, **changes), 3) for rank in range(world_size)]
        for whole, *shares in zip(alone, *parts, strict=True):
            assert torch.equal(whole.images, torch.cat([share.images for share in shares]))
            targets = [target for share in shares for target in share.targets]
            assert all(
                torch.equal(one[name], two[name])
                for one, two in zip(whole.targets, targets, strict=True)
                for name in one
            )
    assert same(alone, epoch(module(source, loader_workers=2, **changes), 3))
    resumed = module(source, **changes, batch_size=2).train_dataloader()
    resumed.load_state_dict({"epoch": 3, "batch": 1})
    assert same(epoch(module(source, **changes, batch_size=2), 3)[1:], list(resumed))
    assert not same(alone, epoch(module(source, **changes), 4))


@pytest.mark.parametrize("off", ["crop_size", "dihedral", "gain", "shorter_side", "longest_side"])
def test_what_is_null_is_off(off):
    assert same(epoch(module(augment={off: None})), epoch(module(augment={})))


def test_wide_and_upright_images_are_in_batches_of_their_own():
    data = module(of_sizes, augment={}, batch_size=2)
    sizes = data.splits.train.sizes  # 5 wide, 4 upright or square: one image is left over each epoch
    batches = [item.global_rows.tolist() for item in data.train_sampler()]
    kinds = [{bool(sizes[row, 1] > sizes[row, 0]) for row in rows} for rows in batches]
    assert len(batches) == 4 and all(len(kind) == 1 for kind in kinds)
    assert len({row for rows in batches for row in rows}) == 8
    mixed = [item.global_rows.tolist() for item in module(of_sizes, augment={}, batch_size=3).train_sampler()]
    assert sorted(row for rows in mixed for row in rows) == list(range(9))  # 2 wide and 1 upright make up a batch


# The bundled sets


def test_nuclei_instances_are_those_of_nuclei():
    objects, masks = (load(ComponentAP(sync_on_compute=False)) for load in (load_nuclei_instances, load_nuclei))
    for name, split in objects.named().items():
        other = masks.named()[name]
        assert len(split) == len(other)
        for row in (0, len(split) - 1):
            assert (split.image(row) == other.images[row, 0].numpy()).all()
            assert (split.objects(row).masks.any(0) == (other.targets[row].numpy() > 0)).all()
    assert sum(len(objects.test.objects(row)) for row in range(2)) == 30
    assert 0 < objects.baselines["otsu_mask_ap"] < objects.baselines["otsu_mask_ap50"] < 1
    assert objects.baselines.items() < masks.baselines.items()


def test_touching_cells_instances_are_those_of_touching_cells():
    arguments = {"train_count": 1, "val_count": 1, "test_count": 1, "size": 64, "cells": 6}
    objects, masks = load_touching_cells_instances(**arguments), load_touching_cells(**arguments)
    for name, split in objects.named().items():
        found, instances = split.objects(0), masks.named()[name].instances[0].numpy()
        numbers = np.arange(1, len(found) + 1)
        assert ((found.masks * numbers[:, None, None].astype(np.uint8)).sum(0) == instances).all()


def test_scenes_are_composed_of_digits_of_their_own_split():
    """Of all 1,797 digits the one that a shown one resembles most is often of its split and class."""
    few = load_digit_scenes(train_count=2, val_count=4, test_count=2, size=96, digits=6)
    more = load_digit_scenes(train_count=3, val_count=4, test_count=2, size=96, digits=6)
    assert (few.train.images == more.train.images[:2]).all()
    splits = load_digits().named()
    origins = [(name, int(target)) for name, split in splits.items() for target in split.targets]
    digits = torch.stack([inked(image[0] / 255) for split in splits.values() for image in split.images])
    hits = []
    for row in range(4):
        image, objects = few.val.image(row), few.val.objects(row)
        assert (objects.masks.sum(0) <= 1).all()
        for mask, box, label in zip(objects.masks, objects.boxes.astype(int), objects.labels, strict=True):
            x0, y0, x1, y1 = box
            shown = torch.from_numpy(np.where(mask, image, 20)[y0:y1, x0:x1] / 255)
            nearest = int((digits @ inked(shown)).argmax())
            hits.append(origins[nearest] == ("val", label))
    assert len(hits) > 10 and np.mean(hits) > 0.3  # by chance 1 of 120, of other splits none


def inked(image: torch.Tensor) -> torch.Tensor:
    """The inked part of an image at 8x8, with mean 0 and length 1."""
    rows, columns = (lines.unique() for lines in torch.nonzero(image > 88 / 255).T)
    part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    vector = F.interpolate(part[None, None], (8, 8), mode="bilinear", antialias=True).flatten()
    return F.normalize(vector - vector.mean(), dim=0)


# Bad arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"turn": 1}}, "unknown augmentation 'turn' of objects; known are crop_size, "),
        ({"augment": {"crop_size": 0}}, "augment.crop_size must be a positive number of pixels .*, got 0"),
        ({"augment": {"crop_size": 41}}, "augment.crop_size must be at most 40, the smallest image's, got 41"),
        ({"augment": {"shorter_side": 800}}, r"augment.shorter_side must be a list of lengths in pixels, as \[800\], got 800"),
        ({"augment": {"shorter_side": [800, "x"]}}, r"augment.shorter_side must be .* got \[800"),
        ({"augment": {}, "longest_side": 1333}, "data.longest_side limits what data.shorter_side scales: give both, or null"),
        ({"augment": {"longest_side": 1333}}, "augment.longest_side limits what augment.shorter_side scales: give both"),
        ({"augment": {"gain": 2}}, "augment.gain must be above 0 and at most 1"),
        ({"augment": {"dihedral": 1}}, "augment.dihedral must be true or false, got 1"),
        ({"source": of_sizes, "augment": {"dihedral": True}}, "augment.dihedral needs square images or a crop_size"),
        ({"num_classes": 2}, "data.num_classes must be 1, the classes of the data, got 2"),
        ({"mean": [0.1] * 3, "std": [0.1] * 3}, "data.mean and data.std need one value per channel, 1,"),
        ({"sha256": "0"}, "these are not the published images and splits"),
        ({"source": partial(load_digit_scenes, 1, 1, 1), "num_classes": 10}, "change what these objects are: leave them out"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        module(**changes)


def test_an_empty_split_is_refused():
    split = InstanceMaps(np.zeros((0, 8, 8), np.uint8), np.zeros((0, 8, 8), np.int32))
    with pytest.raises(ValueError, match="the train split must hold at least one image, got none"):
        ObjectSplits(split, split, split, ("blob",))
