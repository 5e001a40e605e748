"""Which column of the catalog is what: by setting, by common names (column_names.py), and where names don't tell, by
what the columns hold (content.py).

Names are compared in three forms, the closest first: as they stand (without case, accents, punctuation, `camelCase`
split), without notes in brackets, locale, channel and number, and without a leading `product`. Whatever holds none of
the roles goes to `Product.given` under its own name, an `attr_` prefix removed unless another column already has that
name.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..settings import Columns
from .codes import holds_gtins
from .column_names import ALSO_GROUP, ALSO_ID, CATEGORY_LEVELS, COMMON, words_of
from .content import LINK, Sample, are_gtins, are_ids, are_long, are_paths, are_photos, are_prices, are_titles
from .languages import NAMES as LANGUAGES

ROLES = ("id", "title", "description", "category", "brand", "image", "product_id", "group_id")

PHOTO_WORDS = words_of(
    "image images img imgs imgurl photo photos picture pictures pic pics picurl bild bilder foto fotos imagen "
    "imagenes imagem imagens immagine immagini afbeelding afbeeldingen billede billeder bilde kuva kuvat zdjecie "
    "zdjecia obraz obrazek obrazky obrazok poza resim gorsel фото изображение изображения картинка 画像 图片 图像 "
    "이미지 صورة صور"
)
NO_PHOTO_WORDS = words_of(
    "alt label labels title titel text sort position order is id ids count width height size caption type date "
    "hash style description desc color colour thumbnail thumb thumbs small swatch icon status name names visible "
    "license tag tags sku opis beschreibung"
)
NUMBERED_PHOTO = re.compile(r"(oxpic|imgurl_alternative|(product_)?image|photo|picture|pic|bild|foto)_?\d*")
MORE_PHOTOS = words_of(
    "additional more extra other others alternate alternative gallery weitere zusatz zusatzliche second secondary "
    "back side detail all urls links hosted list autres otras altre mas "
)
SEVERAL_PHOTOS = words_of("images photos pictures imgs bilder fotos imagenes imagens immagini zdjecia obrazky")
ASIDE = words_of(
    "translations translation default value values media_location ecommerce mobile print web shop non editable"
)
"""Words that say nothing of what a column holds: of Shopware, Amazon, Akeneo, Squarespace."""
LEADING = re.compile(r"(?:product|item|article|artikel|listing|produkt|produit|producto|prodotto|produto|offer)_(?=.)")
NOTE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")
LOCALE = re.compile(r"(?<=.)[-_. :@/]([a-z]{2})[-_]([A-Z]{2})(?:[-_. ].*)?$")
IN_NOTE = re.compile(r"[(\[](?:lang(?:uage)?=|locale=)?([a-z]{2})(?:[-_][A-Za-z]{2})?[)\]]", re.IGNORECASE)
LANGUAGE = re.compile(r"(?<=.)[-_. :@/]([A-Za-z]{2})$")
LANGUAGE_FIRST = re.compile(r"([A-Z]{2})_(?=[A-Z][a-z])")
NO_LANGUAGE = {"id", "no", "is", "ta", "et", "url"}
"""Codes that end names which mean something else: image_id, style_no."""
GROUP = "item group id"
"""The column by which readers of shops' exports join variants."""
CATEGORY_STEP = re.compile(
    r"(?:product_)?(?:category|kategorie|categorie|categoria|kategori)_?(?:level|ebene|niveau|nivel|l)_?(\d)(_name)?"
)
MOST_ABOVE = 20
"""Rows among which the column names are looked for."""
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


@dataclass(frozen=True)
class ColumnMap:
    """The catalog's columns by their position: `roles[role]` (missing: no such column) and `given` (position, key).

    `guessed` are the roles that no name told, only what the column holds. `text` are the keys of given columns that are
    part of the products' text.
    """

    names: tuple[str, ...]
    roles: dict[str, tuple[int, ...]]
    given: tuple[tuple[int, str], ...]
    guessed: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    sample: Sample = field(default=Sample(0, ()), compare=False)

    def read_as(self, role: str) -> list[str]:
        """Names of the columns that `role` is read from."""
        return [self.names[i] for i in self.roles.get(role, ())]

    @property
    def gtins(self) -> bool:
        """Whether the identity's column holds GTINs, by its name."""
        return any(holds_gtins(plain(name)) for name in self.read_as("product_id"))


