"""Processes, sweeps and the clusters that they run on."""
