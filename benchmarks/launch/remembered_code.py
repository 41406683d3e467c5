"""Imported last by the server of processes: its forks name the code that it has imported, whatever becomes of the files."""

import os

from benchmarks.launch.process import PRELOADED
from benchmarks.records.code_version import remember
from benchmarks.training.environment import checkout

remember(os.environ.get(PRELOADED, "").split())
checkout()
