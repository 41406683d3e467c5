"""Detection from data to record: killed, on two processes, and what a record says of its compute."""

import base64
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from hydra.utils import instantiate
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.commands import ROOT, run, run_here
from support.forked_trials import outcome
from support.plans import Plan, die
from support.wandb_server import WandbServer

from benchmarks.__main__ import main
from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from datamodules.sources.coco import load_coco_folder
from datamodules.sources.nuclei import load_nuclei_instances
from lightning_modules.detector import Detector

TINY = [
    "model=mask_rcnn", "data=nuclei_instances", "recipe.batch_size=2", "recipe.epochs=1", "recipe.augment.crop_size=64",
    "model.backbone.base_channels=8", "model.pyramid=16", "model.post_nms=[40,40]",
]  # fmt: skip
FOLDER = [
    *(override for override in TINY if not override.startswith("data=")), "data=coco_folder", "data.num_classes=2",
    "data.in_channels=1", "data.mean=[0.1]", "data.std=[0.08]", "data.image_size=[64,64]", "data.shorter_side=null",
    "data.longest_side=null", "recipe=mask_rcnn_nuclei_instances", "model/variant@model=mask_rcnn_nuclei_instances",
    "backbone/variant@model.backbone=resnet_nuclei_instances",
]  # fmt: skip
SAVED = "after Checkpoints.on_train_batch_end"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Runs of one and of two processes, undisturbed and killed in their fourth step."""
    folder = tmp_path_factory.mktemp("detection")
    write_coco_folder(folder / "objects")
    write_coco_folder(folder / "half")
    without_objects(folder / "half", trained_on(folder / "half")[0])
    epochs = [*(override for override in FOLDER if "epochs" not in override), "recipe.epochs=2", "data.keep_empty=true"]
    runs = {
        **{"one": (TINY, 1), "two": (TINY, 2), "folder": ([*FOLDER, f"data.root={folder / 'objects'}"], 1)},
        "half": ([*epochs, f"data.root={folder / 'half'}"], 2),
    }
    plan = Plan(folder, runs)
    for name in plan.runs:
        plan.add(name, name, None)
    for name in ("one", "two"):
        plan.add(f"{name} killed", name, die(SAVED, 3), None)
    return plan.run()


def write_coco_folder(folder: Path) -> None:
    """Six crops of nuclei in two categories, whose ids have a gap, in the form that COCO's files have."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    train = load_nuclei_instances().train
    for number, row in enumerate(range(0, 72, 12)):
        pixels, objects = train.image(row), train.objects(row)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        height, width = pixels.shape
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for box, mask, area in zip(objects.boxes, objects.masks, objects.area, strict=True):
            encoded = rle.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": number, "category_id": (7, 90)[len(annotations) % 2]},
                    **{"iscrowd": 0, "area": float(area), "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]},
                    "segmentation": encoded | {"counts": encoded["counts"].decode()},
                }
            )
    categories = [{"id": 7, "name": "odd"}, {"id": 90, "name": "even"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def trained_on(folder: Path) -> list[int]:
    """The ids of the images that a folder is trained on."""
    rows: list[int] = load_coco_folder(
        folder, "annotations.json", "images", 1, 2, 2, keep_empty=True
    ).train.rows.tolist()
    return rows


def without_objects(folder: Path, image: int) -> None:
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != image]
    path.write_text(json.dumps(content))


def test_one_of_two_processes_trains_on_an_image_without_objects(ended: dict[str, dict[str, Any]]) -> None:
    """Two images, a process each, one of them empty: no parameter without a gradient, which would end the second step."""
    directory = Path(ended["half"]["directory"])
    assert len(trained_on(directory.parent / "objects")) == 2
    assert len(load_coco_folder(directory.parent / "half", "annotations.json", "images", 1, 2, 2).train) == 1
    record = json.loads((directory / "record.json").read_text())
    assert ended["half"]["status"] == "ok" and record["parallel"]["world_size"] == 2, ended["half"]
    rows = outcome(directory)["rows"]
    assert [row["samples_seen"] for row in rows] == [2, 4] and record["compute"]["processed"]["positives"] > 0
    for row in rows:
        assert all(
            math.isfinite(row[f"train/loss_{name}"]) for name in ("rpn_cls", "rpn_reg", "box_cls", "box_reg", "mask")
        )


def test_pictures_of_objects_reach_the_page_and_wandb(
    ended: dict[str, dict[str, Any]], server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "outputs"
    directory = root / "nuclei_instances" / "mask_rcnn" / "tiny" / "seed0"
    shutil.copytree(ended["one"]["directory"], directory)
    config = yaml.safe_load((directory / "config.yaml").read_text())
    limits = {"init_timeout": 20, "finish_timeout": 20}
    config["logger"] = {"mode": "offline", "project": "p", "entity": None, **limits}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    pictures = [path.read_bytes() for path in sorted((directory / "pictures").iterdir())]
    assert len(pictures) == 2  # an image of the test each

    assert main(["wandb", "sync", str(root)]) == 0, capsys.readouterr()
    record = json.loads((directory / "record.json").read_text())
    run_id, processed = record["run_id"], record["compute"]["processed"]
    sent = [content for path, content in server.storage.items() if path.startswith(f"run/p/{run_id}/media/images")]
    assert sorted(sent) == sorted(pictures)
    summary = server.runs["p", run_id].summary
    assert summary["test/pictures"]["count"] == 2
    assert {name: summary[f"compute/processed/{name}"] for name in processed} == processed

    # The page shows those of whole trainings; `one` was cut short.
    whole = tmp_path / "page" / "nuclei_instances" / "mask_rcnn_resnet18_fpn64" / "mask_rcnn_nuclei_instances" / "seed0"
    shutil.copytree(ROOT / "docs" / "evidence" / "detection" / whole.relative_to(tmp_path / "page"), whole)
    shutil.copytree(directory / "pictures", whole / "pictures")
    assert main(["report", str(tmp_path / "page")]) == 0, capsys.readouterr()
    page = (tmp_path / "page" / "report.html").read_text()
    assert "detected, with scores" in page
    assert all(base64.b64encode(picture).decode() in page for picture in pictures)


@pytest.mark.parametrize("processes", ["one", "two"])
def test_a_killed_detector_goes_on_to_the_same_weights(ended: dict[str, dict[str, Any]], processes: str) -> None:
    undisturbed, killed = ended[processes], ended[f"{processes} killed"]
    assert undisturbed["status"] == killed["status"] == "ok", killed
    assert killed["resumptions"] and not undisturbed["resumptions"]
    assert outcome(Path(killed["directory"])) == outcome(Path(undisturbed["directory"]))


def test_two_processes_learn_from_the_same_images_and_regions(ended: dict[str, dict[str, Any]]) -> None:
    one, two = (outcome(Path(ended[name]["directory"])) for name in ("one", "two"))
    assert one["rows"][-1]["samples_seen"] == two["rows"][-1]["samples_seen"] == 12
    # Batch statistics are those of a process, here of two images or of one.
    assert two["rows"][-1]["train/loss"] == pytest.approx(one["rows"][-1]["train/loss"], rel=0.3)
    assert one["metrics"]["test/n"] == two["metrics"]["test/n"] == 2


def test_a_record_has_the_regions_that_were_computed_and_the_compute_of_them(ended: dict[str, dict[str, Any]]) -> None:
    directory = Path(ended["one"]["directory"])
    record = json.loads((directory / "record.json").read_text())
    assert record["name"] == "mask_rcnn_resnet18_fpn16" and record["task"] == "detection"
    compute = record["compute"]
    each = {part["counted_by"]: part["train_macs"] for part in record["complexity"]["parts"]}
    regions = sum(count * each[name] for name, count in compute["processed"].items())
    # The recipe's crop is of 64 pixels here and the data's of 128: what was computed counts, not what was foreseen.
    assert regions < compute["train_macs"] < regions + 12 * each["images"]
    assert compute["train_flops"] == 2 * compute["train_macs"]
    assert 12 * 64 >= compute["processed"]["regions"] > compute["processed"]["positives"] > 0
    assert record["protocol"]["metric"] == "test/mask_ap_err"
    assert record["metrics"]["test/n"] == 2 and {"test/box_ap50", "test/mask_ap75"} <= set(record["metrics"])
    assert list(directory.glob("pictures/*.png"))


def test_a_detector_finds_objects_in_any_image(
    ended: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, out = Path(ended["one"]["directory"]), tmp_path / "out"
    images = [tmp_path / "000000000139.png", tmp_path / "odd.png"]
    pixels = load_nuclei_instances().test.image(0)[:75, :93]
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(images[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(pixels).save(images[1], exif=exif)
    (tmp_path / "no.png").write_bytes(b"no image")
    assert predict(directory, tmp_path / "no.png", *images, "--out", out) == 2
    said = capsys.readouterr().err
    assert "no.png cannot be read as an image" in said
    assert "1 of 2 images were turned as their camera noted (EXIF): results are in pixels of the turned image" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "000000000139_objects.png",
        "odd_objects.png",
        "results.json",
    ]
    results = json.loads((out / "results.json").read_text())
    sizes = {139: [75, 93], "odd": [93, 75]}
    for result in results:
        assert result["category_id"] == 1 and result["segmentation"]["size"] == sizes[result["image_id"]]
        assert rle.decode(result["segmentation"]).shape == tuple(sizes[result["image_id"]])
    assert results and {result["image_id"] for result in results} <= {139, "odd"}

    tifffile.imwrite(tmp_path / "stack.tif", np.arange(2 * 32 * 32, dtype=np.uint16).reshape(2, 32, 32))
    twin = images[0].with_suffix(".bmp")
    Image.open(images[0]).save(twin)
    capsys.readouterr()
    for arguments, message in (
        ((images[0], "--out", out), "would be overwritten"),
        ((images[0], twin, "--out", tmp_path / "new"), f"{images[0]} and {twin} would both give {tmp_path}/new/0000"),
        ((images[0], "--out", tmp_path / "new", "--tile", 64), "--tile is of segmentation"),
        ((tmp_path / "stack.tif", "--out", tmp_path / "new"), "stack.tif must hold one image, got 2 slices"),
    ):
        assert predict(directory, *arguments) == 2
        assert message in capsys.readouterr().err


def test_an_image_that_does_not_go_through_the_network_leaves_the_others_their_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [trial] = expand([*TINY, "recipe.backbone_weights=null"], multirun=False)
    assert isinstance(trial, Trial)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(trial.config))
    torch.save({"state_dict": instantiate(trial.config["module"]).state_dict()}, tmp_path / "checkpoints" / "last.ckpt")
    dataset = {"mean": [0.1], "std": [0.1], "classes": ["nucleus"]}
    (tmp_path / "record.json").write_text(json.dumps({"dataset": dataset}))
    images = [tmp_path / name for name in ("first.png", "huge.png", "last.png")]
    for image in images:
        Image.fromarray(np.zeros((64, 64 if image.stem != "huge" else 256), np.uint8)).save(image)
    detect = Detector.detect

    def of_small_ones(self: Detector, batch: torch.Tensor, targets: Any) -> Any:
        if batch.shape[-1] > 128:
            raise RuntimeError("can't allocate memory\nby the allocator")
        return detect(self, batch, targets)

    monkeypatch.setattr(Detector, "detect", of_small_ones)
    assert predict(tmp_path, *images, "--out", tmp_path / "out") == 2
    assert f"{images[1]} cannot be predicted (can't allocate memory" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["first_objects.png", "last_objects.png", "results.json"]


def test_two_images_of_one_id_are_refused_before_the_network_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"task": "detection", "num_classes": 1, "in_channels": 1, "image_size": [8, 8]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data, "module": {}, "datamodule": {}}))
    (tmp_path / "checkpoints").mkdir()
    images = [tmp_path / name for name in ("1.png", "2.png", "01.png")]
    for path in (tmp_path / "checkpoints" / "last.ckpt", *images):
        path.touch()
    assert predict(tmp_path, *images) == 2
    said = capsys.readouterr().err
    assert f"{images[0]} and {images[2]} would both give image_id 1: predict each" in said and said.count("\n") == 1


