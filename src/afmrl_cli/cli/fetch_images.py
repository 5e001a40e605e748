"""`afmrl fetch-images`: the photos that a catalog links to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..store.lock import writer_lock
from .options import CatalogArgument, Json, Quiet, Set, Verbose, start

Private = Annotated[
    bool | None, typer.Option("--private/--no-private", help="Allow links into private networks and to this machine.")
]


def fetch_images(
    catalog: CatalogArgument = None,
    private: Private = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Fetch the photos that the catalog links to into .afmrl/images; all other commands then find them there.

    Nothing else downloads photos. Run again, it fetches what is new or failed before.

    Example: afmrl fetch-images my-shop
    """
    session = start(
        catalog,
        json_mode=json_mode,
        quiet=quiet,
        verbose=verbose,
        set_=set_,
        flags={"catalog.fetch_private": private},
    )
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
