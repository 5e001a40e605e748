"""Hybrid search, filters, wishes that are not wished, collapsed variants and batches as a person types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from tests.retrieval.shop import shop_rows, write_catalog, write_shop

from .calls import call, document


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """Listings in pairs of one product, four products in four colours a style; colours stand in a column alone."""
    root = tmp_path_factory.mktemp("shop")
    made = shop_rows(24)
    write_shop(root, made)
    for i, row in enumerate(made):
        row |= {"group_id": f"g{i // 8}", "title": f"Shirt {i}", "attr_pattern": ("plain", "polka dot")[i % 2]}
    write_catalog(root, made, list(made[0]))
    model = tiny_model("qwen2_vl")
    settings = f'embedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n'
    (root / "afmrl.toml").write_text(f"[model]\n{settings}[eval]\nresamples = 200\n")
    result = CliRunner().invoke(app, ["embed", str(root)])
    assert result.exit_code == 0, result.output
    return root


def found(content: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in content["hits"]]


def test_a_query_that_names_a_colour_finds_it_first_and_says_why(shop: Path) -> None:
    content = document("search", "red shirt", "-k", "24")
    assert content["weights"] == {"vectors": 0.6, "words": 0.3, "attributes": 0.1} and content["tuned"] == "defaults"
    red = [hit for hit in content["hits"] if hit["attributes"].get("color") == "red"]
    assert {hit["id"] for hit in red} == {"s0", "s1", "s12", "s13"}
    assert all("color" in hit["matching"] and "color: red" in hit["why"] for hit in red)
    assert all(hit["shares"]["attributes"] == pytest.approx(0.1) for hit in red)
    assert all(sum(hit["shares"].values()) == pytest.approx(hit["score"], abs=1e-4) for hit in content["hits"])
    alone = document("search", "red shirt", "-k", "24", "--hybrid", "no")
    assert alone["weights"] is None and all(hit["score"] == hit["cosine"] for hit in alone["hits"])
    assert found(alone) != found(content)
    assert "ranked by vectors 0.6, words 0.3, attributes 0.1 (defaults)" in call("search", "red shirt").stderr


def test_what_is_served_is_what_is_measured(shop: Path) -> None:
    queries: list[dict[str, Any]] = [
        {"qid": "t1", "text": "red shirt linen"},
        {"qid": "p1", "images": ["images/4.png"]},
        {"qid": "b1", "text": "polka dot", "images": ["images/6.png"]},
    ]
    (shop / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (shop / "qrels.trec").write_text("t1 0 s0 1\np1 0 s5 1\nb1 0 s7 1\n")
    kept = document("eval", "--protocol", "queries", "--systems", "hybrid", "--split", "all")
    [row] = [system for system in kept["systems"] if system["system"] == "hybrid"]
    assert {part["kind"]: part["tuned_on"] for part in row["hybrid"]} == {"text": 0, "photo": 0, "both": 0}
    lines = [line.split() for line in (Path(kept["folder"]) / "run-hybrid.trec").read_text().splitlines()]
    for query in queries:
        words = [*([query["text"]] if "text" in query else [])]
        words += ["--image", query["images"][0]] if "images" in query else []
        content = document("search", *words, "-k", "10")
        measured = {line[2]: float(line[4]) for line in lines if line[0] == query["qid"]}
        best = sorted(measured.values(), reverse=True)[:10]
        assert [hit["score"] for hit in content["hits"]] == pytest.approx(best, abs=2e-5)
        assert all(hit["score"] == pytest.approx(measured[hit["id"]], abs=2e-5) for hit in content["hits"])


def test_bounds_and_values_filter(shop: Path) -> None:
    content = document("search", "shirt", "-k", "50", "--filter", "price<20", "--filter", "price>=15")
    assert {hit["price"] for hit in content["hits"]} == {"15", "16", "17", "18", "19"}
    content = document("search", "shirt", "--filter", "color=rde")
    assert content["hits"] == [] and "did you mean red?" in " ".join(content["notes"])


def test_what_is_not_wished_is_no_result(shop: Path) -> None:
    content = document("search", "shirt", "-k", "50", "--not", "pattern: polka dot", "--not", "cotton")
    assert set(found(content)) == {f"s{i}" for i in range(0, 24, 2)}
    assert content["question"]["not"] == ["pattern: polka dot", "cotton"]
    assert set(found(document("search", "shirt", "-k", "50", "--not", "polka dot"))) == {
        f"s{i}" for i in range(0, 24, 2)
    }
    assert len(found(document("search", "--like", "s0", "-k", "50", "--not", "color=red"))) == 20


def test_one_result_for_a_product_or_a_style_with_the_number_of_the_others(shop: Path) -> None:
    plain = document("search", "red shirt", "-k", "24")
    content = document("search", "red shirt", "-k", "5", "--collapse", "product")
    first = list({int(id[1:]) // 2: id for id in reversed(found(plain))}.values())[::-1]
    assert len(content["hits"]) == 5 and set(found(content)) <= set(first)
    assert {hit["others"] for hit in content["hits"]} == {1}
    styles = document("search", "red shirt", "-k", "5", "--collapse", "style", "--filter", "color=red")
    assert len(styles["hits"]) == 2 and sorted(hit["others"] for hit in styles["hits"]) == [1, 1]
    assert "+7 more" in call("search", "red shirt", "--collapse", "style").stdout
    made = [{key: value for key, value in row.items() if key != "group_id"} for row in shop_rows(24)]
    write_catalog(shop, made, list(made[0]))
    assert call("embed").exit_code == 0
    assert "no listing has a group_id" in " ".join(document("search", "shirt", "--collapse", "style")["notes"])


def test_many_queries_from_a_file(shop: Path) -> None:
    lines = [
        "red shirt",
        '{"qid": "b", "text": "shirt", "filters": ["price<12"], "not": ["color: red"]}',
        '{"qid": "l", "like": "s3"}',
        '{"qid": "x", "like": "none"}',
        '{"qid": "o", "images": ["../secret.png"]}',
        "{broken",
    ]
    (shop / "many.txt").write_text("\n".join(lines))
    result = call("search", "--queries", "many.txt", "-k", "3")
    assert result.exit_code == 3 and "3 of 6 queries have no answer" in result.stderr
    answers = {each["qid"]: each for each in map(json.loads, result.stdout.splitlines())}
    assert list(answers) == ["1", "b", "l", "x", "o", "6"]
    assert answers["1"]["hits"] == document("search", "red shirt", "-k", "3")["hits"]
    assert found(answers["l"]) == found(document("search", "--like", "s3", "-k", "3"))
    assert answers["b"]["schema"] == "afmrl.search/1" and answers["b"]["hits"] == []
    assert "no such listing" in answers["x"]["error"]["message"]
    assert "many.txt:5" in answers["o"]["error"]["message"] and "many.txt:6" in answers["6"]["error"]["message"]


def test_words_that_are_stored_are_made_anew_where_they_are_damaged_or_gone(shop: Path) -> None:
    [lexicon] = shop.glob(".afmrl/embeddings/*/v*/lexicon.safetensors")
    before = document("search", "red shirt", "-k", "24")["hits"]
    whole = lexicon.read_bytes()
    for damaged in (whole[:100], whole[:-9] + b"123456789", b"", None):
        lexicon.write_bytes(damaged) if damaged is not None else lexicon.unlink()
        assert document("search", "red shirt", "-k", "24")["hits"] == before
    assert "nothing changed" in call("embed").stdout
    assert lexicon.read_bytes() == whole
    shutil.rmtree(shop / ".afmrl" / "embeddings")
    assert call("search", "red").exit_code == 4


def test_colours_are_made_once_for_all_embedders_and_anew_for_what_has_changed(shop: Path) -> None:
    [first] = shop.glob(".afmrl/embeddings/*/v*/colors.npy")
    made = first.stat().st_mtime_ns
    assert call("embed", "--set", "embed.target_instruction=Other").exit_code == 0
    one, other = shop.glob(".afmrl/embeddings/*/v*/colors.npy")
    assert one.read_bytes() == other.read_bytes() and first.stat().st_mtime_ns == made
    before = document("search", "--image", "images/4.png", "-k", "24")["hits"]
    shutil.copy(shop / "images/4.png", shop / "images/20.png")
    assert "1 vectors computed" in call("embed").stdout
    after = document("search", "--image", "images/4.png", "-k", "24")["hits"]
    share = {hit["id"]: hit["shares"]["colors"] for hit in after}
    assert share["s20"] == share["s4"] == max(share.values())
    assert {hit["id"]: hit["shares"]["colors"] for hit in before}["s20"] < share["s20"]


@pytest.mark.parametrize("name", ["colors.npy", "colors.json"])
def test_damaged_colours_are_an_error_where_a_photo_asks_and_embed_makes_them_again(shop: Path, name: str) -> None:
    [file] = shop.glob(f".afmrl/embeddings/*/v*/{name}")
    query = ("search", "--image", "images/4.png", "-k", "24")
    before, whole = document(*query)["hits"], file.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:100], b""):
        file.write_bytes(damaged)
        failed = call(*query)
        assert failed.exit_code == 3 and "the colours of photos are damaged" in failed.output.replace("\n", " ")
        assert call("search", "red shirt").exit_code == 0, "words need none"
        assert call("embed").exit_code == 0 and file.read_bytes() == whole
        assert document(*query)["hits"] == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["x", "--filter", "price<cheap"], 2, "is no number"),
        (["x", "--not", "colour: red"], 2, "did you mean color?"),
        (["x", "--not", "..."], 2, "says nothing"),
        (["x", "--queries", "catalog.csv"], 2, "--queries stands alone"),
        (["--queries", "none.jsonl"], 3, "none.jsonl"),
        (["x", "--collapse", "colour"], 2, "--collapse"),
    ],
)
def test_what_cannot_be_done(shop: Path, words: list[str], code: int, message: str) -> None:
    result = call("search", *words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())


def test_weights_do_not_waver_with_every_change_of_the_catalog(shop: Path) -> None:
    """They are chosen again for three listings in 24, for another split or column, and where what is kept is no state;
    not for one listing, or for prices.
    """
    [file] = (shop / ".afmrl" / "embeddings").glob("*/hybrid.json")
    rows = shop_rows(24)

    def chosen_again(*words: str) -> bool:
        before = file.stat().st_ino
        write_catalog(shop, rows, list(rows[0]))
        assert call("embed", *words).exit_code == 0
        return file.stat().st_ino != before

    assert chosen_again(), "other titles than those that were embedded"
    rows[0]["price"], rows[3]["title"] = "8.90", "Another"
    assert not chosen_again()
    for i in (4, 5, 6):
        rows[i]["title"] = f"One more {i}"
    assert chosen_again() and not chosen_again()
    assert chosen_again("--set", "split.validation=0.3") and chosen_again()
    for row in rows:
        row["attr_fit"] = "slim"
    assert chosen_again() and not chosen_again()
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"state": {**kept["state"], "listings": None}}))
    assert chosen_again() and not chosen_again()
