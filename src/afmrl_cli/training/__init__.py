"""Training of the embedder and the generator."""
