"""A folder that revision 063073a wrote, before records had their present words: it is read, and its runs count as finished."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import CLEAN, ROOT, run_here

from benchmarks.records.code_version import made_by_other_code
from benchmarks.records.runs import load_runs

EARLIER = ROOT / "tests" / "support" / "runs_of_063073a"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path / "outputs"))


def benchmarks(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = CLEAN | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_records_are_read_and_count_as_made_by_other_code(outputs):
    runs, problems = load_runs(outputs)
    assert problems == []
    assert [(run.name, run.overrides, round(run.value, 2)) for run in runs] == [
        ("densenet_bc40_k12", "epochs=2", 28.44),
        ("resnet20", "epochs=2", 11.78),
        ("unet8_padded", "epochs=2", pytest.approx(100 - 90.7, abs=0.06)),
    ]
    assert all(made_by_other_code(run.record) for run in runs)
    assert all(len(run.history) == 2 for run in runs)


def test_report_page_status_and_export_show_them(outputs, tmp_path):
    table = benchmarks("report", str(outputs))
    assert "28.44 %" in table and "11.78 %" in table
    page = (outputs / "report.html").read_text(encoding="utf-8")
    assert "resnet20" in page and "densenet_bc40_k12" in page and "unet8_padded" in page
    assert "stale" in benchmarks("status", str(outputs))
    benchmarks("export", str(outputs), "--out", str(tmp_path / "tables"), "--format", "csv")
    with (tmp_path / "tables" / "runs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["name"], row["overrides"]) for row in rows} >= {("resnet20", '{"recipe.epochs": 2}')}


def test_the_same_command_finds_its_run_finished(outputs):
    before = (outputs / "digits/resnet20/resnet_digits,epochs=2/seed0/record.json").read_bytes()
    done = run_here("model=resnet", "data=digits", "recipe.epochs=2", "logger=none", root=outputs)
    assert done.returncode == 0, done.stderr
    assert "11.78 %" in done.stdout
    assert (outputs / "digits/resnet20/resnet_digits,epochs=2/seed0/record.json").read_bytes() == before
