"""Ranks, rewards and held-out recall on a small shop, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from afmrl_cli.attributes.task import load_task
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.errors import DataError, ModelError, UsageError
from afmrl_cli.models.backends import generator_id
from afmrl_cli.models.base import Bases
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder
from afmrl_cli.rar.environment import Environment, mean_recall, ranks_of
from afmrl_cli.rar.frozen import weights_hash
from afmrl_cli.rar.queries import RarQuery
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.pairs import Side
from tests.models.adapters import add_random
from tests.rar.conftest import Make
from tests.rar.test_frozen import state_of, with_policy
from tests.scores import possible_ranks
from tests.training.shop import write_shop

MakeSettings = Callable[..., Settings]
TEXTS = ["colour: red", "colour: red; neckline: round", "neckline: collar", "colour: blue; series: n1"]


def queried(positives: tuple[int, ...], hidden: tuple[int, ...] = ()) -> RarQuery:
    return RarQuery(Side(0, "x"), "", positives, hidden)


def test_ranks_leave_hidden_rows_out_and_ties_in_the_gallerys_order() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.8, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]], np.float32)
    assert ranks_of(scores, queried((2,))) == [(4,), (3,)]
    assert ranks_of(scores, queried((2,), (0,))) == [(3,), (3,)]
    assert ranks_of(scores, queried((1, 4), (0, 3))) == [(1, 3), (3, 1)]
    nearly = np.array([[0.5, 0.5 + 9e-7, 0.5 - 9e-7]], np.float32)
    assert ranks_of(nearly, queried((1,))) == ranks_of(nearly[:, [0, 2, 1]], queried((1,))) == [(2,)]
    assert scores[0, 0] == np.float32(0.9)


def test_mean_recall() -> None:
    assert mean_recall([(1, 3), (2,), (9,)], (1, 3)) == {"recall@1": pytest.approx(0.5 / 3), "recall@3": 2 / 3}


@pytest.mark.parametrize("kind", ["listings", "photos", "photo-to-text", "text-to-photos"])
def test_ranks_are_those_of_encoding_every_text_in_full(make: Make, settings: MakeSettings, kind: str) -> None:
    made = make(settings(**{"rar.query": kind}))
    for environment in (made.train, made.heldout):
        numbers = [number for number in range(0, len(environment.queries), 4) for _ in TEXTS]
        texts: list[str | None] = [*TEXTS[:3], None] * (len(numbers) // len(TEXTS))
        scores = in_full(environment, numbers, texts)
        check_ranks(environment, numbers, scores, environment.ranks(numbers, texts))
        check_ranks(environment, numbers, scores, environment.ranks(numbers[::-1], texts[::-1])[::-1])
        every = range(len(environment.queries))
        plain = in_full(environment, every, [None] * len(every))
        check_ranks(environment, every, plain, environment.ranks(every, [None] * len(every)))
        for query, row in zip(environment.queries, plain, strict=True):
            bounds = [possible_ranks(row, positive, query.hidden) for positive in query.positives]
            assert min(low for low, _ in bounds) <= query.rank <= min(high for _, high in bounds)


def in_full(environment: Environment, numbers: Sequence[int], texts: Sequence[str | None]) -> list[NDArray[np.float32]]:
    """Each query's scores of the whole gallery, every text encoded by itself."""
    embed = environment.settings.embed
    rows = [Item(row.text, tuple(photo.path for photo in row.photos)) for row in environment.gallery]
    gallery = environment.embedder.encode(rows, instruction=embed.target_instruction)
    sides = [environment.queries[number].side for number in numbers]
    items = [
        Item(side.text, tuple(photo.path for photo in side.photos), text or "")
        for side, text in zip(sides, texts, strict=True)
    ]
    return list(environment.embedder.encode(items, instruction=embed.query_instruction) @ gallery.T)


def check_ranks(
    environment: Environment,
    numbers: Sequence[int],
    scores: Sequence[NDArray[np.float32]],
    ranks: Sequence[tuple[int, ...]],
) -> None:
    """The ranks follow from scores that are these but for rounding; nearly all of them follow to the very number."""
    sure = []
    for number, row, found in zip(numbers, scores, ranks, strict=True):
        query = environment.queries[number]
        for positive, rank in zip(query.positives, found, strict=True):
            low, high = possible_ranks(row, positive, query.hidden)
            assert low <= rank <= high
            sure.append(low == high)
    assert np.mean(sure) > 0.9


