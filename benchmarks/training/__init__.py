"""One rank of a run: train, evaluate, record."""
