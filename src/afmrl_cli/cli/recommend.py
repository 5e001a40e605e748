"""`afmrl recommend`: what a customer may want next, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .flags import setting
from .options import Session, check_page, in_session
from .output import clipped

if TYPE_CHECKING:
    from ..next_item.gallery import GalleryListing
    from ..next_item.recommending import Recommendation, Recommended

LAST_SHOWN, MOST_NAMED = 3, 1_000


@in_session(setting("recommend.interactions", metavar="FILE", repeat=True, from_here=True), catalog="option")
def recommend(
    session: Session,
    customer: Annotated[
        str | None,
        typer.Option(metavar="ID", help="A customer: the number or address in the files.", show_default=False),
    ] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(metavar="SKU,SKU", help="Listings in place of a customer, the latest last. Repeatable."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many products to show.")] = 10,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures that needs no network.")
    ] = None,
) -> None:
    """Recommend what a customer may want next, over the whole catalog, and say why.

    By popularity, likeness to the history (`afmrl embed`), and what customers take together; the weights are fitted on
    the interactions themselves. Of the variants of a style one is shown. `model.recommender_checkpoint` names a trained
    recommender (`afmrl train-recommender`), which orders the first anew.

    Example: afmrl recommend --customer anna@example.com -k 5

    Example: afmrl recommend --history L00012,L00047 --html next.html
    """
    from ..next_item.recommending import recommend as find
    from .train_recommender import trained_order

    named = [name.strip() for words in history or [] for name in words.split(",") if name.strip()]
    _check(session, customer, history, named, html)
    with session.out:
        found = find(session.work, customer, named, k, trained_order(session.work))
    if html:
        from ..next_item.recommend_page import write_page

        write_page(html, found, session.work)
    _document(session, found, html)
    _show(session, found)
    if html:
        session.out.text(f"page: {html}")


def _check(
    session: Session, customer: str | None, history: list[str] | None, named: Sequence[str], html: Path | None
) -> None:
    """Refuse what can be refused before anything is read."""
    if (customer is None) == (not history):
        raise UsageError("give either --customer or --history", "as in: afmrl recommend --history L00012,L00047")
    if history and not named:
        raise UsageError("--history: names nothing", "give ids, SKUs or product numbers: --history L00012,L00047")
    if len(named) > MOST_NAMED:
        raise UsageError(f"--history: names {len(named):,} listings", f"give the last {MOST_NAMED:,}")
    if html:
        check_page(html, session.folder)


def _document(session: Session, found: Recommendation, html: Path | None) -> None:
    weights = found.retrieval.fused.weights
    content = {
        "catalog": session.folder.catalog,
        "customer": found.customer,
        "history": {
            "interactions": len(found.question.history),
            "listings": [{"id": listing.id, "title": listing.title} for listing in found.history],
            "unknown": found.unknown,
        },
        "tastes": [
            {
                "key": taste.value[0],
                "value": found.gallery.spelled[taste.value],
                "count": taste.count,
                "listings": taste.listings,
                "share_of_catalog": round(taste.share, 4),
            }
            for taste in found.tastes
        ],
        "products": [_product(found, product) for product in found.products],
        "ranking": found.ranking.name,
        "weights": {name: round(weight, 4) for name, weight in weights.by_source.items()},
        "weights_fitted_on": weights.questions,
        "attributes": found.gallery.made_by,
        "html": html,
    }
    session.out.document("afmrl.recommend/1", content)


def _product(found: Recommendation, product: Recommended) -> dict[str, Any]:
    listing, by = product.listing, product.reason.by
    return {
        "rank": product.rank,
        "id": listing.id,
        "title": listing.title,
        "brand": listing.brand,
        "price": listing.price,
        "link": listing.link,
        "score": round(product.score, 6),
        "tastes": [taste.words for taste in product.tastes],
        "source": product.reason.source,
        "by": found.gallery.ids[by] if by >= 0 else "",
        "why": _why(product),
        "variants": product.variants,
        "images": [str(path) for path in listing.images],
    }


def _why(product: Recommended) -> str:
    return "; ".join(filter(None, (", ".join(taste.words for taste in product.tastes), product.reason.words)))


def _show(session: Session, found: Recommendation) -> None:
    from ..next_item.tastes import tastes_in_words

    out, history = session.out, found.history
    about = "1 listing" if len(history) == 1 else f"{len(history):,} listings"
    taste = tastes_in_words(found.tastes)
    out.words(f"history: {about}" + (f", {taste}" if taste else ""), 9)
    for listing in history[:LAST_SHOWN]:
        out.text("         " + _line(listing, out.width - 9))
    if len(history) > LAST_SHOWN:
        out.text(f"         and {len(history) - LAST_SHOWN:,} before")
    out.text()
    for product in found.products:
        out.text(f"{product.rank:>2} {product.score:6.2f}  " + _line(product.listing, out.width - 11))
        if why := _why(product):
            out.words("           " + why, 0)
    settings = session.settings
    if named := settings.model.recommender_checkpoint:
        out.note(f"the first {settings.recommender.shortlist:,} of the retrieval are in the order of {named}")
    questions = found.retrieval.fused.weights.questions
    out.note(
        f"weights fitted on {questions:,} interactions of the validation part"
        if questions
        else "constant weights: the validation part has no interaction to fit them on"
    )


def _line(listing: GalleryListing, width: int) -> str:
    around = "  ".join(filter(None, (listing.brand, listing.price)))
    title = clipped(listing.title, max(20, width - len(listing.id) - len(around) - 4))
    return clipped("  ".join(filter(None, (listing.id, title, around))), width)
