"""Locks as another user sees them, who may only read their files."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.any_user import as_any_user
from support.records import make_run

from benchmarks.records.locks import LAUNCHER, Lock, held

ROOT = Path(__file__).resolve().parents[2]


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
