"""Attributes are never cut off: a description of 900 tokens leaves "navy" and "red" apart, on every path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product, product_text
from afmrl_cli.evaluation.systems import RetrievalSystem, vector_run
from afmrl_cli.evaluation.task import Document, Query, Task
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.rar.environment import Environment
from afmrl_cli.rar.queries import RarQuery
from afmrl_cli.retrieval.cache import VectorCache
from afmrl_cli.retrieval.encode import Input, encode_missing
from afmrl_cli.retrieval.index import build_index
from afmrl_cli.retrieval.listings import Listings, ListingsWriter, make_listing
from afmrl_cli.retrieval.search import Query as SearchQuery
from afmrl_cli.retrieval.search import Searcher
from afmrl_cli.retrieval.vectors import Vectors
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.pairs import Pair, Side
from afmrl_cli.training.step import Reader
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.retrieval.shop import work_of

PRODUCT = Product("a", title="Blouse", description="soft cotton for long days in the office " * 110)
TEXT = product_text(PRODUCT)
NAVY, RED = (f"colour: {colour}; neckline: v-neck; closure: buttons" for colour in ("navy", "red"))


@pytest.fixture(scope="module")
def settings() -> Settings:
    said = {"model.device": "cpu", "model.precision": "fp32", "embed.query_instruction": "Find this product:"}
    return load_settings(None, said, NANO)


@pytest.fixture(scope="module")
def embedder(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """Nano, which notes every string that it is about to read."""
    made = load_embedder(settings.model, settings.embed, Checkpoints(tmp_path_factory.mktemp("none")))
    made.seen = []  # type: ignore[attr-defined]
    write = made.texts

    def texts(items: object, instruction: str) -> list[str]:
        found = write(items, instruction)  # type: ignore[arg-type]
        made.seen += found  # type: ignore[attr-defined]
        return found

    made.texts = texts  # type: ignore[method-assign]
    return made


def by_encode(embedder: Embedder, settings: Settings, place: Path) -> list[np.ndarray]:
    """As embed does, and RAR's gallery."""
    cache = VectorCache(place)
    encode_missing(
        work_of(CatalogFolder(place / "catalog.csv"), settings),
        [Input(attributes, Item(TEXT, (), attributes), attributes) for attributes in (NAVY, RED)],
        cache,
        lambda: embedder,
        settings.embed.query_instruction,
        Problems(),
    )
    return [np.array(cache.get(attributes)) for attributes in (NAVY, RED)]


def by_search(embedder: Embedder, settings: Settings, place: Path) -> list[np.ndarray]:
    """What the query's vector is shows in its score against the axes."""
    axes = np.eye(embedder.dimension, dtype=np.float32)
    with ListingsWriter(place / "listings") as writer:
        for i in range(len(axes)):
            writer.add(make_listing(Product(str(i)), str(i), str(i), "", place))
    vectors = Vectors(place, axes, Listings(place / "listings"), {"index": {"kind": build_index(axes, "flat").kind}})
    found = []
    for attributes in (NAVY, RED):
        by_vectors = settings.search.model_copy(update={"k": len(axes), "hybrid": "no"})
        all_of_them = settings.model_copy(update={"search": by_vectors})
        work = Workspace(CatalogFolder(place / "c.csv"), all_of_them, Silent(), load_encoder=lambda: embedder)
        hits = Searcher(work, vectors).search(SearchQuery(TEXT, attributes=attributes)).hits
        scores = {int(hit.id): hit.score for hit in hits}
        found.append(np.array([scores[i] for i in range(len(axes))]))
    return found