def test_a_folder_in_cocos_form_is_trained_on_and_its_results_have_its_ids(
    ended: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    directory = Path(ended["folder"]["directory"])
    record = json.loads((directory / "record.json").read_text())
    assert record["dataset"]["counts"] == {"train": 2, "val": 2, "test": 2}
    assert record["dataset"]["classes"] == ["odd", "even"] and record["metrics"]["test/n"] == 2
    objects = directory.parent / "objects"
    assert predict(directory, *sorted((objects / "images").iterdir()), "--out", tmp_path) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {result["category_id"] for result in results} == {7, 90}
    found = COCO(str(objects / "annotations.json")).loadRes(str(tmp_path / "results.json"))
    assert found.annToMask(found.loadAnns(found.getAnnIds())[0]).shape == (160, 160)


def test_a_test_image_that_is_put_right_costs_no_training(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "objects")
    test = load_coco_folder(tmp_path / "objects", "annotations.json", "images", 1, 2, 2).test
    image = tmp_path / "objects" / "images" / f"{test.rows[1]}.png"
    whole = image.read_bytes()
    asked = (*FOLDER, f"data.root={tmp_path / 'objects'}", "logger=none", "trainer.accelerator=cpu")
    image.write_bytes(whole[:900])
    done = run_here(*asked, root=tmp_path / "outputs")
    [path] = (tmp_path / "outputs").glob("*/*/*/seed0/record.json")
    assert done.returncode == 1 and f"{image} cannot be read as an image" in json.loads(path.read_text())["error"]
    history = (path.parent / "history.jsonl").read_bytes()

    image.write_bytes(whole)
    done = run_here(*asked, root=tmp_path / "outputs")
    record = json.loads(path.read_text())
    assert done.returncode == 0 and record["metrics"]["test/n"] == 2, record["error"]
    assert [resumption["step"] for resumption in record["resumptions"]] == [1]  # of 1: two images, a batch
    assert (path.parent / "history.jsonl").read_bytes() == history


def predict(*arguments: str | Path | int) -> int:
    return main(["predict", *map(str, arguments)])


def reversed_box(content: Any) -> None:
    content["annotations"][5]["bbox"] = [20, 5, -4, 6]


def box_outside(content: Any) -> None:
    content["annotations"][5]["bbox"] = [500, 5, 4, 6]


def of_no_image(content: Any) -> None:
    content["annotations"][5]["image_id"] = 77


def of_no_category(content: Any) -> None:
    content["annotations"][5]["category_id"] = 8


def runs_of_another_size(content: Any) -> None:
    content["annotations"][5]["segmentation"]["size"] = [80, 320]


def without_boxes(content: Any) -> None:
    for annotation in content["annotations"]:
        del annotation["bbox"]


def without_lists(content: Any) -> None:
    del content["images"]


def of_two_points(content: Any) -> None:
    content["annotations"][5] |= {"segmentation": [[1, 1, 9, 9]], "bbox": [1, 1, 8, 8]}


def without_width(content: Any) -> None:
    content["annotations"][5]["bbox"][2] = 0


# What is wrong with a folder -> what is said of it; None: it is counted in the record's notes, as COCO itself leaves it out.
WRONG: dict[Callable[[Any], None], tuple[str, str | None]] = {
    reversed_box: ("annotation 6 has a reversed bbox, -4 wide and 6 high", None),
    box_outside: ("annotation 6 has the bbox [500, 5, 4, 6], outside of its image", None),
    of_no_image: ("annotation 6 is of image 77, which the file does not list", None),
    of_no_category: ("annotation 6 is of category 8, which the file does not list", None),
    runs_of_another_size: ("annotation 6 has a mask of size [80, 320], its image is [160, 160]", None),
    without_boxes: ("annotation 1 has no bbox; write the box around its mask", None),
    without_lists: ("is not COCO's JSON: it must be an object with the lists", None),
    of_two_points: ("", "1 annotations without a polygon of three points left out (first: annotation 6)"),
    without_width: (
        "",
        "1 annotations with a box under a pixel wide or high within the image left out of training (first: annotation 6)",
    ),
}


@pytest.mark.slow
def test_a_wrong_folder_is_refused_in_one_line_that_names_file_and_annotation(tmp_path: Path) -> None:
    for change in WRONG:
        write_coco_folder(tmp_path / change.__name__)
        path = tmp_path / change.__name__ / "annotations.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    write_coco_folder(tmp_path / "no_image")
    (tmp_path / "no_image" / "images" / "3.png").unlink()
    said = {change.__name__: words for change, words in WRONG.items()}
    said["no_image"] = ("3.png is missing of the 6 images", None)

    for name, (error, note) in said.items():
        root = tmp_path / "outputs" / name
        root.parent.mkdir(exist_ok=True)
        done = run_here(*FOLDER, f"data.root={tmp_path / name}", "logger=none", "trainer.accelerator=cpu", root=root)
        assert "Traceback" not in done.stdout + done.stderr
        [path] = root.glob("*/*/*/seed0/record.json")
        record = json.loads(path.read_text())
        if note is None:
            assert done.returncode == 1 and record["status"] == "failed", done.stdout
            assert str(tmp_path / name) in record["error"] and error in record["error"] and "\n" not in record["error"]
            left = {path.name for path in path.parent.iterdir() if path.suffix != ".lock"}
            assert left <= {"config.yaml", "record.json", "log.txt", "failure.json"}
        else:
            assert done.returncode == 0 and f"annotations.json: {note}" in record["dataset"]["notes"], record


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of `python run.py model=mask_rcnn data=nuclei_instances`."""
    root = tmp_path_factory.mktemp("demonstration") / "outputs"
    # One thread: threads that wait for one another beside other tests took eight times as long.
    options = ("logger=none", "trainer.accelerator=cpu", "cluster.threads_per_process=1")
    done = run("model=mask_rcnn", "data=nuclei_instances", *options, root=root, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    [directory] = root.glob("*/*/*/seed0")
    return directory


@pytest.mark.slow
def test_the_demonstration_on_nuclei_reaches_its_mask_ap(demonstration: Path, tmp_path: Path) -> None:
    """One seed, 30 objects of one image: that it works, not how well it generalises. Three are in `docs/evidence/detection`."""
    metrics = json.loads((demonstration / "record.json").read_text())["metrics"]
    assert metrics["test/mask_ap"] >= 0.5 and metrics["test/mask_ap50"] >= 0.8
    check_results(demonstration, tmp_path)


@pytest.mark.slow
def test_a_trained_detector_has_the_same_ap_at_1_2_and_3_processes(demonstration: Path, tmp_path: Path) -> None:
    """16 images of other cells than it was trained on: 6, 5 and 5 of them on three processes."""
    other = ("model=mask_rcnn", "data=touching_cells_instances", "logger=none", "trainer.accelerator=cpu")
    test = ("mode=test", f"weights={demonstration / 'checkpoints' / 'last.ckpt'}", "cluster.oversubscribe=true")
    done = run_here("-m", *other, *test, "trainer.devices=1,2,3", root=tmp_path / "tested")
    assert done.returncode == 0, done.stdout
    found = [json.loads(path.read_text()) for path in (tmp_path / "tested").glob("*/*/*/seed0/record.json")]
    metrics = {
        record["parallel"]["world_size"]: {
            name: value for name, value in record["metrics"].items() if value is not None
        }
        for record in found
    }
    assert set(metrics) == {1, 2, 3} and metrics[1]["test/n"] == 16 and metrics[1]["test/mask_ap"] > 0.2
    for processes in (2, 3):
        # Images stand in other batches, of which float32 convolutions round otherwise.
        assert metrics[processes] == pytest.approx(metrics[1], rel=1e-6)


def check_results(directory: Path, folder: Path) -> None:
    """What `predict` writes for the test images, scored by pycocotools, is what the record says."""
    test = load_nuclei_instances().test
    images, sizes, annotations = [], [], []
    for row in range(len(test)):
        images.append(folder / f"{row}.png")
        picture = test.image(row)
        Image.fromarray(picture).save(images[-1])
        sizes.append({"id": row, "height": picture.shape[0], "width": picture.shape[1]})
        objects = test.objects(row)
        for box, mask, area in zip(objects.boxes, objects.masks, objects.area, strict=True):
            annotations.append(
                {
                    **{
                        "id": len(annotations) + 1,
                        "image_id": row,
                        "category_id": 1,
                        "iscrowd": 0,
                        "area": float(area),
                    },
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "segmentation": rle.encode(np.asfortranarray(mask)),
                }
            )
    assert predict(directory, *images, "--out", folder / "out") == 0
    truth = COCO()
    truth.dataset = {**{"info": {}, "images": sizes}, **{"annotations": annotations, "categories": [{"id": 1}]}}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "out" / "results.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    metrics = json.loads((directory / "record.json").read_text())["metrics"]
    names = ("test/mask_ap", "test/mask_ap50", "test/mask_ap75")
    assert evaluation.stats[:3].tolist() == pytest.approx([metrics[name] for name in names], abs=1e-9)
