"""The record's classes against files as runs have written them."""

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from benchmarks.records.record import ImportedWeights, Parallel, Record, Restart, Resumption, from_json, to_json

RESULTS = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*.json"))
OPENED: dict[str, Any] = {
    "schema": 1, "status": "running", "error": None, "run_id": "a", "experiment": None, "row": None, "data": "digits",
    "task": "classification", "family": "resnet", "name": "resnet20", "recipe": "resnet_digits", "seed": 0,
    "overrides": {"recipe.epochs": 2}, "config_hash": "b", "started": "now", "finished": None, "resumptions": [],
    "restarts": [], "wandb": None,
}  # fmt: skip


def test_a_record_that_is_opened_has_null_where_nothing_is_known_and_no_block_of_the_rank() -> None:
    record = from_json(Record, OPENED)
    assert list(to_json(record).items()) == list(OPENED.items())


def test_lists_and_nested_blocks_are_read_and_written_whole() -> None:
    weights = {"file": "w.pt", "sha256": "c", "source": "torchvision", "source_file": "r.pth", "source_sha256": "d"}
    protocol = {
        "checkpoint": "imported", "weights": weights, "split": "test", "metric": "test/top1_err", "metric_label": "error",
        "definitions": {}, "budget": {"kind": "train_flops", "limit": 2.0, "spent": 1.0},
    }  # fmt: skip
    resumptions = [
        {"at": "t", "step": 3, "checkpoint": "last.ckpt"},
        {"at": "t", "step": 0, "checkpoint": None, "reason": "damaged"},
    ]
    content = OPENED | {"resumptions": resumptions, "restarts": [{"at": "t", "after": "killed"}], "protocol": protocol}
    record = from_json(Record, content)
    assert isinstance(record.protocol.weights, ImportedWeights) and record.protocol.budget.limit == 2.0
    assert [type(one) for one in (*record.resumptions, *record.restarts)] == [Resumption, Resumption, Restart]
    assert to_json(record) == content


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(TypeError, match="departures"):
        from_json(Record, OPENED | {"departures": {}})


def test_loader_workers_stand_only_where_tuning_has_set_them() -> None:
    values: dict[str, Any] = dict.fromkeys(Parallel.__dataclass_fields__, 1)
    assert to_json(Parallel(**values)) == values
    assert "loader_workers" not in to_json(Parallel(**values | {"loader_workers": None}))


def test_records_of_published_results_have_the_keys_of_the_classes() -> None:
    for path in RESULTS:
        record = json.loads(path.read_text())
        known = set(Record.__dataclass_fields__) | {"departures", "throughput"}
        assert set(record) <= known, path
        for name, hint in get_type_hints(Record).items():
            blocks = [kind for kind in get_args(hint) if is_dataclass(kind)]
            for block in blocks if record.get(name) else ():
                assert set(record[name]) <= set(block.__dataclass_fields__), (path, name)
