"""A report of many runs, which two processes make: what each returns, and the page, as of one."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.records import make_run

from benchmarks.report.page import write_page
from benchmarks.report.second_process import begin

ROOT = Path(__file__).resolve().parents[2]

needs_two_cores = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="one process on one core, or where none forks"
)


def in_python(program: str) -> str:
    """Run a program in a process of one thread, as the command line is; return what it prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_two_cores
def test_another_process_returns_raises_and_is_replaced() -> None:
    """One that was killed is replaced by this one."""
    here, *there = in_python(
        "import os, signal\n"
        "from benchmarks.report.second_process import begin\n"
        "print('begun'); me = os.getpid(); print(me)\n"
        "print(begin(os.getpid)())\n"
        "try: begin(lambda: {}['key'])()\n"
        "except KeyError as error: print(error)\n"
        f"print(begin(lambda: me if os.getpid() == me else os.kill(os.getpid(), {signal.SIGKILL:d}))())\n"
    ).splitlines()[1:]
    assert there[0] != here and there[1:] == ["'key'", here]


def test_a_process_of_several_threads_is_not_forked() -> None:
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        assert begin(os.getpid)() == os.getpid()
    finally:
        ended.set()
        other.join()


@needs_two_cores
def test_the_page_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, seed=seed, epochs=3)
        make_run(tmp_path, name="resnet56", seed=seed, epochs=3)
    (tmp_path / "digits" / "resnet56" / "resnet_digits" / "seed1" / "history.jsonl").write_text("no row\n{}\n")
    printed = in_python(
        "import os\n"
        "from benchmarks.__main__ import main\n"
        "from benchmarks.report import each_run, runs_table\n"
        "me, table = os.getpid(), each_run.table_of_runs\n"
        "each_run.table_of_runs = lambda runs: print(f'by another: {os.getpid() != me}') or table(runs)\n"
        "runs_table.MANY = 1\n"
        f"assert main(['report', {str(tmp_path)!r}]) == 0\n"
    )
    assert printed.count("by another: True") == 1 and "resnet56" in printed
    pages = [tmp_path / "report.html", write_page(tmp_path, out=tmp_path / "one.html")]
    two, one = (re.sub(r"Written [-\d: ]+UTC", "", page.read_text(encoding="utf-8")) for page in pages)
    assert two == one and "line 1: not a JSON object" in one
