"""RAR: the generator learns to write the attributes that make the frozen embedder find the product."""
