"""What reads a folder of runs survives whatever else lies in it: named in one line and left out, the rest goes on."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.benchmark_command import command
from support.records import make_run

from benchmarks.records.outcomes import Outcomes, write_outcomes
from benchmarks.records.runs import load_runs


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def values(path: Path, value: Any) -> None:
    """Every value of a JSON file becomes ``value``."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
    changed = (
        [dict.fromkeys(row, value) for row in rows] if rows else dict.fromkeys(json.loads(path.read_text()), value)
    )
    path.write_text("\n".join(map(json.dumps, changed)) if rows else json.dumps(changed))


def another_schema(path: Path) -> None:
    """As a later version might write the file."""
    rows = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("\n".join(json.dumps(json.loads(row) | {"schema": 2}) for row in rows))


OF_JSON = ("text for numbers", "lists for all", "too large a number", "another schema")
WAYS: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "empty": lambda path: path.write_bytes(b"") and None,
    "junk": lambda path: path.write_bytes(random.Random(0).randbytes(300)) and None,
    "a list": lambda path: path.write_text("[1, [2]]") and None,
    "nested without end": lambda path: path.write_text("[" * 100_000) and None,
    "a folder": folder,
    "a dangling link": lambda path: link(path, "nowhere"),
    "a link to itself": lambda path: link(path, path.name),
    "a FIFO": fifo,
    "an error of the disk": lambda path: link(path, "/proc/self/mem"),  # opens, and each reading fails; for root, too
    "an empty object": lambda path: path.write_text("{}") and None,
    "text for numbers": lambda path: values(path, "x"),
    "lists for all": lambda path: values(path, [None]),
    "too large a number": lambda path: values(path, 10**400),
    "another schema": another_schema,
}
OF_A_RUN = (
    "record.json",
    "history.jsonl",
    "config.yaml",
    "pictures/test-0.png",
    "layers.csv",
    "log.txt",
    "progress.json",
    "outcomes.json",
)
READERS = (
    *(("report",), ("report", "resnext_table7"), ("report", "--list"), ("report", "iso_compute"), ("status",)),
    *(("export", "--format", "csv"), ("export",), ("view accuracy",), ("view cardinality",), ("wandb show",)),
    *(("export mirror", "--to", "csv"), ("wandb sync",)),
)
INCOMPLETE = ("export mirror", "wandb sync")  # exit with 1 where a run is not there in the end


def outputs(root: Path, names: list[str]) -> None:
    """Runs with every kind of file, one for each name, and two that nothing happens to."""
    for index, name in enumerate([*names, "good", "good too"]):
        run = make_run(root, seed=index, status="running" if "progress" in name else "ok", epochs=3)
        (run / "config.yaml").write_text("name: x\nlogger: {mode: none}\n")
        (run / "log.txt").write_text("a line\n")
        (run / "layers.csv").write_text("layer,macs\nstem,5\n")
        (run / "progress.json").write_text(
            '{"phase": "train", "epoch": 1, "epochs": 2, "done": 1, "total": 2, "metrics": {}, "time": 0}'
        )
        hits = {"top1_err": np.ones(450, dtype=bool)}
        write_outcomes(run, Outcomes("0" * 64, hits))
        (run / "pictures").mkdir()
        (run / "pictures" / "test-0.png").write_bytes(b"no picture, but bytes")
        (run / "name").write_text(name)
    files = {
        "sweeps/0123456789ab.json": {"command": [], "made": "", "trials": [{"directory": "digits/a/b/seed9"}]},
        "tables/resnext_table3.json": {
            "title": "t",
            "name": "n",
            "written": "",
            "headers": ["a"],
            "lines": [["b"]],
            "legend": [],
        },
        "forecasts.json": {"x": {"train_flops": 1, "device_s": 2}},
        "throughput.json": {"x": {}},
        "wandb/reports/r.json": {"directories": [], "logger": {}},
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))


