"""Counting compute, launching sweeps, reading their records and drawing tables from them."""

import sys

if not sys.platform.startswith(("linux", "darwin")):
    print(f"compute-accuracy runs on Linux and macOS, not on {sys.platform}: it needs fcntl", file=sys.stderr)
    raise SystemExit(2)
