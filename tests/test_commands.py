"""The commands of ``python -m benchmarks``: their list, their help, and the names that they had before."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS, Command, main
from benchmarks.terminal import RENAMED
from run import main as run_py

ROOT = Path(__file__).parents[1]


def all_commands(group: Command, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if command.module:
            yield (*names, name)
        yield from all_commands(command, (*names, name))


def test_the_list_of_commands_has_at_most_twelve_and_those_of_the_suite_itself_come_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2 and main(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS.commands) * 2
    assert len(COMMANDS.commands) <= 12 and list(COMMANDS.commands)[-1] == "measure"


def test_the_help_of_every_command_needs_no_torch() -> None:
    code = f"""
import sys
from benchmarks.__main__ import main
for names in {list(all_commands(COMMANDS))}:
    try:
        main([*names, "--help"])
    except SystemExit as end:
        assert end.code == 0, names
    else:
        raise AssertionError(names)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for names in all_commands(COMMANDS):
        assert f"usage: python -m benchmarks {' '.join(names)} " in done.stdout


def test_a_comment_that_the_shell_hands_on_is_none_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """As zsh does with a line that is copied from the documentation."""
    comment = ["#", "which", "networks,", "and", "what=they", "cost"]
    assert main(["complexity", "model=resnet", *comment]) == 0 and "resnet20" in capsys.readouterr().out
    assert run_py(["model=resnet", "--cfg", "job", "--resolve", *comment]) == 0
    assert "name: resnet20" in capsys.readouterr().out


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.report.status.load_runs", interrupted)
    assert main(["status"]) == 130


@pytest.mark.parametrize(("before", "now"), RENAMED.items())
def test_a_former_name_answers_with_the_present_one(before: str, now: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([before, "model=resnet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"python -m benchmarks: {before!r} is now {now!r}\n"
    assert before not in COMMANDS.commands
    words = tuple(word for word in now.split() if not word.startswith("-"))
    known = {names[:length] for names in all_commands(COMMANDS) for length in (1, 2)}
    assert words[:2] in known or words[:1] in set(all_commands(COMMANDS))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "python -m benchmarks: no command 'trian'; there are plan, status"),
        (["weights", "imprt"], "python -m benchmarks weights: no command 'imprt'; there are import, export"),
        (
            ["verify", "outputs"],
            "python -m benchmarks: no command 'verify'; there is python -m benchmarks report verify\n",
        ),
        (
            ["view", "export"],
            "python -m benchmarks view: no command 'export'; there is python -m benchmarks export and python -m benchmarks "
            "weights export\n",
        ),
        (["status", "nowhere"], "python -m benchmarks status: "),
        *(
            (
                [command, "model=mask_rcnn", "data=nuclei_instances"],
                f"python -m benchmarks {command}: steps of a detector are not measured by themselves (its runs record",
            )
            for command in ("throughput", "tune")
        ),
        (["complexity", "model=resnt"], "python -m benchmarks complexity: no model named 'resnt'"),
    ],
)
def test_what_the_user_did_wrong_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(line) and captured.err.count("\n") == 1 and captured.out == ""


def test_options_stand_among_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "model=resnet", "--csv", "data=digits"]) == 0
    assert capsys.readouterr().out.startswith("network,layer,kind,")


def test_networks_of_one_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["complexity", "model=resnet", "data=digits", "model.shortcut=A,C"]
    assert main([*asked, "--csv"]) == 0
    rows = csv.DictReader(capsys.readouterr().out.splitlines())
    assert {row["network"] for row in rows} - {"network"} == {"resnet20", "resnet20 model.shortcut=C"}
    assert main(asked) == 0
    titles = [line.strip() for line in capsys.readouterr().out.splitlines() if ", one image of" in line]
    assert [title.partition(" on ")[0] for title in titles] == ["resnet20", "resnet20 model.shortcut=C"]
