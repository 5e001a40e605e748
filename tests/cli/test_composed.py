"""`search --change` and `eval --protocol composed` as a person types them, with a tiny real model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.retrieval.vectors import load_vectors
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.chat_server import Reply, chat_server
from tests.retrieval.shop import COLORS, Row, draw, shop_rows, write_catalog, write_shop

from .calls import call, document

WISHES = ((0, "color: green"), (4, "with longer sleeves"))


def rows() -> list[Row]:
    """Products of two listings each; four products, in four colours, are one style. s23 has no photo."""
    made = shop_rows(24)
    for i, row in enumerate(made):
        row |= {"group_id": f"g{i // 8}", "attr_sleeves": "short" if i % 4 else "long", "fit": "slim"}
    made[23]["image"] = ""
    return made


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    root = tmp_path_factory.mktemp("shop")
    write_shop(root, shop_rows(24))
    write_catalog(root, rows(), list(rows()[0]))
    model = tiny_model("qwen2_vl")
    settings = f'embedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n'
    (root / "afmrl.toml").write_text(f"[model]\n{settings}[eval]\nresamples = 200\n")
    result = CliRunner().invoke(app, ["embed", str(root)])
    assert result.exit_code == 0, result.output
    return root


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def found(content: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in content["hits"]]


def test_a_changed_listing_and_the_others_of_its_product_are_no_result(shop: Path) -> None:
    content = document("search", "--like", "s0", "--change", "Color: GREEN", "-k", "50")
    assert content["question"]["left_out"] == ["s0", "s1"]
    assert sorted(found(content)) == sorted(f"s{i}" for i in range(2, 24))
    assert content["question"]["change"] == {"text": "Color: GREEN", "pairs": {"color": "GREEN"}}
    right = {hit["id"] for hit in content["hits"] if hit["changed"] == {"color": True}}
    assert right == {f"s{i}" for i in range(24) if COLORS[i // 2 % 6] == "green"}


def test_the_listings_that_show_the_very_photo_are_no_result_whatever_its_file_is_called(shop: Path) -> None:
    shutil.copy(shop / "images/4.png", shop.parent / "phone.png")
    content = document("search", "--image", str(shop.parent / "phone.png"), "--change", "with long sleeves", "-k", "50")
    assert content["question"]["left_out"] == ["s4", "s5"]  # both listings of its product
    assert len(content["hits"]) == 22 and not {"s4", "s5"} & set(found(content))
    other = document("search", "--image", "images/4.png", "--change", "red", "-k", "50", "--filter", "color=blue")
    assert set(found(other)) == {"s16", "s17"}
    stranger = shop_rows(30)[29]
    write_shop(shop.parent / "other", [stranger])
    content = document("search", "--image", str(shop.parent / "other/images/29.png"), "--change", "red", "-k", "50")
    assert content["question"]["left_out"] == [] and len(content["hits"]) == 24


def test_of_variants_that_share_a_photo_the_wished_one_is_a_result(embedded: Path, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    shutil.copytree(embedded, root)
    made = rows()
    for i in (0, 2, 4):
        made[i]["image"] = "images/0.png"
    write_catalog(root, made, list(made[0]))
    assert call("embed", str(root)).exit_code == 0
    ask = ("search", "--catalog", str(root), "--image", str(root / "images/0.png"), "-k", "50", "--change")
    assert document(*ask, "color: green")["question"]["left_out"] == ["s0", "s1", "s4", "s5"]
    assert document(*ask, "in green")["question"]["left_out"] == [f"s{i}" for i in range(6)]


def test_known_attributes_with_the_changed_key_replaced_are_part_of_the_query(shop: Path) -> None:
    change = ("--change", "color: green", "-k", "50")
    known = document("search", "--like", "s0", *change)
    assert known["question"]["attributes"] == "color: green; sleeves: long"
    photo = document("search", "--image", "images/0.png", *change)
    assert photo["question"]["attributes"] == "color: green; sleeves: long"
    for setting in ("search.known_attributes=false", "embed.enrich=none"):
        plain = document("search", "--image", "images/0.png", *change, "--set", setting)
        assert plain["question"]["attributes"] == ""
        assert [hit["score"] for hit in plain["hits"]] != [hit["score"] for hit in photo["hits"]]
    words = document("search", "--like", "s0", "--change", "with short sleeves")
    assert words["question"]["attributes"] == "" and words["question"]["change"]["pairs"] == {}


def test_a_generator_describes_the_reference_and_never_reads_the_change(shop: Path) -> None:
    draw(shop.parent / "new.png", "gray", 40)
    with chat_server() as server:
        server.script = lambda number, body: Reply(text="color: gray; fit: slim")
        content = document(
            *("search", "--image", str(shop.parent / "new.png"), "--change", "color: green", "--enrich", "-k", "1"),
            *("--set", f"attributes.endpoint={server.url}", "--set", "attributes.endpoint_model=m"),
        )
        [request] = server.requests
    assert content["question"]["attributes"] == "color: green; fit: slim"
    assert "green" not in json.dumps(request)


def test_the_photo_and_the_change_are_one_query(shop: Path) -> None:
    """The same vector as of a text with a photo, as evaluations and trainings write it."""
    changed = document("search", "--image", "images/0.png", "--change", "rather green", "-k", "50")
    both = document("search", "rather green", "--image", "images/0.png", "-k", "50", "--hybrid", "no")
    scores = {hit["id"]: hit["score"] for hit in both["hits"]}
    assert all(hit["score"] == pytest.approx(scores[hit["id"]], abs=1e-5) for hit in changed["hits"])


def test_results_and_page_mark_what_was_wished(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ("search", "--like", "s0", "--change", "color: green", "-k", "22", "--html", "out.html")
    lines = call(*words).stdout.splitlines()
    assert lines[0].startswith("like s0  ") and lines[1] == "but  color: green"
    assert sum("+color: green" in line for line in lines) == 4
    assert any("-color: blue" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)
    page = (shop / "out.html").read_text("utf-8")
    assert "<h1>Like s0, but color: green</h1>" in page
    assert page.count('class="wished"') == 1 + 4 and page.count('class="unwished"') == 18
    assert page.count("data:image/jpeg") == 2 + 21  # both photos of s0; s23 has none


def test_a_key_or_a_value_that_no_listing_has_is_told(shop: Path) -> None:
    key = call("search", "--like", "s0", "--change", "colour: green", "-k", "1")
    assert "no listing has the attribute colour: the change is read as words; did you mean color?" in said(key)
    value = call("search", "--like", "s0", "--change", "color: grün", "-k", "1")
    assert "no listing has color: grün; there are red, green, blue, black, orange, purple" in said(value)
    assert (key.exit_code, value.exit_code) == (0, 0)


def test_what_stays_as_it_is_may_be_said_beside_what_changes(shop: Path) -> None:
    content = document("search", "--like", "s0", "--change", "color: red; sleeves: short", "-k", "1")
    assert content["question"]["attributes"] == "color: red; sleeves: short"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--change", "red"], 2, "--change needs one reference"),
        (["--change", "red", "--like", "s0", "--image", "images/0.png"], 2, "--change needs one reference"),
        (["--change", " ", "--like", "s0"], 2, "--change: says nothing"),
        (["shirt", "--change", "red", "--like", "s0"], 2, "--change is the text of its query"),
        (["--change", "red", "--like", "zz"], 3, "no such listing"),
        (["--change", "red", "--image", "none.png"], 3, "none.png: no such file"),
        (["--change", "color: red", "--like", "s0"], 3, "--change color: red: that is what the reference is already"),
        (
            ["--change", "color: red", "--image", "images/0.png"],
            3,
            "--change color: red: that is what the reference is already",
        ),
        (["--change", "color: red", "--like", "s23"], 3, "--like s23: it has no photo"),
        (["--change", "red", "--like", "s0", "--rerank", "5"], 2, "asks for another product than its reference"),
        (["--change", "in red", "--image", "images/0.png", "--enrich"], 2, "--change in words does not edit"),
    ],
)
def test_a_change_of_nothing_is_an_error(shop: Path, words: list[str], code: int, message: str) -> None:
    result = call("search", *words)
    assert result.exit_code == code, result.output
    assert message in said(result)
    assert len(result.stderr.strip().splitlines()) <= 3  # an error and its hint, one of which may be broken


def test_an_embedder_without_photos_says_that_it_cannot_answer(shop: Path) -> None:
    endpoint = ("embed.endpoint=http://127.0.0.1:9", "embed.endpoint_model=m", "embed.endpoint_photos=false")
    flags = [word for each in endpoint for word in ("--set", each)]
    result = call("search", "--like", "s0", "--change", "red", *flags)
    assert result.exit_code == 4 and "reads none" in said(result)


def test_eval_measures_composed_queries_beside_their_halves(shop: Path) -> None:
    content = document("eval", "--protocol", "composed", "--label", "color", "--baselines")
    systems = {system["system"]: system for system in content["systems"]}
    own, photo = systems["embedder"]["composed"], systems["reference-alone"]["composed"]
    assert own["queries"] == content["queries"] == sum(each["queries"] for each in own["categories"])
    assert {each["value"] for each in own["categories"]} == {"Women/Tops", "Men/Tops"}
    assert systems["embedder"]["metrics"]["hit@1"] == own["metrics"]["R@1"]
    # The neighbours are those of the photo alone: only where it finds the target is that first among them.
    assert photo["subset"]["metrics"]["R_subset@1"] == photo["metrics"]["R@1"]
    assert len(content["composed"]["paraphrases"]["metrics"]) == 3
    assert content["composed"]["paraphrases"]["metrics"][0] == own["metrics"]
    edited = systems["attributes-alone"]  # all references are known, so that it reads all queries, as text
    assert edited["readable"] == own["queries"] and edited["composed"]["queries"] == own["queries"]
    shown = call("eval", "--protocol", "composed", "--label", "color", "--html", "out.html", "--markdown", "out.md")
    assert "R_subset@1" in shown.output and "the wish in three ways" in " ".join(shown.output.split())
    assert "R_subset@1" in Path("out.md").read_text("utf-8") and "R_subset@1" in Path("out.html").read_text("utf-8")


def test_only_queries_with_edited_attributes_are_read_by_attributes_alone(shop: Path) -> None:
    ask = [{"qid": f"q{i}", "text": wish, "images": [f"images/{i}.png"], "exclude": [f"s{i}"]} for i, wish in WISHES]
    Path("q.jsonl").write_text("\n".join(map(json.dumps, ask)))
    Path("q.trec").write_text("".join(f"q{i} 0 s2 1\n" for i, _ in WISHES))
    words = ["eval", "--protocol", "composed", "--queries", "q.jsonl", "--qrels", "q.trec"]
    content = document(*words, "--systems", "attributes-alone")
    [_, edited] = content["systems"]
    assert (edited["system"], edited["readable"], content["queries"]) == ("attributes-alone", 1, 2)
    lines = [line.split() for line in (Path(content["folder"]) / "run-attributes-alone.trec").read_text().splitlines()]
    work = Workspace(CatalogFolder(shop / "catalog.csv"), load_settings(shop), Silent())
    [vector] = work.embedder().encode(
        [Item("", (), "color: green; sleeves: long")], instruction=work.embed.query_instruction
    )
    vectors = load_vectors(work)
    expected = dict(zip(vectors.ids, vectors.matrix @ vector, strict=True))
    assert len(lines) == 23 and {line[0] for line in lines} == {"q0"}
    assert all(float(line[4]) == pytest.approx(expected[line[2]], abs=2e-5) for line in lines)
    off = ["--set", "search.known_attributes=false"]
    refused = call(*words, "--systems", "attributes-alone", *off)
    assert refused.exit_code == 3 and "attributes-alone: no query has edited attributes" in said(refused)
    baselines = document(*words, "--baselines", *off)["systems"]
    assert "attributes-alone" not in [each["system"] for each in baselines]


def test_eval_of_published_annotations_leaves_their_files_alone(shop: Path) -> None:
    captions = [{"candidate": "s0", "target": "s2", "captions": ["is green", "is new"]}]
    for folder, written in (("captions/cap", captions), ("image_splits/split", ["s0", "s2", "s4"])):
        file = shop / f"iq/{folder}.dress.val.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(written))
    content = document("eval", "--queries", "iq", "--run-out", "run.trec")
    assert content["protocol"] == "composed" and content["queries"] == 1
    assert {line.split()[2] for line in Path("run.trec").read_text().splitlines()} == {"s2", "s4"}
    refused = call("eval", "--queries", "iq", "--html", "iq/captions/cap.dress.val.json")
    assert refused.exit_code == 2
    assert call("eval", "--queries", "iq", "--qrels", "q.trec").exit_code == 2
    assert call("eval", "--queries", ".").exit_code == 3
