"""Precision and recall of `afmrl dedupe` on real catalogs, beside vectors alone and text alone.

    python -m benchmarks.dedupe_quality FOLDER ... [--work DIR] [--embed] [--salts 3]
    python -m benchmarks.dedupe_quality FOLDER ... --forms [--work DIR] [--embed] [--salts 5]
    python -m benchmarks.dedupe_quality FOLDER ... --rerank CHECKPOINT

Each FOLDER holds catalog.csv, with `product_id` for the known duplicates. What a shop would not have (splits, labels,
sellers) is left out of a copy in DIR; --embed makes vectors of it with the built-in model first (kept in DIR).
Identities are split as always, fitted on train, the threshold chosen on validation, measured on test; the figures are
means over the splits of several salts. A folder with duplicates.csv (group,id) and no use of `product_id` has nothing
to fit on: scores are weighed by hand, all its pairs are counted, and precision is a lower bound, since only some
duplicates are listed there.

AP: area under precision over recall. F1: at the threshold that has the best F1 on validation identities; its interval
(95 %) is a bootstrap over the test identities of all splits together. R@P: the highest recall at which precision is
that much. All systems see the same candidates; a known duplicate that is none counts as missed. Error: how far
predicted and observed lie apart on held-out pairs that score 0.1 and more (calibrated: up to 0.05).

--forms prints what the form of the score and its features were chosen by: AP on the validation identities, of which no
pair was fitted on, for several forms and for the chosen one without some features. No test identity is looked at.

--rerank measures `dedupe --rerank` beside dedupe without it, with the vectors and the reranker that lie in each FOLDER
(`benchmarks.rerank run` leaves such shops): on the one split that the reranker was trained under, test identities of
all folders together. Systems see the same candidates; the change of F1 has the interval of the same draws.
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

from afmrl_cli.catalog.read import count_rows
from afmrl_cli.catalog.splits import with_shares
from afmrl_cli.catalog.verdicts import Verdicts
from afmrl_cli.dedupe.features import NAMES
from afmrl_cli.dedupe.measure import (
    SAME,
    Curve,
    Known,
    average_precision,
    choose_threshold,
    curve_of,
    held_out_curve,
    reliability,
    what_is_known,
)
from afmrl_cli.dedupe.reread import open_pairs, reread
from afmrl_cli.dedupe.run import Compared, compare_catalog
from afmrl_cli.dedupe.score import CHOSEN, Form, by_hand, fit_scorer
from afmrl_cli.listener import Silent
from afmrl_cli.retrieval.vectors import CURRENT, Vectors, load_vectors
from afmrl_cli.settings import SplitSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

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
    work = Workspace(folder, load_settings(folder.root, {}, BUILT_IN), Silent())
    if embed:
        subprocess.run([sys.executable, "-m", "afmrl_cli", "embed", str(folder.root), "--quiet"], check=True)
    vectors: Vectors | None = None
    if any(folder.embeddings.glob(f"*/{CURRENT}")):
        vectors = load_vectors(work)
    return compare_catalog(work, vectors)


def f1_of(curve: Curve) -> Scores:
    precision, recall = curve.precision, curve.right / max(curve.same, 1e-9)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-9)


def figures(curve: Curve) -> list[float]:
    recall = curve.right / curve.same
    reached = [float(recall[curve.precision >= aim].max(initial=0.0)) for aim in (0.9, 0.95)]
    return [average_precision(curve), *reached]


def parts_of_f1(values: Scores, compared: Compared, known: Known, threshold: float) -> dict[str, NDArray[np.float64]]:
    """(right, found, same) at a threshold, for each test identity; a pair counts by half for each of its listings."""
    pairs = compared.pairs
    weights = known.weights(pairs, 2)
    per_listing = np.zeros((len(known.identities), 3))
    for row in np.flatnonzero((weights > 0) & (values >= threshold)):
        for listing in pairs[row]:
            if known.side[listing] == 2:
                per_listing[listing, :2] += (0.5 * (known.labels[row] == SAME), 0.5)
    parts: dict[str, NDArray[np.float64]] = {}
    size: dict[str, int] = {}
    for name in known.identities:
        size[name] = size.get(name, 0) + 1
    for listing, name in enumerate(known.identities):
        if name and known.side[listing] == 2:
            per_listing[listing, 2] = (size[name] - 1) / 2
            parts[name] = parts.get(name, np.zeros(3)) + per_listing[listing]
    return parts


def f1_interval(splits: list[dict[str, NDArray[np.float64]]]) -> list[float]:
    """F1 of all splits together, and the ends of its interval: an identity is drawn with all that it did in any."""
    f1 = f1_draws(splits)
    return [float(f1[0]), *map(float, np.quantile(f1[1:], [0.025, 0.975]))]


def f1_draws(splits: list[dict[str, NDArray[np.float64]]]) -> Scores:
    """F1 of all splits together, then of each draw; the same identities are drawn whatever the system."""
    names = sorted({name for split in splits for name in split})
    table = np.array([sum((split.get(name, np.zeros(3)) for split in splits), np.zeros(3)) for name in names])
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=1000)
    right, found, same = (np.concatenate([table.sum(axis=0)[None], drawn @ table])).T
    return np.asarray(2 * right / np.maximum(found + same, 1e-9))


def simple_systems(compared: Compared) -> dict[str, Scores]:
    column = {name: compared.features[:, NAMES.index(name)].astype(np.float64) for name in NAMES}
    alone = {"text alone (BM25 cosine)": column["text"], "titles alone (TF-IDF cosine)": column["title_cosine"]}
    if compared.sources.vectors is not None:
        alone["vectors alone (nano)"] = column["vector"]
    return {"weighed by hand": 1 / (1 + np.exp(-by_hand(compared.features))), **alone}


def measure(name: str, compared: Compared, salts: int) -> None:
    table: dict[str, list[list[float]]] = {}
    parts: dict[str, list[dict[str, NDArray[np.float64]]]] = {}
    points: list[list[list[float]]] = []
    chosen: list[list[float]] = []
    products = compared.sources.listings.products
    for salt in range(salts):
        split = SplitSettings(salt=f"dedupe {salt}")
        known = what_is_known(products, compared.pairs, Verdicts({}, {}), split)
        training = known.training_weights(compared.pairs)
        scorer = fit_scorer(compared.features, compared.pairs, known.labels, training, known.identities)
        scores = scorer.scores(compared.features, compared.pairs, scorer.of_candidates)
        for system, values in {"afmrl dedupe": scores, **simple_systems(compared)}.items():
            table.setdefault(system, []).append(figures(held_out_curve(values, compared.pairs, known)))
            validation = _validation(values, compared, known)
            best = float(validation.scores[int(np.argmax(f1_of(validation)))])
            parts.setdefault(system, []).append(parts_of_f1(values, compared, known, best))
        curve = held_out_curve(scores, compared.pairs, known)
        points.append([[point["precision"], point["recall"]] for point in map(curve.at, THRESHOLDS)])
        choice = choose_threshold(_validation(scores, compared, known), 0.95)
        at, reliable = curve.at(choice.threshold), reliability(scores, known, compared.pairs)
        chosen.append([at["threshold"], at["precision"], at["recall"], curve.same, choice.reached, choice.precision])
        verdict = {True: "calibrated", False: "not calibrated", None: "too few to tell"}[reliable["calibrated"]]
        print(f"split {salt}: error {reliable['error']:.3f} on {reliable['pairs']:.0f} held-out pairs: {verdict}")
    same = int((known.labels == 1).sum())
    total = sum(known.same_weight)
    told = f"{len(products):,} listings, {total:,.0f} known duplicate pairs, {same / total:.3f} of them candidates"
    print(f"\n{name}: {told}; {np.mean(chosen, 0)[3]:.0f} test pairs a split, {salts} splits")
    _print_table(table, {system: f1_interval(splits) for system, splits in parts.items()})
    _print_curve(np.mean(points, 0))
    at = np.mean(chosen, 0)
    print(
        f"chosen for precision 0.95: threshold {at[0]:.2f}, precision {at[1]:.3f}, recall {at[2]:.3f}; reached on "
        f"validation in {at[4] * salts:.0f} of {salts} splits, {at[5]:.3f} there"
    )


def measure_reranked(folders: list[Path], checkpoint: str, temporary: Path) -> None:
    """Print dedupe without and with the verdicts of `checkpoint`, over the test identities of all folders."""
    areas: list[list[float]] = []
    parts: list[list[dict[str, NDArray[np.float64]]]] = [[], []]
    for place in folders:
        folder = copy_catalog(place, temporary)
        for part in ("checkpoints", "embeddings"):
            shutil.copytree(place / ".afmrl" / part, folder.store / part, dirs_exist_ok=True)
        settings = load_settings(folder.root, {"model.reranker_checkpoint": checkpoint}, BUILT_IN)
        split = with_shares(settings.split, count_rows(folder, settings.catalog))
        work = Workspace(folder, settings, Silent())
        compared = compare_catalog(work, load_vectors(work))
        products, pairs = compared.sources.listings.products, compared.pairs
        known = what_is_known(products, pairs, Verdicts({}, {}), split)
        features, scores = compared.features, list[Scores]()
        for step in ("without", "with"):
            if step == "with":
                choice = choose_threshold(_validation(scores[0], compared, known), settings.dedupe.precision)
                said = reread(work, products, open_pairs(pairs, scores[0], choice.threshold))
                features = np.hstack([features, said.columns(pairs)])
            scorer = fit_scorer(features, pairs, known.labels, known.training_weights(pairs), known.identities)
            scores.append(scorer.scores(features, pairs, scorer.of_candidates))
        for values, found in zip(scores, parts, strict=True):
            validation = _validation(values, compared, known)
            best = float(validation.scores[int(np.argmax(f1_of(validation)))])
            own = parts_of_f1(values, compared, known, best)
            found.append({f"{place} {name}": part for name, part in own.items()})
        areas.append([average_precision(held_out_curve(values, pairs, known)) for values in scores])
        told = ", ".join(f"{name} {value:.3g}" for name, value in said.summary.items() if name != "reranker")
        print(f"{place.name}: AP {areas[-1][0]:.3f} without, {areas[-1][1]:.3f} with; {len(pairs)} candidates; {told}")
    print("\n| system | AP, mean of folders | F1 (95 %) |\n| --- | ---: | ---: |")
    draws = [f1_draws(found) for found in parts]
    for name, area, f1 in zip(("dedupe", "dedupe --rerank"), np.mean(areas, 0), draws, strict=True):
        low, high = np.quantile(f1[1:], [0.025, 0.975])
        print(f"| {name} | {area:.3f} | {f1[0]:.3f} ({low:.3f} to {high:.3f}) |")
    apart, (low, high) = draws[1] - draws[0], np.quantile((draws[1] - draws[0])[1:], [0.025, 0.975])
    identities = sum(map(len, parts[0]))
    print(f"change of F1 {apart[0]:+.3f} ({low:+.3f} to {high:+.3f}); {identities} test identities")


FORMS = {
    "chosen": CHOSEN,
    "one regression": Form(second=0),
    "two, without products": Form(second=1.0, products=False),
    "two, C = 0.003": Form(second=0.003),
    "two, C = 0.3": Form(second=0.3),
    "two, C of the first 0.1": Form(first=0.1),
}
CONFLICTS = ("model_other", "size_other", "colour_other", "numbers_other")
FEATURES = {
    "without conflicts": CONFLICTS,
    "without photos": tuple(name for name in NAMES if name.startswith("photo")),
    "without gaps to rivals": ("vector_gap", "text_gap", "crowd"),
    "without attributes": ("attribute", "attribute_other"),
}


def choose_form(name: str, compared: Compared, salts: int) -> None:
    """Print AP on validation identities, mean over splits, of each form, and of the chosen one with fewer features."""
    products = compared.sources.listings.products
    table: dict[str, list[float]] = {}
    for salt in range(salts):
        known = what_is_known(products, compared.pairs, Verdicts({}, {}), SplitSettings(salt=f"dedupe {salt}"))
        training = known.training_weights(compared.pairs)
        for row in [*FORMS, *FEATURES]:
            features = compared.features.copy()
            features[:, [NAMES.index(each) for each in FEATURES.get(row, ())]] = 0
            form = FORMS.get(row, CHOSEN)
            scorer = fit_scorer(features, compared.pairs, known.labels, training, known.identities, form)
            scores = scorer.scores(features, compared.pairs, scorer.of_candidates)
            table.setdefault(row, []).append(average_precision(_validation(scores, compared, known)))
    print(f"\n{name}: AP on validation identities, {salts} splits\n| form | AP | to the chosen (± sd of splits) |")
    print("| --- | ---: | ---: |")
    for row, values in table.items():
        apart = np.array(values) - np.array(table["chosen"])
        print(f"| {row} | {np.mean(values):.3f} | {apart.mean():+.3f} ± {apart.std():.3f} |", flush=True)


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
    best = {system: [float(f1_of(curve(values)).max()), 0.0, 1.0] for system, values in systems.items()}
    _print_table({system: [figures(curve(values))] for system, values in systems.items()}, best)
    hand = curve(systems["weighed by hand"])
    _print_curve(np.array([[at["precision"], at["recall"]] for at in map(hand.at, THRESHOLDS)]))
    print(f"at 0.5: {hand.at(0.5)['pairs']:.0f} pairs")


def _print_table(table: dict[str, list[list[float]]], f1: dict[str, list[float]]) -> None:
    print("| system | AP | F1 (95 %) | R@P 0.90 | R@P 0.95 |\n| --- | ---: | ---: | ---: | ---: |")
    for system, rows in table.items():
        area, *reached = np.mean(rows, 0)
        value, low, high = f1[system]
        cells = [f"{area:.3f}", f"{value:.3f} ({low:.3f} to {high:.3f})", *(f"{recall:.3f}" for recall in reached)]
        print(f"| {system} | {' | '.join(cells)} |")


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
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--rerank", metavar="CHECKPOINT")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if given.rerank:
            measure_reranked(given.folders, given.rerank, given.work or Path(temporary))
            return
        for source in given.folders:
            compared = compare(copy_catalog(source, given.work or Path(temporary)), given.embed)
            if given.forms:
                choose_form(source.name, compared, given.salts)
            elif (source / "duplicates.csv").is_file():
                measure_listed(source.name, compared)
            else:
                measure(source.name, compared, given.salts)


if __name__ == "__main__":
    main()
