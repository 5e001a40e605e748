"""Which column of the catalog is what: by common names in English, German, French, Spanish, Swedish,
Dutch and Italian, or by setting.

Whatever holds none of the roles goes to `Product.given` under its own name, an `attr_` prefix removed unless another
column already has that name.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..settings import Columns

ROLES = ("id", "title", "description", "category", "brand", "image", "product_id", "group_id")

# Names as `plain` writes them (lower case, no accents, "_" between words), the most telling first.
COMMON_NAMES = {
    "id": (
        "id sku item_id listing_id article_id variant_sku product_sku item_number article_number article_no item_no "
        "product_number product_code item_code asin artikelnummer artikel_nr artikelnr art_nr artnr produktnummer "
        "bestellnummer item_sku seller_sku reference ref referencia ugs codigo codice cod code sku_id offer_id "
        "variant_id"
    ),
    "title": (
        "title name product_name product_title item_name item_title product_display_name display_name titel "
        "bezeichnung produktname artikelname artikelbezeichnung produktbezeichnung produktnamn namn benamning "
        "artikelbenamning titre nom nom_produit nom_du_produit designation libelle titulo nombre nombre_producto "
        "nombre_del_producto naam productnaam nome nome_prodotto"
    ),
    "description": (
        "description product_description item_description long_description full_description body_html body desc "
        "details short_description beschreibung produktbeschreibung artikelbeschreibung langtext beskrivning "
        "produktbeskrivning description_produit descripcion descripcion_producto beschrijving omschrijving "
        "productbeschrijving descrizione text"
    ),
    "category": (
        "category category_path product_category categories product_type google_product_category category_name "
        "kategorie kategorien produktkategorie warengruppe kategori produktkategori varugrupp categorie rayon "
        "categoria categorias categorieen department type"
    ),
    "brand": (
        "brand brand_name brands manufacturer vendor maker marke hersteller varumarke tillverkare marque "
        "marques fabricant marca marcas fabricante marken merk merken marchio marchi"
    ),
    "image": (
        "image images image_path image_paths image_file image_files image_filename main_image photo photos photo_path "
        "picture pictures img bild bilder bildpfad bilddatei bildfil foto fotos imagen imagenes image_principale "
        "afbeelding afbeeldingen immagine immagini base_image "
        "image_link image_url image_urls image_src product_image_url img_url bild_url bildurl"
    ),
    "product_id": (
        "product_id productid gtin gtin13 gtin_13 ean ean13 ean_13 ean_code upc barcode variant_barcode isbn "
        "gtin_upc_ean_or_isbn gtin_upc_ean_oder_isbn gtin_upc_ean_ou_isbn gtin_upc_ean_o_isbn gtin_upc_ean_of_isbn"
    ),
    "group_id": (
        "group_id item_group_id style_id style_number style_no parent_sku parent_id parent_product_id parent handle "
        "url_handle variant_group master_id"
    ),
}
COMMON = {role: tuple(names.split()) for role, names in COMMON_NAMES.items()}
ALSO_ID = ("product_id", "productid", "gtin", "gtin13", "ean", "ean13", "upc", "barcode")
"""When nothing else numbers the listings, a column of this name does; it is then no identity."""

MORE_IMAGES = re.compile(
    r"(image|img|photo|picture|bild|foto|imagen|afbeelding|immagine)(_(path|file|link|url))?_?\d+"
    r"|(additional|more|extra|other|alternate|gallery)_(images?|photos?|pictures?)(_(links?|urls?|paths?|files?))?(_?\d+)?"
)
"""Names of columns with further photos; all of them are read."""

MOST_ABOVE = 20
"""Rows among which the column names are looked for."""

JOINERS = {"title": " ", "description": "\n", "category": "/", "brand": " ", "id": "-", "product_id": "-"}
"""What stands between the cells when a setting names several columns for one role."""


@dataclass(frozen=True)
class ColumnMap:
    """The catalog's columns by their position: `roles[role]` (missing: no such column) and `given` (position, key)."""

    names: tuple[str, ...]
    roles: dict[str, tuple[int, ...]]
    given: tuple[tuple[int, str], ...]

    def read_as(self, role: str) -> list[str]:
        """Names of the columns that `role` is read from."""
        return [self.names[i] for i in self.roles.get(role, ())]


