"""`afmrl fetch-images`: the photos that a catalog links to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import DataError
from ..store.lock import writer_lock
from ..store.shards import Shard, complete_group, facts_of, open_shard, parse_shard, shards_there
from .flags import ShardOption, setting
from .options import Session, in_session

if TYPE_CHECKING:
    from ..store.shards import Group

COMMAND = "fetch-images"


@in_session(setting("catalog.fetch_private", "--private/--no-private"))
def fetch_images(session: Session, shard: ShardOption = None) -> None:
    """Fetch the photos that the catalog links to into .afmrl/images; all other commands then find them there.

    Nothing else downloads photos. Run again, it fetches what is new or failed before.

    Example: afmrl fetch-images my-shop
    """
    from ..catalog.fetch import fetch_images, nothing_fetched
    from ..catalog.problems import Problems

    if shard:
        _fetch_shard(session, parse_shard(shard))
        return
    problems = Problems()
    with session.out as out, writer_lock(session.folder.store, "afmrl fetch-images"):
        summary = fetch_images(session.folder, session.settings.catalog, problems, out)
        if summary.failed and not summary.fetched + summary.there:
            raise nothing_fetched(session.folder, problems)
        out.document(
            "afmrl.fetch-images/1",
            {**asdict(summary), "first_failures": [asdict(found) for found in problems.first("failed download")]},
        )
        show_fetched(session, asdict(summary))
        problems.tell(out)


def _fetch_shard(session: Session, shard: Shard) -> None:
    """Fetch the links whose hash says so: products share photos, and none is to be fetched twice."""
    from ..catalog.fetch import fetch_images
    from ..catalog.problems import Problems

    problems, folder, settings = Problems(), session.folder, session.settings
    with session.out as out:
        with open_shard(folder, COMMAND, "", shard, facts_of(folder, settings)) as part:
            summary = fetch_images(folder, settings.catalog, problems, out, shard)
            part.result.update(asdict(summary))
        out.document("afmrl.fetch-images-shard/1", {"shard": str(shard), **asdict(summary)})
        show_fetched(session, asdict(summary))
        problems.tell(out)


def fetch_group(session: Session) -> Group | None:
    """Return the complete shards of downloads, None where there are none. Raises as `complete_group` does."""
    if not shards_there(session.folder, COMMAND):
        return None
    return complete_group(session.folder, COMMAND, "", facts_of(session.folder, session.settings))


def join_fetched(session: Session, group: Group) -> dict[str, int]:
    """Show what all shards have fetched, and return it; the photos are in their place already. DataError when not one
    link led to a photo.
    """
    results = group.results()
    counts = {name: sum(result[name] for result in results) for name in ("fetched", "there", "failed", "bytes")}
    if counts["failed"] and not counts["fetched"] + counts["there"]:
        raise DataError(f"{session.folder.catalog}: no link led to a photo", "see that they work")
    show_fetched(session, counts)
    return counts


def show_fetched(session: Session, counts: dict[str, int]) -> None:
    """Show what was fetched."""
    session.out.text(
        f"{counts['fetched']:,} photos fetched ({counts['bytes'] / 1e6:,.1f} MB), {counts['there']:,} were there, "
        f"{counts['failed']:,} failed"
    )
