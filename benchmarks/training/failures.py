"""Why a run failed: the cause in one line, whether it would come again, and whose it is."""

import re
import time
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.config.hydra_errors import unwrapped
from benchmarks.records import files
from benchmarks.training.environment import process_rank
from benchmarks.units import FULL_DISK, full_disk

# Of what Lightning says of a weight without a gradient in several processes. Its advice, a strategy, is no key here.
UNUSED = "parameters that were not used in producing"
EVERY_WEIGHT = (
    "a weight took no part in a training step: in several processes each weight that learns must take part in every step; "
    "train in one process, or give it requires_grad=False"
)
# What gloo, NCCL and torch's store say when a peer is gone or silent.
PEER_LOST = re.compile(r"gloo|NCCL|closed by peer|reset by peer|broken pipe|timed out", re.IGNORECASE)


def describe(error: BaseException) -> str:
    """Return the cause in one line, without Hydra's wrapping."""
    error = unwrapped(error)
    if full_disk(error):
        return FULL_DISK
    if UNUSED in str(error):
        return EVERY_WEIGHT
    text, *others = str(error).strip().splitlines() or [""]
    if text.endswith(":") and others:  # of a target that cannot be imported, as Hydra says it
        text = f"{text} {others[0]}"
    return text if is_known(error) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def is_known(error: BaseException) -> bool:
    """Tell whether an error is the program's own clear one, which would come again."""
    error = unwrapped(error)
    known = ValueError | FileNotFoundError | ArithmeticError | ImportError | MemoryError
    return isinstance(error, known) or full_disk(error) or UNUSED in str(error)


def is_of_a_peer(error: BaseException) -> bool:
    """Tell whether an error comes from another rank that is gone or silent."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, torch.distributed.DistError) or PEER_LOST.search(str(error)) is not None
    )


def report_failure(directory: Path, reason: str, error: BaseException) -> None:
    """Write ``failure.json``, of the first rank to fail; ranks that only saw a broken connection give way to a cause."""
    failure = {
        "error": reason,
        "rank": process_rank(),
        "time": time.time(),
        "known": is_known(error),
        "peer": is_of_a_peer(error),
    }
    first = files.read_json(directory / files.FAILURE)
    if first is None or (first.get("peer") and not failure["peer"]):
        with suppress(OSError):
            files.write_json(directory / files.FAILURE, failure)
