"""docs/performance.md and the records that it is made of."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.benchmark_command import command

from benchmarks import terminal
from benchmarks.__main__ import COMMANDS
from benchmarks.performance import document, launching
from benchmarks.performance.document import DOCS, PAGE, MeasuredTable, of_today, read_records, render, table

main = command("measure page")

COLUMNS = {"network": ("network", "s"), "ratio": ("ratio", ".3f"), "count": ("images", ",d")}
WHERE = {
    "device": "cpu",
    "device_name": "Some CPU",
    "cores": 2,
    "threads": 1,
    "memory_bytes": 23 * 2**30,
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "numpy": "2.0"},
}


def write(root: Path, kind: str, device: str = "cpu", **row: object) -> Path:
    command, note = f"python -m benchmarks {kind} --write", "What to know."
    measured = MeasuredTable(kind, kind.title(), COLUMNS, note)
    return measured.write(WHERE | {"device": device}, command, [row], root=root)


def test_the_committed_page_is_what_the_records_say():
    assert main([]) == 0, "python -m benchmarks measure page --write"


def test_no_two_sections_have_one_heading():
    headings = Counter(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert headings["## Whole processes, on AMD EPYC (AVX2)"] == 1 and set(headings.values()) == {1}


def test_every_committed_figure_has_its_command_hardware_and_versions():
    records = read_records()
    assert {"step_cost-cpu", "input-cpu", "start_up-cpu", "logging_cost-cpu"} <= set(records)
    page = PAGE.read_text(encoding="utf-8")
    for record in records.values():
        where = record["environment"]
        command = of_today(record["command"])
        first, second = command.split()[3:5]
        assert record["rows"] and first in COMMANDS.commands
        assert first != "measure" or second in COMMANDS.commands["measure"].commands
        for said in (command, where["device_name"], f"torch {where['packages']['torch']}", record["measured"][:10]):
            assert said in page
        for row in record["rows"]:
            assert set(record["columns"]) <= set(row)


def test_intervals_of_the_guide_are_committed_and_those_of_whole_processes_the_newest():
    def written(row, key, digits):
        return tuple(f"{row[name]:.{digits}f}" for name in (key, f"{key}_low", f"{key}_high"))

    text = " ".join((DOCS / "how_to" / "speed.md").read_text(encoding="utf-8").split())
    quoted = re.findall(r"(\d\.\d+) \[(\d\.\d+), (\d\.\d+)\]", text)
    records = read_records().values()
    intervals = [
        (row, key) for record in records for row in record["rows"] for key in row if row.get(f"{key}_low") is not None
    ]
    for one in quoted:
        digits = len(one[0].partition(".")[2])
        assert any(written(*place, digits) == one for place in intervals), one
    usual = {"network": "resnet20", "data": "digits", "epochs": 5, "process": "ours"}
    of_day = {record["measured"]: row for record in records for row in record["rows"] if usual.items() <= row.items()}
    assert written(of_day[max(of_day)], "ratio", 2) in quoted


def test_a_record_becomes_a_table(tmp_path):
    write(tmp_path, "step_cost", network="resnet", ratio=1.00449, count=123456)
    text = render(read_records(tmp_path))
    assert "## Step_Cost\n\n| network | ratio | images |\n| --- | --- | --- |\n| resnet | 1.004 | 123,456 |\n" in text
    assert (
        "*`python -m benchmarks measure steps --write`, " in text
        and "; Some CPU, 2 cores, 1 thread, 23 GiB; Python 3.11.7, torch 2.13.0.*\n" in text
    )
    assert "none was available" in text
    # In the order of the kinds; what is missing stays empty; with a GPU's record the page says nothing of its absence.
    write(tmp_path, "input", device="cuda", network="unet", ratio=None, count=1)
    write(tmp_path, "a_new_kind", network="x")
    assert list(read_records(tmp_path)) == ["step_cost-cpu", "input-cuda", "a_new_kind-cpu"]
    text = render(read_records(tmp_path))
    assert "| unet |  | 1 |" in text and "| x |  |  |" in text and "none was available" not in text
    assert table(COLUMNS, [{"network": "x"}]).row_count == 1


@pytest.mark.parametrize("width", range(70, 160, 3))
def test_a_terminal_of_any_width_shows_every_character(width, monkeypatch):
    columns = {"process": ("process", "s"), "versions": ("with", "s")}
    columns |= {f"figure_{index}": (f"figure {index}, s", ".1f") for index in range(8)}
    row = {"process": "ours, bfloat16", "versions": "torchvision 0.28.0, train.py d2fd3403"}
    row |= {f"figure_{index}": 1000 + index for index in range(8)}
    monkeypatch.setenv("COLUMNS", str(width))
    console = terminal.console()
    with console.capture() as captured:
        console.print(table(columns, [row]))
    shown = "".join(captured.get().rpartition("─")[2].split())
    assert Counter(shown) == Counter("".join(str(value) for value in row.values()).replace(" ", "") + 8 * ".0")


def test_a_stale_page_is_found_and_written_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(document, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(document, "read_records", lambda: read_records(tmp_path))
    path = write(tmp_path, "step_cost", network="resnet", ratio=1.0, count=1)
    assert main([]) == 1
    assert "measure page --write" in capsys.readouterr().err
    assert main(["--write"]) == 0 == main([])
    record = json.loads(path.read_text())
    record["rows"][0]["ratio"] = 1.1
    path.write_text(json.dumps(record))
    assert main([]) == 1


def test_a_file_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "memory-cpu.json").write_text('{"title": "Memory"}')
    with pytest.raises(
        ValueError, match=r"memory-cpu.json is no record of a measurement: it has no columns, command, env"
    ):
        read_records(tmp_path)


def test_overhead_compares_within_a_repeat():
    rows = launching.summarise({"import": [1.0, 2.0, 4.0], "help": [0.5, 0.8, 2.4], "sweep": [3.0, 8.0, 8.0]})
    assert [row["what"] for row in rows] == ["import", "help", "sweep"]
    assert rows[0]["ratio"] == 1 and rows[0]["limit"] is None
    assert (rows[1]["seconds"], rows[1]["ratio"], rows[1]["ratio_low"], rows[1]["ratio_high"]) == (
        0.8,
        0.5,
        0.4,
        pytest.approx(0.6),
    )
    assert (rows[2]["ratio"], rows[2]["limit"]) == (3.0, launching.LIMITS["sweep"])


def test_a_run_that_ends_without_a_step_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="failed with exit code 0"):
        launching._duration(["true"], tmp_path)
    with pytest.raises(RuntimeError, match="failed with exit code 1"):
        launching._duration(["false"], None)
    script = f"mkdir -p {tmp_path}/a/b/c/seed0; echo > {tmp_path}/a/b/c/seed0/progress.json; sleep 1"
    assert 0 < launching._duration(["sh", "-c", script], tmp_path) < 1 < launching._duration(["sh", "-c", script], None)


def test_rows_of_several_commands_are_kept_together_as_long_as_the_machine_is_the_same(tmp_path):
    tune = MeasuredTable("tune", "Tune", COLUMNS, "Note.", ("network",))

    def add(command: str, machine: dict[str, object], *rows: tuple[str, float]) -> dict[str, Any]:
        found = [{"network": name, "ratio": ratio, "count": 1} for name, ratio in rows]
        path = tune.write(machine, command, found, root=tmp_path)
        return json.loads(path.read_text())

    add("tune a", WHERE, ("a", 1.0), ("a", 2.0))
    together = add("tune b", WHERE, ("b", 3.0))
    assert [(row["network"], row["ratio"], row["command"]) for row in together["rows"]] == [
        ("a", 1.0, "tune a"), ("a", 2.0, "tune a"), ("b", 3.0, "tune b"),
    ]  # fmt: skip
    assert together["command"] == "tune a && tune b"
    again = add("tune a", WHERE, ("a", 4.0))
    assert [row["ratio"] for row in again["rows"]] == [3.0, 4.0] and again["command"] == "tune b && tune a"
    assert "`tune b && tune a`" in render(read_records(tmp_path))
    other = WHERE | {"device_name": "Another CPU (AVX2)"}
    assert [row["ratio"] for row in add("tune a", other, ("a", 6.0))["rows"]] == [6.0]
    assert [row["ratio"] for row in add("tune b", other, ("b", 7.0))["rows"]] == [6.0, 7.0]
    assert [*read_records(tmp_path)] == ["tune-cpu", "tune-cpu-another_cpu_avx2"], "each machine has a record"
    newer = add("tune a", WHERE | {"packages": {"torch": "2.14.0"}}, ("a", 5.0))
    assert [row["ratio"] for row in newer["rows"]] == [5.0]
    assert len(read_records(tmp_path)["tune-cpu-another_cpu_avx2"]["rows"]) == 2


def test_committed_rows_are_of_the_machine_where_it_has_them(tmp_path, monkeypatch):
    measured = MeasuredTable("step_cost", "Steps", COLUMNS, "What to know.", same=("network",))
    for name, networks in {"Some CPU": {"resnet": 1.0, "unet": 2.0}, "another": {"resnet": 3.0}}.items():
        rows = [{"network": network, "ratio": ratio, "count": 1} for network, ratio in networks.items()]
        measured.write(WHERE | {"device_name": name}, "measure", rows, root=tmp_path)
    monkeypatch.setattr(document, "read_records", lambda: read_records(tmp_path))

    def ratios(machine=None):
        return sorted((row["network"], row["ratio"]) for row in measured.committed("cpu", machine))

    assert ratios("another") == [("resnet", 3.0), ("unet", 2.0)]
    assert ratios("Some CPU") == [("resnet", 1.0), ("unet", 2.0)]
    assert ratios("a third") == ratios() == [("resnet", 1.0), ("resnet", 3.0), ("unet", 2.0)]
    assert measured.committed("cuda") == []
