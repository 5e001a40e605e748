"""A vision encoder in `embed`, `search`, `eval`, `dedupe` and `checkpoints`: photos make the vectors, words are refused
where they ask, and products without photos are told.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afmrl_cli.cycle.plan import cycle_key
from afmrl_cli.listener import Silent
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.models.vision_encoder import VisionEncoder
from afmrl_cli.retrieval.vectors import load_vectors
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import POOLER_WEIGHTS, Checkpoints, Manifest
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.training_products import training_products
from afmrl_cli.training.run import AGCL
from afmrl_cli.training.shell import start_job
from afmrl_cli.workspace import Workspace
from tests.models.adapters import add_random, add_vision
from tests.retrieval.shop import COLUMNS, shop_rows, write_shop

from .calls import call, document

SETTINGS = """
[model]
device = "cpu"
precision = "fp32"
vision_checkpoint = "eyes"
[eval]
resamples = 200
"""
OFF = ["--set", "model.vision_checkpoint="]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen listings, two of them without photos; the vision encoders `eyes` and `other`, the embedder `words`;
    vectors of `eyes`.
    """
    root, rows = tmp_path_factory.mktemp("shop"), shop_rows(16)
    rows[5]["image"] = rows[9]["image"] = ""
    folder = write_shop(root, rows)
    (root / "afmrl.toml").write_text(SETTINGS)
    store, base = Checkpoints(folder.checkpoints), resolve_base(load_settings(root).model, "vision")
    for seed, name in enumerate(("eyes", "other")):
        add_vision(store, base, name, seed, dimension=32)
    add_random(store, base, "words", 3)
    assert call("embed", str(root)).exit_code == 0
    return root


def work_here(**flags: object) -> Workspace:
    return Workspace(CatalogFolder(Path("catalog.csv").absolute()), load_settings(Path.cwd(), flags), Silent())


def refused(*words: str, code: int = 2) -> str:
    """The message of a command that ends with `code`."""
    message = document(*words, code=code)["error"]["message"]
    assert isinstance(message, str)
    return message


def ids(content: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in content["hits"]]


def test_listings_without_photos_are_left_out_counted_and_named(shop: Path) -> None:
    content = document("embed", "--force")
    assert (content["products"], content["left_out"], content["dimension"]) == (14, 2, 32)
    assert content["problems"]["no photo"] == 2 and content["embedder"].startswith("nano-eyes-")
    said = call("embed", "--force").output
    assert "no photo: row 7 (id s5)" in " ".join(said.split()) and "2 products left out: no photo" in said
    assert document("embed")["encoded"] == 0


