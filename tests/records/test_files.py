"""What is written is on disk under its name, and nothing outside of a run's folder belongs to it."""

import os
import resource
from pathlib import Path

import pytest
import yaml
from support.records import make_run

from benchmarks.records.files import RECORD, amend, below, pictures, read_config, read_json, write_atomic, write_config
from benchmarks.records.runs import load_runs


def test_the_folder_of_a_renamed_file_is_written_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "replace", lambda source, target: (calls.append("rename"), replace(source, target)))
    write_atomic(tmp_path / "a", "content")
    file, *rest = calls
    assert Path(file).parent == tmp_path and rest == ["rename", str(tmp_path)]


def test_no_two_writers_have_one_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of one number, as two containers have, are told apart too."""
    names, replace = set(), os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (names.add(source), replace(source, target)))
    for _ in "ab":
        write_atomic(tmp_path / "a", "content")
    assert len(names) == 2 and os.listdir(tmp_path) == ["a"]


def test_an_outcome_that_cannot_be_written_leaves_the_record(tmp_path: Path) -> None:
    """As on a full disk: a launcher, here or of Slurm's or Ray's jobs, goes on to the other trials."""
    record = make_run(tmp_path, status="running") / RECORD
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        amend(record.parent, "failed", "lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert (read_json(record) or {})["status"] == "running"
    amend(record.parent, "failed", "lost")
    assert (read_json(record) or {})["status"] == "failed"


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By another parser and by our own; the order of the keys stays."""
    texts = ["", "null", "1e-3", "07", "a: b", "- c", "ä ✓\x07\n", "word " * 40, "'\"#{}[]"]
    config = {
        "z": {"texts": texts, "none": None, "flag": False},
        "a": [1, -2, 0.1, 1e-05, 1e300, float("inf"), []],
        "m": {},
    }
    write_config(tmp_path, config)
    for read in (yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8")), read_config(tmp_path)):
        assert read == config and list(read) == list(config)


def test_pictures_that_are_links_are_not_the_runs(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "0.png").write_bytes(b"of somebody else")
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "pictures").mkdir(parents=True)
    (run / "pictures" / "1.png").write_bytes(b"its own")
    (run / "pictures" / "2.png").symlink_to(outside / "0.png")
    other.mkdir()
    (other / "pictures").symlink_to(outside)
    assert [path.name for path in pictures(run)] == ["1.png"] and pictures(other) == []


def test_a_data_sets_folder_that_is_a_link_is_listed_and_a_run_that_is_a_file_is_not(tmp_path: Path) -> None:
    elsewhere = tmp_path / "another disk"
    make_run(elsewhere, seed=3)
    root = tmp_path / "outputs"
    root.mkdir()
    (root / "digits").symlink_to(elsewhere / "digits")
    folder = next(elsewhere.rglob("seed3")).parent
    (folder / "seed4").write_text("")
    runs, problems = load_runs(root)
    assert [run.seed for run in runs] == [3] and not problems


@pytest.mark.parametrize("root", [".", "a", "a/", "/", "/a", "../a"])
@pytest.mark.parametrize("path", ["a/b/c", "ab/c", "/a/b", "/ab", "../a/b", "b"])
def test_a_path_below_a_folder_is_as_relpath_has_it(root: str, path: str) -> None:
    assert below(Path(root), Path(path)) == os.path.relpath(path, root)
