"""Which column of the catalog is what: by setting, by common names (column_names.py), and where names don't tell, by
what the columns hold (content.py).

Names are compared in four forms, the closest first (name_forms.py): as they stand (without case, accents, punctuation,
`camelCase` split), without notes in brackets, locale, channel and number, without a leading `product`, and of names
with steps the last one. Whatever holds none of the roles goes to `Product.given` under its own name, without `attr_`
and what else shops put before an attribute, unless another column already has that name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..errors import DataError
from ..settings import Columns
from .codes import holds_gtins
from .column_names import ALSO_GROUP, ALSO_ID, CATEGORY_LEVELS, COMMON, DESCRIPTION_WORDS, EXPLAINED, VARIANT_WORDS
from .content import Sample, are_gtins, are_ids, are_long, are_paths, are_photos, are_prices, are_sentences, are_titles
from .name_forms import forms, plain
from .photo_columns import holds_images, photo_columns

ROLES = ("id", "title", "description", "category", "brand", "image", "product_id", "group_id")

GROUP = "item group id"
"""The column by which readers of shops' exports join variants."""
CATEGORY_STEP = re.compile(
    r"(?:product_)?(?:category|kategorie|categorie|categoria|kategori)_?(?:level|ebene|niveau|nivel|l)_?(\d)(_name)?"
)
MOST_VARIANTS = 20
"""Of a product on the average, where only the name of a column says that it joins them."""
MOST_ABOVE = 20
"""Rows among which the column names are searched."""
JOINERS = {"title": " ", "description": "\n", "category": "/", "brand": " ", "id": "-", "product_id": "-"}
"""What stands between the cells when several columns have one role."""
GUESSED = ("image", "product_id", "id", "category", "description", "title")
TESTS = {
    "image": are_photos,
    "product_id": are_gtins,
    "category": are_paths,
    "description": are_long,
    "title": are_titles,
}
NO_GUESS = re.compile(
    r"price|cost|var|stock|qty|quantity|inventory|status|visib|date|tax|shipping|weight|seo|meta|keyword|tag|availab|policy|"
    r"rating|review|sold|note|slug|handle|url|link|path|parent|created|updated|width|height|length|label|alt",
    re.IGNORECASE,
)
KEY = re.compile(
    r"attr_(?P<own>.+)"
    r"|(?:product_(?:variation_option|attribute)_|(?:\w+[./])*(?:custom_?)?attributes[./])\{?(?P<named>[^{}]+?)\}?(?:[./]label)?"
)
"""Names of columns that hold one attribute: of afmrl, Ecwid and commercetools."""


@dataclass(frozen=True)
class ColumnMap:
    """The catalog's columns by their position: `roles[role]` (missing: no such column) and `given` (position, key).

    `guessed` are the roles that no name gave, only what the column holds. `text` are the keys of given columns that are
    part of the products' text.
    """

    names: tuple[str, ...]
    roles: dict[str, tuple[int, ...]]
    given: tuple[tuple[int, str], ...]
    guessed: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    sample: Sample = field(default=Sample(0, ()), compare=False)

    def read_as(self, role: str) -> list[str]:
        """Return the names of the columns that `role` is read from."""
        return [self.names[i] for i in self.roles.get(role, ())]

    @property
    def unnumbered(self) -> bool:
        """Tell whether most rows have no id, as in shops where a SKU is no must; a column that is called id is one."""
        if any(plain(name).split("_")[-1] == "id" for name in self.read_as("id")):
            return False
        filled = max((len(self.sample.cells[i]) for i in self.roles["id"]), default=0)
        return 2 * filled < self.sample.rows

    @property
    def gtins(self) -> bool:
        """Tell whether the identity's column holds GTINs, by its name."""
        return any(holds_gtins(plain(name)) for name in self.read_as("product_id"))


