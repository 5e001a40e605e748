"""Samples the shoppers of a rendered shop: who buys what and when, and the truth behind it.

    x_i       what is known of listing i: category, colour, pattern, sleeve, neckline, length and price level
    w_u(t)    the taste of shopper u at time t: a weight for each such value
    b_i       how popular listing i is with everybody
    s_i(t)    the season of its category c: A cos(2 pi (t - peak_c) / year)
    S(t)      the listings that are on sale at t
    r_ui(t)   r if u had to do with i in the LATELY days before t, else 1: few take the same again so soon

    utility   v_ui(t) = b_i + s_i(t) + sum over the values k in x_i of w_u(t)[k]
    next one  p_u(i, t) = r_ui(t) exp(v_ui(t) / T) / sum over j in S(t) of r_uj(t) exp(v_uj(t) / T)
    drift     after each visit, with the chance DRIFT one weight of w_u is sampled anew, and with the chance SWITCH the
              weight of the favourite category changes places with that of another

The choice is the multinomial logit (McFadden 1974). A visit takes one listing and leaves one row, of the furthest it
came to: a view, a cart or a purchase. Shoppers arrive evenly over two years, listings too (most are there from the
start), so that there are new ones of both after any split by time. Added are returns, rows that stand twice, and a bot.

The same listings, number and seed give the same rows; each shopper is sampled on their own, so that more of them leave
those before as they were.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from .garment import CATEGORIES, values_of

if TYPE_CHECKING:
    from .shop import Listing

INTERACTIONS = "interactions.csv"
TRUTH = "truth/shoppers.json"
"""In a folder of its own: whatever is measured on the shop must not read it."""

COLUMNS: tuple[str, ...] = ("customer", "item", "time", "event", "quantity")

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 730
END = START + timedelta(days=DAYS)

SPREAD: dict[str, float] = {
    "category": 2.2,
    "colour": 1.0,
    "pattern": 1.2,
    "sleeve": 0.6,
    "neckline": 0.6,
    "length": 0.6,
    "price": 1.0,
}
"""Standard deviation of a taste's weights, by attribute."""
PRICES = ("low", "middle", "high")
POPULARITY = 1.0
"""Standard deviation of b."""
SEASON = 1.0
"""A, how much a season adds at its peak."""
PEAKS: dict[str, int] = {
    "dress": 160,
    "blouse": 105,
    "t-shirt": 185,
    "hoodie": 320,
    "coat": 350,
    "trousers": 280,
    "shorts": 195,
    "skirt": 135,
}
"""The day of the year on which a category sells best."""
TEMPERATURE = 1.3
LATELY, AGAIN = timedelta(days=90), 0.05
DRIFT, SWITCH = 0.25, 0.06

LENGTH, LENGTH_SPREAD, LONGEST = 6.0, 0.9, 60
"""Visits of a shopper: median and spread of their logarithm (log-normal), and the most."""
GAP, STAY = 20.0, 400.0
"""Days between two visits, on average; fewer where a shopper's visits would take more days than `STAY`."""
FROM_START, RECENT, RECENT_DAYS = 0.65, 0.15, 120
"""Shares of listings on sale from the start, and new in the last days; the others come in between."""
EVENTS: dict[str, float] = {"view": 0.55, "cart": 0.15, "purchase": 0.3}
RETURNED, TWICE, BOT_EVENTS = 0.05, 0.01, 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One row of interactions.csv; a return is a purchase of a negative quantity."""

    customer: str
    item: str
    time: datetime
    event: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Item:
    """A listing as shoppers see it: its values ("colour: navy"), its popularity b, and since when it is on sale."""

    values: tuple[str, ...]
    popularity: float
    since: datetime


@dataclass(frozen=True, slots=True)
class Visit:
    """What a shopper chose, and when."""

    time: datetime
    item: str


@dataclass(frozen=True, slots=True)
class Change:
    """A weight that is another after the visit at `time`."""

    time: datetime
    value: str
    weight: float


@dataclass(frozen=True, slots=True)
class Shopper:
    """A shopper's taste at the first visit, what became of it, and all visits in order."""

    taste: dict[str, float]
    changes: tuple[Change, ...]
    visits: tuple[Visit, ...]

    def taste_at(self, time: datetime) -> dict[str, float]:
        """Return the taste that decides a visit at `time`."""
        return self.taste | {change.value: change.weight for change in self.changes if change.time < time}


