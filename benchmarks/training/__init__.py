"""One rank of a run: train, evaluate, record."""

from benchmarks.training.deferred_imports import defer

defer()  # before anything here imports Lightning
