"""Data as people have it, through the command line."""

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
