"""`afmrl search`: products by text, photo, both, or likeness to a listing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, UsageError
from .flags import setting
from .options import Session, check_page, in_session, tell_embedder, warn_of_two_faiss
from .output import Output, clipped

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..models.embed_input import Item
    from ..retrieval.composed import Change
    from ..retrieval.search import Found, Hit


@in_session(setting("search.k", "-k"), setting("search.rerank"), catalog="option")
def search(
    session: Session,
    text: Annotated[str, typer.Argument(help="The query, in words.", show_default=False)] = "",
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", metavar="FILE", help="A photo. Repeatable.")
    ] = None,
    like: Annotated[str, typer.Option(metavar="ID", help="Products like this listing; alone it loads no model.")] = "",
    change: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What differs from --image or --like: 'color: red', or words."),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option("--filter", "-f", metavar="KEY=VALUE", help="Only listings with this value. Repeatable."),
    ] = None,
    enrich: Annotated[
        bool, typer.Option("--enrich", help="Let the generator write attributes for the query first.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures that needs no network.")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="One table with every column, however wide.")] = False,
) -> None:
    """Find products by text, by photo, by both together, by likeness to a listing, or as a change of either.

    Two lines a result, as wide as the terminal; matching attributes are marked with *. Filters: values of one key are
    alternatives, different keys must all hold, a category matches by its beginning. With --change the reference is
    never a result; + and - mark whether a result has what is wished.

    Example: afmrl search "navy v-neck blouse" -k 5 --filter brand=Luma --html results.html

    Example: afmrl search --image photo.jpg --change "color: red"
    """
    tell_embedder(session, *(("generator",) if enrich else ()))
    wish = _checked_change(session, change, text, image or [], like, enrich)
    _check(session, text, image or [], like, enrich, html)

    warn_of_two_faiss(session)
    found = _find(session, wish or text.strip(), image or [], like, enrich, filter_ or [])
    if html:
        from ..retrieval.page import write_search_page

        write_search_page(html, found, session.work)
    _document(session, found, html)
    _show(session.out, found, image or [], wide)
    if html:
        session.out.text(f"page: {html}")


def _check(session: Session, text: str, image: list[Path], like: str, enrich: bool, html: Path | None) -> None:
    """Refuse what can be refused before anything is read."""
    if like and (text.strip() or image or enrich):
        raise UsageError("--like stands alone", "it asks with the listing's stored vector; leave out the rest")
    if not like and not text.strip() and not image:
        raise UsageError("nothing to search for", 'give a text, --image or --like, as in: afmrl search "red shirt"')
    if text.strip() or enrich:
        from ..models.backends import photos_alone, reads_text

        if not reads_text(session.settings):
            raise photos_alone(session.settings, "the query's words" if text.strip() else "--enrich")
    if html:
        check_page(html, session.folder)


def _checked_change(
    session: Session, change: str | None, text: str, image: list[Path], like: str, enrich: bool
) -> Change | None:
    """Read --change, None where it was not given; refuse what it can't stand beside."""
    if change is None:
        return None
    from ..retrieval.composed import check_embedder, read_change

    wish = read_change(" ".join(change.split()))
    if not wish.text:
        raise UsageError("--change: says nothing", "such as --change 'color: red' or --change 'with longer sleeves'")
    if bool(image) == bool(like):
        raise UsageError("--change needs one reference", "give either --image FILE or --like ID")
    if text.strip():
        raise UsageError("--change is the text of its query", "put all words into --change")
    if enrich and not wish.pairs:
        raise UsageError(
            "--enrich describes the reference, which --change in words does not edit",
            "write the change as 'key: value', or leave --enrich out",
        )
    if session.settings.search.rerank:
        raise UsageError(
            "--rerank: --change asks for another product than its reference",
            "a reranker tells whether two listings are one product: leave it out, or --rerank 0",
        )
    check_embedder(session.work)
    return wish


def _find(
    session: Session, said: str | Change, files: list[Path], like: str, enrich: bool, filters: list[str]
) -> Found:
    """Search for what was `said`: a text, or a change of what `files` or `like` show."""
    from ..retrieval.encode import cut_message
    from ..retrieval.filters import parse_filters
    from ..retrieval.search import search as find
    from ..retrieval.vectors import load_vectors, stale_products

    work, chosen, composed = session.work, parse_filters(filters, "--filter"), None
    vectors = load_vectors(work)
    if stale := stale_products(work, vectors):
        session.out.note(f"{stale:,} products are new, changed or gone since `afmrl embed`: run it again")
    if isinstance(said, str):
        query = _query(session, said, files, enrich)
    else:
        from ..retrieval.composed import compose

        written = _query(session, "", files, enrich).attributes if enrich else ""
        composed = compose(work, vectors, said, like=like, photos=files, written=written)
        query = composed.query
    found = find(work, vectors, query, like, chosen, composed)
    if (composed or not like) and (cut := work.embedder().texts_cut):
        session.out.warn(f"the query: {cut_message(cut)}")
    return replace(found, filters=filters)


