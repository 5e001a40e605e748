"""Parents and their variants, whoever exports them: a variant is a listing and takes from its parent what it lacks.

A row is a variant when
    a column says so                    Parentage: Child, Item Type: SKU, fieldType: Variant, Relationship: Variation
    it names its parent                 parent_sku, parent_id, mainnumber
    its parent lists it                 configurable_variations: sku=T1-S,size=S|sku=T1-M,size=M
    it goes on where a product began    no title, but a number and options (Squarespace)
A variant that names no parent belongs to the row above that is none. A parent with variants is no listing, unless it
names itself as its parent (Shopware) or has a GTIN of its own. Rows of other store views (Magento) are folded into the
first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..codes import gtin, holds_gtins
from ..column_names import COMMON
from ..columns import GROUP, PHOTO_WORDS, ColumnMap, forms, holds_images, plain
from ..photo_cells import LINK, NAMED_FILE
from ..problems import Problem
from ..table import Cell, Report, Row, Table, one_text
from .pairs import pairs_in

KIND_NAMES = (
    *("parent_child", "parentage", "parentage_level", "relationship", "relationship_type", "field_type", "item_type"),
    *("item", "row_type", "record_type", "product_type", "type", "kind", "item_level", "variation_type", "النوع"),
)
PARENTS = {"parent", "configurable", "variable", "master", "product", "vaterartikel", "parent product", "منتج"}
CHILDREN = {
    *("child", "variation", "variant", "sku", "product_variation", "product variation", "kindartikel", "variante"),
    "خيار",
}
PHOTOS = {"image", "photo", "bild", "product image"}
REFERENCES = (
    *("parent_sku", "parent", "parent_id", "parent_product_id", "parent_product_sku", "parent_identifier"),
    *("parent_code", "parent_item_sku", "parent_reference", "parent_number", "parent_asin", "master_sku", "master_id"),
    *("master_product_id", "configurable_sku", "vaterartikel", "vater_artikelnummer", "mainnumber", "main_number"),
    *("oxparentid", "base_product", "baseproduct", "identifizierungsspalte_vaterartikel"),
)
LISTS = (
    "configurable_variations",
    "variant_skus",
    "child_skus",
    "simples_skus",
    "super_products_sku",
    "variation_skus",
)
STORE_VIEWS = ("store_view_code", "store")
KEYS = {*COMMON["id"], "oxid", "entity_id", "internal_id", "handle", "product_id", "handle_id"}
VARIANT_KEY = re.compile(r"(variation|variant)_(sku|id|number)$")
MOST_ROWS = 5000
"""Variants of one parent that are held at once."""


@dataclass
class Shape:
    """Where the columns of a family are (-1: no such column), and what has been learnt of the parents."""

    kind: int
    reference: int
    variants: int
    store_view: int
    texts: tuple[int, ...]
    keys: tuple[int, ...]
    photos: frozenset[int]
    """What is inherited together: photos and what is said of them."""
    first_photo: int
    own: frozenset[int]
    variant_key: int = -1
    goes_on: bool = False
    parent_of: dict[str, str] = field(default_factory=dict)
    """Variant -> parent, as parents list them, and the attributes that the list gives."""
    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    parents: dict[str, Row] = field(default_factory=dict)
    keys_of: dict[str, set[str]] = field(default_factory=dict)
    """Parent -> the attributes that its variants differ in."""

    def text(self, row: Row, i: int) -> str:
        """The text in column `i` of `row`; "" when there is no such column."""
        return one_text(row.cells[i]) if i >= 0 else ""

    def of_kind(self, row: Row, kinds: set[str]) -> bool:
        """Whether the kind of `row` is one of `kinds`."""
        return self.kind >= 0 and bool(
            kinds & {kind.strip() for kind in self.text(row, self.kind).casefold().split(",")}
        )

    def id(self, row: Row) -> str:
        """The number of `row`."""
        return next((text for i in self.keys if (text := one_text(row.cells[i]))), "")

    def goes_on_at(self, row: Row) -> bool:
        """Whether `row` has options or a number and no text of its own."""
        return bool(row.more or self.id(row)) and not any(one_text(row.cells[i]) for i in self.texts)

    def learn_of(self, row: Row, wanted: set[str]) -> None:
        """Keep `row` when it is one of the `wanted` parents, and note in what its parent's variants differ."""
        for i in self.keys:
            if (key := one_text(row.cells[i])) in wanted:
                self.parents.setdefault(key, row)
        if (parent := self.parent(row)) and parent != self.id(row):
            self.keys_of.setdefault(parent, set()).update(row.more, self.listed.get(self.id(row), {}))

    def is_parent(self, row: Row) -> bool:
        """Whether other rows name `row` as their parent, or it lists them."""
        keys = (one_text(row.cells[i]) for i in self.keys)
        return any(key in self.parents and self.parents[key].number == row.number for key in keys)

    def parent(self, row: Row) -> str:
        """The number of the parent that `row` names, or that lists it; "" for none."""
        named = self.text(row, self.reference)
        return named or self.parent_of.get(self.id(row), "")


