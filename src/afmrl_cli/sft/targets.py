"""What the generator is taught to answer: from a teacher's stored attributes, the shop's own columns, or a file.

Whatever the source, `read_answer` decides: a target that would be invalid as an answer is no target. It is counted
with its reason and left out. What passes is written one way: keys in the schema's order (a shop's own columns without
a schema: in the catalog's order), several values of one key in the schema's order, spelled as the schema spells them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..attributes.answers import attribute_text
from ..attributes.own_columns import own_columns, own_text, pairs_text
from ..attributes.parse import parse_attributes, write_attributes
from ..attributes.schema import AttributeSchema, folded, read_answer
from ..attributes.task import AttributeTask
from ..catalog.codes import code
from ..catalog.column_names import COMMON
from ..catalog.detect import raw_table
from ..catalog.name_forms import plain
from ..catalog.problems import Problem
from ..catalog.product import Product
from ..catalog.read import Catalog
from ..catalog.table import one_text
from ..errors import DataError, UsageError
from ..escaping import from_spreadsheet_cell
from ..settings import CatalogSettings, Settings
from ..store.database import Database, StoredAttributes
from ..store.folder import CatalogFolder
from ..workspace import Workspace

NO_TARGET = "no target"
"""The source has nothing for the product; all other reasons are those of the parser or of `corpus`."""

Raw = Callable[[Product, StoredAttributes | None], tuple[str, str]]
"""What a source says of a product: (text, ""), or ("", why there is none)."""


@dataclass(frozen=True)
class Source:
    """Where targets come from. `teacher` is a generator's id, "" for the other sources; `name` is for people."""

    name: str
    raw: Raw
    teacher: str = ""
    keys: tuple[str, ...] = ()
    """The shop's own columns in their order, as keys of attribute text; () for the other sources."""


@dataclass(frozen=True)
class Target:
    """A valid answer as pairs in their final order."""

    pairs: Mapping[str, str]

    @property
    def text(self) -> str:
        """Write it as the generator is to write it."""
        return write_attributes(self.pairs)


def read_target(text: str, product: Product, task: AttributeTask, order: Sequence[str] = ()) -> Target | str:
    """Return `text` as a target, or the parser's reason why it is none. `order` counts where the schema names
    no keys.
    """
    valid, failure = read_answer(text, False, task.schema, product.category, task.settings)
    if valid is None:
        return str(failure)
    pairs = parse_attributes(valid, max_pairs=task.settings.max_pairs)
    keys = task.schema.keys_for(product.category)
    ordered = sorted(pairs, key=_rank(list(keys) or order))
    return Target({key: _in_order(pairs[key], keys[key].values) if key in keys else pairs[key] for key in ordered})


def _rank(order: Sequence[str]) -> Callable[[str], int]:
    places = {key: i for i, key in enumerate(order)}
    return lambda key: places.get(key, len(places))


def _in_order(value: str, values: Sequence[str]) -> str:
    """Return several values in the order that the schema lists them; any other value as it is."""
    parts = value.split(", ")
    return ", ".join(sorted(parts, key=values.index)) if len(parts) > 1 and set(parts) <= set(values) else value


def open_source(work: Workspace, catalog: Catalog, database: Database, student: str) -> Source:
    """Return the source that `sft.source` means. `student` is the id of the generator that is to be taught.

    Raises UsageError and DataError when there is nothing to learn from, saying what there is.
    """
    settings = work.settings
    return _open(settings.sft.source or _source_there_is(settings, database, student), work, catalog, database, student)


def open_known(work: Workspace, catalog: Catalog, database: Database, student: str) -> Source | None:
    """Return where attributes of single listings are known from: what `[sft]` names, else the shop's own columns, else
    what another generator than `student` has written; None where there is nothing. Raises as `open_source`.
    """
    settings = work.settings
    source = settings.sft.source if settings.sft.source != "pairs" else ""
    if not (source or settings.sft.file or settings.sft.columns or settings.sft.teacher):
        if own_columns((), work.task.schema, catalog):
            source = "columns"
        elif not any(name != student for name in database.attribute_sources()):
            return None
    return _open(source or _source_there_is(settings, database, student), work, catalog, database, student)


def _open(source: str, work: Workspace, catalog: Catalog, database: Database, student: str) -> Source:
    settings = work.settings
    if source == "teacher":
        teacher = _find_teacher(settings, database, student)
        return Source(f"teacher {teacher}", _stored, teacher)
    if source == "file":
        path = _file(settings, work.folder)
        texts = read_targets_file(path)
        return Source(f"file {path.name}", lambda product, _: (texts.get(product.id, ""), NO_TARGET))
    found = _columns(settings, work.task.schema, catalog)
    keys = tuple({folded(given): key for given, key in found.items()}.values())
    return Source(f"columns {', '.join(found)}", lambda product, _: (own_text(product, found), NO_TARGET), keys=keys)


def _source_there_is(settings: Settings, database: Database, student: str) -> str:
    """Return what `sft.source` = "" means."""
    if settings.sft.file:
        return "file"
    if settings.sft.columns:
        return "columns"
    others = [name for name in database.attribute_sources() if name != student]
    return "teacher" if settings.sft.teacher or others else "columns"


