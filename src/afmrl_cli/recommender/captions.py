"""A short caption of each listing, written once by the generator from its photos and text, and kept like attributes.

A caption says what is seen and leaves the name out: in MLLMRec-R1 it stands in the prompt in place of the photo. It is
stored under what it was made from (what the generator is shown of the listing, the generator, the prompt), so that
nothing is ever written twice, and a killed run goes on where it was. The endpoint of `[attributes]` writes, else the
local generator without an adapter: one that has learnt to write attributes writes nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

from ..attributes.answers import SPECIAL_TOKEN, without_thinking
from ..attributes.chatter import declines
from ..attributes.generate import ENDPOINT_ERROR, something_to_read, storable
from ..attributes.open_requests import open_requests
from ..attributes.request import Generation, Generator, Request, generate_until_stopped
from ..attributes.views import StoredViews, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..errors import ModelError
from ..next_item.retrieval import Lock
from ..store.database import CAPTIONS, StoredAttributes
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
EMPTY, REFUSED = "empty", "refused"


def captions_of(work: Workspace, products: Sequence[Product], problems: Problems, lock: Lock) -> dict[str, str]:
    """Return captions by listing; those that are missing are written first, while `lock` is held.

    Raises ModelError where not one of the requests was answered, and whatever the generator raises; what was answered
    until then is stored.
    """
    bare = work.settings.model.model_copy(update={"generator_checkpoint": ""})
    settings = work.settings.model_copy(update={"model": bare})
    writer = work.with_settings(settings)
    with open_views(writer, writer.source) as views:
        prints = dict(zip((product.id for product in products), views.fingerprints(products), strict=True))
        stored = _stored(views, writer.generator_id, sorted({*prints.values()}))
        missing = {prints[each.id]: each for each in reversed(products) if prints[each.id] not in stored}
        missing = {key: each for key, each in missing.items() if something_to_read(each, settings)}
        if missing:
            with lock():
                stored |= _Writing(work, writer, views, problems).write(missing)
    found = {id: stored[key].text for id, key in prints.items() if key in stored and stored[key].failure is None}
    if lacking := len(products) - len(found):
        work.listener.warn(f"{lacking:,} of {len(products):,} listings have no caption: their other text is read")
    return found


def _task() -> str:
    return CAPTIONS + hash_json([PROMPT, WORDS])[:16]


def _stored(views: StoredViews, generator: str, prints: Sequence[str]) -> dict[str, StoredAttributes]:
    rows = views.database.attributes(generator, _task(), prints)
    return {key: row for key, row in rows.items() if row.failure != ENDPOINT_ERROR}


class _Writing:
    """Writes captions; weights and listener are those of `work`, the settings those of `writer`."""

    def __init__(self, work: Workspace, writer: Workspace, views: StoredViews, problems: Problems) -> None:
        self.work, self.writer, self.views, self.problems = work, writer, views, problems

    def write(self, missing: dict[str, Product]) -> dict[str, StoredAttributes]:
        """Return a row for each product, by fingerprint; an error of a server is one, too, and is tried again by the
        next run.
        """
        from ..models.backends import load_backend

        work, made = self.work, dict[str, StoredAttributes]()
        work.listener.note(f"{len(missing):,} captions are written by {self.writer.generator_id}")
        generator = load_backend(
            self.writer.settings, work.checkpoints, bases=work.bases, listener=work.listener, read=str
        )
        left, last_error = iter(missing.items()), ""
        while window := dict(islice(left, WINDOW)):
            requests = self._requests(generator, window)
            answers, stopped = generate_until_stopped(generator, list(requests.values()))
            said = {key: answer for key, answer in zip(requests, answers, strict=True) if answer is not None}
            rows = {key: _row(key, window[key], answer, self.writer.generator_id) for key, answer in said.items()}
            self.views.database.put_attributes(list(rows.values()))
            made |= rows
            last_error = next((answer.error for answer in said.values() if answer.error), last_error)
            if stopped is not None:
                raise stopped
            work.listener.progress("captions", len(made), len(missing))
        if made and all(row.failure == ENDPOINT_ERROR for row in made.values()):
            raise ModelError(f"none of {len(made)} requests for captions was answered, the last one: {last_error}")
        return made

    def _requests(self, generator: Generator, products: dict[str, Product]) -> dict[str, Request]:
        settings, found = self.writer.settings, dict[str, Request]()
        opened = open_requests(self.work.task, list(products.values()), settings, self.problems, generator)
        for (key, product), request in zip(products.items(), opened, strict=True):
            if request is not None:
                text = product_text(product)
                found[key] = Request(PROMPT.format(product=text, words=WORDS), request.images, product=text)
        return found


def _row(key: str, product: Product, answer: Generation, generator: str) -> StoredAttributes:
    text = " ".join(storable(SPECIAL_TOKEN.sub(" ", without_thinking(answer.text))).split())[:LONGEST]
    if answer.error and not answer.refused:
        failure = ENDPOINT_ERROR
    elif answer.refused or declines(text):
        failure = REFUSED
    else:
        failure = "" if text else EMPTY
    return StoredAttributes(key, generator, _task(), product.id, text, failure or None, time.time())
