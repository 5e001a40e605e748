"""The report of a cycle: one HTML file that needs no network, for people who sell things rather than train models.

The stages by validation, by which they were accepted, and on the test split, which took no part in that; what the
generator wrote in each round, the training curves; for about twenty test queries the first results of the first stage
beside those of the last accepted one; the worst queries. Everything comes from what the cycle has left in its folder,
from the catalog and from the stored attributes. While a cycle is running nothing of the test split is shown: queries of
the validation split stand in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..attributes.agreement import confident
from ..attributes.parse import count_pairs, read_stored
from ..attributes.views import AttributeSource, StoredViews
from ..catalog.fingerprints import Fingerprinter
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import read_products
from ..dedupe.outputs import latest_run
from ..errors import DataError
from ..evaluation.compare import signed
from ..evaluation.trec import read_qrels
from ..retrieval.page import Pictures, render
from ..store.database import Database
from ..store.files import read_json, writing
from ..store.folder import CatalogFolder
from ..store.runs import in_order
from ..workspace import Workspace
from .composed import composed_lines, splits_asked, use_composed
from .folds import folds_lines
from .plan import cycles

REPORT = "report.html"
GAINED, LOST, CASES, WORST, SHOWN = 12, 5, 20, 10, 4
DUPLICATES = 6
TEXT_CHARS = 120


@dataclass(frozen=True)
class Scores:
    """What a stage answered: rankings as (listing, similarity), reciprocal ranks, whose attributes the queries had."""

    run: dict[str, list[tuple[str, float]]]
    mrr: dict[str, float]
    source: Mapping[str, Any] | None


def find_cycle(folder: CatalogFolder, name: str = "") -> Path:
    """Return the folder of the cycle `name`, by default of the one that was begun or gone on with last. DataError when
    there is none.
    """
    found = cycles(folder)
    if name and (named := [path.parent for path in found if path.parent.name == name]):
        return named[0]
    ordered = [path.parent for path in in_order(found)]
    if name or not ordered:
        known = ", ".join(place.name for place in ordered[-3:])
        raise DataError(
            f"{folder.runs}: no cycle {name}".rstrip(), f"there are: {known}" if known else "run `afmrl cycle`"
        )
    return ordered[-1]


def write_report(place: Path, work: Workspace) -> Path:
    """Write report.html into the cycle's folder `place`, atomically; returns it. DataError when no stage was scored."""
    folder, settings = work.folder, work.settings
    content = read_json(place / "cycle.json")
    if "leaderboard" not in content:
        raise DataError(f"{place}: made by an earlier version", "run `afmrl cycle` again: trainings are taken over")
    shown = "test" if any(stage["test"] for stage in content["leaderboard"]) else "validation"
    stages = [{**stage, **stage[shown]} for stage in content["leaderboard"] if stage[shown]]
    if not stages:
        raise DataError(f"{place}: no stage was scored yet", "let `afmrl cycle` go on")
    first = stages[0]
    last = next(stage for stage in reversed(stages) if stage["accepted"] and not stage["baseline"])
    before, after = (_read_scores(place / "scores" / stage["score"]) for stage in (first, last))
    qrels = read_qrels(place / "scores" / last["score"] / "qrels.trec")
    right = {
        query: {id for id, grade in rows.items() if grade >= settings.eval.min_grade} for query, rows in qrels.items()
    }
    change = {query: after.mrr[query] - before.mrr.get(query, 0.0) for query in after.mrr}
    chosen = _choose(change)
    worst = sorted((query for query in after.mrr if after.mrr[query] < 1), key=lambda query: (after.mrr[query], query))
    shown_by, source = _written(place, stages) if after.source is None else ("", after.source)
    shop = _Shop(work, source)
    best = max(stages, key=lambda stage: stage["metrics"][content["metric"]])
    rounds, agcl = _rounds(place, content, stages, folder), read_json(place / "settings.json")["agcl"]
    page = render(
        "cycle.html",
        content=content,
        signed=signed,
        metric=content["metric"],
        first=first,
        last=last,
        best=best if best["metrics"][content["metric"]] > last["metrics"][content["metric"]] else None,
        shown=shown,
        charts={split: _chart(content, split) for split in ("validation", "test")},
        few=content["chosen_by"]["products"] < content["chosen_by"]["needed"],
        composed=_composed(content),
        lines=[*content.get("shows", []), *folds_lines(content.get("folds"))],
        rounds=rounds,
        masks=agcl["mask"],
        margin=agcl["mask_margin"],
        nothing_similar={row["similar"] for row in rounds} - {None} == {0.0},
        curves=_curves(content, folder),
        queries=len(after.mrr),
        shown_by=shown_by,
        counts={"up": sum(each > 0 for each in change.values()), "down": sum(each < 0 for each in change.values())},
        cases=[(title, [_case(query, before, after, right, shop) for query in found]) for title, found in chosen],
        worst=[_case(query, before, after, right, shop) for query in worst[:WORST]],
        duplicates=_duplicates(folder, shop),
    )
    file = place / REPORT
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")
    return file


