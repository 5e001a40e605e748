"""No query carries its own answer: on every path a side's attributes were written from what that side shows."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from afmrl_cli.attributes.views import StoredViews
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import product_text
from afmrl_cli.catalog.read import read_products
from afmrl_cli.dedupe.listings import load_listings
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.build import TaskSpec, build_task
from afmrl_cli.evaluation.report import query_views
from afmrl_cli.evaluation.task import as_product, documents_of
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.rar.queries import KINDS as RAR_KINDS
from afmrl_cli.rar.queries import pose
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.hits import stored_attributes
from afmrl_cli.retrieval.vectors import RowMaker, described_products, load_vectors
from afmrl_cli.store.database import Database
from afmrl_cli.store.files import hash_file
from afmrl_cli.training.corpus import load_corpus, training_views
from afmrl_cli.training.pairs import KINDS, Side, TrainListing, draw_pair, find_positives
from afmrl_cli.training.validation import make_validation
from afmrl_cli.workspace import Workspace
from tests.attributes.viewed import (
    EARLIER,
    POOL,
    Row,
    Shop,
    catalogs,
    everything,
    write,
    write_photos,
)
from tests.retrieval.shop import work_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("views"), POOL)


def check(shop: Shop) -> Iterator[str]:
    """Look at every side of every path; the names of the paths that had something to look at."""
    enrich = shop.settings.embed.enrich
    corpus = load_corpus(Workspace(shop.folder, shop.settings, Silent()), shop.source, Problems(), for_agcl=False)
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
                    queried = {each.content for each in pair.query.photos}
                    assert not queried & {each.content for each in pair.target.photos}
                    assert not (pair.query.text and pair.target.text)
                yield f"pairs {kind}{' enriched' if pair.query.attributes else ''}"
                rng = np.random.default_rng((number, draw))
                few = draw_pair(positive, listings, rng, max_photos=1, enrich=enrich, dropout=0.0)
                for side, whole in ((few.query, pair.query), (few.target, pair.target)):
                    # A sampled photo, and the attributes of the whole view that it is sampled of.
                    assert len(side.photos) == min(1, len(whole.photos)) and {*side.photos} <= {*whole.photos}
                    assert (side.text, side.attributes) == (whole.text, whole.attributes)
    if (validation := make_validation(listings, shop.settings)) is not None:
        for side in (*validation.queries, *validation.gallery):
            shop.side_fits(side)
        yield "validation"
    yield from check_rar(shop, listings)
    yield from check_eval(shop)
    yield from check_embed(shop)


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
                rows = RowMaker(work_of(shop.folder, chosen), StoredViews(database, prints, shop.source))
                documents = documents_of(described_products(work_of(shop.folder, chosen), rows, Problems()))
                try:
                    task = build_task(work_of(shop.folder, chosen), documents, TaskSpec(protocol), rows)
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


class Reading:
    """An encoder by hashes, which keeps what it is shown: the text, the attributes and the photos of each item."""

    id = "reading"

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.texts_cut = 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        self.items += items
        rows = [np.random.default_rng(zlib.crc32(repr(item.text).encode())).normal(size=8) for item in items]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def check_embed(shop: Shop) -> Iterator[str]:
    """What `embed` shows to the embedder and writes down is of the whole listing."""
    encoder = Reading()
    shutil.rmtree(shop.folder.embeddings, ignore_errors=True)
    work = Workspace(shop.folder, shop.settings, Silent(), load_encoder=lambda: encoder)
    work.source = shop.source
    embed_catalog(work)
    rows = {row.id: row for row in load_vectors(work).listings}
    fits = set()
    for product in read_products(shop.folder, shop.settings.catalog, Problems()):
        row = rows[product.id]
        shop.fits(row.attributes, product_text(product), [hash_file(path) for path in product.images])
        assert shop.settings.embed.enrich == "both" or not row.attributes
        fits.add((row.text, row.attributes))
        yield f"embed{' enriched' if row.attributes else ''}"
    assert {(item.text, item.attributes) for item in encoder.items} <= fits


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
    assert "embed enriched" in seen


def sides(shop: Shop) -> list[Side]:
    """All sides of the kinds that hide something of a listing."""
    corpus = load_corpus(Workspace(shop.folder, shop.settings, Silent()), shop.source, Problems(), for_agcl=False)
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


def test_texts_of_an_earlier_version_are_found_where_the_generator_looks_at_fewer_photos(place: Path) -> None:
    """They stand under the whole listing, whose second photo the generator is not shown."""
    shop = write(place, everything(), False, **{"embed.enrich": "query", "model.generator_images": 1})
    shutil.rmtree(place / ".afmrl")
    shop.store([], earlier=True)
    with Database(shop.folder.database) as database, Fingerprinter(database) as prints:
        products = list(read_products(shop.folder, shop.settings.catalog, Problems()))
        views = StoredViews(database, prints, shop.source)
        assert not any(views.attributes(products)) and len(views.without_view) == 16
        rows = RowMaker(work_of(shop.folder, shop.settings), views).make(products)
        shown = {product.id: f"{EARLIER} {number % 2}" for number, product in enumerate(products)}
        stored = stored_attributes(rows, views, place)
        assert {id: row.text for id, row in stored.items()} == shown
        work = work_of(shop.folder, shop.settings)
        work.source_on_disk = shop.source
        listings = load_listings(work, Problems())
        assert [f"seen: {value}" for value in listings.attributes["seen"]] == [*shown.values()]
        with pytest.raises(DataError, match="of an earlier version, which did not record what was shown"):
            settings = shop.settings.model_copy(update={"agcl": shop.settings.agcl.model_copy(update={"loss": "agcl"})})
            load_corpus(Workspace(shop.folder, settings, Silent()), shop.source, Problems())


def test_vectors_without_attributes_show_those_that_were_written_from_the_first_photo(place: Path) -> None:
    """Their rows know the whole listing alone, of which the generator was shown less."""
    shop = write(place, everything(), False, **{"embed.enrich": "query", "model.generator_images": 1})
    shutil.rmtree(place / ".afmrl")
    products = list(read_products(shop.folder, shop.settings.catalog, Problems()))
    shop.store(products, False)
    with Database(shop.folder.database) as database, Fingerprinter(database) as prints:
        rows = RowMaker(work_of(shop.folder, shop.settings), StoredViews(database, prints, None)).make(products)
        stored = stored_attributes(rows, StoredViews(database, prints, shop.source), place)
    assert stored.keys() == {product.id for product in products}


@pytest.mark.parametrize("protocol", ["photo", "text", "coarse", "composed"])
def test_the_view_of_queries_describes_what_a_protocol_asks_with(place: Path, protocol: str) -> None:
    shop = write(place, everything(), False, **{"embed.enrich": "query"})
    shutil.rmtree(place / ".afmrl")
    shop.store(query_views(work_of(shop.folder, shop.settings), ["listing", f"queries:{protocol}"]), False)
    with Database(shop.folder.database) as database, Fingerprinter(database) as prints:
        rows = RowMaker(work_of(shop.folder, shop.settings), StoredViews(database, prints, shop.source))
        documents = documents_of(described_products(work_of(shop.folder, shop.settings), rows, Problems()))
        task = build_task(work_of(shop.folder, shop.settings), documents, TaskSpec(protocol), rows)
        assert task.queries and rows.views.texts([query.fingerprint for query in task.queries]).keys() == {
            query.fingerprint for query in task.queries
        }


def test_every_view_that_training_shows_is_described_for_it(place: Path) -> None:
    for pairs, names in ((["photos"], {"photos", "rest"}), (["image-text"], {"photos", "text", "all-photos"})):
        shop = write(place, everything(), False, **{"embed.enrich": "both", "agcl.pairs": pairs})
        shutil.rmtree(place / ".afmrl")
        shop.store(training_views(Workspace(shop.folder, shop.settings, Silent())), False)
        corpus = load_corpus(Workspace(shop.folder, shop.settings, Silent()), shop.source, Problems(), for_agcl=False)
        assert {name for listing in corpus.train for name, _ in listing.attributes} == names
        for positive in find_positives(corpus.train, pairs):  # type: ignore[arg-type]
            pair = draw_pair(positive, corpus.train, np.random.default_rng(5), max_photos=0, enrich="both", dropout=0.0)
            assert pair.query.attributes and pair.target.attributes