def test_rewards_follow_the_ranks_and_the_one_strict_validation(make: Make, settings: MakeSettings) -> None:
    environment = make(settings(**{"rar.query": "photos"})).train
    answers = ["colour: red", "Colour:  red.", "here you are", "colour: red", "", "a: b; a: c"]
    cut = [False, False, False, True, False, False]
    rewards = environment.rewards([4] * 6, answers, cut)
    (ranks,) = environment.ranks([4], ["colour: red"])
    hits = sum(rank <= 3 for rank in ranks) / len(ranks)
    assert [reward.value for reward in rewards] == [hits, hits, -0.1, -0.1, -0.1, -0.1]
    assert [reward.reason for reward in rewards[2:]] == ["unparsable", "cut off", "empty", "repeated key"]
    assert rewards[1].text == "colour: red" and rewards[1].ranks == ranks
    shaped = make(settings(**{"rar.query": "photos", "rar.reward": "rank"})).train.rewards([4], answers[:1], [False])
    assert shaped[0].value == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert environment.rewards([], [], []) == []


def test_the_schema_of_the_querys_category_decides(make: Make, settings: MakeSettings) -> None:
    keys = {"colour": {"values": ["red", "blue"]}, "sleeve": {"categories": ["tops"]}}
    environment = make(settings(**{"rar.query": "text-to-photos", "attributes.keys": keys})).train
    category = {query.category: number for number, query in enumerate(environment.queries)}
    answers = ["colour: RED", "colour: green", "sleeve: long"]
    tops, shirts = (
        [r.reason for r in environment.rewards([category[name]] * 3, answers, [False] * 3)]
        for name in ("tops", "shirts")
    )
    assert tops == [None, "outside schema", None]
    assert shirts == [None, "outside schema", "outside schema"]


def test_the_generator_is_shown_the_querys_side_and_nothing_else(make: Make, settings: MakeSettings) -> None:
    for kind, text, photos in (("photos", False, 1), ("text-to-photos", True, 0), ("listings", True, 2)):
        environment = make(settings(**{"rar.query": kind})).train
        request, query = environment.request(0), environment.queries[0]
        assert len(request.images) == photos
        assert request.product == query.side.text
        assert ("Title:" in request.prompt) == text
        answers = {environment.gallery[row].listing for row in query.positives}
        assert kind != "listings" or query.side.listing not in answers


def test_held_out_recall(make: Make, settings: MakeSettings) -> None:
    environment = make(settings()).heldout
    texts = [TEXTS[i % 4] for i in range(len(environment.queries))]
    ranks = environment.ranks(range(len(texts)), texts)
    assert environment.recall(texts, (1, 5)) == mean_recall(ranks, (1, 5))
    assert environment.recall([None] * len(texts), (1, 5)) != environment.recall(texts, (1, 5))
    with pytest.raises(ValueError, match="texts for"):
        environment.recall(texts[:-1], (1,))


def test_held_out_queries_are_not_trained_on_and_search_the_training_gallery_too(
    make: Make, settings: MakeSettings
) -> None:
    made = make(settings())
    train, heldout = made.train, made.heldout
    assert {row.content for row in train.gallery} < {row.content for row in heldout.gallery}
    assert np.array_equal(heldout.vectors[: len(train.gallery)], train.vectors)
    known = {row.content for row in train.gallery}
    assert not known & {query.side.content for query in heldout.queries}
    assert all(min(query.positives) >= len(train.gallery) for query in heldout.queries)
    assert train.fingerprint != heldout.fingerprint


def test_the_gallery_is_kept_and_encoded_anew_only_where_something_changed(
    make: Make, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, shop: CatalogFolder
) -> None:
    encoded: list[int] = []
    inner = Embedder.encode

    def counted(self: Embedder, items: list[Item], *, instruction: str) -> object:
        encoded.append(len(items))
        return inner(self, items, instruction=instruction)

    monkeypatch.setattr(Embedder, "encode", counted)

    def work(**changes: object) -> tuple[int, str]:
        encoded.clear()
        made = make(settings(**changes))
        return sum(encoded), made.train.fingerprint

    everything, first = work()
    assert everything > 20
    assert work() == (0, first)
    rows = len(make(settings()).heldout.gallery)
    changed, second = work(**{"embed.target_instruction": "Show:"})
    assert changed == rows and second != first
    assert work(**{"embed.query_instruction": "Ask:"})[1] not in (first, second)
    changed, third = work(**{"model.max_pixels": 784})
    assert changed == everything and third not in (first, second)
    text, title = shop.catalog.read_text("utf-8"), make(settings()).train.queries[0].side.text.split("\n")[0]
    title = title.removeprefix("Title: ") + ","
    assert text.count(title) == 1
    shop.catalog.write_text(text.replace(title, "a new title,"), "utf-8")
    changed, fourth = work()
    assert changed == 2 and fourth != first  # the listing as a row and as a query


