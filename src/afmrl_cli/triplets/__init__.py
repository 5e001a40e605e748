"""Triplets for composed retrieval, made from the catalog: a reference, a change, a target."""
