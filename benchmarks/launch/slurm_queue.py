"""Asks Slurm for the states of its jobs, for many at once."""

import getpass
import shutil
import subprocess
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from benchmarks.config.trial import Trial, config_hash

LOOK_S = 1.0  # between looks at a job's files
ASK_S = 4.0  # between questions to Slurm
ANSWER_S = 10  # for an answer
PATIENCE_S = 30  # for the first answer


class Ticket(NamedTuple):
    """A job; its name tells it from one of another trial, as Slurm may start again at 1."""

    id: str
    name: str


class Queue:
    """What Slurm says of this user's jobs, asked for all of them at once."""

    def __init__(self) -> None:
        self._watched: set[Ticket] = set()
        self._states: dict[Ticket, str] = {}
        self._asked = self._answered = -ASK_S

    def add(self, ticket: Ticket) -> None:
        """Ask from now on for the state of a job that was just submitted."""
        self._watched.add(ticket)
        self._states[ticket] = "PENDING"

    def remove(self, ticket: Ticket) -> None:
        """Stop asking for the state of a job."""
        self._watched.discard(ticket)

    def state(self, ticket: Ticket) -> str | None:
        """Return the state that Slurm says, ``gone`` where it knows no such job; None where it does not answer."""
        answered = self._asked == self._answered
        if time.monotonic() - self._asked >= ASK_S or (answered and ticket not in self._states):
            self._watched.add(ticket)
            states = states_of(self._watched)
            self._asked = time.monotonic()
            if states is not None:
                self._states, self._answered = states, self._asked
        return self._states.get(ticket) if self._asked == self._answered else None

    def silent_s(self) -> float:
        """Return for how many seconds Slurm has not answered."""
        return self._asked - self._answered


SACCT = ("--noheader", "--allocations", "--parsable2")


def states_of(tickets: AbstractSet[Ticket]) -> dict[Ticket, str] | None:
    """Return the states of ``tickets`` and of all queued jobs; None where Slurm does not answer."""
    queued = answer_lines("squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T|%j")
    if queued is None:
        return None
    states = _parse(queued)
    missing = tickets - states.keys()
    if missing:  # accounting knows what has left the queue
        ids = ",".join(ticket.id for ticket in missing)
        states = _parse(answer_lines("sacct", *SACCT, "--format=JobID,State,JobName", f"--jobs={ids}") or []) | states
    return dict.fromkeys(tickets, "gone") | states


def _parse(lines: Sequence[str]) -> dict[Ticket, str]:
    fields = [line.split("|", 2) for line in lines]
    return {Ticket(number, name): state.split()[0] for number, state, name in fields}  # "CANCELLED by 0"


def answer_lines(*command: str) -> list[str] | None:
    """Return the lines that a command of Slurm prints; None where it fails or does not answer."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def find_slurm() -> None:
    """Return once Slurm answers. Raises TimeoutError where there is no ``sbatch``, or no answer within PATIENCE_S."""
    if shutil.which("sbatch") is None:
        raise TimeoutError("Slurm does not answer: there is no sbatch on this machine")
    deadline = time.monotonic() + PATIENCE_S
    while answer_lines("sbatch", "--version") is None or answer_lines("sinfo", "--noheader") is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Slurm does not answer: tried sbatch --version and sinfo for {PATIENCE_S} s")
        time.sleep(LOOK_S)


def job_name(trial: Trial) -> str:
    return f"{trial.config['name']}-{config_hash(trial.config)[:12]}"
