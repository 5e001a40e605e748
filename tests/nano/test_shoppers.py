"""The shoppers of rendered shops: what they take follows the probabilities that the truth gives, to the letter."""

import csv
import hashlib
import io
import json
import math
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from benchmarks.shoppers import predictability

from afmrl_cli.nano.garment import CATEGORIES
from afmrl_cli.nano.shop import ShopPlan, plan_listings, write_shop
from afmrl_cli.nano.shoppers import (
    AGAIN,
    BOT_EVENTS,
    COLUMNS,
    END,
    LATELY,
    PEAKS,
    RECENT_DAYS,
    SEASON,
    START,
    TEMPERATURE,
    Shopper,
    interactions_text,
    next_item_probabilities,
    plan_shoppers,
    read_truth,
    truth_text,
)

LISTINGS = plan_listings(ShopPlan(60, 7))
SMALL = ShopPlan(3, 5, text_queries=2, photo_queries=2, size=32)


@pytest.fixture(scope="module")
def planned():
    return plan_shoppers(LISTINGS, 400, 7)


def visits(truth):
    return [(name, visit.time, visit.item) for name, shopper in truth.shoppers.items() for visit in shopper.visits]


def probability(truth, customer, time, item):
    """The formula again, from what the truth holds, for one listing."""
    shopper = truth.shoppers[customer]
    taste = dict(shopper.taste)
    for change in shopper.changes:
        if change.time < time:
            taste[change.value] = change.weight
    weights = {}
    for name, one in truth.items.items():
        if one.since <= time:
            category = one.values[0].removeprefix("category: ")
            day = (time - START).total_seconds() / 86_400
            season = SEASON * math.cos(2 * math.pi * (day - PEAKS[category]) / 365)
            utility = one.popularity + season + sum(taste[value] for value in one.values)
            ages = [time - visit.time for visit in shopper.visits if visit.item == name]
            lately = any(timedelta(0) < age <= timedelta(days=90) for age in ages)
            weights[name] = (AGAIN if lately else 1) * math.exp(utility / TEMPERATURE)
    return weights.get(item, 0.0) / sum(weights.values())


def test_probabilities_are_the_formula(planned):
    _, truth = planned
    for customer, time, item in visits(truth)[::97]:
        chances = next_item_probabilities(truth, customer, time)
        assert list(chances) == [listing.id for listing in LISTINGS]
        assert math.isclose(sum(chances.values()), 1)
        assert math.isclose(chances[item], probability(truth, customer, time, item))


def test_what_is_taken_is_as_frequent_as_its_probability(planned):
    # Over all visits: how often each listing is taken, and one at each rank, beside the sum of their probabilities.
    _, truth = planned
    taken: Counter[str] = Counter()
    expected: dict[str, float] = defaultdict(float)
    surprise, entropy, spread = 0.0, 0.0, 0.0
    for customer, time, item in visits(truth):
        chances = next_item_probabilities(truth, customer, time)
        order = sorted(chances, key=lambda name: -chances[name])
        for rank, name in enumerate(order, 1):
            for cell in (name, f"rank {rank.bit_length()}"):
                expected[cell] += chances[name]
        taken.update((item, f"rank {(order.index(item) + 1).bit_length()}"))
        logs = [(p, -math.log(p)) for p in chances.values() if p]
        mean = sum(p * log for p, log in logs)
        surprise += -math.log(chances[item])
        entropy += mean
        spread += sum(p * (log - mean) ** 2 for p, log in logs)
    assert sum(taken.values()) > 4000
    for cell, count in expected.items():
        assert abs(taken[cell] - count) < 4.5 * math.sqrt(count) + 1, cell
    assert abs(surprise - entropy) < 4 * math.sqrt(spread)


def test_nothing_is_taken_before_it_is_on_sale_and_there_are_new_listings_and_customers_at_the_end(planned):
    _, truth = planned
    assert all(START <= truth.items[item].since <= time < END for _, time, item in visits(truth))
    late = END - timedelta(days=RECENT_DAYS)
    assert 0.05 < sum(item.since > late for item in truth.items.values()) / len(LISTINGS) < 0.35
    first = [shopper.visits[0].time for shopper in truth.shoppers.values()]
    assert 0.05 < sum(time > late for time in first) / len(first) < 0.35


def test_histories_are_skewed_tastes_move_and_some_turn_to_another_category(planned):
    _, truth = planned
    lengths = sorted(len(shopper.visits) for shopper in truth.shoppers.values())
    assert sum(3 <= length <= 12 for length in lengths) > 0.5 * len(lengths)
    assert lengths[0] == 1
    assert 40 <= lengths[-1] <= 60
    turned = 0
    for shopper in truth.shoppers.values():
        now = shopper.taste_at(END)
        assert now.keys() == shopper.taste.keys()
        assert {change.time for change in shopper.changes} <= {visit.time for visit in shopper.visits}
        first, last = (max(CATEGORIES, key=lambda each: taste[f"category: {each}"]) for taste in (shopper.taste, now))
        turned += first != last
    assert 0.1 < turned / len(lengths) < 0.6
    assert 0.15 < sum(bool(shopper.changes) for shopper in truth.shoppers.values()) / len(lengths) < 0.95


