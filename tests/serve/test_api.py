"""The interface for programs: what is answered, and what a wrong request is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.cli.app import app as commands
from afmrl_cli.serve.app import Routes
from tests.serve.shop import Client, add_checkpoint, opened, png, sentence, serving


def test_a_search_is_the_document_of_the_command_with_addresses_for_paths(client: Client, model: Path) -> None:
    root = client.service.folder.root
    words = ["search", "red shirt", "-k", "3", "--filter", "brand=luma", "--json", "-c", str(root)]
    flags = ["--set", f"model.embedder={model}", "--set", "model.device=cpu", "--set", "model.max_pixels=3136"]
    printed = json.loads(CliRunner().invoke(commands, [*words, *flags]).stdout)
    served = client.search(text="red shirt", k=3, filters=["brand=luma"]).json()
    assert served.keys() == printed.keys() - {"html", "index", "preset"}  # what the command alone has
    for one, other in zip(served["hits"], printed["hits"], strict=True):
        assert one["images"] == [f"/photos/{one['id']}/{n}" for n in range(len(other["images"]))]
        numbers = {"images": 0, "score": 0, "cosine": 0, "shares": 0}
        assert {**one, **numbers} == {**other, **numbers}
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["score"] == pytest.approx(sum(one["shares"].values()), abs=1e-4)
        assert one["shares"] == pytest.approx(other["shares"], abs=1e-4)
    assert str(root) not in json.dumps(served)


def test_a_photo_of_the_catalog_finds_its_listing(client: Client) -> None:
    photo = (client.service.folder.root / "images" / "4.png").read_bytes()
    found = client.by_photo(photo, k="5").json()
    assert found["question"]["images"] == 1 and len(found["hits"]) == 5
    both = client.by_photo(photo, text="green shirt", filters=["brand=luma", "brand=acme"], k=30).json()
    assert len(both["hits"]) == 24 and both["question"]["filters"] == ["brand=luma", "brand=acme"]


def test_bounds_what_is_not_wished_and_collapsed_products(client: Client) -> None:
    found = client.search(text="red shirt", filters=["price<15"], **{"not": ["color: red"]}, collapse="product").json()
    assert found["question"]["not"] == ["color: red"] and found["weights"]["vectors"] > 0
    assert {hit["id"] for hit in found["hits"]} <= {"s2", "s3", "s4"} and len(found["hits"]) == 2
    assert {hit["id"]: hit["others"] for hit in found["hits"]}["s4"] == 0
    photo = (client.service.folder.root / "images" / "4.png").read_bytes()
    found = client.by_photo(photo, "photo.png", k=50, **{"not": ["color: red", "color: green"]}).json()
    assert len(found["hits"]) == 16 and found["weights"]["colors"] > 0
    assert "color" in sentence(client.search(text="x", **{"not": ["colour: red"]}), 422)
    assert "collapse" in sentence(client.search(text="x", collapse="brand"), 422)


def test_like_leaves_the_listing_out_and_shows_it(client: Client) -> None:
    found = client.search(like="s0", k=50).json()
    assert found["question"]["liked"]["id"] == "s0" and "s0" not in {hit["id"] for hit in found["hits"]}
    assert len(found["hits"]) == 23


def test_a_change_never_finds_its_reference(client: Client) -> None:
    found = client.search(like="s0", change="color: green", k=50).json()
    assert found["question"]["change"] == {"text": "color: green", "pairs": {"color": "green"}}
    assert not {"s0", "s1"} & {hit["id"] for hit in found["hits"]}
    photo = (client.service.folder.root / "images" / "0.png").read_bytes()
    assert "s0" in client.by_photo(photo, change="color: green").json()["question"]["left_out"]


def test_a_value_that_no_listing_has_is_told_without_the_command_s_flags(client: Client) -> None:
    found = client.search(text="red", filters=["brand=Lum"]).json()
    assert found["hits"] == []
    assert found["notes"] == ["filter brand=lum: no listing has it; did you mean Luma?"]


def test_a_listing_with_its_own_columns(client: Client) -> None:
    product = client.http.get("/products/s3").json()
    assert (product["id"], product["brand"], product["price"]) == ("s3", "Luma", "13")
    assert product["fields"]["color"] == "green" and product["images"] == ["/photos/s3/0", "/photos/s3/1"]


def test_photos_are_small_jpegs_that_browsers_may_keep(client: Client) -> None:
    answer = client.http.get("/photos/s3/1")
    assert answer.headers["content-type"] == "image/jpeg" and answer.content.startswith(b"\xff\xd8\xff")
    again = client.http.get("/photos/s3/1", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content


def test_filters_have_the_counts_of_what_a_click_leaves(client: Client) -> None:
    every = client.http.get("/filters").json()
    values = {each["key"]: {v["value"]: v["count"] for v in each["values"]} for each in every["filters"]}
    assert every["listings"] == 24 and values["brand"] == {"Acme": 18, "Luma": 6}
    assert "id" not in values and "price" not in values
    chosen = client.http.get("/filters", params={"filter": ["brand=luma", "color=red"]}).json()
    values = {each["key"]: {v["value"]: v["count"] for v in each["values"]} for each in chosen["filters"]}
    assert chosen["listings"] == 2 and values["brand"]["Acme"] == 2, "beside the filters of other keys"
    assert values["color"] == {"red": 2, "green": 2, "blue": 2, "black": 0, "orange": 0, "purple": 0}
    for brand, count in values["brand"].items():
        assert len(client.ids(text="shirt", k=50, filters=["color=red", f"brand={brand}"])) == count
    assert every["price"] == {"key": "price", "least": 10, "most": 33}
    cheap = client.http.get("/filters", params={"filter": ["price<14", "price>=11"]}).json()
    assert cheap["listings"] == 3 and cheap["price"] == every["price"]


def test_state_and_description(client: Client) -> None:
    assert client.http.get("/healthz").json() == {"status": "ok"}
    state = client.http.get("/version").json()
    assert (state["listings"], state["vectors"], state["problem"]) == (24, "v1", None)


REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/search"): {"json": {"text": "red"}},
    ("get", "/products/{id}"): {},
    ("get", "/filters"): {},
    ("get", "/marks"): {},
    ("post", "/marks/of"): {"json": {"text": "red"}},
    ("get", "/version"): {},
    ("get", "/healthz"): {},
}


def test_what_is_answered_is_what_the_description_says(client: Client) -> None:
    description = client.http.get("/openapi.json").json()
    schemas = description["components"]["schemas"]
    for (method, path), request in REQUESTS.items():
        [schema] = description["paths"][path][method]["responses"]["200"]["content"].values()
        answer = client.http.request(method, path.replace("{id}", "s1"), **request)
        Draft202012Validator({**schema["schema"], "components": {"schemas": schemas}}).validate(answer.json())
    refused = client.search().json()
    Draft202012Validator({**schemas["Error"], "components": {"schemas": schemas}}).validate(refused)


def test_the_description_knows_every_address_but_those_of_the_page(client: Client) -> None:
    paths = client.http.get("/openapi.json").json()["paths"]
    routes = Routes(client.service, None).table()  # type: ignore[arg-type]
    names = {route.path.replace(":path", "").replace(":int", "") for route in routes}
    page = {"/", "/review", "/page.css", "/page.js", "/icon.svg", "/page.json", "/login", "/openapi.json"}
    assert names - page == set(paths)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b"{", "headers": JSON}, 400, "no JSON"),
        ({"content": b"[1]", "headers": JSON}, 400, "no JSON object"),
        ({"content": b"[" * 100_000, "headers": JSON}, 400, "no JSON"),
        ({"content": b"text=red", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 415, "neither"),
        ({"content": b"red"}, 415, "neither"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
        ({"content": b"x" * 300_000, "headers": JSON}, 413, "more than"),
        ({"json": {}}, 422, "nothing to search for"),
        ({"json": {"text": "  "}}, 422, "nothing to search for"),
        ({"json": {"text": "x" * 10_001}}, 422, "text"),
        ({"json": {"text": 5}}, 422, "text"),
        ({"json": {"text": "red", "k": 0}}, 422, "k:"),
        ({"json": {"text": "red", "k": 10_000}}, 422, "k:"),
        ({"json": {"url": "http://10.0.0.1/a.jpg"}}, 422, "there is no 'url'"),
        ({"json": {"text": "red", "filters": ["brand"]}}, 422, "key=value"),
        ({"json": {"text": "red", "filters": ["colr=red"]}}, 422, "did you mean color?"),
        ({"json": {"text": "red", "filters": ["a=b"] * 51}}, 422, "filters"),
        ({"json": {"text": "red", "like": "s0"}}, 422, "like stands alone"),
        ({"json": {"like": "s00"}}, 404, "no listing 's00'"),
        ({"json": {"change": "color: red"}}, 422, "one reference"),
        ({"json": {"like": "s0", "change": "color: red"}}, 422, "already"),
        ({"files": {"photo": b"GIF89a"}}, 422, "damaged"),
        ({"files": {"photo": b"hello"}}, 415, "no photo but text"),
        ({"files": {"photo": b"<svg onload=alert(1)>"}}, 415, "SVG"),
        ({"files": {"photo": b"\x00\x00\x00\x18ftypheic" + bytes(100)}}, 415, "HEIC"),
        ({"files": {"photo": b""}}, 422, "empty"),
        ({"files": {"picture": b"x"}}, 422, "photos are called photo"),
        ({"files": [("photo", b"x")] * 5}, 400, "form"),
        ({"data": {"text": "a"}, "files": {"photo": png(Image.new("RGB", (8, 8)))[:30]}}, 422, "the photo"),
    ],
)
def test_a_wrong_search_is_refused_in_one_sentence(
    client: Client, request_: dict[str, Any], status: int, words: str
) -> None:
    assert words in sentence(client.http.post("/search", **request_), status)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nothing", 404, "no such address"),
        ("/products/nope", 404, "no listing"),
        ("/photos/nope/0", 404, "no listing"),
        ("/photos/s1/7", 404, "has 1 photo"),
        ("/photos/s1/99999999999999999999", 404, "has 1 photo"),
        ("/photos/s1/0?size=huge", 422, "no size"),
        ("/search", 405, "method"),
        ("/filters?filter=brand", 422, "key=value"),
        ("/duplicates", 404, "afmrl dedupe"),
    ],
)
def test_a_wrong_address_is_refused_in_one_sentence(client: Client, path: str, status: int, words: str) -> None:
    assert words in sentence(client.http.get(path), status)


def test_a_text_as_long_as_may_be_is_cut_with_a_note(client: Client) -> None:
    found = client.search(text="shirt " * 1666).json()
    assert found["hits"] and any("cut" in note for note in found["notes"])


def test_a_large_upload_and_a_photo_of_many_pixels_are_refused(shop: Path, model: Path) -> None:
    flags = {"serve.upload_megabytes": 0.05, "catalog.max_image_pixels": 10_000}
    with serving(opened(shop, model, **flags)) as client:
        assert "0.05 MB" in sentence(client.by_photo(bytes(60_000)), 413)
        assert "pixels" in sentence(client.by_photo(png(Image.new("RGB", (200, 200)))), 413)

        def pieces() -> Any:
            yield from [b"x" * 10_000] * 10

        headers = {"content-type": "multipart/form-data; boundary=x"}
        sentence(client.http.post("/search", content=pieces(), headers=headers), 413)


def test_no_vectors_yet_is_an_answer(shop: Path, model: Path, tiny_model: Callable[[str], Path]) -> None:
    """No vectors of these settings: an answer, and one that says what to do."""
    with serving(opened(shop, model, **{"model.embedder_images": 1})) as client:
        assert "afmrl embed" in sentence(client.search(text="red"), 503)
        assert client.http.get("/healthz").status_code == 503
        assert "afmrl embed" in sentence(client.http.get("/products/s1"), 503)
        assert client.http.get("/version").json()["vectors"] is None
        assert client.http.get("/").status_code == 200


def test_two_checkpoints_answer_one_request_side_by_side(shop: Path, model: Path) -> None:
    add_checkpoint(shop, model, "second")
    with serving(opened(shop, model, **{"serve.beside": "second"})) as client:
        both = client.search(text="red shirt", k=24, beside=True).json()
        alone = client.search(text="red shirt", k=24).json()
    with serving(opened(shop, model, **{"model.embedder_checkpoint": "second", "serve.beside": "base"})) as client:
        swapped = client.search(text="red shirt", k=24, beside=True).json()
    second = both.pop("beside")
    assert both == alone == swapped.pop("beside")
    assert second == swapped
    assert [hit["id"] for hit in second["hits"]] != [hit["id"] for hit in both["hits"]]


def test_vectors_that_are_missing_beside_are_told(shop: Path, model: Path, client: Client) -> None:
    assert "serve.beside" in sentence(client.search(text="red", beside=True), 422)
    add_checkpoint(shop, model, "second", embed=False)
    with serving(opened(shop, model, **{"serve.beside": "second"})) as other:
        assert "afmrl embed" in sentence(other.search(text="red", beside=True), 503)
        assert "second" in other.http.get("/version").json()["problem"]
        assert other.ids(text="red")
