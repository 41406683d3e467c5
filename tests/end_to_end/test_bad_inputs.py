"""Wrong inputs of every command are refused and say why: none is taken, none raises, none writes."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.bad_inputs import PAGE, WRONG, Row, of_commands, of_keys, of_overrides, page


def refused(rows: Callable[[], Iterator[Row]], least: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.chdir(folder)
    table = list(rows())
    assert [row for row in table if not row.is_refused] == []
    assert len(table) >= least
    return table


def test_wrong_values_of_keys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(partial(of_keys, WRONG), 300, tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_that_the_page_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for part in (of_keys, of_overrides, of_commands) for row in refused(part, 90, tmp_path, monkeypatch)]
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "empty", "dangling", "single", "heic", "outputs"}
    assert not list(tmp_path.rglob("record.json"))
    headings = [line for line in page(rows).splitlines() if line.startswith(("#", "| ---"))]
    written = PAGE.read_text(encoding="utf-8")
    assert headings == [line for line in written.splitlines() if line.startswith(("#", "| ---"))]
    assert "inputs, each tried: 0 of them were taken" in written


def test_what_is_taken_is_not_refused() -> None:
    assert Row("run.py", 2, "run.py: no such key", "").is_refused
    for row in (
        Row("run.py", 0, "", ""),
        Row("run.py", None, "run.py: x", ""),
        Row("run.py", 2, "", "x"),
        Row("run.py", 2, "Cannot run: x: None", ""),
        Row("run.py", 2, "Cannot run: x: Error loading 'y':", ""),
        Row("run.py", 2, "run.py: nothing was started: train_flops is above launch.budget", ""),
        Row("run.py", 2, "run.py: x", "Traceback (most recent call last)"),
    ):
        assert not row.is_refused
