"""Fine, coarse, text and composed: what is asked, what is right, and that nothing gives the answer away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.build import TaskSpec, build_task, tuning_task
from afmrl_cli.evaluation.protocols import PROTOCOLS
from afmrl_cli.evaluation.slices import check_slices, slice_values
from afmrl_cli.evaluation.systems import bm25_attributes_run, bm25_run
from afmrl_cli.evaluation.task import Labels, Task, documents_of, variants_of
from afmrl_cli.retrieval.vectors import described_products
from afmrl_cli.sources import load_settings
from tests import NANO
from tests.retrieval.shop import Row, rows_of, shop_rows, work_of, write_shop

# s0 s1 and s2 s3 are two products of one style (red, green), s4 s5 and s6 s7 of another, and so on.
GROUPS: dict[str, Labels] = {f"s{i}": {"group_id": f"g{i // 4}"} for i in range(12)}


def make(
    root: Path, protocol: str, labels: dict[str, Labels] | None = None, rows: list[Row] | None = None, **set_: object
) -> Task:
    folder = write_shop(root, rows or shop_rows(12))
    settings = load_settings(None, {f"eval.{key}": value for key, value in set_.items()}, NANO)
    with rows_of(folder) as made:
        described = described_products(work_of(folder, settings), made, Problems())
        documents = documents_of(described, GROUPS if labels is None else labels)
        return build_task(work_of(folder, settings), documents, TaskSpec(protocol), made)


def test_fine_by_labels_of_a_file(tmp_path: Path) -> None:
    task = make(tmp_path, "fine")
    assert len(task.queries) == 12
    assert dict(task.qrels["s0"]) == {"s1": 1}
    assert variants_of(task, 1)["s0"] == {"s2", "s3"}
    assert slice_values(task, "variants", variants_of(task, 1), 1)["s0"] == "2"
    assert not any("g0" in document.row.text for document in task.documents)


def test_fine_without_shared_identities_asks_with_held_out_photos(tmp_path: Path) -> None:
    rows = shop_rows(12)
    for row in rows:
        row["product_id"] = ""
    task = make(tmp_path, "fine", rows=rows)
    assert [query.id for query in task.queries] == ["photo_of_s0", "photo_of_s3", "photo_of_s6", "photo_of_s9"]
    assert variants_of(task, 1)["photo_of_s0"] == {"s1", "s2", "s3"}


def test_fine_without_variants(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no listing has a group_id"):
        make(tmp_path, "fine", {})
    with pytest.raises(DataError, match="no query's product has a variant"):
        make(tmp_path, "fine", {f"s{i}": {"group_id": f"g{i // 2}"} for i in range(12)})


def test_coarse_hides_its_label_and_the_products_own_listings(tmp_path: Path) -> None:
    task = make(tmp_path, "coarse")
    assert task.label == "category"
    assert not any("Category:" in text for text in (d.row.text for d in task.documents))
    assert not any("Category:" in query.text for query in task.queries)
    # Women/Tops are s0 s1, s4 s5, s8 s9; s1 is the same product as s0.
    first = task.queries[0]
    assert first.exclude == {"s0", "s1"}
    assert set(task.qrels["s0"]) == {"s4", "s5", "s8", "s9"}
    assert variants_of(task, 1) == {}


def test_coarse_by_another_label_and_in_a_sample(tmp_path: Path) -> None:
    task = make(tmp_path, "coarse", rows=shop_rows(24), label="attr_Color", max_queries=3)
    assert task.label == "color"
    assert len(task.queries) == 3
    assert any("Category:" in document.row.text for document in task.documents)
    assert any("a sample of 3 of 24" in note for note in task.notes)


def test_coarse_that_tells_nothing(tmp_path: Path) -> None:
    same: dict[str, Labels] = {f"s{i}": {"size": "m"} for i in range(12)}
    with pytest.raises(DataError, match="one class, size = m"):
        make(tmp_path, "coarse", same, label="size")
    with pytest.raises(UsageError, match="no listing has a colour"):
        make(tmp_path, "coarse", label="colour")
    each: dict[str, Labels] = {f"s{i}": {"size": str(i // 2)} for i in range(12)}
    with pytest.raises(DataError, match="no two products share a size"):
        make(tmp_path, "coarse", each, label="size")
    with pytest.raises(UsageError, match="--label is for coarse and composed"):
        make(tmp_path, "identity", label="color")


def test_text_shows_photos_only(tmp_path: Path) -> None:
    rows = shop_rows(6)
    rows[2]["title"] = rows[0]["title"]  # s2 (with s3, the same product) is as right as s0 (with s1)
    rows[4]["image"] = ""
    task = make(tmp_path, "text", rows=rows)
    assert all(not document.row.text and document.product.images for document in task.documents)
    assert [query.text for query in task.queries] == ["Red shirt 0", "Red shirt 1", "Green shirt 3", "Blue shirt 5"]
    assert set(task.qrels["title_of_s0"]) == {"s0", "s1", "s2", "s3"}
    assert set(task.qrels["title_of_s5"]) == {"s5"}  # nothing is to be seen of s4
    assert any("s4" in note for note in task.notes)


def test_composed_asks_for_the_variant(tmp_path: Path) -> None:
    task = make(tmp_path, "composed")
    assert task.notes == ["variants are asked for by color"]
    query = next(query for query in task.queries if query.id == "s0_in_green")
    assert (query.text, [path.name for path in query.images]) == ("color: green", ["0.png"])
    assert (set(query.exclude), query.group) == ({"s0"}, "g0")
    assert set(task.qrels["s0_in_green"]) == {"s2", "s3"}
    assert bm25_run(task, 10).readable == frozenset()  # the words alone say half of what is wanted
    with pytest.raises(DataError, match="no listing with a photo has a variant"):
        make(tmp_path, "composed", {})
    with pytest.raises(UsageError, match="no listing has a colour"):
        make(tmp_path, "composed", label="colour")


def test_composed_never_asks_for_the_same_product(tmp_path: Path) -> None:
    """s0 and s1 are one product, whose listings say different colours: s1 is no variant of s0."""
    rows = shop_rows(12)
    rows[1]["attr_color"] = "blue"
    qrels = make(tmp_path, "composed", rows=rows, label="color").qrels
    assert set(qrels["s2_in_blue"]) == {"s1"} and set(qrels["s2_in_red"]) == {"s0"}
    assert not {"s0_in_blue", "s1_in_red"} & set(qrels)


@pytest.mark.parametrize(
    ("ask", "text", "photos"),
    [("all", True, True), ("text", True, False), ("title", True, False), ("photos", False, True)],
)
def test_asking_with_a_part(tmp_path: Path, ask: str, text: bool, photos: bool) -> None:
    task = make(tmp_path, "identity", query_fields=ask)
    query, whole = task.queries[0], task.documents[0].row.fingerprint
    assert (bool(query.text), bool(query.images)) == (text, photos)
    assert (query.fingerprint == whole) == (ask == "all")  # the listing's attributes have seen all of it
    assert (query.text == "Red shirt 0") == (ask == "title")


def test_showing_a_part(tmp_path: Path) -> None:
    shown = make(tmp_path, "identity", gallery_fields="text").documents[0]
    assert shown.row.text and not shown.product.images
    photos = make(tmp_path, "identity", gallery_fields="photos").documents[0]
    assert photos.product.images and not photos.row.text
    assert photos.row.key != make(tmp_path, "identity").documents[0].row.key


def test_nothing_left_to_ask_with(tmp_path: Path) -> None:
    rows = shop_rows(4)
    for row in rows:
        row["image"] = ""
    with pytest.raises(DataError, match="no query has photos"):
        make(tmp_path, "identity", rows=rows, query_fields="photos")
    with pytest.raises(DataError, match="no listing of the gallery has photos"):
        make(tmp_path, "identity", rows=rows, gallery_fields="photos")


def test_slices(tmp_path: Path) -> None:
    task = make(tmp_path, "identity")
    assert check_slices(task, ["all"])[:5] == ["type", "photos", "answer-photos", "variants", "category"]
    assert check_slices(task, ["attr_Color", "color"]) == ["color"]
    assert slice_values(task, "color", {}, 1)["s0"] == "red"
    with pytest.raises(UsageError, match="no such label"):
        check_slices(task, ["colour"])


def test_the_command_knows_the_same_protocols() -> None:
    from afmrl_cli.cli.eval import PROTOCOLS as KNOWN

    assert KNOWN == PROTOCOLS


def test_bm25_over_attributes_reads_only_queries_that_have_some(tmp_path: Path) -> None:
    task = make(tmp_path, "identity")
    stored = {document.row.fingerprint: "color: red" for document in task.documents[:3]}
    run = bm25_attributes_run(task, stored, 10)
    assert run.readable == {"s0", "s1", "s2"}
    assert {id for id, _ in run.run["s0"]} == {"s1", "s2"}
    typed = [replace(query, fingerprint="", text="red shirt") for query in task.queries]
    assert not bm25_attributes_run(replace(task, queries=typed), stored, 10).readable


def test_fusion_is_tuned_on_validation_queries_of_which_none_is_scored(tmp_path: Path) -> None:
    folder = write_shop(tmp_path, shop_rows(48))
    settings = load_settings(None, {"split.test": 0.3, "split.validation": 0.3, "eval.max_queries": 4}, NANO)
    with rows_of(folder) as made:
        documents = documents_of(described_products(work_of(folder, settings), made, Problems()))
    products = {document.id: document.product for document in documents}
    with rows_of(folder) as made:
        for split in ("test", "train", "validation", "all"):
            spec = TaskSpec("identity", split=split)
            task = build_task(work_of(folder, settings), documents, spec, made)
            tuning = tuning_task(work_of(folder, settings), task, documents, spec, made)
            if split == "validation":
                assert tuning is None
            elif tuning is not None:
                queried = {query.id for query in tuning.queries}
                assert {split_of(products[id], settings.split) for id in queried} == {"validation"}
                assert len(queried) > 4 and not queried & {query.id for query in task.queries}
                assert set(tuning.qrels) == queried and tuning.documents == task.documents
            assert tuning is not None or split in ("validation", "all")
