"""The page without a browser: its texts, its languages, its parts. What it does: `test_browser.py`."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from afmrl_cli.retrieval.hybrid import PARTS
from afmrl_cli.serve.words import all_words, language_of
from afmrl_cli.sources import load_settings
from tests.serve.shop import Client

PAGES = files("afmrl_cli") / "pages" / "serve"


def test_every_language_has_every_text_with_the_same_gaps() -> None:
    languages = all_words()
    assert set(languages) >= {"en", "de"}
    for words in languages.values():
        assert words.keys() == languages["en"].keys()
        for name, text in words.items():
            assert text.strip() and set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", languages["en"][name]))


def test_every_text_is_used_and_every_text_that_is_used_is_there() -> None:
    page = "".join((PAGES / name).read_text("utf-8") for name in ("page.html", "token.html", "page.js"))
    used = set(re.findall(r"words\.(\w+)", page)) | set(re.findall(r'words\["(\w+)"\]', page))
    used |= set(re.findall(r'"([a-z_]+)"', page)) | {f"fact_{kind}" for kind in ("photo", "text", "vector")}
    used |= {f"part_{part}" for part in PARTS}
    assert set(all_words()["en"]) <= used
    assert set(re.findall(r'say\("(\w+)"', page)) <= set(all_words()["en"])


@pytest.mark.parametrize(
    ("settings", "accepted", "language"),
    [
        ({}, "de-AT,de;q=0.9,en;q=0.8", "de"),
        ({}, "fr, de;q=0.3, en;q=0.7", "en"),
        ({}, "en;q=0, de;q=x, xx", "en"),
        ({}, "", "en"),
        ({"attributes.language": "German"}, "en", "de"),
        ({"attributes.language": "Swedish"}, "de", "de"),
        ({"attributes.language": "German", "serve.language": "en"}, "de", "en"),
    ],
)
def test_the_shop_s_language_counts_before_the_browser_s(
    settings: dict[str, object], accepted: str, language: str
) -> None:
    assert language_of(load_settings(None, settings, {}), accepted) == language


def test_the_page_is_in_the_language_of_its_reader(client: Client) -> None:
    page = client.http.get("/", headers={"accept-language": "de"}).text
    assert '<html lang="de">' in page and "Suchen" in page
    assert client.http.get("/page.json", headers={"accept-language": "de"}).json()["words"]["like"] == "Ähnliche"


def test_everything_that_is_typed_or_chosen_has_a_label(client: Client) -> None:
    for path in ("/", "/review", "/login"):
        page = client.http.get(path).text
        for field in re.findall(r"<input [^>]*>", page):
            [id] = re.findall(r'id="([\w-]+)"', field)
            assert f'<label for="{id}"' in page or re.search(rf'<label [^>]*for="{id}"', page), id
        assert re.search(r'<html lang="\w\w">', page) and "<h1" in page


def test_files_of_the_page_are_small_and_there(client: Client) -> None:
    for path, kind in (("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")):
        answer = client.http.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert len(answer.content) < 40_000
