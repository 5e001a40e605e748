"""What a search has beside the vectors: the words of all listings, the values that they have, the vectors' centre.

    <version>/lexicon.safetensors      made by `afmrl embed`, beside the vectors of that version

Values are those of the shop's own columns that describe (`describing`), brands and steps of categories, and of
attributes that the settings' generator wrote. Both change when the catalog does; generated ones when `afmrl attributes`
runs, too: what the file was made from stands in its head, and where that is no longer so, or the file is damaged, the
same is made anew in memory.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import UNREAD, read_stored
from ..attributes.schema import folded
from ..attributes.views import AttributeSource, open_views, text_to_show
from ..catalog.categories import STEP
from ..store.files import writing
from ..workspace import Workspace
from .bm25 import tokenize
from .columns import Column, Columns
from .filters import LIST_SEPARATOR, is_price
from .hits import stored_attributes
from .listings import Listing
from .named import Named, Pair, index_pairs
from .narrow import ROWS, Matrix
from .vectors import Vectors
from .words import Words, index_words

SCHEMA = "afmrl.lexicon/1"
LEXICON = "lexicon.safetensors"
REPEATS = 2.0
"""Filled cells for each different one, from which a column of the shop's describes rows and does not number them."""
LONGEST_VALUE = 40
NO_VALUES = frozenset(("id", "product_id", "group_id"))
AT_A_TIME = 512


@dataclass(frozen=True)
class Lexicon:
    """Of n listings: their `words`, the pairs of the shop's own columns (`own`) and of generated attributes, and the
    mean of their vectors, `center` [d].
    """

    words: Words
    own: Named
    generated: Named
    center: NDArray[np.float32]


def make_lexicon(
    texts: Iterable[str], fields: Iterable[Mapping[str, str]], attributes: Iterable[str], matrix: Matrix
) -> Lexicon:
    """Make it of the listings' product `texts`, their `fields` and their attribute texts, in the order of the rows of
    `matrix`.
    """
    return Lexicon(
        index_words([tokenize(text) for text in texts]),
        index_pairs(own_pairs(Columns(fields))),
        index_pairs(map(attribute_pairs, attributes)),
        center_of(matrix),
    )


def center_of(matrix: Matrix) -> NDArray[np.float32]:
    """Return the mean of the rows of `matrix`, [d]."""
    total = np.zeros(matrix.shape[1], dtype=np.float64)
    for start in range(0, len(matrix), ROWS):
        total += np.asarray(matrix[start : start + ROWS], dtype=np.float32).sum(axis=0, dtype=np.float64)
    center: NDArray[np.float32] = (total / max(1, len(matrix))).astype(np.float32)
    return center


def attribute_pairs(text: str) -> list[Pair]:
    """Return the pairs of attribute text, each of several values by itself."""
    pairs = read_stored(text)
    pairs.pop(UNREAD, None)
    return [(key, part) for key, value in pairs.items() for part in value.split(", ")]


def own_pairs(columns: Columns) -> Iterator[list[Pair]]:
    """Yield the pairs of each listing that its describing columns hold."""
    keys = [key for key in columns if _describes(key, columns[key])]
    values = {key: [_values(key, cell) for cell in columns[key].cells] for key in keys}
    for row in range(columns.count):
        codes = ((key, columns[key].codes[row]) for key in keys)
        yield [(key, value) for key, code in codes if code >= 0 for value in values[key][code]]


def _describes(key: str, column: Column) -> bool:
    """Tell whether a column says how listings are, and not which, when or for how much."""
    if key in NO_VALUES or is_price(key):
        return False
    if key in ("brand", "category"):
        return True
    filled = int((column.codes >= 0).sum())
    short = sum(len(part) <= LONGEST_VALUE for cell in column.cells for part in cell.split(LIST_SEPARATOR))
    return len(column.cells) > 1 and REPEATS * len(column.cells) <= filled and 2 * short >= len(column.cells)


def _values(key: str, cell: str) -> list[str]:
    parts = STEP.split(cell) if key == "category" else [cell]
    split = (" ".join(value.split()) for part in parts for value in part.split(LIST_SEPARATOR))
    return [value for value in split if 0 < len(value) <= LONGEST_VALUE]


def generated_columns(named: Named) -> Columns:
    """Return generated attributes as columns that a filter can look at."""
    fields: list[dict[str, str]] = [{} for _ in range(named.count)]
    for number, (key, value) in enumerate(named.pairs):
        for row in named.rows[named.ends[number] : named.ends[number + 1]].tolist():
            held = fields[row].get(key)
            fields[row][key] = f"{held}{LIST_SEPARATOR}{value}" if held else value
    return Columns({folded(key): cell for key, cell in each.items()} for each in fields)


def open_lexicon(work: Workspace, vectors: Vectors) -> Lexicon:
    """Read what `embed` has stored beside `vectors`, else make it."""
    facts = lexicon_facts(work, vectors)
    stored = read_lexicon(vectors, facts)
    return stored or lexicon_of(work, vectors)


def bring_lexicon_up_to_date(work: Workspace, vectors: Vectors) -> bool:
    """Write the lexicon of `vectors` where it is not there or no longer right; tell whether it was. The caller holds
    the writer's lock.
    """
    facts = lexicon_facts(work, vectors)
    if read_lexicon(vectors, facts) is not None:
        return False
    write_lexicon(vectors.folder / LEXICON, lexicon_of(work, vectors), facts)
    return True


