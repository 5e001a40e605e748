"""A short caption of each listing, written once by the generator from its photos and text, and kept like attributes.

A caption says what is seen and leaves the name out: in MLLMRec-R1 it stands in the prompt in place of the photo. It is
stored under what it was made from (what the generator is shown of the listing, the generator, the prompt), so that
nothing is ever written twice, and a killed run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

from ..attributes.answers import SPECIAL_TOKEN, without_thinking
from ..attributes.generate import ENDPOINT_ERROR
from ..attributes.open_requests import open_requests
from ..attributes.request import Generation, Generator, Request
from ..attributes.views import StoredViews, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..store.database import StoredAttributes
from ..store.files import hash_json
from ..workspace import Workspace

PROMPT = """\
{product}

Describe what is seen of this product in one sentence of at most {words} words: kind, colour, pattern, material, cut. \
Leave its name and brand out."""
WORDS = 50
WINDOW = 64
LONGEST = 600
"""Characters of a caption that are kept."""


def captions_of(work: Workspace, products: Sequence[Product], problems: Problems) -> dict[str, str]:
    """Return captions by listing; those that are missing are written first."""
    source = work.source
    with open_views(work, source) as views:
        prints = dict(zip((product.id for product in products), views.fingerprints(products), strict=True))
        stored = _stored(views, source.generator, sorted({*prints.values()} - {""}))
        missing = {prints[each.id]: each for each in reversed(products) if prints[each.id] not in stored}
        stored |= _write(work, views, missing, problems)
    found = {id: stored[key].text for id, key in prints.items() if key in stored and stored[key].failure is None}
    if lacking := len(products) - len(found):
        work.listener.warn(f"{lacking:,} of {len(products):,} listings have no caption: their other text is read")
    return found


def _task() -> str:
    return hash_json(["caption", PROMPT, WORDS])[:16]


def _stored(views: StoredViews, generator: str, prints: Sequence[str]) -> dict[str, StoredAttributes]:
    rows = views.database.attributes(generator, _task(), prints)
    return {key: row for key, row in rows.items() if row.failure != ENDPOINT_ERROR}


def _write(
    work: Workspace, views: StoredViews, missing: dict[str, Product], problems: Problems
) -> dict[str, StoredAttributes]:
    made: dict[str, StoredAttributes] = {}
    generator: Generator | None = None
    left = iter(missing.items())
    while window := dict(islice(left, WINDOW)):
        generator = generator or work.generator()
        opened = open_requests(work.task, list(window.values()), work.settings, problems, generator)
        asked = {
            key: Request(PROMPT.format(product=product_text(product), words=WORDS), request.images)
            for (key, product), request in zip(window.items(), opened, strict=True)
            if request is not None
        }
        answers = generator.generate(list(asked.values()))
        rows = {key: _row(key, window[key], answer, generator.id) for key, answer in zip(asked, answers, strict=True)}
        views.database.put_attributes(list(rows.values()))
        made |= rows
        work.listener.progress("captions", len(made), len(missing))
    return made


def _row(key: str, product: Product, answer: Generation, generator: str) -> StoredAttributes:
    text = " ".join(SPECIAL_TOKEN.sub(" ", without_thinking(answer.text)).split())[:LONGEST]
    failure = ENDPOINT_ERROR if answer.error and not answer.refused else None if text else "empty"
    return StoredAttributes(key, generator, _task(), product.id, text, failure, time.time())
