"""Labelled photos: what the vision encoder learns from, and what it is validated on.

A class is what `vision.classes` says: the values of the catalog's own columns and keys (category among them), or the
product's identity. Every photo of a listing is one sample of the listing's class; a class with one photo has no pair
and is left out. The test split is never read, and listings that people confirmed as one product (`dedupe.verdicts`)
have one identity. Photos are decoded once at the start: an unreadable one is reported and left out there.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ..attributes.parse import clean_value
from ..attributes.schema import AttributeSchema, folded
from ..attributes.views import AttributeSource, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import Catalog, count_rows, no_products, open_catalog
from ..catalog.splits import Split, split_of
from ..catalog.verdicts import Verdicts, read_verdicts
from ..errors import DataError, UsageError
from ..sft.targets import Source, Target, open_known, read_target
from ..store.database import StoredAttributes
from ..store.files import hash_json
from ..training.corpus import DECODERS, readable_photos
from ..training.pairs import Photo
from ..workspace import Workspace

NO_PHOTO = "listings without a photo"
UNREADABLE = "photos that can't be read"
REPEATED = "photos that their class has already"
SHARED = "photos that stand in several classes"
ALONE = "photos that are the only one of their class"
MORE = "photos more than vision.validation_photos"
"""Why photos are left out; and for each of `vision.classes`, listings without it."""
OWN = ("category", "brand")
"""Fields of a product that make classes beside its columns."""


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo, which listing shows it (its id and identity), the number of its class, and the attributes that are known
    of the listing ({} where none are).
    """

    photo: Photo
    listing: str
    identity: str
    label: int
    pairs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PhotoSet:
    """The photos of one split and the names of their classes, by number."""

    photos: Sequence[LabelledPhoto]
    classes: Sequence[str]


@dataclass(frozen=True)
class LoadedPhotos:
    """The photos of both splits, none in a class of one. `left_out` counts by reason; `unknown` counts the listings
    without known attributes by reason. `keys` are those that attributes are known of, with the values that the schema
    allows. `source` names where they come from ("": nowhere), `teacher` the generator that wrote them, if one did.
    `fingerprint` is a hash of everything here.
    """

    train: PhotoSet
    validation: PhotoSet
    left_out: Counter[str]
    unknown: Counter[str]
    keys: Mapping[str, tuple[str, ...]]
    source: str
    teacher: str
    fingerprint: str


@dataclass(frozen=True)
class _Listing:
    """A listing of the training or validation split, with the value of each of `vision.classes`."""

    id: str
    identity: str
    values: tuple[str, ...]
    photos: tuple[Photo, ...]
    pairs: Mapping[str, str]


def load_photos(work: Workspace, problems: Problems, student: str | None = None) -> LoadedPhotos:
    """Read the catalog for a run of `train-vision`, or of `train-sft` on pairs; of the training split what `work.part`
    takes. `student` is the id of the generator that is taught, whose own answers are no known attributes.

    Raises UsageError when `vision.classes` names what is not there; DataError when fewer than two classes have two
    photos, or no known attribute differs between classes.
    """
    folder, settings, listener = work.folder, work.settings, work.listener
    left_out, unknown, order = Counter[str](), Counter[str](), dict[str, None]()
    splits: dict[Split, list[_Listing]] = {"train": [], "validation": []}
    total = count_rows(folder, settings.catalog)
    with (
        open_views(work, None) as views,
        open_catalog(folder, settings.catalog, problems) as catalog,
        ThreadPoolExecutor(max_workers=DECODERS) as threads,
    ):
        source = open_known(work, catalog, views.database, work.generator_id if student is None else student)
        class_of = _classes(settings.vision.classes, work.task.schema, catalog)
        views.source = AttributeSource(
            source.teacher if source else "",
            work.task.id,
            settings.model.generator_images,
            settings.attributes.min_confidence,
        )
        sides = ((product, split_of(product, settings.split)) for product in catalog.products)
        seen = (each for each, side in sides if side == "validation" or (side == "train" and work.sees(each)))
        for number, (product, _, row) in enumerate(views.stored(seen), 1):
            listener.progress("reading", number, total)
            known = _known(source, product, row, work)
            if isinstance(known, str):
                unknown[known] += 1
            pairs: Mapping[str, str] = known.pairs if isinstance(known, Target) else {}
            values = class_of(product, pairs)
            if isinstance(values, str):
                left_out[f"listings without {values}"] += 1
                continue
            pairs = _with_classes(pairs, settings.vision.classes, values, work.task.schema)
            photos = readable_photos(product, settings, problems, views.fingerprinter, threads)
            left_out[UNREADABLE] += len(product.images) - len(photos)
            left_out[NO_PHOTO] += not product.images
            order |= dict.fromkeys(pairs)
            splits[split_of(product, settings.split)].append(
                _Listing(product.id, product.identity, values, photos, pairs)
            )
    if not any(splits.values()) and not left_out and problems.errors:
        raise no_products(folder.catalog, problems)
    verdicts = read_verdicts(settings, folder.root)
    train, validation = (
        _photo_set(_one_identity(splits[side], verdicts), bool(settings.vision.classes), left_out)
        for side in ("train", "validation")
    )
    validation = _at_most(validation, settings.vision.validation_photos, settings.vision.seed, left_out)
    keys = _keys(work.task.schema, source.keys if source else (), order)
    left_out = +left_out
    _check(train, keys, left_out, settings.vision.classes)
    name, teacher = (source.name, source.teacher) if source else ("", "")
    return LoadedPhotos(
        train, validation, left_out, unknown, keys, name, teacher, _fingerprint((train, validation), keys)
    )


