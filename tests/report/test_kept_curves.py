"""Curves that are kept from one page to the next: the page is the one that is made from nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.records import make_run

from benchmarks.report.kept_curves import FEWEST_RUNS, KEPT
from benchmarks.report.page import write_page


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder of runs with what its first page has kept, and that page."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(FEWEST_RUNS + 1):
        make_run(root, seed=seed, epochs=2)
    page = page_of(root)
    assert len((root / KEPT).read_bytes().splitlines()) == FEWEST_RUNS + 1
    return root, page


@pytest.fixture
def runs(kept: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(kept[0], tmp_path / "runs")  # with the times of its files


def page_of(root: Path) -> str:
    """Return the page without its time and the place of the folder."""
    page = write_page(root).read_text(encoding="utf-8").replace(str(root), "")
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page)


def from_nothing(root: Path) -> str:
    shutil.rmtree(root / KEPT.parent)
    return page_of(root)


def history(root: Path) -> Path:
    return min(root.glob("*/*/*/seed7/history.jsonl"))


def test_histories_that_have_not_changed_are_not_read(kept: tuple[Path, str], runs: Path) -> None:
    path = history(runs)
    times = path.stat()
    path.write_bytes(b" " * (times.st_size - 1) + b"\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert page_of(runs) == kept[1]
    assert from_nothing(runs) != kept[1]


def test_a_page_elsewhere_leaves_the_folder_as_it_is(runs: Path, tmp_path: Path) -> None:
    shutil.rmtree(runs / KEPT.parent)
    before = sorted(runs.rglob("*"))
    assert write_page(runs, out=tmp_path / "page.html").is_file()
    assert sorted(runs.rglob("*")) == before


def append(root: Path) -> None:
    path = history(root)
    *_, last = path.read_text(encoding="utf-8").splitlines()
    with path.open("a", encoding="utf-8") as file:
        file.write(last.replace('"epoch": 2', '"epoch": 3').replace('"train_flops": ', '"train_flops": 1') + "\n")


def damage(root: Path) -> None:
    content = bytearray((root / KEPT).read_bytes())
    digits = [match.start() for match in re.finditer(rb"[0-8](?=[0-9])", content)]
    for place in digits[:: len(digits) // 50]:
        content[place] += 1
    (root / KEPT).write_bytes(content)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        pytest.param(append, True, id="a changed run"),
        pytest.param(lambda root: shutil.rmtree(history(root).parent), True, id="a removed run"),
        pytest.param(lambda root: history(root).unlink(), True, id="a removed history"),
        pytest.param(damage, False, id="damaged digits"),
        pytest.param(lambda root: os.truncate(root / KEPT, 5_000), False, id="a torn file"),
        pytest.param(lambda root: (root / KEPT).write_bytes(os.urandom(5_000)), False, id="another file"),
        pytest.param(lambda root: ((root / KEPT).unlink(), (root / KEPT).mkdir()), False, id="a folder in its place"),
    ],
)
def test_the_page_is_the_one_from_nothing(
    kept: tuple[Path, str], runs: Path, change: Callable[[Path], object], differs: bool
) -> None:
    change(runs)
    page = page_of(runs)
    assert (page != kept[1]) == differs
    if differs:
        assert page == from_nothing(runs)


def test_what_is_kept_is_of_the_runs_that_are_there(runs: Path) -> None:
    shutil.rmtree(history(runs).parent)
    write_page(runs)
    lines = (runs / KEPT).read_text(encoding="utf-8").splitlines()
    assert len(lines) == FEWEST_RUNS and not any("seed7/" in line for line in lines)
