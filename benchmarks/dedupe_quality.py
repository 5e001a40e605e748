"""Precision and recall of `afmrl dedupe` on real catalogs, beside vectors alone and text alone.

    python -m benchmarks.dedupe_quality FOLDER ... [--work DIR] [--embed] [--salts 3]

Each FOLDER holds catalog.csv, with `product_id` for the known duplicates. What a shop would not have (splits, labels,
sellers) is left out of a copy in DIR; --embed makes vectors of it with the built-in model first (kept in DIR).
Identities are split as always, fitted on train, the threshold chosen on validation, measured on test; the figures are
means over the splits of several salts. A folder with duplicates.csv (group,id) and no use of `product_id` has nothing
to fit on: scores are weighed by hand, all its pairs are counted, and precision is a lower bound, since only some
duplicates are listed there.

AP: area under precision over recall. R@P: the highest recall at which precision is that much. All systems see the same
candidates; a known duplicate that is none counts as missed.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.catalog.verdicts import Verdicts
from afmrl_cli.dedupe.features import NAMES
from afmrl_cli.dedupe.measure import Curve, Known, average_precision, choose_threshold, curve_of, what_is_known
from afmrl_cli.dedupe.run import Compared, compare_catalog, held_out_curve
from afmrl_cli.dedupe.score import by_hand, fit_scorer
from afmrl_cli.listener import Silent
from afmrl_cli.models.presets import model_id
from afmrl_cli.retrieval.vectors import CURRENT, Vectors, load_vectors
from afmrl_cli.settings import SplitSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder

SHOWN = ("id", "product_id", "title", "description", "category", "brand", "price", "image", "sizes")
THRESHOLDS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
Scores = NDArray[np.float64]


def copy_catalog(source: Path, work: Path) -> CatalogFolder:
    """The columns that a shop would have; identities of duplicates.csv in place of the catalog's own, if it is
    there."""
    place = work / source.name
    place.mkdir(parents=True, exist_ok=True)
    with (source / "catalog.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if (source / "duplicates.csv").is_file():
        with (source / "duplicates.csv").open(newline="", encoding="utf-8") as file:
            group = {row["id"]: f"group {row['group']}" for row in csv.DictReader(file)}
        for row in rows:
            row["product_id"] = group.get(row["id"], "")
    columns = [name for name in SHOWN if name in rows[0]]
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    if (source / "images").is_dir() and not (place / "images").exists():
        shutil.copytree(source / "images", place / "images")
    return CatalogFolder(place / "catalog.csv")


def compare(folder: CatalogFolder, embed: bool) -> Compared:
    settings = load_settings(folder.root, {}, {})
    if embed:
        subprocess.run([sys.executable, "-m", "afmrl_cli", "embed", str(folder.root), "--quiet"], check=True)
    vectors: Vectors | None = None
    if any(folder.embeddings.glob(f"*/{CURRENT}")):
        embedder = model_id(settings.model, "embedder", Checkpoints(folder.checkpoints))
        vectors = load_vectors(folder, embedder, settings)
    return compare_catalog(folder, settings, vectors, None, Silent())


def figures(curve: Curve) -> list[float]:
    precision = curve.right / curve.all
    recall = curve.right / curve.same
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    reached = [float(recall[precision >= aim].max(initial=0.0)) for aim in (0.9, 0.95)]
    return [average_precision(curve), float(f1.max(initial=0.0)), *reached]


def simple_systems(compared: Compared) -> dict[str, Scores]:
    column = {name: compared.features[:, NAMES.index(name)].astype(np.float64) for name in NAMES}
    alone = {"text alone (BM25 cosine)": column["text"], "titles alone (TF-IDF cosine)": column["title_cosine"]}
    if compared.sources.vectors is not None:
        alone["vectors alone (nano)"] = column["vector"]
    return {"weighed by hand": 1 / (1 + np.exp(-by_hand(compared.features))), **alone}


def measure(name: str, compared: Compared, salts: int) -> None:
    table: dict[str, list[list[float]]] = {}
    points: list[list[list[float]]] = []
    chosen: list[list[float]] = []
    products = compared.sources.listings.products
    for salt in range(salts):
        split = SplitSettings(salt=f"dedupe {salt}")
        known = what_is_known(products, compared.pairs, Verdicts({}, {}), split)
        training = known.training_weights(compared.pairs)
        scorer = fit_scorer(compared.features, compared.pairs, known.labels, training, len(products))
        scores = scorer.scores(compared.features, compared.pairs)
        for system, values in {"afmrl dedupe": scores, **simple_systems(compared)}.items():
            table.setdefault(system, []).append(figures(held_out_curve(values, compared.pairs, known)))
        curve = held_out_curve(scores, compared.pairs, known)
        points.append([[point["precision"], point["recall"]] for point in map(curve.at, THRESHOLDS)])
        at = curve.at(choose_threshold(_validation(scores, compared, known), 0.95)[0])
        chosen.append([at["threshold"], at["precision"], at["recall"], curve.same])
    same = int((known.labels == 1).sum())
    total = sum(known.same_weight)
    told = f"{len(products):,} listings, {total:,.0f} known duplicate pairs, {same / total:.3f} of them candidates"
    print(f"\n{name}: {told}; {np.mean(chosen, 0)[3]:.0f} test pairs a split, {salts} splits")
    _print_table(table)
    _print_curve(np.mean(points, 0))
    at = np.mean(chosen, 0)
    print(f"chosen for precision 0.95: threshold {at[0]:.2f}, precision {at[1]:.3f}, recall {at[2]:.3f}")


def _validation(scores: Scores, compared: Compared, known: Known) -> Curve:
    return curve_of(scores, known.labels, known.weights(compared.pairs, 1), known.same_weight[1])


def measure_listed(name: str, compared: Compared) -> None:
    """Where only some duplicates are known: everything counts, nothing is fitted."""
    products = compared.sources.listings.products
    known = what_is_known(products, compared.pairs, Verdicts({}, {}), SplitSettings())
    labels = np.where(known.labels == 1, 1, 0).astype(np.int8)
    total = sum(known.same_weight)

    def curve(values: Scores) -> Curve:
        return curve_of(values, labels, np.ones(len(values)), total)

    told = f"{len(products):,} listings, {total:,.0f} listed pairs, {labels.sum() / total:.3f} of them candidates"
    print(f"\n{name}: {told}; not fitted")
    systems = simple_systems(compared)
    _print_table({system: [figures(curve(values))] for system, values in systems.items()})
    hand = curve(systems["weighed by hand"])
    _print_curve(np.array([[at["precision"], at["recall"]] for at in map(hand.at, THRESHOLDS)]))
    print(f"at 0.5: {hand.at(0.5)['pairs']:.0f} pairs")


def _print_table(table: dict[str, list[list[float]]]) -> None:
    print("| system | AP | best F1 | R@P 0.90 | R@P 0.95 |\n| --- | ---: | ---: | ---: | ---: |")
    for system, rows in table.items():
        print(f"| {system} | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, 0)) + " |")


def _print_curve(points: NDArray[np.float64]) -> None:
    print("| threshold | " + " | ".join(map(str, THRESHOLDS)) + " |")
    for row, what in enumerate(("precision", "recall")):
        print(f"| {what} | " + " | ".join(f"{value:.3f}" for value in points[:, row]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--embed", action="store_true")
    parser.add_argument("--salts", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for source in given.folders:
            compared = compare(copy_catalog(source, given.work or Path(temporary)), given.embed)
            if (source / "duplicates.csv").is_file():
                measure_listed(source.name, compared)
            else:
                measure(source.name, compared, given.salts)


if __name__ == "__main__":
    main()