def plain(name: str) -> str:
    """A column's name without case, accents, punctuation and Google's `g:`: "Référence  Nr." -> "reference_nr"."""
    folded = unicodedata.normalize("NFKD", name.strip().removeprefix("g:"))
    letters = "".join(c for c in folded if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "_", letters.lower()).strip("_")


def map_columns(names: Sequence[str], settings: Columns, file: Path, empty: Container[int] = frozenset()) -> ColumnMap:
    """Find out which column is what. The columns at `empty` have nothing in their first rows: by its name such a
    column is taken only where no other has one.

    Raises DataError (naming `file` and row 1) for a column name that stands twice, a setting that names a column which
    is not there, and a catalog without an id column.
    """
    _refuse_repeated(names, file)
    roles: dict[str, tuple[int, ...]] = {}
    for role in ROLES:
        wanted: list[str] = getattr(settings, role)
        if wanted:
            roles[role] = tuple(_position(name, names, role, file) for name in wanted)
    taken = {i for positions in roles.values() for i in positions}
    free = {plain(name): i for i, name in reversed(list(enumerate(names))) if name and i not in taken}
    for role in ROLES:
        if role in roles:
            continue
        candidates = COMMON[role] + (ALSO_ID if role == "id" else ())
        found = sorted((name for name in candidates if name in free), key=lambda name: free[name] in empty)[:1]
        if role == "image":  # one main column (a path rather than a link), and all with further photos
            found += sorted(
                (name for name in free if MORE_IMAGES.fullmatch(name) and name not in found), key=free.__getitem__
            )
        if found:
            roles[role] = tuple(free.pop(name) for name in found)
    if "id" not in roles:
        columns = ", ".join(name for name in names if name)
        raise DataError(
            f"{file}: no id column; the columns are: {columns[:400]}",
            'name it in afmrl.toml: [catalog.columns] id = "..."; `afmrl init` proposes one',
        )
    taken = {i for positions in roles.values() for i in positions}
    rest = [(i, name) for i, name in enumerate(names) if name and i not in taken]
    return ColumnMap(tuple(names), roles, tuple((i, _given_key(name, names)) for i, name in rest))


def rivals(names: Sequence[str], settings: Columns) -> bool:
    """Whether several columns have a common name of one role, so that it matters which of them are empty."""
    plain_names = set(map(plain, names))
    return any(
        len(plain_names.intersection(COMMON[role] + (ALSO_ID if role == "id" else ()))) > 1
        for role in ROLES
        if not getattr(settings, role)
    )


def holds_images(name: str) -> bool:
    """Whether a column of this name holds photos."""
    return plain(name) in COMMON["image"] or MORE_IMAGES.fullmatch(plain(name)) is not None


def known_names(names: Sequence[str]) -> int:
    """How many of `names` are common names of some role: what tells the right delimiter from a wrong one."""
    common = {name for role in ROLES for name in COMMON[role]}
    return sum(plain(name) in common for name in names)


def header_row(rows: Sequence[Sequence[str]], settings: Columns | None = None) -> int:
    """Which of the first rows of a table holds the column names: the first, unless nothing in it is known and one of
    the next holds an id's name and another one (exports of spreadsheets begin with a title, marketplaces' with notes).

    Names that `settings` give count as known.
    """
    chosen = {plain(name) for role in ROLES for name in getattr(settings, role)} if settings else set()
    ids = {*COMMON["id"], *ALSO_ID, *(map(plain, settings.id) if settings else ())}
    counts: list[int] = []
    for row in rows[:MOST_ABOVE]:
        names = [name for name in map(plain, row) if name]
        count = known_names(names) + sum(name in chosen and not known_names([name]) for name in names)
        counts.append(count if not counts or not ids.isdisjoint(names) else 0)
    if not counts or counts[0] or max(counts) < 2:
        return 0
    return max(range(len(counts)), key=lambda i: (counts[i], i))


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
