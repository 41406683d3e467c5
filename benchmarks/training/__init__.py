"""One rank of a run: train, evaluate, record."""

from benchmarks.records.lazy import defer_scipy_signal

defer_scipy_signal()  # before anything here imports Lightning
