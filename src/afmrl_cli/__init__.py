"""afmrl: fine-grained product retrieval from a retailer's own catalog (AFMRL)."""

__version__ = "0.1.0"
