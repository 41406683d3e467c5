"""What every command prints where the terminal lacks UTF-8, has no reader any more, or the folder may only be read."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from support.records import make_run

from benchmarks.__main__ import main
from benchmarks.terminal import with_bar

ROOT = Path(__file__).parents[1]
# A process in which nothing but ASCII can be printed, and files have no encoding of their own.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
LIMIT_S = 500
UTF_8 = {"PYTHONIOENCODING": "utf-8"}
# Runs each command with a standard output of its own, on a pipe that nobody reads where `broken` is given.
CALLS = """
import io, json, os, sys
import run
from benchmarks.__main__ import main
broken, *commands = json.loads(sys.argv[1])
codes = []
for program, *arguments in commands:
    if broken:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
        os.close(writing)
        sys.stdout = open(1, "w", closefd=False)
    try:
        codes.append(run.main(arguments) if program == "run" else main(arguments))
    except SystemExit as end:
        codes.append(end.code)
    sys.stdout.flush()
print(*codes, file=sys.stderr)
"""


def quick(root: Path) -> tuple[list[list[str]], str]:
    """Commands over records, which import no torch, and their exit codes."""
    words = ("--help", "report --help", "view deconvolution --help", "stat", "report --list")
    commands = [["benchmarks", *text.split()] for text in words]
    commands += [["benchmarks", name, str(root)] for name in ("report", "status")]
    commands += [["benchmarks", "report", "resnext_table7", str(root)], ["run", "--help"], ["run", "model=resnex"]]
    return commands, "0 0 0 2 0 0 0 0 0 2"


def thorough(root: Path) -> tuple[list[list[str]], str]:
    """Commands that build networks or write tables, and their exit codes."""
    small = ["model=densenet", "model.depth=10"]
    commands = [["run", "--cfg", "job", "--resolve"], ["benchmarks", "complexity", *small]]
    commands += [["benchmarks", "plan", *small, f"output_root={root / 'planned'}"]]
    commands += [["benchmarks", "view", "layers", *small, "--out", str(root / "layers.html")]]
    commands += [["benchmarks", "export", str(root), "--out", str(root / "tables")]]
    return commands, "0 0 0 0 0"


def call(commands: list[list[str]], environment: dict[str, str], broken: bool = False) -> tuple[str, str, str]:
    """Return what the commands print, what they say on stderr, and their exit codes."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([broken, *commands])], cwd=ROOT, env=clean | environment,
        capture_output=True, timeout=LIMIT_S,
    )  # fmt: skip
    said, _, codes = done.stderr.decode().rstrip("\n").rpartition("\n")
    assert done.returncode == 0 and "Traceback" not in said, said
    return done.stdout.decode(), said, codes


def figures(text: str) -> list[str]:
    return re.findall(r"\d+", unicodedata.normalize("NFKD", text))


@pytest.mark.parametrize("of", [quick, pytest.param(thorough, marks=pytest.mark.slow)])
def test_a_terminal_without_utf_8_shows_the_same_and_a_pipe_without_a_reader_changes_no_exit_code(
    tmp_path: Path, of: Callable[[Path], tuple[list[list[str]], str]]
) -> None:
    make_run(tmp_path, overrides={"recipe.name": "32×32 · θ … é"})
    commands, expected = of(tmp_path)
    text, said, codes = call(commands, UTF_8)
    plain, plainly_said, plain_codes = call(commands, ASCII)
    assert plain_codes == codes == expected
    assert not (text + said).isascii() and plain.isascii() and plainly_said.isascii()
    times = re.compile(r"\d\d:\d\d(:\d\d)?|[\d.]+ (s|min)\b")
    assert figures(times.sub("", plain)) == figures(times.sub("", text))
    if of is quick:
        assert "32x32 - theta ... e" in plain and "did you mean 'resnext'" in plainly_said
    nothing, broken_said, broken_codes = call(commands, UTF_8, broken=True)
    assert (nothing, broken_said, broken_codes) == ("", said, codes)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}], ids=["locale", "PYTHONIOENCODING"])
def test_a_run_under_ascii_succeeds_and_its_log_is_utf_8(tmp_path: Path, environment: dict[str, str]) -> None:
    overrides = ["model=densenet", "model.depth=10", "recipe.epochs=1", "trainer.limit_train_batches=1", "logger=none"]
    commands = [["run", *overrides, "trainer.accelerator=cpu", f"output_root={tmp_path}"]]
    text, said, codes = call(commands, environment)
    assert codes == "0" and text.isascii() and "test error" in text, text + said
    [log] = tmp_path.glob("digits/*/*/seed0/log.txt")
    assert log.read_text(encoding="utf-8").startswith("epoch 1/1")
    assert call(commands, UTF_8, broken=True)[2] == "0"


def test_where_the_page_cannot_be_written_the_table_is_printed_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    (tmp_path / "report.html").mkdir()  # refused to root, too
    assert main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "resnext29_8x4d" in printed.out and "page  " not in printed.out
    assert printed.err == "the page was not written: Is a directory; --out FILE writes it elsewhere\n"


@pytest.mark.parametrize("width", [40, 80])
def test_complexity_cuts_no_number_in_a_narrow_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["complexity", "model=resnext", "data=cifar10"]
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert main([*command, "--csv"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    for numbers in (row[3:7] for row in rows):
        texts = [f"{int(number):,}" for number in numbers]
        assert any(set(texts) <= set(line.split()) for line in printed.splitlines()), texts


def test_no_bar_is_drawn_into_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert [*with_bar(range(3), "counting")] == [0, 1, 2]
    assert capsys.readouterr().err == ""
