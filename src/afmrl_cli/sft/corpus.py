"""What is taught, and what is validated on: products of the train and validation splits with their targets.

The test split is never read. Photos of those chosen are decoded once at the start: an unreadable one is reported
there and left out, as generation leaves it out, instead of stopping a run in the middle.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..attributes.generate import NOTHING_TO_READ
from ..attributes.open_requests import open_request
from ..attributes.task import AttributeTask
from ..attributes.views import AttributeSource, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import count_rows, no_products, open_catalog
from ..catalog.splits import Split, split_of
from ..errors import DataError
from ..models.processor import Processor
from ..settings import Settings
from ..store.database import StoredAttributes
from ..store.files import hash_json
from ..workspace import Workspace
from .targets import NO_TARGET, Source, Target, open_source, read_target, sparseness

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture
    from ..models.generator import LocalGenerator

TOO_LONG = "longer than attributes.max_new_tokens"
SPECIAL = "a special token"
"""Failures of targets beside the parser's: the model could not end in time; it would learn to write a turn's end."""
DECODERS = 4
AT_A_TIME = 64


@dataclass(frozen=True)
class Row:
    """What is learnt from: the string that is tokenised before the answer, its photos, and the answer, of which each
    token weighs the same or, with `by_line`, each line.
    """

    prompt: str
    photos: Sequence[Image | Picture]
    answer: str
    by_line: bool = False


@dataclass(frozen=True)
class Example:
    """A product and what the generator is to answer."""

    product: Product
    target: Target

    @property
    def listings(self) -> tuple[str, ...]:
        """Return the ids of the listings that are shown."""
        return (self.product.id,)

    def row(self, generator: LocalGenerator, task: AttributeTask, settings: Settings) -> Row:
        """Return what generation would read, photos opened, with the answer. DataError when nothing is readable."""
        request = open_request(task, self.product, settings, Problems(), generator)
        if request is None:
            raise DataError(f"product {self.product.id}: its photos can't be opened any more", "put them back")
        return Row(generator.text(request), request.images, self.target.text)


@dataclass(frozen=True)
class Corpus:
    """`left_out` counts products of both splits by reason; `first` is one example of each: (product's id, text).

    `sparse` is the share of products that lack a key ({} where nothing is dropped); `fingerprint` is a hash of
    everything here that training sees.
    """

    source: Source
    train: list[Example]
    validation: list[Example]
    left_out: Counter[str]
    first: dict[str, tuple[str, str]]
    sparse: dict[str, float]
    fingerprint: str


@dataclass
class _Reading:
    """Examples, each with the hash of what is seen of its product, and what was left out."""

    examples: dict[Split, list[tuple[Example, str]]] = field(default_factory=lambda: {"train": [], "validation": []})
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[str, str]] = field(default_factory=dict)
    without_view: int = 0
    """Targets that a teacher wrote before it was recorded what it was shown."""

    def leave_out(self, reason: str, product: Product, text: str) -> None:
        self.left_out[reason] += 1
        self.first.setdefault(reason, (product.id, text))


def load_corpus(work: Workspace, processor: Processor, student: str, problems: Problems) -> Corpus:
    """Read the catalog for a run of `train-sft`; `student` is the id of the generator that is taught.

    Raises DataError when no training product has a valid target, saying why the targets were left out.
    """
    folder, settings, task, listener = work.folder, work.settings, work.task, work.listener
    reading = _Reading()
    total = count_rows(folder, settings.catalog)
    with open_views(work, None) as views, open_catalog(folder, settings.catalog, problems) as catalog:
        source = open_source(work, catalog, views.database, student)
        views.source = AttributeSource(
            source.teacher, task.id, settings.model.generator_images, settings.attributes.min_confidence
        )
        sides = ((product, split_of(product, settings.split)) for product in catalog.products)
        wanted = (each for each, side in sides if side == "validation" or (side == "train" and work.sees(each)))
        for number, (example, seen) in enumerate(_with_targets(views.stored(wanted), source, task, processor, reading)):
            reading.examples[split_of(example.product, settings.split)].append((example, seen))
            listener.progress("reading", number + 1, total)
    if reading.without_view:
        listener.note(
            f"{reading.without_view:,} targets of {source.name} are of an earlier version, which did not record what "
            "was shown: `afmrl attributes` with it writes them anew"
        )
    if not any(reading.examples.values()) and not reading.left_out and problems.errors:
        raise no_products(folder.catalog, problems)
    sft = settings.sft
    chosen = _sample(reading.examples["train"], sft.max_products, sft.seed)
    train = list(_readable(chosen, task, settings, problems, reading))
    chosen = _sample(reading.examples["validation"], sft.validation_products, sft.seed)
    validation = list(_readable(chosen, task, settings, problems, reading))
    if not train:
        raise _no_targets(source, reading, task)
    digest = hashlib.sha256()
    for part in (train, validation):
        for example, seen in part:
            digest.update(f"{seen}\0{example.product.category}\0{example.target.text}\n".encode())
        digest.update(b"\n")
    examples = [example for example, _ in train]
    dropping = bool(source.keys) and settings.sft.key_dropout > 0
    return Corpus(
        source,
        examples,
        [example for example, _ in validation],
        reading.left_out,
        reading.first,
        sparseness(((e.product, e.target) for e in examples), task.schema) if dropping else {},
        digest.hexdigest(),
    )


def _with_targets(
    rows: Iterable[tuple[Product, str, StoredAttributes | None]],
    source: Source,
    task: AttributeTask,
    processor: Processor,
    reading: _Reading,
) -> Iterator[tuple[Example, str]]:
    """Yield examples with their product's fingerprint; what has no valid target is counted."""
    for product, fingerprint, row in rows:
        text, reason = source.raw(product, row)
        if not text:
            reading.leave_out(reason or NO_TARGET, product, row.text if row is not None else "")
            continue
        target = read_target(text, product, task, source.keys)
        if isinstance(target, str):
            reading.leave_out(target, product, text)
        elif processor.clean(target.text) != target.text:
            reading.leave_out(SPECIAL, product, text)
        # One token more, for the end of the turn.
        elif len(processor.tokenizer(target.text)["input_ids"]) + 1 > task.settings.max_new_tokens:
            reading.leave_out(TOO_LONG, product, text)
        else:
            reading.without_view += bool(source.teacher) and row is not None and not row.viewed
            yield Example(product, target), fingerprint


def _readable(
    examples: Iterable[tuple[Example, str]],
    task: AttributeTask,
    settings: Settings,
    problems: Problems,
    reading: _Reading,
) -> Iterator[tuple[Example, str]]:
    """Yield the examples that there is something to read of, photos decoded in several threads to find out."""

    def check(pair: tuple[Example, str]) -> tuple[bool, Problems]:
        own = Problems()
        return open_request(task, pair[0].product, settings, own) is not None, own

    stream = iter(examples)
    with ThreadPoolExecutor(max_workers=DECODERS) as threads:
        while some := list(itertools.islice(stream, AT_A_TIME)):
            for pair, (readable, found) in zip(some, threads.map(check, some), strict=True):
                for kind in found.counts:
                    for problem in found.first(kind):
                        problems.add(problem)
                if readable:
                    yield pair
                else:
                    reading.leave_out(NOTHING_TO_READ, pair[0].product, "")


def _sample(examples: list[tuple[Example, str]], number: int, seed: int) -> list[tuple[Example, str]]:
    """Return a fixed random sample, in the catalog's order."""
    if len(examples) <= number:
        return examples
    chosen = heapq.nsmallest(number, range(len(examples)), key=lambda i: hash_json([seed, examples[i][0].product.id]))
    return [examples[i] for i in sorted(chosen)]


def _no_targets(source: Source, reading: _Reading, task: AttributeTask) -> DataError:
    message = f"no targets from {source.name} for the training products"
    if not reading.left_out:
        return DataError(message, "the training split is empty: see split.validation, split.test, `afmrl check`")
    reason, number = reading.left_out.most_common(1)[0]
    product, text = reading.first[reason]
    message += f": {reason} in {number:,} of {sum(reading.left_out.values()):,}, first {product}"
    message += f" ({text[:80]})" if text else ""
    hints = {
        "outside schema": "mend the values or the schema: [attributes.keys] must allow what the source says",
        TOO_LONG: f"raise attributes.max_new_tokens (now {task.settings.max_new_tokens})",
        "too many pairs": "raise attributes.max_pairs, or name fewer columns in sft.columns",
        NO_TARGET: "name another source (sft.source), or for a teacher run `afmrl attributes` with the same schema, "
        "template and limits in [attributes] first",
    }
    return DataError(message, hints.get(reason, "mend the source, or name another one (sft.source)"))
