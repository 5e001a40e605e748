"""Composed queries: what a file may hold, published annotations, and what is counted of them, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.errors import AfmrlError, DataError
from afmrl_cli.evaluation.build import TaskSpec, build_task
from afmrl_cli.evaluation.composed import in_words, part_alone
from afmrl_cli.evaluation.composed_metrics import ComposedFacts, _styles, composed_metrics
from afmrl_cli.evaluation.earlier import outside_run
from afmrl_cli.evaluation.metrics import Run
from afmrl_cli.evaluation.published import is_published
from afmrl_cli.evaluation.systems import bm25_run
from afmrl_cli.evaluation.task import Task, documents_of
from afmrl_cli.retrieval.vectors import described_products
from afmrl_cli.settings import EvalSettings
from afmrl_cli.sources import load_settings
from tests import NANO
from tests.retrieval.shop import rows_of, shop_rows, work_of, write_shop


def make(root: Path, queries: Path | None = None, flags: dict[str, object] | None = None) -> Task:
    """Build the composed task of a shop of 12 listings: s0 s1 and s2 s3 are two products of one style, and so on."""
    folder = write_shop(root, shop_rows(12))
    settings = load_settings(None, flags or {}, NANO)
    labels = {f"s{i}": {"group_id": f"g{i // 4}"} for i in range(12)}
    with rows_of(folder) as made:
        documents = documents_of(described_products(work_of(folder, settings), made, Problems()), labels)
        return build_task(work_of(folder, settings), documents, TaskSpec("composed", queries), made)


def write_lines(root: Path, *queries: dict[str, Any], qrels: str = "m1 0 s2 1\n") -> Path:
    write_shop(root, shop_rows(12))
    (root / "qrels_composed.trec").write_text(qrels)
    file = root / "queries_composed.jsonl"
    file.write_text("\n".join(map(json.dumps, queries)))
    return file


GOOD = {"qid": "m1", "images": ["images/0.png"], "text": "color: green", "exclude": ["s0"]}


def test_a_file_asks_composed_queries_and_takes_the_listings_of_its_photo_out(tmp_path: Path) -> None:
    file = write_lines(tmp_path, GOOD)
    assert not is_published(file) and not is_published(file.with_suffix(".json"))  # lines, whatever they are called
    [query] = make(tmp_path, file).queries
    assert (query.kind, set(query.exclude), query.text) == ("composed", {"s0"}, "color: green")
    (tmp_path / "copy.png").write_bytes((tmp_path / "images/0.png").read_bytes())
    without = {"qid": "m1", "images": ["copy.png"], "text": "in green"}
    [query] = make(tmp_path, write_lines(tmp_path, without)).queries
    assert set(query.exclude) == {"s0"}
    [query] = make(tmp_path, write_lines(tmp_path, without, qrels="m1 0 s0 1\n")).queries
    assert not query.exclude  # what is judged relevant may show the same photo


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "queries_composed.jsonl:2: query m2 has no image"),
        ({"text": ""}, "queries_composed.jsonl:2: query m2 has no text"),
        ({"exclude": ["zz"]}, "queries_composed.jsonl:2: query m2 leaves out zz, which is no listing"),
        ({"images": ["images/none.png"]}, "queries_composed.jsonl:2: image images/none.png"),
        ({"qid": "m1"}, "queries_composed.jsonl:2: query m1 stands already in line 1"),
        ({"exclude": 3}, "queries_composed.jsonl:2: exclude is not a list of texts"),
    ],
)
def test_a_fault_in_a_file_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write_lines(tmp_path, GOOD, {**GOOD, "qid": "m2", **change})
    with pytest.raises(DataError) as caught:
        make(tmp_path, file)
    assert message in str(caught.value)


def published(root: Path, kind: str, entries: object, split: object) -> Path:
    for folder, content in (("captions/cap", entries), ("image_splits/split", split)):
        file = root / "data" / f"{folder}.{kind}.val.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return root / "data" / f"captions/cap.{kind}.val.json"


DRESS = [{"candidate": "s0", "target": "s2", "captions": ["is green.", " has no sleeves"]}]
CIRR = [
    {
        "pairid": 0,
        "reference": "s1",
        "target_hard": "s4",
        "target_soft": {"s4": 1.0},
        "caption": "make it blue",
        "img_set": {"id": 7, "members": ["s1", "s4", "s5", "s6", "s7", "s8"]},
    }
]


def test_fashioniq_as_it_is_published(tmp_path: Path) -> None:
    published(tmp_path, "dress", DRESS, ["s0", "s2", "s3"])
    published(tmp_path, "shirt", [{"candidate": "s4", "target": "s6", "captions": ["x", "y"]}], ["s4", "s6"])
    task = make(tmp_path, tmp_path / "data")
    first, second = task.queries
    assert (task.protocol, first.id, first.text) == ("composed", "dress-1", "is green and has no sleeves")
    assert (first.category, second.category) == ("dress", "shirt")
    assert [path.name for path in first.images] == ["0.png"]
    assert dict(task.qrels["dress-1"]) == {"s2": 1} and set(first.exclude) == {"s0"}
    odd = [{"candidate": "s4", "target": "s4", "captions": [" ", "y"]}]  # as there are a few
    [query] = make(tmp_path, published(tmp_path, "shirt", odd, ["s4", "s6"])).queries
    assert query.text == "y" and not make(tmp_path, tmp_path / "data/captions/cap.shirt.val.json").qrels["shirt-1"]
    # Each query is searched in its own split without its reference, whatever answers it.
    words = bm25_run(part_alone(task, "text"), 10)
    assert not any(id not in {"s2", "s3"} for id, _ in words.run["dress-1"])
    (tmp_path / "theirs.trec").write_text("".join(f"dress-1 Q0 s{i} 1 {1 - i / 100} x\n" for i in range(12)))
    assert [id for id, _ in outside_run(tmp_path / "theirs.trec", task, 10)["dress-1"]] == ["s2", "s3"]


def test_cirr_as_it_is_published(tmp_path: Path) -> None:
    file = published(tmp_path, "rc2", CIRR, {f"s{i}": f"./dev/s{i}.png" for i in range(12)})
    [query] = make(tmp_path, file).queries
    assert (query.text, query.category) == ("make it blue", "")
    assert query.subset == {"s4", "s5", "s6", "s7", "s8"}


@pytest.mark.parametrize(
    ("entries", "split", "message"),
    [
        ("[{", ["s0"], "cap.dress.val.json: not JSON"),
        ("{}", ["s0"], "cap.dress.val.json: not a list of queries"),
        ([{"question": 1}], ["s0"], "entry 1: neither FashionIQ's (candidate) nor CIRR's (reference)"),
        ([*DRESS, 3], ["s0", "s2"], "entry 2: neither"),
        ([{**DRESS[0], "candidate": "B00"}], ["s0", "s2"], "entry 1: no listing has the id B00"),
        ([{**DRESS[0], "target": 5}], ["s0", "s2"], "entry 1: target is no text"),
        ([{"candidate": "s0", "captions": ["a"]}], ["s0", "s2"], "entry 1: no target"),
        ([{**DRESS[0], "captions": "red"}], ["s0", "s2"], "entry 1: captions are no list of texts"),
        ([{**DRESS[0], "captions": [". "]}], ["s0", "s2"], "entry 1: no caption says anything"),
        (DRESS, ["s0"], "entry 1: its target s2 is not in the split"),
        (DRESS, ["s0", "s2", "B99"], "split.dress.val.json: entry 3: no listing has the id B99"),
        (DRESS, "nothing", "split.dress.val.json: not JSON"),
        (DRESS, 7, "split.dress.val.json: neither a list"),
        ([{**CIRR[0], "img_set": {}}], ["s1", "s4"], "entry 1: img_set.members is no list of texts"),
        ([{**CIRR[0], "caption": None}], ["s1", "s4"], "entry 1: caption is no text"),
    ],
)
def test_a_fault_in_published_files_is_named_with_its_entry(
    tmp_path: Path, entries: object, split: object, message: str
) -> None:
    file = published(tmp_path, "dress", entries, split)
    with pytest.raises(AfmrlError) as caught:
        make(tmp_path, file)
    assert message in str(caught.value) and caught.value.hint


def test_published_files_are_found_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = published(tmp_path, "dress", DRESS, ["s0", "s2"])
    for folder, written in ((tmp_path / "data", "."), (file.parent, file.name)):
        monkeypatch.chdir(folder)
        assert len(make(tmp_path, Path(written)).queries) == 1


def test_published_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no captions/cap"):
        make(tmp_path, tmp_path / "empty")
    file = published(tmp_path, "dress", DRESS, ["s0"])
    (tmp_path / "data/image_splits/split.dress.val.json").unlink()
    with pytest.raises(DataError, match=r"split\.dress\.val\.json: can't be read"):
        make(tmp_path, file)


def test_what_is_counted_of_composed_queries(tmp_path: Path) -> None:
    """Two queries of one category and one of another, in rankings that a person can count."""
    task = make(tmp_path)
    kept = [query for query in task.queries if query.id in ("s0_in_green", "s2_in_red", "s4_in_black")]
    right = {"s0_in_green": {"s2", "s3"}, "s2_in_red": {"s0", "s1"}, "s4_in_black": {"s6", "s7"}}
    assert {query.id: set(task.qrels[query.id]) for query in kept} == right
    styles = _styles(task, kept, {query: frozenset(ids) for query, ids in right.items()})
    assert styles == {"s0_in_green": {"s1"}, "s2_in_red": {"s3"}, "s4_in_black": {"s5"}}
    rankings = {
        "s0_in_green": ["s2", "s9", "s1"],  # right at once; s0's other listing is there, too
        "s2_in_red": ["s9", "s8", "s7", "s10", "s0"],
        "s4_in_black": ["s10", "s11", "s9", "s8", "s5", "s3", "s2", "s1", "s0", "s6"],
    }
    run: Run = {query: [(id, 1 - i / 100) for i, id in enumerate(ids)] for query, ids in rankings.items()}
    subset = frozenset({"s10", "s9"})
    facts = ComposedFacts(
        {"s0_in_green": "a", "s2_in_red": "a", "s4_in_black": "b"},
        {query: subset | ids for query, ids in right.items()},
        "file",
        styles,
        None,
    )
    found = composed_metrics([run], Task("composed", kept, task.documents, task.qrels), facts, EvalSettings())
    assert found["metrics"] == pytest.approx({"R@1": 1 / 3, "R@5": 2 / 3, "R@10": 1, "R@50": 1})
    assert [(each["value"], each["metrics"]["R@1"]) for each in found["categories"]] == [("a", 0.5), ("b", 0)]
    assert found["category_mean"]["R@1"] == 0.25
    assert found["subset"]["metrics"] == pytest.approx({"R_subset@1": 1 / 3, "R_subset@2": 1 / 3, "R_subset@3": 1})
    assert found["unchanged"]["metrics"] == pytest.approx({"unchanged@10": 2 / 3})


def test_a_wish_in_other_words() -> None:
    assert [in_words("color: red", way) for way in range(3)] == [
        "color: red",
        "the same, but red",
        "I want the color red",
    ]
    assert in_words("with longer sleeves", 1) == "the same, but with longer sleeves"


def test_known_attributes_of_the_reference_are_part_of_the_query_where_the_settings_say_so(tmp_path: Path) -> None:
    def asked(flags: dict[str, object] | None = None) -> str:
        """Return what a query brings."""
        return next(query.attributes for query in make(tmp_path, None, flags).queries if query.id == "s0_in_green")

    assert asked() == "color: green"
    assert asked({"search.known_attributes": False}) == asked({"embed.enrich": "none"}) == ""
