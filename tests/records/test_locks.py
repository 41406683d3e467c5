"""Locks as another user sees them, who may only read their files; on a full disk; and around a file that several write."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from support.any_user import as_any_user
from support.records import make_run

from benchmarks.performance import forecasting
from benchmarks.records import measured_speed
from benchmarks.records.files import FORECASTS, read_json
from benchmarks.records.locks import LAUNCHER, Lock, held, holder
from benchmarks.training import tuned_settings

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"device_name": "CPU", "cores": 2}
KEPT: dict[str, Callable[[Path, str], object]] = {
    measured_speed.KEPT: lambda root, key: measured_speed.keep(root, key, {}),
    FORECASTS: lambda root, key: forecasting.keep(root, {key: {}}),
    "tuning/CPU_2_cores.json": lambda root, key: tuned_settings.keep(root, MACHINE, key, {}),
}


def status(folder: Path) -> str:
    command = [sys.executable, "-m", "benchmarks", "status", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=as_any_user)
    if done.returncode == 77:
        pytest.skip("this process may not give up rights")
    return done.stdout


def test_a_colleagues_run_is_seen_to_run(tmp_path: Path) -> None:
    directory = make_run(tmp_path, status="running")
    lock = Lock.take(directory / LAUNCHER)
    assert lock is not None and held(directory / LAUNCHER)
    (directory / LAUNCHER).chmod(0o444)
    assert "1 trial: 1 running" in status(tmp_path)
    lock.release()
    assert "1 trial: 1 killed" in status(tmp_path) and not held(directory / LAUNCHER)


def test_a_lock_that_cannot_be_written_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            Lock.take(tmp_path / LAUNCHER)
    assert not held(tmp_path / LAUNCHER)
    lock = Lock.take(tmp_path / LAUNCHER)
    assert lock is not None and Lock.take(tmp_path / LAUNCHER) is None
    lock.release()


@pytest.mark.parametrize("content", ["", "[]", "3", "[" * 100_000, '{"pid": 1'])
def test_a_lock_that_holds_no_object_is_nobodys(content: str, tmp_path: Path) -> None:
    (tmp_path / LAUNCHER).write_text(content)
    assert holder(tmp_path / LAUNCHER) == {}


@pytest.mark.parametrize("name", KEPT)
def test_what_several_keep_in_one_file_at_a_time_is_all_there(name: str, tmp_path: Path) -> None:
    keys = [f"key {number}" for number in range(40)]
    with ThreadPoolExecutor(4) as pool:  # a lock is of an open file, so threads have locks of their own
        list(pool.map(partial(KEPT[name], tmp_path), keys))
    content = read_json(tmp_path / name) or {}
    assert sorted(content.get("networks", content)) == sorted(keys)