def test_coats_sell_in_winter_and_shorts_in_summer(planned):
    _, truth = planned

    def winter(category):
        months = [
            time.month for _, time, item in visits(truth) if truth.items[item].values[0] == f"category: {category}"
        ]
        return sum(month in (10, 11, 12, 1, 2, 3) for month in months) / len(months)

    assert winter("coat") > winter("shorts") + 0.2


def test_few_take_the_same_again_so_soon(planned):
    _, truth = planned
    shopper = max(truth.shoppers.values(), key=lambda one: len(one.visits))
    visit = shopper.visits[0]
    alone = replace(truth, shoppers={"X": Shopper(shopper.taste, (), (visit,))})
    category = truth.items[visit.item].values[0]
    other = next(
        name
        for name, item in truth.items.items()
        if item.values[0] == category and item.since == START and name != visit.item
    )
    odds = []
    for age in (timedelta(minutes=1), LATELY, LATELY + timedelta(minutes=1)):
        chances = next_item_probabilities(alone, "X", visit.time + age)
        odds.append(chances[visit.item] / chances[other])  # of one category, so that no season moves them apart
    assert math.isclose(odds[0], odds[2] * AGAIN)
    assert math.isclose(odds[1], odds[2] * AGAIN)


def test_returns_second_copies_and_the_bot_are_rows_that_the_truth_counts(planned):
    events, truth = planned
    assert truth.bot not in truth.shoppers
    assert [event.event for event in events if event.customer == truth.bot] == ["view"] * BOT_EVENTS
    assert truth.bot_events == BOT_EVENTS
    assert truth.returns == sum(event.quantity < 0 for event in events) > 3
    assert truth.twice == len(events) - len(set(events)) > 3
    assert len(events) == len(visits(truth)) + truth.bot_events + truth.returns + truth.twice
    bought = {(event.customer, event.item, event.quantity) for event in events if event.event == "purchase"}
    for event in events:
        assert event.event in ("view", "cart", "purchase")
        if event.quantity < 0:
            assert event.event == "purchase"
            assert (event.customer, event.item, -event.quantity) in bought
    taken = {(event.customer, event.time, event.item) for event in events if event.quantity > 0}
    assert taken >= set(visits(truth))


def test_the_best_ranking_is_far_above_popularity():
    _, truth = plan_shoppers(plan_listings(ShopPlan(200, 1)), 150, 1)
    found = predictability(truth)
    assert 0.45 < found.hr["oracle"] < 0.7
    assert found.hr["popularity"] < found.hr["inferred"] < found.hr["oracle"]
    assert 0.05 < found.hr["popularity"] < 0.25
    assert found.ndcg["oracle"] > 2 * found.ndcg["popularity"]
    assert found.new_customers
    assert found.new_items


def test_same_seed_same_rows_another_seed_others_and_more_shoppers_leave_those_before(planned):
    few = plan_shoppers(LISTINGS, 20, 7)
    assert plan_shoppers(LISTINGS, 20, 7) == few
    assert plan_shoppers(LISTINGS, 20, 8)[0] != few[0]
    assert all(planned[1].shoppers[name] == shopper for name, shopper in few[1].shoppers.items())


def test_a_shop_with_shoppers_is_the_same_shop_and_its_truth_lies_apart(tmp_path):
    write_shop(tmp_path / "without", SMALL)
    with_them = ShopPlan(3, 5, text_queries=2, photo_queries=2, size=32, shoppers=30)
    shop = write_shop(tmp_path / "with", with_them)
    files = {path.relative_to(shop.folder).as_posix(): path.read_bytes() for path in shop.folder.rglob("*.*")}
    for path in (tmp_path / "without").rglob("*.*"):
        assert files.pop(path.relative_to(tmp_path / "without").as_posix()) == path.read_bytes()
    assert set(files) == {"interactions.csv", "truth/shoppers.json"}
    events, truth = plan_shoppers(shop.listings, 30, 5)
    assert read_truth(shop.folder) == truth
    assert json.loads(truth_text(truth))["bot"] == truth.bot
    assert files["interactions.csv"].decode() == interactions_text(events)
    rows = list(csv.DictReader(io.StringIO(files["interactions.csv"].decode())))
    assert tuple(rows[0]) == COLUMNS
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    assert times == sorted(times)
    assert times[0].tzinfo == UTC
    assert {row["item"] for row in rows} <= {listing.id for listing in shop.listings}


def test_shops_without_shoppers_stay_as_they_were(tmp_path):
    shop = write_shop(tmp_path, SMALL)
    text = b"".join((shop.folder / name).read_bytes() for name in ("catalog.csv", "queries.jsonl", "qrels.trec"))
    assert hashlib.sha256(text).hexdigest() == "9d17bf47b7be923bcf81caab1904fcddf3da5fd0f53f3eed3864040a1b5b4e75"
    assert not (tmp_path / "interactions.csv").exists()


def test_other_interactions_are_never_overwritten(tmp_path):
    mine = tmp_path / "interactions.csv"
    mine.write_text("customer,item\nA,1\n")
    with pytest.raises(FileExistsError, match="other interactions"):
        write_shop(tmp_path, ShopPlan(2, shoppers=3, size=32))
    assert mine.read_text() == "customer,item\nA,1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.csv"]
