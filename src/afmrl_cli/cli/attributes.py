"""`afmrl attributes`: a generator writes each product's attributes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..store.lock import writer_lock
from ..store.shards import Shard, parse_shard
from .flags import AddressOption, EngineOption, ShardOption, WorkersOption, setting
from .options import Session, engine_of, in_session, warn_of_plain_http

if TYPE_CHECKING:
    from ..attributes.export import ExportSummary
    from ..attributes.generate import AttributeSummary, Selection
    from ..catalog.problems import Problems
    from ..engine.ray_data import Engine
    from ..workspace import Workspace

EXAMPLES = 3
LEFT_OUT_KEYS = 8


Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N products that need work.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Only N random products, always the same ones.")]
Force = Annotated[bool, typer.Option("--force", help="Generate again for products that are done.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Generate again where the answer failed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what needs work; no model.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write all attributes to .csv, .jsonl or .parquet.")
]


@in_session(
    setting("attributes.batch_size"),
    setting("attributes.views", metavar="NAMES"),
    setting("attributes.agreement"),
    setting("attributes.min_confidence"),
    setting("attributes.language"),
    setting("attributes.endpoint", metavar="URL"),
    setting("attributes.endpoint_model", "--model", metavar="NAME"),
    setting("model.preset"),
    setting("model.generator", metavar="NAME"),
    roles=("generator",),
    writes=True,
)
def attributes(
    session: Session,
    limit: Limit = None,
    sample: Sample = None,
    force: Force = False,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
    out_file: Out = None,
    shard: ShardOption = None,
    engine: EngineOption = None,
    address: AddressOption = "",
    workers: WorkersOption = None,
) -> None:
    """Let a generator write each product's attributes; only new and changed products cost anything.

    Interrupted, the same command goes on where it was. The key for an endpoint is read from AFMRL_API_KEY.

    Example: afmrl attributes catalog.csv --sample 20; then afmrl attributes catalog.csv --out attributes.csv
    """
    part = parse_shard(shard) if shard else None
    if part and (limit or sample or dry_run or out_file):
        hint = "they are for one process"
        raise UsageError("--shard goes without --limit, --sample, --dry-run and --out", hint)
    one = {"limit": limit, "sample": sample, "dry_run": dry_run, "out": out_file}
    by = engine_of(engine, address, workers, shard=shard, **one)
    _check_flags(session, limit, sample)
    from ..attributes.generate import Selection

    selection = Selection(limit, force, retry_failed)
    if by:
        _generate_by(session, selection, by)
    elif dry_run:
        _plan(session, selection, sample)
    else:
        _generate(session, selection, sample, out_file, part)


def _plan(session: Session, selection: Selection, sample: int | None) -> None:
    from ..attributes.generate import count_needed
    from ..attributes.views import open_views
    from ..catalog.problems import Problems
    from ..engine.worker import described_views

    work, problems = session.work, Problems()
    with session.out, open_views(work, work.source) as stored:
        views = described_views(work, problems, stored, sample)
        total, needed = count_needed(views, stored, selection)
    problems.tell(session.out)
    needed = needed if selection.limit is None else min(needed, selection.limit)
    _show_plan(session, work.generator_id, views.products, total, needed)


@contextmanager
def _job(work: Workspace, shard: Shard | None) -> Iterator[Workspace]:
    """Hold the store's lock, or the shard's, and yield the workspace of the job."""
    if shard is None:
        with writer_lock(work.folder.store, "afmrl attributes"):
            yield work
        return
    from ..attributes.shards import in_shard

    with in_shard(work, shard) as part:
        yield part


def _generate(
    session: Session, selection: Selection, sample: int | None, out_file: Path | None, shard: Shard | None
) -> None:
    from ..attributes.export import check_export_path, export_attributes
    from ..attributes.generate import generate_attributes
    from ..attributes.views import open_views
    from ..catalog.problems import Problems
    from ..catalog.read import count_rows
    from ..engine.worker import chosen_products, described_views

    settings, folder, out = session.settings, session.folder, session.out
    if out_file and check_export_path(out_file, folder):
        out.note(f"{out_file}: is there already and will be replaced")
    source, problems, exported = session.work.source, Problems(), None
    plain = settings.attributes.views == ["listing"] and not selection.limit and not shard
    with out, _job(session.work, shard) as work, open_views(work, source) as stored:
        views = described_views(work, problems, stored, sample)
        total = (sample or count_rows(folder, settings.catalog)) if plain else None
        try:
            summary = generate_attributes(work, views, stored, problems, selection, total)
        finally:
            problems.tell(out)
        if out_file:
            exported = export_attributes(chosen_products(work, Problems(), sample), work.task, stored, out_file)
    del summary.examples[sample or EXAMPLES :]
    _show(session, views.products, summary, problems, exported)
    if shard:
        out.note(f"this was shard {shard}: `afmrl merge` joins the shards into the store")


def _generate_by(session: Session, selection: Selection, engine: Engine) -> None:
    from ..attributes.generate import AttributeSummary
    from ..attributes.shards import attribute_group, join_attributes
    from ..catalog.problems import Problems
    from ..engine.ray_data import run_shards
    from ..engine.worker import AttributeShard, Job

    work, began = session.work, time.monotonic()
    products, summary, problems = 0, AttributeSummary(), Problems()
    with session.out as out:
        job = Job("attributes", work.folder, work.settings, selection)
        for part in run_shards(job, work.generator_id, engine, out):
            assert isinstance(part, AttributeShard)
            products += part.products
            summary.add(part.summary)
            problems.join(part.problems)
        summary.request_seconds = time.monotonic() - began
        problems.tell(out)
        with writer_lock(work.folder.store, "afmrl merge", lend=True):
            group = attribute_group(work)
            assert group is not None
            join_attributes(work, group)
            group.remove()
    del summary.examples[EXAMPLES:]
    _show(session, products, summary, problems, None)


def _check_flags(session: Session, limit: int | None, sample: int | None) -> None:
    from ..attributes.views import check_view_names
    from .eval import PROTOCOLS

    settings = session.settings.attributes
    if "attributes.endpoint_model" in session.flags and not settings.endpoint:
        raise UsageError("--model is a name at an endpoint, and there is no endpoint", "give --endpoint or --generator")
    if limit and sample:
        raise UsageError("--limit and --sample exclude each other", "--limit takes the first, --sample any products")
    check_view_names(settings.views, PROTOCOLS)
    warn_of_plain_http(session, settings.endpoint)


def _show_plan(session: Session, generator: str, products: int, views: int, needed: int) -> None:
    document = {"generator": generator, "products": products, "views": views, "needed": needed}
    session.out.document("afmrl.attributes/1", document)
    columns, row = _counted(session, products, views)
    session.out.table([*columns, "need work", "generator"], [[*row, needed, generator]])


def _counted(session: Session, products: int, views: int) -> tuple[list[str], list[object]]:
    """Return the first columns of the summaries: views are shown where more than the listing is described."""
    if session.settings.attributes.views == ["listing"]:
        return ["products"], [products]
    return ["products", "views"], [products, views]


def _show(
    session: Session,
    products: int,
    summary: AttributeSummary,
    problems: Problems,
    exported: ExportSummary | None,
) -> None:
    from ..attributes.agreement import read_confidence

    out, generator = session.out, session.work.generator_id
    document: dict[str, Any] = {
        "generator": generator,
        "products": products,
        "views": summary.products,
        "generated": summary.generated,
        "skipped": summary.skipped,
        "valid": summary.valid,
        "valid_share": summary.valid_share,
        "failures": dict(summary.failures.most_common()),
        "problems": {str(kind): count for kind, count in problems.counts.items()},
        "products_per_second": summary.products_per_second,
        "left_out": dict(summary.left_out.most_common()),
        "examples": [
            {
                "id": product.id,
                "title": product.title,
                "attributes": row.text,
                "confidence": read_confidence(row) if row.confidence is not None else None,
            }
            for product, row in summary.examples
        ],
        "out": None,
    }
    if exported:
        document["out"] = {"path": exported.path, "rows": exported.rows, "missing": exported.missing}
        out.note(f"{exported.path}: {exported.rows:,} rows")
        if exported.missing:
            out.note(f"{exported.missing:,} products have no attributes yet and are not in it")
        if exported.keys_left_out:
            out.warn(f"{exported.keys_left_out:,} rare keys have no column: they stand in the column attributes only")
        if _looks_like_a_catalog(session, exported.path):
            out.note(f"two tables lie in {session.folder.root} now: name the catalog in catalog.path of afmrl.toml")
    out.document("afmrl.attributes/1", document)
    if summary.examples:
        out.table(["id", "title", "attributes"], [[p.id, p.title, row.text] for p, row in summary.examples])
    columns, row = _counted(session, products, summary.products)
    rate = f"{summary.products_per_second:.1f}" if summary.requests else "-"
    out.table(
        [*columns, "generated", "done before", "valid", f"{columns[-1]}/s", "generator"],
        [[*row, summary.generated, summary.skipped, f"{summary.valid_share:.1%}", rate, generator]],
    )
    if summary.left_out:
        least, keys = session.settings.attributes.min_confidence, summary.left_out.most_common()
        named = ", ".join(f"{key} {number:,}" for key, number in keys[:LEFT_OUT_KEYS])
        more = ", ..." if len(keys) > LEFT_OUT_KEYS else ""
        out.note(f"{summary.left_out.total():,} pairs below attributes.min_confidence = {least:g}: {named}{more}")
    if summary.failures:
        firsts = {kind: (product.id, text[:80]) for kind, (product, text) in summary.failed.items()}
        rows = [[kind, number, *firsts[kind]] for kind, number in summary.failures.most_common()]
        out.table(["failure", columns[-1], "first id", "answer"], rows)


def _looks_like_a_catalog(session: Session, path: Path) -> bool:
    """Check whether a command in this folder would not know any more which table is the catalog."""
    folder = session.folder
    chosen = folder.catalog.stem.lower() == "catalog" or session.settings.catalog.path
    return not chosen and path.resolve().parent == folder.root.resolve()
