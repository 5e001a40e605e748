"""Sizes and colours of the listings: what variants of one style differ in, while all else is shared.

A fact is a kind with a value: `colour=red`, `gb=128`, `size=xl`, `w=32`. Facts are read from the title and from columns
that are called size or colour (or that the generator called so). Two listings conflict in a kind when both have it and
no value of it in common: "128 GB" against "256 GB", a column with S against one with M, "white" against "schwarz".
What only one side says is no conflict, and neither are lists that overlap. Units of one measure are one kind
(1 TB = 1000 GB, 0.5 l = 500 ml), and `2x8 GB` is 8 and 16.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..catalog.name_forms import plain
from ..catalog.product import Product

COLOUR = "colour"
SIZE = "size"
_KEYS = {
    COLOUR: "color colour farbe couleur farg kleur colore farve colorway main_color base_color color_name",
    SIZE: "size sizes groesse grosse taille talla tamano storlek maat taglia misura shoe_size size_name",
}
KEYS = {name: kind for kind, names in _KEYS.items() for name in names.split()}
"""Columns of sizes and colours, as `plain` writes them (`Größe` is `grosse`)."""
_COLOURS = (
    "black schwarz noir noire negro negra svart svarta zwart zwarte nero nera",
    "white weiss blanc blanche blanco blanca vit vita wit witte bianco bianca",
    "red rot rouge rojo roja rod roda rood rode rosso rossa",
    "blue blau bleu bleue azul bla blaa blauw blauwe blu",
    "navy marine marineblau marinblau marino marinbla marineblauw",
    "green grun gruen vert verte verde gron grona groen groene",
    "yellow gelb jaune amarillo amarilla gul gula geel gele giallo gialla",
    "orange naranja arancione",
    "purple lila violet violett violette morado morada paars viola",
    "pink rosa rose roze",
    "brown braun marron brun brune bruna bruin bruine marrone",
    "grey gray grau gris gra graa grijs grijze grigio grigia",
    "beige",
    "silver silber argent plata argento zilver",
    "gold golden or oro dorado guld goud",
    "turquoise turkis tuerkis turquesa turkos turchese teal",
    "burgundy bordeaux maroon weinrot",
    "ivory cream creme elfenbein ecru",
    "khaki olive oliv oliva",
    "charcoal anthracite anthrazit antracita",
)
COLOURS = {word: row.split()[0] for row in _COLOURS for word in row.split()}
AMBIGUOUS = frozenset({"or", "rose", "marine", "rod", "rode", "marino", "viola", "blu", "gra", "bla", "vit", "wit"})
"""Words of other meanings: colours in a column of colours, not in a title."""

_WORDS = (
    "sku id ids url link links href handle slug stock qty quantity inventory bestand lager lagerbestand position sort "
    "order rank row created updated modified date time timestamp status availability available price prices preis "
    "prix precio pris cost"
)
_ADMINISTRATION = frozenset(_WORDS.split())
"""Words in the names of columns that say nothing of the product."""
Rows = NDArray[np.int64]
_UNITS: dict[str, tuple[str, float]] = {
    **{"kb": ("gb", 1e-6), "mb": ("gb", 1e-3), "gb": ("gb", 1.0), "go": ("gb", 1.0), "tb": ("gb", 1e3)},
    **{"ml": ("ml", 1.0), "cl": ("ml", 10.0), "l": ("ml", 1e3), "ltr": ("ml", 1e3)},
    **{"liter": ("ml", 1e3), "litre": ("ml", 1e3), "mg": ("g", 1e-3), "g": ("g", 1.0), "gr": ("g", 1.0)},
    **{"kg": ("g", 1e3), "oz": ("oz", 1.0), "lb": ("oz", 16.0), "lbs": ("oz", 16.0), "mm": ("mm", 1.0)},
    **{"cm": ("mm", 10.0), "inch": ("inch", 1.0), "inches": ("inch", 1.0), "zoll": ("inch", 1.0), '"': ("inch", 1.0)},
    **{"''": ("inch", 1.0), "watt": ("watt", 1.0), "watts": ("watt", 1.0), "mah": ("mah", 1.0), "mp": ("mp", 1.0)},
    **{"mhz": ("mhz", 1.0), "ghz": ("mhz", 1e3), "pack": ("pack", 1.0), "pcs": ("pack", 1.0), "pieces": ("pack", 1.0)},
    **{"count": ("pack", 1.0), "ct": ("pack", 1.0), "stk": ("pack", 1.0), "stuck": ("pack", 1.0)},
}
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_MEASURE = re.compile(
    rf"(?<![\w.,])(?:(?P<times>\d{{1,3}})\s*[x×]\s*)?(?P<number>\d+(?:[.,]\d+)?)[\s-]?(?P<unit>{_UNIT})(?![\w'\"])"
)
_NAMED = re.compile(
    r"\b(?:size|grosse|groesse|taille|talla|maat|storlek|strl|taglia|(?P<scale>uk|eu|us))[\s:.-]{1,2}"
    r"(?P<value>\d{1,3}(?:[.,]5)?|\d?x{0,4}[sl]|m)\b"
)
_TAILOR = re.compile(r"\b(?P<kind>[wl])\s?(?P<value>\d{2})\b")
_LETTERS = re.compile(r"(?<![\w'’])(?P<value>\d?[xX]{1,4}[sSlL]|[2-9][xX][lL])(?!\w)")
_ONE_LETTER = re.compile(r"(?:[-/,|(\[]\s*|\s)(?P<value>[SML])(?=\s*(?:$|[-/,|)\]]))")
_LISTED = re.compile(r"[|;,/]")


class Facts:
    """The facts of all listings as a sparse matrix, for comparing many pairs at once."""

    def __init__(self, rows: Sequence[frozenset[str]]) -> None:
        from scipy.sparse import csr_array

        column: dict[str, int] = {}
        flat = np.array([column.setdefault(fact, len(column)) for row in rows for fact in sorted(row)], dtype=np.int32)
        kinds = [fact.partition("=")[0] for fact in column]
        names = sorted(set(kinds))
        ends = np.cumsum([0, *map(len, rows)])
        shape = (len(rows), max(1, len(column)))
        self._facts = csr_array((np.ones(len(flat), dtype=np.float32), flat, ends), shape=shape)
        places = (np.arange(len(kinds)), np.array([names.index(kind) for kind in kinds], dtype=np.int64))
        self._kinds = csr_array((np.ones(len(kinds), dtype=np.float32), places), shape=(shape[1], max(1, len(names))))
        self._colour = np.array([name == COLOUR for name in names] or [False])

    def conflicts(self, a: Rows, b: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (colour, size) of each pair: 1 where the colours conflict; the kinds of size that do, as 1 -
        0.5^kinds.
        """
        left, right = self._facts[a], self._facts[b]
        both = np.asarray((left @ self._kinds).multiply(right @ self._kinds).todense()) > 0
        shared = np.asarray((left.multiply(right) @ self._kinds).todense()) > 0
        other = both & ~shared
        colour, sizes = other[:, self._colour].any(axis=1), other[:, ~self._colour].sum(axis=1)
        return np.asarray(colour, dtype=np.float32), np.asarray(1 - 0.5**sizes, dtype=np.float32)