class Forms(NamedTuple):
    """A column's name as it stands, without notes, and without `product`; `locale` such as en or en_us."""

    plain: str
    bare: str
    short: str
    locale: str


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A column's name without case, accents, punctuation and Google's `g:`: "Référence  Nr." and "référenceNr" are
    "reference_nr"."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip().removeprefix("g:"))
    folded = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("Ł", "L"))
    letters = "".join(c for c in folded if not "\u0300" <= c <= "\u036f")
    letters = unicodedata.normalize("NFC", letters).casefold().replace("ı", "i").replace("ø", "o").replace("æ", "ae")
    return re.sub(r"[\W_]+", "_", letters).strip("_")


@lru_cache(maxsize=4096)
def forms(name: str) -> Forms:
    """The forms in which `name` is compared."""
    noted = IN_NOTE.search(name)
    locale = noted[1].lower() if noted and noted[1].lower() in LANGUAGES else ""
    text = NOTE.sub(" ", name)
    text = re.sub(r"^[*#@\s]*(?:[A-Za-z]{1,2}:)?", "", text)
    text = re.sub(r"#\d+(\.value)?$|#\d+\.", " ", text).strip()
    if (found := LANGUAGE_FIRST.match(text)) and found[1].lower() in LANGUAGES:
        locale, text = found[1].lower(), text[found.end() :]
    if found := LOCALE.search(text):
        locale, text = f"{found[1]}_{found[2]}".lower(), text[: found.start()]
    elif (found := LANGUAGE.search(text)) and found[1].lower() in LANGUAGES and found[1].lower() not in NO_LANGUAGE:
        locale, text = found[1].lower(), text[: found.start()]
    words = [word for word in plain(text).split("_") if word not in ASIDE and not word.isdigit()]
    bare = "_".join(words) or plain(text)
    return Forms(plain(name), bare, LEADING.sub("", bare, count=1), locale)


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
            if photos := _photo_columns(names, free, sample):
                roles[role] = photos
            continue
        found = _best(role, names, free, sample, locale)
        if found is not None:
            roles[role] = (found,)
    return levels


def _free(names: Sequence[str], roles: dict[str, tuple[int, ...]]) -> list[int]:
    taken = {i for positions in roles.values() for i in positions}
    return [i for i, name in enumerate(names) if name and i not in taken]


def _best(role: str, names: Sequence[str], free: Sequence[int], sample: Sample, locale: str) -> int | None:
    """The column of `free` whose name tells most surely that it holds `role`, filled ones before empty ones."""
    also = {"id": ALSO_ID, "group_id": ALSO_GROUP}.get(role, ())
    rank = {name: place for place, name in enumerate(COMMON[role] + also)}
    found: list[tuple[tuple[int, ...], int]] = []
    for i in free:
        written = forms(names[i])
        for level, form in enumerate(written[:3]):
            if form not in rank or (level == 2 and form in ("type", "id", "code", "group")):
                continue
            other = bool(written.locale) and level > 0 and written.locale != locale
            unfit = _unfit(role, form, i, sample)
            last = form in also and form not in COMMON[role]
            found.append(((sample.empty(i) or unfit, last, level, other, rank[form], i), i))
            break
    if role == "product_id":
        found = [(key, i) for key, i in found if not _counter(i, [other for _, other in found], names, sample)]
    if not found:
        return None
    best = min(found)[1]
    if role == "description":  # a short one beside the long one
        longest = max((i for _, i in found), key=lambda i: _length(sample.cells[i]))
        return longest if _length(sample.cells[longest]) > 1.5 * _length(sample.cells[best]) else best
    return best


def _length(cells: Sequence[str]) -> float:
    return sum(map(len, cells)) / max(1, len(cells))


def _unfit(role: str, form: str, i: int, sample: Sample) -> bool:
    """Whether what column `i` holds can't be what its name says."""
    cells = sample.cells[i]
    if role in ("title", "description") and cells:
        return are_photos(cells) or (role == "title" and are_prices(cells))
    return role == "brand" and bool(cells) and are_prices(cells) and form not in ("brand", "marke", "marque")


def _counter(i: int, others: Sequence[int], names: Sequence[str], sample: Sample) -> bool:
    """Whether `product_id` is the shop's own counter beside a column of GTINs: another number in each row."""
    if plain(names[i]).removesuffix("_non_editable") not in ("product_id", "productid"):
        return False
    if GROUP in names:  # variants share the shop's number of their product
        return True
    cells = sample.cells[i]
    gtins = any(holds_gtins(plain(names[other])) and not sample.empty(other) for other in others)
    return gtins and len(set(cells)) == len(cells) and all(cell.isdecimal() and len(cell) < 8 for cell in cells)


