"""Parents and their variants in shop exports: a variant is a listing and takes from its parent what it lacks.

A row is a variant when
    a column says so                    Parentage: Child, Item Type: SKU, fieldType: Variant, Relationship: Variation
    it names its parent                 parent_sku, parent_id, mainnumber
    its parent lists it                 configurable_variations: sku=T1-S,size=S|sku=T1-M,size=M
    it goes on where a product began    no title, but a number and options (Squarespace), or the product's number again
    it shares its title with the row    and differs in its options (Square)
      above
A variant that names no parent belongs to the row above that is none. Lines without number and title that bring no more
than photos, options and categories go on with the product above (Magento 1); so do rows that differ in a photo alone.
A parent with variants is no listing, unless it names itself as its parent (Shopware) or has a GTIN of its own. Rows of
other store views (Magento) are folded into the first.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from ..codes import gtin, holds_gtins
from ..column_names import COMMON
from ..columns import GROUP, ColumnMap
from ..name_forms import forms, plain
from ..photo_cells import LINK, NAMED_FILE
from ..photo_columns import PHOTO_WORDS, holds_images
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
    *("untergeordnet", "enfant", "hijo", "figlio", "underordnad", "onderliggend"),
    "خيار",
}
PHOTOS = {"image", "photo", "bild", "product image"}
OPTIONS = {"product_option", "product option", "option", "modifier"}
"""Kinds of rows that stand below a product and are no listings: they list what its variants say themselves."""
REFERENCES = (
    *("parent_sku", "parent", "parent_id", "parent_product_id", "parent_product_sku", "parent_identifier"),
    *("parent_code", "parent_item_sku", "parent_reference", "parent_number", "parent_asin", "master_sku", "master_id"),
    *("master_product_id", "configurable_sku", "vaterartikel", "vater_artikelnummer", "mainnumber", "main_number"),
    *("oxparentid", "base_product", "baseproduct", "identifizierungsspalte_vaterartikel", "variant_of", "child_of"),
    *("is_child_of_product_code", "variation_of", "parent_handle", "parent_item"),
)
LISTS = (
    "configurable_variations",
    "variant_skus",
    "child_skus",
    "simples_skus",
    "super_products_sku",
    "variation_skus",
    "variations_variants_variant",
    "variations_variants",
)
STORE_VIEWS = ("store_view_code", "store")
KEYS = {*COMMON["id"], "oxid", "entity_id", "internal_id", "handle", "product_id", "handle_id", "key", "url_handle"}
VARIANT_KEY = re.compile(r"(variation|variant)_(sku|id|number|key)$|^sku管理番号$")
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
    together: int = -1
    """The product's number, which rows without text repeat or leave out."""
    by_title: bool = False
    further: bool = False
    gathered: tuple[int, ...] = ()
    """Columns whose cells further lines add to."""
    parent_of: dict[str, str] = field(default_factory=dict)
    """Variant -> parent, as parents list them, and the attributes that the list gives."""
    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    parents: dict[str, Row] = field(default_factory=dict)
    keys_of: dict[str, set[str]] = field(default_factory=dict)
    """Parent -> the attributes that its variants differ in."""

    def text(self, row: Row, i: int) -> str:
        """Return the text in column `i` of `row`; "" when there is no such column."""
        return one_text(row.cells[i]) if i >= 0 else ""

    def of_kind(self, row: Row, kinds: set[str]) -> bool:
        """Tell whether the kind of `row` is one of `kinds`."""
        return self.kind >= 0 and bool(
            kinds & {kind.strip() for kind in self.text(row, self.kind).casefold().split(",")}
        )

    def id(self, row: Row) -> str:
        """Return the number of `row`."""
        return next((text for i in self.keys if (text := one_text(row.cells[i]))), "")

    def has_text(self, row: Row) -> bool:
        """Tell whether `row` has a title, a description, a category or a brand of its own."""
        return any(one_text(row.cells[i]) for i in self.texts)

    def goes_on_at(self, row: Row) -> bool:
        """Tell whether `row` has options or a number and no text of its own."""
        return bool(row.more or self.id(row)) and not self.has_text(row)

    def learn_of(self, row: Row, wanted: set[str]) -> None:
        """Keep `row` when it is one of the `wanted` parents, and note in what its parent's variants differ."""
        for i in self.keys:
            if (key := one_text(row.cells[i])) in wanted:
                self.parents.setdefault(key, row)
        if (parent := self.parent(row)) and parent != self.id(row):
            self.keys_of.setdefault(parent, set()).update(row.more, self.listed.get(self.id(row), {}))

    def is_parent(self, row: Row) -> bool:
        """Tell whether other rows name `row` as their parent, or it lists them."""
        keys = (one_text(row.cells[i]) for i in self.keys)
        return any(key in self.parents and self.parents[key].number == row.number for key in keys)

    def parent(self, row: Row) -> str:
        """Return the number of the parent that `row` names, or that lists it; "" for none."""
        named = self.text(row, self.reference)
        return named or self.parent_of.get(self.id(row), "")


