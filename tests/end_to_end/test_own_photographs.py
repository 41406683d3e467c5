"""A practitioner's own photographs, from the command to the classes of new ones."""

import csv
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from support.benchmark_command import command
from support.commands import records, run_here
from support.data_files import photographs

from benchmarks.records.files import read_config
from benchmarks.training.weights import checkpoint_weights

QUICK = (  # a small network and small images
    "logger=none",
    *("model=resnet", "model.depth=18", "model.block=basic", "model.stride_in=3x3"),
    *("data.image_size=[32,32]", "recipe.epochs=8"),
)


def test_two_folders_of_twenty_photographs_train_and_new_ones_are_classified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = photographs(tmp_path / "my pets", {"=cats": 20, "dogs": 20})
    root = tmp_path / "outputs"
    done = run_here("data=image_folder", f"data.root={pets.parent}/my\\ pets", *QUICK, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = records(root).values()
    assert (record["data"], record["recipe"]) == ("image_folder_my-pets", "image_folder")
    assert record["dataset"]["classes"] == ["=cats", "dogs"]
    assert record["counts"] == {"train": 28, "val": 6, "test": 6} and record["metrics"]["test/n"] == 6
    assert record["metrics"]["test/top1_err"] == 0  # red and green
    assert "val and test drawn from my pets by a hash of file names" in record["dataset"]["notes"]
    page = (root / "report.html").read_text()
    assert "image_folder_my-pets" in page

    [directory] = root.glob("*/*/*/seed0")
    photographs(tmp_path / "new", {"a": 2, "b": 1})
    images = [tmp_path / "new" / name for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg")]
    assert command("predict")([str(directory), *map(str, images)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].split()[0] for line in printed[:3]] == ["=cats", "=cats", "dogs"]
    with (directory / "predictions" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["'=cats", "'=cats", "dogs"]  # no formula
    assert all(float(row["'=cats"]) + float(row["dogs"]) == pytest.approx(1, abs=1e-5) for row in rows)
    (tmp_path / "damaged.jpg").write_bytes(images[0].read_bytes()[:300])
    some = [str(images[0]), str(tmp_path / "damaged.jpg"), str(images[2]), "--out", str(tmp_path / "some")]
    assert command("predict")([str(directory), *some]) == 2
    error = capsys.readouterr().err
    assert "damaged.jpg cannot be read as an image" in error and error.count("\n") == 1
    with (tmp_path / "some" / "classes.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(images[0]), str(images[2])]
    for arguments, message in (
        ([str(images[0])], "classes.csv would be overwritten"),
        ([str(images[0]), "--tile", "64", "--out", str(tmp_path)], "--tile is of segmentation"),
    ):
        assert command("predict")([str(directory), *arguments]) == 2
        assert message in capsys.readouterr().err

    # Its weights on other images of these classes: standardised as in training, and as predict does.
    dark = photographs(tmp_path / "dark", {"=cats": 4, "dogs": 4})
    for path in dark.glob("*/*.jpg"):
        Image.open(path).point(lambda value: value // 2).save(path, quality=95)
    weights = ("mode=test", f'weights="{directory}/checkpoints/last.ckpt"', "data=image_folder", *QUICK)
    tested = run_here(*weights, f"data.root={dark}", root=tmp_path / "tested")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    [other_record] = records(tmp_path / "tested").values()
    assert [other_record["dataset"][key] for key in ("mean", "std")] == [
        record["dataset"][key] for key in ("mean", "std")
    ]

    # Another folder of the same name is another data set.
    other = photographs(tmp_path / "elsewhere" / "my pets", {"cats": 4, "dogs": 4})
    Image.new("RGB", (50, 50)).save(other / "cats" / "black.png")
    again = run_here("data=image_folder", f"data.root={other.parent}/my\\ pets", *QUICK, root=root)
    assert again.returncode != 0 and "choose another data.name or output_root" in again.stdout


def test_a_run_that_asks_for_each_class_predicts_a_probability_of_its_own_for_each(tmp_path: Path) -> None:
    pets, root = photographs(tmp_path / "pets", {"cats": 6, "dogs": 6, "emus": 6}), tmp_path / "outputs"
    short = ("recipe.epochs=1", "recipe.binary_cross_entropy=true")
    done = run_here("data=image_folder", f"data.root={pets}", *QUICK, *short, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = records(root).values()
    [directory] = root.glob("*/*/*/seed0")
    images = [pets / name / "0.jpg" for name in ("cats", "dogs", "emus")]
    assert command("predict")([str(directory), *map(str, images)]) == 0
    with (directory / "predictions" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    config, dataset = read_config(directory, {}), record["dataset"]
    module = instantiate(config["module"]).eval()
    module.load_state_dict(checkpoint_weights(directory / "checkpoints" / "last.ckpt", module)[0])
    data = instantiate(config["datamodule"], mean=dataset["mean"], std=dataset["std"])
    with torch.no_grad():
        logits = torch.cat([module(data.read_view(image, [3, 32, 32])[None]) for image in images])
    written = torch.tensor([[float(row[name]) for name in dataset["classes"]] for row in rows])
    torch.testing.assert_close(written, logits.sigmoid(), rtol=0, atol=1e-5)
    assert [row["class"] for row in rows] == [dataset["classes"][best] for best in logits.argmax(dim=1)]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ((), "data.root={root} is no folder: it holds a folder of images for each class"),
        (("cats",), "data.root={root} must hold a folder of images for each of two classes or more; {root} holds 1"),
        (("train/cats", "val/dogs"), "{root}/train holds 1"),
    ],
)
def test_a_folder_without_classes_is_refused_before_the_start(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    root = tmp_path / "pets"
    for name in folders:
        (root / name).mkdir(parents=True)
    done = run_here("data=image_folder", f"data.root={root}", root=tmp_path / "outputs")
    assert done.returncode == 2 and message.format(root=root) in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("link", ["emus", "train/emus", "test"])
def test_a_class_or_part_that_leads_nowhere_is_named_before_the_start(tmp_path: Path, link: str) -> None:
    root = photographs(tmp_path / "pets", {"cats": 3, "dogs": 3})
    if link != "emus":
        root = photographs(tmp_path / "parts" / "train", {"cats": 3, "dogs": 3}).parent
    (root / link).symlink_to("/nowhere/x")
    done = run_here("data=image_folder", f"data.root={root}", root=tmp_path / "outputs")
    said = f"{root / link} is a link to /nowhere/x, which is not there"
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "outputs").exists()
