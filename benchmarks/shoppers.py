"""How predictable the shoppers of rendered shops are: what the best possible ranking finds, and simple ones.

    python -m benchmarks.shoppers [--products 200] [--shoppers 600] [--seeds 1,2,3,4,5]

For each of the last tenth of all visits (one split by time for everybody) all listings of the shop are ranked, those
not yet on sale included, by what was before the visit:

    oracle      the true probability of each listing, which no recommender knows
    undrifted   the same with the taste of the shopper's first visit: what ignoring the drift costs
    inferred    the same with the taste that is most probable given the shopper's visits before, by one who knows the
                formula of `afmrl_cli.nano.shoppers`, its spreads and the true popularity: about what can be learnt
    popularity  how often a listing was taken before the split

HR@k is the share of visits whose listing ranks among the first k, nDCG@k the mean of 1/log2(rank + 1) where it does.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.nano.shop import ShopPlan, plan_listings
from afmrl_cli.nano.shoppers import (
    AGAIN,
    LATELY,
    PEAKS,
    SPREAD,
    TEMPERATURE,
    Shopper,
    Truth,
    next_item_probabilities,
    plan_shoppers,
    season_of,
)

LAST, CUT = 0.1, 10
FADE, STEPS, RATE = 0.93, 60, 0.1
Floats = NDArray[np.float64]
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Predictability:
    """Metrics over the last visits, by system; how many visits, by new customers and of new listings among them."""

    visits: int
    new_customers: int
    new_items: int
    hr: dict[str, float]
    ndcg: dict[str, float]


def predictability(truth: Truth) -> Predictability:
    """Rank all listings for each of the last visits by each system."""
    visits = sorted((visit.time, name, visit.item) for name, one in truth.shoppers.items() for visit in one.visits)
    split = len(visits) - max(1, round(LAST * len(visits)))
    before = Counter(item for _, _, item in visits[:split])
    customers = {name for _, name, _ in visits[:split]}
    inference = _Inference(truth)
    systems: dict[str, Callable[[str, datetime], Scores]] = {
        "oracle": lambda name, time: next_item_probabilities(truth, name, time),
        "undrifted": lambda name, time: next_item_probabilities(_undrifted(truth, name), name, time),
        "inferred": lambda name, time: inference.scores(truth.shoppers[name], time),
        "popularity": lambda name, time: before,
    }
    ranks = {
        system: [_rank(scores(name, time), truth, item) for time, name, item in visits[split:]]
        for system, scores in systems.items()
    }
    return Predictability(
        len(visits) - split,
        sum(name not in customers for _, name, _ in visits[split:]),
        sum(not before[item] for *_, item in visits[split:]),
        {system: mean(rank <= CUT for rank in found) for system, found in ranks.items()},
        {system: mean((rank <= CUT) / math.log2(rank + 1) for rank in found) for system, found in ranks.items()},
    )


def _undrifted(truth: Truth, name: str) -> Truth:
    return replace(truth, shoppers={name: replace(truth.shoppers[name], changes=())})


class _Inference:
    """Infers tastes from what was taken, by one who knows how shoppers choose."""

    def __init__(self, truth: Truth) -> None:
        self.items = truth.items
        self.row = {name: n for n, name in enumerate(truth.items)}
        values = sorted({value for item in truth.items.values() for value in item.values})
        spread = [SPREAD[value.partition(":")[0]] for value in values]
        held = [[value in item.values for value in values] for item in truth.items.values()]
        # [listing, value], for weights in units of their spread
        self.values = np.array(held) * np.array(spread) / TEMPERATURE

    def shared(self, time: datetime) -> Floats:
        """Return b + s(t) of every listing; -inf if it isn't on sale."""
        season = {f"category: {category}": season_of(category, time) for category in PEAKS}
        utility = [
            item.popularity + season[item.values[0]] if item.since <= time else -np.inf for item in self.items.values()
        ]
        return np.array(utility) / TEMPERATURE

    def scores(self, shopper: Shopper, time: datetime) -> Scores:
        """Rank by the taste that is most probable given the visits before `time`; older ones count less."""
        past = [visit for visit in shopper.visits if visit.time < time]
        shared = [self.shared(visit.time) for visit in past]
        taste = np.zeros(self.values.shape[1])
        for _ in range(STEPS):
            gradient = -taste
            for age, (visit, base) in enumerate(zip(reversed(past), reversed(shared), strict=True)):
                chances = np.exp(base + self.values @ taste)
                gradient += FADE**age * (self.values[self.row[visit.item]] - chances @ self.values / chances.sum())
            taste += RATE * gradient
        weights = np.exp(self.shared(time) + self.values @ taste)
        lately = {visit.item for visit in past if visit.time >= time - LATELY}
        return {name: float(weights[n]) * (AGAIN if name in lately else 1.0) for name, n in self.row.items()}


def _rank(scores: Scores, truth: Truth, item: str) -> int:
    """Return the rank of `item`; of equal scores the catalog's order decides."""
    order = sorted(truth.items, key=lambda name: -scores.get(name, 0.0))
    return order.index(item) + 1


def main() -> None:
    """Print the metrics, averaged over shops of several seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--shoppers", type=int, default=600)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    wanted = parser.parse_args()
    found = []
    for seed in map(int, wanted.seeds.split(",")):
        listings = plan_listings(ShopPlan(wanted.products, seed))
        _, truth = plan_shoppers(listings, wanted.shoppers, seed)
        one = predictability(truth)
        found.append(one)
        print(
            f"seed {seed}: {len(listings)} listings, {one.visits} visits ranked, {one.new_customers} of them by new "
            f"customers, {one.new_items} of new listings"
        )
    print(f"\n{'':12}{'HR@10':>8}{'lowest':>8}{'highest':>8}{'nDCG@10':>9}")
    for system in found[0].hr:
        hr, ndcg = [one.hr[system] for one in found], [one.ndcg[system] for one in found]
        print(f"{system:12}{mean(hr):8.3f}{min(hr):8.3f}{max(hr):8.3f}{mean(ndcg):9.3f}")


if __name__ == "__main__":
    main()
