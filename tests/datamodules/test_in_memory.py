"""The datamodule of the data sets that fit in memory."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from support.data_files import CONF, REAL_FASHION_MNIST, one_line
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.splits import Split, Splits
from datamodules.sources.digits import load_digits
from datamodules.sources.fashion_mnist import load_fashion_mnist
from datamodules.sources.nuclei import load_nuclei

TILE = {"input_size": [8, 8], "output_size": [8, 8]}


def small_splits() -> Splits:
    """21, 7 and 5 images of 3x8x8."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % 2)

    return Splits(split(21), split(7), split(5), classes=("a", "b"), notes="made up")


def small_masks() -> Splits:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        masks = torch.randint(2, (count, 16, 16), dtype=torch.uint8, generator=generator)
        return Split(masks[:, None] * 255, masks)

    return Splits(split(12), split(3), split(3), classes=("background", "nucleus"))


def datamodule(rank: int = 0, world_size: int = 1, **changes) -> InMemoryDataModule:
    arguments = {
        "source": small_splits,
        "batch_size": 6,
        "eval_batch_size": 2,
        "augment": {"crop_padding": 2, "horizontal_flip": True},
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "seed": 0,
    }
    module = InMemoryDataModule(**{**arguments, **changes})
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)
    module.setup()
    return module


def epoch_of(module: InMemoryDataModule, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [(batch.images, batch.targets) for batch in loader]


MASKS = {"source": small_masks, "augment": {"crop_size": 8, "dihedral": True}, "mean": [0.0], "std": [1.0]}


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("changes", [{}, MASKS], ids=["classes", "masks"])
def test_training_batches_do_not_depend_on_the_world_size(world_size, changes):
    expected = epoch_of(datamodule(**changes), epoch=2)
    ranks = [epoch_of(datamodule(rank, world_size, **changes), epoch=2) for rank in range(world_size)]
    for whole, *parts in zip(expected, *ranks, strict=True):
        assert torch.equal(torch.cat([images for images, _ in parts]), whole[0])
        assert torch.equal(torch.cat([targets for _, targets in parts]), whole[1])


def test_augmentation_is_fresh_in_every_epoch_and_batch():
    same = Split(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(64, 1, 1, 1), torch.zeros(64).long())
    source = Splits(same, same, same, classes=("a",))
    module = datamodule(source=lambda: source, batch_size=32, mean=[0.5], std=[0.2])
    batches = [images for epoch in (0, 1) for images, _ in epoch_of(module, epoch)]
    assert len(batches) == 4
    assert all(not torch.equal(batches[a], batches[b]) for a in range(4) for b in range(a))
    assert torch.equal(batches[2], epoch_of(module, epoch=1)[0][0])


def test_masks_stay_with_their_images():
    for images, targets in epoch_of(datamodule(**MASKS), epoch=0):
        assert images.shape == (6, 1, 8, 8) and images.dtype == torch.float32
        assert targets.shape == (6, 8, 8) and targets.dtype == torch.int64
        assert torch.equal(images[:, 0], targets.float())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_is_every_image_once_normalised_in_order(world_size):
    splits = small_splits()
    for name, split in (("val", splits.val), ("test", splits.test)):
        modules = [datamodule(rank, world_size) for rank in range(world_size)]
        batches = [batch for module in modules for batch in getattr(module, f"{name}_dataloader")()]
        images = torch.cat([batch[0] for batch in batches])
        mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
        expected = (split.images.double() / 255 - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(images.double(), expected, atol=1e-5, rtol=0)
        assert torch.cat([batch[1] for batch in batches]).tolist() == split.targets.tolist()


@pytest.mark.parametrize("off", ["elastic", "border_weights", "crop_padding", "horizontal_flip", "gain"])
def test_what_is_null_is_off(off):
    batches = epoch_of(datamodule(augment={off: None}), 0)
    plain = epoch_of(datamodule(augment={}), 0)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(batches, plain, strict=True))


def test_the_manifest_identifies_the_data():
    manifest = datamodule().manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest == {
        "counts": {"train": 21, "val": 7, "test": 5},
        "classes": ["a", "b"],
        "sha256": small_splits().checksum(),
        "image_shape": [3, 8, 8],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "notes": "made up",
        "baselines": {},
    }


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("digits", load_digits),
        ("nuclei", load_nuclei),
        pytest.param(
            "fashion_mnist",
            lambda: load_fashion_mnist(REAL_FASHION_MNIST),
            marks=pytest.mark.skipif(not REAL_FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist"),
        ),
    ],
)
def test_published_sets_are_those_of_their_configuration(name, source):
    data = yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())
    facts = {key: data[key] for key in ("mean", "std", "num_classes", "sha256")}
    splits = source()
    assert datamodule(source=lambda: splits, augment={}, **facts).manifest()["sha256"] == data["sha256"]

    # One value of one image is enough.
    splits.test.images[-1, -1, -1, -1] ^= 1
    with pytest.raises(ValueError, match=f"checksum must be {data['sha256']}, got ") as error:
        datamodule(source=lambda: splits, augment={}, **facts)
    assert "data.sha256=null" in one_line(error)


