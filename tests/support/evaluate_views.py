"""Test views by 1, 2 and 3 processes: ``evaluate_views.py TREE OUT``."""

import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from support.evaluated_files import evaluate  # noqa: E402
from support.forked_ranks import by_every_number  # noqa: E402

if __name__ == "__main__":
    sys.exit(by_every_number(partial(evaluate, Path(sys.argv[1])), Path(sys.argv[2])))
