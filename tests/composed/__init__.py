"""Tests of the training for composed queries."""
