"""Histories and the questions asked of them."""

from __future__ import annotations

import numpy as np

from afmrl_cli.next_item.histories import make_histories, questions_of
from afmrl_cli.recommend.interactions import Interactions
from afmrl_cli.recommend.split import TEST, TRAIN, Split


def interactions() -> Interactions:
    """Return two customers: one with an order of two lines and something after it, one with a single row."""
    return Interactions(
        np.array([0, 0, 0, 0, 1], dtype=np.int32),
        np.array([0, 1, 2, 0, 2], dtype=np.int32),
        np.array([10, 20, 20, 30, 15], dtype=np.int64),
        np.ones(5, dtype=np.float32),
        np.array([7, 9], dtype=np.uint64),
        ("a", "b", "c"),
    )


SPLIT = Split("time", np.array([TRAIN, TEST, TEST, TEST, TEST], dtype=np.uint8), (12, 12))


def test_lines_of_one_order_do_not_tell_each_other() -> None:
    histories = make_histories(interactions(), SPLIT, ["x", "a", "b", "c"])

    asked = questions_of(histories, TEST)

    assert [(each.history.tolist(), each.target) for each in asked] == [([1], 2), ([1], 3), ([1, 2, 3], 1)]
    assert [each.seconds for each in asked] == [20, 20, 30]


def test_the_first_row_of_a_customer_asks_nothing() -> None:
    histories = make_histories(interactions(), SPLIT, ["a", "b", "c"])

    assert {histories.customers[each.customer] for each in questions_of(histories, TEST)} == {7}
    assert questions_of(histories, TRAIN) == []


def test_listings_that_left_the_catalog_are_in_no_history() -> None:
    histories = make_histories(interactions(), SPLIT, ["a", "c"])

    assert len(histories.item) == 4
    assert [each.history.tolist() for each in questions_of(histories, TEST)] == [[0], [0, 1]]


def test_customers_are_numbered_by_what_they_did_whatever_their_hashes_are() -> None:
    there, ids = interactions(), ["a", "b", "c"]
    other = Interactions(
        np.array([0, 1, 1, 1, 1], dtype=np.int32),
        there.item[[4, 0, 1, 2, 3]],
        there.seconds[[4, 0, 1, 2, 3]],
        there.quantity,
        np.array([3, 5], dtype=np.uint64),
        there.items,
    )
    split = Split("time", SPLIT.part[[4, 0, 1, 2, 3]], SPLIT.dates)

    one, two = make_histories(there, SPLIT, ids), make_histories(other, split, ids)

    for name in ("customer", "item", "seconds", "part"):
        assert (getattr(one, name) == getattr(two, name)).all()
    assert (
        one.item[one.rows_of(one.place_of(7))].tolist()
        == two.item[two.rows_of(two.place_of(5))].tolist()
        == [0, 1, 2, 0]
    )
    assert one.place_of(8) == -1
