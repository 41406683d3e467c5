"""One rank of a run: train, evaluate, record."""

import gc

from benchmarks.training.deferred_imports import defer

# Imports are looked through for garbage 650 times while they are made, 0.6 of their 4.3 s: a run collects from there on.
COLLECTED_EVERY = gc.get_threshold()
gc.set_threshold(50_000)
defer()  # before anything here imports Lightning
