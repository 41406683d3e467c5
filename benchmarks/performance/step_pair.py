"""Two training steps beside each other: ``python -m benchmarks.performance.step_pair SPECIFICATIONS`` prints JSON."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.performance.interleaved import interleave
from benchmarks.performance.step_time import Steps

MEASURED_S = 15.0
FEWEST, MOST, WARM_UP = 7, 200, 2  # rounds


def main(pair: Sequence[Mapping[str, Any]]) -> int:
    """Print the ratios of the second specification's steps to the first's, interleaved, as JSON; return the exit code."""
    torch.set_num_threads(pair[0]["threads"])
    clock = time.perf_counter if pair[0]["gpu"] else time.thread_time
    device = torch.device("cuda" if pair[0]["gpu"] else "cpu")
    plain, other = (Steps(one, device).of(one) for one in pair)
    repeats = pair[0].get("repeats")
    fewest, most = (repeats, repeats) if repeats else (FEWEST, MOST)
    rounds = interleave(plain, other, clock, warm_up=WARM_UP, fewest=fewest, most=most, seconds=MEASURED_S)
    print(json.dumps({"ratios": [with_it / without for without, with_it in rounds]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
