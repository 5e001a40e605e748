"""Benchmarks: each prints a ratio of two sides run in turn, of the built-in model unless it names another."""

import os

BUILT_IN = {"AFMRL_MODEL_PRESET": "nano"}
"""The environment in which they read settings: what a machine has must not decide what is measured."""
for _name, _value in BUILT_IN.items():
    os.environ.setdefault(_name, _value)
