"""Bases, adapters and processors; the generator and the embedder."""