def _known(source: Source | None, product: Product, row: StoredAttributes | None, work: Workspace) -> Target | str:
    """Return what is known of a product's attributes, or why nothing is."""
    if source is None:
        return "no source"
    text, reason = source.raw(product, row)
    return read_target(text, product, work.task, source.keys) if text else reason


ClassOf = Callable[[Product, Mapping[str, str]], "tuple[str, ...] | str"]
"""A product and its known attributes -> the values that make its class, or the name of one that it lacks."""


def _classes(names: Sequence[str], schema: AttributeSchema, catalog: Catalog) -> ClassOf:
    """Return what `vision.classes` means. UsageError for a name that is no column and no key."""
    columns = catalog.columns
    given = {key: key for _, key in columns.given} | {columns.names[i]: key for i, key in columns.given}
    keys = {folded(key): key for key in schema.keys}
    for name in names:
        if not (name in OWN or name in given or folded(name) in keys or catalog.own_attributes):
            there = dict.fromkeys([*OWN, *(key for _, key in columns.given), *schema.keys])
            raise UsageError(f"vision.classes: {name!r} is no column and no key", f"there are: {', '.join(there)}")

    def class_of(product: Product, pairs: Mapping[str, str]) -> tuple[str, ...] | str:
        """Return the values that make the class of `product`, or the name that has none."""
        found = []
        for name in names:
            if name in OWN:
                value = getattr(product, name)
            else:
                value = product.given.get(given.get(name, name), "") or pairs.get(keys.get(folded(name), name), "")
            if not (value := " ".join(value.split())):
                return name
            found.append(value)
        return tuple(found)

    return class_of


def class_key(name: str) -> str:
    """Return the key of attribute text that one of `vision.classes` stands for."""
    return " ".join(name.removeprefix("attr_").replace("_", " ").lower().split())


def _with_classes(
    pairs: Mapping[str, str], names: Sequence[str], values: Sequence[str], schema: AttributeSchema
) -> dict[str, str]:
    """Return known attributes with those that make the class: of a schema's keys, where there is a schema."""
    there, keys = set(map(folded, pairs)), {folded(key): key for key in schema.keys}
    found = {class_key(name): clean_value(value.replace("|", ", ")) for name, value in zip(names, values, strict=True)}
    missing = {key: value for key, value in found.items() if value and folded(key) not in there}
    if keys:
        missing = {keys[folded(key)]: value for key, value in missing.items() if folded(key) in keys}
    return missing | dict(pairs)


def _one_identity(listings: Sequence[_Listing], verdicts: Verdicts) -> list[_Listing]:
    """Return the listings with one identity for those that a person called the same product, and another one for a
    listing that a person called different from one of its own identity.
    """
    identities = verdicts.identities({listing.id: listing.identity for listing in listings})
    for one, other in sorted(verdicts.rejected):
        if one in identities and identities[one] == identities.get(other):
            identities[other] = f"{identities[other]}\0{other}"
    return [replace(listing, identity=identities[listing.id]) for listing in listings]


def _photo_set(listings: Sequence[_Listing], by_values: bool, left_out: Counter[str]) -> PhotoSet:
    """Return the photos of `listings` with their classes, by value or by identity; each photo once, and no class with
    one photo.
    """
    names: dict[object, str] = {}
    classes_of: dict[str, set[object]] = {}
    rows: list[tuple[object, Photo, _Listing]] = []
    for listing in listings:
        own: object = tuple(map(folded, listing.values)) if by_values else listing.identity
        names.setdefault(own, ", ".join(listing.values) or listing.identity.partition("\0")[0])
        for photo in listing.photos:
            classes_of.setdefault(photo.content, set()).add(own)
            rows.append((own, photo, listing))
    kept, once = list[tuple[object, Photo, _Listing]](), set[str]()
    for own, photo, listing in rows:
        if len(classes_of[photo.content]) > 1:
            left_out[SHARED] += 1
        elif photo.content in once:
            left_out[REPEATED] += 1
        else:
            once.add(photo.content)
            kept.append((own, photo, listing))
    sizes = Counter(own for own, _, _ in kept)
    left_out[ALONE] += sum(number == 1 for number in sizes.values())
    number: dict[object, int] = {own: i for i, own in enumerate(own for own in names if sizes[own] > 1)}
    photos = [
        LabelledPhoto(photo, listing.id, listing.identity, number[own], listing.pairs)
        for own, photo, listing in kept
        if own in number
    ]
    return PhotoSet(photos, [names[own] for own in number])