def facts_of(product: Product, generated: Mapping[str, str]) -> frozenset[str]:
    """Return sizes and colours of a listing as `kind=value`: of its own columns, else of its title, else as
    generated.
    """
    found = _of_columns(generated) | _of_title(product.title) | _of_columns(product.given)
    return frozenset(f"{kind}={value}" for kind, values in found.items() for value in values)


def alike_in_all(one: Product, other: Product) -> bool:
    """Check whether nothing that the shop says of two listings tells them apart: texts, sizes, colours, codes, columns.

    Prices, links, stock and numbers of the listing itself are no difference, and neither is an empty cell.
    """
    if any(_folded(a) != _folded(b) for a, b in ((one.title, other.title), (one.description, other.description))):
        return False
    columns_differ = any(
        value.strip()
        and theirs.strip()
        and _folded(value) != _folded(theirs)
        and not _ADMINISTRATION & set(plain(key).split("_"))
        for key, value in one.given.items()
        if (theirs := other.given.get(key, ""))
    )
    return not columns_differ and facts_of(one, {}) == facts_of(other, {})


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def conflicts_of(one: Iterable[str], other: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the kinds in which two listings' facts conflict, with the values of either."""
    left, right = _by_kind(one), _by_kind(other)
    return {
        kind: (", ".join(sorted(left[kind])), ", ".join(sorted(right[kind])))
        for kind in sorted(left.keys() & right.keys())
        if not left[kind] & right[kind]
    }


def _by_kind(facts: Iterable[str]) -> dict[str, set[str]]:
    made: dict[str, set[str]] = {}
    for fact in facts:
        kind, _, value = fact.partition("=")
        made.setdefault(kind, set()).add(value)
    return made


def _of_columns(columns: Mapping[str, str]) -> dict[str, set[str]]:
    """Return facts of the columns that are called size or colour; a cell may list several values."""
    found: dict[str, set[str]] = {}
    for key, cell in columns.items():
        if (kind := KEYS.get(plain(key))) is None:
            continue
        for part in filter(None, map(str.strip, _LISTED.split(cell.casefold()))):
            found.setdefault(kind, set()).update({_size(part)} if kind == SIZE else _colours(part) or {part})
    return found


def _of_title(title: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    text = plain_text(title)
    for match in _MEASURE.finditer(text):
        kind, scale = _UNITS[match["unit"]]
        amount = float(match["number"].replace(",", ".")) * scale
        found.setdefault(kind, set()).add(f"{amount:g}")
        if match["times"]:
            found[kind].add(f"{amount * int(match['times']):g}")
    for match in _NAMED.finditer(text):
        found.setdefault(match["scale"] or SIZE, set()).add(_size(match["value"]))
    for match in _TAILOR.finditer(text):
        found.setdefault(match["kind"], set()).add(match["value"])
    for match in [*_LETTERS.finditer(title), *_ONE_LETTER.finditer(title)]:
        found.setdefault(SIZE, set()).add(_size(match["value"]))
    if colours := _colours(text, AMBIGUOUS):
        found[COLOUR] = colours
    return found


def _colours(text: str, without: frozenset[str] = frozenset()) -> set[str]:
    words = set(re.findall(r"[a-z]+", plain_text(text))) - without
    return {COLOURS[word] for word in words if word in COLOURS}


def plain_text(text: str) -> str:
    """Return lower case without accents, punctuation kept."""
    folded = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(char for char in folded if not unicodedata.combining(char)).lower()


def _size(value: str) -> str:
    """Spell sizes alike: `XXL`, `2XL` and `2xl` are one; `42,0` is `42`."""
    value = value.strip().lower().replace(",", ".")
    if (found := re.fullmatch(r"(\d)x([sl])", value)) is not None:
        return "x" * int(found[1]) + found[2]
    return f"{float(value):g}" if re.fullmatch(r"\d+(\.\d+)?", value) else value
