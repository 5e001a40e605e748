"""Stored triplets as files: JSON lines that `eval --protocol composed` reads, with judgements beside them, or a table
for people to fill in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..catalog.verdicts import check_review_files
from ..escaping import write_csv
from ..evaluation.trec import write_qrels
from ..store.files import writing
from ..workspace import Workspace
from .records import Record
from .store import Triplet, TripletSplit, read_triplets
from .verdicts import COLUMNS as VERDICT_COLUMNS
from .verdicts import CONFIRMED

_COLUMNS = "reference_id target_id verdict window text sentence reference_title target_title qid type images exclude"
COLUMNS = tuple(_COLUMNS.split())


def check_files(work: Workspace, out: Path | None, html: Path | None) -> None:
    """Raise UsageError as `check_review_files`, for the judgements beside `out` too."""
    files: list[tuple[Path | None, str, tuple[str, ...]]] = [
        (out, "--out", (".jsonl", ".csv")),
        (html, "--html", (".html", ".htm")),
    ]
    if out and out.suffix.lower() == ".jsonl":
        files.append((judgements_of(out), "--out", (".trec",)))
    check_review_files(work.folder, files, work.settings.triplets.verdicts, VERDICT_COLUMNS)


def judgements_of(out: Path) -> Path:
    """Return the file of judgements beside one of queries, where `afmrl eval` looks for it."""
    return out.with_name(out.stem.replace("queries", "qrels") + ".trec")


def write_out(work: Workspace, split: TripletSplit, rows: Sequence[Record], out: Path) -> list[Path]:
    """Write the stored triplets of a split; return the files."""
    by_id = {record.id: record for record in rows}
    lines = _lines(read_triplets(work.folder, split, by_id), by_id, out.parent.resolve())
    if out.suffix.lower() == ".csv":
        with writing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            write_csv(file, [COLUMNS])
            write_csv(file, ([_cell(row[name]) for name in COLUMNS] for row in lines))
        return [out]
    judged = Judgements(rows)
    qrels: dict[str, dict[str, int]] = {}
    with writing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in lines:
            right = judged.right(by_id[row["reference_id"]], by_id[row["target_id"]], row["window"])
            qrels[row["qid"]] = dict.fromkeys(right, 1)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    write_qrels(judgements_of(out), qrels)
    return [out, judgements_of(out)]


def _cell(value: object) -> object:
    return "|".join(map(str, value)) if isinstance(value, list) else value


def _lines(triplets: Iterator[Triplet], by_id: Mapping[str, Record], beside: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows; paths of photos are relative to the folder `beside`."""
    siblings: dict[str, list[str]] = {}
    for record in by_id.values():
        siblings.setdefault(record.identity, []).append(record.id)
    for number, each in enumerate(triplets, 1):
        reference, target = by_id[each.reference], by_id[each.target]
        yield {
            "qid": f"triplet-{number:06d}",
            "type": "composed",
            "images": [os.path.relpath(reference.images[0], beside)],
            "text": each.text,
            "exclude": siblings[reference.identity],
            "reference_id": each.reference,
            "target_id": each.target,
            "window": each.window,
            "sentence": each.sentence,
            "changed": {key: list(values) for key, values in each.changed.items()},
            "verdict": CONFIRMED if each.confirmed else "",
            "reference_title": reference.title,
            "target_title": target.title,
        }


class Judgements:
    """Which listings of the split answer a triplet: those of the target's product, and those that are as the target is,
    by all attributes; of a variant, those of the style alone.
    """

    def __init__(self, rows: Sequence[Record]) -> None:
        self._same: dict[tuple[object, ...], list[str]] = {}
        self._identity = {record.id: record.identity for record in rows}
        self._product: dict[str, list[str]] = {}
        for record in rows:
            self._product.setdefault(record.identity, []).append(record.id)
            places = (record.type and f"type {record.type}", record.group and f"group {record.group}")
            for place in filter(None, places):
                self._same.setdefault((place, *_values(record)), []).append(record.id)

    def alike(self, target: Record, window: str) -> tuple[Hashable, list[str]]:
        """Return the ids of those that are as `target` is, and what they have in common: equal for one list."""
        common = (f"group {target.group}" if window == "variants" else f"type {target.type}", *_values(target))
        return common, self._same.get(common, [])

    def right(self, reference: Record, target: Record, window: str) -> list[str]:
        """Return the ids, the target first."""
        _, same = self.alike(target, window)
        others = [id for id in same if self._identity[id] != reference.identity]
        return list(dict.fromkeys([target.id, *self._product[target.identity], *others]))


def _values(record: Record) -> tuple[object, ...]:
    pairs = tuple((key, record.value(key)) for key in sorted(record.pairs))
    return (*pairs, record.colour[0] if record.colour else "")
