"""What a run is trained on: listings of the train and validation splits with their attributes and readable photos.

The test split is never read. Listings that people confirmed as one product (`dedupe.verdicts`) have one identity.
Photos are decoded once at the start: an unreadable one is reported and left out there, instead of stopping a run in the
middle.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..attributes.parse import read_stored
from ..attributes.views import LISTING, AttributeSource, StoredViews, listing_views
from ..catalog.fingerprints import Fingerprinter
from ..catalog.folds import Part
from ..catalog.images import ImageProblem, checked_size
from ..catalog.problems import Problem, Problems
from ..catalog.product import Product, product_text
from ..catalog.read import count_rows, read_products
from ..catalog.splits import Split, split_of
from ..catalog.verdicts import Verdicts, read_verdicts
from ..errors import DataError
from ..settings import Settings
from ..store.database import Database
from ..store.files import hash_json
from ..workspace import Workspace
from .cross_fitting import CrossFitted
from .lexical import attribute_tokens
from .loss import choose_loss
from .pairs import KINDS, QUERIES_OF_KIND, ROWS_OF_RAR, VIEWS_OF_KIND, Kind, Photo, TrainListing, find_positives
from .validation import validation_positives

DECODERS = 4


@dataclass(frozen=True)
class Corpus:
    """`tokens` are the train listings' attribute tokens, in their order ([] where a listing has none).

    `fingerprint` is a hash of everything here that training sees; `num_with_attributes` of the train listings have
    tokens.
    """

    train: list[TrainListing]
    validation: list[TrainListing]
    tokens: list[list[str]]
    fingerprint: str
    num_with_attributes: int
    others: int = 0
    """Listings of the test split: they are counted, and not read."""
    generators: dict[str, int] = field(default_factory=dict)
    """How many train listings have attributes by which generator."""


def load_corpus(
    work: Workspace, source: AttributeSource | None, problems: Problems, *, for_agcl: bool = True
) -> Corpus:
    """Read the catalog for a run of `train-agcl` or, without `for_agcl`, of one that writes attributes itself; of the
    training split what `work.part` takes.

    `source` says whose stored attributes are used (None: none). Raises DataError when AGCL's loss needs attributes
    and there are none, naming the generators whose attributes there are.
    """
    with work.database() as database:
        return _load_corpus(work, source, database, problems, for_agcl)


def _load_corpus(
    work: Workspace, source: AttributeSource | None, database: Database, problems: Problems, for_agcl: bool
) -> Corpus:
    folder, settings, listener = work.folder, work.settings, work.listener
    train: list[TrainListing] = []
    validation: list[TrainListing] = []
    tokens: list[list[str]] = []
    sides: Counter[Split] = Counter()
    digest = hashlib.sha256()
    total = count_rows(folder, settings.catalog)
    products = read_products(folder, settings.catalog, problems)
    with Fingerprinter(database) as fingerprinter, ThreadPoolExecutor(max_workers=DECODERS) as threads:
        views = CrossFitted(work, source, database, fingerprinter)
        for product, side, texts in views.of_listings(_seen(products, work, sides)):
            photos = readable_photos(product, settings, problems, fingerprinter, threads)
            listing = TrainListing(product.id, product.identity, product.category, product_text(product), photos, texts)
            described = [[*key, text] for key, text in sorted(texts.items())]
            seen = [fingerprinter.of(product), product.identity, product.category, described, len(photos)]
            digest.update(hash_json(seen).encode())
            if side == "validation":
                validation.append(listing)
                continue
            train.append(listing)
            own = _own_tokens(product, texts.get(LISTING, ""), settings)
            digest.update(("\0".join(own) + "\n").encode())
            tokens.append(own)
            listener.progress("reading", len(train) + len(validation), total)
    if verdicts := read_verdicts(settings, folder.root):
        train, validation = (_one_product(listings, verdicts) for listings in (train, validation))
        said = [[(item.identity, sorted(item.rejected)) for item in side] for side in (train, validation)]
        digest.update(json.dumps(said).encode())
    views.tell(listener)
    num_with_attributes = sum(bool(own) for own in tokens)
    if for_agcl and choose_loss(settings.agcl).weighted and not num_with_attributes:
        raise _no_attributes(settings, source.generator if source else "", database, views.first)
    generators = dict(sorted(views.used.items()))
    return Corpus(train, validation, tokens, digest.hexdigest(), num_with_attributes, sides["test"], generators)


def _seen(products: Iterable[Product], work: Workspace, sides: Counter[Split]) -> Iterator[tuple[Product, Split]]:
    """Yield the products that training sees, and of which split they are; `sides` counts all."""
    for product in products:
        side = split_of(product, work.settings.split)
        sides[side] += 1
        if side == "validation" or (side == "train" and work.sees(product)):
            yield product, side


def part_of(corpus: Corpus, part: Part | None) -> Corpus:
    """Return `corpus` as it would have been read for `part`, without a fingerprint of its own."""
    if part is None:
        return corpus
    kept = [i for i, listing in enumerate(corpus.train) if part.sees(listing.id, listing.identity)]
    tokens = [corpus.tokens[i] for i in kept]
    train = [corpus.train[i] for i in kept]
    return replace(corpus, train=train, tokens=tokens, num_with_attributes=sum(map(bool, tokens)))


def training_views(work: Workspace) -> list[Product]:
    """Return the views beside whole listings that ask in training and validation, and with `enrich = both` that are
    searched, by RAR (`rar.query`) too: what the generator has to describe so that such sides can carry attributes. With
    `work.part` of its products alone.
    """
    folder, settings = work.folder, work.settings
    both = settings.embed.enrich == "both"
    products = _seen(read_products(folder, settings.catalog, Problems()), work, Counter())
    kept = [product for product, side in products if side == "train" or work.part is None]
    kinds: list[Kind] = [kind for kind in KINDS if kind in settings.agcl.pairs]
    with work.database() as database, Fingerprinter(database) as fingerprinter:
        listings = [
            TrainListing(
                product.id,
                product.identity,
                product.category,
                product_text(product),
                tuple(Photo(path, (0, 0), fingerprinter.hash_of(path)) for path in product.images),
            )
            for product in kept
        ]
        found: list[Product] = []
        positives = find_positives(listings, kinds, required=False)
        held = [i for i, product in enumerate(kept) if split_of(product, settings.split) == "validation"]
        held_out = validation_positives([listings[i] for i in held], settings)
        positives += [replace(each, listing=held[each.listing]) for each in held_out]
        for positive in positives:
            names = VIEWS_OF_KIND[positive.kind] if both else QUERIES_OF_KIND[positive.kind]
            contents = [photo.content for photo in listings[positive.listing].photos]
            found += listing_views(kept[positive.listing], names, contents).values()
        if both and (row := ROWS_OF_RAR.get(settings.rar.query)):
            for product, listing in zip(kept, listings, strict=True):
                found += listing_views(product, [row], [photo.content for photo in listing.photos]).values()
    return found


def _one_product(listings: list[TrainListing], verdicts: Verdicts) -> list[TrainListing]:
    """Return the listings with one identity for those that a person called the same product: positives, and never
    negatives; each knows those that a person called another one.

    Each split by itself: a confirmed pair that lies across two of them joins nothing, so that nothing leaks.
    """
    identities = verdicts.identities({listing.id: listing.identity for listing in listings})
    others = verdicts.rejected_of()
    return [replace(item, identity=identities[item.id], rejected=others.get(item.id, frozenset())) for item in listings]


def readable_photos(
    product: Product,
    settings: Settings,
    problems: Problems,
    fingerprinter: Fingerprinter,
    threads: ThreadPoolExecutor,
) -> tuple[Photo, ...]:
    """Return the photos of `product` that can be opened; the others go to `problems`."""

    def size(path: Path) -> tuple[int, int] | ImageProblem:
        try:
            return checked_size(path, settings.catalog)
        except ImageProblem as problem:
            return problem

    found: list[Photo] = []
    for path, result in zip(product.images, threads.map(size, product.images), strict=True):
        if isinstance(result, ImageProblem):
            problem = Problem("unreadable image", product.row, f"{path.name}: {result.reason}", "", product.id)
            problems.report(problem, settings.catalog.bad_images, path)
        else:
            found.append(Photo(path, result, fingerprinter.hash_of(path)))
    return tuple(found)


def _own_tokens(product: Product, text: str, settings: Settings) -> list[str]:
    if settings.agcl.attributes == "generated":
        return attribute_tokens(read_stored(text), settings.agcl.bm25_tokens)
    keys: Iterable[str] = settings.agcl.given or product.given
    return attribute_tokens({key: product.given.get(key, "") for key in keys}, settings.agcl.bm25_tokens)


def _no_attributes(settings: Settings, generator: str, database: Database, views: StoredViews) -> DataError:
    if settings.agcl.attributes == "given":
        columns = ", ".join(settings.agcl.given) or "any column but the known ones"
        return DataError(
            f"agcl.attributes = given, but no training product has a value in {columns}",
            "name columns that the catalog has in agcl.given; `afmrl check` lists them",
        )
    if views.without_view:
        return DataError(
            f"the stored attributes by {generator} are of an earlier version, which did not record what was shown",
            "run `afmrl attributes` to write them anew",
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
