"""What people say of results flows into files that the next `eval` and `dedupe` read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from afmrl_cli.catalog.verdicts import read_verdicts
from afmrl_cli.serve.marks import Marks
from afmrl_cli.serve.requests import MarkRequest
from afmrl_cli.settings import Settings
from afmrl_cli.store.files import write_json
from tests.cli.calls import document
from tests.dedupe import shop as near_duplicates
from tests.retrieval.shop import shop_rows, write_shop
from tests.serve.shop import Client, opened, png, sentence, serving

FLAGS = ("--set", "model.device=cpu", "--set", "model.max_pixels=3136")


@pytest.fixture
def served(shop: Path, model: Path) -> Iterator[Client]:
    """A service over a shop of the test's own."""
    with serving(opened(shop, model)) as client:
        yield client


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def with_verdicts(*files: str) -> Settings:
    settings = Settings()
    return settings.model_copy(update={"dedupe": settings.dedupe.model_copy(update={"verdicts": list(files)})})


def test_marks_are_queries_and_judgements_that_eval_reads(served: Client, shop: Path, model: Path) -> None:
    photo = (shop / "images" / "4.png").read_bytes()
    assert served.http.post("/marks", json={"text": " red  shirt", "id": "s0", "right": True}).json()["right"] == 1
    served.http.post("/marks", json={"text": "red shirt", "id": "s5", "right": False, "filters": ["brand=luma"]})
    form = {"id": "s5", "right": "true"}
    counts = served.http.post("/marks", data=form, files={"photo": ("p.png", photo)}).json()
    assert counts == {"queries": 2, "right": 2, "wrong": 1, "same": 0, "different": 0}
    text, picture = lines(shop / ".afmrl" / "marks" / "queries.jsonl")
    assert text["text"] == "red shirt" and text["marks"] == {"s0": True, "s5": False}, "the same query, filtered or not"
    [name] = picture["images"]
    assert (shop / ".afmrl" / "marks" / name).read_bytes() == photo
    flags = ["--catalog", str(shop), *FLAGS, "--set", f"model.embedder={model}", "--set", f"model.generator={model}"]
    file = str(shop / ".afmrl" / "marks" / "queries.jsonl")
    content = document("eval", str(shop), "--protocol", "queries", "--queries", file, "--split", "all", *flags[2:])
    assert content["queries"] == 2


def test_the_page_finds_the_marks_of_a_query_again(served: Client, shop: Path) -> None:
    photo = (shop / "images" / "4.png").read_bytes()
    served.http.post("/marks", data={"id": "s5", "right": "false"}, files={"photo": ("p.png", photo)})
    served.http.post("/marks", json={"text": "red shirt", "id": "s0", "right": True})
    assert served.http.post("/marks/of", json={"text": "red  shirt", "k": 3}).json() == {"marks": {"s0": True}}
    assert served.http.post("/marks/of", files={"photo": ("p.png", photo)}).json() == {"marks": {"s5": False}}
    assert served.http.post("/marks/of", json={"text": "red"}).json() == {"marks": {}}


def test_a_mark_can_be_changed_and_taken_back(served: Client, shop: Path) -> None:
    for right, marks in ((True, {"s0": True}), (False, {"s0": False}), (None, {})):
        served.http.post("/marks", json={"text": "red", "id": "s0", "right": right})
        assert served.http.post("/marks/of", json={"text": "red"}).json() == {"marks": marks}
    assert lines(shop / ".afmrl" / "marks" / "queries.jsonl") == []


def test_marks_of_a_change_are_composed_queries(served: Client, shop: Path, model: Path) -> None:
    change = {"like": "s0", "change": "color: green"}
    served.http.post("/marks", json={**change, "id": "s2", "right": True})
    assert served.http.post("/marks/of", json=change).json() == {"marks": {"s2": True}}
    [query] = lines(shop / ".afmrl" / "marks" / "queries_composed.jsonl")
    assert query["text"] == "color: green" and query["listing_id"] == "s0" and len(query["images"]) == 2
    words = ["eval", str(shop), "--protocol", "composed", "--split", "all", *FLAGS]
    words += ["--queries", str(shop / ".afmrl/marks/queries_composed.jsonl"), "--set", f"model.embedder={model}"]
    assert document(*words, "--set", f"model.generator={model}")["queries"] == 1


