"""What the catalog offers as positives, and what may not be a negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.attributes.views import LISTING, TEXT
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.errors import DataError
from afmrl_cli.listener import Silent
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.corpus import Corpus, load_corpus
from afmrl_cli.training.pairs import (
    Enrich,
    Pair,
    Photo,
    Positive,
    Side,
    TrainListing,
    draw_pair,
    find_positives,
    indistinguishable,
    mix,
    query_views,
    rejected,
)
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.training.shop import write_shop


def photo(name: str) -> Photo:
    return Photo(Path(f"/shop/{name}.jpg"), (64, 64), name)


def listing(
    id: str, text: str = "Title: x", photos: str = "", identity: str = "", attributes: str = ""
) -> TrainListing:
    return TrainListing(
        id,
        identity or id,
        "",
        text,
        tuple(photo(name) for name in photos.split()),
        {LISTING: attributes} if attributes else {},
    )


def draws(positive: Positive, listings: list[TrainListing], *, enrich: Enrich = "query", n: int = 200) -> list[Pair]:
    return [
        draw_pair(positive, listings, np.random.default_rng((7, i)), max_photos=3, enrich=enrich, dropout=0.5)
        for i in range(n)
    ]


def test_each_listing_gives_the_best_that_it_offers() -> None:
    listings = [
        listing("a", photos="1 2", identity="P"),
        listing("b", identity="P"),
        listing("c", photos="3 4"),
        listing("d", photos="5"),
        listing("e"),
        listing("f", text="", photos="6"),
    ]
    found = find_positives(listings)
    assert [(p.kind, p.listing) for p in found] == [("listings", 0), ("listings", 1), ("photos", 2), ("image-text", 3)]
    assert found[0].others == (1,)
    assert mix(found) == {"listings": 2, "photos": 1, "image-text": 1}


def test_named_kinds_are_a_mix() -> None:
    listings = [listing("a", photos="1 2", identity="P"), listing("b", identity="P"), listing("c")]
    found = find_positives(listings, ["listings", "photos", "image-text"])
    assert mix(found) == {"listings": 2, "photos": 1, "image-text": 1}


def test_a_photo_twice_is_not_two_photos() -> None:
    assert mix(find_positives([listing("a", photos="1 1")])) == {"image-text": 1}


def test_no_positives() -> None:
    with pytest.raises(DataError, match="no positive pairs: no two listings share"):
        find_positives([listing("a"), listing("b")])
    with pytest.raises(DataError, match=r"of the kinds photos \(agcl.pairs\)"):
        find_positives([listing("a", photos="1")], ["photos"])


def test_listings_ask_for_another_listing_of_the_product() -> None:
    listings = [listing(id, text=id, identity="P") for id in "abc"]
    pairs = draws(find_positives(listings)[0], listings)
    assert {pair.query.listing for pair in pairs} == {0}
    assert {pair.target.listing for pair in pairs} == {1, 2}
    assert {(pair.target.listing, pair.target.text) for pair in pairs} == {(1, "b"), (2, "c")}


def test_a_photo_asks_without_text_for_the_listing_without_that_photo() -> None:
    listings = [listing("a", text="shirt", photos="1 2 3", attributes="colour: red")]
    pairs = draws(find_positives(listings)[0], listings, enrich="none")
    assert {pair.query.photos[0].content for pair in pairs} == {"1", "2", "3"}
    for pair in pairs:
        assert (pair.query.text, pair.target.text, len(pair.query.photos)) == ("", "shirt", 1)
        assert pair.query.photos[0] not in pair.target.photos and len(pair.target.photos) == 2


def test_a_photo_that_a_listing_has_twice_asks_once_and_is_nowhere_in_the_answer() -> None:
    listings = [listing("a", text="shirt", photos="1 2 1")]
    pairs = draws(find_positives(listings)[0], listings, enrich="none")
    seen = {(*(p.content for p in pair.query.photos), "->", *(p.content for p in pair.target.photos)) for pair in pairs}
    assert seen == {("1", "->", "2"), ("2", "->", "1", "1")}


def test_image_and_text_ask_for_each_other() -> None:
    listings = [listing("a", text="shirt", photos="1")]
    seen = {
        (pair.query.text, len(pair.query.photos), pair.target.text, len(pair.target.photos))
        for pair in draws(find_positives(listings)[0], listings, enrich="none")
    }
    assert seen == {("shirt", 0, "", 1), ("", 1, "shirt", 0)}


def test_attributes_are_dropped_from_about_half_of_the_queries() -> None:
    listings = [listing(id, text="shirt", identity="P", attributes=f"size: {id}") for id in "ab"]
    positive = find_positives(listings)[0]
    enriched = [pair for pair in draws(positive, listings) if pair.query.words == "shirt\nAttributes: size: a"]
    assert 70 < len(enriched) < 130
    assert {pair.query.words for pair in draws(positive, listings)} == {"shirt", "shirt\nAttributes: size: a"}
    assert {pair.target.words for pair in draws(positive, listings)} == {"shirt"}
    assert {pair.target.words for pair in draws(positive, listings, enrich="both")} == {"shirt\nAttributes: size: b"}
    assert {pair.query.words for pair in draws(positive, listings, enrich="none")} == {"shirt"}


def test_which_views_ask_follows_from_the_kind() -> None:
    shown = listing("a", photos="1 2")
    assert query_views(Positive("listings", 0), shown) == [LISTING]
    assert query_views(Positive("photos", 0), shown) == [("photos", "1"), ("photos", "2")]
    assert query_views(Positive("image-text", 0), shown) == [TEXT, ("photos", "1"), ("photos", "2")]


def test_a_draw_is_decided_by_its_seed_alone() -> None:
    listings = [listing("a", photos="1 2 3", attributes="colour: red")]
    positive = find_positives(listings)[0]
    assert draws(positive, listings) == draws(positive, listings)


def test_what_can_not_be_told_apart_is_no_negative() -> None:
    listings = [listing("a", identity="P"), listing("b", identity="P"), listing("c"), listing("d"), listing("e")]

    def pair(i: int, query: str, target: str, photo_name: str) -> Pair:
        return Pair("listings", Side(i, query), Side(i, target, (photo(photo_name),)))

    pairs = [
        pair(0, "q0", "t0", "1"),
        pair(1, "q1", "t1", "2"),  # the same product as 0
        pair(2, "q2", "t", "3"),
        pair(3, "q3", "t", "3"),  # the same target as 2
        pair(4, "q3", "t", "4"),  # the same query as 3; the target's text as 2 and 3, but another photo
    ]
    found = indistinguishable(pairs, listings)
    assert sorted(zip(*np.nonzero(found), strict=True)) == [(0, 1), (1, 0), (2, 3), (3, 2), (3, 4), (4, 3)]


def test_identical_texts_are_no_negatives_where_a_side_has_nothing_but_text() -> None:
    listings = [listing(id) for id in "abcdef"]
    targets = [
        Side(0, "Navy blouse"),
        Side(1, "Navy blouse"),  # the same text: nothing else could tell them apart
        Side(2, "Navy blouse", (photo("1"),)),  # 0 and 1 fit it as well as its own query does
        Side(3, "Navy blouse", (photo("2"),)),  # a twin of 2: the photos tell them apart
        Side(4, "", (photo("3"),)),
        Side(5, "", (photo("4"),)),  # no text at all is not the same text
    ]
    pairs = [Pair("image-text", Side(i, "", (photo(f"query {i}"),)), target) for i, target in enumerate(targets)]
    found = {(int(i), int(j)) for i, j in zip(*np.nonzero(indistinguishable(pairs, listings)), strict=True)}
    one_way = {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)}
    assert found == one_way | {(j, i) for i, j in one_way}


def test_dropped_attributes_make_no_negatives_of_the_same_text_or_photo() -> None:
    listings = [listing(id) for id in "abcd"]
    pairs = [
        Pair("image-text", Side(0, "Navy blouse", attributes="colour: navy"), Side(0, "", (photo("1"),))),
        Pair("image-text", Side(1, "Navy blouse"), Side(1, "", (photo("2"),))),  # the same query, without attributes
        Pair("image-text", Side(2, "", (photo("3"),)), Side(2, "Navy blouse")),  # the first query's words
        Pair("image-text", Side(3, "Hat"), Side(3, "", (photo("4"),))),
    ]
    found = indistinguishable(pairs, listings)
    assert found[0].tolist() == [False, True, True, False]
    assert found[1].tolist() == [True, False, True, False]


def test_a_row_that_shows_the_photo_that_asks_is_no_negative() -> None:
    listings = [listing(id) for id in "abc"]
    pairs = [
        Pair("photos", Side(0, "", (photo("1"),)), Side(0, "Navy blouse", (photo("2"),))),
        Pair("photos", Side(1, "", (photo("3"),)), Side(1, "Red blouse", (photo("4"), photo("1")))),
        Pair("listings", Side(2, "Hat", (photo("4"),)), Side(2, "A hat", (photo("5"),))),  # whole: its text tells
    ]
    found = indistinguishable(pairs, listings)
    assert np.argwhere(found).tolist() == [[0, 1]]


def test_confirmed_pairs_are_positives_and_never_negatives(tmp_path: Path) -> None:
    """Of the file that `dedupe.verdicts` names; a pair across two splits joins nothing."""
    root = write_shop(tmp_path / "shop", 40)
    settings = load_settings(None, {"agcl.attributes": "given", "catalog.bad_images": "skip"}, NANO)

    def corpus(**flags: object) -> Corpus:
        chosen = settings.model_copy(update={"dedupe": load_settings(None, flags, NANO).dedupe})
        folder = CatalogFolder(root / "catalog.csv")
        return load_corpus(Workspace(folder, chosen, Silent()), None, Problems())

    before = corpus()
    one, other = before.train[0].id, before.train[5].id
    across = before.validation[0].id
    lines = ["id,other_id,verdict", f"{one},{other},same", f"{one},{across},same", f"{one},{before.train[6].id},no"]
    (root / "said.csv").write_text("\n".join(lines))
    after = corpus(**{"dedupe.verdicts": "said.csv"})
    assert after.train[0].identity == after.train[5].identity
    assert len({item.identity for item in after.train}) == len(before.train) - 1
    assert [item.identity for item in after.validation] == [item.identity for item in before.validation]
    assert after.fingerprint != before.fingerprint
    positives = [positive for positive in find_positives(after.train, ("listings",)) if positive.others]
    assert [(positive.listing, positive.others) for positive in positives] == [(0, (5,)), (5, (0,))]
    sides = [Side(i, item.text, item.photos) for i, item in enumerate(after.train[:7])]
    pairs = [Pair("photos", side, side) for side in sides]
    known = indistinguishable(pairs, after.train)
    assert known[0, 5] and known[5, 0] and not known[0, 6]
    assert [*zip(*np.nonzero(rejected(sides, sides, after.train)), strict=True)] == [(0, 6), (6, 0)]


def test_what_a_person_rejected_is_no_positive_though_it_shares_the_product_id() -> None:
    listings = [
        TrainListing("a", "p", "", "red", rejected=frozenset({"c"})),
        TrainListing("b", "p", "", "rouge"),
        TrainListing("c", "p", "", "blue", rejected=frozenset({"a"})),
    ]
    assert [found.others for found in find_positives(listings, ("listings",))] == [(1,), (0, 2), (1,)]
    sides = [Side(i, item.text) for i, item in enumerate(listings)]
    known = indistinguishable([Pair("listings", side, side) for side in sides], listings)
    assert known[0, 1] and known[1, 2] and not known[0, 2] and not known[2, 0]