def test_what_was_made_is_described(make: Make, settings: MakeSettings) -> None:
    made = make(settings())
    found = made.description
    assert (found["embedder"], found["gallery"]) == (made.train.embedder.id, made.train.fingerprint)
    assert (found["query"], found["k"]) == ("listings", 3)
    open_k = make(settings(**{"rar.k": 0}))
    assert open_k.description["k"] == open_k.train.median_k > 0 == open_k.train.settings.rar.k


def test_a_policy_on_the_same_base_changes_no_reward_and_is_left_as_it_was(
    make: Make, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = make(settings(), bases=Bases()).train
    numbers = [0, 0, 1, 1]
    before = environment.ranks(numbers, TEXTS)
    hash_before = weights_hash(environment.embedder)
    policy = with_policy(environment.embedder)
    state = state_of(policy)
    assert environment.ranks(numbers, TEXTS) == before
    assert [reward.ranks for reward in environment.rewards(numbers, TEXTS, [False] * 4)] == before
    assert state_of(policy) == state
    assert weights_hash(environment.embedder) == hash_before

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no more disk")

    monkeypatch.setattr(environment.embedder.loaded.trunk.language_model, "forward", broken)
    with pytest.raises(RuntimeError, match="no more disk"):
        environment.rewards(numbers, TEXTS, [False] * 4)
    assert state_of(policy) == state


def test_the_gallery_carries_stored_attributes_when_both_sides_are_enriched(
    make: Make, settings: MakeSettings, shop: CatalogFolder
) -> None:
    chosen = settings(**{"embed.enrich": "both"})
    with pytest.raises(DataError, match="no attributes for the gallery"):
        make(chosen)
    task, checkpoints = load_task(chosen.attributes, shop.root), Checkpoints(shop.checkpoints)
    by = generator_id(chosen, checkpoints)
    with Database(shop.database) as database, Fingerprinter(database) as fingerprinter:
        products = list(read_products(shop, chosen.catalog, Problems()))
        database.put_attributes(
            [
                StoredAttributes(fingerprinter.of(p), by, task.id, p.id, f"kind: {p.id.lower()}", None, time.time())
                for p in products
            ]
        )
    environment = make(chosen).train
    assert all(row.attributes.startswith("kind: s") for row in environment.gallery)
    assert not any(query.side.attributes for query in environment.queries)


@pytest.mark.parametrize(
    ("changes", "error", "message", "hint"),
    [
        ({"rar.k": 50}, DataError, "recall@50 would always be 1", "set rar.k well below"),
        ({"embed.enrich": "none"}, UsageError, "embed.enrich = none", "query"),
        ({"split.validation": 0.0}, DataError, "validation split has 0 queries", "split.validation"),
        ({"model.embedder_checkpoint": "embedder-7"}, ModelError, "embedder-7", ""),
    ],
)
def test_what_cannot_be_used_is_said_with_what_to_do(
    make: Make, settings: MakeSettings, changes: dict[str, object], error: type[Exception], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as found:
        make(settings(**changes))
    assert hint in getattr(found.value, "hint", "")


def test_k_must_be_below_the_number_of_products_to_choose_from(make: Make, settings: MakeSettings) -> None:
    with pytest.raises(DataError, match="the gallery has") as found:
        make(settings(**{"rar.k": 500}))
    rows = int(str(found.value).split()[3])
    with pytest.raises(DataError, match=f"{rows} products to choose from, so recall@{rows} would always be 1"):
        make(settings(**{"rar.k": rows}))
    assert make(settings(**{"rar.k": rows - 1})).train.settings.rar.k == rows - 1


def test_a_catalog_without_answers_is_said(make: Make, settings: MakeSettings, tmp_path: Path) -> None:
    lonely = CatalogFolder(write_shop(tmp_path / "lonely", 20, photos=0) / "catalog.csv")
    with pytest.raises(DataError, match=r"answer in the catalog.*listings 0, photos 0"):
        make(settings(), lonely)


def test_an_embedder_of_another_base_is_refused(
    make: Make, settings: MakeSettings, shop: CatalogFolder, tiny_model: Callable[[str], Path]
) -> None:
    own, other = (settings(**{"model.embedder": str(tiny_model(name))}) for name in ("qwen2_vl", "qwen2_5_vl"))
    base = make(own).train.embedder.loaded.base
    add_random(Checkpoints(shop.checkpoints), base, "e1", 3)
    make(own.model_copy(update={"model": own.model.model_copy(update={"embedder_checkpoint": "e1"})}))
    with pytest.raises(ModelError, match="was trained on"):
        make(other.model_copy(update={"model": other.model.model_copy(update={"embedder_checkpoint": "e1"})}))
