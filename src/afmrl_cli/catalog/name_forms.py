"""The forms in which the name of a column is compared with the names that are known (column_names.py).

Product name [en-GB]      product_name_en_gb, product_name, name         locale en_gb
masterData.current.name   master_data_current_name, ..., name            an object around a product's own columns
manufacturer.name         manufacturer_name, ..., manufacturer           what another thing is called
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from .column_names import words_of
from .languages import NAMES as LANGUAGES

ASIDE = words_of(
    "translations translation default value values media_location ecommerce mobile print web shop non editable"
)
"""Words that say nothing of what a column holds: of Shopware, Amazon, Akeneo, Squarespace."""
LEADING = re.compile(r"(?:product|item|article|artikel|listing|produkt|produit|producto|prodotto|produto|offer)_(?=.)")
NOTE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|（[^（）]*）|【[^【】]*】")
LOCALE = re.compile(r"(?<=.)[-_. :@/#]([a-z]{2})[-_]([A-Z]{2})(?:[-_. ].*)?$")
IN_NOTE = re.compile(r"[(\[](?:lang(?:uage)?=|locale=)?([a-z]{2})(?:[-_][A-Za-z]{2})?[)\]]", re.IGNORECASE)
LANGUAGE = re.compile(r"(?<=.)[-_. :@/#]([A-Za-z]{2})$")
LANGUAGE_FIRST = re.compile(r"([A-Z]{2})_(?=[A-Z][a-z])")
COUNTRIES = words_of("us uk gb at ch be ca mx br au nz ie in za")
"""Codes that stand before names where others have a language: US_Title_Long."""
NO_LANGUAGE = {"id", "no", "is", "ta", "et", "url"}
"""Codes that end names which mean something else: image_id, style_no."""
BEFORE = re.compile(r"^[*#@\s]*(?:(?!(?:seo|meta|og|twitter):)[A-Za-z]{1,20}:(?=\S))?", re.IGNORECASE)
"""Marks of what must be filled, and namespaces: `*Title`, `C:Brand`, `salsify:id`."""
CONTAINERS = words_of(
    "details data info product item general common content fields attributes basic node current master texts "
    "translations description descriptions variant variants variation variations skus"
)
"""Last words of the names of objects around a product's own columns."""
CALLED = words_of("name title label value text key code")
"""What a thing is called: `brand.name` is the brand."""


class Forms(NamedTuple):
    """A column's name as it stands, without notes, without `product`, and of a name with steps the last one ("" where
    it may belong to something else than the product); `locale` such as en or en_us."""

    plain: str
    bare: str
    short: str
    last: str
    locale: str


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """Return a column's name without case, accents, punctuation and Google's `g:`: "Référence  Nr." and "référenceNr"
    are "reference_nr".
    """
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip().removeprefix("g:"))
    folded = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("Ł", "L"))
    letters = "".join(c for c in folded if not "\u0300" <= c <= "\u036f")
    letters = unicodedata.normalize("NFC", letters).casefold().replace("ı", "i").replace("ø", "o").replace("æ", "ae")
    return re.sub(r"[\W_]+", "_", letters).strip("_")


@lru_cache(maxsize=4096)
def forms(name: str) -> Forms:
    """Return the forms in which `name` is compared."""
    noted = IN_NOTE.search(name)
    locale = noted[1].lower() if noted and noted[1].lower() in LANGUAGES else ""
    text = BEFORE.sub("", NOTE.sub(" ", name))
    text = re.sub(r"#\d+(\.value)?$|#\d+\.", " ", text).strip()
    if (found := LANGUAGE_FIRST.match(text)) and found[1].lower() in LANGUAGES.keys() | COUNTRIES:
        locale, text = found[1].lower(), text[found.end() :]
    if found := LOCALE.search(text):
        locale, text = f"{found[1]}_{found[2]}".lower(), text[: found.start()]
    elif (found := LANGUAGE.search(text)) and found[1].lower() in LANGUAGES and found[1].lower() not in NO_LANGUAGE:
        locale, text = found[1].lower(), text[: found.start()]
    words = [word for word in plain(text).split("_") if word not in ASIDE and not word.isdigit()]
    bare = "_".join(words) or plain(text)
    return Forms(plain(name), bare, LEADING.sub("", bare, count=1), _last_step(text), locale)


def _last_step(text: str) -> str:
    """Return `brand` of productDescription.brand and of brand.name; "" of a name without steps, and of brand.id."""
    steps = [step for step in map(plain, re.split(r"[./]", text)) if step and step not in ASIDE and not step.isdigit()]
    if len(steps) < 2:
        return ""
    *_, above, last = steps
    if is_container(above):
        return last
    return above if last in CALLED else ""


def is_container(name: str) -> bool:
    """Tell whether an object of this name, as `plain` writes it, stands around a product's own columns."""
    return name.rsplit("_", 1)[-1] in CONTAINERS
