"""Possible duplicates for a person to decide: the pairs of the last kept `afmrl dedupe`, those of a group together.

A pair that has a verdict already, here or in the files of `dedupe.verdicts`, stands at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..catalog.verdicts import pair_of, read_verdicts
from ..dedupe.outputs import latest_run
from ..errors import AfmrlError
from ..retrieval.hits import LINKS, PRICES, first_filled
from ..workspace import Workspace
from .marks import Marks
from .opened import Opened
from .photos import address
from .refusals import Refusal

MOST_PAIRS = 500
MOST_PHOTOS = 4
TEXT_CHARS = 300


def pairs_to_review(work: Workspace, marks: Marks, opened: Opened | None) -> dict[str, Any]:
    """Return the document of the pairs: those without a verdict first. Raises Refusal where `dedupe` never ran."""
    found = latest_run(work.folder)
    if found is None:
        raise Refusal(404, "no duplicates were searched for yet", "run `afmrl dedupe`")
    try:
        verdicts = read_verdicts(work.settings, work.folder.root)
    except AfmrlError as error:  # files that people filled in: the page can still show pairs
        verdicts, problem = None, f"{error}"
    else:
        problem = ""
    own = {pair_of(*pair): same for pair, same in marks.verdicts().items()}
    pairs = found.get("pairs")
    if not isinstance(pairs, list):
        raise Refusal(500, "the last run of `afmrl dedupe` is damaged", "run it again")
    shown = []
    for each in _by_group(pairs)[:MOST_PAIRS]:
        pair = pair_of(each["id"], each["other_id"])
        elsewhere = verdicts is not None and (pair in verdicts.confirmed or pair in verdicts.rejected)
        same = own.get(pair, (pair in verdicts.confirmed) if verdicts is not None and elsewhere else None)
        shown.append(
            {
                **each,
                "same": same,
                "elsewhere": elsewhere and pair not in own,
                "sides": [
                    _side(id, words, opened)
                    for id, words in zip(
                        (each["id"], each["other_id"]), each.get("other_words") or ([], []), strict=True
                    )
                ],
            }
        )
    shown.sort(key=lambda each: each["same"] is not None)
    return {
        "schema": "afmrl.review/1",
        "pairs": shown,
        "found": len(pairs),
        "precision_reached": found.get("precision_reached"),
        "problem": problem,
    }


def _by_group(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pairs, those of a group beside the group's best."""
    first: dict[int, int] = {}
    for at, each in enumerate(pairs):
        if each.get("group"):
            first.setdefault(each["group"], at)
    order = sorted(range(len(pairs)), key=lambda at: (first.get(pairs[at].get("group") or -1, at), at))
    return [pairs[at] for at in order]


def _side(id: str, words: list[str], opened: Opened | None) -> dict[str, Any]:
    """Return what the page shows of a listing: all of it where it is among the embedded ones, else its id."""
    row = opened.rows.get(id) if opened else None
    if opened is None or row is None:
        return {"id": id, "title": "", "text": "", "price": "", "brand": "", "link": "", "photos": [], "words": words}
    listing = opened.searcher.vectors.listings.listing(row)
    fields: dict[str, str] = json.loads(listing.fields)
    text = " ".join(listing.text.split())
    link = first_filled(fields, LINKS)
    return {
        "id": id,
        "title": listing.title,
        "text": text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…",
        "price": first_filled(fields, PRICES),
        "brand": first_filled(fields, ("brand",)),
        "link": link if link.startswith(("http://", "https://")) else "",
        "photos": [address(id, number) for number in range(min(MOST_PHOTOS, len(listing.images)))],
        "words": words,
    }


def titles_of(opened: Opened | None, ids: tuple[str, ...]) -> Mapping[str, str]:
    """Return the titles of listings, of those that are among the embedded ones."""
    if opened is None:
        return {}
    listings = opened.searcher.vectors.listings
    return {id: listings.listing(opened.rows[id]).title for id in ids if id in opened.rows}
