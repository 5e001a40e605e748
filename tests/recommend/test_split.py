"""The division of interactions, by numbers that a hand can check."""

from __future__ import annotations

import numpy as np

from afmrl_cli.recommend.interactions import Interactions
from afmrl_cli.recommend.split import split_interactions, split_summary
from afmrl_cli.recommend_settings import RecommendSettings


def interactions(rows: list[tuple[int, int, int]]) -> Interactions:
    """(customer, item, day) each."""
    rows = sorted(rows, key=lambda row: (row[0], row[2], row[1]))
    customer, item, day = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions(
        customer.astype(np.int32),
        item.astype(np.int32),
        (1_700_000_000 + day * 86_400).astype(np.int64),
        np.ones(len(rows), np.float32),
        np.arange(customer.max() + 1, dtype=np.uint64),
        tuple(f"i{i}" for i in range(item.max() + 1)),
    )


def test_one_date_divides_all_customers() -> None:
    found = interactions([(0, 0, 1), (0, 1, 9), (1, 0, 2), (1, 2, 10), *((2, 0, day) for day in range(3, 9))])
    split = split_interactions(found, RecommendSettings(validation=0.2, test=0.1))
    days = (found.seconds - 1_700_000_000) // 86_400
    assert [split.part[days == day].tolist() for day in (7, 8, 9, 10)] == [[0], [1], [1], [2]]
    said = split_summary(found, split)
    assert said["validation_from"] == "2023-11-22T22:13:20Z"  # day 8
    assert [said[part]["interactions"] for part in ("train", "validation", "test")] == [7, 2, 1]
    assert said["validation"]["new_items"] == 1 and said["test"]["new_items"] == 1
    assert said["test"]["new_customers"] == 0


def test_equal_times_stay_together_and_something_is_left_to_train_on() -> None:
    same_day = interactions([(0, 0, 1), *((c, 0, 5) for c in range(1, 5)), (5, 0, 6)])
    split = split_interactions(same_day, RecommendSettings(validation=0.2, test=0.2))
    assert split.part.tolist() == [0, 0, 0, 0, 0, 2]
    all_at_once = interactions([(c, 0, 5) for c in range(4)])
    assert split_interactions(all_at_once, RecommendSettings()).part.tolist() == [0, 0, 0, 0]


def test_without_shares_all_is_training() -> None:
    found = interactions([(0, 0, day) for day in range(5)])
    assert split_interactions(found, RecommendSettings(validation=0, test=0)).part.tolist() == [0] * 5


def test_new_customers_are_counted_apart() -> None:
    found = interactions([(0, 0, day) for day in range(8)] + [(1, 0, 8), (2, 0, 9), (2, 0, 9)])
    said = split_summary(found, split_interactions(found, RecommendSettings(validation=0.1, test=0.2)))
    assert said["validation"]["new_customers"] == 1 and said["test"]["new_customers"] == 1
    assert said["test"]["interactions_of_new_customers"] == 2


def test_leave_one_out_takes_each_last_one_and_says_what_it_leaks() -> None:
    found = interactions([(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 4), (1, 1, 5), (2, 0, 6)])
    split = split_interactions(found, RecommendSettings(split="last"))
    assert split.part.tolist() == [0, 1, 2, 0, 0, 0]
    assert "training holds what other customers did after" in split_summary(found, split)["leaks"]