def read_all(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Every reader of a folder; what they printed."""
    printed = []
    for name, *rest in READERS:
        capsys.readouterr()
        code = command(name)([*rest, str(root)])
        out, err = capsys.readouterr()
        assert code in {0, 2} or (code == 1 and name in INCOMPLETE), (name, err)
        assert code != 2 or err.count("\n") == 1 or "not read" in err, (name, err)
        assert "Traceback" not in err, (name, err)
        assert out.isprintable() or "\x1b" not in out, name
        printed.append(out + err)
    return "".join(printed)


def test_every_kind_of_file_damaged_in_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "outputs"
    cases = [(way, name) for name in OF_A_RUN for way in WAYS]
    outputs(root, [name for _, name in cases])
    by_seed = {int(path.parent.name.removeprefix("seed")): path.parent for path in root.glob("*/*/*/*/record.json")}
    for seed, (way, name) in enumerate(cases):
        if way in OF_JSON and not name.endswith((".json", ".jsonl")):
            continue
        WAYS[way](by_seed[seed] / name)
    loaded, problems = load_runs(root)
    shown = {run.directory for run in loaded}
    for seed, (way, name) in enumerate(cases):
        named = any(f"seed{seed}/" in problem or f"seed{seed}:" in problem for problem in problems)
        assert (by_seed[seed] in shown) != named, (way, name)
        assert named == (name == "record.json"), (way, name)
    read_all(root, capsys)
    page = (root / "report.html").read_text(encoding="utf-8")
    for seed in (len(cases), len(cases) + 1):
        assert f"seed {seed}" in page


def test_the_lists_and_tables_of_an_output_root_are_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "outputs"
    outputs(root, [])
    ways = {name: damage for name, damage in WAYS.items() if name != "another schema"}  # these files have none
    for name in ("sweeps/0123456789ab.json", "tables/resnext_table3.json"):
        for number, damage in enumerate(ways.values()):
            path = (root / name).with_stem(f"damaged{number}")
            shutil.copyfile(root / name, path)
            damage(path)
    printed = read_all(root, capsys)
    page = (root / "report.html").read_text(encoding="utf-8")
    for number in range(len(ways)):
        assert printed.count(f"sweeps/damaged{number}.json: not the list of a sweep's trials") == 1
        assert page.count(f"tables/damaged{number}.json: not a table that `report TABLE` writes") == 1
    assert "2 done, 1 missing" in printed.replace("stale", "done") and "seed 1" in page


@pytest.mark.parametrize("way", ["empty", "a folder", "a FIFO", "an error of the disk", *OF_JSON])
def test_other_files_of_an_output_root_are_damaged(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "outputs"
    outputs(root, [])
    digest = json.loads(next(root.glob("*/*/*/*/record.json")).read_text())["config_hash"]
    (root / "forecasts.json").write_text(json.dumps({digest: {"train_flops": 1, "device_s": 2}}))
    for name in ("forecasts.json", "throughput.json", "wandb/reports/r.json"):
        WAYS[way](root / name)
    (root / "report.html").mkdir()
    capsys.readouterr()
    assert command("report")([str(root)]) == 0
    out, err = capsys.readouterr()
    assert (
        "resnext29_8x4d" in out and err.startswith("the page was not written: Is a directory") and err.count("\n") == 1
    )
    assert command("status")([str(root)]) == 0


def test_every_field_of_a_record_with_a_value_of_another_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "outputs"
    run = make_run(root, task="segmentation", epochs=2)
    record = json.loads((run / "record.json").read_text())
    wrong: list[Any] = ["x\x1b[2J", [], {}, {"a": [1]}, -1, 10**400, True, None, [[{}]], 1e308]
    paths: list[tuple[str, ...]] = []

    def collect(node: Any, path: tuple[str, ...]) -> None:
        if path:
            paths.append(path)
        for key, value in node.items() if isinstance(node, dict) else ():
            collect(value, (*path, key))

    collect(record, ())
    for number, path in enumerate(paths):
        changed = copy.deepcopy(record)
        node = changed
        for key in path[:-1]:
            node = node[key]
        for place in range(2):
            node[path[-1]] = wrong[(number * 3 + place * 5) % len(wrong)]
            other = run.with_name(f"seed{2 * number + place + 1}")
            other.mkdir()
            (other / "record.json").write_text(json.dumps(changed))
            (other / "history.jsonl").write_bytes((run / "history.jsonl").read_bytes())
    assert len(paths) > 80
    read_all(root, capsys)
