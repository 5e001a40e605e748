"""The nano model's figures on a shop that it never saw: what `make --evaluate` prints."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afmrl_cli.attributes.parse import InvalidAttributes, parse_attributes, write_attributes
from afmrl_cli.catalog.product import Product, enriched_text, product_text
from afmrl_cli.models.templates import QUERY_INSTRUCTION, TARGET_INSTRUCTION
from afmrl_cli.nano.shop import Listing, Shop, ShopPlan, Shot, write_shop
from afmrl_cli.nano.wording import DEPARTMENTS
from afmrl_cli.retrieval.index import exact_search

from .model import load_nano
from .score import answers, recalls, value_scores, vectors

Table = dict[str, dict[str, float]]
"""Figures by row, then by column."""


def measure(folder: Path | None = None, products: int = 1000, seed: int = 4711, processes: int = 2) -> Table:
    """Render a shop and measure the model in `folder` (default: the shipped one) on its photos, JPEG and all."""
    with tempfile.TemporaryDirectory() as place:
        shop = write_shop(
            Path(place),
            ShopPlan(products, seed, duplicates=0.0, text_queries=products, photo_queries=products),
            processes=processes,
        )
        phones = write_shop(
            Path(place) / "phones",
            ShopPlan(products // 2, seed, duplicates=1.0, phone=True, text_queries=0, photo_queries=0, size=224),
            processes=processes,
        )
        return {**measure_shop(shop, folder), **measure_phones(phones, folder)}


def opened(shop: Shop, shots: tuple[Shot, ...]) -> list[Image.Image]:
    """Open photos of a shop."""
    return [Image.open(shop.folder / shot.name).convert("RGB") for shot in shots]


def measure_phones(shop: Shop, folder: Path | None = None) -> Table:
    """Return the figures on the listings of a shop whose photos were taken by phone."""
    model, processor = load_nano(folder)
    listings = [listing for listing in shop.listings if listing.shots[0].phone]
    truth = [listing.garment.attributes() for listing in listings]
    texts = [listing_text_of(listing) for listing in listings]
    shown = [opened(shop, listing.shots) for listing in listings]
    first = answers(model, processor, [""] * len(listings), [photos[:1] for photos in shown])
    said = answers(model, processor, texts, shown)
    return {
        "attributes by phone: one photo": value_scores(truth, first),
        "attributes by phone: all photos and text": value_scores(truth, said),
    }


def listing_text_of(listing: Listing) -> str:
    """Return the product text of a listing."""
    return product_text(
        Product(
            id=listing.id,
            title=listing.title,
            description=listing.description,
            category=DEPARTMENTS[listing.garment.category],
            brand=listing.brand,
        )
    )


def measure_shop(shop: Shop, folder: Path | None = None) -> Table:
    """Return the figures on a shop that has been written, one listing a product."""
    model, processor = load_nano(folder)
    listings = shop.listings
    truth = [listing.garment.attributes() for listing in listings]
    texts = [listing_text_of(listing) for listing in listings]
    blank = [""] * len(listings)
    shown = [opened(shop, listing.shots) for listing in listings]
    first = [photos[:1] for photos in shown]
    said = answers(model, processor, blank, first)
    table = {"attributes: one photo": value_scores(truth, said)}
    said = answers(model, processor, texts, shown)
    table["attributes: all photos and text"] = value_scores(truth, said)

    ids = [listing.id for listing in listings]
    by_words = [query for query in shop.queries if query.text]
    by_photo = [query for query in shop.queries if not query.text]
    query_photos = [opened(shop, query.shots) for query in by_photo]
    owner = [query.answers[0] for query in by_photo]

    def found(gallery: NDArray[np.float32], asked: NDArray[np.float32]) -> dict[str, float]:
        return recalls(asked, gallery, owner, ids)

    asked = vectors(model, processor, [""] * len(by_photo), query_photos, QUERY_INSTRUCTION)
    photos_only = vectors(model, processor, blank, first, TARGET_INSTRUCTION)
    whole = vectors(model, processor, texts, shown, TARGET_INSTRUCTION)
    table["photo -> another photo"] = found(photos_only, asked)
    table["photo -> listing"] = found(whole, asked)

    rich = [enriched_text(text, clean(answer)) for text, answer in zip(texts, said, strict=True)]
    with_attributes = vectors(model, processor, rich, shown, TARGET_INSTRUCTION)
    asked_said = answers(model, processor, [""] * len(by_photo), query_photos)
    asked_rich = [enriched_text("", clean(answer)) for answer in asked_said]
    asked = vectors(model, processor, asked_rich, query_photos, QUERY_INSTRUCTION)
    table["photo + attributes -> listing + attributes"] = found(with_attributes, asked)

    words = vectors(model, processor, [query.text for query in by_words], [[]] * len(by_words), QUERY_INSTRUCTION)
    wanted = [set(query.answers) for query in by_words]
    for name, gallery in (("photo", photos_only), ("listing", whole), ("listing + attributes", with_attributes)):
        table[f"words -> {name}"] = _any_of(words, gallery, wanted, ids)
    return table


def clean(answer: str) -> str:
    """Return an answer as the tool would store it: parsed and written again, "" if it can't be parsed."""
    try:
        return write_attributes(parse_attributes(answer))
    except InvalidAttributes:
        return ""


def _any_of(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], wanted: list[set[str]], ids: list[str]
) -> dict[str, float]:
    """Return share of queries with any fitting listing first, or among the first ten."""
    order = exact_search(gallery, queries, 10)[1].tolist()
    hits = np.array([[ids[n] in fits for n in row] for row, fits in zip(order, wanted, strict=True)])
    return {"R@1": float(hits[:, 0].mean()), "R@10": float(hits.any(axis=1).mean())}
