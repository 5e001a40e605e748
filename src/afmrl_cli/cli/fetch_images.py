"""`afmrl fetch-images`: the photos that a catalog links to."""

from __future__ import annotations

from dataclasses import asdict

from ..store.lock import writer_lock
from .flags import setting
from .options import Session, in_session


@in_session(setting("catalog.fetch_private", "--private/--no-private"))
def fetch_images(session: Session) -> None:
    """Fetch the photos that the catalog links to into .afmrl/images; all other commands then find them there.

    Nothing else downloads photos. Run again, it fetches what is new or failed before.

    Example: afmrl fetch-images my-shop
    """
    from ..catalog.fetch import fetch_images, nothing_fetched
    from ..catalog.problems import Problems

    problems = Problems()
    with session.out as out, writer_lock(session.folder.store, "afmrl fetch-images"):
        summary = fetch_images(session.folder, session.settings.catalog, problems, out)
        if summary.failed and not summary.fetched + summary.there:
            raise nothing_fetched(session.folder, problems)
        out.document(
            "afmrl.fetch-images/1",
            {**asdict(summary), "first_failures": [asdict(found) for found in problems.first("failed download")]},
        )
        out.text(
            f"{summary.fetched:,} photos fetched ({summary.bytes / 1e6:,.1f} MB), {summary.there:,} were there, "
            f"{summary.failed:,} failed"
        )
        problems.tell(out)