@dataclass(frozen=True, slots=True)
class Truth:
    """All that decides what shoppers take next, and which rows are no shopper's choice.

    `returns` and `twice` count rows: returns, and second copies of a row. `bot` is the customer with `bot_events` rows
    that follow no taste.
    """

    items: dict[str, Item]
    shoppers: dict[str, Shopper]
    bot: str
    bot_events: int
    returns: int
    twice: int


def plan_shoppers(listings: Sequence[Listing], shoppers: int, seed: int) -> tuple[tuple[Event, ...], Truth]:
    """Sample the interactions of `shoppers` with `listings`, in the order of their time, and the truth behind them."""
    items = _items(listings, seed)
    people = {name: _shopper(items, Random(f"shopper {seed} {name}")) for name in map(_name, range(1, shoppers + 1))}
    rng = Random(f"noise {seed}")
    rows = [event for name, shopper in people.items() for event in _events(name, shopper, seed)]
    returns = [back for event in rows if (back := _return(event, rng))]
    twice = [event for event in rows if rng.random() < TWICE]
    bot = _bot(_name(shoppers + 1), items, rng)
    truth = Truth(items, people, _name(shoppers + 1), len(bot), len(returns), len(twice))
    rows += [*returns, *twice, *bot]
    return tuple(sorted(rows, key=lambda event: (event.time, event.customer))), truth


def next_item_probabilities(truth: Truth, customer: str, time: datetime) -> dict[str, float]:
    """Return p_u(i, t): how probable each listing is as what `customer` takes in a visit at `time`; 0 if not on sale.

    Exact, given all that happened before `time`. Ranking by it is the best that any recommender can do. Raises KeyError
    for a customer who is no shopper.
    """
    shopper = truth.shoppers[customer]
    return _probabilities(truth.items, shopper.taste_at(time), shopper.visits, time)


def _probabilities(
    items: Mapping[str, Item], taste: Mapping[str, float], visits: Iterable[Visit], time: datetime
) -> dict[str, float]:
    lately = {visit.item for visit in visits if time - LATELY <= visit.time < time}
    season = {f"category: {category}": season_of(category, time) for category in PEAKS}
    weights = {}
    for name, item in items.items():
        if item.since > time:
            weights[name] = 0.0
            continue
        utility = item.popularity + season[item.values[0]] + sum(taste[value] for value in item.values)
        weights[name] = math.exp(utility / TEMPERATURE) * (AGAIN if name in lately else 1.0)
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def season_of(category: str, time: datetime) -> float:
    """Return s(t) of a category."""
    days = (time - START) / timedelta(days=1) - PEAKS[category]
    return SEASON * math.cos(2 * math.pi * days / 365)


def _name(number: int) -> str:
    return f"C{number:05d}"


