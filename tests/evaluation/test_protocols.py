"""What is asked and what counts as right, and that nothing gives the answer away."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.splits import first_to_judge_by, split_of
from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.build import TaskSpec, whole_task
from afmrl_cli.evaluation.protocols import identity_task, offered, photo_task, queries_task
from afmrl_cli.evaluation.systems import bm25_run
from afmrl_cli.evaluation.task import Document, Query, documents_of, gallery_of, of_split, sampled
from afmrl_cli.retrieval.filters import parse_filters
from afmrl_cli.retrieval.listings import make_listing
from afmrl_cli.retrieval.vectors import described_products
from afmrl_cli.settings import SplitSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import hash_file
from afmrl_cli.store.folder import CatalogFolder
from tests import NANO
from tests.retrieval.shop import Row, rows_of, shop_rows, work_of, write_shop

Catalog = tuple[list[Document], CatalogFolder]


def read(root: Path, rows: list[Row]) -> Catalog:
    folder = write_shop(root, rows)
    with rows_of(folder) as rows_made:
        return documents_of(described_products(work_of(folder, load_settings()), rows_made, Problems())), folder


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return read(tmp_path, shop_rows(12))


def test_identity(catalog: Catalog) -> None:
    task = identity_task(catalog[0], gallery_of(catalog[0], {}))
    assert len(task.queries) == 12
    first = task.queries[0]
    assert (first.id, set(first.exclude), dict(task.qrels["s0"])) == ("s0", {"s0"}, {"s1": 1})
    assert first.text.startswith("Title: Red shirt 0")


def test_identity_asks_only_for_what_the_gallery_holds(catalog: Catalog) -> None:
    task = identity_task(catalog[0], gallery_of(catalog[0], parse_filters(["id=s1", "id=s4", "id=s5"], "--gallery")))
    assert {query.id: set(task.qrels[query.id]) for query in task.queries} == {"s0": {"s1"}, "s4": {"s5"}, "s5": {"s4"}}


def test_queries_are_about_products_of_the_split_alone(catalog: Catalog) -> None:
    split = SplitSettings(test=0.4, validation=0.2)
    sides = {document.id: split_of(document.product, split) for document in catalog[0]}
    whole = identity_task(catalog[0], catalog[0])
    queried = {side: {q.id for q in of_split(whole, side, split).queries} for side in ("train", "test")}
    for side, queries in queried.items():
        assert queries == {query.id for query in whole.queries if sides[query.id] == side} != set()
    kept = of_split(whole, "test", split)
    assert kept.documents == whole.documents and set(kept.qrels) == queried["test"]
    # A query that is no listing is about its answers, all of them.
    one, other = (next(id for id, side in sides.items() if side == wanted) for wanted in ("test", "train"))
    rows = [Query(id, "shirt", (), kind="text") for id in "abc"]
    judged = {"a": {one: 1}, "b": {one: 1, other: 1}, "c": {other: 1}}
    assert [q.id for q in of_split(queries_task(rows, judged, catalog[0]), "test", split).queries] == ["a"]
    with pytest.raises(DataError, match="no query is about products of the test split"):
        of_split(whole, "test", SplitSettings(test=0.0))


def test_photo_takes_every_copy_of_a_held_out_photo_out(tmp_path: Path) -> None:
    rows = shop_rows(12)
    rows[1]["image"] += "|images/copy.png"  # s0's last photo under another name, not as the last of s1
    rows[1]["image"] = "|".join(reversed(rows[1]["image"].split("|")))
    rows[2] |= {"image": "images/copy.png", "title": "", "description": "", "category": "", "brand": ""}
    folder = write_shop(tmp_path, rows)
    shutil.copy(tmp_path / "images/0b.png", tmp_path / "images/copy.png")
    with rows_of(folder) as made:
        described = documents_of(described_products(work_of(folder, load_settings()), made, Problems()))
        task = photo_task(gallery_of(described, {}), made)
        changed = {document.id: document.row.key for document in described}
    queried = {hash_file(query.images[0]) for query in task.queries}
    shown = {hash_file(path) for document in task.documents for path in document.product.images}
    assert len(task.queries) == 5
    assert not queried & shown
    assert all(not query.text and len(query.images) == 1 for query in task.queries)
    left = {document.product.id: document for document in task.documents}
    assert "s2" not in left  # nothing remains of it
    assert any("s2" in note for note in task.notes)
    assert [path.name for path in left["s0"].product.images] == ["0.png"]
    assert left["s0"].row.key != changed["s0"]  # its stored vector has seen the photo: not to be used
    assert left["s4"].row.key == changed["s4"]
    assert task.qrels["photo_of_s0"] == {"s0": 1, "s1": 1}


def test_photo_of_a_product_that_repeats_its_photo(tmp_path: Path) -> None:
    rows = shop_rows(2)
    rows[0]["image"] = "images/0.png|images/again.png"
    folder = write_shop(tmp_path, rows)
    shutil.copy(tmp_path / "images/0.png", tmp_path / "images/again.png")
    with rows_of(folder) as made:
        described = documents_of(described_products(work_of(folder, load_settings()), made, Problems()))
        task = photo_task(gallery_of(described, {}), made)
    assert next(d for d in task.documents if d.product.id == "s0").product.images == ()


def test_queries_leave_out_what_nobody_could_find(catalog: Catalog) -> None:
    gallery = gallery_of(catalog[0], parse_filters(["brand=luma"], "--gallery"))
    row = Query("q", "shirt", (), frozenset({"s1"}), kind="text")
    task = queries_task([row], {"q": {"s0": 2, "s1": 1, "s11": 1}}, gallery)
    assert task.qrels == {"q": {"s0": 2}}
    assert task.notes == ["2 judgements of products outside the gallery or taken out are not used"]
    ranked = [id for id, _ in bm25_run(task, 100).run["q"]]
    assert set(ranked) == {"s0", "s2", "s3", "s4", "s5"}
    assert len(bm25_run(task, 2).run["q"]) == 2


def test_queries_about_one_product_are_one_piece_of_evidence(catalog: Catalog) -> None:
    """s0 and s1 are listings of p0: two photos of it are not independent; "shirt" has answers of several products."""
    rows = [Query(id, "shirt", ()) for id in ("a", "b", "many", "none")]
    qrels = {"a": {"s0": 1, "s2": 0}, "b": {"s0": 2, "s1": 1}, "many": {"s0": 1, "s2": 1}}
    groups = {query.id: query.group for query in queries_task(rows, qrels, catalog[0]).queries}
    assert groups == {"a": "p0", "b": "p0", "many": "", "none": ""}
    strict = {query.id: query.group for query in queries_task(rows, qrels, catalog[0], level=2).queries}
    assert strict == {"a": "", "b": "p0", "many": "", "none": ""}


def test_what_a_catalog_offers(catalog: Catalog, tmp_path: Path) -> None:
    described, folder = catalog
    nowhere, judged = tmp_path / "queries.jsonl", tmp_path / "qrels.trec"
    assert offered(described, nowhere, judged) == ["identity", "photo"]
    bare = [Product(d.id, d.product.title, images=d.product.images) for d in described]
    alone = documents_of((product, make_listing(product, "", "", "", folder.root)) for product in bare)
    assert offered(alone, nowhere, judged) == ["photo"]
    nowhere.write_text("{}")
    assert offered(alone, nowhere, judged) == ["queries", "photo"]
    assert offered(described, nowhere, judged) == ["identity", "photo"]  # queries without judgements
    judged.write_text("")
    assert offered(described, nowhere, judged) == ["identity", "queries", "photo"]
    nowhere.unlink()
    single = [document for document in alone if len(document.product.images) == 1]
    assert single and offered(single, nowhere, judged) == ["text"]
    with pytest.raises(DataError, match="nothing to evaluate by"):
        offered([document for document in alone if not document.product.images], nowhere, judged)
    with pytest.raises(DataError, match="no two listings"):
        identity_task(alone, gallery_of(alone, {}))


def test_a_sample_is_the_same_every_time(catalog: Catalog) -> None:
    task = identity_task(catalog[0], gallery_of(catalog[0], {}))
    one, two = sampled(task, 4, seed=1), sampled(task, 4, seed=1)
    assert [q.id for q in one.queries] == [q.id for q in two.queries]
    assert set(one.qrels) == {q.id for q in one.queries}
    assert sampled(task, 0, seed=1) is task


def test_the_first_kind_with_products_enough_judges_else_the_one_with_the_most() -> None:
    assert first_to_judge_by([("identity", 25), ("photo", 300)]) == "identity"
    assert first_to_judge_by([("identity", 3), ("queries", 20), ("photo", 300)]) == "queries"
    assert first_to_judge_by([("identity", 3), ("queries", 14), ("photo", 15)]) == "photo"
    assert first_to_judge_by([("identity", 4), ("photo", 4)]) == "identity"


def test_a_split_is_not_queried_by_its_few_duplicates(tmp_path: Path) -> None:
    """Two products are listed twice, all have two photos: enough for the base, too few to judge a split by."""
    rows = shop_rows(40)
    for i, row in enumerate(rows):
        row |= {"product_id": f"q{max(i, 2) // 2 * 2 if i < 4 else i}", "image": f"images/{i}.png|images/{i}b.png"}
    folder = write_shop(tmp_path, rows)
    settings = load_settings(None, {"split.validation": 0.3, "split.test": 0.3}, NANO)
    with rows_of(folder) as made:
        documents = documents_of(described_products(work_of(folder, settings), made, Problems()))

        def chosen(**spec: object) -> str:
            return whole_task(work_of(folder, settings), documents, TaskSpec(**spec), made).protocol  # type: ignore[arg-type]

        assert [chosen(), chosen(split="all")] == ["identity", "identity"]
        assert [chosen(split="validation"), chosen(split="test")] == ["photo", "photo"]
        assert chosen(split="test", protocol="identity") == "identity"


def test_words_tie_as_vectors_do(catalog: Catalog) -> None:
    """One word in ten thousand moves BM25 by less than a tie: the gallery's order decides, at the edge too."""
    long = [replace(d, row=replace(d.row, text="shirt " + "w " * (10_000 - i))) for i, d in enumerate(catalog[0][:2])]
    task = queries_task([Query("q", "shirt", (), kind="text")], {"q": {long[0].id: 1}}, long)
    assert [id for id, _ in bm25_run(task, 1).run["q"]] == [long[0].id]
    assert [id for id, _ in bm25_run(task, 2).run["q"]] == [long[0].id, long[1].id]
