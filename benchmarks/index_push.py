"""How long a push into Qdrant takes, what it takes on disk, what it finds, and how long a search there takes.

    python -m benchmarks.index_push [--count 100000] [--dimension 256] [--work FOLDER]

A catalog whose vectors are drawn like real ones (`search_latency.drawn`) is pushed into a folder by the engine itself,
as the command does it. Then: the same again (nothing changed), one product in a hundred changed, and a push of a tenth
of the catalog that is killed (-9) half way and goes on. A search is one query at a time, payloads included, plain and
with filters that 5, 20 and 50 % pass; recall@10 is by score, against exact search over the rows that pass.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.index.conditions import condition_of
from afmrl_cli.index.place import open_engine
from afmrl_cli.index.push import PushSummary, push_index
from afmrl_cli.listener import Silent
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.filters import parse_filters
from afmrl_cli.retrieval.index import exact_search
from afmrl_cli.retrieval.vectors import load_vectors
from afmrl_cli.scores import TIE
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

from .figures import record
from .search_latency import QUERIES, Drawn, K, drawn, new_twins

COMMAND = "afmrl index push"
COLORS = [f"color {i}" for i in range(20)]
FLAGS = {"embed.index": "flat", "search.hybrid": "no", "embed.batch_size": 4096}


def make_catalog(root: Path, count: int, changed: int = 0) -> None:
    """Listings with a title, a description, and six columns; the price of every `changed`-th one is another."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "description", "brand", "category", "price", "attr_color", "attr_fit"])
        for i in range(count):
            text = f"A product of its own kind, number {i}, with a description as long as they often are."
            price = 5 + i % 90 + (changed > 0 and i % changed == 0)
            row = [f"s{i}", f"Product {i}", text, f"Brand {i % 50}", f"Group/{i % 200}", price, COLORS[i * 7 % 20]]
            writer.writerow([*row, ("slim", "wide", "loose")[i % 3]])


def embedded(root: Path, vectors: NDArray[np.float32]) -> Workspace:
    encoder = Drawn(vectors)
    work = Workspace(
        CatalogFolder(root / "catalog.csv"),
        load_settings(None, FLAGS, BUILT_IN),
        Silent(),
        load_encoder=lambda: encoder,
    )
    embed_catalog(work)
    return work


def pushed(work: Workspace, place: Path) -> PushSummary:
    with open_engine(str(place), COMMAND, work.folder.root) as engine:
        return push_index(work, engine)


def _push(work: Workspace, place: Path) -> None:
    pushed(work, place)


def searched(work: Workspace, place: Path) -> None:
    vectors = load_vectors(work)
    queries = new_twins(np.asarray(vectors.matrix), QUERIES)
    colors = np.array([each.get("color", "") for each in vectors.listings.fields()])
    with open_engine(str(place), "afmrl search", work.folder.root) as engine:
        card = engine.open()
        assert card is not None
        for values in (0, 1, 4, 10):
            name = f"{100 * values // len(COLORS)} % filter" if values else "plain"
            rows = np.flatnonzero(np.isin(colors, COLORS[:values])) if values else None
            filters = parse_filters([f"color={color}" for color in COLORS[:values]], "--filter")
            condition = condition_of(filters, [], card.keys)
            exact, _ = exact_search(vectors.matrix, queries, K, rows)
            engine.nearest(queries[0], K, condition, card.effort)
            seconds, right = [], []
            for query, scores in zip(queries, exact, strict=True):
                began = time.perf_counter()
                near = engine.nearest(query, K, condition, card.effort)
                seconds.append(time.perf_counter() - began)
                right.append(sum(each.score >= scores[-1] - TIE for each in near) / len(scores))
            p50, p95 = np.percentile(seconds, [50, 95]) * 1000
            recall = float(np.mean(right))
            print(f"  search, {name:<10} p50 {p50:7.2f} ms   p95 {p95:7.2f} ms   recall@10 {recall:.4f}", flush=True)
            record(f"search in Qdrant of {len(vectors.matrix):,}, {name}, p50 ms", p50, recall=round(recall, 4))


def killed(work: Workspace, place: Path, whole: float) -> None:
    """Push in a process that is killed half way, and go on."""
    process = multiprocessing.get_context("fork").Process(target=_push, args=(work, place))
    process.start()
    time.sleep(whole / 2)
    process.kill()
    process.join()
    summary = pushed(work, place)
    print(
        f"  killed after {whole / 2:.1f} s of {whole:.1f}: {summary.products - summary.sent:,} of "
        f"{summary.products:,} were there, the rest took {summary.seconds:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--work", type=Path, help="folder for catalog and index, by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as temporary:
        root, place = Path(temporary) / "shop", Path(temporary) / "index"
        vectors = np.empty((given.count, given.dimension), np.float32)
        drawn(vectors)
        make_catalog(root, given.count)
        began = time.perf_counter()
        work = embedded(root, vectors)
        print(f"{given.count:,} x {given.dimension} (stored in {time.perf_counter() - began:.0f} s)", flush=True)
        worked = time.process_time()
        first = pushed(work, place)
        busy = time.process_time() - worked
        size, raw = (first.bytes or 0) / 2**30, vectors.nbytes / 2**30
        print(
            f"  push            {first.seconds:8.1f} s   {first.sent / first.seconds:,.0f} a second "
            f"({busy:.1f} s of processors)",
            flush=True,
        )
        print(f"  disk            {size:8.2f} GiB, {size / raw:.1f} x the vectors")
        low, high = first.interval
        print(f"  recall@10       {first.recall:8.4f} ({low:.4f} to {high:.4f}), effort {first.effort}")
        print(f"  peak memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.2f} GiB", flush=True)
        record(f"push of {given.count:,} x {given.dimension} into Qdrant, s", first.seconds, gib=round(size, 2))
        print(f"  nothing changed {pushed(work, place).seconds:8.1f} s", flush=True)
        searched(work, place)
        make_catalog(root, given.count, changed=100)
        again = pushed(embedded(root, vectors[::100]), place)
        print(f"  1 % changed     {again.seconds:8.1f} s, {again.sent:,} sent", flush=True)
        tenth = Path(temporary) / "tenth"
        make_catalog(tenth, given.count // 10)
        few = embedded(tenth, vectors[: given.count // 10])
        whole = pushed(few, Path(temporary) / "unbroken").seconds
        killed(few, Path(temporary) / "broken", whole)


if __name__ == "__main__":
    main()