def map_columns(
    names: Sequence[str], settings: Columns, file: Path, sample: Sample | None = None, *, own_attributes: bool = False
) -> ColumnMap:
    """Find out which column is what. `sample` holds the first rows: a column that is empty there is taken by its name
    only where no other has one, and roles that no name tells are found by what columns hold. `own_attributes`: rows
    bring attributes that no column is named by.

    Raises DataError (naming `file` and row 1) for a column name that stands twice, a setting that names a column which
    is not there, and a catalog without an id column.
    """
    _refuse_repeated(names, file)
    sample = sample or Sample(0, tuple(() for _ in names))
    roles: dict[str, tuple[int, ...]] = {}
    for role in ROLES:
        if wanted := getattr(settings, role):
            roles[role] = tuple(_position(name, names, role, file) for name in wanted)
    locale = _locale(names, settings, sample)
    levels = _by_names(names, roles, sample, locale)
    _list_of_photos(roles, settings, sample)
    guessed = _by_content(names, roles, sample)
    if "id" not in roles:
        columns = ", ".join(name for name in names if name)
        raise DataError(
            f"{file}: no id column; the columns are: {columns[:400]}",
            'name it in afmrl.toml: [catalog.columns] id = "..."; `afmrl init` proposes one',
        )
    taken = {i for positions in roles.values() for i in positions} - levels
    rest = [(i, name) for i, name in enumerate(names) if name and i not in taken]
    given = tuple((i, _given_key(name, names)) for i, name in rest)
    keys = dict(given)
    known = {key: key for key in keys.values()}
    text = [known.get(name) or (name if own_attributes and name not in names else
            keys.get(_position(name, names, "text", file), "")) for name in settings.text]  # fmt: skip
    return ColumnMap(tuple(names), roles, given, guessed, tuple(filter(None, text)), sample)


def _by_names(names: Sequence[str], roles: dict[str, tuple[int, ...]], sample: Sample, locale: str) -> set[int]:
    """Fill `roles` by the columns' names. Returns the columns that are only further steps of the category's path."""
    levels: set[int] = set()
    for role in ROLES:
        if role in roles:
            continue
        free = _free(names, roles)
        if role == "category" and (steps := _category_steps(names, free)):
            roles[role], levels = steps, set(steps[1:])
            continue
        if role == "image":
            if photos := photo_columns(names, free, sample):
                roles[role] = photos
            continue
        found = _best(role, names, free, sample, locale)
        if found is not None:
            roles[role] = (found,)
    return levels


def _list_of_photos(roles: dict[str, tuple[int, ...]], settings: Columns, sample: Sample) -> None:
    """Map columns where a row is a photo of an item, as in lists of research sets, the photo's name numbers the
    listings and the item's number is what they are: `image_name item_id`.
    """
    bare = "title" not in roles and "description" not in roles and not settings.id and "product_id" not in roles
    if bare and len(roles.get("id", ())) == len(roles.get("image", ())) == 1:
        photos = sample.cells[roles["image"][0]]
        if _comes_again(sample.cells[roles["id"][0]]) and len(set(photos)) == len(photos) == sample.rows:
            roles["product_id"], roles["id"] = roles["id"], roles["image"]


def _free(names: Sequence[str], roles: dict[str, tuple[int, ...]]) -> list[int]:
    taken = {i for positions in roles.values() for i in positions}
    return [i for i, name in enumerate(names) if name and i not in taken]


def _best(role: str, names: Sequence[str], free: Sequence[int], sample: Sample, locale: str) -> int | None:
    """Return the column of `free` whose name tells most surely that it holds `role`, filled ones before empty ones."""
    also = {"id": ALSO_ID, "group_id": ALSO_GROUP}.get(role, ())
    rank = _ranks(role)
    found: list[tuple[tuple[int, ...], int]] = []
    for i in free:
        written = forms(names[i])
        for level, form in enumerate(written[:4]):
            if form not in rank or (level >= 2 and form in ("type", "id", "code", "group")):
                continue
            other = bool(written.locale) and level > 0 and written.locale != locale
            last = form in also and form not in COMMON[role]
            unfit = _unfit(role, form, i, sample)
            none = unfit if form == "type" else last and role == "group_id" and not _joins(i, names, sample)
            if not none:
                again = role == "id" and _comes_again(sample.cells[i])
                found.append(((sample.empty(i) or unfit, again, last, level, other, rank[form], i), i))
            break
    if role == "product_id":
        found = [(key, i) for key, i in found if not _counter(i, [other for _, other in found], names, sample)]
    if not found:
        return _called_description(names, free, sample) if role == "description" else None
    best = min(found)[1]
    if role == "description":  # a short one beside the long one
        longest = max((i for _, i in found), key=lambda i: _length(sample.cells[i]))
        return longest if _length(sample.cells[longest]) > 1.5 * _length(sample.cells[best]) else best
    return best


