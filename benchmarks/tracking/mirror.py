"""Weights & Biases as a mirror of the local record, kept by a process of its own beside rank 0.

That process reads the run's folder as everybody else does, so that no trouble of the client or the server can hold, end or
alter a run. It asks about the key while the run is set up, so that the first step does not wait for a server. At its end a run
waits ``logger.finish_timeout`` seconds for what is left to be sent to a server that answers, and less than 10 s for one that
does not. What the server has missed, ``python -m benchmarks wandb sync`` sends.
"""

import fcntl
import json
import os
import re
import select
import shlex
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.records.files import HISTORY, read_config
from benchmarks.records.runs import output_root_of, read_history
from benchmarks.tracking.content import mirrored, reason, record_of
from benchmarks.tracking.process import LOOK_S, finish, ignore_signals, kill, start, tell

WATCH_S = 10.0  # between looks at the server in a run
ANSWER_S = 1.0  # for a server's word on the key, once the run is set up; a later one is heeded when it comes
MODES = ("auto", "online", "offline")
REFUSED = re.compile(r"error 40[0-4]|not found during upsertBucket|permission denied", re.IGNORECASE)
OPEN = b"open\n"
PLACE = ("project", "entity")  # keys of the configuration's node


def remedy(root: Path) -> str:
    """Say how the runs below an output root are sent later."""
    return f"`python -m benchmarks wandb sync {shlex.quote(str(root))}` sends the run later"


class Mirror:
    """The mirror's process, as rank 0 knows it.

    Args:
        directory: the run's, with its record and configuration.
        mode: ``auto``, ``online`` or ``offline``.
        init_timeout: seconds that the client has to open the run.
        finish_timeout: seconds to wait at the end for what is left to be sent.
        settings: the rest of the configuration's node, which the process reads for itself.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, directory: Path, mode: str, init_timeout: float, finish_timeout: float, **settings: Any) -> None:
        self.mode = mode
        if self.mode not in MODES:
            raise ValueError(f"logger.mode is auto, online or offline, got {self.mode!r}; logger=none turns it off")
        self._init_s, self._finish_s = init_timeout, finish_timeout
        self._opened = self._settled = False
        self._remedy = remedy(output_root_of(directory))
        self._process = start("mirror", directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def open(self) -> None:
        """Open the run as its written record says. Raises ValueError where, with ``mode: online``, the server refuses the
        key."""
        self._opened = True
        tell(self._process, OPEN)
        if self.mode == "online":
            self._look(self._init_s)  # until the process asks, which is no matter of the server
            self._look(ANSWER_S)

    def check(self) -> None:
        """Look at what the server said, without waiting; does nothing once the run is open there or offline. Raises ValueError
        where, with ``mode: online``, it refuses the key or the entity."""
        self._look(0)

    def finish(self) -> str:
        """Close the run as its written record says, within ``logger.finish_timeout``; return the mode it ran in."""
        if not self._opened:
            kill(self._process)
            return self.mode
        finish(self._process, self._finish_s, "W&B: not everything was sent", self._remedy)
        with suppress(ValueError):  # the run is over
            for _ in range(4):  # the words of main(), and its end
                self._look(0)
        return self.mode

    def _look(self, wait_s: float) -> None:
        answers: Any = self._process.stdout
        if self._settled or not select.select([answers], [], [], wait_s)[0]:
            return
        answer = json.loads(answers.readline() or '{"mode": "offline"}')  # it has ended before the run was open
        self._settled = "mode" in answer
        self.mode = answer.get("mode", self.mode)
        if "refused" in answer:
            raise ValueError(f"W&B refuses: {answer['refused']}; logger.mode=offline runs without")


def main(directory: Path) -> int:
    """Run the process: send each row of the history as it comes, and the rest at the end; return 0 if all was taken."""
    ignore_signals()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the client prints belongs in the log
    from benchmarks.tracking.wandb_run import close, log_rows, prepare

    config = read_config(directory)
    root = Path(config["output_root"]).resolve()
    prepare(root)
    # Under `wandb agent` the client takes a run's place from the environment alone.
    place = {"run_id": record_of(directory)["run_id"], **{name: config["logger"][name] or "" for name in PLACE}}
    os.environ |= {f"WANDB_{name.upper()}": value for name, value in place.items()}

    def answer(**word: str) -> None:
        print(json.dumps(word), file=answers, flush=True)

    unwatched = threading.Event()
    try:
        answer()  # that the server is asked now
        mode = resolve_mode(config["logger"]["mode"], root)
        answer()
        if os.read(0, len(OPEN)) != OPEN:
            return 0  # rank 0 has ended before its run was set up
        if mode == "online":
            threading.Thread(target=give_up_without_server, args=(root, unwatched, _finishing), daemon=True).start()
        run, mode = _start(directory, config, root, mode)
    except ConnectionRefusedError as refused:
        answer(refused=str(refused), mode="offline")
        return 1
    if mode != "online":
        unwatched.set()
    answer(mode=mode)
    if run is None:
        return 0
    sent, ending = run.starting_step, False
    try:
        while not ending:
            ending = _finishing(LOOK_S)
            rows = mirrored(read_history(directory / HISTORY))
            if len(rows) > sent:
                log_rows(run, record_of(directory), rows, sent)
                sent = len(rows)
        if not _waiting():
            os._exit(1)  # rank 0 was killed: how the run ended is not known here
        close(run, directory, record_of(directory), config)
    except Exception as error:  # of the client, its service or the network: of many classes
        print(f"W&B: {reason(error)}; {remedy(root)}", file=sys.stderr, flush=True)
        os._exit(1)  # at an orderly end the client would go on trying
    return 0


def _finishing(wait_s: float) -> bool:
    """Wait for rank 0's word that the run is over, or its death; tell whether it has come. It is not read: two threads look."""
    return bool(select.select([0], [], [], wait_s)[0])