# A teacher


def _stored(product: Product, row: StoredAttributes | None) -> tuple[str, str]:
    if row is None:
        return "", NO_TARGET
    return ("", row.failure) if row.failure is not None else (row.text, "")


def _find_teacher(settings: Settings, database: Database, student: str) -> str:
    """Return the generator whose stored answers are learnt: named by its id, or by the model's name at its
    beginning.
    """
    wanted = settings.sft.teacher
    stored = database.attribute_sources()
    others = [name for name in stored if name != student]
    known = ", ".join(f"{name} ({stored[name]:,})" for name in stored) or "none"
    how = "run `afmrl attributes` with the teacher first (--generator FOLDER, or --endpoint URL --model NAME)"
    if not wanted:
        if len(others) == 1:
            return others[0]
        if not others:
            raise DataError(f"no attributes by a teacher; stored are attributes by: {known}", how)
        raise UsageError(f"several generators have written attributes: {known}", "name one in sft.teacher")
    name = Path(wanted.rstrip("/")).name.lower()
    begins = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")
    found = [each for each in stored if each in (wanted, name) or re.fullmatch(rf"{re.escape(begins)}-\w{{10}}", each)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"sft.teacher = {wanted} may be any of: {', '.join(found)}", "give the whole id")
    raise DataError(f"no attributes by {wanted}; stored are attributes by: {known}", how)


# The shop's own columns


def _columns(settings: Settings, schema: AttributeSchema, catalog: Catalog) -> dict[str, str]:
    """Return the columns that targets are made from, as `own_columns` does; UsageError or DataError for none."""
    given = catalog.columns.given
    there = ", ".join(key for _, key in given) or "none"
    named = {key for _, key in given} | {catalog.columns.names[i] for i, _ in given}
    if not catalog.own_attributes and (missing := [name for name in settings.sft.columns if name not in named]):
        raise UsageError(f"sft.columns: no column {missing[0]!r}", f"there are: {there}")
    if found := own_columns(settings.sft.columns, schema, catalog):
        return found
    if schema.keys:
        raise DataError(
            f"no column is named like a key of the schema ({', '.join(schema.keys)})",
            f"name columns in sft.columns, or rename keys; the columns are: {there}",
        )
    raise DataError(
        "no attribute columns: no column's name begins with attr_, and there is no schema",
        f"name them in sft.columns; the columns are: {there}",
    )


# A file


def _file(settings: Settings, folder: CatalogFolder) -> Path:
    if not settings.sft.file:
        raise UsageError("sft.source = file needs a file", "name it in sft.file: .csv, .tsv, .jsonl or .parquet")
    return folder.root / settings.sft.file


def read_targets_file(path: Path) -> dict[str, str]:
    """Return attribute text by listing id, from a table with ids and `attributes`, such as `afmrl attributes --out`
    writes.

    Instead of `attributes`, JSONL may have an object `pairs`. Raises DataError when the file can't be read, lacks these
    columns, or names a listing twice.
    """

    def refuse(problem: Problem) -> None:
        if problem.severity == "error":
            raise DataError(f"{path}: {problem.where}: {problem.kind}: {problem.message}", "mend this row")

    found: dict[str, str] = {}
    try:
        with path.open("rb") as source:
            table = raw_table(source, path, CatalogSettings(), refuse)
            names = [plain(name) for name in table.names]
            ids = [i for i, name in enumerate(names) if name in COMMON["id"]]
            texts = [i for i, name in enumerate(names) if name in ("attributes", "pairs")]
            if not ids or not (texts or table.own_attributes):
                raise DataError(
                    f"{path}: no column with ids and one with attributes; the columns are: {', '.join(table.names)}",
                    "such as: id,attributes",
                )
            for row, cells, more in table.rows:
                id = code(from_spreadsheet_cell(one_text(cells[ids[0]])))
                if id in found:
                    raise DataError(f"{path}: row {row}: listing {id} stands twice", "leave one of them out")
                texts_here = (_written(from_spreadsheet_cell(one_text(cells[i]))) for i in texts)
                found[id] = next(filter(None, texts_here), "") or pairs_text(more)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}", "sft.file names it") from error
    return found


def _written(text: str) -> str:
    """Return a JSON object as attribute text; everything else is attribute text, or what the parser will refuse."""
    return attribute_text(text) if text.startswith(("{", "[")) else text


def sparseness(products: Iterator[tuple[Product, Target]], schema: AttributeSchema) -> dict[str, float]:
    """Return for each key the share of the products it applies to that have no value of it."""
    has: dict[str, int] = {}
    lacks: dict[str, int] = {}
    total = 0
    for product, target in products:
        total += 1
        for key in target.pairs:
            has[key] = has.get(key, 0) + 1
        for key in schema.keys_for(product.category).keys() - target.pairs.keys():
            lacks[key] = lacks.get(key, 0) + 1
    if not schema.keys:
        lacks = {key: total - number for key, number in has.items()}
    return {key: lacks.get(key, 0) / (number + lacks.get(key, 0)) for key, number in has.items()}
