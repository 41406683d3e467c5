"""One file for each data set: what it holds, its checksums and its splits."""