def test_a_new_title_costs_nothing(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors go by the photos; of those whose listings change, each photo's own is kept."""
    before = np.array(load_vectors(work_here()).matrix)
    rows = list(csv.DictReader((shop / "catalog.csv").open(encoding="utf-8")))
    for row in rows:
        row["title"] = "another title"
    with (shop / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(VisionEncoder, "forward", lambda *_: pytest.fail("a photo is encoded again"))
    assert document("embed")["changed"]
    assert np.allclose(load_vectors(work_here()).matrix, before, atol=1e-6)


def test_without_any_photo_there_is_nothing_to_embed(shop: Path) -> None:
    rows = shop_rows(4)
    write_shop(shop.parent / "bare", [row | {"image": ""} for row in rows])
    (shop.parent / "bare" / "afmrl.toml").write_text(SETTINGS)
    (shop / ".afmrl" / "checkpoints").rename(shop.parent / "kept")
    (shop.parent / "bare" / ".afmrl").mkdir()
    (shop.parent / "kept").rename(shop.parent / "bare" / ".afmrl" / "checkpoints")
    said = refused("embed", str(shop.parent / "bare"), code=3)
    assert "no product has a readable photo" in said


def test_a_photo_asks_and_a_listing_asks(shop: Path) -> None:
    found = ids(document("search", "--image", "images/4.png", "-k", "3"))
    assert found[0] == "s4"
    like = ids(document("search", "--like", "s4", "-k", "20"))
    assert len(like) == 13 and "s4" not in like and not {"s5", "s9"} & set(like)


@pytest.mark.parametrize(
    "words",
    [["red shirt"], ["red", "--image", "images/4.png"], ["--image", "images/4.png", "--enrich"]],
)
def test_words_are_refused_not_ignored(shop: Path, words: list[str]) -> None:
    assert "reads photos alone" in refused("search", *words)


def test_a_change_is_refused(shop: Path) -> None:
    assert "--change: model.vision_checkpoint = eyes" in refused("search", "--like", "s4", "--change", "color: red")


def test_attributes_on_the_gallery_are_refused(shop: Path) -> None:
    assert "embed.enrich = both" in refused("embed", "--enrich", "both")


def test_an_endpoint_beside_it_is_refused(shop: Path) -> None:
    words = ["--endpoint", "http://127.0.0.1:1", "--model", "m"]
    assert "model.vision_checkpoint = eyes is of a local model" in refused("embed", *words)


@pytest.mark.parametrize("protocol", ["photo", "identity", "coarse"])
def test_protocols_with_photos_are_answered(shop: Path, protocol: str) -> None:
    content = document("eval", "--protocol", protocol, "--baselines", "--systems", "checkpoint:other")
    names = [system["system"] for system in content["systems"]]
    assert names[0] == "vision-encoder" and {"base", "checkpoint-other"} <= set(names)
    assert content["embedder"].startswith("nano-eyes-") and content["enrich"] == "none"
    assert content["systems"][0]["readable"] > 0
    by_name = {system["system"]: system["metrics"]["mrr"] for system in content["systems"]}
    assert len({by_name["vision-encoder"], by_name["base"], by_name["checkpoint-other"]}) == 3
    assert "vision-encoder" in call("eval", "--protocol", protocol, "--run-out", "run.trec").output
    again = document("eval", "--protocol", protocol, "--compare", Path(content["folder"]).name)
    assert again["comparisons"][0]["differences"][0]["difference"] == 0


def test_an_untrained_tower_is_the_base(shop: Path) -> None:
    """Beside a vision encoder `base` is the tower as it came, its tokens averaged."""
    work = work_here()
    id, load = work.bare_vision()
    assert id != work.embedder_id and load().id == id


def test_protocols_in_words_are_refused(shop: Path) -> None:
    assert "protocol text asks with words" in refused("eval", "--protocol", "text")
    query = {"qid": "c1", "text": "color: green", "images": ["images/4.png"], "listing_id": "s4"}
    Path("queries.jsonl").write_text(json.dumps(query))
    Path("qrels.trec").write_text("c1 0 s2 1\n")
    assert "protocol composed asks with words" in refused(
        "eval", "--protocol", "composed", "--queries", "queries.jsonl"
    )


def test_queries_in_words_are_told_to_be_unreadable(shop: Path) -> None:
    lines = [{"qid": "t1", "text": "green shirt"}, {"qid": "p1", "images": ["images/4.png"], "listing_id": "s4"}]
    Path("queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Path("qrels.trec").write_text("t1 0 s2 1\np1 0 s6 1\n")
    content = document("eval", "--queries", "queries.jsonl", "--qrels", "qrels.trec")
    assert content["systems"][0]["readable"] == 1 and any("could not be read" in note for note in content["notes"])
    Path("queries.jsonl").write_text(json.dumps(lines[0]))
    Path("qrels.trec").write_text("t1 0 s2 1\n")
    error = document("eval", "--queries", "queries.jsonl", "--qrels", "qrels.trec", code=3)["error"]
    assert "the vision-encoder can read none of the queries" in error["message"] and "photo" in error["hint"]


def test_what_it_saw_in_training_is_not_asked_about(shop: Path) -> None:
    store, seen = Checkpoints(shop / ".afmrl" / "checkpoints"), [(f"s{i}", f"p{i // 2}") for i in range(6)]
    manifest = store.get("eyes")
    known = Manifest(
        "vision", manifest.base, manifest.base_revision, "knows", products=training_products(seen, ()).written()
    )
    store.add(store.path("eyes"), known)
    mine = ["--set", "model.vision_checkpoint=knows"]
    assert call("embed", *mine).exit_code == 0
    content = document("eval", "--protocol", "identity", *mine)
    assert content["split"] == "unseen" and content["seen"]["checkpoints"] == ["knows"]
    assert content["queries"] == 10, "of 16 listings six were seen"


def test_a_vision_encoder_stands_beside_the_embedder_in_the_table(shop: Path) -> None:
    assert call("embed", *OFF).exit_code == 0
    content = document("eval", "--protocol", "photo", *OFF, "--systems", "checkpoint:eyes")
    assert [system["system"] for system in content["systems"]] == ["embedder", "checkpoint-eyes"]
    own = document("eval", "--protocol", "photo")["systems"][0]["metrics"]
    assert content["systems"][1]["metrics"] == own


def test_it_goes_before_the_embedders_checkpoint_and_says_so(shop: Path) -> None:
    said = call("embed", "--set", "model.embedder_checkpoint=words").output
    assert "eyes embeds, by photos alone; the embedder words" in " ".join(said.split())
    assert document("embed", "--set", "model.embedder_checkpoint=words")["embedder"].startswith("nano-eyes-")
    turned = document("embed", "--set", "model.embedder_checkpoint=words", *OFF)
    assert turned["embedder"].startswith("nano-words-")


def test_trainings_go_on_with_the_embedder(shop: Path) -> None:
    with_it, without = work_here(), work_here(**{"model.vision_checkpoint": ""})
    assert with_it.with_instructions().embedder_id == with_it.of_embedder().embedder_id == without.embedder_id
    assert with_it.with_instructions().embed == without.embed
    assert start_job(AGCL, with_it).model_id == start_job(AGCL, without).model_id == without.embedder_id
    plans = [document("train-agcl", "--dry-run", "--attributes", "given", *flags)["run"] for flags in ([], OFF)]
    assert plans[0] == plans[1]


def test_duplicates_are_found_by_its_vectors(shop: Path) -> None:
    content = document("dedupe")
    assert content["embedder"].startswith("nano-eyes-")
    assert content["listings"] == 16


def test_another_role_can_not_embed(shop: Path) -> None:
    assert "words belongs to the embedder, not to the vision" in refused(
        "embed", "--set", "model.vision_checkpoint=words", code=4
    )
    assert "eyes belongs to the vision" in refused("embed", *OFF, "--set", "model.embedder_checkpoint=eyes", code=4)


def test_checkpoints_show_and_carry_the_pooler(shop: Path) -> None:
    listed = {row["name"]: row["role"] for row in document("checkpoints", "list")["checkpoints"]}
    assert listed["eyes"] == "vision" and listed["words"] == "embedder"
    shown = document("checkpoints", "show", "vision:latest")
    assert shown["name"] == "other" and POOLER_WEIGHTS in shown["files"]
    assert "vision encoder: adapter of the vision tower, pooler" in call("checkpoints", "show", "eyes").output
    assert [
        Path(path).parent.name.startswith("nano-eyes-")
        for path in document("checkpoints", "show", "eyes")["chain"]["vectors"]
    ]
    different = document("checkpoints", "diff", "eyes", "other")["differences"]
    assert {"pooler", "weights"} <= {each["what"] for each in different}
    kept = document("checkpoints", "prune")["kept"]
    assert kept["eyes"] == "model.vision_checkpoint"


def test_it_travels_to_another_shop(shop: Path) -> None:
    document("checkpoints", "export", "eyes", "parcel", "--to", "afmrl")
    write_shop(shop.parent / "second", shop_rows(4))
    words = ("checkpoints", "import", str(shop / "parcel"), "--catalog", str(shop.parent / "second"))
    assert document(*words)["was_here"] is False and document(*words)["was_here"] is True
    there = shop.parent / "second" / ".afmrl" / "checkpoints" / "eyes" / POOLER_WEIGHTS
    assert there.read_bytes() == (shop / ".afmrl" / "checkpoints" / "eyes" / POOLER_WEIGHTS).read_bytes()
    (shop / "parcel" / POOLER_WEIGHTS).unlink()
    assert POOLER_WEIGHTS in refused(*words, code=4)


def test_it_is_exported_for_transformers(shop: Path) -> None:
    content = document("checkpoints", "export", "eyes", "exported")
    assert content["to"] == "transformers" and (shop / "exported" / "load.py").is_file()
    assert "reads photos" in refused("checkpoints", "export", "eyes", "x", "--to", "sentence-transformers")
    assert "is of vision encoders" in refused("checkpoints", "export", "words", "x", "--to", "transformers")
    peft = document("checkpoints", "export", "eyes", "adapter", "--to", "peft")
    assert peft["to"] == "peft" and (shop / "adapter" / POOLER_WEIGHTS).is_file()


def test_listings_without_photos_are_no_news_to_search(shop: Path) -> None:
    file = shop / "catalog.csv"
    file.write_text(file.read_text("utf-8") + "\n", "utf-8")  # another size, the same listings
    assert "new, changed or gone" not in call("search", "--like", "s4").output
    row = shop_rows(20)[17] | {"image": ""}
    file.write_text(file.read_text("utf-8").strip() + "\n" + ",".join(row[name] for name in COLUMNS) + "\n", "utf-8")
    assert "1 products are new, changed or gone" in " ".join(call("search", "--like", "s4").output.split())


def test_a_cycle_is_the_same_with_it(shop: Path) -> None:
    keys = {cycle_key(work_here(**{"model.vision_checkpoint": name}).settings) for name in ("eyes", "other", "")}
    assert len(keys) == 1
