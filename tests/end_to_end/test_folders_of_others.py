"""Data as people have it, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.benchmark_command import command
from support.commands import records, run
from support.data_files import cifar_pickles, write_binary

pytestmark = pytest.mark.slow
QUICK = ("logger=none", "recipe.epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu")
UNET = (
    *("model=unet", "data=image_mask_folder", "model.base_channels=2", "recipe.tiles.tile=128", *QUICK),
    *("recipe.augment.elastic.input_size=[32,32]", "recipe.augment.elastic.output_size=[32,32]"),
    "data.image_size=[32,32]",
)


def write_folder(root: Path) -> Path:
    """Six images of several sizes, grey and colour, with masks of three classes named x_seg.png, one without objects."""
    random = np.random.RandomState(0)
    for number, size in enumerate([(40, 60), (64, 50), (33, 47), (40, 60), (70, 35), (52, 52), (40, 41)]):
        mask = np.zeros(size, dtype=np.uint8)
        if number != 3:
            mask[5:20, 5:20], mask[22:30, 10:30] = 1, 2
        image = (random.randint(0, 60, size) + 60 * mask).astype(np.uint8)
        for kind, name, pixels in (
            ("images", f"{number}.png", np.stack([image] * 3, -1) if number % 2 else image),
            ("masks", f"{number}_seg.png", mask),
        ):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / name)
    (root / "images" / ".DS_Store").write_bytes(b"x")
    return root


def test_a_folder_of_mixed_images_trains_and_predicts(tmp_path: Path) -> None:
    folder, root = write_folder(tmp_path / "slides"), tmp_path / "outputs"
    asked = (*UNET, f"data.root={folder}", "data.num_classes=3", "data.mask_suffix=_seg", "data.in_channels=3")
    done = run(*asked, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    [directory] = root.glob("*/*/*/seed0")
    [record] = records(root).values()
    assert record["metrics"]["test/n"] == 2 and record["dataset"]["classes"] == ["background", "1", "2"]
    notes = record["dataset"]["notes"]
    assert "4 of 7 images are grey and become RGB" in notes and "1 of 7 masks are all background" in notes
    assert "1 stray files skipped" in notes and "of the training pixels" in notes
    assert command("predict")([str(directory), str(folder / "images" / "2.png"), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "2_mask.png") as mask:
        assert mask.size == (47, 33) and set(np.unique(np.array(mask))) <= {0, 127, 255}
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "images" / "2.png") as image:
        image.save(tmp_path / "turned.png", exif=exif)
    assert command("predict")([str(directory), str(tmp_path / "turned.png"), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "turned_mask.png") as mask:
        assert mask.size == (33, 47) and 0x0112 not in mask.getexif()


@pytest.mark.parametrize(("first", "share"), [("white", 98), ("black", 2)])
def test_masks_are_read_as_they_are_shown_and_16_bits_are_predicted_from_as_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: str, share: int
) -> None:
    """Palette PNG with the same two values stored, and white for the one or for the other; images of 16 bits."""
    random = np.random.RandomState(0)
    for number in range(6):
        stored = np.zeros((50, 50), dtype=np.uint8)
        stored[10:15, 10:20] = 1  # 2 %
        mask = Image.fromarray(stored).copy()
        mask.putpalette([255, 255, 255, 0, 0, 0] if first == "white" else [0, 0, 0, 255, 255, 255])
        deep = Image.fromarray(random.randint(500, 4000, (50, 50)).astype(np.uint16))
        for kind, image in (("images", deep), ("masks", mask)):
            (tmp_path / "slides" / kind).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "slides" / kind / f"{number}.png")
    done = run(*UNET, f"data.root={tmp_path / 'slides'}", root=tmp_path / "outputs")
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = records(tmp_path / "outputs").values()
    assert f"foreground {share}.0 % of the training pixels" in record["dataset"]["notes"]
    assert (f"{share} % of the training pixels are foreground" in done.stdout) == (share > 50)
    low, high = record["dataset"]["grey_range"]
    assert 500 <= low < 550 and 3950 < high < 4000
    [directory] = (tmp_path / "outputs").glob("*/*/*/seed0")
    predict = [str(directory), str(tmp_path / "slides" / "images" / "0.png"), "--out"]
    assert command("predict")([*predict, str(tmp_path / "one")]) == 0
    assert "range of grey values" not in capsys.readouterr().err
    del record["dataset"]["grey_range"]
    (directory / "record.json").write_text(json.dumps(record))
    assert command("predict")([*predict, str(tmp_path / "two")]) == 0
    assert "the run has no range of grey values from training" in capsys.readouterr().err


def test_cifar10_as_torchvision_leaves_it_trains(tmp_path: Path) -> None:
    write_binary(tmp_path / "data" / "cifar-10-batches-py", cifar_pickles())
    counts = [
        f"+data.source.{key}={value}" for key, value in (("train_count", 200), ("test_count", 50), ("val_count", 20))
    ]
    asked = ("data=cifar10", "model=resnet", "model.depth=8", *QUICK, *counts)
    done = run(*asked, f"data.root={tmp_path / 'data'}", root=tmp_path / "outputs")
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = records(tmp_path / "outputs").values()
    assert record["counts"] == {"train": 180, "val": 20, "test": 50}


def test_what_is_there_is_named_with_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").write_bytes(b"x")
    done = run("data=cifar10", "model=resnet", f"data.root={tmp_path / 'data'}", *QUICK, root=tmp_path / "outputs")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "holds no CIFAR-10, it holds photo.jpg; put cifar-10-binary.tar.gz" in done.stdout