def _category_steps(names: Sequence[str], free: Sequence[int]) -> tuple[int, ...]:
    """Columns that are the steps of one path, such as category and subcategory, or category_level_1, _2, ..."""
    at = {plain(names[i]): i for i in reversed(free)}
    for steps in CATEGORY_LEVELS:
        if len(found := [at[step] for step in steps if step in at]) > 1 and steps[0] in at:
            return tuple(found)
    found_levels = sorted((int(step[1]), i) for name, i in at.items() if (step := CATEGORY_STEP.fullmatch(name)))
    return tuple(i for _, i in found_levels) if len(found_levels) > 1 else ()


def _photo_columns(names: Sequence[str], free: Sequence[int], sample: Sample) -> tuple[int, ...]:
    """One main column of photos (a path rather than a link), and all that hold further ones."""
    named = [i for i in free if holds_images(names[i])]
    sure = [i for i in named if sample.rows == 0 or sample.empty(i) or are_photos(sample.cells[i])]
    fitting = sure or [i for i in named if _rank(names[i]) < 1000]
    if not fitting:
        return ()
    main = min(fitting, key=lambda i: (sample.empty(i), _links(sample, i), _more_images(names[i]), _rank(names[i]), i))
    rest = [i for i in fitting if i != main and _more_images(names[i])]
    lead = [main] if not _more_images(names[main]) else []
    return tuple(lead + sorted(rest + [i for i in (main,) if not lead]))


def _links(sample: Sample, i: int) -> bool:
    """Whether column `i` holds links; paths of photos are there at once."""
    return any(LINK.match(cell) for cell in sample.cells[i][:1])


def _rank(name: str) -> int:
    """How surely a column of this name holds the main photo: the lower, the surer; below 1000 for common names."""
    known = COMMON["image"]
    written = forms(name)
    if written.plain in known:
        return known.index(written.plain)
    return 1000 + known.index(written.bare) if written.bare in known else 2000


def _more_images(name: str) -> bool:
    """Whether a column of photos of this name holds further ones, beside one with the main photo."""
    written = forms(name)
    words = {word.rstrip("0123456789") for word in written.plain.split("_")}
    several = written.bare in COMMON["image"] and not SEVERAL_PHOTOS.isdisjoint(words)
    numbered = any(char.isdigit() for char in written.plain) and _number(written.plain) != "1"
    return several or numbered or not MORE_PHOTOS.isdisjoint(words)


def _number(written: str) -> str:
    found = re.findall(r"\d+", written)
    return found[-1] if found else ""


def holds_images(name: str) -> bool:
    """Whether a column of this name holds photos."""
    written = forms(name)
    if written.plain in COMMON["image"] or written.bare in COMMON["image"] or NUMBERED_PHOTO.fullmatch(written.plain):
        return True
    words = [word.rstrip("0123456789") for word in written.bare.split("_")]
    return not PHOTO_WORDS.isdisjoint(words) and NO_PHOTO_WORDS.isdisjoint(words)


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
    """The locale of the texts that are read: the one with the most filled cells among titles and descriptions."""
    filled: dict[str, int] = {}
    for i, name in enumerate(names):
        written = forms(name)
        if written.locale and any(written.bare in COMMON[role] for role in ("title", "description")):
            filled[written.locale] = filled.get(written.locale, 0) + 1 + len(sample.cells[i])
    return max(filled, key=lambda locale: filled[locale], default="")


def known_names(names: Sequence[str]) -> int:
    """How many of `names` are common names of some role: what tells the right delimiter from a wrong one."""
    return sum(is_known(name) for name in names)


@lru_cache(maxsize=4096)
def is_known(name: str) -> bool:
    """Whether a column of this name has a role."""
    if not name or len(name) > 80:
        return False
    if any(form in COMMON[role] for role in ROLES for form in forms(name)[:2]):
        return True
    return holds_images(name) and not re.search(r"[/\\]|\.\w{2,5}$", name)


def header_row(rows: Sequence[Sequence[str]], settings: Columns | None = None) -> int:
    """Which of the first rows of a table holds the column names: the first, unless one of the next knows more names.

    Exports of spreadsheets begin with a title, marketplaces' with notes and with names for people above the names for
    programs. A later row must hold an id's name and another one. Names that `settings` give count as known.
    """
    chosen = {plain(name) for role in ROLES for name in getattr(settings, role)} if settings else set()
    ids = {*COMMON["id"], *ALSO_ID, *(map(plain, settings.id) if settings else ())}
    best, most, seen = 0, 0, set[tuple[str, ...]]()
    for i, row in enumerate(rows[:MOST_ABOVE]):
        written = tuple(map(plain, row))
        count = known_names(row) + sum(name in chosen and not is_known(name) for name in written)
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
    short = name.removeprefix("attr_")
    return name if not short or (short != name and short in names) else short
