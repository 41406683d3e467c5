"""Test views by 1, 2 and 3 processes: ``evaluate_views.py TREE OUT`` forks them, so that all is imported once."""

import json
import os
import socket
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from support.evaluated_files import evaluate  # noqa: E402


def rank_of(rank: int, world_size: int, port: int, tree: Path, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size),
    }  # fmt: skip
    found = evaluate(tree)
    if rank == 0:
        (out / f"{world_size}.json").write_text(json.dumps(found))


def main(tree: Path, out: Path) -> int:
    for world_size in (1, 2, 3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(world_size):
            child = os.fork()
            if child == 0:
                rank_of(rank, world_size, port, tree, out)
                sys.stdout.flush()
                os._exit(0)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        if any(codes):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
