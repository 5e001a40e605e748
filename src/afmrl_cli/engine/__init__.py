"""Engines that run shards: what a worker does, and who starts the workers."""
