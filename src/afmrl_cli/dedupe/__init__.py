"""Which listings are the same product."""
