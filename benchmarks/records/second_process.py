"""Work that begins in a process of its own, on a core that would be idle."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Result = TypeVar("Result")
MANY = 1_000  # runs, from which on another process is worth its start


def begin(function: Callable[[], Result], runs: int) -> Callable[[], Result]:
    """Begin what returns a result, in a fork of this process, and return what waits for the result.

    Where there is one core, more than one thread, which a fork can lock forever, or no Linux, and in such a fork itself, it
    begins when it is waited for; it begins anew where the other process was killed. What it raises is raised by the wait.

    Args:
        runs: how many it is about; of fewer than ``MANY`` it begins when it is waited for.
    """
    forks = sys.platform == "linux" and threading.active_count() == 1 and not multiprocessing.current_process().daemon
    if runs < MANY or not forks or len(os.sched_getaffinity(0)) < 2:
        return function
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(function, sender), daemon=True)
    process.start()
    sender.close()

    def wait() -> Result:
        try:
            result, error = receiver.recv()
        except EOFError:
            return function()
        process.join()
        if error is not None:
            raise error
        return result

    return wait


def _answer(function: Callable[[], Any], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    gc.disable()  # it would look through all that the first process holds
    try:
        sender.send((function(), None))
    except Exception as error:
        sender.send((None, error))