def regrouped(photos: Iterable[LabelledPhoto], key: Callable[[LabelledPhoto], str]) -> PhotoSet:
    """Return those of `photos` of which two have the same `key`, with that as their class."""
    groups: dict[str, list[LabelledPhoto]] = {}
    for photo in photos:
        groups.setdefault(key(photo), []).append(photo)
    number = {name: i for i, name in enumerate(name for name, own in groups.items() if len(own) > 1)}
    return PhotoSet([replace(photo, label=number[name]) for name in number for photo in groups[name]], list(number))


def _at_most(photos: PhotoSet, most: int, seed: int, left_out: Counter[str]) -> PhotoSet:
    """Return a fixed sample of at most `most` photos: as many of each class as then fit, two at least, and if need be
    fewer classes.
    """
    if len(photos.photos) <= most:
        return photos
    sizes = Counter(photo.label for photo in photos.photos)
    each = max(
        (n for n in range(2, max(sizes.values()) + 1) if sum(min(n, size) for size in sizes.values()) <= most),
        default=2,
    )
    by_chance = heapq.nsmallest(most // 2, sizes, key=lambda label: hash_json([seed, label])) if each == 2 else sizes
    classes = sorted(by_chance)
    chosen = []
    for label in classes:
        own = [photo for photo in photos.photos if photo.label == label]
        chosen += heapq.nsmallest(each, own, key=lambda photo: hash_json([seed, photo.photo.content]))
    wanted = {photo.photo.content for photo in chosen}
    number = {label: i for i, label in enumerate(classes)}
    kept = [replace(each, label=number[each.label]) for each in photos.photos if each.photo.content in wanted]
    left_out[MORE] += len(photos.photos) - len(kept)
    return PhotoSet(kept, [photos.classes[label] for label in classes])


def _keys(schema: AttributeSchema, columns: Sequence[str], known: Mapping[str, None]) -> dict[str, tuple[str, ...]]:
    """Return the keys that something is known of, in the schema's order, else those of classes and then the shop's own
    columns in theirs, else as they were met; where nothing is known, the schema's.
    """
    ordered = list(schema.keys) or [*(key for key in known if key not in columns), *columns]
    keys = [key for key in ordered if key in known or not known]
    return {key: tuple(schema.keys[key].values) if key in schema.keys else () for key in keys}


def _check(train: PhotoSet, keys: Iterable[str], left_out: Counter[str], classes: Sequence[str]) -> None:
    """Raise DataError when there is nothing to tell apart, or no known attribute to tell it by."""
    of = ", ".join(classes) or "the product's identity"
    if len(train.classes) < 2:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.most_common())
        raise DataError(
            f"{len(train.classes)} of the training classes (by {of}) has two photos, two classes are needed"
            + (f"; left out: {reasons}" if reasons else ""),
            "name columns that more listings share in vision.classes; see split.validation, split.test, `afmrl check`",
        )
    known = [photo for photo in train.photos if photo.pairs]
    if len({photo.label for photo in known}) > 1 and not any(_tells(known, key) for key in keys):
        raise DataError(
            f"no verdict depends on this schema: classes (by {of}) are alike in each of its keys ({', '.join(keys)})",
            "add the keys that tell them apart to [attributes.keys], or name other vision.classes",
        )


def _tells(photos: Sequence[LabelledPhoto], key: str) -> bool:
    """Tell whether two photos of different classes have different values of `key`."""
    met = {(photo.label, folded(photo.pairs[key])) for photo in photos if key in photo.pairs}
    # With two labels and two values, one of these pairs differs in both from another.
    return len({label for label, _ in met}) > 1 and len({value for _, value in met}) > 1


def _fingerprint(sets: Sequence[PhotoSet], keys: Mapping[str, tuple[str, ...]]) -> str:
    digest = hashlib.sha256(hash_json([list(keys.items()), [list(each.classes) for each in sets]]).encode())
    for each in sets:
        for photo in each.photos:
            seen = [photo.photo.content, photo.listing, photo.identity, photo.label, list(photo.pairs.items())]
            digest.update(hash_json(seen).encode())
        digest.update(b"\n")
    return digest.hexdigest()
