"""Data: in memory, or decoded anew from files; batches that do not depend on the number of processes."""
