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
    from ..retrieval.hits import Hit
    from ..retrieval.search import Found, Query, Searcher


@in_session(
    setting("search.k", "-k"),
    setting("search.hybrid"),
    setting("search.collapse"),
    setting("search.rerank"),
    catalog="option",
)
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
        typer.Option("--filter", "-f", metavar="KEY=VALUE", help="Only such listings; KEY<NUMBER, too. Repeatable."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="WISH", help="No listings with this: 'key: value', or words. Repeatable."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option("--queries", metavar="FILE", help="Many queries, one a line; JSON lines in return.")
    ] = None,
    enrich: Annotated[
        bool, typer.Option("--enrich", help="Let the generator write attributes for the query first.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures that needs no network.")
    ] = None,
    index: Annotated[
        str, typer.Option(metavar="PLACE", help="Search there instead, a folder or server of `afmrl index push`.")
    ] = "",
    wide: Annotated[bool, typer.Option("--wide", help="One table with every column, however wide.")] = False,
) -> None:
    """Find products by text, by photo, by both together, by likeness to a listing, or as a change of either.

    Two lines a result, as wide as the terminal; matching attributes are marked with *. Filters: values of one key are
    alternatives, different keys and all bounds must hold, a category matches by its beginning. With --change the
    reference is never a result; + and - mark whether a result has what is wished.

    Example: afmrl search "navy v-neck blouse" -k 5 --filter brand=Luma --html results.html

    Example: afmrl search "dress" --filter "price<100" --not "pattern: floral" --collapse style

    Example: afmrl search --image photo.jpg --change "color: red"
    """
    from ..retrieval.search import Query

    tell_embedder(session, *(("generator",) if enrich else ()))
    query = Query(text, tuple(image or ()), "", like, change, tuple(filter_ or ()), tuple(without or ()))
    if queries:
        _batch(session, query, queries, alone=not (enrich or html or wide or index))
        return
    _check(session, query, enrich, html)

    if not index:
        warn_of_two_faiss(session)
    found = _find(session, query, enrich, index)
    if html:
        from ..retrieval.page import write_search_page

        write_search_page(html, found, session.work)
    _document(session, found, html, index)
    _show(session.out, found, image or [], wide)
    if html:
        session.out.text(f"page: {html}")


def _check(session: Session, query: Query, enrich: bool, html: Path | None) -> None:
    """Refuse what can be refused before anything is read."""
    from ..listener import Notes
    from ..models.backends import photos_alone, reads_text
    from ..retrieval.composed import check_embedder, read_change

    query.check(session.settings)
    if enrich and not reads_text(session.settings):
        raise photos_alone(session.settings, "--enrich")
    if query.change is not None:  # before vectors are opened: of such an embedder there may be none
        check_embedder(session.work.telling(Notes(), session.settings))
    if query.like and enrich:
        raise UsageError("--like stands alone", "it searches by the listing's stored vector; leave out the rest")
    if enrich and query.change is not None and not read_change(query.change).pairs:
        raise UsageError(
            "--enrich describes the reference, which --change in words does not edit",
            "write the change as 'key: value', or leave --enrich out",
        )
    if html:
        check_page(html, session.folder)


def _find(session: Session, query: Query, enrich: bool, index: str) -> Found:
    found = _in_index(session, query, enrich, index) if index else _in_store(session, query, enrich)
    for warning in found.warnings:
        session.out.warn(warning)
    for note in found.notes:
        session.out.note(note)
    return found


def _in_store(session: Session, query: Query, enrich: bool) -> Found:
    from ..retrieval.search import open_search

    searcher = open_search(session.work)
    _tell_stale(session, searcher)
    return searcher.search(_enriched(session, query) if enrich else query)


def _in_index(session: Session, query: Query, enrich: bool, index: str) -> Found:
    from ..index.place import open_engine
    from ..index.search import IndexSearcher
    from .index import warn_of_plain_key

    warn_of_plain_key(session, index)
    searcher = IndexSearcher(session.work, lambda: open_engine(index, "afmrl search", session.folder.root))
    if enrich:
        searcher.check(query)  # before a generator is loaded
        query = _enriched(session, query)
    return searcher.search(query)


def _enriched(session: Session, query: Query) -> Query:
    return replace(query, attributes=_written_attributes(session, query))


