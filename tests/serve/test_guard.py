"""Who is let in: names, other sites' pages, tokens; and what an answer lets a browser do. Attacks that must fail."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from afmrl_cli.errors import UsageError
from afmrl_cli.retrieval.listings import Listings, ListingsWriter
from afmrl_cli.serve.guard import HEADERS, WRONG_TOKENS, Door, is_loopback
from afmrl_cli.serve.refusals import Refusal
from afmrl_cli.serve.run import token_for
from afmrl_cli.serve_settings import ServeSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import read_json, sealed, write_json
from tests.retrieval.shop import shop_rows, work_of, write_shop
from tests.serve.shop import BASE, Client, opened, png, sentence, serving

TOKEN = "a-token-of-32-characters-or-more"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "10.0.0.5:8765", "[::2]", "", "a:b:c"],
)
def test_a_page_that_reaches_the_service_by_a_name_of_its_own_is_refused(client: Client, host: str) -> None:
    """DNS rebinding: the browser believes that it talks to evil.example."""
    for method, path in (("GET", "/"), ("GET", "/version"), ("POST", "/search")):
        assert "not called" in sentence(client.http.request(method, path, headers={"host": host}), 400)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8765", "localhost."])
def test_this_machine_s_own_names_are_let_in(client: Client, host: str) -> None:
    assert client.http.get("/healthz", headers={"host": host}).status_code == 200


def test_an_address_for_others_goes_by_its_numbers_and_the_names_that_are_set() -> None:
    door = Door.of("0.0.0.0", ("Search.Example.com",), TOKEN, 1000)
    scope = {"type": "http", "method": "GET", "path": "/healthz", "client": ("10.0.0.9", 1)}
    for host in ("192.168.1.5:8765", "[fd00::1]:8765", "search.example.com", "localhost"):
        door.check({**scope, "headers": [(b"host", host.encode())]})
    for host in ("evil.example", "192.168.1.5.evil.example", "example.com"):
        with pytest.raises(Refusal, match="not called"):
            door.check({**scope, "headers": [(b"host", host.encode())]})


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8765.evil.example"},
        {"origin": "http://[bad"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_s_page_can_t_search_mark_or_judge(client: Client, headers: dict[str, str]) -> None:
    for path in ("/search", "/marks", "/verdicts", "/login"):
        assert "another site" in sentence(client.http.post(path, json={"text": "red"}, headers=headers), 403)


def test_the_service_s_own_page_and_programs_may(client: Client) -> None:
    own = {"origin": BASE, "sec-fetch-site": "same-origin"}
    assert client.http.post("/search", json={"text": "red"}, headers=own).status_code == 200
    assert client.search(text="red").status_code == 200


def test_every_answer_forbids_scripts_frames_and_guesses(client: Client) -> None:
    answers = [client.http.get(path) for path in ("/", "/page.js", "/page.json", "/photos/s1/0", "/nothing", "/login")]
    for answer in [*answers, client.search(), client.http.get("/", headers={"host": "evil.example"})]:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in answer.headers
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


def test_the_page_has_no_script_or_style_but_its_files(client: Client) -> None:
    for path in ("/", "/review", "/login"):
        page = client.http.get(path).text
        assert page.count("<script") == page.count('src="/page.js"') and "<style" not in page
        assert " style=" not in page and not re.search(r"<[^>]* on\w+=", page)
        assert "http://" not in page and "https://" not in page, "nothing from elsewhere"


def test_a_token_is_needed_for_all_but_the_way_in(shop: Path, model: Path) -> None:
    with serving(opened(shop, model), token=TOKEN) as client:
        for path in ("/", "/version", "/photos/s1/0", "/page.json", "/openapi.json", "/nothing"):
            assert "token" in sentence(client.http.get(path), 401)
        sentence(client.search(text="red"), 401)
        assert client.http.get("/healthz").json() == {"status": "ok"}
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.http.post("/search", json={"text": "red"}, headers=bearer).status_code == 200
        assert client.http.get("/version", headers={"authorization": f"bearer {TOKEN} "}).status_code == 200
        for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN[:-1]}", "Bearer ü"):
            headers = {b"authorization": wrong.encode("latin-1")}
            sentence(client.http.get("/version", headers=headers), 401)


def test_the_page_s_form_takes_the_token_and_keeps_another_word_for_it(shop: Path, model: Path) -> None:
    with serving(opened(shop, model), token=TOKEN) as client:
        form = client.http.get("/login")
        assert form.status_code == 200 and 'type="password"' in form.text
        assert client.http.post("/login", data={"token": "wrong"}).status_code == 401
        assert client.http.get("/").status_code == 401
        answer = client.http.post("/login", data={"token": TOKEN}, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
        assert client.http.get("/").status_code == 200, "the client keeps the cookie"
        evil = {"origin": "https://evil.example"}
        assert "another site" in sentence(client.http.post("/search", json={"text": "a"}, headers=evil), 403)
        client.http.cookies.set("afmrl_serve", TOKEN, domain="127.0.0.1")
    with serving(opened(shop, model), token=TOKEN) as client:
        client.http.cookies.set("afmrl_serve", TOKEN)
        assert client.http.get("/").status_code == 401, "the token itself is no cookie"


def test_guessing_ends(shop: Path, model: Path) -> None:
    with serving(opened(shop, model), token=TOKEN) as client:
        for _ in range(WRONG_TOKENS):
            sentence(client.http.get("/version", headers={"authorization": "Bearer guess"}), 401)
        answer = client.http.get("/version", headers={"authorization": f"Bearer {TOKEN}"})
        assert "too many" in sentence(answer, 429) and int(answer.headers["retry-after"]) > 0


def test_an_address_for_others_needs_a_token_that_nobody_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere = ServeSettings(address="0.0.0.0")
    with pytest.raises(UsageError, match="needs a token"):
        token_for(everywhere)
    monkeypatch.setenv("AFMRL_SERVE_TOKEN", "short")
    for settings in (everywhere, ServeSettings()):
        with pytest.raises(UsageError, match="at least 16"):
            token_for(settings)
    monkeypatch.setenv("AFMRL_SERVE_TOKEN", TOKEN)
    assert token_for(everywhere) == token_for(ServeSettings()) == TOKEN
    assert all(map(is_loopback, ("127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "1.2.3.4", "localhost.example", "")))


@pytest.mark.parametrize("written", ["address = '0.0.0.0'", "hosts = ['evil.example']"])
def test_a_folder_can_t_open_the_service_to_others(tmp_path: Path, written: str) -> None:
    (tmp_path / "afmrl.toml").write_text(f"[serve]\n{written}\n")
    with pytest.raises(UsageError, match="a folder can't allow that by itself"):
        load_settings(tmp_path, environment={})
    (tmp_path / "afmrl.toml").write_text("[serve]\naddress = '127.0.0.1'\nport = 9000\n")
    assert load_settings(tmp_path, environment={}).serve.port == 9000
    assert load_settings(None, {"serve.address": "0.0.0.0"}, {}).serve.address == "0.0.0.0", "the user's own word"


@pytest.mark.parametrize("number", ["0", "1"])
@pytest.mark.parametrize(
    "id",
    ["../catalog.csv", "..%2fcatalog.csv", "%2e%2e/afmrl.toml", "/etc/passwd", "s1/../../catalog.csv", "images/0.png"],
)
def test_no_part_of_an_address_is_a_path(client: Client, id: str, number: str) -> None:
    answer = client.http.get(f"/photos/{id}/{number}")
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/json"


def stored_listings(shop: Path, **changes: Any) -> None:
    """Change the first stored listing, as somebody does who made the store: all checksums are right."""
    [place] = (shop / ".afmrl" / "embeddings").glob("*/v1")
    rows = list(Listings(place / "listings.arrow"))
    with ListingsWriter(place / "new.arrow") as writer:
        for at, row in enumerate(rows):
            for name, value in changes.items() if not at else ():
                object.__setattr__(row, name, value)
            writer.add(row)
    (place / "new.arrow").replace(place / "listings.arrow")
    manifest = {key: value for key, value in read_json(place / "manifest.json").items() if key not in ("files", "seal")}
    (place / "manifest.json").unlink()
    write_json(place / "manifest.json", sealed(manifest, place))


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "text", "folder", "nul", "circle"])
def test_only_the_catalog_s_own_photos_are_sent_whatever_the_store_names(
    shop: Path, model: Path, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(Image.new("RGB", (40, 40), "red")))
    (shop / "linked.png").symlink_to(secret)
    (shop / "circle.png").symlink_to(shop / "circle.png")
    names = {"above": "../secret.png", "absolute": str(secret), "link": "linked.png", "text": "catalog.csv"}
    names |= {"folder": "images", "nul": "a\0b.png", "circle": "circle.png"}
    stored_listings(shop, images=[names[kind]])
    with serving(opened(shop, model)) as client:
        answer = client.http.get("/photos/s0/0")
        assert answer.status_code == 404, answer.text
        assert str(tmp_path) not in answer.text


def test_ids_of_all_signs_find_their_photos(shop: Path, model: Path) -> None:
    id = "a/1 ü%?#&<b>\\"
    stored_listings(shop, id=id)
    with serving(opened(shop, model)) as client:
        [hit] = [hit for hit in client.search(like="s1", k=50).json()["hits"] if hit["id"] == id]
        assert client.http.get(hit["images"][1]).headers["content-type"] == "image/jpeg"
        assert client.http.get(f"/products/{quote(id, safe='')}").json()["id"] == id


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_texts_of_the_shop_stay_texts(shop: Path, model: Path) -> None:
    fields = {"id": "s0", "brand": EVIL, "link": "javascript:alert(3)", "category": "a"}
    stored_listings(shop, title=EVIL, fields=json.dumps(fields))
    with serving(opened(shop, model)) as client:
        answer = client.search(like="s1", k=50)
        [hit] = [hit for hit in answer.json()["hits"] if hit["id"] == "s0"]
        assert hit["title"] == EVIL and hit["link"] == "", "JSON; the page sets it as text alone"
        assert answer.headers["content-type"] == "application/json"
    page = (Path(__file__).parents[2] / "src/afmrl_cli/pages/serve/page.js").read_text("utf-8")
    for dangerous in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert dangerous not in page


def test_the_name_of_a_folder_is_a_text_of_the_page(tmp_path: Path, model: Path) -> None:
    folder = write_shop(tmp_path / "<b onclick=alert(1)>", shop_rows(2))
    with serving(work_of(folder)) as client:
        assert "<b onclick" not in client.http.get("/").text
        assert "&lt;b onclick" in client.http.get("/").text


def test_what_steers_a_terminal_is_escaped_in_what_is_answered(client: Client) -> None:
    answer = client.search(text="red \x1b[31m \u202e ::error::x", k=1)
    assert "\x1b" not in answer.text and "\u202e" not in answer.text
    assert answer.json()["question"]["text"] == "red \x1b[31m \u202e ::error::x", "the meaning stays"
    assert "\x1b" not in client.search(like="\x1b[31m").text


def test_a_store_with_a_link_is_not_opened(shop: Path, model: Path, tmp_path: Path) -> None:
    (shop / ".afmrl" / "marks").symlink_to(tmp_path)
    with serving(opened(shop, model)) as client:
        message = sentence(client.search(text="red"), 503)
        assert message.startswith(".afmrl/marks: is a link"), "without this machine's paths"
    assert not list(tmp_path.glob("*.jsonl"))
