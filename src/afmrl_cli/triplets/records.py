"""The listings of one split as records: what kind of garment, and its attributes as pairs.

Attributes are the shop's own columns (`attributes.own_columns`) or what the generator has written of the whole listing
(`attributes.views`, so that pairs below `attributes.min_confidence` are gone). One source is taken for all, since two
sources name one thing by two words; the other one is kept beside it, as the second opinion that `verify` asks.

Sizes are no attributes here: no photo shows them. Neither are keys whose values are numbers or nearly all different:
nobody asks for "the same, with article 4711".
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from sys import intern

from ..attributes.own_columns import own_text
from ..attributes.parse import UNREAD, read_stored
from ..attributes.schema import AttributeSchema, folded
from ..attributes.views import LISTING, AttributeSource, StoredViews, open_views
from ..catalog.fingerprints import UNREADABLE
from ..catalog.name_forms import plain
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import count_rows, read_products
from ..catalog.splits import Split, split_of
from ..catalog.verdicts import read_verdicts
from ..dedupe.variants import AMBIGUOUS, COLOUR, COLOURS, KEYS, SIZE, plain_text
from ..errors import DataError
from ..retrieval.composed import attribute_columns
from ..workspace import Workspace

TYPE_KEYS = frozenset({"type", "product type", "garment", "garment type", "item", "category", "kind"})
"""Keys that say what a product is, as `folded` writes them: never a change, since that would be another product."""
MOST_KEYS, FEW_VALUES, LONGEST_VALUE = 64, 10, 40
"""Keys that records have, the most often filled ones; different values that a key may have in any case; characters of
a value that a person would say."""

NO_TYPE = "without category or type, so that only variants count"

Pairs = Mapping[str, tuple[str, str]]
"""By folded key: the key and the value as they are written."""


class NoTriplets(DataError):
    """A split of which no triplets can be made."""


@dataclass(frozen=True, slots=True)
class Record:
    """A listing. `type` is its category with its kind of garment, "" where neither is known; `other` are its attributes
    by the other source; `colour` the one colour that its title names, as (which colour, its word); `photo` the content
    of the first photo; `text` its whole attribute text, by the source of `pairs`.
    """

    id: str
    identity: str
    group: str
    type: str
    title: str
    images: tuple[Path, ...]
    photo: str
    pairs: Pairs
    other: Pairs = field(default_factory=dict)
    colour: tuple[str, str] | None = None
    text: str = ""

    def value(self, key: str) -> str:
        """Return the value of a key as it is compared, "" where the record does not say it."""
        return compared(self.pairs[key][1]) if key in self.pairs else ""


@dataclass(frozen=True, slots=True)
class Written:
    """Attribute text of a listing by one source, and its pairs."""

    text: str
    pairs: Pairs


@dataclass(frozen=True)
class Records:
    """The records of a split, by id, and where they are from: `source` is "given" or "generated", `made_by` the columns
    or the generator's id. `left_out` counts listings by reason, `unused` says of keys why they are none.
    """

    rows: list[Record]
    source: str
    made_by: tuple[str, ...]
    left_out: Mapping[str, int]
    unused: Mapping[str, str]
    fingerprint: str


@lru_cache(maxsize=1 << 16)
def compared(value: str) -> str:
    """Return a value as it is compared: case and the order of several aside."""
    parts = sorted({folded(part) for part in value.split(",")} - {""})
    return intern(", ".join(parts))


@lru_cache(maxsize=1 << 10)
def is_colour(key: str) -> bool:
    """Check whether a key is called colour, in any of the languages that `dedupe` knows."""
    return KEYS.get(plain(key)) == COLOUR


def load_records(work: Workspace, split: Split, problems: Problems) -> Records:
    """Read the listings of `split` that have a photo and attributes. Raises NoTriplets where nothing is left."""
    wanted, columns = work.settings.triplets.attributes, attribute_columns(work)
    left_out: Counter[str] = Counter()
    source = _generator(work) if wanted != "given" else None
    with open_views(work, source) as views:
        found = list(_read(work, split, columns, views, problems, left_out))
        views.tell(work.listener)
    verdicts = read_verdicts(work.settings, work.folder.root)
    if verdicts:
        joined = verdicts.identities({record.id: record.identity for record, _ in found})
        found = [(replace(record, identity=joined[record.id]), written) for record, written in found]
    given, generated = (
        (sum(bool(each.pairs) for each in side) for side in zip(*found, strict=True)) if found else (0, 0)
    )
    kind = wanted if wanted != "auto" else "given" if given >= generated else "generated"
    if kind == "generated":
        rows = [replace(own, pairs=written.pairs, text=written.text, other=own.pairs) for own, written in found]
    else:
        rows = [replace(own, other=written.pairs) for own, written in found]
    unused = _unused_keys(rows)
    rows = sorted((_described(record, unused) for record in rows), key=lambda record: record.id)
    kept = [record for record in rows if record.pairs or record.colour]
    left_out["no attributes"] += len(rows) - len(kept)
    left_out[NO_TYPE] += sum(not record.type for record in kept)
    if not any(record.pairs for record in kept) and not any(r.group and r.colour for r in kept):
        raise _nothing(work, split, left_out, kind)
    made_by = tuple(columns.values()) if kind == "given" else ((source.generator,) if source else ())
    return Records(kept, kind, made_by, +left_out, unused, _fingerprint(kept))


def _generator(work: Workspace) -> AttributeSource | None:
    """Return whose stored attributes are read; None where nothing at all is stored."""
    with work.database() as database:
        stored = database.attribute_sources()
    return work.source_on_disk if stored else None


def _read(
    work: Workspace,
    split: Split,
    columns: Mapping[str, str],
    views: StoredViews,
    problems: Problems,
    left_out: Counter[str],
) -> Iterator[tuple[Record, Written]]:
    """Yield each listing of the split as a record of the shop's own columns, and what was generated of it."""
    settings, schema = work.settings, work.task.schema
    total = count_rows(work.folder, settings.catalog)

    def of_split() -> Iterator[Product]:
        """Yield the listings whose identity is of the split, and nothing else of the catalog."""
        for number, product in enumerate(read_products(work.folder, settings.catalog, problems), 1):
            work.listener.progress("reading", number, total)
            if split_of(product, settings.split) != split or (split == "train" and not work.sees(product)):
                left_out["of another split"] += 1
            elif not product.images:
                left_out["no photo"] += 1
            else:
                yield product

    for product, texts in views.of_listings(of_split(), ["listing"]):
        photo = views.fingerprinter.hash_of(product.images[0])
        if photo == UNREADABLE:
            left_out["no photo"] += 1
            continue
        own, generated = (
            Written(text, _pairs(text, schema)) for text in (own_text(product, columns), texts.get(LISTING, ""))
        )
        record = Record(
            product.id,
            product.identity,
            product.group_id or "",
            _own_type(product),
            product.title,
            product.images,
            photo[:16],
            own.pairs,
            colour=_title_colour(product.title),
            text=own.text,
        )
        yield record, generated


