"""Queries, judgements and runs as files.

queries.jsonl   one JSON object a line:
    qid          the query's id (required; also: "query_id", "_id")
    text         the query's text; or title, brand, category, description, written as a product's text
    images       list of photo paths, relative to the file (also one string, also: "image")
    type         any word; shown with the query
    listing_id   the catalog's listing that this query was made from: it can't be the answer
    exclude      more listings that can't be the answer
  At least one of text and images must be there. Other keys (price, counts) are ignored.

qrels.trec      `qid iteration product grade`, white space between; the iteration is ignored
qrels/*.tsv     BEIR's: `query-id corpus-id score` under that heading; queries that it does not judge are left out
run.trec        `qid Q0 product rank score name`, the score with six decimals (scores are rounded to that before they
                are ranked, so that a reader of the file sees the same ties)

White space inside an id is written as "_" in qrels and run files, which know no quotes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..catalog.problems import clipped
from ..catalog.product import Product, product_text
from ..errors import DataError
from ..store.files import writing
from .metrics import Qrels, Run, ranked_ids
from .task import Query

SCORE_DECIMALS = 6
BEIR_HEADINGS = ("query-id", "query_id")
ID_KEYS = ("qid", "query_id", "_id")
TEXT_KEYS = ("title", "brand", "category", "description")


def read_queries(
    path: Path, image_path: Callable[[str], Path] | None = None, fault: Callable[[Query], str] | None = None
) -> list[Query]:
    """Read the queries of a JSON Lines file.

    `image_path` turns what is written into a path and refuses what it does not allow (a ValueError with the reason);
    by default the path is taken relative to the file. `fault` says what else is wrong with a query, "" for nothing.
    Raises DataError with file and line for a line that is no JSON object, a query without id, text and image or with a
    fault, or an id that stands twice.
    """
    found: dict[str, Query] = {}
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}", "one JSON object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object", 'such as {"qid": "1", "text": "navy blouse"}')
        query = _query(row, where, image_path or (lambda name: path.parent / name))
        if query.id in found:
            raise DataError(f"{where}: query {clipped(query.id, 80)} stands already in line {lines[query.id]}")
        if fault is not None and (wrong := fault(query)):
            raise DataError(f"{where}: query {clipped(query.id, 80)} {wrong}")
        found[query.id], lines[query.id] = query, number
    if not found:
        raise DataError(f"{path}: no queries", "one JSON object a line")
    return list(found.values())


def _query(row: Mapping[str, Any], where: str, image_path: Callable[[str], Path]) -> Query:
    name = next((str(row[key]).strip() for key in ID_KEYS if row.get(key) not in (None, "")), "")
    if not name or len(name.split()) > 1:
        raise DataError(f"{where}: no usable query id", f"one of {', '.join(ID_KEYS)}, without white space")
    text = _string(row, "text", where)
    if not text:
        title, brand, category, description = (_string(row, key, where) for key in TEXT_KEYS)
        text = product_text(Product(name, title, description, category, brand))
    images = []
    for written in _strings(row, "images" if "images" in row else "image", where):
        try:
            images.append(image_path(written))
        except ValueError as error:
            raise DataError(f"{where}: image {clipped(written, 80)}: {clipped(str(error))}") from None
    if not text and not images:
        raise DataError(f"{where}: query {clipped(name, 80)} has neither text nor image", "text, title or images")
    exclude = frozenset([*_strings(row, "listing_id", where), *_strings(row, "exclude", where)])
    kind, title = _string(row, "type", where), _string(row, "title", where)
    return Query(name, text, tuple(images), exclude, kind=kind, title=title)


def _string(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is not a text", f"got {json.dumps(value)[:60]}")
    return value.strip()


def _strings(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = row.get(key)
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(isinstance(item, str) for item in values):
        raise DataError(f"{where}: {key} is not a list of texts", f"got {json.dumps(value)[:60]}")
    return [item for item in values if item]


def read_qrels(path: Path, queries: Collection[str] | None = None, products: Collection[str] | None = None) -> Qrels:
    """Read the judgements of a TREC file, or of a BEIR one when its first line is BEIR's heading.

    `queries` and `products` are the ids that exist. Raises DataError with file and line for a line that has not four
    parts, a grade that is no whole number, an unknown id, or the same pair with two grades.
    """
    grades: dict[str, dict[str, int]] = {}
    form = "qid iteration product grade"
    for number, line in _lines(path):
        where = f"{path}:{number}"
        parts = line.split()
        if not grades and parts[0].casefold() in BEIR_HEADINGS:
            form = "query-id corpus-id score"
            continue
        if len(parts) != len(form.split()):
            raise DataError(f"{where}: {len(parts)} parts, not {len(form.split())}", form)
        query, product, written = parts[0], parts[-2], parts[-1]
        try:
            grade = int(written)
        except ValueError:
            raise DataError(f"{where}: grade {clipped(written, 80)} is no whole number") from None
        if queries is not None and query not in queries:
            raise DataError(f"{where}: unknown query {clipped(query, 80)}", "is this the qrels file of these queries?")
        if products is not None and product not in products:
            raise DataError(
                f"{where}: unknown product {clipped(product, 80)}", "is this the qrels file of this catalog?"
            )
        if grades.setdefault(query, {}).setdefault(product, grade) != grade:
            raise DataError(
                f"{where}: {clipped(query, 80)} {clipped(product, 80)} was judged {grades[query][product]} before"
            )
    if not grades:
        raise DataError(f"{path}: no judgements", "qid iteration product grade")
    return grades


def read_run(path: Path, queries: Collection[str], products: Collection[str]) -> dict[str, list[tuple[str, float]]]:
    """Read the rankings of a TREC run; ids as they are in `queries` and `products`, the ids that exist.

    A query that is not in `queries` is left out (a run may hold more than a sample). Raises DataError with file
    and line for a line that has not six parts, a score that is no number, an unknown product or the same one twice, and
    for a run that is empty or answers none of the queries: it is then of another catalog or protocol.
    """
    as_written = {as_word(query): query for query in queries}
    known = {as_word(product): product for product in products}
    run: dict[str, dict[str, float]] = {}
    number = 0
    for number, line in _lines(path):
        where = f"{path}:{number}"
        parts = line.split()
        if len(parts) != 6:
            raise DataError(f"{where}: {len(parts)} parts, not 6", "qid Q0 product rank score name")
        query, product = parts[0], parts[2]
        try:
            score = float(parts[4])
        except ValueError:
            raise DataError(f"{where}: score {clipped(parts[4], 80)} is no number") from None
        if not math.isfinite(score):
            raise DataError(f"{where}: score {clipped(parts[4], 80)} is no finite number")
        if query not in as_written:
            continue
        if product not in known:
            raise DataError(
                f"{where}: unknown product {clipped(product, 80)}", "is this a run over this catalog and --gallery?"
            )
        ranking = run.setdefault(as_written[query], {})
        if known[product] in ranking:
            raise DataError(f"{where}: {clipped(query, 80)} ranks {clipped(product, 80)} twice")
        ranking[known[product]] = score
    if not number:
        raise DataError(f"{path}: an empty run", "qid Q0 product rank score name")
    if not run:
        raise DataError(f"{path}: answers none of the queries", "is it a run of another catalog or protocol?")
    return {query: list(ranking.items()) for query, ranking in run.items()}


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write judgements as a TREC file, atomically."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, grades in qrels.items():
            file.writelines(f"{as_word(query)} 0 {as_word(product)} {grade}\n" for product, grade in grades.items())


def write_run(path: Path, run: Run, name: str) -> None:
    """Write a run as a TREC file, best first, atomically; `name` is the system's."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, ranking in run.items():
            scores = dict(ranking)
            for rank, product in enumerate(ranked_ids(ranking), 1):
                score = f"{scores[product]:.{SCORE_DECIMALS}f}"
                file.write(f"{as_word(query)} Q0 {as_word(product)} {rank} {score} {as_word(name)}\n")


def as_word(name: str) -> str:
    """Return an id as it is written in qrels and run files."""
    return "_".join(name.split())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Return numbered lines that are not blank."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
