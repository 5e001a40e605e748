"""A retailer's files as Products: reading, images, checks, splits."""
