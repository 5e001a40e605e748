"""What a run is trained on: listings of the train and validation splits with their attributes and readable photos.

The test split is never looked at. Listings that people confirmed as one product (`dedupe.verdicts`) have one identity.
Photos are decoded once at the start: an unreadable one is told and left out there, instead of stopping a run in the
middle.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..attributes.generate import stored_attributes
from ..attributes.parse import read_stored
from ..catalog.fingerprints import Fingerprinter
from ..catalog.images import ImageProblem, open_image
from ..catalog.problems import Problem, Problems
from ..catalog.product import Product, product_text
from ..catalog.read import count_rows, read_products
from ..catalog.splits import Split, split_of
from ..catalog.verdicts import Verdicts, read_verdicts
from ..errors import DataError
from ..listener import Listener
from ..settings import Settings
from ..store.database import Database
from ..store.folder import CatalogFolder
from .lexical import attribute_tokens
from .pairs import Photo, TrainListing

DECODERS = 4


@dataclass(frozen=True)
class Corpus:
    """`tokens` are the train listings' attribute tokens, in their order ([] where a listing has none).

    `fingerprint` is a hash of everything here that training sees; `described` of the train listings have attributes.
    """

    train: list[TrainListing]
    validation: list[TrainListing]
    tokens: list[list[str]]
    fingerprint: str
    described: int
    others: int = 0
    """Listings of the test split: they are counted, and not looked at."""


def load_corpus(
    folder: CatalogFolder,
    settings: Settings,
    generator: str,
    task: str,
    database: Database,
    problems: Problems,
    listener: Listener,
    *,
    for_agcl: bool = True,
) -> Corpus:
    """Read the catalog for a run of `train-agcl` or, without `for_agcl`, of one that writes attributes itself.

    `generator` and `task` say whose stored attributes are used. Raises DataError when AGCL's loss needs attributes and
    there are none, naming the generators whose attributes there are.
    """
    train: list[TrainListing] = []
    validation: list[TrainListing] = []
    tokens: list[list[str]] = []
    sides: Counter[Split] = Counter()
    digest = hashlib.sha256()
    total = count_rows(folder, settings.catalog)
    products = read_products(folder, settings.catalog, problems)
    with Fingerprinter(database) as fingerprinter, ThreadPoolExecutor(max_workers=DECODERS) as threads:
        wanted = (product for product in products if _side(product, settings, sides) != "test")
        # A little ahead of the loop, so that several threads decode: as many products as `stored_attributes` looks up.
        for product, fingerprint, stored in stored_attributes(wanted, task, generator, database, fingerprinter):
            text = stored.text if stored is not None and stored.failure is None else ""
            photos = _readable(product, settings, problems, fingerprinter, threads)
            listing = TrainListing(product.id, product.identity, product.category, product_text(product), photos, text)
            digest.update(f"{fingerprint}\0{product.identity}\0{product.category}\0{text}\0{len(photos)}\n".encode())
            if split_of(product, settings.split) == "validation":
                validation.append(listing)
                continue
            train.append(listing)
            own = _own_tokens(product, text, settings)
            digest.update(("\0".join(own) + "\n").encode())
            tokens.append(own)
            listener.progress("reading", len(train) + len(validation), total)
    if verdicts := read_verdicts(settings, folder.root):
        train, validation = (_one_product(listings, verdicts) for listings in (train, validation))
        said = [[(item.identity, sorted(item.rejected)) for item in side] for side in (train, validation)]
        digest.update(json.dumps(said).encode())
    described = sum(bool(own) for own in tokens)
    if for_agcl and settings.agcl.loss == "agcl" and not described:
        raise _no_attributes(settings, generator, database, train)
    return Corpus(train, validation, tokens, digest.hexdigest(), described, sides["test"])


def _side(product: Product, settings: Settings, sides: Counter[Split]) -> Split:
    side = split_of(product, settings.split)
    sides[side] += 1
    return side


def _one_product(listings: list[TrainListing], verdicts: Verdicts) -> list[TrainListing]:
    """The listings with one identity for those that a person called the same product: positives, and never negatives;
    each knows those that a person called another one.

    Each split by itself: a confirmed pair that lies across two of them joins nothing, so that nothing leaks.
    """
    identities = verdicts.identities({listing.id: listing.identity for listing in listings})
    others = verdicts.rejected_of()
    return [replace(item, identity=identities[item.id], rejected=others.get(item.id, frozenset())) for item in listings]


def _readable(
    product: Product,
    settings: Settings,
    problems: Problems,
    fingerprinter: Fingerprinter,
    threads: ThreadPoolExecutor,
) -> tuple[Photo, ...]:
    """The photos of `product` that can be opened; the others go to `problems`."""

    def size(path: Path) -> tuple[int, int] | ImageProblem:
        try:
            return open_image(path, settings.catalog).size
        except ImageProblem as problem:
            return problem

    found: list[Photo] = []
    for path, result in zip(product.images, threads.map(size, product.images), strict=True):
        if isinstance(result, ImageProblem):
            problem = Problem("unreadable image", product.row, f"{path.name}: {result.reason}", "", product.id)
            problems.report(problem, settings.catalog.bad_images, path)
        else:
            found.append(Photo(path, result, fingerprinter.of(Product("", images=(path,)))))
    return tuple(found)


def _own_tokens(product: Product, text: str, settings: Settings) -> list[str]:
    if settings.agcl.attributes == "generated":
        return attribute_tokens(read_stored(text), settings.agcl.bm25_tokens)
    keys: Iterable[str] = settings.agcl.given or product.given
    return attribute_tokens({key: product.given.get(key, "") for key in keys}, settings.agcl.bm25_tokens)


def _no_attributes(settings: Settings, generator: str, database: Database, train: Sequence[TrainListing]) -> DataError:
    if settings.agcl.attributes == "given":
        columns = ", ".join(settings.agcl.given) or "any column but the known ones"
        return DataError(
            f"agcl.attributes = given, but no training product has a value in {columns}",
            "name columns that the catalog has in agcl.given; `afmrl check` lists them",
        )
    stored = database.attribute_sources()
    if generator not in stored and (invalid := database.invalid_attributes(generator)):
        return DataError(
            f"no training product has attributes by {generator}: none of its {invalid:,} stored answers is valid",
            "look at `afmrl attributes --sample 20`; teach the generator longer, or name another",
        )
    if stored:
        other = " with another schema or template"
        known = ", ".join(f"{name}{other if name == generator else ''} ({n:,})" for name, n in stored.items())
        return DataError(
            f"no attributes by {generator} for these products; stored are attributes by: {known}",
            "run `afmrl attributes`, or name the generator that wrote them (model.preset, model.generator, "
            "model.generator_checkpoint, and the schema and template in [attributes])",
        )
    return DataError(
        "no attributes yet, and AGCL weights negatives by them",
        "run `afmrl attributes` first, or use the catalog's own columns: --set agcl.attributes=given",
    )
