"""run.py as a user starts it, and what it leaves."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")} | {"WANDB_MODE": "offline"}


def start(*arguments: str, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments, f"output_root={root}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root.parent, env=CLEAN,
        # A shell's background job ignores Ctrl-C, and so would the tests' processes.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def run(*arguments: str, root: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, root=root)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def records(root: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in root.glob("*/*/*/seed*/record.json")]
    return {record["name"]: record for record in found}


def rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def inspect(folder: Path) -> list[dict]:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=CLEAN | {"WANDB_ERROR_REPORTING": "false"}, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
