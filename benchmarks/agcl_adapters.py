"""Does AGCL help? Adapters trained by `afmrl train-agcl` on the nano model, with everything but the loss equal.

    python -m benchmarks.agcl_adapters run WORK SHOP DATA [--sets shop] [--losses infonce,agcl] [--seeds 0,1,2,3,4]
    python -m benchmarks.agcl_adapters table WORK --among validation    # to choose a form by
    python -m benchmarks.agcl_adapters table WORK                       # on test, to confirm it

Every run is one line of WORK/runs.jsonl; one that stands there is not done again, so the command can be killed and
started anew. 30 % of the styles are held out: colour variants are on one side. Of these every second style is for
validation, the others are the test; the gallery are the listings of both.

shop          SHOP is what `afmrl_cli.nano.shop.write_shop` writes of `ShopPlan(3000)`: colour variants, 10 % twice. The
              first photo asks for a text: there is room, whereas nano finds photos by photos nearly always
shop-hidden   the same, but training does not know which listings are the same product
myntra        a listing's text asks for its photo; right is every listing of that title. DATA/myntra
luma          a photo alone asks for the listing with text and another photo. Each seed holds out other styles, since
              the set is small. DATA/luma
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afmrl_cli.catalog.product import Product, product_text
from afmrl_cli.evaluation.compare import Difference, differences
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.run import train_agcl
from afmrl_cli.training_settings import AgclSettings
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

KS = (1, 5, 10)
SETS = ("shop", "shop-hidden", "luma", "myntra")
PAPER: dict[str, object] = {"weights": "paper", "mask": True, "mask_margin": 0.1, "bm25_normalise": False}
FIXED = ("mask_margin", "bm25_normalise")
NEGATIVES = PAPER | {"weights": "negatives"}
LOSSES: dict[str, dict[str, object]] = {
    "infonce": {"loss": "infonce"},
    "agcl": PAPER,
    "agcl, positive unweighted": NEGATIVES,
    "agcl, positive unweighted, mask off": NEGATIVES | {"mask": False},
    "agcl, positive unweighted, margin 0.2": NEGATIVES | {"mask_margin": 0.2},
    "agcl, positive unweighted, B normalised": NEGATIVES | {"bm25_normalise": True},
    "agcl, mask off": PAPER | {"mask": False},
    "constant margin": {"weights": "constant"},
    "agcl, graded": {"weights": "graded"},
    "agcl, graded, mask on": {"weights": "graded", "mask": True},
}


@dataclass(frozen=True)
class Query:
    """`right` are rows of the gallery; `product` is what bootstrap draws; `among` validation or test."""

    name: str
    product: str
    among: str
    item: Item
    right: frozenset[int]


@dataclass(frozen=True)
class Held:
    """One direction of asking: queries and what is asked."""

    name: str
    queries: list[Query]
    gallery: list[Item]


@dataclass(frozen=True)
class Task:
    """A training catalog's rows, how it is trained on, and what is asked afterwards."""

    rows: list[dict[str, str]]
    photos: Path
    pairs: str
    held: list[Held]


def share(*parts: object) -> float:
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big") / 2**64


def held_out(style: str, salt: int = 0) -> bool:
    return share("held", salt, style) < 0.3


def role(style: str) -> str:
    return "validation" if share("role", style) < 0.5 else "test"


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "catalog.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def text_of(row: dict[str, str]) -> str:
    return product_text(Product("", row["title"], row["description"], row["category"], row["brand"]))


def first_photo(row: dict[str, str]) -> str:
    return row["image"].replace("|", ";").split(";")[0]


def without(row: dict[str, str], *columns: str) -> dict[str, str]:
    return {key: value for key, value in row.items() if key not in columns}


