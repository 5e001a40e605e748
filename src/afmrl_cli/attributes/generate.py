"""The resumable job: products -> attribute texts in the database.

A text is stored under what it was made from (the view's fingerprint, generator id, task id), one transaction a window
of products. Products may be views of a listing (`views`): a photo alone, its text alone, a listing without a photo. So
whatever has been stored is never generated again, an interrupted run goes on where it was, a changed product is a new
one, and a run with nothing to do opens no photo and loads no model.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from ..catalog.images import open_image
from ..catalog.pictures import load_photos
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..errors import ModelError
from ..settings import Settings
from ..store.database import StoredAttributes
from ..store.files import hash_json
from ..workspace import Workspace
from .agreement import REFUSED, Reading, confident, read_confidence, read_together, requests_of, write_confidence
from .open_requests import open_requests
from .parse import read_stored
from .request import Generation, Generator, Request, Stopped, generate_until_stopped
from .views import StoredViews

ENDPOINT_ERROR = "endpoint error"
NOTHING_TO_READ = "nothing to read"
"""Failures beside those of the parser: the server gave no answer; the model or a filter declined; no text, and no photo
that can be opened."""
RETRIED = (ENDPOINT_ERROR, NOTHING_TO_READ)
"""What the next run tries again by itself; invalid answers only with `retry_failed`: most would be the same again."""

WINDOW_BATCHES = 4
"""Batches that a local model gets at a time: it sorts them by length, and gets one ready while another is running."""
KEPT_CHARS = 1000
EXAMPLES = 20
REMEMBERED = 100_000


@dataclass
class AttributeSummary:
    """What a run did with `products`: `generated` in this run, `skipped` since stored before."""

    products: int = 0
    generated: int = 0
    skipped: int = 0
    valid: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    """Requests that the generator answered: listings of the same content share one."""
    request_seconds: float = 0.0
    """Photos, generation, storing; without reading the catalog and loading the model."""
    examples: list[tuple[Product, StoredAttributes]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Pairs below `attributes.min_confidence`, by key."""
    failed: dict[str, tuple[Product, str]] = field(default_factory=dict)
    """The first product of each kind of failure, and what the model or the server said."""

    @property
    def valid_share(self) -> float:
        """Return the share of all products with a valid text, new or old."""
        return self.valid / self.products if self.products else 0.0

    @property
    def products_per_second(self) -> float:
        """Return the speed over what was requested in this run."""
        return self.requests / self.request_seconds if self.request_seconds else 0.0

    def count(self, product: Product, row: StoredAttributes, *, new: bool) -> None:
        """Take note of a product's result."""
        self.products += 1
        self.generated += new
        self.skipped += not new
        if row.failure is not None:
            self.failures[row.failure] += 1
            self.failed.setdefault(row.failure, (product, row.text))
            return
        self.valid += 1
        self.left_out.update(read_confidence(row).keys() - read_stored(row.text).keys())
        if len(self.examples) < EXAMPLES:
            self.examples.append((product, row))

    def add(self, other: AttributeSummary) -> None:
        """Add what a run did with other products, at the same time."""
        for name in ("products", "generated", "skipped", "valid", "requests"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.left_out += other.left_out
        self.failed = {**other.failed, **self.failed}
        self.examples = [*self.examples, *other.examples][:EXAMPLES]


def sample_products(products: Iterable[Product], number: int, seed: int) -> list[Product]:
    """Return a fixed random sample, in the catalog's order: the same ids and seed give the same products."""
    chosen = heapq.nsmallest(number, enumerate(products), key=lambda pair: hash_json([seed, pair[1].id]))
    return [product for _, product in sorted(chosen, key=lambda pair: pair[0])]


@dataclass(frozen=True)
class Selection:
    """Which products the generator writes for: those without an answer, and those whose answer is no result
    (RETRIED). `force`: about all; `retry_failed`: where an answer was invalid, too; `limit`: about so many.
    """

    limit: int | None = None
    force: bool = False
    retry_failed: bool = False

    def needs(self, row: StoredAttributes | None) -> bool:
        """Check whether a product of which this is stored is generated for."""
        if row is None or not row.viewed or self.force:
            return True
        return row.failure is not None and (self.retry_failed or row.failure in RETRIED)


def count_needed(products: Iterable[Product], views: StoredViews, selection: Selection) -> tuple[int, int]:
    """Count (products, those of them that a run would generate for, whatever its `limit`)."""
    seen: set[str] = set()
    total = needed = 0
    for _, fingerprint, row in views.stored(products):
        total += 1
        if fingerprint not in seen and selection.needs(row):
            needed += 1
            if len(seen) < REMEMBERED:
                seen.add(fingerprint)
    return total, needed


def generate_attributes(
    work: Workspace,
    products: Iterable[Product],
    views: StoredViews,
    problems: Problems,
    selection: Selection | None = None,
    total: int | None = None,
) -> AttributeSummary:
    """Generate for every product that has no stored answer, and store it.

    `views` are those of `work.source`. The generator is loaded for the first request, not before. `total` is
    for progress only. Listings of the same content are generated for once. Raises ModelError when not a single request
    was answered, and whatever the generator raises; what was stored until then stays.
    """
    run, selection = _Run(work, views, problems), selection or Selection()
    needed = 0
    for product, fingerprint, stored in views.stored(products):
        row = run.done.get(fingerprint, stored)
        if fingerprint in run.waiting:
            run.waiting[fingerprint].append(product)
        elif fingerprint in run.done or not selection.needs(row):
            assert row is not None
            run.summary.count(product, row, new=False)
        else:
            run.wait(product, fingerprint, stored)
            needed += 1
        if len(run.waiting) >= run.window:
            run.generate_window()
        if needed == selection.limit:
            break
        work.listener.progress("attributes", run.summary.products, total)
    run.generate_window()
    work.listener.progress("attributes", run.summary.products, total)
    if run.unanswered and run.unanswered == run.summary.requests:
        raise ModelError(f"none of {run.unanswered} requests was answered, the last one: {run.last_error}")
    return run.summary


class _Run:
    """What one run carries along: the window of products that wait, and what has been done."""

    def __init__(self, work: Workspace, views: StoredViews, problems: Problems) -> None:
        self.work, self.views, self.problems = work, views, problems
        batch, remote = work.settings.attributes.batch_size, work.settings.attributes.endpoint
        self.window = batch * (1 if remote else WINDOW_BATCHES)
        self.waiting: dict[str, list[Product]] = {}
        self.valid_before: set[str] = set()
        self.done: dict[str, StoredAttributes] = {}
        self.summary = AttributeSummary()
        self.generator: Generator | None = None
        self.unanswered = 0
        self.last_error = ""

    def wait(self, product: Product, fingerprint: str, stored: StoredAttributes | None) -> None:
        """Put `product` into the window; `stored` is what an earlier run said of it."""
        self.waiting[fingerprint] = [product]
        if stored is not None and stored.failure is None:
            self.valid_before.add(fingerprint)

    def generate_window(self) -> None:
        """Generate for the products that wait, store the answers in one transaction, count them."""
        if not self.waiting:
            return
        begin, settings = time.monotonic(), self.work.settings
        firsts = {fingerprint: same[0] for fingerprint, same in self.waiting.items()}
        if self.generator is None and any(something_to_read(product, settings) for product in firsts.values()):
            self.generator = self.work.generator()
            begin = time.monotonic()
        opened = open_requests(self.work.task, list(firsts.values()), settings, self.problems, self.generator)
        requests = dict(zip(firsts, opened, strict=True))
        agreement = settings.attributes.agreement
        made = {key: requests_of(request, agreement) for key, request in requests.items() if request is not None}
        answers, stopped = self._answers(made)
        rows = [
            self._row(fingerprint, product, answers.get(fingerprint))
            for fingerprint, product in firsts.items()
            if fingerprint in answers or fingerprint not in made
        ]
        # With --force and a server that is out of order, a valid text must not give way to an error.
        lost = {row.fingerprint for row in rows if row.failure in (ENDPOINT_ERROR, REFUSED)} & self.valid_before
        self.views.database.put_attributes([row for row in rows if row.fingerprint not in lost])
        if stopped is not None:
            raise stopped
        self.summary.request_seconds += time.monotonic() - begin
        if len(self.done) > REMEMBERED:
            self.done.clear()
        for written in rows:
            row = confident(written, settings.attributes.min_confidence)
            assert row is not None  # `AttributeSettings` sees to it that somebody tells the confidence
            self.done[row.fingerprint] = row
            for product in self.waiting[row.fingerprint]:
                self.summary.count(product, row, new=True)
        self.waiting.clear()
        self.valid_before.clear()

    def _answers(self, requests: dict[str, list[Request]]) -> tuple[dict[str, list[Generation]], Stopped | None]:
        """Return the answers to each product's requests by fingerprint, if there are all, and why there are no more
        when the generator could not go on.
        """
        if not requests or self.generator is None:
            return {}, None
        said, stopped = generate_until_stopped(self.generator, [one for own in requests.values() for one in own])
        each = iter(said)
        grouped = {key: list(itertools.islice(each, len(own))) for key, own in requests.items()}
        answers = {key: found for key, own in grouped.items() if len(found := [a for a in own if a]) == len(own)}
        errors = [answer.error for answer in itertools.chain(*answers.values()) if answer.error is not None]
        self.summary.requests += len(answers)
        self.unanswered += sum(all(answer.error is not None for answer in own) for own in answers.values())
        self.last_error = errors[-1] if errors else self.last_error
        return answers, stopped

    def _row(self, fingerprint: str, product: Product, answers: list[Generation] | None) -> StoredAttributes:
        if answers is None:
            reading, said = Reading(None, NOTHING_TO_READ), ""
        elif broken := [answer.error for answer in answers if answer.error is not None and not answer.refused]:
            reading, said = Reading(None, ENDPOINT_ERROR), broken[0]
        else:
            reading, said = read_together(answers, product, self.work.task), answers[0].error or answers[0].text
        return StoredAttributes(
            fingerprint,
            self.work.generator_id,
            self.work.task.id,
            product.id,
            reading.text if reading.text is not None else storable(said),
            reading.failure,
            time.time(),
            confidence=None if reading.confidence is None else write_confidence(reading.confidence),
        )


def something_to_read(product: Product, settings: Settings) -> bool:
    """Check whether `product` is a reason to load a model."""
    if product_text(product):
        return True
    return bool(load_photos(product.images, partial(open_image, settings=settings.catalog), 1).photos)


def storable(text: str) -> str:
    """Return what a model said that is no attribute text, kept for people: without what UTF-8 or a terminal can't
    take.
    """
    clipped = text[:KEPT_CHARS].encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() else " " for char in clipped)
