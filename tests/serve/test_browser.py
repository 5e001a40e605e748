"""The page in a real browser: what people do, with keyboard, mouse, clipboard and dragged files.

Needs Chromium or Chrome on this machine (Debian: `apt-get install chromium`); SHOTS=FOLDER keeps screenshots.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.store.files import write_json
from tests.retrieval.shop import shop_rows, write_shop
from tests.serve.browser import SECONDS, Browser, browser, find_browser
from tests.serve.shop import add_checkpoint, opened
from tests.serve.test_guard import EVIL as SCRIPT
from tests.serve.test_guard import stored_listings
from tests.serve.test_marks import PAIR
from tests.serve.test_run import process

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on this machine (apt-get install chromium)"),
]
EVIL = SCRIPT.replace("alert(1)", "document.title='pwned'")
PATIENT = ("--set", f"serve.timeout={SECONDS}")
DONE = "!document.querySelector('.busy, [aria-busy=true]')"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[tuple[Path, str]]:
    """The folder of a shop with a listing whose title is a script, and the address at which it is served."""
    root = tmp_path_factory.mktemp("browsed") / "shop"
    write_shop(root, shop_rows(24))
    embed_catalog(opened(root, model))
    stored_listings(root, title=EVIL, fields=json.dumps({"id": "s0", "brand": EVIL, "color": "red"}))
    pairs = [PAIR | {"id": f"s{i}", "other_id": f"s{i + 1}", "shared_attributes": {"color": "red"}} for i in (0, 2, 4)]
    write_json(root / ".afmrl/runs/20260101T000000Z-dedupe/dedupe.json", {"number": 1, "pairs": pairs})
    with process(root, model, *PATIENT) as (_, address):
        yield root, address


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM) as opened:
        yield opened


@pytest.fixture
def page(window: Browser, place: tuple[Path, str]) -> Iterator[Browser]:
    """The page, freshly opened; nothing may go wrong in its script."""
    window.errors.clear()
    window.open(place[1])
    window.until("!document.getElementById('filters').hidden")
    yield window
    assert window.js("document.title") != "pwned"
    window.open("about:blank")  # what this page still has to say is this test's, not the next one's
    assert window.errors == []


def shot(page: Browser, name: str) -> None:
    if folder := os.environ.get("SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.until("[...document.images].every((each) => each.complete || each.loading == 'lazy')")
        page.picture(Path(folder) / f"{name}.png")


def search(page: Browser, text: str, count: int = 10) -> None:
    page.click("#text")
    page.js("document.querySelector('#text').select()")
    page.type(text)
    page.press("Enter")
    found(page, count)


def found(page: Browser, count: int = 10) -> None:
    page.until(f"{DONE} && document.querySelectorAll('.card').length === {count}")


def test_search_by_words_with_the_keyboard_alone(page: Browser) -> None:
    page.press("/")
    page.type("red shirt")
    page.press("Enter")
    found(page)
    page.until("document.querySelector('.card img').naturalWidth > 0")
    assert any("red, shirt" in each for each in page.texts(".card .why"))
    assert page.js("location.search") == "?q=red+shirt"
    page.js("document.querySelector('#results').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    second = page.js("document.activeElement.dataset.id")
    assert second == page.js("document.querySelectorAll('.card')[1].dataset.id")
    page.press("y")
    page.until(f"document.querySelector('[data-id={second}] .yes').ariaPressed === 'true'")
    page.press("l")
    page.until(f"location.search === '?like={second}' && {DONE}")
    assert second not in page.js("[...document.querySelectorAll('.card')].map((each) => each.dataset.id)")
    shot(page, "like")


def test_a_photo_is_chosen_dropped_and_pasted(page: Browser, place: tuple[Path, str]) -> None:
    photo = place[0] / "images" / "4.png"
    page.choose("#photo", photo)
    found(page)
    page.until("document.querySelector('#preview').naturalWidth === 56")
    page.click("#chip button")
    page.until("document.querySelector('#reference').hidden && !document.querySelector('.card')")

    page.drop(photo)
    found(page)
    page.click("#chip button")
    page.until("!document.querySelector('.card')")

    page.copy_picture("/photos/s4/0", place[1].rstrip("/"))
    page.js("document.querySelector('#text').focus()")
    page.paste()
    found(page)
    shot(page, "photo")
    page.click("#text")
    page.type("green shirt")
    page.press("Enter")
    page.until(f"{DONE} && document.querySelector('.card .why')")  # both together: words in common


def test_a_large_photo_is_made_smaller_before_it_is_sent(page: Browser, tmp_path: Path) -> None:
    Image.effect_noise((3000, 2400), 90).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    assert (tmp_path / "large.jpg").stat().st_size > 4_000_000
    page.choose("#photo", tmp_path / "large.jpg")
    found(page)
    page.until("document.querySelector('#preview').naturalWidth === 2048")


@pytest.mark.parametrize(("content", "words"), [(b"hello", "no photo but text"), (b"\x00\x00\x00\x18ftypheic", "HEIC")])
def test_what_is_no_photo_is_told(page: Browser, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content + bytes(100) * words.startswith("HEIC"))
    page.choose("#photo", tmp_path / "x.jpg")
    page.until(f"document.querySelector('#notes').innerText.includes({words!r})")
    assert page.error().endswith("(Unsupported Media Type)"), "the console names the status"


def test_filters_with_counts_narrow_the_results(page: Browser) -> None:
    search(page, "shirt")
    page.click('[data-filter="color=red"]')
    found(page, 4)
    assert page.js("document.querySelector('#left').innerText") == "4 listings"
    page.click('[data-filter="brand=Acme"]')
    found(page, 2)
    assert page.js("new URLSearchParams(location.search).getAll('filter').join()") == "color=red,brand=Acme"
    page.js("history.back()")
    found(page, 4)
    page.click("#clear")
    found(page)


def test_prices_from_and_to(page: Browser) -> None:
    search(page, "shirt")
    page.click('[data-filter="price>="]')
    page.type("12")
    page.press("Enter")
    page.until(f"{DONE} && new URLSearchParams(location.search).get('filter') === 'price>=12'")
    page.click('[data-filter="price<="]')
    page.type("14.5")
    page.press("Enter")
    found(page, 3)
    assert sorted(page.texts(".card .id b")) == ["12", "13", "14"]
    assert page.js("document.querySelector('#left').innerText") == "3 listings"
    page.click('[data-filter="color=green"]')
    found(page, 2)
    page.open(page.js("location.href"))
    found(page, 2)
    assert page.js("document.querySelector('[data-filter=\"price>=\"]').value") == "12"
    page.click("#clear")
    found(page)


def test_this_but_and_back(page: Browser) -> None:
    page.open(page.js("location.origin") + "/?like=s0")
    found(page)
    page.click("#change")
    page.type("color: green")
    page.press("Enter")
    page.until(f"{DONE} && document.querySelector('.attributes .unwished, .attributes .wished')")
    shot(page, "change")
    page.click("#text")
    page.type("blue")
    page.press("Enter")
    page.until(f"{DONE} && document.querySelector('#reference').hidden")  # new words are a new search


def test_more_results_and_marks_that_stay(page: Browser) -> None:
    search(page, "green shirt")
    shot(page, "text")
    page.click("#more")
    found(page, 20)
    page.click(".card:nth-child(2) .no")
    page.until("document.querySelector('.card.wrong')")
    wrong = page.js("document.querySelector('.card.wrong').dataset.id")
    page.open(page.js("location.href"))
    found(page)
    assert page.js("document.querySelector('.card.wrong').dataset.id") == wrong
    page.click(".card.wrong .no")
    page.until("!document.querySelector('.card.wrong')")


def test_titles_and_brands_stay_texts(page: Browser, place: tuple[Path, str]) -> None:
    values = httpx.QueryParams({"like": "s4", "filter": f"brand={EVIL}"})
    page.open(f"{place[1]}?{values}")
    found(page, 1)
    assert page.texts(".card h2") == [EVIL]
    page.click(".card .more")
    page.until(f"{DONE} && document.querySelector('#chip').innerText.includes('Products like <img')")
    assert page.js("document.querySelectorAll('main script, main img[src=x]').length") == 0


def test_duplicates_are_decided_by_keys(page: Browser, place: tuple[Path, str]) -> None:
    page.open(place[1] + "review")
    page.until("document.querySelectorAll('.side').length === 2")
    shot(page, "review")
    page.press("s")
    page.until("document.querySelector('#count').innerText === 'Pair 2 of 3'")
    page.press("ArrowRight")
    page.press("ArrowLeft")
    page.press("d")
    page.until("document.querySelector('#count').innerText === 'Pair 3 of 3'")
    page.press("ArrowLeft")
    page.press("u")
    page.until("document.querySelector('#undo').disabled")
    verdicts = (place[0] / ".afmrl" / "marks" / "verdicts.csv").read_text()
    assert "s0,s1,same" in verdicts and "s2,s3" not in verdicts
    page.size(390, 844)
    page.until("document.documentElement.scrollWidth === 390")
    shot(page, "review-390")


def test_nothing_is_cut_off_at_390_pixels(page: Browser, place: tuple[Path, str]) -> None:
    page.open(place[1] + "?q=shirt", 390, 844)
    found(page)
    assert page.js("document.documentElement.scrollWidth") == 390
    small = "[...document.querySelectorAll('button, .button, summary')].filter((each) => each.offsetParent)"
    assert page.js(f"{small}.every((each) => each.getBoundingClientRect().height >= 28)"), "large enough to touch"
    shot(page, "text-390")


def test_whatever_can_be_focused_has_a_name_for_a_screen_reader(page: Browser, place: tuple[Path, str]) -> None:
    for path in ("?like=s0", "review"):
        page.open(place[1] + path)
        page.until("document.querySelector('.card, .pair')")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        kinds = ("button", "link", "textbox", "searchbox", "checkbox")
        controls = [node for node in nodes if node.get("role", {}).get("value") in kinds]
        assert len(controls) > 5
        assert [node for node in controls if not node.get("name", {}).get("value")] == []
        images = [node for node in nodes if node.get("role", {}).get("value") == "image"]
        assert images and all(node["name"]["value"] for node in images)


def test_the_page_says_when_the_catalog_has_changed(page: Browser, place: tuple[Path, str]) -> None:
    file = place[0] / "catalog.csv"
    before, status = file.read_text("utf-8"), file.stat()
    try:
        file.write_text(before + "s99,p99,New shirt,Silk,Women/Tops,Luma,,red,9\n", "utf-8")
        page.until("document.querySelector('#notice').innerText.startsWith('2 products are new')")  # and the forged one
    finally:
        file.write_text(before, "utf-8")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_two_checkpoints_stand_side_by_side(page: Browser, place: tuple[Path, str], model: Path) -> None:
    add_checkpoint(place[0], model, "second")
    with process(place[0], model, "--beside", "second", *PATIENT) as (_, address):
        page.open(f"{address}?q=shirt")
        found(page, 20)
        sides = "[...document.querySelectorAll('#lists section')].map((each) => each.getBoundingClientRect())"
        assert page.js(f"(([one, other]) => one.top === other.top && one.right < other.left)({sides})")
        page.click("#lists section:last-child .card .no")
        page.until("document.querySelector('#lists section:last-child h2').innerText.endsWith('0 right, 1 wrong')")
        marked = "document.querySelector('#lists section:last-child .card').dataset.id"
        page.until(f"[...document.querySelectorAll(`[data-id=${{{marked}}}]`)].every((each) => each.matches('.wrong'))")
        shot(page, "beside")
        page.size(390, 844)
        page.until(f"(([one, other]) => one.left === other.left && one.bottom < other.top)({sides})")
        page.until("document.documentElement.scrollWidth === 390")
        shot(page, "beside-390")
        page.open("about:blank")  # before its service ends