def _waiting() -> int:
    """Return how many bytes of rank 0's words are not read."""
    return int.from_bytes(fcntl.ioctl(0, termios.FIONREAD, bytes(4)), sys.byteorder)


def give_up_without_server(root: Path, unwatched: threading.Event, finishing: Callable[[float], bool]) -> None:
    """End this process when there is nothing but sending left to do and the server has twice in a row not answered: the
    client would go on trying for minutes. What is missed during the run counts, so that its end is short.

    Args:
        root: the output root, from which is sent later.
        unwatched: set once there is no server to be watched.
        finishing: waits for so many seconds, and tells whether nothing but sending is left.
    """
    from benchmarks.tracking.wandb_run import unreachable

    failures, finished, problem = 0, False, None
    while not (finished and failures > 1):
        if finished:
            time.sleep(LOOK_S)
        finished = finished or finishing(WATCH_S)
        problem = unreachable()
        failures = 0 if problem is None else failures + 1
        if unwatched.is_set():
            return
    print(f"W&B: {problem}; {remedy(root)}", file=sys.stderr, flush=True)
    os._exit(1)


def resolve_mode(mode: str, root: Path) -> str:
    """Return the mode: ``offline`` where the server does not answer, for ``auto`` also where it has no key or refuses it.

    W&B's own switches go before: with them nothing leaves the machine, and by ``disabled`` nothing is written either. ``root``:
    the output root, from which is sent later.

    Raises:
        ConnectionRefusedError: the server refuses the key, and the mode is ``online``.
    """
    from benchmarks.tracking.wandb_run import ask, has_key, switched_off

    if (off := switched_off()) is not None:
        return off
    if mode == "offline" or (mode == "auto" and not has_key()):
        return "offline"
    try:
        problem = ask() if has_key() else None  # without a key the client says what to do
    except ConnectionRefusedError as refused:
        if mode == "online":
            raise
        problem = str(refused)
    if problem is None:
        return "online"
    print(f"W&B: {problem}; going on offline, {remedy(root)}", file=sys.stderr)
    return "offline"


def _start(directory: Path, config: dict[str, Any], root: Path, mode: str) -> tuple[Any, str]:
    """Return the run, None if W&B is disabled, and its mode, offline where the server cannot be used. Raises
    ConnectionRefusedError where it refuses what ``logger.mode: online`` asks for."""
    import wandb
    from wandb.errors import AuthenticationError, UsageError

    from benchmarks.tracking.wandb_run import folder_of, open_run, quiet_settings, supersede_offline_files

    record, configured = record_of(directory), config["logger"]["mode"]
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
            print(f"W&B: {reason(error)}; going on offline, {remedy(root)}", file=sys.stderr)
        wandb.teardown(exit_code=1)  # its service would hold the run's id
        mode = "offline"
    return None, mode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
