"""Tests; their shops are small, not always drawn, and worked on by the built-in model."""

NANO = {"AFMRL_MODEL_PRESET": "nano"}
"""The environment in which they read settings that say nothing of models."""