def test_a_mark_on_what_is_like_a_listing_is_a_verdict_on_both(served: Client, shop: Path) -> None:
    served.http.post("/marks", json={"like": "s3", "id": "s2", "right": True})
    counts = served.http.post("/marks", json={"like": "s3", "id": "s9", "right": False}).json()
    assert counts["same"] == counts["different"] == 1
    assert served.http.post("/marks/of", json={"like": "s3"}).json() == {"marks": {"s2": True, "s9": False}}
    verdicts = read_verdicts(with_verdicts(".afmrl/marks/verdicts.csv"), shop)
    assert set(verdicts.confirmed) == {("s2", "s3")} and set(verdicts.rejected) == {("s3", "s9")}


def test_verdicts_that_contradict_each_other_are_refused_where_they_are_given(served: Client, shop: Path) -> None:
    def judge(id: str, other_id: str, same: bool | None) -> Any:
        return served.http.post("/verdicts", json={"id": id, "other_id": other_id, "same": same})

    assert judge("s1", "s2", True).json()["same"] == 1 and judge("s3", "s2", True).json()["same"] == 2
    before = (shop / ".afmrl" / "marks" / "verdicts.csv").read_bytes()
    assert "confirmed pairs" in sentence(judge("s3", "s1", False), 409)
    assert (shop / ".afmrl" / "marks" / "verdicts.csv").read_bytes() == before, "and nothing is written"
    assert judge("s2", "s3", None).json()["same"] == 1
    assert judge("s3", "s1", False).json()["different"] == 1
    assert "itself" in sentence(judge("s1", "s1", True), 422)


def test_verdicts_in_the_shop_s_own_files_count_too(shop: Path, model: Path) -> None:
    (shop / "review.csv").write_text("id,other_id,verdict\ns1,s2,same\n")
    with serving(opened(shop, model, **{"dedupe.verdicts": "review.csv"})) as client:
        body = {"id": "s2", "other_id": "s1", "same": False}
        assert "review.csv" in sentence(client.http.post("/verdicts", json=body), 409)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": "red", "id": "s0"}, 422, "right"),
        ({"text": "red", "id": "nope", "right": True}, 404, "no listing"),
        ({"id": "s0", "right": True}, 422, "nothing was searched for"),
        ({"like": "nope", "id": "s0", "right": True}, 404, "no listing"),
        ({"text": "red", "id": "s0", "right": "maybe"}, 422, "right"),
    ],
)
def test_a_wrong_mark_is_refused(served: Client, shop: Path, body: dict[str, Any], status: int, words: str) -> None:
    assert words in sentence(served.http.post("/marks", json=body), status)
    assert not (shop / ".afmrl" / "marks" / "queries.jsonl").exists()


def test_what_is_no_photo_is_not_kept(served: Client, shop: Path) -> None:
    for content in (b"<script>", b"", png(Image.new("RGB", (4, 4)))[:20]):
        answer = served.http.post("/marks", data={"id": "s0", "right": "true"}, files={"photo": ("p.png", content)})
        assert answer.status_code in (415, 422)
    assert not list((shop / ".afmrl" / "marks").glob("photos/*"))


def test_listings_that_left_the_catalog_are_no_judgements_any_more(served: Client, shop: Path, model: Path) -> None:
    for id in ("s0", "s23"):
        served.http.post("/marks", json={"text": "red", "id": id, "right": True})
    write_shop(shop, shop_rows(23))
    Marks(opened(shop, model)).bring_up_to_date({f"s{i}" for i in range(23)})
    assert (shop / ".afmrl/marks/qrels.trec").read_text().split()[2::4] == ["s0"]
    [query] = lines(shop / ".afmrl" / "marks" / "queries.jsonl")
    assert query["marks"] == {"s0": True, "s23": True}, "a listing may come back"


