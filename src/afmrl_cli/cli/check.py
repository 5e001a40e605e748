"""`afmrl check`: what is in a catalog, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..catalog.check import MOST_CATEGORIES, CatalogSummary, check_catalog
from ..catalog.photo_check import Checked
from ..catalog.problems import MEND, WARNINGS, Problem, Problems, clipped
from ..catalog.read import no_products
from ..errors import AfmrlError, CheckFailed, DataError, UsageError
from ..escaping import write_csv
from ..store.files import writing
from ..store.folder import CatalogFolder, check_output
from ..store.shards import Shard, parse_shard
from ..store.written import PROBLEM_COLUMNS
from .flags import ShardOption, setting
from .options import Session, in_session
from .output import Output

EXAMPLES_SHOWN = 3
KINDS_WITH_EXAMPLES = 5
"""With more kinds of problems, one example of each: all must stand on one screen."""
ATTRIBUTES_SHOWN = 3
CATEGORIES_SHOWN = 3
REASONS_SHOWN = 5
COLUMNS_CHARS = 100
Images = Annotated[bool, typer.Option("--images/--no-images", help="Open every photo, or only see that it is there.")]

ProblemsFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.csv", help="Every problem as a line of a CSV file.")
]


@in_session(setting("catalog.format"), roles=("generator", "embedder"))
def check(session: Session, images: Images = True, out_file: ProblemsFile = None, shard: ShardOption = None) -> None:
    """Show what is in a catalog and what is wrong with it, by row and column; exit 1 when something is lost.

    Nothing is written but --out. With --no-images photos are not opened, which is much quicker.

    Example: afmrl check catalog.csv
    """
    part = parse_shard(shard) if shard else None
    if part and (out_file or not images):
        raise UsageError(
            "--shard goes without --out and --no-images", "a shard opens its photos; `afmrl merge` shows all"
        )
    if out_file:
        check_output(out_file, session.folder, "--out")
    if part:
        _check_shard(session, part)
        return
    with session.out as out:
        document, errors = check_and_show(session, images=images, out_file=out_file)
        out.document("afmrl.check/1", document)
    if errors:
        raise errors


def check_and_show(
    session: Session,
    *,
    images: bool = True,
    out_file: Path | None = None,
    known: Mapping[str, Checked] | None = None,
) -> tuple[dict[str, object], CheckFailed | None]:
    """Check the catalog, but photos that are `known`, and show what was found; return the document, and the failure
    where something is lost.
    """
    out = session.out
    with problems_file(out_file) if out_file else nullcontext(Problems()) as problems:
        summary = check_catalog(
            session.folder, session.settings.catalog, out, open_photos=images, problems=problems, known=known
        )
        _check_further(session, summary)
        interactions = _check_interactions(session, summary)
    if not summary.products and not summary.problems.errors:
        raise no_products(session.folder.catalog, summary.problems)
    _show_content(session.folder, summary, out)
    if interactions:
        out.words(f"{'interactions':<25}{_told(interactions)}", 25)
        out.text()
    _show_problems(summary, out)
    errors, what = summary.problems.errors, "rows, photos or settings that can't be used"
    failed = CheckFailed(f"{errors:,} problem{'s' if errors > 1 else ''}: {what}") if errors else None
    return _document(session.folder, summary) | {"interactions": interactions}, failed


def _check_shard(session: Session, shard: Shard) -> None:
    from ..catalog.check_shard import check_shard

    with session.out as out:
        summary = check_shard(session.folder, session.settings, shard, out)
    out.document("afmrl.check-shard/1", {"shard": str(shard), **asdict(summary)})
    out.text(
        f"shard {shard}: {summary.products:,} products, {summary.opened:,} photos opened, {summary.unreadable:,} "
        "can't be; `afmrl merge` shows what is in the catalog"
    )


@contextmanager
def problems_file(path: Path) -> Iterator[Problems]:
    """Collect problems and write them to `path`, a line each; the file appears when the block ends without an error."""
    with writing(path) as target, target.open("w", encoding="utf-8-sig", newline="") as file:
        write_csv(file, [PROBLEM_COLUMNS])

        def write(problem: Problem) -> None:
            """Write `problem` as a line."""
            fields = (
                problem.column,
                problem.listing,
                problem.severity,
                problem.kind,
                problem.message,
                MEND[problem.kind],
            )
            write_csv(file, [[problem.row or "", *fields]])

        yield Problems(every=write)


def _check_further(session: Session, summary: CatalogSummary) -> None:
    """Add what lets a later command fail though every row can be read."""
    from ..attributes.task import load_task

    if summary.products and not _signals(summary):
        summary.problems.add(Problem("nothing to train on", 0, "no two views of one product"))
    try:
        load_task(session.settings.attributes, session.folder.root)
    except AfmrlError as error:
        summary.problems.add(Problem("bad settings", 0, str(error)))


def _check_interactions(session: Session, summary: CatalogSummary) -> dict[str, Any] | None:
    """Count the interactions beside the catalog; None where there are none. Nothing is stored."""
    from ..recommend.run import check_interactions, summary_of

    try:
        read = check_interactions(session.work) if summary.products else None
    except (DataError, UsageError) as error:
        summary.problems.add(Problem("bad interactions", 0, ": ".join(filter(None, (str(error), error.hint)))))
        return None
    if read is None:
        return None
    left_out = {reason: found["count"] for reason, found in read.counted["left_out"].items()}
    if left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in list(left_out.items())[:REASONS_SHOWN])
        summary.problems.add(Problem("interactions left out", 0, f"{sum(left_out.values()):,} rows: {reasons}"))
    files = [file["file"] for file in read.counted["files"]]
    return {"files": files, **summary_of(read.interactions, read.counted), "left_out": left_out}


def _told(interactions: dict[str, Any]) -> str:
    history, files = interactions["history"], ", ".join(interactions["files"])
    who = f"{interactions['customers']:,} customers with {interactions['items']:,} products"
    span = f"{interactions['first'][:10]} to {interactions['last'][:10]}"
    lengths = f"history median {history['median']:g}, most {history['most']:,}"
    shares = f"{interactions['known_items']:.0%} of items known; {interactions['share_of_repeats']:.0%} repeats"
    return f"{files}: {interactions['interactions']:,} of {who}, {span}; {lengths}; {shares}"


def _signals(summary: CatalogSummary) -> list[tuple[int, str]]:
    """Count what training can learn from: see training/pairs.py."""
    found = [
        (summary.shared_identities, "identities with several listings"),
        (summary.several_photos, "listings with several photos"),
        (summary.text_and_photo, "with text and photo"),
    ]
    return [(count, what) for count, what in found if count]


def _pairs(summary: CatalogSummary) -> str:
    return ", ".join(f"{count:,} {what}" for count, what in _signals(summary)) or "none"


def _filled(summary: CatalogSummary) -> str:
    """Say how complete the retailer's own attributes are: columns, and names that stand in the rows (options)."""
    shares = {key: 0.0 for key in summary.given()}
    shares.update({key: count / max(1, summary.products) for key, count in summary.attributes.items()})
    half = sum(share >= 0.5 for share in shares.values())
    least = sorted(shares.items(), key=lambda item: item[1])[:ATTRIBUTES_SHOWN]
    named = ", ".join(f"{clipped(key, 24)} {share:.0%}" for key, share in least if share < 1)
    return f"{half} of {len(shares)} in at least half of the products" + (f"; least: {named}" if named else "")


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
        "groups_with_several_listings": summary.shared_groups,
        "layout": summary.layout,
        "languages": summary.languages,
        "categories": dict(summary.categories.most_common()),
        "columns": summary.read_as(),
        "filled": dict(summary.filled),
        "given": summary.given(),
        "attributes": dict(summary.attributes.most_common()),
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
    unfetched = summary.problems.counts.get("image url", 0)
    links = f", {unfetched:,} links not fetched" if unfetched else ""
    rows = [
        ("products", f"{summary.products:,}"),
        ("photos", f"{summary.photos:,}" + ("" if summary.opened or not summary.photos else " (not opened)") + links),
        ("  products without", f"{summary.without_photo:,}"),
        ("  with several", f"{summary.several_photos:,}"),
        ("no title or description", f"{summary.without_text:,}"),
        ("languages", ", ".join(f"{name} {share:.0%}" for name, share in summary.languages.items()) or "not clear"),
        ("categories", categories),
        ("identities", f"{summary.identities:,}" + (f", {shared:,} with several listings" if shared else "")),
        (
            "groups of variants",
            f"{summary.groups:,}, {summary.shared_groups:,} with several" if summary.groups else "none",
        ),
        ("pairs for training", _pairs(summary)),
    ]
    layout = f"  (read as {summary.layout.capitalize()} export)" if summary.layout else ""
    out.text(f"{folder.catalog}{layout}")
    out.text()
    for name, value in rows:
        out.words(f"{name:<25}{value}", 25 - (len(name) - len(name.lstrip())))
    out.text()
    for role, columns in summary.read_as().items():
        empty = "" if summary.filled[role] else " (no usable photo)" if role == "image" else " (empty)"
        out.words(f"{role:<25}{'column ' + ', '.join(columns) + empty if columns else '-'}", 25)
    if given := summary.given():
        out.words(f"{'filters and labels':<25}{clipped(', '.join(given), COLUMNS_CHARS)} ({len(given)} in all)", 25)
    if summary.attributes:
        out.words(f"{'  filled':<25}{_filled(summary)}", 23)
    out.text()


def _show_problems(summary: CatalogSummary, out: Output) -> None:
    problems = summary.problems
    if not problems.counts:
        out.text("no problems found")
    shown = EXAMPLES_SHOWN if len(problems.counts) <= KINDS_WITH_EXAMPLES else 1
    for kind, count in sorted(problems.counts.items(), key=lambda item: (item[0] in WARNINGS, -item[1])):
        out.text(f"{'warning' if kind in WARNINGS else 'error'}: {kind}: {count:,}")
        for problem in problems.first(kind)[:shown]:
            out.words(f"    {problem.where}: {problem.message}" if problem.where else f"    {problem.message}")
        if count > shown:
            out.text(f"    and {count - shown:,} more")
        out.words(f"    mend: {MEND[kind]}")