def find_shape(columns: ColumnMap, rows: Sequence[Row], *, options: bool) -> Shape | None:
    """How the table has its families; None when it has none, going by its names and first `rows`. `options`: it has
    columns of options, such as colour and size."""
    written = [plain(name) for name in columns.names]
    bare = [forms(name).bare for name in columns.names]

    def at(known: Sequence[str]) -> int:
        return next((names.index(name) for name in known for names in (written, bare) if name in names), -1)

    id = columns.roles["id"][0]
    others = tuple(i for i, name in enumerate(written) if name in KEYS and i != id)
    photos = frozenset(i for i, name in enumerate(written) if not PHOTO_WORDS.isdisjoint(name.split("_")))
    first_photo = min((i for i, name in enumerate(columns.names) if holds_images(name)), default=-1)
    photos |= {first_photo} - {-1}
    own = frozenset(i for i, name in enumerate(written) if holds_gtins(name)) | {id, *others}
    texts = tuple(i for role in ("title", "description", "category", "brand") for i in columns.roles.get(role, ()))
    reference = at(REFERENCES)
    if reference < 0:  # of Amazon: child_parent_sku_relationship[...].parent_sku
        reference = next((i for i, name in enumerate(bare) if name.endswith("_parent_sku")), -1)
    shape = Shape(-1, reference, at(LISTS), at(STORE_VIEWS), texts, (id, *others), photos, first_photo, own)
    shape.variant_key = next((i for i, name in enumerate(written) if VARIANT_KEY.search(name) and i != id), -1)
    for name in KIND_NAMES:
        shape.kind = at([name])
        if shape.kind >= 0 and any(shape.of_kind(row, CHILDREN | {"configurable"}) for row in rows):
            break
    else:
        shape.kind = -1
    if options and shape.texts and shape.kind < 0 and shape.reference < 0:
        shape.goes_on = any(shape.goes_on_at(row) for row in rows[1:])
    columns_found = max(shape.kind, shape.reference, shape.variants) >= 0 or shape.goes_on
    views = shape.store_view >= 0 and any(shape.text(row, shape.store_view) for row in rows)
    return shape if columns_found or views else None


def families_layout(table: Table, shape: Shape, again: Callable[[], Iterator[Row]], report: Report) -> Table:
    """`table` with a whole row for each variant and a column that joins them. `again` gives the rows once more."""
    if shape.reference >= 0 or shape.variants >= 0:
        _learn(shape, again)
    hidden = {i for i in (shape.kind, shape.reference, shape.variants, shape.store_view) if i >= 0}
    kept = [i for i in range(len(table.names)) if i not in hidden]
    names = (*(table.names[i] for i in kept if table.names[i] != GROUP), GROUP)

    def rows() -> Iterator[Row]:
        """The listings, one after the other."""
        for row, group in _listings(table.rows, shape, report):
            yield Row(row.number, [*(row.cells[i] for i in kept), group], row.more)

    return Table(names, rows(), table.layout, own_attributes=True)


def _learn(shape: Shape, again: Callable[[], Iterator[Row]]) -> None:
    """Find out, in two readings, who is whose parent, and keep the parents' rows."""
    wanted: set[str] = set()
    id = ""
    for row in again():
        if not shape.text(row, shape.store_view):
            id = shape.id(row) or id  # Magento 1 goes on in lines without a number
            for sku, more in _listed(shape.text(row, shape.variants)):
                shape.parent_of[sku], shape.listed[sku] = id, more
            wanted.add(shape.text(row, shape.reference))
    wanted.update(shape.parent_of.values())
    wanted.discard("")
    for row in again():
        if not shape.text(row, shape.store_view):
            shape.learn_of(row, wanted)
    for key, row in list(shape.parents.items()):  # a model below a model (Akeneo)
        above = shape.parents.get(shape.parent(row))
        if above and above.number != row.number:
            shape.parents[key], _ = _variant(row, above, shape.parent(row), shape)