def _batch(session: Session, query: Query, file: Path, *, alone: bool) -> None:
    """Answer the queries of a file, a JSON document a line. DataError, at the end, when some can't be."""
    from ..retrieval.batch import answer_batch, read_batch
    from ..retrieval.document import SCHEMA, found_document
    from ..retrieval.search import Query, open_search

    if query != Query() or not alone:
        raise UsageError("--queries stands alone", "what a query wants stands in its line; -k and settings go for all")
    warn_of_two_faiss(session)
    lines = read_batch(file, session.settings.catalog)
    searcher, failed = open_search(session.work), 0
    _tell_stale(session, searcher)
    catalog, embedder = str(session.folder.catalog), session.work.embedder_id
    with session.out:
        for each in answer_batch(searcher, lines, lambda done, of: session.out.progress("queries", done, of)):
            content: dict[str, object] = {"qid": each.id}
            if each.found is not None:
                content |= found_document(each.found, catalog, embedder)
            elif each.error is not None:
                failed += 1
                content |= {"error": {"message": str(each.error), "hint": each.error.hint}}
            session.out.line(SCHEMA, content)
    if failed:
        raise DataError(f"{file}: {failed:,} of {len(lines):,} queries have no answer", "their lines say why")


def _tell_stale(session: Session, searcher: Searcher) -> None:
    if stale := searcher.stale():
        session.out.note(f"{stale:,} products are new, changed or gone since `afmrl embed`: run it again")


def _document(session: Session, found: Found, html: Path | None, index: str) -> None:
    from ..retrieval.document import SCHEMA, found_document

    content = found_document(found, str(session.folder.catalog), session.work.embedder_id)
    session.out.document(SCHEMA, content | {"html": html, "index": index or None})


def _written_attributes(session: Session, query: Query) -> str:
    """Let the generator write attributes for the query, or for the reference of its change; DataError when it gives no
    answer, a note when it is not valid.
    """
    from ..attributes.agreement import read_together, requests_of, surest
    from ..catalog.images import open_image
    from ..catalog.product import Product

    text = "" if query.change is not None else query.text.strip()
    images = [open_image(photo, session.settings.catalog) for photo in query.photos if isinstance(photo, Path)]
    product, settings = Product("query", title=text), session.settings.attributes
    limit = session.settings.model.generator_images or len(images)
    request = session.work.task.request(product, images[:limit])
    answers = session.work.generator().generate(requests_of(request, settings.agreement))
    if error := next((answer.error for answer in answers if answer.error), None):
        raise DataError(f"--enrich: the generator gave no answer: {error}", "search without --enrich")
    reading = read_together(answers, product, session.work.task)
    if reading.text is None:
        text = answers[0].text[:120]
        session.out.note(f"--enrich: the generator's answer is not used ({reading.failure}): {text!r}")
        return ""
    least = settings.min_confidence
    return surest(reading.text, reading.confidence or {}, least) if least else reading.text


def _show(out: Output, found: Found, photos: Sequence[Path], wide: bool) -> None:
    like, hits = found.liked, found.hits
    if found.weights:
        shares = ", ".join(f"{part} {weight:g}" for part, weight in found.weights.items() if weight)
        out.note(f"ranked by {shares} ({found.tuned})")
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
        columns = ["", "score", "id", "title", "brand", "price", "attributes", "words in common", "score by", "link"]
        cells = ((h.brand, h.price, _attributes(h), ", ".join(h.words), _shares(h), h.link) for h in hits)
        titles = ["  ".join(filter(None, (h.title, _verdict(h), _others(h)))) for h in hits]
        heads = ((h.rank, round(h.score, 4), h.id, title) for h, title in zip(hits, titles, strict=True))
        out.table(columns, [(*head, *rest) for head, rest in zip(heads, cells, strict=True)])
    else:
        for hit in hits:
            out.text(f"{hit.rank:>2} {hit.score:6.3f}  " + "\n           ".join(_lines(hit, out.width - 11)))


def _lines(hit: Hit, width: int) -> list[str]:
    """Return what is shown of a listing, each line no longer than `width`: what it is, its attributes, its link."""
    around = [hit.id, *(part for part in (hit.brand, hit.price, _verdict(hit), _others(hit)) if part)]
    title = clipped(hit.title, max(20, width - len("  ".join(around)) - 2))
    lines = ["  ".join(part for part in (hit.id, title, *around[1:]) if part)]
    if hit.attributes:
        lines.append(clipped(_attributes(hit), width))
    return [*lines, hit.link] if hit.link else lines


def _verdict(hit: Hit) -> str:
    return "" if hit.same is None else f"same {hit.same:.2f}"


def _others(hit: Hit) -> str:
    return f"+{hit.others:,} more" if hit.others else ""


def _shares(hit: Hit) -> str:
    return ", ".join(f"{part} {share:.2f}" for part, share in hit.shares.items() if share >= 0.005)


def _attributes(hit: Hit) -> str:
    from ..attributes.parse import write_attributes

    marks = {key: "*" for key in hit.matching} | {key: "+" if right else "-" for key, right in hit.changed.items()}
    # What changes stands first: the line may be cut.
    pairs = sorted(hit.attributes.items(), key=lambda pair: pair[0] not in hit.changed)
    return write_attributes((f"{marks.get(key, '')}{key}", value) for key, value in pairs)
