"""Captions by a real server on 127.0.0.1: written once, kept as sentences, asked for again where nothing was said."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.errors import ModelError
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.models.processor import load_processor
from afmrl_cli.recommender.captions import WINDOW, captions_of
from afmrl_cli.recommender.texts import listing_texts
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.chat_server import ChatServer, Reply, chat_server
from tests.conftest import kill_once
from tests.tiny import photo
from tests.training.test_run import Heard

SENTENCE = 'A red shirt: slim cut, "v-neck", of linen.'


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.script = lambda number, body: Reply(SENTENCE)
        yield running


def work(root: Path, server: ChatServer, titles: list[str], heard: Heard | None = None, **more: object) -> Workspace:
    root.mkdir(exist_ok=True)
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image"])
        writer.writerows([f"L{number}", title, ""] for number, title in enumerate(titles))
    flags: dict[str, object] = {"attributes.endpoint": server.url, "attributes.endpoint_model": "m"}
    flags |= {"attributes.retries": 0, "recommender.text": "caption", "attributes.concurrency": 2, **more}
    settings = load_settings(root, flags, NANO)
    return Workspace(CatalogFolder(root / "catalog.csv"), settings, heard or Heard())


def captions(here: Workspace, lock: Any = nullcontext) -> dict[str, str]:
    products = list(read_products(here.folder, here.settings.catalog, Problems()))
    return captions_of(here, products, Problems(), lock)


def test_a_caption_stays_the_sentence_that_was_written_and_is_written_once(tmp_path: Path, server: ChatServer) -> None:
    photo(1).save(tmp_path / "a.png")
    here = work(tmp_path, server, ["Red shirt", "Blue shirt", "Red shirt"])
    with (tmp_path / "catalog.csv").open("a") as file:
        file.write("L3,Coat,a.png\n")
    assert captions(here) == dict.fromkeys(["L0", "L1", "L2", "L3"], SENTENCE)
    assert len(server.requests) == 3, "listings of the same content share one"
    shown = next(body for body in server.requests if "Coat" in body["messages"][0]["content"][-1]["text"])
    assert shown["messages"][0]["content"][0]["type"] == "image_url" and "response_format" not in shown
    assert captions(work(tmp_path, server, ["Red shirt", "Blue shirt"])) == {"L0": SENTENCE, "L1": SENTENCE}
    assert len(server.requests) == 3
    captions(work(tmp_path, server, ["Red shirt", "Green shirt"]))
    assert len(server.requests) == 4, "what changed is written about anew"


def test_captions_are_no_attribute_texts(tmp_path: Path, server: ChatServer) -> None:
    here = work(tmp_path, server, ["Red shirt"])
    captions(here)
    with here.database() as database:
        assert database.attribute_sources() == {}


def test_marks_of_turns_thoughts_and_what_no_terminal_takes_are_left_out(tmp_path: Path, server: ChatServer) -> None:
    server.script = lambda number, body: Reply("<think>hm</think>A red\x1b[31m\nshirt<|im_end|>" + " long" * 400)
    found = captions(work(tmp_path, server, ["Red shirt"]))["L0"]
    assert found.startswith("A red [31m shirt long long") and len(found) <= 600


@pytest.mark.parametrize("said", ["", "<think>never ends", "I'm sorry, I can't help with that."])
def test_an_answer_that_says_nothing_is_no_caption_and_is_not_asked_for_again(
    said: str, tmp_path: Path, server: ChatServer
) -> None:
    server.script = lambda number, body: Reply(said)
    heard = Heard()
    here = work(tmp_path, server, ["Red shirt"], heard)
    assert captions(here) == captions(here) == {}
    assert len(server.requests) == 1
    assert "warning: 1 of 1 listings have no caption: their other text is read" in heard.said


def test_what_a_server_left_unanswered_is_asked_for_again(tmp_path: Path, server: ChatServer) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        blue = "Blue" in body["messages"][0]["content"][-1]["text"]
        return Reply(status=500) if blue and len(server.requests) <= 2 else Reply(SENTENCE)

    server.script = script
    here = work(tmp_path, server, ["Red shirt", "Blue shirt"])
    assert captions(here) == {"L0": SENTENCE}
    assert captions(here) == {"L0": SENTENCE, "L1": SENTENCE}
    assert len(server.requests) == 3


def test_a_server_that_answers_nothing_is_an_error_that_says_why(tmp_path: Path, server: ChatServer) -> None:
    server.script = lambda number, body: Reply(status=500)
    with pytest.raises(ModelError, match=r"none of 2 requests for captions was answered, the last one: .*500"):
        captions(work(tmp_path, server, ["Red shirt", "Blue shirt"]))


def test_what_was_answered_before_the_server_went_away_is_kept(tmp_path: Path, server: ChatServer) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return Reply(SENTENCE) if number < 1 else Reply(status=401, body=b'{"error": {"message": "invalid api key"}}')

    server.script = script
    one: dict[str, Any] = {"attributes.concurrency": 1}
    with pytest.raises(ModelError, match="401"):
        captions(work(tmp_path, server, ["Red shirt", "Blue shirt"], **one))
    server.script = lambda number, body: Reply(SENTENCE)
    before = len(server.requests)
    assert len(captions(work(tmp_path, server, ["Red shirt", "Blue shirt"], **one))) == 2
    assert len(server.requests) == before + 1


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, server: ChatServer) -> None:
    here = work(tmp_path, server, [f"Shirt {number}" for number in range(WINDOW + 6)])
    server.script = lambda number, body: Reply(SENTENCE, delay=0.0 if number < WINDOW else 0.5)
    kill_once(lambda: len(server.requests) > WINDOW, lambda: captions(here))
    server.script = lambda number, body: Reply(SENTENCE)
    before = len(server.requests)
    assert len(captions(here)) == WINDOW + 6
    assert len(server.requests) == before + 6


def test_the_lock_is_held_only_where_something_is_written(tmp_path: Path, server: ChatServer) -> None:
    held: list[int] = []

    @contextmanager
    def lock() -> Iterator[None]:
        held.append(len(server.requests))
        yield

    here = work(tmp_path, server, ["Red shirt"])
    captions(here, lock)
    captions(here, lock)
    assert held == [0]


def test_a_listing_of_which_nothing_can_be_shown_loads_no_generator(tmp_path: Path, server: ChatServer) -> None:
    heard = Heard()
    here = work(tmp_path, server, [], heard)
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "catalog.csv").write_text("id,title,image\nL0,,a.png\n")
    assert captions(here) == {}
    assert not server.requests and not any("written by" in each for each in heard.said)


def test_the_recommender_reads_captions_and_the_id_where_there_is_none(tmp_path: Path, server: ChatServer) -> None:
    here = work(tmp_path, server, ["Red shirt", "Blue shirt"])
    server.script = lambda number, body: Reply(SENTENCE if "Red" in str(body) else "")
    processor = load_processor(resolve_base(here.settings.model, "recommender"))
    texts = listing_texts(here, processor, Problems())
    assert texts.lines == (SENTENCE, "L1")