def _items(listings: Sequence[Listing], seed: int) -> dict[str, Item]:
    """Return what shoppers see of each listing; price levels are thirds of the catalog."""
    prices = sorted(float(listing.price) for listing in listings)
    low, high = prices[len(prices) // 3], prices[2 * len(prices) // 3]
    items: dict[str, Item] = {}
    for listing in listings:
        rng = Random(f"item {seed} {listing.id}")
        price = float(listing.price)
        seen = listing.garment.attributes() | {"price": PRICES[(price >= low) + (price >= high)]}
        values = tuple(f"{key}: {seen[key]}" for key in SPREAD if key in seen)
        # There is always something on sale.
        since = _since(rng) if items else START
        items[listing.id] = Item(values, round(rng.gauss(0, POPULARITY), 3), since)
    return items


def _since(rng: Random) -> datetime:
    kind, part = rng.random(), rng.random()
    if kind < FROM_START:
        return START
    if kind < FROM_START + RECENT:
        return _later(END, -RECENT_DAYS * part)
    return _later(START, DAYS * part)


def _later(time: datetime, days: float) -> datetime:
    return time + timedelta(seconds=round(days * 86_400))


def _weight(value: str, rng: Random) -> float:
    return round(rng.gauss(0, SPREAD[value.partition(":")[0]]), 3)


def _values() -> dict[str, list[str]]:
    """Return every value that may have a weight, by attribute."""
    named = {key: [f"{key}: {price}" for price in PRICES] if key == "price" else [] for key in SPREAD}
    for category in CATEGORIES:
        for key, values in {"category": (category,), **values_of(category)}.items():
            if key in named:
                named[key] += [value for each in values if (value := f"{key}: {each}") not in named[key]]
    return named


def _shopper(items: Mapping[str, Item], rng: Random) -> Shopper:
    """Sample a shopper from the first visit to the last."""
    values = _values()
    taste = {value: _weight(value, rng) for key in values for value in values[key]}
    first, visits, changes = dict(taste), list[Visit](), list[Change]()
    length = min(LONGEST, max(1, round(rng.lognormvariate(math.log(LENGTH), LENGTH_SPREAD))))
    gap = min(GAP, STAY / length)
    time = _later(START, DAYS * rng.random())
    while len(visits) < length and time < END:
        chances = _probabilities(items, taste, visits, time)
        visits.append(Visit(time, rng.choices(list(chances), list(chances.values()))[0]))
        moved = _drift(taste, values, rng)
        taste |= moved
        changes += [Change(time, value, weight) for value, weight in moved.items()]
        time = _later(time, 0.001 + rng.expovariate(1 / gap))
    return Shopper(first, tuple(changes), tuple(visits))


def _drift(taste: Mapping[str, float], values: Mapping[str, list[str]], rng: Random) -> dict[str, float]:
    """Return the weights that are others after a visit."""
    moved = {}
    if rng.random() < DRIFT:
        value = rng.choice(values[rng.choice(list(values))])
        moved[value] = _weight(value, rng)
    if rng.random() < SWITCH:
        now = dict(taste) | moved
        favourite = max(values["category"], key=now.__getitem__)
        other = rng.choice([value for value in values["category"] if value != favourite])
        moved |= {favourite: now[other], other: now[favourite]}
    return moved


def _events(name: str, shopper: Shopper, seed: int) -> list[Event]:
    rng = Random(f"events {seed} {name}")
    found = []
    for visit in shopper.visits:
        kind = rng.choices(list(EVENTS), list(EVENTS.values()))[0]
        quantity = 2 if kind != "view" and rng.random() < 0.1 else 1
        found.append(Event(name, visit.item, visit.time, kind, quantity))
    return found


def _return(event: Event, rng: Random) -> Event | None:
    """Return the row that takes a purchase back some days later, now and then."""
    if event.event != "purchase" or rng.random() >= RETURNED:
        return None
    time = _later(event.time, rng.uniform(3, 20))
    return Event(event.customer, event.item, time, "purchase", -event.quantity) if time < END else None


def _bot(name: str, items: Mapping[str, Item], rng: Random) -> list[Event]:
    """Return the rows of a program that views whatever is on sale, every few seconds."""
    time = _later(START, DAYS * rng.uniform(0.3, 0.7))
    on_sale = [item for item in items if items[item].since <= time]
    found = []
    for _ in range(BOT_EVENTS):
        found.append(Event(name, rng.choice(on_sale), time, "view", 1))
        time += timedelta(seconds=rng.randint(1, 5))
    return found


def interactions_text(events: Iterable[Event]) -> str:
    """Return interactions as CSV, with times as ISO 8601 in UTC."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(COLUMNS)
    for event in events:
        writer.writerow([event.customer, event.item, f"{event.time:%Y-%m-%dT%H:%M:%SZ}", event.event, event.quantity])
    return held.getvalue()


def truth_text(truth: Truth) -> str:
    """Return the truth as JSON."""
    return TypeAdapter(Truth).dump_json(truth, indent=1).decode() + "\n"


def read_truth(shop: Path) -> Truth:
    """Read the truth that `write_shop` wrote into the folder `shop`.

    Raises OSError if there is none, pydantic's ValidationError if it is no truth.
    """
    return TypeAdapter(Truth).validate_json((shop / TRUTH).read_bytes())
