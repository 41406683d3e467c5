"""Imported last by the server of processes: imports what trials name, and its forks name this code, whatever becomes of the
files."""

import atexit
import os
from contextlib import suppress
from importlib import import_module

from benchmarks.launch.process import PRELOADED
from benchmarks.records.code_version import remember
from benchmarks.training.environment import checkout

imported = []
for module in os.environ.get(PRELOADED, "").split():
    with suppress(Exception, SystemExit):  # of a user's own module: the trial that needs it says what is wrong
        with suppress(ImportError):  # of a class within a class, whose module is imported
            import_module(module)
        imported.append(module)
remember(imported)
checkout()
# Python would take 0.5 s of a core to take apart what was imported; forks end without such calls.
atexit.register(os._exit, 0)
