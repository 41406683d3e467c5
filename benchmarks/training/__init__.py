"""One rank of a run: train, evaluate, record."""

import gc

from benchmarks.training.deferred_imports import defer

# What is imported would be looked through for garbage 650 times, in 0.6 of 4.3 s (an AMD EPYC with AVX2, Python 3.11): training
# sets this back when it begins.
COLLECTED_EVERY = gc.get_threshold()
gc.set_threshold(50_000)
defer()  # before anything here imports Lightning
