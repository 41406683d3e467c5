"""When a sweep writes its page."""

import time
from pathlib import Path

import pytest
from rich.console import Console
from support.configurations import trial

import run
from benchmarks.launch.trial_job import Outcome


@pytest.fixture
def watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> run.PageWriter:
    monkeypatch.setattr(run, "PAGE_EVERY_S", -1)  # a page is always due
    return run.PageWriter(Console(quiet=True), [trial("model=resnet", "data=digits", f"output_root={tmp_path}")])


def ends(watcher: run.PageWriter, status: str) -> None:
    watcher.begin(0, "a")
    watcher.end(0, "a", Outcome(status))


def test_a_trial_that_was_finished_before_leaves_the_page_as_it_is(watcher: run.PageWriter, tmp_path: Path) -> None:
    ends(watcher, "finished")
    assert not (tmp_path / run.PAGE).exists()
    ends(watcher, "interrupted")
    assert (tmp_path / run.PAGE).exists()


def test_pages_take_a_small_share_of_the_time(
    watcher: run.PageWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def write_page(root: Path, loaded: object) -> None:
        (tmp_path / "pages").open("a").write("page\n")
        clock[0] += 20

    monkeypatch.setattr("benchmarks.report.page.write_page", write_page)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    watcher = run.PageWriter(watcher.console, [trial("model=resnet", "data=digits", f"output_root={tmp_path}")])
    while clock[0] < 10_000:
        clock[0] += 10
        ends(watcher, "failed")
    spent = 20 * len((tmp_path / "pages").read_text().splitlines())
    assert 0 < spent <= run.PAGE_SHARE * clock[0]


def test_a_reason_without_an_error_number_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_page(*arguments: object) -> None:
        raise FileNotFoundError("plotly is not installed")

    monkeypatch.setattr("benchmarks.report.page.write_page", write_page)
    console = Console(record=True, width=120)
    run.PageWriter(console, [trial("model=resnet", "data=digits", f"output_root={tmp_path}")]).write_pages()
    assert "run.py: the page was not written: plotly is not installed" in console.export_text()