def held_queries(rows: list[dict[str, str]], folder: Path, same: str, style: str, way: str) -> Held:
    """Photos ask for texts, or texts for photos; right are the listings with the same value of column `same`."""
    photos = [Item("", (folder / first_photo(row),)) for row in rows]
    texts = [Item(text_of(row)) for row in rows]
    asking, gallery = (photos, texts) if way == "photo -> text" else (texts, photos)
    holders: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        holders.setdefault(row[same], []).append(i)
    queries = [
        Query(row["id"], row[same], role(row[style]), asking[i], frozenset(holders[row[same]]))
        for i, row in enumerate(rows)
    ]
    return Held(way, queries, gallery)


def shop(folder: Path, hidden: bool) -> Task:
    rows = [row | {"image": first_photo(row)} for row in read(folder)]
    train = [row for row in rows if not held_out(row["group_id"])]
    if hidden:
        train = [without(row, "product_id", "group_id") for row in train]
    asked = [row for row in rows if held_out(row["group_id"])]
    return Task(train, folder, "image-text", [held_queries(asked, folder, "product_id", "group_id", "photo -> text")])


def myntra(folder: Path) -> Task:
    # Listings of one style and title are one product here: what a title asks for.
    rows = [row | {"product_id": row["title"]} for row in read(folder)]
    asked = [row for row in rows if held_out(row["style_id"])]
    train = [without(row, "style_id", "family", "sha1", "year") for row in rows if not held_out(row["style_id"])]
    return Task(train, folder, "image-text", [held_queries(asked, folder, "product_id", "style_id", "text -> photo")])


def luma(folder: Path, seed: int) -> Task:
    rows = read(folder)
    more = {row["product_id"]: row["image"] for row in rows if row["split"] == "query"}
    shown = [row for row in rows if row["split"] == "gallery"]
    train = [
        without(row, "split", "source_images", "style_id", "sizes")
        | {"image": ";".join(filter(None, (first_photo(row), more.get(row["product_id"], ""))))}
        for row in shown
        if not held_out(row["style_id"], seed)
    ]
    asked = [row for row in shown if held_out(row["style_id"], seed)]
    queries = [
        Query(photo, row["product_id"], role(row["style_id"]), Item("", (folder / photo,)), frozenset({i}))
        for i, row in enumerate(asked)
        for photo in more.get(row["product_id"], "").split(";")
        if photo
    ]
    gallery = [Item(text_of(row), (folder / first_photo(row),)) for row in asked]
    return Task(train, folder, "photos,image-text", [Held("photo -> listing", queries, gallery)])


def make_task(name: str, shop_folder: Path, data: Path, seed: int) -> Task:
    if name.startswith("shop"):
        return shop(shop_folder, name.endswith("hidden"))
    return myntra(data / "myntra") if name == "myntra" else luma(data / "luma", seed)