def find_shape(columns: ColumnMap, rows: Sequence[Row], *, options: bool) -> Shape | None:
    """Return how the table has its families; None when it has none, going by its names and first `rows`. `options`: it
    has columns of options, such as colour and size.
    """
    written = [plain(name) for name in columns.names]
    bare = [forms(name).bare for name in columns.names]

    def at(known: Sequence[str]) -> int:
        together = [name.replace("_", "") for name in known]
        places = (written, bare), (known, together)
        return next((names.index(n) for kind in places[1] for n in kind for names in places[0] if n in names), -1)

    id = columns.roles["id"][0]
    others = tuple(i for i in range(len(written)) if not KEYS.isdisjoint((written[i], bare[i])) and i != id)
    photos = frozenset(
        i
        for i, name in enumerate(columns.names)
        if holds_images(name) or not PHOTO_WORDS.isdisjoint(written[i].split("_"))
    )
    first_photo = min((i for i, name in enumerate(columns.names) if holds_images(name)), default=-1)
    own = frozenset(i for i, name in enumerate(written) if holds_gtins(name)) | {id, *others}
    texts = tuple(i for role in ("title", "description", "category", "brand") for i in columns.roles.get(role, ()))
    reference = at(REFERENCES)
    if reference < 0:  # of Amazon: child_parent_sku_relationship[...].parent_sku
        reference = next((i for i, name in enumerate(bare) if name.endswith("_parent_sku")), -1)
    shape = Shape(-1, reference, at(LISTS), at(STORE_VIEWS), texts, (id, *others), photos, first_photo, own)
    shape.variant_key = next((i for i, name in enumerate(written) if VARIANT_KEY.search(name) and i != id), -1)
    shape.gathered = (
        *(i for i in sorted(photos) if holds_images(columns.names[i])),
        *columns.roles.get("category", ()),
    )
    for name in KIND_NAMES:
        shape.kind = at([name])
        if shape.kind >= 0 and any(shape.of_kind(row, CHILDREN | {"configurable"}) for row in rows):
            break
    else:
        shape.kind = -1
    if shape.texts and shape.kind < 0 and shape.reference < 0:
        shape.together = _together(shape, rows)
        shape.goes_on = shape.together >= 0 or (options and any(shape.goes_on_at(row) for row in rows[1:]))
    titles = columns.roles.get("title", ())
    named = max(shape.kind, shape.reference, shape.variants) >= 0 or shape.goes_on
    if options and titles and not named and "group_id" not in columns.roles:
        shape.texts = (titles[0], *(i for i in texts if i != titles[0]))
        shape.by_title = any(_shares_title(row, above, shape) for above, row in pairwise(rows))
    shape.further = shape.variants >= 0 or any(_is_further(row, above, shape) for above, row in pairwise(rows))
    views = shape.store_view >= 0 and any(shape.text(row, shape.store_view) for row in rows)
    return shape if named or views or shape.by_title or shape.further else None


def _together(shape: Shape, rows: Sequence[Row]) -> int:
    """Return the column that numbers products where variants have rows of their own without text: such rows leave it
    empty or repeat it. -1 when there is none, or no such row.
    """
    for i in shape.keys[1:]:
        begun, last, below = Counter[str](), "", 0
        for row in rows:
            key = shape.text(row, i)
            if shape.has_text(row):
                begun[key] += 1
                last = key
            elif not last or key not in ("", last) or not shape.id(row):
                break
            else:
                below += 1
        else:
            if below and begun.most_common(1)[0][1] == 1 and "" not in begun:
                return i
    return -1


def _shares_title(row: Row, above: Row, shape: Shape) -> bool:
    """Tell whether `row` has the title of the one `above` and other options."""
    title = shape.text(row, shape.texts[0])
    return (
        bool(title and row.more and above.more)
        and title == shape.text(above, shape.texts[0])
        and row.more != above.more
    )


