"""Counting compute, launching sweeps, reading their records and drawing tables from them."""