def _document(session: Session, found: Found, html: Path | None) -> None:
    from ..retrieval.search import fields_shown

    query = found.query
    shown = {
        "text": query.text,
        "images": len(query.images),
        "like": found.liked.id if found.liked else "",
        "liked": fields_shown([found.liked])[0] if found.liked else None,
        "attributes": query.attributes,
        "filters": found.filters,
        "change": {"text": found.change.text, "pairs": found.change.pairs} if found.change else None,
        "left_out": found.left_out,
    }
    # "question" is the key that afmrl.search/1 was published with.
    content = {"catalog": session.folder.catalog, "embedder": session.work.embedder_id, "question": shown}
    content |= {"hits": fields_shown(found.hits), "reranked": found.reranked, "html": html}
    session.out.document("afmrl.search/1", content)


def _query(session: Session, text: str, files: Sequence[Path], enrich: bool) -> Item:
    from ..catalog.images import open_image
    from ..models.embed_input import Item

    images = tuple(open_image(file, session.settings.catalog) for file in files)
    return Item(text, images, _written_attributes(session, text, images) if enrich else "")


def _written_attributes(session: Session, text: str, images: Sequence[Image]) -> str:
    """Let the generator write attributes for the query; DataError when it gives no answer, a note when it is not
    valid.
    """
    from ..attributes.agreement import read_together, requests_of, surest
    from ..catalog.product import Product

    product, settings = Product("query", title=text), session.settings.attributes
    limit = session.settings.model.generator_images or len(images)
    request = session.work.task.request(product, images[:limit])
    answers = session.work.generator().generate(requests_of(request, settings.agreement))
    if error := next((answer.error for answer in answers if answer.error), None):
        raise DataError(f"--enrich: the generator gave no answer: {error}", "search without --enrich")
    reading = read_together(answers, product, session.work.task)
    if reading.text is None:
        said = answers[0].text[:120]
        session.out.note(f"--enrich: the generator's answer is not used ({reading.failure}): {said!r}")
        return ""
    least = settings.min_confidence
    return surest(reading.text, reading.confidence or {}, least) if least else reading.text


def _show(out: Output, found: Found, photos: Sequence[Path], wide: bool) -> None:
    like, hits = found.liked, found.hits
    if found.query.attributes:
        out.note(f"attributes of the query: {found.query.attributes}")
    if like:
        out.text("like " + "\n     ".join(_lines(like, out.width - 5)))
    elif found.change:
        out.text("like " + ", ".join(image.name for image in photos))
    if found.change:
        out.text(f"but  {found.change.text}")
    if like or found.change:
        out.text()
    if not hits:
        out.text("nothing found")
    elif wide:
        columns = ["", "score", "id", "title", "brand", "price", "attributes", "words in common", "link"]
        cells = ((h.brand, h.price, _attributes(h), ", ".join(h.words), h.link) for h in hits)
        heads = ((h.rank, round(h.score, 4), h.id, "  ".join(filter(None, (h.title, _verdict(h))))) for h in hits)
        out.table(columns, [(*head, *rest) for head, rest in zip(heads, cells, strict=True)])
    else:
        for hit in hits:
            out.text(f"{hit.rank:>2} {hit.score:6.3f}  " + "\n           ".join(_lines(hit, out.width - 11)))


def _lines(hit: Hit, width: int) -> list[str]:
    """Return what is shown of a listing, each line no longer than `width`: what it is, its attributes, its link."""
    around = [hit.id, *(part for part in (hit.brand, hit.price, _verdict(hit)) if part)]
    title = clipped(hit.title, max(20, width - len("  ".join(around)) - 2))
    lines = ["  ".join(part for part in (hit.id, title, *around[1:]) if part)]
    if hit.attributes:
        lines.append(clipped(_attributes(hit), width))
    return [*lines, hit.link] if hit.link else lines


def _verdict(hit: Hit) -> str:
    return "" if hit.same is None else f"same {hit.same:.2f}"


def _attributes(hit: Hit) -> str:
    from ..attributes.parse import write_attributes

    marks = {key: "*" for key in hit.matching} | {key: "+" if right else "-" for key, right in hit.changed.items()}
    # What changes stands first: the line may be cut.
    pairs = sorted(hit.attributes.items(), key=lambda pair: pair[0] not in hit.changed)
    return write_attributes((f"{marks.get(key, '')}{key}", value) for key, value in pairs)
