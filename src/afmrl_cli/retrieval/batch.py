"""Many queries from a file: one a line, as words or as JSON, and one document a line in return.

    red shirt
    {"qid": "q2", "text": "blouse", "filters": ["price<50"], "not": ["pattern: floral"]}
    {"qid": "q3", "images": ["phone/1.jpg"]}
    {"qid": "q4", "like": "SKU-17", "change": "color: red"}

Photos are found as those of `eval`'s queries, in the file's folder. A query that can't be answered has an `error` in
place of hits, and the others go on. Queries are encoded some at a time, so that a model reads them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..catalog.images import ImagePaths, ImageProblem
from ..catalog.problems import clipped
from ..errors import AfmrlError, DataError
from ..settings import CatalogSettings
from .search import Found, Prepared, Query, Searcher

AT_A_TIME = 32
LONGEST_LINE = 1_000_000
TEXTS = ("text", "like", "change", "attributes")
LISTS = ("images", "filters", "not")


@dataclass(frozen=True)
class Answered:
    """A query of a file and what it found, or the error that it ended with."""

    id: str
    found: Found | None
    error: AfmrlError | None = None


@dataclass(frozen=True)
class _Line:
    id: str
    query: Query | None
    error: AfmrlError | None = None


def read_batch(file: Path, settings: CatalogSettings) -> list[_Line]:
    """Read the queries of a file. DataError when it can't be read or holds none; a line that is no query keeps its
    error.
    """
    paths = ImagePaths(file.parent, settings)
    try:
        with file.open(encoding="utf-8-sig") as lines:
            read = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: can't be read: {error}", "a text file, one query a line") from error
    found = [_read(number, line, f"{file.name}:{number}", paths) for number, line in read if line]
    if not found:
        raise DataError(f"{file}: no queries", "one a line: words, or a JSON object")
    return found


def _read(number: int, line: str, where: str, paths: ImagePaths) -> _Line:
    if not line.startswith("{"):
        return _Line(str(number), Query(line[:LONGEST_LINE]))
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Line(str(number), None, DataError(f"{where}: not JSON: {error}", "one JSON object a line, or words"))
    name = str(next((row[key] for key in ("qid", "query_id", "_id") if row.get(key) not in (None, "")), number))
    try:
        return _Line(name, _query(row, where, paths))
    except DataError as error:
        return _Line(name, None, error)


def _query(row: Mapping[str, Any], where: str, paths: ImagePaths) -> Query:
    for key in TEXTS:
        if not isinstance(row.get(key, ""), str):
            raise DataError(f"{where}: {key} is not a text", f"got {json.dumps(row[key])[:60]}")
    lists: dict[str, list[str]] = {}
    for key in LISTS:
        value = row.get(key, [])
        lists[key] = [value] if isinstance(value, str) else value
        if not isinstance(lists[key], list) or not all(isinstance(each, str) for each in lists[key]):
            raise DataError(f"{where}: {key} is not a list of texts", f"got {json.dumps(value)[:60]}")
    images = []
    for written in lists["images"]:
        try:
            images.append(paths.find(written))
        except ImageProblem as problem:
            raise DataError(f"{where}: image {clipped(written, 80)}: {problem.reason}") from None
    return Query(
        row.get("text", ""),
        tuple(images),
        row.get("attributes", ""),
        row.get("like", ""),
        row.get("change"),
        tuple(lists["filters"]),
        tuple(lists["not"]),
    )


def answer_batch(
    searcher: Searcher, lines: Sequence[_Line], progress: Callable[[int, int], None]
) -> Iterator[Answered]:
    """Yield what each query found, in their order."""
    waiting, done = iter(lines), 0
    while some := list(islice(waiting, AT_A_TIME)):
        prepared = [_prepared(searcher, line) for line in some]
        ready = [each for each in prepared if isinstance(each, Prepared)]
        vectors = iter(searcher.encode(ready)) if ready else iter(())
        for line, each in zip(some, prepared, strict=True):
            if isinstance(each, AfmrlError):
                yield Answered(line.id, None, each)
                continue
            vector = next(vectors)
            try:
                yield Answered(line.id, searcher.answer(each, vector))
            except AfmrlError as error:
                yield Answered(line.id, None, error)
        done += len(some)
        progress(done, len(lines))


def _prepared(searcher: Searcher, line: _Line) -> Prepared | AfmrlError:
    if line.query is None:
        return line.error or DataError("no query")
    try:
        return searcher.prepare(line.query)
    except AfmrlError as error:
        return error
