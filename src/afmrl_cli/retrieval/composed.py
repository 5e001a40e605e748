"""Composed queries: a reference, a photo or a listing, and a change, `color: red` or words; one query of both.

    query     photos of the reference + the change as text + the reference's known attributes, the changed keys replaced
              (`search.known_attributes`, where the change is `key: value`)
    results   all listings but the reference: the listing itself, or those that show the very photo, by content; and the
              other listings of the same product, which change nothing. Of several products that share the photo, as
              variants may, those that have what is wished are results

Known attributes are those stored of a listing, else the shop's own columns. A photo that the listings of one product
show is that product's. What nothing good can come of is an error: a reference without a photo, an embedder that reads
none (words alone would answer another query), and a change to what the reference already is.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..attributes.own_columns import own_columns, own_text
from ..attributes.parse import InvalidAttributes, parse_attributes, read_stored, write_attributes
from ..attributes.schema import folded
from ..catalog.fingerprints import photo_hash
from ..catalog.images import open_image
from ..catalog.pictures import load_photos
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import open_catalog
from ..errors import DataError, ModelError
from ..models.embed_input import Item
from ..workspace import Workspace
from .hits import attributes_on_disk, unknown_listing
from .listings import Listing
from .vectors import Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture

VALUES_NAMED = 8


@dataclass(frozen=True)
class Change:
    """What should differ from the reference: the `text`, and its `pairs` where it is `key: value` ({}: words)."""

    text: str
    pairs: Mapping[str, str] = field(default_factory=dict)

    def done(self, attributes: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
        """Return, for each changed key that a listing has a value of, this value and whether it is the wished one; its
        `attributes` count before the shop's own `fields`.
        """
        own = {folded(key): value for key, value in fields.items() if value.strip()}
        own |= {folded(key): value for key, value in attributes.items()}
        return {key: (own[key], has_value(own[key], wanted)) for key, wanted in self.pairs.items() if key in own}

    def made(self, fields: Mapping[str, str], attributes: Mapping[str, str] | None = None) -> bool:
        """Check whether a listing has all of what is wished; never of a change in words."""
        found = self.done(attributes or {}, fields)
        return bool(self.pairs) and all(key in found and found[key][1] for key in self.pairs)


def read_change(text: str) -> Change:
    """Read a change as a person writes it."""
    text = " ".join(text.split())
    try:
        pairs = parse_attributes(text)
    except InvalidAttributes:
        return Change(text)
    return Change(text, {folded(key): value for key, value in pairs.items()})


def has_value(value: str, wanted: str) -> bool:
    """Check whether `value`, which may list several (`Mesh|Nylon`), is or holds the wanted one."""
    parts = [value, *value.replace("|", ",").split(",")]
    return folded(wanted) in map(folded, parts)


def changed_attributes(known: Mapping[str, str], pairs: Mapping[str, str]) -> str:
    """Return the attribute text of `known` with the values of `pairs`; keys that are not known stand at the end."""
    left = dict(pairs)
    merged = [(key, left.pop(folded(key), value)) for key, value in known.items()]
    return write_attributes([*merged, *left.items()])


def check_embedder(work: Workspace) -> None:
    """Raise ModelError for an embedder that reads no photos: it would answer the words alone; UsageError for one that
    reads nothing else. Of one that adds up what it reads, or never learnt to change a photo, a note says so.
    """
    from ..models.backends import kind_of_embedder, photos_alone, reads_photos, reads_text

    if not reads_text(work.settings):
        raise photos_alone(work.settings, "--change")
    if not reads_photos(work.settings, work.listener):
        raise ModelError(
            f"--change starts from a photo, and the embedder {work.embedder_id} reads none",
            "say all of it in words, or choose an embedder that reads photos",
        )
    if work.settings.embed.endpoint:
        return
    kind = kind_of_embedder(work.settings.model, work.listener)
    if kind == "light":
        work.listener.note(
            "light adds the words to the photo and never learnt to change one: where a column has the wish, --image or "
            "--like with --filter KEY=VALUE finds more"
        )
    elif kind == "qwen" and not _has_learnt(work):
        work.listener.note("this embedder never learnt to change a photo: `afmrl train-composed` teaches it")


def _has_learnt(work: Workspace) -> bool:
    """Tell whether the settings' checkpoint was trained by `train-composed`."""
    name = work.settings.model.embedder_checkpoint
    return bool(name) and "composed" in work.checkpoints.find(name, "embedder").settings


@dataclass(frozen=True)
class Composed:
    """A composed query: what the embedder reads, the change, and the rows that are never a result; `listing` is the
    reference where it is known to be one product's.
    """

    query: Item
    change: Change
    hidden: frozenset[int]
    listing: Listing | None = None


