"""The results of a search as one document: what `afmrl search --json` prints and `afmrl serve` answers."""

from __future__ import annotations

from typing import Any

from .hits import fields_shown
from .search import Found

SCHEMA = "afmrl.search/1"


def found_document(found: Found, catalog: str, embedder: str) -> dict[str, Any]:
    """Return the document of `found`, without its schema's name; photos are paths."""
    query = found.query
    shown = {
        "text": query.text,
        "images": len(query.images),
        "like": found.liked.id if found.liked else "",
        "liked": fields_shown([found.liked])[0] if found.liked else None,
        "attributes": query.attributes,
        "filters": list(found.filters),
        "not": list(found.without),
        "change": {"text": found.change.text, "pairs": dict(found.change.pairs)} if found.change else None,
        "left_out": list(found.left_out),
    }
    # "question" is the key that afmrl.search/1 was published with.
    return {
        "catalog": catalog,
        "embedder": embedder,
        "question": shown,
        "hits": fields_shown(found.hits),
        "weights": dict(found.weights) if found.weights else None,
        "tuned": found.tuned,
        "reranked": found.reranked,
        "notes": [*found.warnings, *found.notes],
    }
