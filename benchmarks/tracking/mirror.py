"""Weights & Biases as a mirror of the local record, kept by a process of its own beside rank 0.

That process reads the run's folder as everybody else does, so that no trouble of the client or the server can hold, end or
alter a run. Training waits for nothing but, at its end, ``logger.finish_timeout`` seconds for what is left to be sent to a
server that answers, and with ``logger.mode=online``, at its start, for such a server's word on the key. What the server has
missed, ``python -m benchmarks wandb sync`` sends.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from benchmarks.records.files import CONFIG, HISTORY, RECORD, read_json
from benchmarks.records.runs import read_history

LOOK_S = 1.0  # between looks at the history
MODES = ("auto", "online", "offline")
REFUSED = re.compile(r"error 40[0-4]|not found during upsertBucket|permission denied", re.IGNORECASE)
SYNC = "`python -m benchmarks wandb sync` sends the run later"
FINISH = b"finish\n"
PLACE = ("project", "entity")  # keys of the configuration's node


class Mirror:
    """The mirror's process, as rank 0 knows it.

    Args:
        directory: the run's, with its record and configuration.
        mode: ``auto``, ``online`` or ``offline``.
        init_timeout: seconds to wait with ``mode: online`` for the word of a server that answers.
        finish_timeout: seconds to wait at the end for what is left to be sent.
        settings: the rest of the configuration's node, which the process reads for itself.

    Raises:
        ValueError: an unknown mode; with ``mode: online``, a key or an entity that the server refuses.
    """

    def __init__(self, directory: Path, mode: str, init_timeout: float, finish_timeout: float, **settings: Any) -> None:
        self.mode = mode
        if self.mode not in MODES:
            raise ValueError(f"logger.mode is auto, online or offline, got {self.mode!r}; logger=none turns it off")
        self._limit_s = finish_timeout
        self._process = start("mirror", directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.mode == "online":
            self._look(init_timeout)

    def finish(self) -> str:
        """Close the run as its written record says, within ``logger.finish_timeout``; return the mode it ran in."""
        with suppress(OSError):  # it has ended before
            os.write(self._process.stdin.fileno(), FINISH)  # type: ignore[union-attr]
        end(self._process, self._limit_s, "not everything was sent")
        with suppress(ValueError):  # the run is over
            self._look(0)
        return self.mode

    def _look(self, wait_s: float) -> None:
        answers: Any = self._process.stdout
        if select.select([answers], [], [], wait_s)[0]:
            answer = json.loads(answers.readline() or "{}")
            self.mode = answer.get("mode", self.mode)
            if "refused" in answer:
                raise ValueError(f"W&B refuses: {answer['refused']}; logger.mode=offline runs without")


def start(module: str, path: Path, **streams: Any) -> subprocess.Popen[bytes]:
    """Start ``python -m benchmarks.tracking.MODULE PATH`` in a session of its own: signals to a trial are not meant for it."""
    # Another client's service would outlive the process.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    command = [sys.executable, "-m", f"benchmarks.tracking.{module}", str(path)]
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def end(process: subprocess.Popen[bytes], limit_s: float, problem: str) -> None:
    """Wait for a process for ``limit_s`` seconds, and end it and its children then, with the ``problem`` in a line."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"W&B: {problem} within {limit_s:g} s; {SYNC}", file=sys.stderr)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(directory: Path) -> int:
    """Run the process: send each row of the history as it comes, and the rest at the end; return 0 if all was taken."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the client prints belongs in the log
    from benchmarks.tracking.wandb_run import close, mirrored, prepare, reason

    config = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    root = Path(config["output_root"]).resolve()
    prepare(root)
    # Under `wandb agent` the client takes a run's place from the environment alone.
    place = {"run_id": _record(directory)["run_id"], **{name: config["logger"][name] or "" for name in PLACE}}
    os.environ |= {f"WANDB_{name.upper()}": value for name, value in place.items()}
    try:
        run, mode = _start(directory, config, root)
    except ConnectionRefusedError as refused:
        print(json.dumps({"refused": str(refused)}), file=answers, flush=True)
        return 1
    print(json.dumps({"mode": mode}), file=answers, flush=True)
    if run is None:
        return 0
    sent, ending = run.starting_step, False
    try:
        while not ending:
            ending = bool(select.select([0], [], [], LOOK_S)[0])
            for row in mirrored(read_history(directory / HISTORY))[sent:]:
                run.log(row)
                sent += 1
        if os.read(0, len(FINISH)) != FINISH:
            os._exit(1)  # rank 0 was killed: how the run ended is not known here
        if mode == "online":
            threading.Thread(target=_give_up_without_server, daemon=True).start()
        close(run, directory, _record(directory), config)
    except Exception as error:  # of the client, its service or the network: of many classes
        print(f"W&B: {reason(error)}; {SYNC}", file=sys.stderr)
        return 1
    return 0


def _give_up_without_server() -> None:
    """End this process once the server has twice not answered: the client would go on trying for minutes."""
    from benchmarks.tracking.wandb_run import unreachable

    failures, problem = 0, None
    while failures < 2:
        time.sleep(LOOK_S)
        problem = unreachable()
        failures = 0 if problem is None else failures + 1
    print(f"W&B: {problem}; {SYNC}", file=sys.stderr, flush=True)
    os._exit(1)


def resolve_mode(mode: str) -> str:
    """Return the mode: ``offline`` where the server does not answer, and for ``auto`` also where no key is configured.

    W&B's own switches go before: with them nothing leaves the machine, and by ``disabled`` nothing is written either.
    """
    from benchmarks.tracking.wandb_run import has_key, switched_off, unreachable

    if (off := switched_off()) is not None:
        return off
    if mode == "offline" or (mode == "auto" and not has_key()):
        return "offline"
    problem = unreachable() if has_key() else None  # without a key the client says what to do
    if problem is None:
        return "online"
    print(f"W&B: {problem}; going on offline, {SYNC}", file=sys.stderr)
    return "offline"


def _start(directory: Path, config: dict[str, Any], root: Path) -> tuple[Any, str]:
    """Return the run, None if W&B is disabled, and its mode. Raises ConnectionRefusedError where the server refuses what
    ``mode: online`` asks for."""
    import wandb
    from wandb.errors import AuthenticationError, UsageError

    from benchmarks.tracking.wandb_run import folder_of, open_run, quiet_settings, reason, supersede_offline_files

    record, configured = _record(directory), config["logger"]["mode"]
    mode = resolve_mode(configured)
    while mode != "disabled":
        settings = quiet_settings(
            config["logger"]["init_timeout"],
            config["logger"]["finish_timeout"],
            x_stats_pid=os.getppid(),
            x_transaction_log_flush_interval=2,
        )
        if mode == "offline":  # every offline file holds the whole run
            supersede_offline_files(root, record["run_id"])
        try:
            return open_run(record, config, mode=mode, dir=str(folder_of(root)), settings=settings), mode
        except Exception as error:  # of the client, its service or the network: of many classes
            if mode == "offline":
                raise
            if configured == "online" and (
                isinstance(error, AuthenticationError | UsageError) or REFUSED.search(str(error))
            ):
                raise ConnectionRefusedError(reason(error)) from None
            print(f"W&B: {reason(error)}; going on offline, {SYNC}", file=sys.stderr)
        wandb.teardown(exit_code=1)  # its service would hold the run's id
        mode = "offline"
    return None, mode


def _record(directory: Path) -> dict[str, Any]:
    record = read_json(directory / RECORD)
    if record is None:
        raise ValueError(f"{directory / RECORD} cannot be read")
    return record


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
