"""Which files this tool has written: they are no catalogs, and only they may be replaced by another result.

Files are known by what they hold, so that it does not matter where they were moved or which store wrote them.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

HEAD_BYTES, TAIL_BYTES = 65_536, 65_536
PROBLEM_COLUMNS = ("row", "column", "listing", "severity", "kind", "message", "mend")
"""Of `check --out`."""
PAIR_COLUMNS = frozenset(("group", "score", "id", "other_id", "verdict", "shared_words"))
"""Among those of `dedupe --out`."""
TRIPLET_KEYS = frozenset(("qid", "reference_id", "target_id", "window", "sentence"))
"""Among those of `triplets --out`, a table's columns or a line's keys."""
RANK_COLUMNS = ("customer", "time", "item", "history")
"""The first of `eval-recommender --ranks`; those that follow are systems, among them `fused`."""
ATTRIBUTE_KEYS = frozenset(("id", "attributes", "pairs", "failure"))
"""Of a line of `attributes --out FILE.jsonl`; in tables the pairs are columns. Newer ones have CONFIDENCE, too."""
CONFIDENCE = "confidence"
PARQUET_MARK = b"afmrl.attributes"
JUDGED_TRIPLET = re.compile(r"triplet-\d{6,} 0 \S+ 1")
"""A line of the judgements beside `triplets --out FILE.jsonl`."""
RUN_LINE = re.compile(r"\S+ Q0 \S+ \d+ -?[\d.]+ \S+")
PAGE_MARK, MARKDOWN_MARK, JUNIT_MARK = '<meta name="generator" content="afmrl">', "## afmrl eval: ", 'name="afmrl.eval.'


def written_by_afmrl(path: Path) -> bool:
    """Tell whether the file at `path` is a result of this tool, or empty. False for what can't be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if head.startswith(b"PAR1"):
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                return PARQUET_MARK in file.read()
    except OSError:
        return False
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    first = text.lstrip().split("\n", 1)[0].strip()
    if not first:
        return not head
    if first.startswith("{"):
        return _is_row(first)
    if first.startswith("<"):
        return PAGE_MARK in text or _is_junit(text)
    lines = (RUN_LINE, JUDGED_TRIPLET)
    return first.startswith(MARKDOWN_MARK) or any(line.fullmatch(first) for line in lines) or _is_table(first)


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and (row.keys() - {CONFIDENCE} == ATTRIBUTE_KEYS or row.keys() >= TRIPLET_KEYS)


def _is_junit(text: str) -> bool:
    return "<testsuites" in text[:200] and JUNIT_MARK in text


def _is_table(line: str) -> bool:
    try:
        names = next(csv.reader([line]), [])
    except csv.Error:
        return False
    if tuple(names) == PROBLEM_COLUMNS or set(names) >= PAIR_COLUMNS or set(names) >= TRIPLET_KEYS:
        return True
    if tuple(names[: len(RANK_COLUMNS)]) == RANK_COLUMNS and "fused" in names:
        return True
    return names[:2] == ["id", "attributes"] and [name for name in names if name != CONFIDENCE][-1] == "failure"