def _listed(cell: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(SKU, attributes) of `sku=A,size=S|sku=B,size=M`, or of SKUs alone."""
    if "=" not in cell:
        yield from ((sku.strip(), {}) for sku in cell.replace("|", ",").replace(";", ",").split(",") if sku.strip())
        return
    for part in cell.split("|"):
        pairs = pairs_in(part)
        if sku := pairs.pop("sku", ""):
            yield sku, pairs


def _listings(rows: Iterator[Row], shape: Shape, report: Report) -> Iterator[tuple[Row, str]]:
    """(listing, its group) of each row that is one; how many are none is told at the end."""
    counts: Counter[str] = Counter()
    for group in _groups(rows, shape, counts):
        first, *below = group
        named = shape.parent(first)
        if named and named != shape.id(first):
            if shape.is_parent(first):
                counts["parents of variants"] += 1
            else:
                yield _variant(first, shape.parents.get(named), named, shape)
            continue
        if _below(first, shape):
            message = "a variant without its product above it"
            report(Problem("row apart", first.number, message, listing=shape.id(first)))
        counts["parents of variants"] += _is_folded(first, below, shape)
        yield from _family(first, below, shape)
    if told := ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items()) if count):
        report(Problem("folded rows", 0, f"rows that are no listings of their own: {told}"))


def _groups(rows: Iterator[Row], shape: Shape, counts: Counter[str]) -> Iterator[list[Row]]:
    """Each row with those that belong to it by standing below; `counts` takes those that belong to none."""
    group: list[Row] = []
    for row in rows:
        if shape.text(row, shape.store_view):
            counts["rows of other store views"] += 1
        elif shape.variants >= 0 and not shape.id(row):
            counts["further lines"] += 1
        elif group and len(group) <= MOST_ROWS and _below(row, shape):
            group.append(row)
        else:
            if group:
                yield group
            group = [row]
    if group:
        yield group


def _below(row: Row, shape: Shape) -> bool:
    """Whether `row` belongs to the one above."""
    if shape.kind >= 0:
        return shape.of_kind(row, CHILDREN | PHOTOS) and not shape.parent(row)
    return shape.goes_on and shape.goes_on_at(row)


def _is_folded(parent: Row, below: Sequence[Row], shape: Shape) -> bool:
    """Whether `parent` is no listing: it has variants, and is none of them."""
    variants = [row for row in below if not shape.of_kind(row, PHOTOS)]
    if variants:
        return not shape.goes_on
    if not shape.is_parent(parent):
        return False
    itself = shape.reference >= 0 and shape.parent(parent) == shape.id(parent)
    has_gtin = not shape.of_kind(parent, PARENTS) and any(
        gtin(one_text(parent.cells[i])) for i in shape.own - set(shape.keys)
    )
    return not itself and not has_gtin


def _family(parent: Row, below: Sequence[Row], shape: Shape) -> Iterator[tuple[Row, str]]:
    """The listings of a product and the rows that stand below it."""
    variants = [row for row in below if not shape.of_kind(row, PHOTOS)]
    photos = [row for row in below if shape.of_kind(row, PHOTOS)]
    if photos and shape.first_photo >= 0:
        parent = _with_photos(parent, photos, shape)
    group = shape.id(parent)
    if not variants:
        if not _is_folded(parent, below, shape):
            yield parent, group if group in shape.parents else ""
        return
    shape.keys_of[group] = {key for row in variants for key in row.more}
    if shape.goes_on:
        yield parent, group
    for number, row in enumerate(variants, 1):
        row, _ = _variant(row, parent, group, shape)
        if one_text(row.cells[shape.keys[0]]) in ("", group):
            own = shape.text(row, shape.variant_key)
            cells = list(row.cells)
            cells[shape.keys[0]] = own or "-".join([group, *(row.more.values() or [str(number)])])
            row = Row(row.number, cells, row.more)
        yield row, group


def _with_photos(parent: Row, photos: Sequence[Row], shape: Shape) -> Row:
    """`parent` with the photos of the rows below that are nothing but photos."""
    texts = (one_text(row.cells[i]) for row in (parent, *photos) for i in sorted(shape.photos))
    found = [text for text in texts if text and (LINK.match(text) or NAMED_FILE.fullmatch(text))]
    cells: list[Cell] = list(parent.cells)
    cells[shape.first_photo] = tuple(dict.fromkeys(found))
    return Row(parent.number, cells, parent.more)


def _variant(row: Row, parent: Row | None, group: str, shape: Shape) -> tuple[Row, str]:
    """`row` with what it lacks taken from `parent`: all but numbers, its photos only when it has none itself."""
    cells: list[Cell] = list(row.cells)
    more = {**shape.listed.get(shape.id(row), {}), **row.more}
    for i in shape.texts[:1]:  # of BigCommerce, as the title: [S]Size=Small
        if (title := one_text(cells[i])).startswith("[") and (options := pairs_in(title)):
            more, cells[i] = {**options, **more}, ""
    if parent is None:
        return Row(row.number, cells, more), group
    bare = not any(one_text(cells[i]) for i in shape.photos)
    for i, cell in enumerate(parent.cells):
        if i not in shape.own and not one_text(cells[i]) and (bare or i not in shape.photos):
            cells[i] = cell
    differ = shape.keys_of.get(group, set())
    inherited = {key: value for key, value in parent.more.items() if key not in differ}
    return Row(row.number, cells, {**inherited, **more}), group
