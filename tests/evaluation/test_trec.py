"""Reading and writing judged files; what is wrong is said with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytrec_eval

from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.metrics import evaluate
from afmrl_cli.evaluation.trec import read_qrels, read_queries, write_qrels, write_run


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_queries(tmp_path: Path) -> None:
    file = write(
        tmp_path / "queries.jsonl",
        '{"qid": "a", "type": "text", "text": " red shirt ", "judged": 3}\n\n'
        '{"query_id": "b", "title": "Shirt", "brand": "Luma", "images": ["x.jpg"], "listing_id": "s1"}\n'
        '{"_id": "c", "image": "y.jpg", "text": null, "exclude": ["s2", "s3"]}\n',
    )
    a, b, c = read_queries(file)
    assert (a.id, a.text, a.kind, a.images) == ("a", "red shirt", "text", ())
    assert (b.text, b.images, b.exclude) == ("Title: Shirt\nBrand: Luma", (tmp_path / "x.jpg",), frozenset({"s1"}))
    assert (c.text, c.images, c.exclude) == ("", (tmp_path / "y.jpg",), frozenset({"s2", "s3"}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"text": "x"}', "no usable query id"),
        ('{"qid": "a b", "text": "x"}', "no usable query id"),
        ('{"qid": "a"}', "neither text nor image"),
        ('{"qid": "a", "text": "  ", "images": []}', "neither text nor image"),
        ('{"qid": "a", "text": 5}', "text is not a text"),
        ('{"qid": "a", "text": "x", "images": [1]}', "images is not a list of texts"),
        ('{"qid": "first", "text": "x"}', "stands already in line 1"),
    ],
)
def test_bad_query_lines(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path / "queries.jsonl", '{"qid": "first", "text": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_queries(file)
    assert f"{file}:2" in str(caught.value)


def test_refused_image(tmp_path: Path) -> None:
    file = write(tmp_path / "queries.jsonl", '{"qid": "a", "images": ["../x.jpg"]}')

    def refuse(name: str) -> Path:
        raise ValueError("leaves the folder")

    with pytest.raises(DataError, match=r"queries.jsonl:1: image \.\./x.jpg: leaves the folder"):
        read_queries(file, refuse)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_no_queries_or_judgements(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="no queries"):
        read_queries(write(tmp_path / "queries.jsonl", text))
    with pytest.raises(DataError, match="no judgements"):
        read_qrels(write(tmp_path / "qrels.trec", text))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_queries(tmp_path / "none.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not UTF-8"):
        read_qrels(tmp_path / "binary")


def test_qrels(tmp_path: Path) -> None:
    file = write(tmp_path / "qrels.trec", "a 0 s1 2\na\tQ0\ts2\t-1\nb 0 s1 0\na 0 s1 2\n")
    assert read_qrels(file, {"a", "b"}, {"s1", "s2"}) == {"a": {"s1": 2, "s2": -1}, "b": {"s1": 0}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0 s1", "3 parts"),
        ("a 0 s1 high", "no whole number"),
        ("z 0 s1 1", "unknown query z"),
        ("a 0 zz 1", "unknown product zz"),
        ("a 0 s1 1", "was judged 2 before"),
    ],
)
def test_bad_qrels_lines(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path / "qrels.trec", "a 0 s1 2\n" + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_qrels(file, {"a"}, {"s1"})
    assert f"{file}:2" in str(caught.value)


def test_a_written_run_scores_the_same_for_others(tmp_path: Path) -> None:
    run = {"a": [("s1", 0.5), ("s3", 0.5), ("s 2", 0.75)], "b": []}
    qrels = {"a": {"s1": 1, "s 2": 1}}
    write_run(tmp_path / "run.trec", run, "my system")
    write_qrels(tmp_path / "qrels.trec", qrels)
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert lines == [
        "a Q0 s_2 1 0.750000 my_system",
        "a Q0 s3 2 0.500000 my_system",
        "a Q0 s1 3 0.500000 my_system",
    ]
    with (tmp_path / "run.trec").open() as file:
        read_run = pytrec_eval.parse_run(file)
    with (tmp_path / "qrels.trec").open() as file:
        judged = pytrec_eval.parse_qrel(file)
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"map", "recip_rank"}).evaluate(read_run)["a"]
    ours = evaluate(run, qrels, ["map", "mrr"]).means
    assert ours["map"] == pytest.approx(theirs["map"], abs=1e-9)
    assert ours["mrr"] == pytest.approx(theirs["recip_rank"], abs=1e-9)
