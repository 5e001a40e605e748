"""Queries, gallery rows, answers and hidden rows of a handful of listings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.attributes.views import LISTING
from afmrl_cli.errors import DataError
from afmrl_cli.rar.queries import (
    QueryKind,
    RarQuery,
    choose_kind,
    difficulty,
    offered,
    pose,
    prefer,
    some_products,
)
from afmrl_cli.training.pairs import Photo, Side, TrainListing


def shot(name: str) -> Photo:
    return Photo(Path(f"{name}.png"), (56, 56), name)


def listing(id: str, identity: str, text: str, *photos: str) -> TrainListing:
    return TrainListing(id, identity, "shirts", text, tuple(map(shot, photos)), {LISTING: "colour: red"})


A1 = listing("a1", "A", "red shirt", "a", "b")
A2 = listing("a2", "A", "shirt in red", "c")
B = listing("b", "B", "blue shirt", "d", "e")
B_TWIN = listing("b2", "C", "blue shirt", "f", "g")  # same words, another product
BARE = listing("x", "X", "", "h")
SHOP = [A1, A2, B, B_TWIN, BARE]


def queried(
    kind: QueryKind, listings: list[TrainListing] = SHOP, *, enrich: bool = False, most: int = 3
) -> tuple[list[Side], dict[int, RarQuery]]:
    gallery, queries = pose(listings, [True] * len(listings), kind, max_photos=most, enrich=enrich, seed=0)
    return gallery, {query.side.listing: query for query in queries}


def names(side: Side) -> list[str]:
    return [photo.content for photo in side.photos]


def test_a_listing_asks_for_the_other_listings_of_its_product_and_never_finds_itself() -> None:
    gallery, queries = queried("listings")
    assert [row.listing for row in gallery] == [0, 1, 2, 3, 4]
    assert set(queries) == {0, 1}
    assert queries[0].side == Side(0, "red shirt", A1.photos)
    assert (queries[0].positives, queries[0].hidden) == ((1,), (0,))
    assert (queries[1].positives, queries[1].hidden) == ((0,), (1,))
    assert queries[0].category == "shirts"


def test_a_photo_asks_for_the_rest_and_is_not_in_it() -> None:
    gallery, queries = queried("photos")
    row = next(row for row in gallery if row.listing == 2)
    (photo,) = queries[2].side.photos
    assert {photo.content, *names(row)} == {"d", "e"} and len(row.photos) == 1
    assert queries[2].side.text == "" and queries[2].category == ""
    assert row.text == "blue shirt"
    assert queries[0].positives == (0, 1)  # the rest of its own listing, and the product's other one
    assert 4 not in queries  # one photo, no text: nothing is left to be found
    assert [row.listing for row in gallery] == [0, 1, 2, 3]


def test_a_photo_asks_for_text_and_no_photo_is_there_to_be_found() -> None:
    gallery, queries = queried("photo-to-text")
    assert all(not row.photos for row in gallery)
    assert queries[0].positives == (0, 1)
    assert (queries[2].positives, queries[2].hidden) == ((2,), (3,))  # the variant's same words can't be told apart


def test_text_asks_for_photos() -> None:
    gallery, queries = queried("text-to-photos")
    assert all(row.text == "" for row in gallery) and len(gallery) == 5
    assert queries[2].side == Side(2, "blue shirt", ()) and queries[2].category == "shirts"
    assert (queries[2].positives, queries[2].hidden) == ((2,), ())  # variants of one title differ in photos: learnt
    assert 4 not in queries


@pytest.mark.parametrize("enrich", [False, True])
def test_rows_that_show_what_the_query_shows_are_hidden_whoever_sells_them(enrich: bool) -> None:
    copy = listing("copy", "D", "red shirt", "a", "b")
    _, queries = queried("listings", [*SHOP, copy], enrich=enrich)
    assert queries[0].hidden == (0, 5)
    assert queries[1].hidden == (1, 5)  # the same as one of its answers, and no answer


def test_the_query_never_carries_stored_attributes_and_the_gallery_only_when_both_are_enriched() -> None:
    for enrich in (False, True):
        gallery, queries = queried("listings", enrich=enrich)
        assert "Attributes" not in queries[0].side.words
        assert ("Attributes: colour: red" in gallery[0].words) == enrich


def test_at_most_so_many_photos_on_either_side() -> None:
    many = listing("m", "M", "many", *"pqrst")
    gallery, queries = queried("photos", [many, B], most=2)
    assert len(gallery[0].photos) == 2 and len(queries[0].side.photos) == 1


def test_only_named_listings_have_queries() -> None:
    _, queries = pose(SHOP, [False, False, True, False, False], "photos", max_photos=3, enrich=False, seed=0)
    assert [query.side.listing for query in queries] == [2]


def test_which_photo_asks_depends_on_the_seed_alone() -> None:
    def photos(seed: int) -> list[list[str]]:
        listings = [listing(str(i), str(i), "t", *"abcdef") for i in range(20)]
        queries = pose(listings, [True] * 20, "photos", max_photos=3, enrich=False, seed=seed)[1]
        return [names(query.side) for query in queries]

    assert photos(1) == photos(1) != photos(2)


def test_the_kind_is_the_first_that_is_offered_often_enough() -> None:
    offers = offered(SHOP, [True] * len(SHOP), max_photos=3, seed=0)
    assert offers == {"listings": 2, "photos": 4, "photo-to-text": 4, "text-to-photos": 4}
    assert choose_kind("auto", offers, 2) == "listings"
    assert choose_kind("auto", offers, 3) == "photos"
    # A small shop may have listings to learn from, and none that are held out.
    assert choose_kind("auto", offers, 2, {**offers, "listings": 0}) == "photos"
    assert choose_kind("auto", offers, 2, dict.fromkeys(offers, 0)) == "listings"
    assert choose_kind("text-to-photos", offers, 3) == "text-to-photos"
    with pytest.raises(DataError, match=r"rar.query = listings.*listings 2, photos 4") as error:
        choose_kind("listings", offers, 3)
    assert "product_id" in error.value.hint


def test_a_smaller_gallery_keeps_products_whole() -> None:
    listings = [listing(f"{i}-{j}", f"P{i}", "t") for i in range(50) for j in range(2)]
    some = some_products(listings, 31, 0)
    assert len(some) == 30
    assert all(sum(other.identity == one.identity for other in some) == 2 for one in some)
    assert some == sorted(some, key=listings.index)
    assert some_products(listings, 0, 0) == some_products(listings, 100, 0) == listings


def test_queries_of_greater_weight_are_preferred() -> None:
    weights = [0.05] * 400 + [0.8] * 400
    kept = np.array(prefer(weights, 200, 0))
    assert len(kept) == len(set(kept)) == 200 and 0.88 < (kept >= 400).mean() < 1.0
    assert prefer([0.1, 0.2], 3, 0) == [0, 1]
    assert prefer(weights, 200, 0) == prefer(weights, 200, 0) != prefer(weights, 200, 1)


def test_queries_of_about_the_same_rank_are_of_one_difficulty() -> None:
    assert [difficulty(rank) for rank in (1, 2, 3, 4, 7, 8, 1000)] == [1, 2, 2, 4, 4, 8, 512]