def _is_further(row: Row, above: Row, shape: Shape) -> bool:
    """Tell whether `row` has neither number nor text and brings only little more to the one `above`, or is the same but
    for its photo.
    """
    if shape.gathered and shape.id(row) and shape.id(row) == shape.id(above):
        return _differs_in_photo(row, above, shape)
    if shape.id(row) or not shape.id(above) or shape.has_text(row):
        return False
    brings = row.more or any(one_text(row.cells[i]) for i in shape.gathered)
    return bool(brings) and 2 * sum(map(bool, map(one_text, row.cells))) <= sum(map(bool, map(one_text, above.cells)))


def _differs_in_photo(row: Row, above: Row, shape: Shape) -> bool:
    """Tell whether `row` says what the one `above` says, with another photo: exports with a row per photo."""
    texts = [(one_text(cell), one_text(other)) for cell, other in zip(row.cells, above.cells, strict=True)]
    same = all(text in ("", other) for i, (text, other) in enumerate(texts) if i not in shape.photos)
    return (
        same and row.more == above.more and any(texts[i][0] and texts[i][0] not in texts[i][1] for i in shape.gathered)
    )


def families_layout(table: Table, shape: Shape, again: Callable[[], Iterator[Row]], report: Report) -> Table:
    """Return `table` with a whole row for each variant and a column that joins them. `again` gives the rows
    once more.
    """
    if shape.reference >= 0 or shape.variants >= 0:
        _learn(shape, again)
    hidden = {i for i in (shape.kind, shape.reference, shape.variants, shape.store_view) if i >= 0}
    kept = [i for i in range(len(table.names)) if i not in hidden]
    names = (*(table.names[i] for i in kept if table.names[i] != GROUP), GROUP)

    def rows() -> Iterator[Row]:
        """Yield the listings, one after the other."""
        for row, group in _listings(table.rows, shape, report):
            yield Row(row.number, [*(row.cells[i] for i in kept), group], row.more)

    return Table(names, rows(), table.layout, own_attributes=True)


def _learn(shape: Shape, again: Callable[[], Iterator[Row]]) -> None:
    """Find out, in two readings, which row is the parent of which, and keep the parents' rows."""
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
    above: Row | None = None
    for row in again():
        if shape.text(row, shape.store_view):
            continue
        if above and _goes_with(row, above, shape):
            above = _with_line(above, row, shape)
            shape.parents.update({key: above for key, kept in shape.parents.items() if kept.number == above.number})
        else:
            shape.learn_of(row, wanted)
            above = row
    for key, row in list(shape.parents.items()):  # a model below a model (Akeneo)
        above = shape.parents.get(shape.parent(row))
        if above and above.number != row.number:
            shape.parents[key], _ = _variant(row, above, shape.parent(row), shape)


