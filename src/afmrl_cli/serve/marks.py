"""What people say of results, as files that other commands read, under `.afmrl/marks`:

queries.jsonl, qrels.trec                     right and wrong results of texts and photos: `afmrl eval --queries`
queries_composed.jsonl, qrels_composed.trec   the same of changes: `afmrl eval --protocol composed --queries`
photos/                                       the photos of those queries, by content
verdicts.csv                                  pairs of listings: `afmrl dedupe --verdicts`, and `dedupe.verdicts`

The files of queries hold the marks, too (readers pass over that key); judgements are written from them, of listings
that there still are, since an evaluation refuses others. All is read, changed and replaced as a whole under a lock of
its own: people mark while `afmrl embed` runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog.fingerprints import photo_hash
from ..catalog.images import open_image
from ..catalog.verdicts import read_rows, read_verdicts
from ..errors import DataError
from ..escaping import write_csv
from ..evaluation.trec import as_word, write_qrels
from ..store.files import make_folder, naming, writing
from ..store.folder import check_store
from ..workspace import Workspace
from .refusals import Refusal
from .requests import MarkRequest, SearchRequest, VerdictRequest

FOLDER, PHOTOS, VERDICTS = "marks", "photos", "verdicts.csv"
QUERIES = {"": ("queries.jsonl", "qrels.trec"), "composed": ("queries_composed.jsonl", "qrels_composed.trec")}
COLUMNS = ("id", "other_id", "verdict", "title", "other_title")
MOST_QUERIES, MOST_PAIRS = 20_000, 200_000
LOCK_SECONDS = 10.0
SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


@dataclass
class MarkedQuery:
    """A query with its marks: `photos` are names in `photos/`, `reference` is the listing that a change starts from."""

    qid: str
    text: str
    photos: list[str]
    composed: bool
    reference: str = ""
    marks: dict[str, bool] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the line of the file of queries."""
        kind = "composed" if self.composed else " and ".join(["text"] * bool(self.text) + ["photo"] * bool(self.photos))
        row: dict[str, Any] = {
            "qid": self.qid,
            "text": self.text,
            "images": [f"{PHOTOS}/{name}" for name in self.photos],
        }
        row |= {"type": kind, "marks": self.marks}
        return row | ({"listing_id": self.reference} if self.reference else {})

    @staticmethod
    def of(row: Mapping[str, Any], composed: bool) -> MarkedQuery:
        """Return the query of a line. Raises TypeError, KeyError or AttributeError for another kind of line."""
        photos = [str(name).removeprefix(f"{PHOTOS}/") for name in row["images"]]
        marks = {str(id): bool(right) for id, right in row["marks"].items()}
        return MarkedQuery(str(row["qid"]), str(row["text"]), photos, composed, str(row.get("listing_id", "")), marks)


