"""The pairs as a table for review, as a JSON document, and as a run that is kept.

The table is what people fill in: `verdict` is empty (or the earlier verdict), and the file is read again with
`afmrl dedupe --verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..attributes.parse import write_attributes
from ..catalog.verdicts import check_review_files
from ..escaping import write_csv
from ..store.checkpoints import versions
from ..store.files import hash_file, read_object, write_json, writing
from ..store.folder import CatalogFolder
from ..store.runs import in_order, new_run, next_number
from ..store.source import hash_of
from ..workspace import Workspace
from .run import CONFIRMED, Found, Result

SCHEMA = "afmrl.dedupe/1"
PAIRS, MANIFEST, SETTINGS = "pairs.csv", "dedupe.json", "settings.json"
_COLUMNS = (
    "group score status id other_id verdict title other_title vector photo text shared_words words other_words "
    "shared_codes shared_attributes conflicting_attributes price other_price reranker"
)
COLUMNS = tuple(_COLUMNS.split())


def check_files(work: Workspace, out: Path | None, html: Path | None) -> None:
    """Raise UsageError as `check_review_files`."""
    files = [(out, "--out", (".csv",)), (html, "--html", (".html", ".htm"))]
    check_review_files(work.folder, files, work.settings.dedupe.verdicts)


def table_rows(result: Result) -> list[dict[str, object]]:
    """Return one row a pair, by COLUMNS."""
    products = result.listings.products
    rows: list[dict[str, object]] = []
    for found in result.pairs:
        one, other = (products[row] for row in found.pair)
        evidence = found.evidence
        rows.append(
            {
                "group": found.group + 1 if found.group >= 0 else "",
                "score": f"{found.score:.4f}",
                "status": found.status,
                "id": one.id,
                "other_id": other.id,
                "verdict": "same" if found.status == CONFIRMED else "",
                "title": one.title,
                "other_title": other.title,
                "vector": _number(evidence.vector),
                "photo": _number(evidence.photo),
                "text": _number(evidence.text),
                "shared_words": " ".join(evidence.words),
                "words": " ".join(evidence.other_words[0]),
                "other_words": " ".join(evidence.other_words[1]),
                "shared_codes": " ".join(evidence.codes),
                "shared_attributes": write_attributes(evidence.attributes),
                "conflicting_attributes": evidence.conflicts,
                "price": f"{evidence.prices[0]:g}" if evidence.prices else "",
                "other_price": f"{evidence.prices[1]:g}" if evidence.prices else "",
                "reranker": _number(evidence.reranker),
            }
        )
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def write_table(file: Path, result: Result) -> None:
    """Write the pairs as CSV, atomically."""
    with writing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        write_csv(opened, [COLUMNS, *([row[name] for name in COLUMNS] for row in table_rows(result))])


def document(result: Result) -> dict[str, Any]:
    """Return everything that was found, for --json."""
    ids = [product.id for product in result.listings.products]
    return {
        **result.content,
        "groups": [[ids[row] for row in rows] for rows in result.groups],
        "pairs": [_pair(found, ids) for found in result.pairs],
    }


def _pair(found: Found, ids: Sequence[str]) -> dict[str, Any]:
    evidence = found.evidence
    return {
        "id": ids[found.pair[0]],
        "other_id": ids[found.pair[1]],
        "score": round(found.score, 6),
        "status": found.status,
        "confirmed": found.status == CONFIRMED,
        "group": found.group + 1 if found.group >= 0 else None,
        "similarity": {"vector": evidence.vector, "photo": evidence.photo, "text": evidence.text},
        "reranker": evidence.reranker,
        "shared_words": list(evidence.words),
        "other_words": [list(words) for words in evidence.other_words],
        "shared_codes": list(evidence.codes),
        "shared_attributes": evidence.attributes,
        "conflicting_attributes": {key: list(values) for key, values in evidence.other_attributes.items()},
        "prices": list(evidence.prices) if evidence.prices else None,
    }


def calibration_words(content: Mapping[str, Any]) -> str:
    """Say in a sentence: may the scores be read as probabilities?"""
    if not content["fitted"]:
        return "scores are weighed by hand: an order, no probabilities"
    table = content["reliability"]
    pairs = f"{table['pairs']:,.0f} held-out pairs scored {table['judged_from']:g} and more"
    if table["calibrated"] is None:
        return f"scores give an order; whether they are probabilities, {pairs} are too few to tell"
    apart = f"on {pairs}, predicted and observed differ by {table['error']:.3f} on average"
    if table["calibrated"]:
        return f"scores are calibrated: {apart}"
    return f"scores give an order and are no probabilities, not calibrated: {apart}"


def latest_run(folder: CatalogFolder) -> dict[str, Any] | None:
    """Return what the last `afmrl dedupe` of this catalog found; None when there was none."""
    found = in_order(_documents(folder))
    return read_object(found[-1]) if found else None


def _documents(folder: CatalogFolder) -> list[Path]:
    return list(folder.runs.glob(f"*-dedupe*/{MANIFEST}"))


def keep(work: Workspace, result: Result) -> Path:
    """Keep the run in the store: settings, document with what it was made from, table. Returns its folder."""
    folder, settings = work.folder, work.settings
    place = new_run(folder.runs, "dedupe")
    write_json(place / SETTINGS, settings.model_dump())
    write_table(place / PAIRS, result)
    made_from = {
        "catalog": {"name": folder.catalog.name, "sha256": hash_of(folder.catalog)},
        "verdicts": {name: hash_file(folder.root / name) for name in settings.dedupe.verdicts},
        "versions": versions(),
    }
    # Last: a folder with it is complete.
    number = next_number(_documents(folder))
    write_json(place / MANIFEST, {"schema": SCHEMA, "number": number, **document(result), "made_from": made_from})
    return place
