"""How well recommending foretells what shoppers of rendered shops take next: every system, means over shops.

    python -m benchmarks.recommend WORK [--products 200] [--shoppers 600] [--seeds 1,2,3,4,5]

For each seed a shop is drawn into WORK, `afmrl embed` and `afmrl eval-recommender` run on it as a user runs them, and
the JSON document stays in WORK/results: a second call measures only what is missing. Remove a result to measure anew.

Printed is Markdown: the mean over the shops of HR@10 and nDCG@10 over the whole catalog with its 95 % interval
(Student's t over shops: what another shop of this kind would have), HR@10 of new items and of new customers, coverage;
then what each system has more than `fused`, shop by shop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.store.files import write_json

from . import BUILT_IN

Content = dict[str, Any]


def afmrl(*words: str) -> str:
    """Run a command in a process of its own and return what it prints."""
    command = [sys.executable, "-m", "afmrl_cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | BUILT_IN).stdout


def result(work: Path, products: int, shoppers: int, seed: int) -> Content:
    """Measure the shop of a seed, or return what was measured before."""
    name = f"{products}-{shoppers}-{seed}"
    file, shop = work / "results" / f"{name}.json", work / name
    if not file.is_file():
        write_shop(shop, ShopPlan(products, seed, shoppers=shoppers))
        afmrl("embed", str(shop))
        write_json(file, json.loads(afmrl("eval-recommender", str(shop), "--json")))
    content: Content = json.loads(file.read_text("utf-8"))
    return content


def span(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values that are normally distributed; the value itself for one alone."""
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return mean(values) - half, mean(values) + half


def with_interval(values: Sequence[float], sign: str = "") -> str:
    """Return the mean and its interval, for people."""
    low, high = span(values)
    return f"{mean(values):{sign}.3f} | {low:{sign}.3f} to {high:{sign}.3f}"


def print_table(found: Sequence[Content]) -> None:
    """Print all systems, then their differences to the main one."""
    by_shop = [{system["system"]: system for system in content["systems"]} for content in found]
    print("\n| system | HR@10 | | nDCG@10 | | new items, HR@10 | new customers, HR@10 | coverage@10 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in by_shop[0]:
        rows = [shop[name] for shop in by_shop]
        cells = [with_interval([row["metrics"][metric] for row in rows]) for metric in ("hr@10", "ndcg@10")]
        for key in ("new_items", "new_customers"):
            values = [value for row in rows if (value := row["slices"][key]["metrics"]["hr@10"]) is not None]
            cells.append(f"{mean(values):.3f}" if values else "-")
        print(f"| {name} | {' | '.join(cells)} | {mean(row['coverage@10'] for row in rows):.3f} |")
    main = found[0]["main"]
    print(f"\n| more than {main} | HR@10 | | nDCG@10 | |\n| --- | --- | --- | --- | --- |")
    for name in by_shop[0]:
        if name != main:
            gains = [
                with_interval([shop[name]["metrics"][metric] - shop[main]["metrics"][metric] for shop in by_shop], "+")
                for metric in ("hr@10", "ndcg@10")
            ]
            print(f"| {name} | {' | '.join(gains)} |")


def main() -> None:
    """Measure the shops, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--shoppers", type=int, default=600)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    wanted = parser.parse_args()
    found = []
    for seed in map(int, wanted.seeds.split(",")):
        content = result(wanted.work, wanted.products, wanted.shoppers, seed)
        sizes = content["slices"]
        print(
            f"seed {seed}: {content['listings']} listings, {content['questions']} questions of {content['customers']} "
            f"customers, {sizes['new_items']['questions']} about new items, {sizes['new_customers']['questions']} by "
            "new customers",
            flush=True,
        )
        found.append(content)
    print_table(found)


if __name__ == "__main__":
    main()
