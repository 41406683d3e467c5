"""Whether a run goes online: a key, and a server that answers. Each case in a process of its own, as the client keeps state."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.mirror import resolve_mode

ROOT = Path(__file__).resolve().parents[1]
KEY = "0" * 40


@pytest.fixture
def server() -> Iterator[str]:
    """Something that accepts connections on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def resolved(home: Path, **environment: str) -> tuple[str, str]:
    """The mode, and what was said about it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    code = "from benchmarks.mirror import resolve_mode; print('mode', resolve_mode('auto'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        env=clean | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "WANDB_ERROR_REPORTING": "false"} | environment,
    )  # fmt: skip
    said, _, mode = done.stdout.rpartition("mode ")
    return mode.strip(), said


def test_no_key_is_offline(tmp_path: Path, server: str) -> None:
    assert resolved(tmp_path, WANDB_BASE_URL=server) == ("offline", "")


def test_a_key_and_a_server_is_online(tmp_path: Path, server: str) -> None:
    assert resolved(tmp_path, WANDB_BASE_URL=server, WANDB_API_KEY=KEY)[0] == "online"


def test_a_key_and_no_server_is_offline_and_says_so(tmp_path: Path, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as soon_gone:
        port = soon_gone.getsockname()[1]
    mode, said = resolved(tmp_path, WANDB_BASE_URL=f"http://127.0.0.1:{port}", WANDB_API_KEY=KEY)
    assert mode == "offline"
    assert "127.0.0.1 does not answer" in said and "wandb sync" in said


def test_the_environment_has_the_last_word(tmp_path: Path, server: str) -> None:
    mode, _ = resolved(tmp_path, WANDB_BASE_URL=server, WANDB_API_KEY=KEY, WANDB_MODE="offline")
    assert mode == "offline"


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, online or offline, got 'cloud'; logger=none turns it off"):
        resolve_mode("cloud")