def write_catalog(task: Task, place: Path) -> CatalogFolder:
    """The training catalog, photos linked. What an earlier run stored is cleared away."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "images").symlink_to((task.photos / "images").resolve())
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(task.rows[0]))
        writer.writeheader()
        writer.writerows(task.rows)
    return CatalogFolder(place / "catalog.csv")


def first_right(embedder: Embedder, held: Held) -> list[int]:
    """Of each query: how many listings stand before the first right one."""
    vectors = embedder.encode([query.item for query in held.queries], instruction="Find this product:")
    gallery = embedder.encode(held.gallery, instruction="Represent this product:")
    scores = vectors @ gallery.T
    right = np.array([[i in query.right for i in range(len(held.gallery))] for query in held.queries])
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    # A wrong one that scores the same stands before: equal texts are no success.
    return [int(n) for n in ((scores >= best) & ~right).sum(1)]


def one_run(name: str, loss: str, seed: int, wanted: argparse.Namespace) -> dict[str, Any]:
    task = make_task(name, wanted.shop, wanted.data, seed)
    folder = write_catalog(task, wanted.work / "training")
    given = [key.removeprefix("attr_") for key in task.rows[0] if key.startswith("attr_")]
    shared: dict[str, object] = {
        "model.device": "cpu",
        "model.max_text_tokens": 24,
        "catalog.allow_outside": True,
        "split.validation": 0.0,
        "split.test": 0.0,
        "agcl.attributes": "given",
        "agcl.given": ",".join(given),
        "agcl.pairs": task.pairs,
        "agcl.batch_size": wanted.batch_size,
        "agcl.steps": wanted.steps,
        "agcl.temperature": wanted.temperature,
        "agcl.chunk_tokens": 8192,
        "agcl.validate_every": 10_000,
        "agcl.save_every": 10_000,
        "agcl.seed": seed,
    }
    model = load_settings(None, shared, BUILT_IN).model
    told: dict[str, Any] = {}
    begin = time.monotonic()
    if loss != "untrained":
        for key in FIXED:  # no settings: changed in this process alone
            setattr(AgclSettings, key, (PAPER | LOSSES[loss])[key])
        chosen = {f"agcl.{key}": value for key, value in LOSSES[loss].items() if key not in FIXED}
        settings = load_settings(None, shared | chosen, BUILT_IN)
        summary = train_agcl(Workspace(folder, settings, Silent()))
        assert summary is not None
        told = {"pairs": summary.plan["pairs"], "similar": similar(summary.run, task)}
        told["similar_share"] = summary.details["negatives"]["too_similar_share"]
        model = settings.model.model_copy(update={"embedder_checkpoint": summary.checkpoint})
    trained = time.monotonic() - begin
    settings = load_settings(None, shared, BUILT_IN)
    embedder = load_embedder(model, settings.embed, Checkpoints(folder.checkpoints), catalog=settings.catalog)
    found = {
        held.name: [
            [query.name, query.product, query.among, place]
            for query, place in zip(held.queries, first_right(embedder, held), strict=True)
        ]
        for held in task.held
    }
    seconds = {"train": round(trained, 1), "ask": round(time.monotonic() - begin - trained, 1)}
    return {**key_of(name, loss, seed, wanted), **told, "listings": len(task.rows), "seconds": seconds, "asked": found}


def similar(run: Path, task: Task) -> list[int]:
    """[pairs of listings above the mask's margin, of these listings of one product]."""
    product = {row["id"]: row.get("product_id", "") for row in task.rows}
    product |= {row["id"]: row["product_id"] for row in read(task.photos) if row["id"] in product}
    with (run / "similar_pairs.csv").open(newline="", encoding="utf-8") as file:
        pairs = [list(row.values())[:2] for row in csv.DictReader(file)]
    return [len(pairs), sum(product[a] == product[b] for a, b in pairs)]


def key_of(name: str, loss: str, seed: int, wanted: argparse.Namespace) -> dict[str, Any]:
    how = {"temperature": wanted.temperature, "steps": wanted.steps, "batch_size": wanted.batch_size}
    return {"set": name, "loss": loss, "seed": seed, **how}


def load_runs(work: Path) -> list[dict[str, Any]]:
    file = work / "runs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def run(wanted: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    wanted.work.mkdir(parents=True, exist_ok=True)
    done = [{key: row[key] for key in key_of("", "", 0, wanted)} for row in load_runs(wanted.work)]
    for seed in map(int, wanted.seeds.split(",")):
        for name in wanted.sets.split(","):
            for loss in wanted.losses.split(";"):
                if key_of(name, loss, seed, wanted) in done:
                    continue
                row = one_run(name, loss, seed, wanted)
                with (wanted.work / "runs.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                means = {way: np.mean([place == 0 for *_, place in asked]) for way, asked in row["asked"].items()}
                shown = {way: round(100 * float(mean), 2) for way, mean in means.items()}
                print(name, loss, seed, wanted.temperature, row["seconds"], row.get("similar"), shown, flush=True)


def hits(runs: list[dict[str, Any]], way: str, among: str) -> dict[tuple[str, str], dict[int, NDArray[np.float64]]]:
    """{(query, product): {seed: [hit@k]}}."""
    found: dict[tuple[str, str], dict[int, NDArray[np.float64]]] = {}
    for each in runs:
        for name, product, part, place in each["asked"][way]:
            if part == among:
                found.setdefault((name, product), {})[each["seed"]] = np.array([float(place < k) for k in KS])
    return found


def compared(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], way: str, among: str) -> list[Difference]:
    """Paired by query and seed; a query's figure is its mean over the seeds that asked it."""
    left, right = hits(ours, way, among), hits(theirs, way, among)
    tables: tuple[list[Any], list[Any]] = ([], [])
    groups = []
    for query in left:
        seeds = left[query].keys() & right.get(query, {}).keys()
        if seeds:
            for table, side in zip(tables, (left, right), strict=True):
                table.append(np.mean([side[query][seed] for seed in seeds], axis=0))
            groups.append(query[1])
    names = [f"R@{k}" for k in KS]
    first, second = np.array(tables[0]), np.array(tables[1])
    return differences(names, first, second, groups, draws=2000, confidence=0.95, seed=0)


def gain(difference: Difference) -> str:
    """In points, with a star where it is more than luck."""
    low, high = (f"{100 * end:+.2f}" for end in (difference.low, difference.high))
    star = " *" if difference.verdict in ("better", "worse") else ""
    return f"{100 * difference.difference:+.2f} ({low} to {high}){star}"


def table(wanted: argparse.Namespace) -> None:
    runs = load_runs(wanted.work)
    blocks = sorted({(r["set"], way, r["steps"], r["batch_size"]) for r in runs for way in r["asked"]})
    for name, way, steps, batch in blocks:
        here = [r for r in runs if (r["set"], r["steps"], r["batch_size"]) == (name, steps, batch)]
        asked = here[0]["asked"][way]
        count = sum(part == wanted.among for *_, part, _ in asked)
        print(f"\n{name}, {way}: {steps} steps of {batch}, {count} queries ({wanted.among}), gallery {len(asked)}\n")
        against = " | ".join(f"R@{k} against InfoNCE" for k in KS)
        print(f"| loss | tau | seeds | R@1 | R@5 | R@10 | {against} |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        order = ["untrained", *LOSSES]
        forms = sorted({(r["temperature"], order.index(r["loss"])) for r in here})
        for tau, at in forms:
            mine = [r for r in here if (r["loss"], r["temperature"]) == (order[at], tau)]
            plain = [r for r in here if (r["loss"], r["temperature"]) == ("infonce", tau)]
            each = [np.mean([h[r["seed"]] for h in hits([r], way, wanted.among).values()], axis=0) for r in mine]
            figures = 100 * np.mean(each, axis=0)
            spread = 100 * np.std(each, axis=0, ddof=1) if len(each) > 1 else np.zeros(len(KS))
            cells = [f"{figure:.1f} ± {around:.1f}" for figure, around in zip(figures, spread, strict=True)]
            told = [""] * len(KS)
            if at > 1 and plain:
                told = [gain(each) for each in compared(mine, plain, way, wanted.among)]
            print(f"| {order[at]} | {tau} | {len(mine)} | {' | '.join(cells)} | {' | '.join(told)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("run")
    train.add_argument("work", type=Path)
    train.add_argument("shop", type=Path)
    train.add_argument("data", type=Path)
    train.add_argument("--sets", default=",".join(SETS))
    train.add_argument("--losses", default="untrained;infonce;agcl;agcl, positive unweighted", help="; in between")
    train.add_argument("--seeds", default="0,1,2,3,4")
    train.add_argument("--steps", type=int, default=16)
    train.add_argument("--batch-size", type=int, default=64)
    train.add_argument("--temperature", type=float, default=0.05)
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    show.add_argument("--among", choices=("validation", "test"), default="test")
    wanted = parser.parse_args()
    if wanted.command == "run":
        run(wanted)
    else:
        table(wanted)


if __name__ == "__main__":
    main()
