"""`afmrl attributes`: a generator writes each product's attributes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start

if TYPE_CHECKING:
    from ..attributes.export import ExportSummary
    from ..attributes.generate import AttributeSummary
    from ..catalog.problems import Problems
    from ..catalog.product import Product

EXAMPLES, MAX_EXAMPLES = 3, 20


def attributes(
    catalog: CatalogArgument = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N products that need work.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only N random products, always the same ones.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Ask again about products that are done.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again where the answer failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what needs work; no model.")] = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write all attributes to .csv, .jsonl or .parquet.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Products at a time.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="Models: nano, paper or qwen3.", show_default=False)] = None,
    generator: Annotated[str | None, typer.Option(help="Hub name or folder of a Qwen-VL.", show_default=False)] = None,
    language: Annotated[str | None, typer.Option(help="Of keys and values.", show_default=False)] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible server instead of a local model.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name at the endpoint.")] = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Let a generator write each product's attributes; only new and changed products cost anything.

    Interrupted, the same command goes on where it was. The key for an endpoint is read from AFMRL_API_KEY.

    Example: afmrl attributes catalog.csv --sample 20; then afmrl attributes catalog.csv --out attributes.csv
    """
    flags = {
        "attributes.batch_size": batch_size,
        "attributes.language": language,
        "attributes.endpoint": endpoint,
        "attributes.endpoint_model": model,
        "model.preset": preset,
        "model.generator": generator,
    }
    session = start(catalog, json_mode=json_mode, quiet=quiet, verbose=verbose, set_=set_, flags=flags)
    _check_flags(session, model, limit, sample)

    from ..attributes.export import check_export_path, export_attributes
    from ..attributes.generate import count_needed, generate_attributes, sample_products
    from ..attributes.task import load_task
    from ..catalog.fingerprints import Fingerprinter
    from ..catalog.problems import Problems
    from ..catalog.read import count_rows, read_products
    from ..models.backends import generator_id, load_backend
    from ..store.checkpoints import Checkpoints
    from ..store.database import Database
    from ..store.lock import writer_lock

    settings, folder, out = session.settings, session.folder, session.out
    if out_file and check_export_path(out_file, folder):
        out.note(f"{out_file}: is there already and will be replaced")
    task = load_task(settings.attributes, folder.root)
    checkpoints = Checkpoints(folder.checkpoints)
    name = generator_id(settings, checkpoints, out)
    lock = contextlib.nullcontext() if dry_run else writer_lock(folder.store, "afmrl attributes")
    problems = Problems()
    with out, lock, Database(folder.database) as database, Fingerprinter(database) as fingerprinter:

        def products(found: Problems) -> Iterable[Product]:
            stream = read_products(folder, settings.catalog, found)
            return sample_products(stream, sample, settings.attributes.seed) if sample else stream

        if dry_run:
            total, needed = count_needed(
                products(problems), task, name, database, fingerprinter, force=force, retry_failed=retry_failed
            )
            problems.tell(out)
            _show_plan(session, name, total, needed if limit is None else min(needed, limit))
            return
        try:
            summary = generate_attributes(
                products(problems),
                task,
                name,
                lambda: load_backend(settings, checkpoints, listener=out),
                database,
                fingerprinter,
                settings,
                problems,
                out,
                force=force,
                retry_failed=retry_failed,
                limit=limit,
                total=sample or (None if limit else count_rows(folder, settings.catalog)),
                examples=min(sample, MAX_EXAMPLES) if sample else EXAMPLES,
            )
        finally:
            problems.tell(out)
        exported = None
        if out_file:
            exported = export_attributes(products(Problems()), task, name, database, fingerprinter, out_file)
    _show(session, name, summary, problems, exported)


def _check_flags(session: Session, model: str | None, limit: int | None, sample: int | None) -> None:
    settings = session.settings.attributes
    if model and not settings.endpoint:
        raise UsageError("--model is a name at an endpoint, and there is no endpoint", "give --endpoint or --generator")
    if limit and sample:
        raise UsageError("--limit and --sample exclude each other", "--limit takes the first, --sample any products")
    address = settings.endpoint
    local = any(f"//{host}" in address for host in ("localhost", "127.", "[::1]"))
    if address.startswith("http:") and not local and os.environ.get("AFMRL_API_KEY"):
        session.out.warn("the key in AFMRL_API_KEY goes over plain http to another machine: use https where you can")


def _show_plan(session: Session, generator: str, total: int, needed: int) -> None:
    session.out.document("afmrl.attributes/1", {"generator": generator, "products": total, "needed": needed})
    session.out.table(["products", "need work", "generator"], [[total, needed, generator]])


def _show(
    session: Session,
    generator: str,
    summary: AttributeSummary,
    problems: Problems,
    exported: ExportSummary | None,
) -> None:
    out = session.out
    document: dict[str, Any] = {
        "generator": generator,
        "products": summary.products,
        "generated": summary.generated,
        "skipped": summary.skipped,
        "valid": summary.valid,
        "valid_share": summary.valid_share,
        "failures": dict(summary.failures.most_common()),
        "problems": {str(kind): count for kind, count in problems.counts.items()},
        "products_per_second": summary.products_per_second,
        "examples": [
            {"id": product.id, "title": product.title, "attributes": text} for product, text in summary.examples
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
        out.table(["id", "title", "attributes"], [[p.id, p.title, text] for p, text in summary.examples])
    rate = f"{summary.products_per_second:.1f}" if summary.asked else "-"
    out.table(
        ["products", "generated", "done before", "valid", "products/s", "generator"],
        [[summary.products, summary.generated, summary.skipped, f"{summary.valid_share:.1%}", rate, generator]],
    )
    if summary.failures:
        firsts = {kind: (product.id, text[:80]) for kind, (product, text) in summary.failed.items()}
        rows = [[kind, number, *firsts[kind]] for kind, number in summary.failures.most_common()]
        out.table(["failure", "products", "first id", "what was said"], rows)


def _looks_like_a_catalog(session: Session, path: Path) -> bool:
    """Whether a command in this folder would not know any more which table is the catalog."""
    folder = session.folder
    chosen = folder.catalog.stem.lower() == "catalog" or session.settings.catalog.path
    return not chosen and path.resolve().parent == folder.root.resolve()
