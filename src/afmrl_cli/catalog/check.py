"""What is in a catalog and what is wrong with it: the summary that `afmrl check` shows."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..listener import Listener
from ..settings import CatalogSettings
from ..store.folder import CatalogFolder
from .columns import ROLES, ColumnMap
from .content import ROLE_OF, kind_of
from .languages import LanguageSample
from .name_forms import forms
from .photo_check import Checked, PhotoCheck
from .photo_columns import are_smaller
from .problems import Problem, Problems, clipped
from .read import count_rows, open_catalog

TELL_EVERY = 500
MOST_CATEGORIES = 10_000
MOST_KEYS = 1_000
"""Distinct categories that are counted; a column with more is hardly one of categories."""


@dataclass(frozen=True)
class CatalogSummary:
    """What a catalog holds. Counts are of usable products; `problems` has everything else.

    `filled` counts, by role, the products that have it: a column may be there and empty. `attributes` counts the same
    for the retailer's own attributes, `languages` are shares of a sample of the texts.
    """

    columns: ColumnMap
    products: int
    photos: int
    without_photo: int
    without_text: int
    several_photos: int
    text_and_photo: int
    identities: int
    shared_identities: int
    groups: int
    shared_groups: int
    categories: Counter[str]
    languages: dict[str, float]
    opened: bool
    filled: Counter[str]
    attributes: Counter[str]
    layout: str
    problems: Problems

    def read_as(self) -> dict[str, list[str]]:
        """Map each role to the columns that it is read from, empty for none."""
        return {role: self.columns.read_as(role) for role in ROLES}

    def given(self) -> list[str]:
        """Return the keys of the columns that stay filters and labels."""
        return [key for _, key in self.columns.given]


class Tally:
    """Counts distinct texts, and those that occur more than once, in 8 bytes each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, text: str) -> None:
        """Count `text`."""
        self._hashes.append(hash(text))

    def distinct_and_repeated(self) -> tuple[int, int]:
        """Return how many different texts, and how many of them stood more than once."""
        import numpy as np

        _, counts = np.unique(np.frombuffer(self._hashes, dtype=np.int64), return_counts=True)
        return len(counts), int((counts > 1).sum())


def unread_columns(columns: ColumnMap) -> Iterator[Problem]:
    """Yield columns that nothing reads and that hold photos, GTINs or long text, with the setting that would
    read them.
    """
    read = {role for role, positions in columns.roles.items() if not all(map(columns.sample.empty, positions))}
    for i, key in columns.given:
        kind = kind_of(columns.sample.cells[i])
        name = columns.names[i]
        if kind == "links or paths of photos" and "image" in read and are_smaller(name):
            continue
        if not kind or key in columns.text or (kind == "long text" and "description" in read and forms(name).locale):
            continue  # the same text in another language
        role = ROLE_OF[kind]
        if role == "product_id" and role in read:
            continue
        named = [*columns.read_as(role), name] if role in read else [name]
        message = f"it holds {kind}: catalog.columns.{role} = {clipped(json.dumps(named, ensure_ascii=False), 100)}"
        yield Problem("unread column", 0, message, column=name)


def check_catalog(
    folder: CatalogFolder,
    settings: CatalogSettings,
    listener: Listener,
    *,
    open_photos: bool,
    problems: Problems | None = None,
    known: Mapping[str, Checked] | None = None,
) -> CatalogSummary:
    """Read the whole catalog, and with `open_photos` decode every photo once, but those that are `known`.

    Nothing in a row is fatal here, whatever the settings say: all is found and counted. Raises DataError when the
    file can't be read as a catalog. `problems` takes what is found, a new one by default.
    """
    settings = settings.model_copy(update={"bad_rows": "skip", "bad_images": "skip"})
    problems = problems or Problems()
    total = count_rows(folder, settings)
    identities, groups = Tally(), Tally()
    categories: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    filled: Counter[str] = Counter()
    attributes: Counter[str] = Counter()
    languages = LanguageSample()
    with (
        open_catalog(folder, settings, problems) as catalog,
        PhotoCheck(settings, problems, open_photos=open_photos, known=known) as photos,
    ):
        for product in catalog.products:
            counts["products"] += 1
            counts["photos"] += len(product.images)
            counts["without photo"] += not product.images
            counts["without text"] += not (product.title or product.description)
            counts["text and photo"] += bool(product.images and (product.title or product.description))
            filled.update(role for role in ROLES if getattr(product, "images" if role == "image" else role))
            counts["several photos"] += len(product.images) > 1
            identities.add(product.identity)
            if product.group_id:
                groups.add(product.group_id)
            if product.category and (product.category in categories or len(categories) < MOST_CATEGORIES):
                categories[product.category] += 1
            keys = product.given.keys()
            attributes.update(keys if len(attributes) < MOST_KEYS else keys & attributes.keys())
            languages.add(f"{product.title} {product.description}".strip())
            photos.add(product)
            if counts["products"] % TELL_EVERY == 0:
                listener.progress("reading", counts["products"], max(total, counts["products"]))
        columns = catalog.columns
        for problem in unread_columns(columns):
            problems.add(problem)
    styles, shared_styles = groups.distinct_and_repeated()
    distinct, shared = identities.distinct_and_repeated()
    return CatalogSummary(
        columns=columns,
        products=counts["products"],
        photos=counts["photos"],
        without_photo=counts["without photo"],
        without_text=counts["without text"],
        several_photos=counts["several photos"],
        text_and_photo=counts["text and photo"],
        identities=distinct,
        shared_identities=shared,
        groups=styles,
        shared_groups=shared_styles,
        categories=categories,
        languages=languages.languages(),
        opened=open_photos,
        filled=filled,
        attributes=attributes,
        layout=catalog.layout,
        problems=problems,
    )
