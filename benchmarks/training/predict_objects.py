"""The objects that a detector finds in images: one file of COCO's results, and each image with what was found drawn on it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.records.files import write_atomic
from benchmarks.training.pictures import drawing

RESULTS = "results.json"


def write_objects(
    module: Any,
    datamodule: Any,
    targets: Mapping[Path, Path],
    channels: int,
    dataset: Mapping[str, Any],
    path: Path,
    bars: Progress,
) -> None:
    """Write a drawing of each image, targets[image], and at last the results of all into ``path``.

    An image's id is its name's number, as in COCO's files, or else the name before the dot. dataset: that of the record.
    """
    results: list[dict[str, Any]] = []
    classes = dataset["classes"]
    category_ids = dataset.get("category_ids") or list(range(1, len(classes) + 1))
    whole = bars.add_task("images", total=len(targets))
    for image, target in targets.items():
        batch, pixels, remark = datamodule.read(image, channels)
        if remark:
            print(remark, file=sys.stderr)
        on_device = [{name: value.to(module.device) for name, value in one.items()} for one in batch.targets]
        [prediction] = module.detect(batch.images.to(module.device), on_device)
        prediction = {name: value.cpu() for name, value in prediction.items()}
        number = int(image.stem) if image.stem.isdecimal() else image.stem
        results += datamodule.results(prediction, number, category_ids)
        drawing(pixels, {name: value.numpy() for name, value in prediction.items()}, classes).save(target)
        bars.advance(whole)
        print(target)
    write_atomic(path, json.dumps(results) + "\n")
    print(path)