def compose(
    work: Workspace, vectors: Vectors, change: Change, *, like: str = "", photos: Sequence[Path] = (), written: str = ""
) -> Composed:
    """Make the query of the reference, the listing `like` or `photos`, and the change; `written` are attributes that a
    generator has written of the photos.

    Raises DataError for an unknown `like`, a reference without a readable photo, or one that is so already.
    """
    if like:
        row = vectors.listings.row_of(like)
        if row is None:
            raise unknown_listing(like, vectors)
        rows = frozenset([row])
        listing: Listing | None = vectors.listings.listing(row)
        images = _photos_of(vectors.listings.listing(row), work)
    else:
        images = tuple(open_image(path, work.settings.catalog) for path in photos)
        rows = _showing(photos, vectors, work.folder.root)
        listing = _one_product(rows, vectors)
    known = read_stored(written) or (known_attributes(work, listing) if listing and change.pairs else {})
    if change.pairs:
        change = _checked(change, known, listing, vectors, work)
    if listing is None:
        rows = frozenset(row for row in rows if not change.made(json.loads(vectors.listings.listing(row).fields)))
    wanted = work.settings.search.known_attributes and work.settings.embed.enrich != "none"
    attributes = changed_attributes(known, change.pairs) if change.pairs and (written or (known and wanted)) else ""
    return Composed(Item(change.text, images, attributes), change, _with_siblings(rows, vectors), listing)


def _showing(photos: Sequence[Path], vectors: Vectors, root: Path) -> frozenset[int]:
    """Return the rows of the listings that show one of `photos`, by content. Only files of the same size are read."""
    contents = {photo_hash(path) for path in photos}
    sizes = {path.stat().st_size for path in photos}

    def same(name: str) -> bool:
        path = root / name
        try:
            return path.stat().st_size in sizes and photo_hash(path) in contents
        except OSError:
            return False  # gone since `afmrl embed`: nobody can be shown it

    names = vectors.listings.column("images")
    return frozenset(row for row, images in enumerate(names) if any(map(same, images)))


def _one_product(rows: frozenset[int], vectors: Vectors) -> Listing | None:
    """Return the first listing of `rows` where all are of one product."""
    listings = [vectors.listings.listing(row) for row in sorted(rows)]
    identities = {json.loads(each.fields).get("product_id") or each.id for each in listings}
    return listings[0] if len(identities) == 1 else None


def _with_siblings(rows: frozenset[int], vectors: Vectors) -> frozenset[int]:
    """Return `rows` with those of the other listings of the same products."""
    identities = {json.loads(vectors.listings.listing(row).fields).get("product_id") for row in rows} - {"", None}
    if not identities:
        return rows
    fields = enumerate(vectors.listings.fields())
    return rows | {row for row, each in fields if each.get("product_id") in identities}


def _photos_of(listing: Listing, work: Workspace) -> tuple[Image | Picture, ...]:
    """Open as many photos of the reference as the embedder is shown. DataError when none can be opened."""
    settings, problems = work.settings, Problems()
    paths = [work.folder.root / name for name in listing.images]
    found = load_photos(paths, partial(open_image, settings=settings.catalog), settings.model.embedder_images)
    found.report(listing.id, 0, settings.catalog, problems)
    problems.tell(work.listener)
    if not found.photos:
        raise DataError(
            f"--like {listing.id}: it has no photo that can be opened, and --change starts from what a photo shows",
            "give a photo with --image, or say all of it in words",
        )
    return tuple(found.photos)


def known_attributes(work: Workspace, listing: Listing) -> dict[str, str]:
    """Return the attributes of a listing that the settings' generator wrote, else those of the shop's own columns."""
    row = attributes_on_disk(work, [listing]).get(listing.id)
    if row is not None and row.viewed:
        return read_stored(row.text)
    return own_attributes(listing, attribute_columns(work))


def attribute_columns(work: Workspace) -> dict[str, str]:
    """Return which of the shop's own columns are attributes, as `own_columns` does."""
    with open_catalog(work.folder, work.settings.catalog, Problems()) as catalog:
        return own_columns(work.settings.sft.columns, work.task.schema, catalog)


def own_attributes(listing: Listing, columns: Mapping[str, str]) -> dict[str, str]:
    """Return what the shop's `columns` (of `attribute_columns`) say of a listing."""
    return read_stored(own_text(Product(listing.id, given=json.loads(listing.fields)), columns))


def _checked(
    change: Change, known: Mapping[str, str], listing: Listing | None, vectors: Vectors, work: Workspace
) -> Change:
    """Return the change, as words where no listing has such a key, which is noted; so is a value that none has.
    DataError where the reference is so already.
    """
    own = json.loads(listing.fields) if listing else {}
    if change.made(own, known):
        raise DataError(
            f"--change {change.text}: that is what the reference is already",
            "ask for another value; --like without --change finds what is alike",
        )
    values = {key: list[str]() for key in map(folded, known)} | _own_values(vectors, change.pairs)
    for key, wanted in change.pairs.items():
        if key not in values:
            near = difflib.get_close_matches(key, list(values), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            work.listener.note(f"no listing has the attribute {key}: the change is read as words{hint}")
            return replace(change, pairs={})
        if values[key] and not any(has_value(value, wanted) for value in values[key]):
            named = ", ".join(values[key][:VALUES_NAMED])
            work.listener.note(f"no listing has {key}: {wanted}; there are {named}")
    return change


def _own_values(vectors: Vectors, wanted: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the keys of the shop's own columns, those that are `wanted` with the values that there are."""
    names: dict[str, str] = {}
    values: dict[str, dict[str, None]] = {}
    for fields in vectors.listings.fields():
        for name, value in fields.items():
            if value.strip():
                key = names[name] if name in names else names.setdefault(name, folded(name))
                held = values.setdefault(key, {})
                if key in wanted:
                    held.setdefault(value)
    return {key: list(held) for key, held in values.items()}
