"""A report of many runs, which two processes make: what each returns, and the page, as of one."""

import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
from support.commands import in_python
from support.records import make_run

from benchmarks.records.second_process import MANY, begin
from benchmarks.report.page import write_page

needs_two_cores = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="one process on one core, or where none forks"
)


@needs_two_cores
def test_another_process_returns_raises_and_is_replaced() -> None:
    """One that was killed is replaced by this one."""
    here, *there = in_python(
        "import os, signal\n"
        "from benchmarks.records.second_process import MANY, begin\n"
        "print('begun'); me = os.getpid(); print(me)\n"
        "print(begin(os.getpid, MANY)())\n"
        "try: begin(lambda: {}['key'], MANY)()\n"
        "except KeyError as error: print(error)\n"
        f"print(begin(lambda: me if os.getpid() == me else os.kill(os.getpid(), {signal.SIGKILL:d}), MANY)())\n"
    ).splitlines()[1:]
    assert there[0] != here and there[1:] == ["'key'", here]


def test_a_process_of_several_threads_is_not_forked() -> None:
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        assert begin(os.getpid, MANY)() == os.getpid()
    finally:
        ended.set()
        other.join()


@needs_two_cores
def test_the_page_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Each reads half of the records; the other makes what the page has of each run, and of each machine."""
    for seed in range(3):
        make_run(tmp_path, seed=seed, epochs=3)
        make_run(tmp_path, name="resnet56", seed=seed, epochs=3)
    (tmp_path / "digits" / "resnet56" / "resnet_digits" / "seed1" / "history.jsonl").write_text("no row\n{}\n")
    for name in ("resnet8", "resnet110"):  # one is read by each process
        (make_run(tmp_path, name=name) / "record.json").write_text("{")
    printed = in_python(
        "import os\n"
        "from benchmarks.__main__ import main\n"
        "from benchmarks.records import runs, second_process\n"
        "from benchmarks.report import chart_data, each_run\n"
        "me = os.getpid()\n"
        "def say(owner, name):\n"
        "    function = getattr(owner, name)\n"
        "    def said(*arguments):\n"
        "        print(f'{name} by another: {os.getpid() != me}')\n"
        "        return function(*arguments)\n"
        "    setattr(owner, name, said)\n"
        "say(runs, '_read_runs'), say(each_run, 'table_of_runs'), say(chart_data._Chart, 'machines')\n"
        "second_process.MANY = 1\n"
        f"assert main(['report', {str(tmp_path)!r}]) == 0\n"
    )
    for name, here in (("_read_runs", 1), ("table_of_runs", 0), ("machines", 0)):
        assert (printed.count(f"{name} by another: True"), printed.count(f"{name} by another: False")) == (1, here)
    pages = [tmp_path / "report.html", write_page(tmp_path, out=tmp_path / "one.html")]
    two, one = (re.sub(r"Written [-\d: ]+UTC", "", page.read_text(encoding="utf-8")) for page in pages)
    assert two == one and "line 1: not a JSON object" in one and one.count("not valid JSON") == 2
    shared = in_python(
        "from benchmarks.records import runs, second_process\n"
        "second_process.MANY = 1\n"
        f"print(len({{id(run.record['protocol']) for run in runs.load_runs({str(tmp_path)!r})[0]}}))\n"
    )
    assert shared == "1\n", "what all records have is held once"