def by_eval(embedder: Embedder, settings: Settings, place: Path) -> list[np.ndarray]:
    """A query of each, and the vectors of listings with the other's attributes."""
    rows = [make_listing(PRODUCT, each, each, "", place) for each in (NAVY, RED)]
    documents = [Document(Product(str(i), title=str(i)), row, {}) for i, row in enumerate(rows)]
    queries = [Query(each, TEXT, (), fingerprint=each) for each in (NAVY, RED)]
    system = RetrievalSystem(
        "embedder",
        embedder.id,
        lambda: embedder,
        query_instruction=settings.embed.query_instruction,
        target_instruction=settings.embed.query_instruction,
        attributes={NAVY: NAVY, RED: RED},
    )
    shown = [make_listing(PRODUCT, each, each, each, place) for each in (NAVY, RED)]
    gallery = [Document(d.product, row, {}) for d, row in zip(documents, shown, strict=True)]
    work = work_of(CatalogFolder(place / "catalog.csv"), settings)
    run = vector_run(Task("queries", queries, gallery, {}), system, work, Problems())
    assert run.vectors is not None
    return list(run.vectors)


def by_training(embedder: Embedder, settings: Settings, place: Path) -> list[np.ndarray]:
    reader = Reader(embedder, settings)
    pairs = [Pair("listings", Side(0, TEXT, (), each), Side(1, "Title: x")) for each in (NAVY, RED)]
    sides, texts = reader.texts(pairs)
    return list(embedder.forward(reader.tensors(sides, texts, [0, 1])))


def by_rar(embedder: Embedder, settings: Settings, place: Path) -> list[np.ndarray]:
    """The vectors of two answers to one query, as ranks are made of them: against each single axis."""
    axes = np.eye(embedder.dimension, dtype=np.float32)
    found: list[np.ndarray] = []
    work = Workspace(CatalogFolder(place / "catalog.csv"), settings, Silent())
    query = RarQuery(Side(0, TEXT), "", (0,), ())

    environment = Environment(work, embedder, "listings", [Side(1, "x")], axes[:1], [query])
    environment.vectors = type("Rows", (), {"T": property(lambda _: _Keeping(found))})()
    environment.ranks([0, 0], [NAVY, RED])
    return found


class _Keeping:
    """Stands for the gallery's matrix and keeps the vectors that are multiplied with it."""

    __array_priority__ = 1000
    __array_ufunc__ = None

    def __init__(self, found: list[np.ndarray]) -> None:
        self.found = found

    def __rmatmul__(self, vectors: np.ndarray) -> np.ndarray:
        self.found += list(vectors)
        return vectors[:, :1]


PATHS: dict[str, Callable[[Embedder, Settings, Path], list[np.ndarray]]] = {
    "embed": by_encode,
    "search": by_search,
    "eval": by_eval,
    "training": by_training,
    "rar": by_rar,
}


@pytest.mark.parametrize("path", PATHS)
def test_a_long_description_does_not_hide_the_colour(
    path: str, embedder: Embedder, settings: Settings, tmp_path: Path
) -> None:
    assert len(embedder.processor.tokenizer(TEXT)["input_ids"]) > 800
    embedder.seen.clear()  # type: ignore[attr-defined]
    navy, red = PATHS[path](embedder, settings, tmp_path)
    expected = embedder.encode(
        [Item(TEXT, attributes=NAVY), Item(TEXT, attributes=RED)], instruction=settings.embed.query_instruction
    )
    assert navy @ red / np.linalg.norm(navy) / np.linalg.norm(red) < 0.99
    assert np.abs(np.stack([navy, red]) - expected).max() < 1e-4  # every path reads the very same
    seen: list[str] = [text for text in embedder.seen if "Blouse" in text]  # type: ignore[attr-defined]
    assert len(set(seen)) == 2
    for text in seen:
        assert text.endswith((f"\nAttributes: {NAVY}\n", f"\nAttributes: {RED}\n"))
        assert len(embedder.processor.tokenizer(text)["input_ids"]) <= settings.model.max_text_tokens + 8


def test_a_text_that_fits_is_not_cut_and_attributes_may_fill_it_all(embedder: Embedder) -> None:
    before = embedder.texts_cut
    short, full = embedder.texts([Item("Title: Blouse", attributes=NAVY), Item(TEXT, attributes=NAVY * 30)], "Find:")
    assert short == f"Find: Title: Blouse\nAttributes: {NAVY}\n"
    assert full == f"Find: Attributes: {NAVY * 30}\n"
    assert embedder.texts_cut == before + 1
    assert embedder.texts([Item(attributes=NAVY)], "Find:") == [f"Find: Attributes: {NAVY}\n"]