def lexicon_of(work: Workspace, vectors: Vectors) -> Lexicon:
    """Make the lexicon of the listings of `vectors`, with what is stored of their attributes."""
    return make_lexicon(
        vectors.listings.column("text"), vectors.listings.fields(), attribute_texts(work, vectors), vectors.matrix
    )


def attribute_texts(work: Workspace, vectors: Vectors) -> Iterator[str]:
    """Yield the stored attribute text of each listing that people are shown, "" for none."""
    source = _source(work)
    if source is None:
        yield from ("" for _ in range(len(vectors.listings)))
        return
    with open_views(work, source) as views:
        rows: Iterator[Listing] = iter(vectors.listings)
        while some := list(islice(rows, AT_A_TIME)):
            found = stored_attributes(some, views, work.folder.root)
            yield from (text_to_show(found.get(listing.id)) for listing in some)


def _source(work: Workspace) -> AttributeSource | None:
    """Return whose attribute texts are read; None where nothing was ever generated."""
    if not work.folder.database.is_file():
        return None
    with work.database() as database:
        if not database.attribute_sources():
            return None
    return work.source_on_disk


def lexicon_facts(work: Workspace, vectors: Vectors) -> dict[str, Any]:
    """Return what the lexicon depends on."""
    source = _source(work)
    state: list[float] = []
    if source is not None:
        with work.database() as database:
            state = list(database.attributes_state(source.generator, source.prompt))
    attributes = {**asdict(source), "state": state} if source is not None and state[0] else None
    return {"schema": SCHEMA, "data": vectors.manifest["data"], "count": len(vectors.listings), "made": attributes}


def write_lexicon(file: Path, lexicon: Lexicon, facts: Mapping[str, Any]) -> None:
    """Write `lexicon` at `file`, atomically."""
    from safetensors.numpy import save

    arrays = {f"words.{name}": getattr(lexicon.words, name) for name in ("hashes", "ends", "rows", "weights")}
    for name, named in (("own", lexicon.own), ("generated", lexicon.generated)):
        pairs = json.dumps(named.pairs, ensure_ascii=False).encode("utf-8", "surrogatepass")
        arrays |= {f"{name}.ends": named.ends, f"{name}.rows": named.rows}
        arrays[f"{name}.pairs"] = np.frombuffer(pairs, dtype=np.uint8)
    arrays["center"] = lexicon.center
    head = json.dumps({**facts, "crc32": _checksum(arrays)}, sort_keys=True)
    with writing(file) as temporary:
        temporary.write_bytes(save(arrays, {"afmrl": head}))


def read_lexicon(vectors: Vectors, facts: Mapping[str, Any]) -> Lexicon | None:
    """Return the lexicon that is stored beside `vectors`; None where there is none, or it is damaged, or not of what
    `facts` say.
    """
    from safetensors import SafetensorError, safe_open

    file = vectors.folder / LEXICON
    try:
        with safe_open(file, framework="numpy") as stored:
            head = json.loads((stored.metadata() or {}).get("afmrl", "{}"))
            if {key: value for key, value in head.items() if key != "crc32"} != dict(facts):
                return None
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no mapping
        if head.get("crc32") != _checksum(arrays):
            return None
        return _read(arrays, len(vectors.listings), vectors.matrix.shape[1])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError):
        return None  # none yet, or what is no file of ours: it is made anew


def _read(arrays: Mapping[str, NDArray[Any]], count: int, dimension: int) -> Lexicon:
    """Return the lexicon that `arrays` hold; ValueError for numbers that lead outside of it."""
    words = Words(count, *(arrays[f"words.{name}"] for name in ("hashes", "ends", "rows", "weights")))
    kinds = [str(each.dtype) for each in (words.hashes, words.ends, words.rows, words.weights)]
    if kinds != ["uint64", "int64", "int32", "float32"] or len(words.weights) != len(words.rows):
        raise ValueError("other arrays")
    _check_postings(words.ends, words.rows, len(words.hashes), count)
    own, generated = (_read_named(arrays, name, count) for name in ("own", "generated"))
    center = arrays["center"]
    if center.shape != (dimension,) or center.dtype != np.float32:
        raise ValueError("another centre")
    return Lexicon(words, own, generated, center)


def _read_named(arrays: Mapping[str, NDArray[Any]], name: str, count: int) -> Named:
    pairs = json.loads(arrays[f"{name}.pairs"].tobytes())
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in pairs):
        raise ValueError("no pairs")
    ends, rows = arrays[f"{name}.ends"], arrays[f"{name}.rows"]
    _check_postings(ends, rows, len(pairs), count)
    return Named(count, [(key, value) for key, value in pairs], ends, rows)


def _check_postings(ends: NDArray[Any], rows: NDArray[Any], lists: int, count: int) -> None:
    right = ends.shape == (lists + 1,) and ends[0] == 0 and ends[-1] == len(rows) and bool((np.diff(ends) >= 0).all())
    if not right or (len(rows) and not (0 <= int(rows.min()) <= int(rows.max()) < count)):
        raise ValueError("postings of other listings")


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    found = 0
    for name in sorted(arrays):
        found = zlib.crc32(np.ascontiguousarray(arrays[name]).view(np.uint8).data, found)
    return found
