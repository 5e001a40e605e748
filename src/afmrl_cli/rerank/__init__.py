"""Teaching the reranker: whether two listings are one product."""
