"""Writes a rendered example shop: catalog, photos, search queries and which listings answer them, and its shoppers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random

from ..catalog.rendered import COMMENT
from ..listener import Listener, Silent
from .garment import COLOURS, KEYS, Garment, colour_variant, contrasts, detail_variant, random_garment
from .phone import by_phone
from .render import render_photo
from .shoppers import INTERACTIONS, TRUTH, interactions_text, plan_shoppers, truth_text
from .wording import BRANDS, DEPARTMENTS, listing_words, query_words

PHOTO_SIZE = 448
_QUERY_PHOTO = 900
"""Photos with numbers from here on are a shopper's; no listing shows them."""

COLUMNS: tuple[str, ...] = (
    "id",
    "product_id",
    "group_id",
    "title",
    "description",
    "category",
    "brand",
    "price",
    "image",
    *(f"attr_{key}" for key in KEYS),
)


@dataclass(frozen=True, slots=True)
class ShopPlan:
    """What a shop is like; the same plan gives the same bytes.

    `variants` is the share of styles that come in a second, now and then a third colour, everything else equal; with
    `details` their variants differ in one key of their cut or fittings in place of the colour.
    `duplicates` the share of products listed twice, with other photos and other words. Each attribute is left out of
    title and description with the chance `leave_out`. `phone`: the photos of second listings were taken with a phone.
    `size`: a photo's side in pixels. `shoppers`: how many of them take something (`nano.shoppers`).
    """

    products: int = 200
    seed: int = 0
    variants: float = 0.5
    details: bool = False
    duplicates: float = 0.1
    leave_out: float = 0.5
    phone: bool = False
    text_queries: int = 60
    photo_queries: int = 60
    size: int = PHOTO_SIZE
    shoppers: int = 0


@dataclass(frozen=True, slots=True)
class Shot:
    """One photo to be drawn: `name` is its path inside the shop's folder. `phone`: as a phone takes it."""

    name: str
    garment: Garment
    number: int
    phone: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """One row of the shop's catalog, with the garment that it sells."""

    id: str
    product_id: str
    group_id: str
    title: str
    description: str
    brand: str
    price: str
    garment: Garment
    shots: tuple[Shot, ...]
    stated: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The attributes that title and description name."""

    def row(self) -> dict[str, str]:
        """Return the listing as the catalog's columns; attributes that don't apply, or are none, are empty."""
        attributes = {key: value for key, value in self.garment.attributes().items() if value != "none"}
        return {
            "id": self.id,
            "product_id": self.product_id,
            "group_id": self.group_id,
            "title": self.title,
            "description": self.description,
            "category": DEPARTMENTS[self.garment.category],
            "brand": self.brand,
            "price": self.price,
            "image": "|".join(shot.name for shot in self.shots),
            **{f"attr_{key}": attributes.get(key, "") for key in KEYS},
        }


@dataclass(frozen=True, slots=True)
class Query:
    """A search: words, or a photo of a product, and the listings that answer it."""

    qid: str
    text: str
    shots: tuple[Shot, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shop:
    """What `write_shop` wrote, or found already written."""

    folder: Path
    listings: tuple[Listing, ...]
    queries: tuple[Query, ...]


def plan_listings(plan: ShopPlan) -> tuple[Listing, ...]:
    """Sample the listings of a shop."""
    rng = Random(f"shop {plan.seed}")
    sold: list[tuple[str, str, Garment, int]] = []
    style = 0
    while len({product for product, *_ in sold}) < plan.products:
        style += 1
        one = Random(f"shop {plan.seed} style {style}")
        garment = random_garment(one)
        variants = [garment]
        while (
            len(variants) < 3
            and (plan.details or _other_colour(variants))
            and one.random() < (plan.variants if len(variants) == 1 else 0.25)
        ):
            made = _variant(variants, one, details=plan.details)
            if made not in variants:
                variants.append(made)
        for n, variant in enumerate(variants):
            product = f"P{style:05d}-{n + 1}"
            if len({name for name, *_ in sold}) == plan.products:
                break
            sold.append((product, f"G{style:05d}", variant, 0))
            if one.random() < plan.duplicates:
                sold.append((product, f"G{style:05d}", variant, 1))
    rng.shuffle(sold)
    return tuple(_listing(plan, f"L{n:05d}", *one) for n, one in enumerate(sold, 1))


def _variant(known: list[Garment], rng: Random, *, details: bool) -> Garment:
    if details:
        return detail_variant(known[0], rng)
    return colour_variant(known[0], rng, tuple(each.colour for each in known))


def _other_colour(colours: list[Garment]) -> bool:
    taken, accent = {variant.colour for variant in colours}, colours[0].accent
    return any(name not in taken and (not accent or contrasts(name, accent)) for name in COLOURS)


def _listing(plan: ShopPlan, name: str, product: str, group: str, garment: Garment, copy: int) -> Listing:
    seed = plan.seed
    style = Random(f"words {seed} {group}")
    brand = style.choice(BRANDS)
    price = f"{style.randrange(9, 190)}.{style.choice(('00', '50', '90', '95'))}"
    # Half of the styles describe all their variants in the same words, as shops do, so that only the photos differ.
    shared = style.random() < 0.5 and not copy
    words = listing_words(garment, Random(f"words {seed} {group if shared else product} {copy}"), brand, plan.leave_out)
    count = Random(f"count {seed} {product} {copy}").randint(2, 3)
    by_phone = plan.phone and copy > 0
    shots = tuple(Shot(f"images/{name}-{n + 1}.jpg", garment, 10 * copy + n, by_phone) for n in range(count))
    return Listing(name, product, group, words.title, words.description, brand, price, garment, shots, words.stated)


def plan_queries(listings: tuple[Listing, ...], seed: int, text: int, photo: int) -> tuple[Query, ...]:
    """Sample searches: words are answered by every listing with the attributes they name, a photo by its product's."""
    rng = Random(f"queries {seed}")
    by_product = {listing.product_id: listing for listing in listings}
    chosen = rng.sample(sorted(by_product), k=min(text, len(by_product)))
    queries: list[Query] = []
    for n, product in enumerate(chosen, 1):
        words, named = query_words(by_product[product].garment, rng)
        fits = tuple(listing.id for listing in listings if _has(listing.garment, named))
        queries.append(Query(f"t{n:04d}", words, (), fits))
    chosen = rng.sample(sorted(by_product), k=min(photo, len(by_product)))
    for n, product in enumerate(chosen, 1):
        shot = Shot(f"images/query-{n:04d}.jpg", by_product[product].garment, _QUERY_PHOTO)
        same = tuple(listing.id for listing in listings if listing.product_id == product)
        queries.append(Query(f"p{n:04d}", "", (shot,), same))
    return tuple(queries)