def _comes_again(cells: Sequence[str]) -> bool:
    """Tell whether more than a few of `cells` stand there twice, so that they number something else than listings."""
    return len(cells) > 1 and len(set(cells)) < 0.9 * len(cells)


@lru_cache(maxsize=16)
def _ranks(role: str) -> dict[str, int]:
    """Return the known names of `role`, the surest first, and those of several words also written as one:
    productname.
    """
    also = {"id": ALSO_ID, "group_id": ALSO_GROUP}.get(role, ())
    known = {name: place for place, name in enumerate(COMMON[role] + also)}
    together = {name.replace("_", ""): place for name, place in known.items() if "_" in name}
    whole = {f"product{name}": place for name, place in known.items() if len(name) > 4 and "_" not in name}
    return {**whole, **together, **known}


def _called_description(names: Sequence[str], free: Sequence[int], sample: Sample) -> int | None:
    """Return a column whose name has a word for a description in it and that holds sentences: plainDescription."""
    called = [
        i
        for i in free
        if (not DESCRIPTION_WORDS.isdisjoint(plain(names[i]).split("_")) or any(word in names[i] for word in EXPLAINED))
        and not NO_GUESS.search(plain(names[i]))
        and are_sentences(sample.cells[i])
    ]
    return max(called, key=lambda i: _length(sample.cells[i]), default=None)


def _joins(i: int, names: Sequence[str], sample: Sample) -> bool:
    """Tell whether column `i`, called as many things are, joins variants: its values come again, but not the
    same few.
    """
    cells = sample.cells[i]
    if plain(names[i]) in COMMON["product_id"] and not _has_variants(names):
        return False
    return not sample.rows or len(cells) / MOST_VARIANTS <= len(set(cells)) < len(cells)


def _has_variants(names: Sequence[str]) -> bool:
    """Tell whether a column is called after variants, so that a product has several rows."""
    return any(not VARIANT_WORDS.isdisjoint(plain(name).split("_")) for name in names)


def _length(cells: Sequence[str]) -> float:
    return sum(map(len, cells)) / max(1, len(cells))


def _unfit(role: str, form: str, i: int, sample: Sample) -> bool:
    """Tell whether what column `i` holds can't be what its name says."""
    cells = sample.cells[i]
    if role in ("title", "description") and cells:
        return are_photos(cells) or (role == "title" and are_prices(cells))
    if role == "category" and form == "type":  # of the records, and not of the products
        return len(cells) > 1 and len(set(cells)) == 1
    if role == "category":  # Google's numbers of categories
        return bool(cells) and all(map(str.isdecimal, cells))
    return role == "brand" and bool(cells) and are_prices(cells) and form not in ("brand", "marke", "marque")


def _counter(i: int, others: Sequence[int], names: Sequence[str], sample: Sample) -> bool:
    """Tell whether `product_id` is the shop's own counter beside a column of GTINs: another number in each row."""
    if plain(names[i]).removesuffix("_non_editable") not in ("product_id", "productid"):
        return False
    cells = sample.cells[i]
    if GROUP in names or (_has_variants(names) and not are_gtins(cells)):
        return True  # variants share the shop's number of their product
    gtins = any(holds_gtins(plain(names[other])) and not sample.empty(other) for other in others)
    return gtins and len(set(cells)) == len(cells) and all(cell.isdecimal() and len(cell) < 8 for cell in cells)


def _category_steps(names: Sequence[str], free: Sequence[int]) -> tuple[int, ...]:
    """Return columns that are the steps of one path, such as category and subcategory, or category_level_1, _2, ..."""
    at = {plain(names[i]): i for i in reversed(free)}
    for steps in CATEGORY_LEVELS:
        if len(found := [at[step] for step in steps if step in at]) > 1 and steps[0] in at:
            return tuple(found)
    found_levels = sorted((int(step[1]), i) for name, i in at.items() if (step := CATEGORY_STEP.fullmatch(name)))
    return tuple(i for _, i in found_levels) if len(found_levels) > 1 else ()