def _listed(cell: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (SKU, attributes) of `sku=A,size=S|sku=B,size=M`, or of SKUs alone."""
    if cell[:1] == "[":  # of Salesforce, as JSON: [{"product-id": "A"}, ...]
        with suppress(ValueError):
            parts = json.loads(cell)
            yield from ((str(sku), {}) for part in parts if isinstance(part, dict) for sku in list(part.values())[:1])
        return
    if "=" not in cell:
        yield from ((sku.strip(), {}) for sku in cell.replace("|", ",").replace(";", ",").split(",") if sku.strip())
        return
    for part in cell.split("|"):
        pairs = pairs_in(part)
        if sku := pairs.pop("sku", ""):
            yield sku, pairs


def _listings(rows: Iterator[Row], shape: Shape, report: Report) -> Iterator[tuple[Row, str]]:
    """Yield (listing, its group) of each row that is one; how many are none is reported at the end."""
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
        if not shape.by_title and _below(first, first, shape):
            message = "a variant without its product above it"
            report(Problem("row apart", first.number, message, listing=shape.id(first)))
        counts["parents of variants"] += _is_folded(first, below, shape)
        yield from _family(first, below, shape)
    if summary := ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items()) if count):
        report(Problem("folded rows", 0, f"rows that are no listings of their own: {summary}"))


def _groups(rows: Iterator[Row], shape: Shape, counts: Counter[str]) -> Iterator[list[Row]]:
    """Yield each row with those that belong to it by standing below; `counts` takes those that belong to none."""
    group: list[Row] = []
    for row in rows:
        if shape.text(row, shape.store_view):
            counts["rows of other store views"] += 1
        elif group and _goes_with(row, group[-1], shape):
            counts["further lines"] += 1
            group[-1] = _with_line(group[-1], row, shape)
        elif group and len(group) <= MOST_ROWS and _below(row, group[-1], shape):
            group.append(row)
        else:
            if group:
                yield group
            group = [row]
    if group:
        yield group


def _goes_with(row: Row, above: Row, shape: Shape) -> bool:
    """Tell whether `row` is a further line of the row `above`. Magento 1 has a number only in a product's first
    line.
    """
    return shape.further and ((shape.variants >= 0 and not shape.id(row)) or _is_further(row, above, shape))


def _with_line(above: Row, line: Row, shape: Shape) -> Row:
    """Return `above` with the photos, categories and attributes of a further `line` of the same product."""
    cells: list[Cell] = list(above.cells)
    for i in shape.gathered:
        if text := one_text(line.cells[i]):
            own = cells[i]
            parts = own if isinstance(own, tuple) else (own.strip(),) if own.strip() else ()
            cells[i] = tuple(dict.fromkeys((*parts, text)))
    return Row(above.number, cells, {**line.more, **above.more})


def _below(row: Row, above: Row, shape: Shape) -> bool:
    """Tell whether `row` belongs to the product of the row `above`."""
    if shape.kind >= 0:
        return shape.of_kind(row, CHILDREN | PHOTOS | OPTIONS) and not shape.parent(row)
    if shape.by_title:
        return _shares_title(row, above, shape)
    return shape.goes_on and shape.goes_on_at(row)


def _is_folded(parent: Row, below: Sequence[Row], shape: Shape) -> bool:
    """Tell whether `parent` is no listing: it has variants, and is none of them."""
    if any(not shape.of_kind(row, PHOTOS | OPTIONS) for row in below):
        return not _is_listing(parent, shape)
    if not shape.is_parent(parent):
        return False
    itself = shape.reference >= 0 and shape.parent(parent) == shape.id(parent)
    has_gtin = not shape.of_kind(parent, PARENTS) and any(
        gtin(one_text(parent.cells[i])) for i in shape.own - set(shape.keys)
    )
    return not itself and not has_gtin


def _family(parent: Row, below: Sequence[Row], shape: Shape) -> Iterator[tuple[Row, str]]:
    """Yield the listings of a product and the rows that stand below it."""
    variants = [row for row in below if not shape.of_kind(row, PHOTOS | OPTIONS)]
    photos = [row for row in below if shape.of_kind(row, PHOTOS)]
    if photos and shape.first_photo >= 0:
        parent = _with_photos(parent, photos, shape)
    group = shape.id(parent)
    if not variants:
        if not _is_folded(parent, below, shape):
            yield parent, group if group in shape.parents else ""
        return
    shape.keys_of[group] = {key for row in variants for key in row.more}
    if _is_listing(parent, shape):
        yield parent, group
    for number, row in enumerate(variants, 1):
        row, _ = _variant(row, parent, group, shape)
        if one_text(row.cells[shape.keys[0]]) in ("", group):
            own = shape.text(row, shape.variant_key)
            cells = list(row.cells)
            cells[shape.keys[0]] = own or "-".join([group, *(row.more.values() or [str(number)])])
            row = Row(row.number, cells, row.more)
        yield row, group


def _is_listing(parent: Row, shape: Shape) -> bool:
    """Tell whether the row that others stand below is a variant itself, the first one."""
    return shape.by_title or (shape.goes_on and bool(one_text(parent.cells[shape.keys[0]])))


def _with_photos(parent: Row, photos: Sequence[Row], shape: Shape) -> Row:
    """Return `parent` with the photos of the rows below that are nothing but photos."""
    texts = (one_text(row.cells[i]) for row in (parent, *photos) for i in sorted(shape.photos))
    found = [text for text in texts if text and (LINK.match(text) or NAMED_FILE.fullmatch(text))]
    cells: list[Cell] = list(parent.cells)
    cells[shape.first_photo] = tuple(dict.fromkeys(found))
    return Row(parent.number, cells, parent.more)


def _variant(row: Row, parent: Row | None, group: str, shape: Shape) -> tuple[Row, str]:
    """Return `row` with what it lacks taken from `parent`: all but numbers, its photos only when it has none itself."""
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