def test_the_source_is_called_once():
    calls = []
    module = datamodule(source=lambda: calls.append(1) or small_splits())
    module.setup("test")
    module.manifest()
    list(module.train_dataloader())
    assert calls == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.5]}, "one value per channel, 3, got 1 and 3"),
        ({"num_classes": 3}, "data.num_classes must be 2, the classes of the data, got 3"),
        ({"augment": {"dihedral": True}}, "are for masks"),
        ({"augment": {"mixup": 1}}, "unknown augmentation 'mixup'"),
        ({"augment": {"elastic": "x"}}, "augment.elastic takes input_size and output_size, as .*; got x"),
        (
            {"augment": {"elastic": None, "border_weights": {}}},
            "border_weights is of the tiles that augment.elastic cuts",
        ),
        ({"augment": {"elastic": {"input_size": [8, 8]}}}, "augment.elastic takes input_size and output_size, as"),
        ({"augment": {"elastic": TILE | {"scale": 2}}}, "augment.elastic takes .*; got .*'scale': 2"),
        ({"augment": {"elastic": TILE | {"rotation": "x"}}}, "augment.elastic takes .*; got .*'rotation': 'x'"),
        (
            {"augment": {"elastic": TILE, "border_weights": True}},
            "border_weights takes numbers as w0 and sigma, or is null",
        ),
        ({"augment": {"elastic": TILE, "border_weights": {"w": 1}}}, "border_weights takes numbers as w0 and sigma"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(changes, message):
    with pytest.raises(ValueError, match=message):
        datamodule(**changes)


@pytest.mark.parametrize(
    ("augment", "shape"),
    [
        ({"horizontal_flip": True}, [1, 16, 16]),
        ({"crop_size": 12, "dihedral": True}, [1, 12, 12]),
        ({"elastic": {"input_size": [24, 20], "output_size": [16, 12]}}, [1, 24, 20]),
    ],
    ids=["whole", "crops", "tiles"],
)
def test_what_is_trained_on_has_the_shape_for_which_compute_is_counted(augment, shape):
    module = InMemoryDataModule(small_masks, 2, 2, augment, [0.5], [0.5], 0)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert module.training_shape() == list(batch.images.shape[1:]) == shape


class LargeFloats(TorchDispatchMode):
    """Notes the memory of every float64 array of so many numbers that is made."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.places = count, set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64 and result.numel() >= self.count:
            self.places.add(result.data_ptr())
        return result


def test_statistics_of_the_training_images_take_no_copy_of_them_in_float64():
    module = datamodule(mean=None, std=None)
    module.mean = module.std = ()
    pixels = module.splits.train.images.double().numpy() / 255
    with LargeFloats(pixels.size) as made:
        module.setup()
    assert not made.places
    assert module.mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-14)
    assert module.std == pytest.approx(pixels.std((0, 2, 3), ddof=1), rel=1e-13)


@pytest.mark.parametrize("value", [0, 37, 255])
def test_a_channel_of_one_value_becomes_zero(value):
    def splits(varying: tuple[int, ...]) -> Splits:
        made = small_splits()
        for split in made.named().values():
            split.images[:, [channel for channel in range(3) if channel not in varying]] = value
        return made

    module = datamodule(source=lambda: splits((1,)), mean=None, std=None, augment={})
    (batch, *_) = (images for images, _ in epoch_of(module, 0))
    assert batch[:, [0, 2]].abs().max() < 1e-6 and batch[:, 1].std() == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="the training images must vary, all their pixels are of one grey value"):
        datamodule(source=lambda: splits(()), mean=None, std=None)


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of the 4 processes, got 6"):
        datamodule(world_size=4).train_dataloader()
    with pytest.raises(ValueError, match="6 processes needs at least as many images, got 5"):
        datamodule(world_size=6).test_dataloader()


class Recorder(pl.LightningModule):
    """Trains one weight and keeps every batch that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[float]]] = []
        self.evaluated = 0

    def training_step(self, batch, batch_idx):
        images = batch[0]
        self.seen.append((self.current_epoch, images.sum((1, 2, 3)).tolist()))
        return (self.weight * images.mean()).square()

    def validation_step(self, batch, batch_idx):
        self.evaluated += len(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lightning_resumes_with_the_batches_of_the_next_epoch(tmp_path):
    def fit(epochs: int, checkpoint: Path | None = None) -> tuple[Recorder, pl.Trainer]:
        module, data = Recorder(), datamodule()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", use_distributed_sampler=False, enable_model_summary=False, **quiet
        )
        trainer.fit(module, data, ckpt_path=checkpoint)
        return module, trainer

    whole, _ = fit(3)
    assert [epoch for epoch, _ in whole.seen] == [0] * 3 + [1] * 3 + [2] * 3
    # Two batches of the sanity check (2 images each), then 7 images an epoch.
    assert whole.evaluated == 4 + 3 * 7
    _, trainer = fit(2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed, _ = fit(3, checkpoint=tmp_path / "two.ckpt")
    assert resumed.seen == whole.seen[6:]
