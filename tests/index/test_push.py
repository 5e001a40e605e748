"""`afmrl index push` into a folder, and `afmrl search --index`, with the real engine."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.index.place import open_engine
from afmrl_cli.index.points import number_of
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.vectors import load_vectors
from tests.cli.calls import call, document

from .conftest import work_of


def push(place: Path | str, *words: str, code: int = 0) -> dict:
    return document("index", "push", "--to", str(place), *words, code=code)


def found(*words: str, index: Path | str = "") -> list[tuple[str, float]]:
    where = ["--index", str(index)] if index else []
    content = document("search", *words, *where, "-k", "30")
    return [(hit["id"], round(hit["score"], 4)) for hit in content["hits"]]


def edit(root: Path, change) -> None:
    """Rewrite the catalog's rows, and embed."""
    with (root / "catalog.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows)
    with (root / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert call("embed").exit_code == 0


def test_a_push_says_what_it_did_and_the_next_one_has_nothing_to_do(shop: Path, place: Path) -> None:
    first = push(place)
    assert first["schema"] == "afmrl.index-push/1"
    assert (first["products"], first["sent"], first["removed"], first["replaced"]) == (24, 24, 0, "")
    assert (first["recall"], first["queries"]) == (1.0, 24)
    assert first["bytes"] > 0
    again = push(place)
    assert (again["sent"], again["removed"], again["recall"]) == (0, 0, 1.0)
    text = call("index", "push", "--to", str(place)).output
    assert "nothing changed" in text and "recall@10 1.000 against exact search" in text


def test_new_vectors_under_the_same_name_are_sent(shop: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an endpoint whose model was trained further: other vectors of the same listings, by a name that stays."""
    push(place)
    work = work_of(shop)
    encoder = work.embedder()
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda *items, **more: np.roll(encode(*items, **more), 1, axis=1))
    before = load_vectors(work).matrix[:]
    embed_catalog(work, force=True)
    matrix = load_vectors(work).matrix
    assert not np.allclose(matrix, before)
    assert "newer products or vectors" in call("search", "shirt", "--index", str(place)).stderr
    assert push(place)["sent"] == 24
    assert push(place)["sent"] == 0
    with open_engine(str(place), "afmrl search", shop) as engine:
        engine.open()
        point = engine.point(number_of(load_vectors(work).ids[3]))
        assert point is not None and np.allclose(point[0], matrix[3], atol=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ("red shirt",),
        ("--like", "s3"),
        ("--image", "images/4.png"),
        ("shirt", "--filter", "brand=luma", "--filter", "price<15"),
        ("shirt", "--filter", "price>=14.90", "--filter", "price<=20"),
        ("shirt", "--filter", "color=navy", "--filter", "color=RED"),
        ("shirt", "--filter", "category=wom"),
        ("shirt", "--filter", "material=silk", "--filter", "fit=slim"),
        ("shirt", "--filter", "material=cotton"),
        ("shirt", "--filter", "id=S4"),
        ("shirt", "--not", "color: navy", "--not", "brand=acme"),
        ("shirt", "--not", "material: wool", "--filter", "category=Men/Tops"),
        ("--like", "s1", "--filter", "product_id=p0"),
        ("shirt", "--filter", "brand=nobody"),
    ],
    ids=" ".join,
)
def test_a_search_in_the_index_finds_what_a_search_in_the_store_finds(shop: Path, place: Path, words) -> None:
    push(place)
    here, there = dict(found(*words)), dict(found(*words, index=place))
    assert here.keys() == there.keys()
    assert bool(here) == ("brand=nobody" not in words)
    assert [there[id] for id in here] == pytest.approx(list(here.values()), abs=2e-4)


def test_bounds_go_by_units_in_the_index_too(shop: Path, place: Path) -> None:
    weights = ["900 g", "2 kg", "1 kg|3 kg", "", "no idea"]
    edit(shop, lambda rows: [{**row, "weight": weights[i % 5]} for i, row in enumerate(rows)])
    push(place)
    for bound in ("weight<1.5kg", "weight>2kg", "weight>=900g"):
        hits = found("shirt", "--filter", bound, index=place)
        assert hits and {id for id, _ in hits} == {id for id, _ in found("shirt", "--filter", bound)}
    for where in ([], ["--index", str(place)]):
        done = call("search", "shirt", "--filter", "weight<2", *where)
        assert done.exit_code == 2 and "in several units: g, kg" in done.stderr
