"""Data: decoded arrays in memory, batches that do not depend on the number of processes."""
