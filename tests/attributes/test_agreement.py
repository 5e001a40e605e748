"""One answer for each photo, what they agree on, and how sure each pair is: by hand, at a server, and of nano."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from afmrl_cli.attributes.agreement import Reading, confident, read_together
from afmrl_cli.attributes.generate import ENDPOINT_ERROR
from afmrl_cli.attributes.parse import value_spans
from afmrl_cli.attributes.request import Generation
from afmrl_cli.attributes.task import AttributeTask, load_task
from afmrl_cli.attributes.views import open_views
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.read import read_products
from afmrl_cli.cli.app import app
from afmrl_cli.listener import Silent
from afmrl_cli.settings import AttributeSettings, Settings
from afmrl_cli.store.database import StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.attributes.shop import stored, write_catalog
from tests.attributes.test_generate import run, settings_for
from tests.chat_server import ChatServer, Reply, chat_server
from tests.conftest import kill_once
from tests.tiny import photo

SEVERAL = {"material": {"values": ["wool", "cotton"], "multiple": True}, "colour": {}, "fit": {}}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def task(agreement: str, **settings: object) -> AttributeTask:
    return load_task(AttributeSettings.model_validate({"agreement": agreement, **settings}), Path())


def together(agreement: str, answers: Sequence[str | Generation], **settings: object) -> Reading:
    said = [each if isinstance(each, Generation) else Generation(each, False) for each in answers]
    return read_together(said, Product("A"), task(agreement, **settings))


@pytest.mark.parametrize(
    ("answers", "vote", "majority"),
    [
        (["a: x; b: y", "a: x", "a: z; b: w"], "a: x; b: y", "a: x"),
        (["a: x", "a: z"], "a: x", None),
        (["a: x", "A: X"], "a: x", "a: x"),
        (["b: y", "a: x; b: y", "a: x"], "b: y; a: x", "b: y; a: x"),
        (["a: x; c: only here", "a: x", "a: x"], "a: x", "a: x"),
        (["I see", "a: x", "a: x"], "a: x", "a: x"),
        (["I see", "a: x", "I see"], None, None),
    ],
)
def test_what_the_photos_agree_on(answers: list[str], vote: str | None, majority: str | None) -> None:
    assert together("vote", answers).text == vote
    assert together("majority", answers).text == majority


def test_several_values_are_the_same_in_any_order() -> None:
    read = together("majority", ["material: wool, cotton", "material: cotton, wool"], keys=SEVERAL)
    assert read == Reading("material: wool, cotton", None, {"material": 1.0})


def test_a_refused_photo_has_said_nothing_and_all_refused_are_a_failure() -> None:
    refused = Generation("", False, "content filter", refused=True)
    assert together("majority", [refused, "a: x", "a: x"]).confidence == pytest.approx({"a": 2 / 3})
    assert together("majority", [refused, refused]) == Reading(None, "refused")
    assert together("vote", ["I see", refused]) == Reading(None, "unparsable")


def test_the_surest_are_kept_of_too_many() -> None:
    read = together("vote", ["c: z; b: y", "a: x; b: y", "a: x", "b: y; a: x"], max_pairs=2)
    assert read.text == "b: y; a: x"


def test_confidence_is_the_mean_over_the_photos() -> None:
    first = Generation("a: x; b: y", False, confidence={"a": 0.9, "b": 0.4})
    sure = [first, Generation("a: x", False, confidence={"a": 0.5})]
    assert together("vote", sure).confidence == pytest.approx({"a": 0.7, "b": 0.2})
    assert together("together", [first]).confidence == {"a": 0.9, "b": 0.4}
    assert together("together", ["a: x"]).confidence is None  # a server tells nothing of one answer


def test_a_threshold_leaves_out_pairs_and_takes_no_row_that_nobody_told_anything_of() -> None:
    row = StoredAttributes("f", "g", "p", "A", "a: x; b: y", None, 0.0, confidence="a: 0.9000; b: 0.5000; c: 0.1000")
    assert confident(row, 0.0) == row
    kept = confident(row, 0.9)
    assert kept is not None and kept.text == "a: x"
    none = confident(row, 0.95)
    assert none is not None and none.text == ""
    assert confident(StoredAttributes("f", "g", "p", "A", "a: x", None, 0.0), 0.1) is None


def test_where_the_values_stand_in_what_a_model_wrote() -> None:
    text = "Colour :  light blue; ratio: 16:9；材质：羊毛"
    assert {key: text[a:b].strip() for key, (a, b) in value_spans(text).items()} == {
        "colour": "light blue",
        "ratio": "16:9",
        "材质": "羊毛",
    }


def shop(root: Path, photos: int = 3, products: int = 2) -> CatalogFolder:
    """`products` rows of `photos` photos each."""
    (root / "images").mkdir(parents=True)
    rows = []
    for i in range(products):
        names = [f"images/{i}-{n}.png" for n in range(photos)]
        for n, name in enumerate(names):
            photo(10 * i + n, 40, 30).save(root / name)
        rows.append((f"sku{i}", f"Item {i}", "", "", "|".join(names), ""))
    write_catalog(root, rows)
    return CatalogFolder(root / "catalog.csv")


class Eyes:
    """A model that says another thing of each photo, in the order in which it is first shown them."""

    def __init__(self, *answers: Reply) -> None:
        self.answers, self.seen = answers, dict[str, int]()

    def __call__(self, number: int, body: dict[str, Any]) -> Reply:
        pictures = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
        assert len(pictures) == 1
        return self.answers[self.seen.setdefault(str(pictures), len(self.seen))]


def test_another_threshold_asks_nobody_again(server: ChatServer, tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", products=1)
    server.script = Eyes(Reply("colour: red; fit: slim"), Reply("colour: red; fit: slim"), Reply("colour: navy"))
    settings = settings_for(server, agreement="vote", concurrency=1)
    run(folder, settings)
    assert len(server.requests) == 3
    assert all("Item 0" in prompt for prompt in server.prompts())
    row = stored(folder)["sku0"]
    assert (row.text, row.confidence) == ("colour: red; fit: slim", "colour: 0.6667; fit: 0.6667")
    summary = run(folder, settings_for(server, agreement="vote", concurrency=1, min_confidence=0.7))
    assert (summary.generated, summary.left_out) == (0, {"colour": 1, "fit": 1})
    assert len(server.requests) == 3
    assert needs_other_answers(folder, settings_for(server, agreement="majority"))


def needs_other_answers(folder: CatalogFolder, settings: Settings) -> bool:
    work = Workspace(folder, settings, Silent())
    with open_views(work, work.source) as views:
        return all(row is None for _, _, row in views.stored(read_products(folder, settings.catalog, Problems())))


def test_a_photo_that_the_server_failed_at_is_asked_about_again(server: ChatServer, tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    settings = settings_for(server, agreement="majority", concurrency=1)
    server.script = lambda number, body: Reply(status=500) if number == 1 else Reply("colour: red")
    run(folder, settings)
    assert {name: row.failure for name, row in stored(folder).items()} == {"sku0": ENDPOINT_ERROR, "sku1": None}
    asked = len(server.requests)
    server.script = lambda number, body: Reply("colour: red")
    run(folder, settings)
    assert len(server.requests) == asked + 3
    assert {row.text for row in stored(folder).values()} == {"colour: red"}


def test_killed_between_the_photos_of_a_product_it_is_asked_about_anew_and_others_are_not(
    server: ChatServer, tmp_path: Path
) -> None:
    folder, settings = shop(tmp_path / "shop"), settings_for(server, agreement="vote", concurrency=1, batch_size=1)
    server.script = lambda number, body: Reply("colour: red; fit: slim", delay=60.0 if number == 4 else 0.0)
    kill_once(lambda: len(server.requests) == 5, lambda: run(folder, settings))
    assert stored(folder).keys() == {"sku0"}
    server.script = lambda number, body: Reply("colour: red; fit: slim" if number < 7 else "colour: navy")
    run(folder, settings)
    assert ["Item 1" in prompt for prompt in server.prompts()] == [False] * 3 + [True] * 5
    assert {name: (row.text, row.confidence) for name, row in stored(folder).items()} == {
        "sku0": ("colour: red; fit: slim", "colour: 1.0000; fit: 1.0000"),
        "sku1": ("colour: red; fit: slim", "colour: 0.6667; fit: 0.6667"),
    }


def test_a_server_that_is_asked_once_can_not_be_held_to_a_confidence() -> None:
    with pytest.raises(ValueError, match="agreement = vote or majority"):
        AttributeSettings(endpoint="http://127.0.0.1:1", min_confidence=0.5)


def test_the_confidence_of_the_nano_model_is_the_probability_of_its_tokens(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", photos=1)
    work = Workspace(folder, Settings.model_validate({"model": {"preset": "nano"}}), Silent())
    generator: Any = work.generator()
    texts = ("Title: Navy striped dress", "Title: Red coat\nDescription: With buttons, knee length, a v-neck.")
    requests = [work.task.request_for(text, "", ()) for text in texts]
    config = generator._config()
    config.output_scores = config.return_dict_in_generate = True
    for request, answer in zip(requests, generator.generate(requests), strict=True):  # padded, in one batch
        batch = generator.vision.inputs(generator.vision.tensors([generator.text(request)], [()], 64), "cpu")
        made = generator.loaded.causal.generate(**batch, generation_config=config)
        scores = generator.loaded.causal.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
        pieces = [generator.processor.tokenizer.decode([token]) for token in made.sequences[0, -scores.shape[1] :]]
        for key in value_spans(answer.text):
            before = next(n for n in range(len(pieces)) if re.search(rf"(^|; ){key}:$", "".join(pieces[: n + 1])))
            after = next(n for n in range(before, len(pieces)) if pieces[n] in (";", "<|im_end|>"))
            expected = math.exp(float(scores[0, before + 1 : after].sum()))
            assert answer.confidence[key] == pytest.approx(expected, abs=1e-4)
        assert set(answer.confidence) == set(value_spans(answer.text))


def test_attributes_of_all_photos_with_the_nano_model(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    how = ["--preset", "nano", "--set", "attributes.agreement=majority", "--set", "attributes.min_confidence=0.9"]
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(app, ["attributes", str(folder.catalog), *how, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["valid"] == 2
    assert sum(document["left_out"].values()) > 0  # noise is nothing to be sure of
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    for example, row in zip(document["examples"], rows, strict=True):
        assert example["confidence"] == row["confidence"]
        assert {key for key, p in row["confidence"].items() if p >= 0.9} == set(row["pairs"])
    again = CliRunner().invoke(app, ["attributes", str(folder.catalog), *how, "--json"])
    assert json.loads(again.stdout)["generated"] == 0
