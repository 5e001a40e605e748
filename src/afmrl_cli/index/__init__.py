"""Vectors and listings in another engine: Qdrant in this process or behind a server, and files for others."""
