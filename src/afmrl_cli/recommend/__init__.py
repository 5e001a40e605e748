"""Recommendation: what customers did with the catalog's products, and what follows from it."""
