"""No query carries its own answer: on every path a side's attributes were written from what that side shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afmrl_cli.attributes.views import StoredViews
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import product_text
from afmrl_cli.catalog.read import read_products
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.build import TaskSpec, build_task
from afmrl_cli.evaluation.task import as_product, documents_of
from afmrl_cli.listener import Silent
from afmrl_cli.rar.queries import KINDS as RAR_KINDS
from afmrl_cli.rar.queries import pose
from afmrl_cli.retrieval.vectors import described_products, make_rows
from afmrl_cli.store.database import Database
from afmrl_cli.training.corpus import load_corpus, training_views
from afmrl_cli.training.pairs import KINDS, Side, TrainListing, draw_pair, find_positives
from afmrl_cli.training.validation import make_validation
from tests.attributes.viewed import GENERATOR, POOL, PROMPT, Row, Shop, catalogs, everything, write, write_photos


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("views"), POOL)


def check(shop: Shop) -> Iterator[str]:
    """Look at every side of every path; the names of the paths that had something to look at."""
    enrich = shop.settings.embed.enrich
    with Database(shop.folder.database) as database:
        corpus = load_corpus(
            shop.folder, shop.settings, GENERATOR, PROMPT, database, Problems(), Silent(), for_agcl=False
        )
    listings = corpus.train
    for kind in KINDS:
        for number, positive in enumerate(find_positives(listings, [kind], required=False)):
            for draw in range(4):
                rng = np.random.default_rng((number, draw))
                pair = draw_pair(positive, listings, rng, max_photos=0, enrich=enrich, dropout=0.0)
                shop.side_fits(pair.query)
                shop.side_fits(pair.target)
                assert enrich == "both" or not pair.target.attributes
                if kind != "listings":
                    asked = {each.content for each in pair.query.photos}
                    assert not asked & {each.content for each in pair.target.photos}
                    assert not (pair.query.text and pair.target.text)
                yield f"pairs {kind}{' enriched' if pair.query.attributes else ''}"
                few = draw_pair(positive, listings, rng, max_photos=1, enrich=enrich, dropout=0.0)
                assert len(few.query.photos) <= 1 and len(few.target.photos) <= 1
    if (validation := make_validation(listings, shop.settings)) is not None:
        for side in (*validation.queries, *validation.gallery):
            shop.side_fits(side)
        yield "validation"
    yield from check_rar(shop, listings)
    yield from check_eval(shop)


def check_rar(shop: Shop, listings: list[TrainListing]) -> Iterator[str]:
    for kind in RAR_KINDS:
        asking = [True] * len(listings)
        gallery, queries = pose(
            listings, asking, kind, max_photos=0, enrich=shop.settings.embed.enrich == "both", seed=1
        )
        for side in gallery:
            shop.side_fits(side)
        for query in queries:
            assert not query.side.attributes and query.photos == query.side.photos
            assert bool(query.category) <= bool(query.side.text)
            if kind in ("photos", "photo-to-text"):
                held_out = {each.content for each in query.side.photos}
                rows = [gallery[row] for row in query.positives]
                assert not held_out & {each.content for row in rows for each in row.photos}
            yield f"rar {kind}"


def check_eval(shop: Shop) -> Iterator[str]:
    with Database(shop.folder.database) as database, Fingerprinter(database) as prints:
        for protocol in ("identity", "photo", "fine", "coarse", "text", "composed"):
            for query_fields, gallery_fields in (("", ""), ("title", ""), ("photos", "text"), ("text", "photos")):
                fields = {"query_fields": query_fields, "gallery_fields": gallery_fields}
                chosen = shop.settings.model_copy(update={"eval": shop.settings.eval.model_copy(update=fields)})
                rows = make_rows(shop.folder, chosen, database, prints, shop.source)
                documents = documents_of(described_products(shop.folder, chosen, rows, Problems()))
                try:
                    task = build_task(documents, shop.folder, chosen, TaskSpec(protocol), rows)
                except (DataError, UsageError):
                    continue
                texts = rows.views.texts([query.fingerprint for query in task.queries])
                for query in task.queries:
                    shown = product_text(as_product(query))
                    contents = [prints.hash_of(path) for path in query.images]
                    shop.fits(texts.get(query.fingerprint, ""), shown, contents)
                    yield f"eval {protocol}{' enriched' if query.fingerprint in texts else ''}"
                for document in task.documents:
                    contents = [prints.hash_of(path) for path in document.product.images]
                    shop.fits(document.row.attributes, document.row.text, contents)
                    assert shop.settings.embed.enrich == "both" or not document.row.attributes


@given(catalogs(), st.sampled_from(["query", "both"]), st.integers(0, 2), st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attributes_of_every_side_were_written_from_what_it_shows(
    place: Path, rows: list[Row], enrich: str, images: int, earlier: bool
) -> None:
    shop = write(place, rows, earlier, **{"embed.enrich": enrich, "model.generator_images": images})
    list(check(shop))


def test_the_property_looks_at_every_path(place: Path) -> None:
    """A catalog that offers everything: each path has sides, and sides with attributes."""
    seen = set(check(write(place, everything(), False, **{"embed.enrich": "both"})))
    assert {f"pairs {kind} enriched" for kind in KINDS} <= seen
    assert {"validation", *(f"rar {kind}" for kind in RAR_KINDS)} <= seen
    protocols = ("identity", "photo", "fine", "coarse", "text", "composed")
    assert {f"eval {protocol} enriched" for protocol in protocols} <= seen


def sides(shop: Shop) -> list[Side]:
    """All sides of the kinds that hide something of a listing."""
    with Database(shop.folder.database) as database:
        corpus = load_corpus(
            shop.folder, shop.settings, GENERATOR, PROMPT, database, Problems(), Silent(), for_agcl=False
        )
    validation = make_validation(corpus.train, shop.settings)
    assert validation is not None
    found = [*validation.queries, *validation.gallery]
    for positive in find_positives(corpus.train, ["photos", "image-text"]):
        pair = draw_pair(
            positive, corpus.train, np.random.default_rng(3), max_photos=0, enrich=shop.settings.embed.enrich, dropout=0
        )
        found += [pair.query, pair.target]
    for kind in RAR_KINDS[1:]:
        rows, queries = pose(corpus.train, [True] * len(corpus.train), kind, max_photos=0, enrich=True, seed=0)
        found += [*rows, *(query.side for query in queries)]
    return found


@pytest.mark.parametrize("enrich", ["query", "both"])
def test_attributes_of_whole_listings_change_nothing_where_listings_are_not_whole(place: Path, enrich: str) -> None:
    """What lifted recall of photos that ask for texts from 0.22 to 0.51: the true attributes of the whole listing."""
    changes = {"embed.enrich": enrich, "agcl.pairs": ["photos", "image-text"]}
    shop = write(place, everything(), False, **changes)
    shutil.rmtree(place / ".afmrl")
    bare = sides(shop)
    shop.store(list(read_products(shop.folder, shop.settings.catalog, Problems())), False)
    assert sides(shop) == bare
    assert not any(side.attributes for side in bare)


def test_a_store_without_views_enriches_nothing_and_says_so(place: Path) -> None:
    shop = write(place, everything(), True, **{"embed.enrich": "both"})
    notes: list[str] = []

    class Heard(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    with Database(shop.folder.database) as database, Fingerprinter(database) as prints:
        products = list(read_products(shop.folder, shop.settings.catalog, Problems()))
        views = StoredViews(database, prints, shop.source)
        assert not any(views.attributes(products))
        views.tell(Heard())
    assert "16 stored attribute texts are of an earlier version" in notes[0] and "run `afmrl attributes`" in notes[0]


def test_every_view_that_training_shows_is_described_for_it(place: Path) -> None:
    for pairs, names in ((["photos"], {"photos", "rest"}), (["image-text"], {"photos", "text", "all-photos"})):
        shop = write(place, everything(), False, **{"embed.enrich": "both", "agcl.pairs": pairs})
        shutil.rmtree(place / ".afmrl")
        shop.store(training_views(shop.folder, shop.settings), False)
        with Database(shop.folder.database) as database:
            corpus = load_corpus(
                shop.folder, shop.settings, GENERATOR, PROMPT, database, Problems(), Silent(), for_agcl=False
            )
        assert {name for listing in corpus.train for name, _ in listing.attributes} == names
        for positive in find_positives(corpus.train, pairs):  # type: ignore[arg-type]
            pair = draw_pair(positive, corpus.train, np.random.default_rng(5), max_photos=0, enrich="both", dropout=0.0)
            assert pair.query.attributes and pair.target.attributes
