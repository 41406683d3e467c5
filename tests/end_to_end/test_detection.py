"""Detection from data to record: killed, on two processes, and what a record says of its compute."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import run
from support.forked_trials import outcome
from support.plans import Plan, die

TINY = [
    "model=mask_rcnn", "data=nuclei_instances", "recipe.batch_size=2", "recipe.epochs=1", "recipe.augment.crop_size=64",
    "model.backbone.base_channels=8", "model.pyramid=16", "model.post_nms=[40,40]",
]  # fmt: skip
SAVED = "after Checkpoints.on_train_batch_end"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Runs of one and of two processes, undisturbed and killed in their fourth step."""
    plan = Plan(tmp_path_factory.mktemp("detection"), {"one": (TINY, 1), "two": (TINY, 2)})
    for name in plan.runs:
        plan.add(name, name, None)
        plan.add(f"{name} killed", name, die(SAVED, 3), None)
    return plan.run()


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


@pytest.mark.slow
def test_the_demonstration_on_nuclei_reaches_its_mask_ap(tmp_path: Path) -> None:
    """Mean of three seeds, 30 objects of one image: that it works, not how well it generalises."""
    root = tmp_path / "outputs"
    options = ("logger=none", "trainer.accelerator=cpu", "seed=0,1,2")
    done = run("-m", "model=mask_rcnn", "data=nuclei_instances", *options, root=root, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [json.loads(path.read_text())["metrics"] for path in root.glob("*/*/*/seed*/record.json")]
    assert len(metrics) == 3
    assert sum(one["test/mask_ap"] for one in metrics) / 3 >= 0.5
    assert sum(one["test/mask_ap50"] for one in metrics) / 3 >= 0.8
