"""BM25, vectors, index and search."""