def query_id(request: SearchRequest, contents: Sequence[str]) -> str:
    """Return the id of a query: the same words, photos, reference and change are one query, whatever is filtered."""
    parts = [" ".join(request.text.split()), " ".join((request.change or "").split()), request.like, *contents]
    return "m" + hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Marks:
    """The marks of a catalog."""

    def __init__(self, work: Workspace) -> None:
        self._work = work
        self.folder = work.folder.store / FOLDER

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        check_store(self._work.folder.store)
        make_folder(self.folder)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise Refusal(503, "marks are being written", "try again", {"Retry-After": "1"}) from None
        try:
            yield
        finally:
            lock.release()

    def mark(
        self, request: MarkRequest, photos: Sequence[Path], reference: Sequence[Path], there: Container[str]
    ) -> dict[str, int]:
        """Note a mark; `photos` are the files of the query, `reference` those of the listing that a change starts from,
        `there` the ids of the catalog. Returns the counts of all marks.
        """
        if request.id not in there:
            raise Refusal(404, f"no listing {request.id[:100]!r}", "search again")
        composed = request.change is not None
        with self._locked():
            contents = [photo_hash(path) for path in photos]
            qid = query_id(request, contents)
            queries = {each.qid: each for each in self._read(composed)}
            text = " ".join((request.change or request.text).split())
            query = queries.get(qid) or MarkedQuery(qid, text, [], composed, request.like)
            if request.right is None:
                query.marks.pop(request.id, None)
            else:
                query.marks[request.id] = request.right
                query.photos = query.photos or [self._keep(path) for path in (photos or reference)]
                if not (query.text or query.photos):
                    raise Refusal(422, "nothing was searched for", "a mark stands for a query")
            queries[qid] = query
            if len(queries) > MOST_QUERIES:
                raise Refusal(422, f"more than {MOST_QUERIES:,} queries are marked", f"move {self.folder} away")
            self._write([each for each in queries.values() if each.marks], composed, there)
        return self.counts()

    def marks_of(self, request: SearchRequest, photos: Sequence[Path]) -> dict[str, bool]:
        """Return the marks of a query by listing."""
        qid = query_id(request, [photo_hash(path) for path in photos])
        return next((each.marks for each in self._read(request.change is not None) if each.qid == qid), {})

    def bring_up_to_date(self, there: Container[str]) -> None:
        """Write the judgements anew for the listings that there are now."""
        if self.folder.is_dir():
            with self._locked():
                for composed in (False, True):
                    if queries := self._read(composed):
                        self._write(queries, composed, there)

    def counts(self) -> dict[str, int]:
        """Count queries, marks of either kind, and verdicts of either kind."""
        queries = [*self._read(False), *self._read(True)]
        right = sum(sum(each.marks.values()) for each in queries)
        verdicts = list(self.verdicts().values())
        return {
            "queries": len(queries),
            "right": right,
            "wrong": sum(len(each.marks) for each in queries) - right,
            "same": sum(verdicts),
            "different": len(verdicts) - sum(verdicts),
        }

    def _keep(self, path: Path) -> str:
        """Keep a copy of a photo under its content's hash and return its name. Raises ImageProblem for what is none."""
        open_image(path, self._work.settings.catalog)
        with path.open("rb") as file:
            head = file.read(8)
        suffix = next((end for start, end in SUFFIXES.items() if head.startswith(start)), ".img")
        name = photo_hash(path).replace(":", "-")[:64] + suffix
        place = make_folder(self.folder / PHOTOS) / name
        if not place.exists():
            with writing(place) as temporary:
                shutil.copyfile(path, temporary)
        return name

    def _read(self, composed: bool) -> list[MarkedQuery]:
        file = self.folder / QUERIES["composed" if composed else ""][0]
        try:
            lines = file.read_text("utf-8").splitlines() if file.is_file() else []
            return [MarkedQuery.of(json.loads(line), composed) for line in lines if line.strip()]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Refusal(500, f"{file.name}: the marks are damaged", f"mend or move {file}") from error

    def _write(self, queries: Sequence[MarkedQuery], composed: bool, there: Container[str]) -> None:
        names, judgements = QUERIES["composed" if composed else ""]
        grades = {
            each.qid: {id: int(right) for id, right in each.marks.items() if id in there and as_word(id) == id}
            for each in queries
        }
        lines = [json.dumps(each.row(), ensure_ascii=False) for each in queries]
        # Judgements last: a query without any is no fault for an evaluation, a judgement of no query is one.
        with writing(self.folder / names) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        write_qrels(self.folder / judgements, {qid: marks for qid, marks in grades.items() if marks})

    def verdicts(self) -> dict[tuple[str, str], bool]:
        """Return the verdicts by pair of ids, as they were given, whether both are one product."""
        return {pair: same for pair, (same, _) in self._rows().items()}

    def _rows(self) -> dict[tuple[str, str], tuple[bool, tuple[str, str]]]:
        file = self.folder / VERDICTS
        if not file.is_file():
            return {}
        rows = (row for _, row in read_rows(file, COLUMNS))
        return {
            _pair(row["id"], row["other_id"]): (row["verdict"] == "same", (row["title"], row["other_title"]))
            for row in rows
            if row["verdict"]
        }

    def judge(self, request: VerdictRequest, titles: Mapping[str, str]) -> dict[str, int]:
        """Note a verdict on two listings; `titles` by id, for people who read the table. Returns the counts.

        Raises Refusal for a verdict that contradicts another, here or in the files of `dedupe.verdicts`.
        """
        if request.id == request.other_id:
            raise Refusal(422, "a listing is not compared with itself")
        with self._locked():
            rows = self._rows()
            pair = _pair(request.id, request.other_id)
            if request.same is None:
                rows.pop(pair, None)
            else:
                rows[pair] = (request.same, (titles.get(pair[0], ""), titles.get(pair[1], "")))
            if len(rows) > MOST_PAIRS:
                raise Refusal(422, f"more than {MOST_PAIRS:,} verdicts", f"move {self.folder / VERDICTS} away")
            table = [(*both, "same" if same else "different", *named) for both, (same, named) in rows.items()]
            with writing(self.folder / VERDICTS) as temporary:
                with naming(temporary), temporary.open("w", newline="", encoding="utf-8") as opened:
                    write_csv(opened, [COLUMNS, *table])
                self._check(temporary)
        return self.counts()

    def _check(self, file: Path) -> None:
        """Raise Refusal where the verdicts of `file`, which is to become ours, contradict each other or others."""
        settings, own = self._work.settings, (self.folder / VERDICTS).resolve()
        others = [name for name in settings.dedupe.verdicts if (self._work.folder.root / name).resolve() != own]
        section = settings.dedupe.model_copy(update={"verdicts": [*others, str(file)]})
        try:
            read_verdicts(settings.model_copy(update={"dedupe": section}), self._work.folder.root)
        except DataError as error:
            message = str(error).replace(str(file), VERDICTS)
            raise Refusal(409, message, error.hint) from error


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)