def _composed(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what training for composed queries brought, with how to use it; None where it was not wanted. Cycles of
    earlier versions don't say.
    """
    if (found := content.get("composed")) is None:
        return None
    used = " ".join(f"--set {each}" for each in use_composed(content)) if found["checkpoint"] else ""
    return {**found, "splits": splits_asked(found), "lines": composed_lines(found), "use": used}


def _read_scores(place: Path) -> Scores:
    run: dict[str, list[tuple[str, float]]] = {}
    for line in (place / "run-embedder.trec").read_text("utf-8").splitlines():
        query, _, listing, _, score, _ = line.split()
        run.setdefault(query, []).append((listing, float(score)))
    rows = map(json.loads, (place / "per_query.jsonl").read_text("utf-8").splitlines())
    source = read_json(place / "metrics.json")["attributes"]
    return Scores(run, {row["qid"]: row["mrr"] for row in rows}, source)


def _written(place: Path, stages: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, str] | None]:
    """Return (name, whose attributes) of the last stage that had any, for readers of a cycle that ends without."""
    for stage in reversed(stages):
        if source := _read_scores(place / "scores" / stage["score"]).source:
            return stage["name"], source
    return "", None


def _choose(change: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """Return queries that gained most, some that lost, and others in the order of their names, until there are
    CASES.
    """
    up = sorted((q for q in change if change[q] > 0), key=lambda q: (-change[q], q))[:GAINED]
    down = sorted((q for q in change if change[q] < 0), key=lambda q: (change[q], q))[:LOST]
    rest = sorted(query for query in change if change[query] == 0)[: max(0, CASES - len(up) - len(down))]
    return [("Gained most", up), ("Lost most", down), ("Unchanged", rest)]


class _Shop:
    """The catalog's products by id, with pictures and attributes, each read once."""

    def __init__(self, work: Workspace, source: Mapping[str, Any] | None) -> None:
        folder, settings = work.folder, work.settings
        self.products = {p.id: p for p in read_products(folder, settings.catalog, Problems())}
        self._pictures = Pictures(settings.catalog)
        self._texts: dict[str, str] = {}
        if source is not None:
            with work.database() as database, Fingerprinter(database) as fingerprinter:
                views = StoredViews(database, fingerprinter, AttributeSource(**source))
                self._texts = dict(zip(self.products, views.attributes([*self.products.values()]), strict=True))

    def attributes(self, id: str) -> dict[str, str]:
        """Return a listing's attributes by the generator of the last stage, {} for none."""
        return read_stored(self._texts.get(id, ""))

    def picture(self, product: Product) -> str:
        """Return the first photo that can be opened, as a data URI; "" for none."""
        return self._pictures.of(product.images)


def _case(query: str, before: Scores, after: Scores, right: Mapping[str, set[str]], shop: _Shop) -> dict[str, Any]:
    product = shop.products.get(query)
    own = shop.attributes(query)

    def cards(scores: Scores) -> list[dict[str, Any]]:
        return [
            _card(id, rank, similarity, id in right[query], own, shop)
            for rank, (id, similarity) in enumerate(scores.run.get(query, [])[:SHOWN], 1)
        ]

    ranks = [_rank(scores, query, right) for scores in (before, after)]
    return {
        "id": query,
        "text": _short(product.title if product else query),
        "picture": shop.picture(product) if product else "",
        "attributes": own,
        "ranks": ranks,
        "before": cards(before),
        "after": cards(after),
        "words": _words(*ranks),
    }


def _duplicates(folder: CatalogFolder, shop: _Shop) -> dict[str, Any] | None:
    """Return the most probable pairs of the last `afmrl dedupe`, side by side; None when it was never run here."""
    if (found := latest_run(folder)) is None:
        return None
    pairs: list[dict[str, Any]] = []
    for pair in found["pairs"]:
        products = [shop.products.get(pair[key]) for key in ("id", "other_id")]
        if all(products) and len(pairs) < DUPLICATES:
            sides = [{"id": p.id, "text": _short(p.title or p.id), "picture": shop.picture(p)} for p in products if p]
            pairs.append({"score": pair["score"], "sides": sides})
    summary = {key: found[key] for key in ("found", "groups_found", "calibrated", "threshold")}
    return {**summary, "pairs": pairs}


def _rank(scores: Scores, query: str, right: Mapping[str, set[str]]) -> int | None:
    found = (rank for rank, (id, _) in enumerate(scores.run.get(query, []), 1) if id in right[query])
    return next(found, None)


def _words(before: int | None, after: int | None) -> str:
    def place(rank: int | None) -> str:
        return f"in place {rank}" if rank else "not found"

    if before == after:
        return f"unchanged: the right product is {place(after)}"
    return f"the right product was {place(before)}, now it is {place(after)}"


def _card(id: str, rank: int, similarity: float, right: bool, own: Mapping[str, str], shop: _Shop) -> dict[str, Any]:
    product, theirs = shop.products.get(id), shop.attributes(id)
    shared = [f"{key}: {value}" for key, value in theirs.items() if own.get(key) == value]
    other = [f"{key}: {value}" for key, value in theirs.items() if key in own and own[key] != value]
    return {
        "id": id,
        "rank": rank,
        "right": right,
        "similarity": similarity,
        "text": _short(product.title if product else id),
        "picture": shop.picture(product) if product else "",
        "shared": shared,
        "other": other,
    }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARS else line[: TEXT_CHARS - 1] + "…"


def _chart(content: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """Return a row per stage with places in percent of the width: metric, interval, and how it changed; [] where the
    split was not scored.
    """
    metric = content["metric"]
    scored = [stage[split] for stage in content["leaderboard"] if stage[split]]
    if not scored:
        return []
    ends = [end for scores in scored for end in scores["intervals"][metric]]
    low, high = max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)
    width = (high - low) or 1.0

    def place(value: float) -> str:
        return f"{100 * (value - low) / width:.2f}%"

    rows = []
    for stage in content["leaderboard"]:
        row: dict[str, Any] = {"stage": stage, "value": None, "change": None}
        if scores := stage[split]:
            ends, value = scores["intervals"][metric], scores["metrics"][metric]
            row |= {"value": value, "x": place(value), "from": place(ends[0]), "to": place(ends[1])}
            row |= {"change": scores["change"]}
        rows.append(row)
    return rows


def _rounds(
    place: Path, content: Mapping[str, Any], results: Sequence[Mapping[str, Any]], folder: CatalogFolder
) -> list[dict[str, Any]]:
    """Return what each generator wrote: products, length in pairs and characters; and the share of negatives that AGCL
    found too similar: `masked` or, with the mask off, left in.
    """
    similar = {}
    for stage in content["stages"]:
        if stage["kind"] == "agcl":
            record = read_json(place / "stages" / f"{stage['name']}.json")
            result = record["result"]  # of earlier versions: the share by itself
            similar[stage["checkpoint"]] = result.get("negatives", result).get("too_similar_share")
    rows = []
    with Database(folder.database) as database:
        for result in results:
            row = {
                "name": result["name"],
                "similar": similar.get(result["embedder"]),
                "pairs": None,
                "characters": None,
            }
            source = read_json(place / "scores" / result["score"] / "metrics.json")["attributes"]
            if source and (texts := _texts(database, source)):
                row["pairs"] = sum(map(count_pairs, texts)) / len(texts)
                row["characters"] = sum(map(len, texts)) / len(texts)
            rows.append(row)
    return rows


def _texts(database: Database, source: Mapping[str, Any]) -> list[str]:
    """Return the attribute texts of a source that are used."""
    rows = database.valid_attributes(source["generator"], source["prompt"])
    kept = (confident(row, source.get("min_confidence", 0.0)) for row in rows)
    return [row.text for row in kept if row is not None]


def _curves(content: Mapping[str, Any], folder: CatalogFolder) -> list[dict[str, str]]:
    """Return the curves of the trainings, as far as they are still there."""
    found = []
    for stage in content["stages"]:
        file = folder.runs / str(stage["run"]) / "curve.svg"
        if stage["run"] and file.is_file():
            found.append({"name": stage["name"], "svg": file.read_text("utf-8")})
    return found