def _by_content(names: Sequence[str], roles: dict[str, tuple[int, ...]], sample: Sample) -> tuple[str, ...]:
    """Fill roles that no name tells by what columns hold; returns them."""
    guessed = []
    for role in GUESSED:
        if role in roles and not all(map(sample.empty, roles[role])):
            continue
        for i in _free(names, roles):
            if not sample.filled(i) or (role != "image" and NO_GUESS.search(plain(names[i]))):
                continue
            cells = sample.cells[i]
            if are_ids(cells, sample.rows) if role == "id" else TESTS[role](cells):
                roles[role] = (i,)
                guessed.append(role)
                break
    return tuple(guessed)


def _locale(names: Sequence[str], settings: Columns, sample: Sample) -> str:
    """Return the locale of the texts that are read: the one with the most filled cells among titles and
    descriptions.
    """
    filled: dict[str, int] = {}
    for i, name in enumerate(names):
        written = forms(name)
        if written.locale and any(written.bare in COMMON[role] for role in ("title", "description")):
            filled[written.locale] = filled.get(written.locale, 0) + 1 + len(sample.cells[i])
    return max(filled, key=lambda locale: filled[locale], default="")


def known_names(names: Sequence[str], settings: Columns | None = None) -> int:
    """Return how many of `names` are common names of some role, or given by `settings`: what tells the right delimiter
    from a wrong one.
    """
    chosen = {plain(name) for role in ROLES for name in getattr(settings, role)} if settings else set()
    return sum(is_known(name) or plain(name) in chosen for name in names)


@lru_cache(maxsize=4096)
def is_known(name: str) -> bool:
    """Tell whether a column of this name has a role."""
    if not name or len(name) > 80:
        return False
    if any(form in COMMON[role] for role in ROLES for form in forms(name)[:2]):
        return True
    return holds_images(name) and not re.search(r"[/\\]|\.\w{2,5}$", name)


def header_row(rows: Sequence[Sequence[str]], settings: Columns | None = None) -> int:
    """Find which of the first rows of a table holds the column names: the first, unless one of the next knows more
    names.

    Exports of spreadsheets begin with a title, marketplaces' with notes and with names for people above the names for
    programs. A later row must hold an id's name and another one. Names that `settings` give count as known.
    """
    ids = {*COMMON["id"], *ALSO_ID, *(map(plain, settings.id) if settings else ())}
    best, most, seen = 0, 0, set[tuple[str, ...]]()
    for i, row in enumerate(rows[:MOST_ABOVE]):
        written = tuple(map(plain, row))
        count = known_names(row, settings)
        names_id = any(not ids.isdisjoint(forms(name)[:2]) for name in row if name)
        if written not in seen and (not i or (names_id and count >= (3 if most else 2) and 2 * count >= most)):
            best, most = (i, count) if count else (best, most)
        seen.add(written)
    return best


def _refuse_repeated(names: Sequence[str], file: Path) -> None:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if name and name in first:
            raise DataError(
                f"{file}: row 1: column {name!r} stands twice (columns {first[name] + 1} and {i + 1})",
                "rename or remove one of them",
            )
        first[name] = i


def _position(name: str, names: Sequence[str], role: str, file: Path) -> int:
    if name in names:
        return names.index(name)
    alike = [i for i, other in enumerate(names) if other and plain(other) == plain(name)]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    nearest = next((n for n in names if close and n.lower() == close[0]), "")
    hint = f"did you mean {nearest}?" if nearest else f"the columns are: {', '.join(n for n in names if n)[:400]}"
    raise DataError(f"{file}: catalog.columns.{role} names {name!r}, which is no column of it", hint)


def _given_key(name: str, names: Sequence[str]) -> str:
    """Return the key of a column that has no role: its name without what shops put before and behind an attribute's."""
    found = KEY.fullmatch(name)
    short = next(part for part in found.groups() if part) if found else name
    return name if short != name and any(plain(other) == plain(short) for other in names) else short
