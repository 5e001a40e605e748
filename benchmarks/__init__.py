"""Benchmarks: each prints a ratio of two sides run in turn."""
