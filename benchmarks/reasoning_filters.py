"""What the filters of reasoning keep, on rendered shops, written and judged by the rule of `benchmarks.reasoner`.

    python -m benchmarks.reasoning_filters [--products 200] [--shoppers 300] [--cases 400] [--seeds 1,2,3] [--wrong 0.3]

Cases are visits of the shop's shoppers with at least three visits before: the texts of these, title and attributes,
then the target among nine others. For all that was written, for what each filter keeps by itself, and for what all keep
or leave out together, printed is how many they are, how many of these the rule had made wrong, and how often the rest
point to the right one: the share of cases in which the target has the most of the criteria among it and nine *other*
listings that the judge has not seen (ties share), which is 10 % by chance. Read with care: who keeps cases by their
target keeps the predictable ones, so a share that rises by the judge's filter is part selection, part better reasoning;
the share of wrong ones is free of that.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean, stdev

from afmrl_cli.listener import Silent
from afmrl_cli.nano.garment import KEYS
from afmrl_cli.nano.shop import Listing, ShopPlan, catalog_text, plan_listings
from afmrl_cli.nano.shoppers import plan_shoppers
from afmrl_cli.recommender.reasoning import Case, ReasoningRun, write_reasonings
from afmrl_cli.recommender.reasoning_filter import close_to_history, names_target
from afmrl_cli.recommender.reasoning_prompt import writing_prompt
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import hash_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .reasoner import Faults, matches, reasoner

BEFORE, LATEST, OTHERS = 3, 9, 9


@dataclass(frozen=True)
class Row:
    """One set of reasonings: how many, the share of wrong ones, and how often they point to the target."""

    number: int
    wrong: float
    right: float


def text_of(listing: Listing) -> str:
    """Return a listing as the recommender reads it: its title, and its attributes in the shop's columns."""
    attributes = listing.garment.attributes()
    values = dict.fromkeys(attributes[key] for key in KEYS if attributes.get(key, "none") != "none")
    return f"{listing.title}; {', '.join(values)}"


def cases_of(
    listings: tuple[Listing, ...], shoppers: int, number: int, seed: int
) -> tuple[list[Case], dict[str, list[str]]]:
    """Return cases, and for each the listings that its target is compared with afterwards."""
    _, truth = plan_shoppers(listings, shoppers, seed)
    texts = {listing.id: text_of(listing) for listing in listings}
    titles = {listing.id: listing.title for listing in listings}
    cases, unseen = [], {}
    for name, shopper in truth.shoppers.items():
        for place, visit in enumerate(shopper.visits[BEFORE:], BEFORE):
            history = [each.item for each in shopper.visits[max(0, place - LATEST) : place]]
            key = hash_json([name, visit.time.isoformat(), visit.item])[:16]
            rng = Random(f"candidates {seed} {key}")
            target, taken = texts[visit.item], {texts[item] for item in history}
            others = sorted({text for text in texts.values() if text != target and text not in taken})
            drawn = rng.sample(others, 2 * OTHERS)
            shown = [target, *drawn[:OTHERS]]
            rng.shuffle(shown)
            names = (titles[visit.item], visit.item)
            cases.append(Case(key, tuple(texts[item] for item in history), tuple(shown), target, names))
            unseen[key] = drawn[OTHERS:]
    chosen = Random(f"cases {seed}").sample(cases, min(number, len(cases)))
    return chosen, unseen


def points_to(reasoning: str, target: str, others: list[str]) -> float:
    """Return the chance that the best match among the target and `others` is the target."""
    own = matches(reasoning, target)
    scores = [matches(reasoning, other) for other in others]
    return 0.0 if max(scores) > own else 1 / (1 + scores.count(own))


def measure(
    folder: Path, plan: ShopPlan, shoppers: int, number: int, faults: Faults
) -> tuple[dict[str, Row], dict[str, int]]:
    """Write and filter reasoning on one shop; return the rows of the table and the counts."""
    listings = plan_listings(plan)
    folder.mkdir()
    (folder / "catalog.csv").write_text(catalog_text(listings), "utf-8")
    cases, unseen = cases_of(listings, shoppers, number, plan.seed)
    by_key = {case.key: case for case in cases}
    with reasoner(faults) as address:
        flags = {"reasoning.endpoint": address, "reasoning.endpoint_model": "rule"}
        work = Workspace(CatalogFolder(folder / "catalog.csv"), load_settings(folder, flags, BUILT_IN), Silent())
        found = write_reasonings(work, cases)
        run = ReasoningRun(work, by_key)
        written = run.write()
        verdicts = run.verdicts(written)
        close = close_to_history(run.similarities(written))
    agreed = work.settings.reasoning.agreed
    keeps: Mapping[str, Callable[[str], bool]] = {
        "written": lambda key: True,
        "names no target": lambda key: not names_target(written[key], (by_key[key].target, *by_key[key].names)),
        "like the history": lambda key: key in close,
        "judge finds the target": lambda key: verdicts[key] >= agreed,
        "kept by all": lambda key: key in found.kept,
        "left out": lambda key: key not in found.kept,
    }
    wrong = {key: faults.of(writing_prompt(case.history)) == "wrong" for key, case in by_key.items()}
    points = {key: points_to(text, by_key[key].target, unseen[key]) for key, text in written.items()}
    rows = {}
    for name, keep in keeps.items():
        keys = [key for key in written if keep(key)]
        if keys:
            rows[name] = Row(len(keys), mean(wrong[key] for key in keys), mean(points[key] for key in keys))
    return rows, found.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--shoppers", type=int, default=300)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--wrong", type=float, default=Faults().wrong)
    chosen = parser.parse_args()
    tables = []
    for seed in map(int, chosen.seeds.split(",")):
        with tempfile.TemporaryDirectory() as place:
            plan = ShopPlan(chosen.products, seed=seed)
            rows, counts = measure(Path(place, "shop"), plan, chosen.shoppers, chosen.cases, Faults(chosen.wrong))
        tables.append(rows)
        print(
            f"seed {seed}: " + ", ".join(f"{count} {reason}" for reason, count in counts.items() if count), flush=True
        )
    print("\n| | reasonings | of these wrong, % | point to the target, % |\n| --- | --- | --- | --- |")
    for name in tables[0]:
        found = [rows[name] for rows in tables if name in rows]
        cells = [f"{mean(row.number for row in found):.0f}", _share([row.wrong for row in found])]
        print(f"| {' | '.join([name, *cells, _share([row.right for row in found])])} |")
    print(f"\nMeans over {len(tables)} shops, ± the standard deviation over them.")


def _share(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
