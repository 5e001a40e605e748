"""Where RAR has anything to gain: recall with and without attributes, and the spread of sampled groups.

    python -m benchmarks.rar_room WORK [--products 3000] [--seed 77] [--groups 128] [--kinds photos,text-to-photos]
                                       [--embedder NAME] [--generator NAME]

Renders a shop with variants and duplicates into WORK/shop (kept for next time) and prints, for each kind of query: the
held-out queries' recall without attributes, with what the generator writes greedily from what the query shows, with the
true attributes (all of them, and those that the query's text states) and with another product's; then, of groups of 8
answers sampled at temperature 1.0 for training queries, the share of groups whose rewards differ, by k, and mean, best
and worst recall within a group. Checkpoints are looked for in the shop's own store.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.generator import LocalGenerator, load_generator
from afmrl_cli.nano.garment import KEYS
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.rar.environment import Environment, make_environments, mean_recall
from afmrl_cli.rar.queries import KINDS
from afmrl_cli.rar.reward import Group, expected_recall, propose_k, propose_size, recall_at_k, share_with_variance
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

G, KS = 8, (1, 10, 50, 100)
PHOTO_SIZE = 112  # what the built-in model reduces photos to anyway


def true_attributes(folder: CatalogFolder, settings: Settings) -> dict[str, str]:
    """Attribute text from the catalog's own columns by the listing's id: what each query is really about."""
    return {
        product.id: write_attributes({key: product.given[key] for key in KEYS if product.given.get(key)})
        for product in read_products(folder, settings.catalog, Problems())
    }


def line(name: str, values: dict[str, float]) -> None:
    print(f"  {name:28s} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()), flush=True)


def held_out(
    environment: Environment, generator: LocalGenerator, truth: dict[str, str], stated: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Recall of the held-out queries by what is added to them."""
    numbers = range(len(environment.queries))
    answers = generator.generate([environment.request(number) for number in numbers])
    said = [environment.read(number, answer) for number, answer in zip(numbers, answers, strict=True)]
    real = [truth[query.id] for query in environment.queries]
    other = [real[(number + 1) % len(real)] for number in numbers]
    table = {
        "no attributes": environment.recall([None] * len(real), KS),
        "the generator's": environment.recall(said, KS),
        "true": environment.recall(real, KS),
        "true, as far as stated": environment.recall([stated[query.id] or None for query in environment.queries], KS),
        "another product's": environment.recall(other, KS),
    }
    for name, values in table.items():
        line(name, values)
    print(f"  valid {sum(text is not None for text in said) / len(said):.3f}", flush=True)
    return table


def sampled(environment: Environment, generator: LocalGenerator, groups: int) -> dict[str, object]:
    """Spread and best of G sampled answers to each of the first queries."""
    numbers = list(range(min(groups, len(environment.queries))))
    flat = [number for number in numbers for _ in range(G)]
    answers = generator.generate([environment.request(number) for number in flat])
    texts = [answer.text for answer in answers]
    cut = [answer.cut_off for answer in answers]
    rewards = environment.rewards(flat, texts, cut)
    ranks = [reward.ranks if reward.valid else None for reward in rewards]
    made: list[Group] = [ranks[i : i + G] for i in range(0, len(ranks), G)]
    distinct = np.mean([len({reward.text for reward in rewards[i : i + G]}) for i in range(0, len(rewards), G)])
    best, _ = propose_k(made)
    plain = mean_recall(environment.ranks(numbers, [None] * len(numbers)), KS)
    line("training queries, plain", plain)
    within: dict[str, dict[str, float]] = {}
    for name, pick in (("mean of 8", np.mean), ("best of 8", np.max), ("worst of 8", np.min)):
        kept = [[row for row in group if row is not None] for group in made]
        within[name] = {
            f"recall@{k}": float(np.mean([pick([recall_at_k(r, k) for r in group]) for group in kept if group]))
            for k in KS
        }
        line(name, within[name])
    spread = {f"k={k}": share_with_variance(made, k) for k in KS}
    line("groups with spread", spread)
    shaped = [len({min(row) for row in group if row is not None}) > 1 for group in made]
    print(f"  rank-shaped: {np.mean(shaped):.3f}; distinct texts of 8: {distinct:.1f}; ", end="")
    print(f"valid {np.mean([reward.valid for reward in rewards]):.3f}; proposed k {best}", flush=True)
    return {"plain": plain, "within": within, "spread": spread, "rank_spread": float(np.mean(shaped)), "k": best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--products", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--groups", type=int, default=128)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--embedder", default="")
    parser.add_argument("--generator", default="")
    wanted = parser.parse_args()
    shop = write_shop(
        wanted.work / "shop",
        ShopPlan(wanted.products, wanted.seed, text_queries=10, photo_queries=10, size=PHOTO_SIZE),
    )
    stated = {listing.id: write_attributes(listing.stated) for listing in shop.listings}
    folder = CatalogFolder(wanted.work / "shop" / "catalog.csv")
    checkpoints, bases, results = Checkpoints(folder.checkpoints), Bases(), {}
    for kind in wanted.kinds.split(","):
        flags: dict[str, object] = {
            "rar.query": kind,
            "rar.queries": wanted.groups,
            "rar.k": 10,
            "rar.validation_queries": 300,
            "model.embedder_checkpoint": wanted.embedder,
            "model.generator_checkpoint": wanted.generator,
        }
        settings = load_settings(None, flags, BUILT_IN)
        embedder = load_embedder(settings.model, settings.embed, checkpoints, bases=bases, catalog=settings.catalog)
        begin = time.monotonic()
        work = Workspace(folder, settings, Silent())
        made = make_environments(work, embedder, wanted.work / "run", Problems())
        rows, queries = len(made.heldout.gallery), len(made.heldout.queries)
        print(f"{kind}: {queries} held-out queries, gallery {rows}", flush=True)
        truth = true_attributes(folder, settings)
        greedy = load_generator(settings.model, settings.attributes, checkpoints, bases=bases)
        table = held_out(made.heldout, greedy, truth, stated)
        ranks = [query.rank for query in made.heldout.queries]
        sizes = [size for size in (100, 300, 1000, rows) if size <= rows]
        for k in KS:
            plain = {f"{size} rows": expected_recall(ranks, rows, size, k) for size in sizes if size > k}
            line(f"plain hit@{k} expected at", plain)
        print("  gallery for a plain hit of a half: " + ", ".join(f"k={k}: {propose_size(ranks, rows, k)}" for k in KS))
        warm = settings.attributes.model_copy(update={"temperature": 1.0})
        sampler = load_generator(settings.model, warm, checkpoints, bases=bases)
        results[kind] = {"heldout": table, "groups": sampled(made.train, sampler, wanted.groups)}
        print(f"  {time.monotonic() - begin:.0f} s", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
