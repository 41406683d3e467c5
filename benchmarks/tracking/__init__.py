"""Mirrors of the records: Weights & Biases."""