def _pairs(text: str, schema: AttributeSchema) -> Pairs:
    """Read attribute text, without what says that nothing was seen and without texts that no person would say."""
    pairs = schema.without_gaps(read_stored(text))
    return {
        intern(folded(key)): (intern(key), intern(value))
        for key, value in pairs.items()
        if key != UNREAD and len(value) <= LONGEST_VALUE
    }


def _own_type(product: Product) -> str:
    """Return what the shop says that a product is: its category, and columns such as `type` or `attr_category`."""
    columns = sorted((folded(name.removeprefix("attr_")), value) for name, value in product.given.items())
    kinds = [compared(value.replace("|", ",")) for name, value in columns if name in TYPE_KEYS]
    return "|".join(dict.fromkeys(filter(None, [folded(product.category), *kinds])))


def _title_colour(title: str) -> tuple[str, str] | None:
    """Return the colour that a title names, None for none or for several."""
    words = re.findall(r"\w+", title.lower())
    named = {COLOURS[name]: word for word in words if (name := plain_text(word)) in COLOURS and name not in AMBIGUOUS}
    return next(iter(named.items())) if len(named) == 1 else None


def _unused_keys(rows: Iterable[Record]) -> dict[str, str]:
    """Return the keys that can't be changed, with the reason."""
    values: dict[str, Counter[str]] = {}
    for record in rows:
        for key, (_, value) in record.pairs.items():
            values.setdefault(key, Counter())[compared(value)] += 1
    unused: dict[str, str] = {}
    for key, counts in values.items():
        if key in TYPE_KEYS:
            unused[key] = "says what the product is"
        elif KEYS.get(plain(key)) == SIZE:
            unused[key] = "a size, which no photo shows"
        elif not any(char.isalpha() for value in counts for char in value):
            unused[key] = "numbers"
        elif len(counts) > max(FEW_VALUES, min(counts.total() // 2, 100 + counts.total() // 10)):
            unused[key] = "nearly all values are different"
    left = sorted(values.keys() - unused.keys(), key=lambda key: (-values[key].total(), key))
    return unused | dict.fromkeys(left[MOST_KEYS:], f"not among the {MOST_KEYS} that are filled most often")


def _described(record: Record, unused: Mapping[str, str]) -> Record:
    """Return a record without the keys that are not used; those that say what it is are part of its type."""
    kinds = [record.type, *(record.value(key) for key in sorted(record.pairs.keys() & TYPE_KEYS))]
    pairs = {key: pair for key, pair in record.pairs.items() if key not in unused}
    return replace(record, pairs=pairs, type=intern("|".join(filter(None, kinds))))


def _nothing(work: Workspace, split: Split, left_out: Counter[str], kind: str) -> NoTriplets:
    why = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items() if number)
    hint = "run `afmrl attributes`" if kind == "generated" else "name columns in sft.columns, or run `afmrl attributes`"
    if left_out["no photo"] and not left_out["no attributes"]:
        hint = "see `afmrl check` for the photos"
    return NoTriplets(f"{work.folder.catalog}: no listing of the {split} split has photo and attributes ({why})", hint)


def _fingerprint(rows: Iterable[Record]) -> str:
    digest = hashlib.sha256()
    for r in rows:
        content = [r.id, r.identity, r.group, r.type, r.title, r.photo, *map(str, r.images), r.pairs, r.other]
        digest.update((repr(content) + "\n").encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
