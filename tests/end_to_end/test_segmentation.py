"""Segmentation from data to pictures: weights, tiles, scores, masks for any image."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from PIL import Image
from support.benchmark_command import command
from support.commands import inspect, records, rows, run_here

from benchmarks.config.compose import expand
from benchmarks.training.checkpoints import weights_sha256
from benchmarks.training.pictures import INVENTED, MISSED, WRONG_CLASS, panels
from benchmarks.training.step_seed import StepSeed
from benchmarks.training.train import check_evaluated
from datamodules.augmentation.elastic import Elastic
from datamodules.augmentation.weight_map import class_weights, weight_maps
from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.splits import Split, Splits
from datamodules.sources.touching_cells import load_touching_cells
from lightning_modules.metrics.overlap import seg
from lightning_modules.metrics.scores import CellScores
from lightning_modules.metrics.stacks import segments
from lightning_modules.nets import UNet
from lightning_modules.segmenter import Segmenter, dihedral_mean

pytestmark = pytest.mark.usefixtures("one_thread")

CELLS = partial(load_touching_cells, train_count=5, val_count=1, test_count=3, size=64, cells=6)
ELASTIC = {"input_size": [64, 64], "output_size": [32, 32], "displacement": 3}
SMALL = (  # touching_cells with few and small images
    *("+data.source.train_count=16", "+data.source.val_count=1", "+data.source.test_count=4", "+data.source.size=64"),
    *("recipe.augment.elastic.input_size=[64,64]", "recipe.augment.elastic.output_size=[64,64]"),
    "data.image_size=[64,64]",
)
OPTIMISER = partial(torch.optim.SGD, lr=0.1)
SCHEDULE = partial(torch.optim.lr_scheduler.ConstantLR)


def cells(tmp_path: Path, border_weights: dict | None) -> InMemoryDataModule:
    augment = {"elastic": ELASTIC, "border_weights": border_weights}
    data = InMemoryDataModule(CELLS, 2, 2, augment, [0.5], [0.25], seed=7, cache_dir=tmp_path)
    data.setup("fit")
    return data


def test_a_batch_is_deformed_and_weighted_as_the_parts_say(tmp_path: Path) -> None:
    data = cells(tmp_path, {"w0": 10, "sigma": 5})
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    rows = next(iter(loader.sampler)).rows
    images, targets, weights, instances = next(iter(loader))
    train = data.splits.train
    maps = weight_maps(train, class_weights(train.targets, 2), tmp_path, w0=10, sigma=5)
    elastic = Elastic(**ELASTIC)
    expected = elastic.apply(train.images[rows], train.targets[rows], maps[rows], elastic.draw(7, 3, rows))
    assert torch.equal(targets, expected.targets.long())
    assert torch.equal(weights, expected.weights)
    torch.testing.assert_close(images, (expected.images / 255 - 0.5) / 0.25)
    assert instances is None
    plain = next(iter(cells(tmp_path, None).train_dataloader()))
    torch.testing.assert_close(plain.weights, torch.ones(2, 32, 32))


def test_crops_and_deformation_do_not_mix() -> None:
    with pytest.raises(ValueError, match="no crop_size beside them"):
        InMemoryDataModule(CELLS, 2, 2, {"elastic": ELASTIC, "crop_size": 32}, [0.5], [0.25], seed=0)


def test_the_weighted_loss_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    module = Segmenter(UNet(1, 2, base_channels=1, depth=1), 2, OPTIMISER, SCHEDULE, None, None)
    logits = torch.randn(2, 2, 4, 4, generator=generator)
    targets = torch.randint(0, 2, (2, 8, 8), generator=generator)
    weights = torch.rand(2, 8, 8, generator=generator)
    expected = torch.zeros(2)
    for n in range(2):
        for y in range(4):
            for x in range(4):  # the target is cropped centrally to the output
                p = logits[n, :, y, x].softmax(0)[targets[n, y + 2, x + 2]]
                expected[n] -= weights[n, y + 2, x + 2] * p.log() / 16
    torch.testing.assert_close(module.loss(logits, targets, weights), expected)
    torch.testing.assert_close(module.loss(logits, targets, None), module.loss(logits, targets, torch.ones(2, 8, 8)))


def test_whole_images_are_scored_by_tiles(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet(1, 2, base_channels=2, depth=2)
    module = Segmenter(net, 2, OPTIMISER, SCHEDULE, CellScores(), {"tile": 60, "batch_size": 2})
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data = cells(tmp_path, None)
    trainer.test(module, datamodule=data, verbose=False)
    test = data.splits.test
    margin = (60 - net.output_size(60, 60)[0]) // 2
    pixels = (test.images / 255 - 0.5) / 0.25
    padded = F.pad(pixels, (margin, margin + 4, margin, margin + 4), mode="reflect")  # 64 + 2 · 20 + 4 is a legal side
    with torch.no_grad():
        found = net(padded)[..., :64, :64].argmax(dim=1).numpy()
    results = np.stack([segments(mask) for mask in found])
    assert trainer.callback_metrics["test/seg"] == pytest.approx(seg(test.instances.numpy(), results))
    hits = 2 * ((found == 1) & (test.targets.numpy() == 1)).sum()
    dice = hits / ((found == 1).sum() + (test.targets.numpy() == 1).sum())
    assert float(trainer.callback_metrics["test/dice"]) == pytest.approx(dice)
    assert len(module.examples) == 3


def test_images_that_were_tested_whole_are_predicted_with_the_same_score(tmp_path: Path) -> None:
    torch.manual_seed(7)  # of whose weights half the pixels are objects
    module = Segmenter(UNet(1, 2, base_channels=2, depth=2, padded=True), 2, OPTIMISER, SCHEDULE, None, None)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data = cells(tmp_path, None)
    trainer.test(module, datamodule=data, verbose=False)
    module.eval()
    pixels = (data.splits.test.images / 255 - 0.5) / 0.25

    def dice(tested: list[int]) -> float:
        found = torch.stack([module.predict(image, whole=tested) for image in pixels]) == 1
        truth = data.splits.test.targets == 1
        return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))

    score = float(trainer.callback_metrics["test/dice"])
    assert 0 < score < 1 and dice([64, 64]) == pytest.approx(score) != pytest.approx(dice([]))


def test_an_unpadded_network_on_whole_images_is_scored_where_it_has_an_output() -> None:
    net = UNet(1, 2, base_channels=2, depth=1)
    module = Segmenter(net, 2, OPTIMISER, SCHEDULE, CellScores(), None).eval()
    test = CELLS().test
    batch = (test.images / 255, test.targets.long(), None, test.instances)
    with torch.no_grad():
        logits = module(batch[0])
    module.update_metrics("test", logits, batch)
    inner = slice(net.border, 64 - net.border)
    results = np.stack([segments(mask) for mask in logits.argmax(dim=1).numpy()])
    expected = seg(test.instances[:, inner, inner].numpy(), results)
    assert float(module.compute_metrics("test")["seg"]) == pytest.approx(expected)


def turned(images: torch.Tensor, symmetry: int) -> torch.Tensor:
    """One of the 8 symmetries of the square, applied to the last two dimensions."""
    mirrored = images.transpose(-2, -1) if symmetry % 2 else images
    return mirrored.rot90(symmetry // 2, (-2, -1))


@pytest.mark.parametrize("tiles", [None, {"tile": 48, "batch_size": 3, "margin": 16}])
def test_the_averaged_prediction_turns_with_the_image(tiles: dict | None) -> None:
    torch.manual_seed(0)
    net = UNet(1, 3, base_channels=2, depth=2, padded=True).double().eval()
    plain, averaged = (Segmenter(net, 3, OPTIMISER, SCHEDULE, None, tiles, dihedral) for dihedral in (False, True))
    images = torch.randn(2, 1, 16, 28, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = averaged.predict_logits(images)
        copies = [plain.predict_logits(turned(images, symmetry)).softmax(1) for symmetry in range(8)]
        # Of the 8 only the two quarter turns (2 and 6 here) are not their own inverse.
        back = [turned(copy, {2: 6, 6: 2}.get(symmetry, symmetry)) for symmetry, copy in enumerate(copies)]
        torch.testing.assert_close(logits.softmax(1), torch.stack(back).mean(0), rtol=0, atol=1e-12)
        for symmetry in range(8):
            of_turned = averaged.predict_logits(turned(images, symmetry))
            torch.testing.assert_close(of_turned, turned(logits, symmetry), rtol=0, atol=1e-12)
            if tiles:
                assert torch.equal(averaged.predict(turned(images[0], symmetry)), turned(logits[0].argmax(0), symmetry))
        assert (copies[1] - turned(copies[0], 1)).abs().max() > 1e-3  # the network alone does not


def test_averaging_counts_the_tiles_of_all_copies_and_stands_in_the_definitions() -> None:
    net = UNet(1, 2, base_channels=2, depth=2, padded=True).eval()
    tiles = {"tile": 48, "batch_size": 1, "margin": 16}
    plain, averaged = (Segmenter(net, 2, OPTIMISER, SCHEDULE, None, tiles, dihedral) for dihedral in (False, True))
    seen: list[tuple[int, int]] = []
    averaged.predict(torch.zeros(1, 16, 32), lambda done, total: seen.append((done, total)))
    assert seen == [(done, 16) for done in range(1, 17)]  # 8 copies of 2 tiles
    assert all(text.endswith("averaged over the 8 symmetries of the square") for text in averaged.definitions.values())
    assert not any("symmetries" in text for text in plain.definitions.values())


def test_averaging_stays_finite_where_a_probability_underflows() -> None:
    logits = dihedral_mean(
        lambda images: torch.cat([1000 * torch.ones_like(images), images], 1), torch.zeros(1, 1, 2, 2)
    )
    assert logits.flatten().tolist() == [0.0] * 4 + [-1000.0] * 4


def test_errors_have_their_colours() -> None:
    image = np.linspace(0, 1, 12).reshape(3, 4)
    truth = np.array([[0, 1, 1, 2]] * 3)
    found = np.array([[1, 0, 1, 1]] * 3)
    picture = panels(image, truth, found)
    assert picture.shape == (3, 4 * 4 + 3 * 4, 3) and picture.dtype == np.uint8
    last = picture[0, -4:]
    assert [tuple(pixel) for pixel in last[[0, 1, 3]].tolist()] == [INVENTED, MISSED, WRONG_CLASS]
    assert len(set(last[2].tolist())) == 1  # right: grey


def test_a_run_leaves_pictures_and_predicts_images_of_any_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "outputs"
    tiny = ("recipe.epochs=2", "recipe.batch_size=16", "model.base_channels=2")  # one step an epoch
    done = run_here("model=unet", "data=touching_cells", *tiny, *SMALL, root=root)
    assert done.returncode == 0, done.stdout
    [directory] = root.glob("*/*/*/seed0")
    [record] = records(root).values()
    assert 0 <= record["metrics"]["test/seg"] <= 1 and "seg" in record["protocol"]["definitions"]
    assert len(list((directory / "pictures").glob("*.png"))) == 4
    assert (root / "report.html").read_text().count('alt="Test images with predictions: ') == 2
    [folder] = (root / "wandb").glob("offline-run-*")
    tracked = inspect(folder)
    history = [line["history"]["item"] for line in tracked if line["type"] == "history"]
    assert [row["val/dice"] for row in history] == [row["val/dice"] for row in rows(directory)]  # no row of pictures
    [pictures] = [
        line["summary"]["update"]["test/pictures"]
        for line in tracked
        if line["type"] == "summary" and "test/pictures" in line["summary"].get("update", {})
    ]
    assert len([name for name in pictures["filenames"] if (folder / "files" / name).is_file()]) == 4

    generator = np.random.default_rng(0)
    image = tmp_path / "odd.png"
    Image.fromarray(generator.integers(0, 256, (75, 133), dtype=np.uint8)).save(image)

    def predict(*arguments: str | Path | int) -> tuple[int, str]:
        capsys.readouterr()
        return command("predict")([*map(str, arguments)]), capsys.readouterr().err

    code, error = predict(directory, image)
    assert code == 0, error
    with Image.open(directory / "predictions" / "odd_mask.png") as mask:
        assert mask.size == (133, 75) and set(np.unique(np.array(mask))) <= {0, 255}
    code, error = predict(directory, image)
    assert code == 2 and "would be overwritten" in error and error.count("\n") == 1
    tested = tmp_path / "tested.png"  # of the size that the run tested whole, and so it is predicted
    Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(tested)
    with monkeypatch.context() as patch:

        def one_size_alone(*arguments: object, **options: object) -> None:
            raise RuntimeError("The size of tensor a (384)\nmust match (64)")

        patch.setattr("lightning_modules.segmenter.predict_by_tiles", one_size_alone)
        code, error = predict(directory, image, tested, "--out", tmp_path / "one")
        assert code == 2 and f"{image}, 75x133 pixels, cannot be predicted (The size of tensor a (384)" in error
        assert "the run's own images are 64x64 at most" in error and error.count("\n") == 1
        assert [path.name for path in (tmp_path / "one").iterdir()] == ["tested_mask.png"]
    code, error = predict(directory, tmp_path / "none.png")
    assert code == 2 and "none.png is missing" in error
    code, error = predict(directory, image, "--out", tmp_path / "huge", "--tile", 1_000_000)
    assert code == 2 and " fits" in error and not (tmp_path / "huge").exists()
    fits = int(error.split()[-2])
    UNet(1, 2, base_channels=2, padded=True).check_image_size(fits, fits)
    code, error = predict(directory, image, tested, "--out", tmp_path / "odd_tile", "--tile", 249)
    assert code == 2 and "--tile 249: " in error and error.count("\n") == 1 and not (tmp_path / "odd_tile").exists()
    assert image.name not in error and tested.name not in error
    code, error = predict(directory, image, "--out", tmp_path / "small", "--tile", 256)
    assert code == 0, error
    (tmp_path / "no.png").write_bytes(b"no image")
    code, error = predict(directory, tmp_path / "no.png", image, "--out", tmp_path / "some")
    assert code == 2 and "no.png cannot be read as an image" in error and (tmp_path / "some" / "odd_mask.png").is_file()
    code, error = predict(tmp_path, image)
    assert code == 2 and "RUN is the folder of a trained run" in error
    code, error = predict(directory, tmp_path)
    assert code == 2 and f"{tmp_path} is a folder: IMAGE is a file, as {tmp_path}/*.png" in error

    def needs(path: Path) -> None:
        raise ImportError(f"{path} is compressed: pip install")

    monkeypatch.setattr("datamodules.readers.tiff_stacks.read_stack", needs)
    pages = [Image.fromarray(np.zeros((9, 9), np.uint8))] * 2
    pages[0].save(tmp_path / "lzw.tif", save_all=True, append_images=pages[1:])
    code, error = predict(directory, tmp_path / "lzw.tif", image, "--out", tmp_path / "without")
    assert code == 2 and "lzw.tif is compressed: pip install" in error and error.count("\n") == 1
    assert (tmp_path / "without" / "odd_mask.png").is_file()


def test_images_that_the_network_does_not_take_whole_are_refused_before_training(tmp_path: Path) -> None:
    folder, root = tmp_path / "slides", tmp_path / "outputs"
    generator = np.random.default_rng(0)
    for part, side in (("train", 32), ("val", 32), ("test", 40)):
        for kind, high in (("images", 256), ("masks", 2)):
            (folder / part / kind).mkdir(parents=True)
            for number in range(2):
                pixels = generator.integers(0, high, (side, side), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / kind / f"{number}.png")
    asked = ("model=unet", "data=image_mask_folder", f"data.root={folder}", "recipe=segmentation")
    tiny = ("recipe.batch_size=2", "recipe.epochs=1", "data.image_size=[32,32]", "model.base_channels=2", "logger=none")
    done = run_here(*asked, *tiny, root=root)
    assert done.returncode == 1
    said = "failed: test images are evaluated whole, without recipe.tiles: an image of 40x40 does not fit this padded U-Net"
    assert said in done.stdout and not list(root.rglob("history.jsonl"))


@pytest.mark.parametrize(("mode", "refused"), [("train", "validation"), ("test", "test")])
def test_every_size_is_looked_at_of_the_splits_that_are_evaluated(mode: str, refused: str) -> None:
    config = {"mode": mode, "data": {"task": "segmentation"}}
    net = UNet(1, 2, base_channels=2, depth=4, padded=True)
    pixels, masks = torch.zeros(2, 1, 64, 64, dtype=torch.uint8), torch.zeros(2, 64, 64, dtype=torch.uint8)
    mixed, fits = Split(pixels, masks, sizes=torch.tensor([[64, 32], [64, 40]])), Split(pixels, masks)

    def check(tiles: dict | None, val: Split, test: Split) -> None:
        module = Segmenter(net, 2, OPTIMISER, SCHEDULE, None, tiles)
        check_evaluated(config, Splits(fits, val, test, ("background", "object")), module)

    with pytest.raises(ValueError, match=f"^{refused} images are evaluated whole, .* an image of 64x40 does not fit"):
        check(None, mixed, mixed)
    check(None, mixed if mode == "test" else fits, fits)
    check({"tile": 48, "batch_size": 1, "margin": 16}, mixed, mixed)


def test_statistics_of_the_training_split_stand_in_where_none_are_given(tmp_path: Path) -> None:
    data = InMemoryDataModule(CELLS, 2, 2, {"elastic": ELASTIC}, None, None, seed=0, cache_dir=tmp_path)
    data.setup("fit")
    pixels = data.splits.train.images.numpy() / 255
    assert data.manifest()["mean"] == pytest.approx([pixels.mean()])
    assert data.manifest()["std"] == pytest.approx([pixels.std()], rel=1e-4)


def trained(cache: Path, seed: int) -> str:
    """Checksum of the weights after an epoch of the configured training, on few and small images."""
    sides = ("augment.elastic.input_size", "augment.elastic.output_size")
    few = (
        "+data.source.train_count=16",
        "+data.source.val_count=1",
        "+data.source.test_count=1",
        "+data.source.size=64",
    )
    overrides = (
        "model=unet",
        "data=touching_cells",
        "model.base_channels=2",
        "model.dropout=0.5",
        "recipe.epochs=1",
        *few,
    )
    [trial] = expand([*overrides, *(f"recipe.{side}=[64,64]" for side in sides), f"seed={seed}"], multirun=False)
    config = trial.config
    assert config["recipe"]["augment"]["border_weights"]["w0"] == 10
    pl.seed_everything(seed, verbose=False)
    data = instantiate(config["datamodule"], cache_dir=cache)
    module = instantiate(config["module"])
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, callbacks=[StepSeed(seed)], logger=False,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    return weights_sha256(module.net.state_dict())


def test_equal_seeds_give_equal_weights_with_deformation_border_weights_and_dropout(tmp_path: Path) -> None:
    first = trained(tmp_path, 0)
    torch.rand(7)  # what happened before in the process is no part of it
    assert trained(tmp_path, 0) == first
    assert trained(tmp_path, 1) != first
