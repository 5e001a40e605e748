"""Filters, the reasons that a result shows, and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.attributes.views import AttributeSource
from afmrl_cli.catalog.product import Product
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Encoder, Item
from afmrl_cli.retrieval.filters import fields_of, known_filters, parse_filters, passes
from afmrl_cli.retrieval.hits import Hit
from afmrl_cli.retrieval.index import exact_search
from afmrl_cli.retrieval.page import write_search_page
from afmrl_cli.retrieval.search import Found, Query, Searcher
from afmrl_cli.retrieval.vectors import Vectors, load_vectors
from afmrl_cli.sources import load_settings
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.retrieval.shop import counting, embed, settings_of, shop_rows, write_shop

TEXTS = "color: red; sleeves: short"
FIFTEEN = {f"key {i}": f"value {i}" for i in range(15)}


def must_not_load() -> Encoder:
    raise AssertionError("a model was loaded")


Shop = tuple[Vectors, Workspace]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Shop:
    """An embedded catalog whose listings all have attributes stored."""
    settings = settings_of(tiny_model_folder)
    folder = write_shop(tmp_path_factory.mktemp("search"), shop_rows(24))
    embed(folder, settings)
    vectors = load_vectors(Workspace(folder, settings, Silent()))
    with Database(folder.database) as database:
        for prompt, text in (("p", TEXTS), ("fifteen", write_attributes(FIFTEEN))):
            rows = [(row.fingerprint, "g", prompt, row.id, text, None, 0.0) for row in vectors.listings]
            database.put_attributes([StoredAttributes(*row) for row in rows])
    return vectors, Workspace(folder, settings, Silent())


def ask(shop: Shop, query: Query = Query(), k: int = 5, *filters: str, like: str = "", stored: str = "p") -> list[Hit]:  # noqa: B008
    vectors, work = shop
    by_vectors = work.settings.search.model_copy(update={"k": k, "hybrid": "no"})
    settings = work.settings.model_copy(update={"search": by_vectors})
    load = must_not_load if like else counting(work.folder, settings)
    work = Workspace(work.folder, settings, Silent(), load_encoder=load)
    work.source_on_disk = AttributeSource("g", stored)
    return list(Searcher(work, vectors).search(replace(query, like=like, filters=filters)).hits)


def test_text_photo_and_both(shop: Shop) -> None:
    vectors, work = shop
    photo = Image.open(work.folder.root / "images/2.png").convert("RGB")
    for query in (Query("red shirt"), Query(photos=(photo,)), Query("red shirt", (photo,))):
        hits = ask(shop, query)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
    # The index agrees with comparing everything.
    encoder = counting(work.folder, work.settings)()
    queried = encoder.encode([Item("red shirt", (photo,))], instruction="Find this product:")
    best = exact_search(vectors.matrix, queried, 5)[1][0]
    assert [hit.id for hit in hits] == [vectors.ids[row] for row in best]


def test_like_loads_no_model_and_leaves_itself_out(shop: Shop) -> None:
    hits = ask(shop, k=100, like="s3")
    assert len(hits) == 23
    assert "s3" not in {hit.id for hit in hits}


def test_unknown_like_names_the_nearest(shop: Shop) -> None:
    with pytest.raises(DataError, match="no such listing") as caught:
        ask(shop, like="s33")
    assert "s3" in caught.value.hint


def test_filters_lose_nothing(shop: Shop) -> None:
    everything = ask(shop, k=100, like="s3")
    filtered = ask(shop, Query(), 100, "color=RED", "color=green", "category=women", like="s3")
    expected = [h.id for h in everything if h.title.split()[0] in ("Red", "Green") and int(h.id[1:]) % 4 < 2]
    assert [hit.id for hit in filtered] == expected != []
    assert ask(shop, Query(), 5, "color=red", "color=green", "brand=none", like="s3") == []


def test_unknown_filter_key_names_the_nearest(shop: Shop) -> None:
    with pytest.raises(UsageError, match="no column colour") as caught:
        ask(shop, Query(), 5, "colour=red", like="s3")
    assert "color" in caught.value.hint


@pytest.mark.parametrize("pair", ["brand", "=x", "brand=", ""])
def test_filters_that_are_none(pair: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_filters([pair], "--filter")


def test_how_values_match() -> None:
    product = Product("1", brand="Luma", category="Women/Tops", given={"attr_Material": "Mesh|Nylon", "brand": "other"})
    fields = fields_of(product)

    def holds(*pairs: str) -> bool:
        return passes(fields, parse_filters(pairs, "--filter"))

    assert holds("brand=LUMA", "category=women", "material=nylon", "id=1")
    assert holds("Material=mesh|nylon", "brand=x", "brand=luma")
    assert not holds("brand=lum")
    assert not holds("category=tops")
    assert not holds("brand=luma", "material=wool")
    with pytest.raises(UsageError):
        known_filters(parse_filters(["size=1"], "--filter"), fields, "--filter")


def test_why(shop: Shop) -> None:
    hit = next(hit for hit in ask(shop, Query("Red linen SHIRT"), 24) if hit.id == "s0")
    assert hit.matching == ("color",)
    assert hit.words == ("red", "shirt", "linen")
    assert hit.why == "color: red; red, shirt, linen"
    written = ask(shop, Query("shirt", attributes="sleeves: short; color: blue"), 1)[0]
    assert written.matching == ("sleeves",)
    liked = ask(shop, k=1, like="s0")[0]
    assert liked.matching == ("color", "sleeves")


def test_why_leaves_words_of_one_letter_and_case_aside(shop: Shop) -> None:
    hit = next(hit for hit in ask(shop, Query("a shirt 2"), 24) if hit.id == "s2")
    assert hit.title.endswith(" 2") and hit.words == ("shirt",)
    assert ask(shop, Query("shirt", attributes="Sleeves: SHORT; color: Blue"), 1)[0].matching == ("sleeves",)


def test_attributes_of_the_query_change_what_is_found(shop: Shop) -> None:
    vectors, work = shop
    plain, enriched = (ask(shop, Query("shirt", attributes=text), 24) for text in ("", "color: blue; fit: slim"))
    query = counting(work.folder, work.settings)().encode(
        [Item("shirt", (), "color: blue; fit: slim")], instruction="Find this product:"
    )
    assert [hit.id for hit in enriched] == [vectors.ids[row] for row in exact_search(vectors.matrix, query, 24)[1][0]]
    assert [hit.id for hit in enriched] != [hit.id for hit in plain]


def test_more_pairs_than_the_default_allows_are_shown_and_compared(shop: Shop) -> None:
    [hit] = ask(shop, k=1, like="s0", stored="fifteen")
    assert hit.attributes == FIFTEEN
    assert hit.matching == tuple(FIFTEEN)


def test_page_needs_no_network_and_escapes(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("no photo")
    hits = [
        Hit(1, 0.5, "<b>1", "<script>alert(1)</script>", {"a<": "<i>"}, ("a<",), ("<u>",), (tmp_path / "a.png",)),
        Hit(2, 0.4, "2", "", images=(tmp_path / "bad.png",)),
    ]
    page = tmp_path / "out.html"
    query = Item('"><img src=x>', (Image.new("RGB", (10, 10)),))
    (tmp_path / "c<d.csv").touch()
    work = Workspace(CatalogFolder(tmp_path / "c<d.csv"), load_settings(None, {}, NANO), Silent())
    work.embedder_id = "e"
    write_search_page(page, Found(query, hits, filters=["a=<b>"]), work)
    text = page.read_text("utf-8")
    assert "<script" not in text
    assert "<i>" not in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert not re.search(r"<[^>]*\b(?:src|href)=(?!\"data:)", text)
    assert "http" not in text.replace("http-equiv", "")
    assert "no photo" in text
    assert len(text) < 60_000
