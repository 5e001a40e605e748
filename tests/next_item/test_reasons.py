"""Which source speaks for a listing, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.next_item.fused import PRIOR, Weights
from afmrl_cli.next_item.gallery import Gallery, GalleryListing
from afmrl_cli.next_item.reasons import Reason, Reasons
from afmrl_cli.next_item.retrieval import make_retrieval
from afmrl_cli.next_item.similar import ListingVectors
from tests.next_item.cases import histories, question

GALLERY = Gallery([GalleryListing(f"P{n}", f"title {n}", "", "", "", (), f"G{n}", ()) for n in range(6)], "given", {})
ROWS = [(0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 1, 2), (2, 2, 3), (3, 2, 3), (4, 2, 3)]
"""Two customers take 0 and 1, three take 2."""
VECTORS = ListingVectors(
    np.array([[1, 0], [0, 1], [0, 1], [0.8, 0.6], [-1, 0]], dtype=np.float32), np.array([0, 1, 2, 3, 4, -1]), "here"
)


def reason(listing: int, *history: int, **weights: float) -> Reason:
    """The reason of a listing where only these sources weigh anything."""
    known = dict.fromkeys(PRIOR, 0.0) | {name.replace("_", " "): weight for name, weight in weights.items()}
    known["co-occurrence"] = known.pop("together", 0.0)
    retrieval = make_retrieval(histories(ROWS, 6), VECTORS, Weights(known, 1))
    return Reasons(retrieval, GALLERY, question(*history)).of(listing)


@pytest.mark.parametrize(
    ("listing", "history", "weights", "expected"),
    [
        (2, (0,), {"popularity": 1.0}, Reason("popularity", -1, "taken often")),
        (2, (0,), {"recent_popularity": 1.0}, Reason("recent popularity", -1, "taken often lately")),
        (1, (4, 0), {"together": 1.0}, Reason("co-occurrence", 0, "taken together with title 0")),
        (3, (1, 0), {"last_item": 1.0}, Reason("last item", 0, "like the last one, title 0")),
        (3, (0, 1), {"history": 1.0}, Reason("history", 0, "like title 0")),
        (4, (4, 4, 1), {"had": 1.0}, Reason("had", 4, "had 2 times before")),
        (0, (0, 1), {"history": 1.0}, Reason("had", 0, "had before")),
        (2, (1, 0), {"popularity": 0.1, "last_item": 0.1, "together": 9.0}, Reason("popularity", -1, "taken often")),
    ],
)
def test_the_source_that_raises_a_listing_most_speaks_for_it(
    listing: int, history: tuple[int, ...], weights: dict[str, float], expected: Reason
) -> None:
    assert reason(listing, *history, **weights) == expected


def test_where_no_source_raises_a_listing_nothing_is_said() -> None:
    assert reason(5, 0, popularity=1.0, history=1.0) == Reason("", -1, ""), "never taken, without a vector"
    assert reason(3, 0, had=-1.0) == Reason("", -1, ""), "not to be had before is no reason"