def _has(garment: Garment, named: Mapping[str, str]) -> bool:
    return all(getattr(garment, key) == value for key, value in named.items())


def catalog_text(listings: tuple[Listing, ...]) -> str:
    """Return the catalog as CSV."""
    held = io.StringIO()
    writer = csv.DictWriter(held, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(listing.row() for listing in listings)
    return held.getvalue()


def _draw(folder: str, size: int, shots: list[Shot]) -> int:
    for shot in shots:
        path = Path(folder, shot.name)
        part = path.with_suffix(".part")
        photo = render_photo(shot.garment, shot.number, size)
        if shot.phone:
            photo = by_phone(photo, Random(f"phone {shot.name}"))
        photo.save(part, "JPEG", quality=88, comment=COMMENT)
        part.replace(path)
    return len(shots)


def _draw_all(folder: Path, size: int, shots: list[Shot], processes: int, listener: Listener) -> None:
    groups = [shots[n : n + 32] for n in range(0, len(shots), 32)]
    done = 0
    if processes <= 1 or len(groups) < 4:
        for group in groups:
            done += _draw(str(folder), size, group)
            listener.progress("photos", done, len(shots))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        for count in workers.map(_draw, [str(folder)] * len(groups), [size] * len(groups), groups):
            done += count
            listener.progress("photos", done, len(shots))


def write_shop(folder: Path, plan: ShopPlan, *, processes: int = 1, listener: Listener | None = None) -> Shop:
    """Write a shop into `folder`: catalog.csv, images/, queries.jsonl, qrels.trec; with shoppers also interactions.csv
    and truth/shoppers.json. Same plan, same bytes.

    The catalog is written last, so a folder with one is complete; for the very shop that is there only missing photos
    are drawn. Raises FileExistsError if the folder holds another catalog, or other interactions.
    """
    listings = plan_listings(plan)
    queries = plan_queries(listings, plan.seed, plan.text_queries, plan.photo_queries)
    shop = Shop(folder, listings, queries)
    catalog = folder / "catalog.csv"
    text = catalog_text(listings)
    there = catalog.exists()
    if there and catalog.read_bytes() != text.encode():
        raise FileExistsError(f"{catalog} is another catalog: your own, or a shop of another size or version of afmrl")
    taken = _shoppers_files(plan, listings)
    interactions = folder / INTERACTIONS
    if taken and interactions.exists() and interactions.read_bytes() != taken[INTERACTIONS].encode():
        raise FileExistsError(f"{interactions} holds other interactions: your own, or those of another plan")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    shots = [shot for listing in listings for shot in listing.shots]
    shots += [shot for query in queries for shot in query.shots]
    missing = [shot for shot in shots if not (there and (folder / shot.name).exists())]
    _draw_all(folder, plan.size, missing, processes, listener or Silent())
    lines = [
        {
            "qid": query.qid,
            "type": "photo" if query.shots else "text",
            "text": query.text,
            "images": [shot.name for shot in query.shots],
        }
        for query in queries
    ]
    _write(folder / "queries.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    qrels = "".join(f"{query.qid} 0 {listing} 1\n" for query in queries for listing in query.answers)
    _write(folder / "qrels.trec", qrels)
    for name, held in taken.items():
        _write(folder / name, held)
    _write(catalog, text)
    return shop


def _shoppers_files(plan: ShopPlan, listings: tuple[Listing, ...]) -> dict[str, str]:
    """Return what is written of the shop's shoppers, by the name of the file."""
    if not plan.shoppers:
        return {}
    events, truth = plan_shoppers(listings, plan.shoppers, plan.seed)
    return {INTERACTIONS: interactions_text(events), TRUTH: truth_text(truth)}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
