"""The same work by 1, 2 and 3 processes, forked from one that has imported everything."""

import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.forked_trials import unused_port

from benchmarks.launch.process import COMPILER

WORLD_SIZES = (1, 2, 3)


def by_every_number(work: Callable[[], object], out: Path) -> int:
    """Do the work in so many ranks each, write what rank 0 returns to ``<world size>.json``, and return the exit code."""
    importlib.import_module(COMPILER)
    failed = [_forked(work, world_size, out / f"{world_size}.json") for world_size in WORLD_SIZES]
    return int(any(failed))


def answers_of_ranks(work: Callable[[int, int], Any], world_size: int, folder: Path) -> list[Any]:
    """What ``work(rank, world_size)`` returns in each process of a gloo group, forked from this one."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def in_rank(rank: int) -> None:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/{world_size}", rank=rank, world_size=world_size)
        answers.put(work(rank, world_size))
        dist.destroy_process_group()

    ranks = [context.Process(target=in_rank, args=(rank,)) for rank in range(world_size)]
    for rank in ranks:
        rank.start()
    values = [answers.get(timeout=100) for _ in ranks]
    for rank in ranks:
        rank.join()
    return values


def _forked(work: Callable[[], object], world_size: int, out: Path) -> bool:
    """Whether a rank failed."""
    port = unused_port()
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _rank(work, rank, world_size, port, out)
                code = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return any(statuses)


def _rank(work: Callable[[], object], rank: int, world_size: int, port: int, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size),
    }  # fmt: skip
    results = work()
    if rank == 0:
        out.write_text(json.dumps(results))
