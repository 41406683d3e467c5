"""A measurement in a process of its own: ``python -m benchmarks.performance MODULE ARGUMENT``.

Prints what the ``main`` of a module below ``benchmarks`` returns, of several ranks the first's; argument and answer are JSON.
"""

import json
import os
import sys
from importlib import import_module

if __name__ == "__main__":
    answer = import_module(f"benchmarks.{sys.argv[1]}").main(json.loads(sys.argv[2]))
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps(answer))