def test_many_people_mark_at_once_and_no_mark_is_lost(shop: Path, model: Path) -> None:
    marks = [Marks(opened(shop, model)) for _ in range(4)]
    there = {f"s{i}" for i in range(24)}

    def mark(at: int) -> None:
        for i in range(at, 24, 4):
            marks[at].mark(MarkRequest(text="red", id=f"s{i}", right=True), (), (), there)

    threads = [threading.Thread(target=mark, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert marks[0].counts()["right"] == 24


def test_damaged_marks_are_told_and_not_overwritten(served: Client, shop: Path) -> None:
    file = shop / ".afmrl" / "marks" / "queries.jsonl"
    file.parent.mkdir()
    file.write_text('{"qid": 3}\n')
    answer = served.http.post("/marks", json={"text": "red", "id": "s0", "right": True})
    assert "damaged" in sentence(answer, 500) and file.read_text() == '{"qid": 3}\n'


PAIR = {"score": 0.7, "status": "to review", "group": 1, "similarity": {"vector": 0.9, "photo": None, "text": 0.5}}
PAIR |= {"other_words": [["navy"], []], "shared_codes": [], "shared_attributes": {}, "conflicting_attributes": {}}


def test_pairs_to_review_have_what_a_person_decides_by(served: Client, shop: Path) -> None:
    pairs = [PAIR | {"id": "s1", "other_id": "gone"}, PAIR | {"id": "s4", "other_id": "s0", "group": None}]
    pairs.append(PAIR | {"id": "s2", "other_id": "s3"})
    write_json(shop / ".afmrl/runs/20260101T000000Z-dedupe/dedupe.json", {"number": 1, "pairs": pairs})
    shown = served.http.get("/duplicates").json()["pairs"]
    assert [(each["id"], each["other_id"]) for each in shown] == [("s1", "gone"), ("s2", "s3"), ("s4", "s0")]
    [one, other] = shown[2]["sides"]
    assert other["title"] == "Red shirt 0" and other["photos"] == ["/photos/s0/0", "/photos/s0/1"]
    assert one["words"] == ["navy"] and shown[0]["sides"][1]["title"] == "", "no longer in the catalog"
    served.http.post("/verdicts", json={"id": "s0", "other_id": "s4", "same": False})
    assert [each["same"] for each in served.http.get("/duplicates").json()["pairs"]] == [None, None, False]


@pytest.mark.slow
def test_verdicts_on_the_last_dedupe_reach_the_next(tmp_path: Path, model: Path) -> None:
    shop = tmp_path / "shop"
    near_duplicates.write(shop, near_duplicates.rows(160, known=0.5))
    flags = [*FLAGS, "--set", f"model.embedder={model}", "--set", f"model.generator={model}"]
    document("embed", str(shop), *flags)
    document("dedupe", str(shop), *flags)
    with serving(opened(shop, model)) as client:
        review = client.http.get("/duplicates").json()
        pair = review["pairs"][0]
        assert review["found"] == len(review["pairs"]) and pair["same"] is None
        client.http.post("/verdicts", json={"id": pair["id"], "other_id": pair["other_id"], "same": True})
        again = client.http.get("/duplicates").json()["pairs"]
        assert again[-1]["id"] == pair["id"] and again[-1]["same"] is True, "what is decided stands at the end"
    verdicts = str(shop / ".afmrl" / "marks" / "verdicts.csv")
    found = document("dedupe", str(shop), *flags, "--verdicts", verdicts)["pairs"]
    [confirmed] = [each for each in found if each["confirmed"]]
    assert {confirmed["id"], confirmed["other_id"]} == {pair["id"], pair["other_id"]}
