"""The table of what each stage brings, from the results that `stages` has left.

Each row's change is to the row that it goes on from, query by query. Two intervals, both 95 % and corrected for the
number of rows that have a change (Bonferroni; tables of other shops and of one kind of query are not counted):

    over products   bootstrap of products, each with its queries in all runs: what other products would give
    over runs       Student's t over the means of runs (shop and seed): what other seeds would give. Runs of one shop
                    have the same queries, so that over several shops it is narrower than what other shops would give
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as statistics

METRICS = ("recall@1", "recall@5", "recall@10", "mrr")
CLASSES = ("knn_accuracy", "nmi", "ari", "purity")
ROWS: Mapping[str, tuple[str, float | None]] = {
    # name: (what it goes on from, the paper's gain of R@1 in points)
    "base": ("", None),
    "base, attributes (both)": ("base", None),
    "InfoNCE": ("base", None),
    "constant margin": ("InfoNCE", None),
    "AGCL": ("InfoNCE", 3.01),
    "AGCL over constant": ("constant margin", None),
    "AGCL graded": ("InfoNCE", None),
    "AGCL graded over constant": ("constant margin", None),
    "+ attributes (query)": ("AGCL", 1.36),
    "both sides: plain": ("AGCL", None),
    "both sides: attributes": ("AGCL", 1.36),
    "ceiling: true (query)": ("AGCL", None),
    "ceiling: true (both)": ("both sides: attributes", None),
    "ceiling: all photos": ("AGCL", None),
    "control: another's (query)": ("AGCL", None),
    "control: another's (both)": ("both sides: attributes", None),
    "given: InfoNCE": ("base", None),
    "given: constant margin": ("given: InfoNCE", None),
    "given: AGCL": ("given: InfoNCE", 3.01),
    "given: AGCL over constant": ("given: constant margin", None),
    "given: AGCL graded": ("given: InfoNCE", None),
    "given: AGCL graded over constant": ("given: constant margin", None),
    "given: AGCL masked": ("given: InfoNCE", None),
    "folds: AGCL": ("base", None),
    "folds: + attributes": ("folds: AGCL", 1.36),
    "folds: RAR": ("folds: + attributes", 1.86),
    "folds: round 2 AGCL": ("folds: RAR", None),
    "folds: round 2 RAR": ("folds: round 2 AGCL", None),
    "folds: round 2": ("folds: RAR", None),
}
LEAST_RUNS = 4
"""Runs that an interval over runs needs."""
SAME_SCORES = {
    "AGCL over constant": "AGCL",
    "AGCL graded over constant": "AGCL graded",
    "given: AGCL over constant": "given: AGCL",
    "given: AGCL graded over constant": "given: AGCL graded",
    "folds: round 2": "folds: round 2 RAR",
}
"""Rows that compare a row above with another one."""


def table(work: Path, among: str) -> None:
    """Print the rows of each shop and of all rendered ones together."""
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted((work / "results").glob("*.json")):
        each = json.loads(path.read_text("utf-8"))
        merged.setdefault(path.stem.rpartition("-")[0], each)["rows"] |= each["rows"]
    results = list(merged.values())
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in results:
        groups.setdefault(f"{each['shop']} {json.dumps(each['set'])}", []).append(each)
        if each["phones"]:
            groups.setdefault(f"all rendered shops {json.dumps(each['set'])}", []).append(each)
    for title, runs in groups.items():
        _show(title, runs, among)
        if any(each["phones"] for each in runs):
            for side in ("phone", "studio"):
                _show(f"{title}, {side} asks", runs, among, side)


def _show(title: str, runs: list[dict[str, Any]], among: str, side: str = "") -> None:
    seeds = sorted({each["seed"] for each in runs})
    shops = sorted({each["shop"] for each in runs})
    print(f"\n### {title}: {len(shops)} shops, {len(seeds)} seeds, {among} split\n")
    heads = [
        "stage",
        "R@1",
        "R@5",
        "R@10",
        "MRR",
        "over",
        "R@1 change",
        "95 % over products",
        "95 % over runs",
        "paper",
    ]
    heads += [] if side else ["kNN", "NMI", "ARI", "purity"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    compared = sum(bool(other) for other, _ in ROWS.values())
    for row, (other, gain) in ROWS.items():
        stored = SAME_SCORES.get(row, row)
        mine = scores_of(runs, stored, among, side)
        if not mine:
            continue
        cells = [row, *(f"{100 * np.mean([values[:, i].mean() for values, _ in mine.values()]):.1f}" for i in range(4))]
        cells += [other, *change(mine, scores_of(runs, other, among, side), compared)] if other else [""] * 4
        cells.append("" if gain is None else f"{gain:+.2f}")
        if not side:
            kept = [each["rows"][stored].get("classes") or {} for each in runs if stored in each["rows"]]
            cells += [
                f"{100 * np.mean([own[name] for own in kept]):.1f}" if all(name in own for own in kept) else ""
                for name in CLASSES
            ]
        print(f"| {' | '.join(cells)} |")


Scores = dict[tuple[str, int], tuple[NDArray[np.float64], list[tuple[str, str]]]]


def scores_of(runs: Sequence[Mapping[str, Any]], row: str, among: str, side: str) -> Scores:
    """Return (metrics [queries, 4], each query with its shop and product) by shop and seed."""
    found: Scores = {}
    for each in runs:
        queries = each["rows"].get(row, {}).get(among, {}).get("queries", {})
        chosen = [q for q in sorted(queries) if not side or (q in each["phones"]) == (side == "phone")]
        if chosen:
            asked = [(q, f"{each['shop']} {each['identities'].get(q, q)}") for q in chosen]
            found[each["shop"], each["seed"]] = np.array([queries[q] for q in chosen]), asked
    return found


def change(mine: Scores, theirs: Scores, compared: int) -> list[str]:
    """Return the mean change of R@1 in points, its interval over products (bootstrap) and over runs (Student); nothing
    where no run has both. ValueError where they were asked other queries.
    """
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        return [""] * 3
    if other := [key for key in both if mine[key][1] != theirs[key][1]]:
        raise ValueError(f"{other[0]}: rows that were asked other queries can't be compared")
    apart = {key: 100 * (mine[key][0][:, 0] - theirs[key][0][:, 0]) for key in both}
    level = 1 - 0.05 / compared
    by_product: dict[str, list[float]] = {}
    for key in both:
        for (_, group), value in zip(mine[key][1], apart[key], strict=True):
            by_product.setdefault(group, []).append(value)
    sums = np.array([[sum(values), len(values)] for values in by_product.values()])
    rng = np.random.default_rng(0)
    drawn = sums[rng.integers(len(sums), size=(10_000, len(sums)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [50 * (1 - level), 50 * (1 + level)])
    means = [float(values.mean()) for values in apart.values()]
    over_runs = ""
    if len(means) >= LEAST_RUNS:
        half = statistics.t.ppf(0.5 + level / 2, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5
        over_runs = f"{np.mean(means) - half:+.1f} to {np.mean(means) + half:+.1f}"
    return [f"{np.mean(means):+.1f}", f"{low:+.1f} to {high:+.1f}", over_runs]


def margins(work: Path) -> None:
    """Print how near each training's loss gradient is to that of a constant margin."""
    for path in sorted((work / "results").glob("*.json")):
        each = json.loads(path.read_text("utf-8"))
        for name, margin in each["margins"].items():
            print(each["shop"], each["seed"], name, json.dumps(margin))
