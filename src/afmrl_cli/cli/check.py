"""`afmrl check`: what is in a catalog, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..catalog.check import MOST_CATEGORIES, CatalogSummary, check_catalog
from ..catalog.problems import MEND, WARNINGS, clipped
from ..catalog.read import no_products
from ..errors import CheckFailed
from ..store.folder import CatalogFolder
from .options import CatalogArgument, Json, Quiet, Set, Verbose, start
from .output import Output

EXAMPLES_SHOWN = 3
CATEGORIES_SHOWN = 3
COLUMNS_CHARS = 100
Images = Annotated[bool, typer.Option("--images/--no-images", help="Open every photo, or only see that it is there.")]
Format = Annotated[str | None, typer.Option(help="google, shopify, woocommerce, csv, ...; found from the content.")]


def check(
    catalog: CatalogArgument = None,
    images: Images = True,
    format: Format = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Show what is in a catalog and what is wrong with it, by row and column; exit 1 when something is lost.

    Nothing is written. With --no-images photos are not opened, which is much quicker.

    Example: afmrl check catalog.csv
    """
    session = start(
        catalog, json_mode=json_mode, quiet=quiet, verbose=verbose, set_=set_, flags={"catalog.format": format}
    )
    with session.out as out:
        summary = check_catalog(session.folder, session.settings.catalog, out, open_photos=images)
        if not summary.products and not summary.problems.errors:
            raise no_products(session.folder.catalog, summary.problems)
        out.document("afmrl.check/1", _document(session.folder, summary))
        _show_content(session.folder, summary, out)
        _show_problems(summary, out)
    if errors := summary.problems.errors:
        raise CheckFailed(f"{errors:,} problem{'s' if errors > 1 else ''}: rows or photos that can't be used")


def _document(folder: CatalogFolder, summary: CatalogSummary) -> dict[str, object]:
    problems = summary.problems
    return {
        "catalog": folder.catalog,
        "ok": not problems.errors,
        "products": summary.products,
        "photos": summary.photos,
        "photos_opened": summary.opened,
        "products_without_photo": summary.without_photo,
        "products_without_title_or_description": summary.without_text,
        "products_with_several_photos": summary.several_photos,
        "identities": summary.identities,
        "identities_with_several_listings": summary.shared_identities,
        "groups": summary.groups,
        "categories": dict(summary.categories.most_common()),
        "columns": summary.read_as(),
        "filled": dict(summary.filled),
        "given": summary.given(),
        "problems": [
            {
                "kind": kind,
                "severity": "warning" if kind in WARNINGS else "error",
                "count": count,
                "mend": MEND[kind],
                "first": [asdict(problem) for problem in problems.first(kind)],
            }
            for kind, count in problems.counts.items()
        ],
    }


def _show_content(folder: CatalogFolder, summary: CatalogSummary, out: Output) -> None:
    distinct = len(summary.categories)
    categories = f"{distinct:,}" + (" or more" if distinct >= MOST_CATEGORIES else "")
    if distinct:
        largest = summary.categories.most_common(CATEGORIES_SHOWN)
        categories += ", largest: " + ", ".join(f"{clipped(name, 40)} ({count:,})" for name, count in largest)
    shared = summary.shared_identities
    rows = [
        ("products", f"{summary.products:,}"),
        ("photos", f"{summary.photos:,}" + ("" if summary.opened or not summary.photos else " (not opened)")),
        ("  products without", f"{summary.without_photo:,}"),
        ("  with several", f"{summary.several_photos:,}"),
        ("no title or description", f"{summary.without_text:,}"),
        ("categories", categories),
        ("identities", f"{summary.identities:,}" + (f", {shared:,} with several listings" if shared else "")),
        ("groups of variants", f"{summary.groups:,}" if summary.groups else "none"),
    ]
    out.text(str(folder.catalog))
    out.text()
    for name, value in rows:
        out.text(f"{name:<25}{value}")
    out.text()
    for role, columns in summary.read_as().items():
        empty = "" if summary.filled[role] else " (no usable photo)" if role == "image" else " (empty)"
        out.text(f"{role:<25}{'column ' + ', '.join(columns) + empty if columns else '-'}")
    if given := summary.given():
        out.text(f"{'filters and labels':<25}{clipped(', '.join(given), COLUMNS_CHARS)} ({len(given)} in all)")
    out.text()


def _show_problems(summary: CatalogSummary, out: Output) -> None:
    problems = summary.problems
    if not problems.counts:
        out.text("no problems found")
    for kind, count in sorted(problems.counts.items(), key=lambda item: (item[0] in WARNINGS, -item[1])):
        out.text(f"{'warning' if kind in WARNINGS else 'error'}: {kind}: {count:,}")
        for problem in problems.first(kind)[:EXAMPLES_SHOWN]:
            out.text(f"    {problem.where}: {problem.message}" if problem.where else f"    {problem.message}")
        if count > EXAMPLES_SHOWN:
            out.text(f"    and {count - EXAMPLES_SHOWN:,} more")
        out.text(f"    mend: {MEND[kind]}")
