"""`afmrl attributes`: a generator writes each product's attributes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start

if TYPE_CHECKING:
    from ..attributes.export import ExportSummary
    from ..attributes.generate import AttributeSummary
    from ..attributes.views import ListingViews
    from ..catalog.fingerprints import Fingerprinter
    from ..catalog.problems import Problems
    from ..catalog.product import Product

EXAMPLES, MAX_EXAMPLES = 3, 20


Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N products that need work.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Only N random products, always the same ones.")]
Force = Annotated[bool, typer.Option("--force", help="Ask again about products that are done.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Ask again where the answer failed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what needs work; no model.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write all attributes to .csv, .jsonl or .parquet.")
]
BatchSize = Annotated[int | None, typer.Option(help="Products at a time.", show_default=False)]
Preset = Annotated[str | None, typer.Option(help="Models: nano, paper or qwen3.", show_default=False)]
GeneratorName = Annotated[str | None, typer.Option(help="Hub name or folder of a Qwen-VL.", show_default=False)]
Views = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="What is described: listing, text, photos (each alone), all-photos, rest (without each photo), queries "
        "(what `eval` asks with).",
        show_default=False,
    ),
]
Language = Annotated[str | None, typer.Option(help="Of keys and values.", show_default=False)]
Endpoint = Annotated[str | None, typer.Option(metavar="URL", help="OpenAI-compatible server instead of a local model.")]
EndpointModel = Annotated[str | None, typer.Option(metavar="NAME", help="The model's name at the endpoint.")]


def attributes(
    catalog: CatalogArgument = None,
    limit: Limit = None,
    sample: Sample = None,
    force: Force = False,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
    out_file: Out = None,
    batch_size: BatchSize = None,
    preset: Preset = None,
    generator: GeneratorName = None,
    views: Views = None,
    language: Language = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
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
        "attributes.views": views,
        "attributes.language": language,
        "attributes.endpoint": endpoint,
        "attributes.endpoint_model": model,
        "model.preset": preset,
        "model.generator": generator,
    }
    session = start(
        catalog,
        json_mode=json_mode,
        quiet=quiet,
        verbose=verbose,
        set_=set_,
        flags=flags,
        roles=("generator",),
        writes=not dry_run,
    )
    _check_flags(session, model, limit, sample)
    asked = Asked(limit, sample, force, retry_failed)
    if dry_run:
        _plan(session, asked)
    else:
        _generate(session, asked, out_file)


@dataclass(frozen=True)
class Asked:
    """About which products the generator is asked."""

    limit: int | None
    sample: int | None
    force: bool
    retry_failed: bool

    def products(self, session: Session, problems: Problems) -> Iterable[Product]:
        """The catalog, or the sample of it."""
        from ..attributes.generate import sample_products
        from ..catalog.read import read_products

        stream = read_products(session.folder, session.settings.catalog, problems)
        return sample_products(stream, self.sample, session.settings.attributes.seed) if self.sample else stream

    def views(self, session: Session, problems: Problems, fingerprinter: Fingerprinter) -> ListingViews:
        """What is described of these products, and of the evaluation's queries: `attributes.views`."""
        from ..attributes.views import QUERIES, ListingViews

        names = session.settings.attributes.views
        queries: Sequence[Product] = ()
        if any(name.split(":")[0] == QUERIES for name in names):
            if self.sample:
                session.out.note(f"--sample looks at products alone: the {QUERIES} are left out")
            else:
                from ..evaluation.report import query_views

                queries = query_views(session.folder, session.settings, names)
        return ListingViews(self.products(session, problems), names, fingerprinter, queries)


def _plan(session: Session, asked: Asked) -> None:
    from ..attributes.generate import count_needed
    from ..catalog.fingerprints import Fingerprinter
    from ..catalog.problems import Problems
    from ..store.database import Database

    work, problems = session.work, Problems()
    name = work.generator_id
    with session.out, Database(session.folder.database) as database, Fingerprinter(database) as fingerprinter:
        views = asked.views(session, problems, fingerprinter)
        source = work.source
        total, needed = count_needed(
            views, source, database, fingerprinter, force=asked.force, retry_failed=asked.retry_failed
        )
    problems.tell(session.out)
    needed = needed if asked.limit is None else min(needed, asked.limit)
    _show_plan(session, name, views.products, total, needed)


def _generate(session: Session, asked: Asked, out_file: Path | None) -> None:
    from ..attributes.export import check_export_path, export_attributes
    from ..attributes.generate import generate_attributes
    from ..catalog.fingerprints import Fingerprinter
    from ..catalog.problems import Problems
    from ..catalog.read import count_rows
    from ..store.database import Database
    from ..store.lock import writer_lock

    settings, folder, out, work = session.settings, session.folder, session.out, session.work
    if out_file and check_export_path(out_file, folder):
        out.note(f"{out_file}: is there already and will be replaced")
    task, name, problems = work.task, work.generator_id, Problems()
    lock = writer_lock(folder.store, "afmrl attributes")
    plain = settings.attributes.views == ["listing"] and not asked.limit
    with out, lock, Database(folder.database) as database, Fingerprinter(database) as fingerprinter:
        views = asked.views(session, problems, fingerprinter)
        try:
            summary = generate_attributes(
                views,
                task,
                name,
                work.generator,
                database,
                fingerprinter,
                settings,
                problems,
                out,
                force=asked.force,
                retry_failed=asked.retry_failed,
                limit=asked.limit,
                total=(asked.sample or count_rows(folder, settings.catalog)) if plain else None,
                examples=min(asked.sample, MAX_EXAMPLES) if asked.sample else EXAMPLES,
            )
        finally:
            problems.tell(out)
        exported = None
        if out_file:
            products = asked.products(session, Problems())
            source = work.source
            exported = export_attributes(products, task, source, database, fingerprinter, out_file)
    _show(session, name, views.products, summary, problems, exported)


def _check_flags(session: Session, model: str | None, limit: int | None, sample: int | None) -> None:
    from ..attributes.views import check_view_names
    from .eval import PROTOCOLS

    settings = session.settings.attributes
    if model and not settings.endpoint:
        raise UsageError("--model is a name at an endpoint, and there is no endpoint", "give --endpoint or --generator")
    if limit and sample:
        raise UsageError("--limit and --sample exclude each other", "--limit takes the first, --sample any products")
    check_view_names(settings.views, PROTOCOLS)
    address = settings.endpoint
    local = any(f"//{host}" in address for host in ("localhost", "127.", "[::1]"))
    if address.startswith("http:") and not local and os.environ.get("AFMRL_API_KEY"):
        session.out.warn("the key in AFMRL_API_KEY goes over plain http to another machine: use https where you can")


def _show_plan(session: Session, generator: str, products: int, views: int, needed: int) -> None:
    document = {"generator": generator, "products": products, "views": views, "needed": needed}
    session.out.document("afmrl.attributes/1", document)
    columns, row = _counted(session, products, views)
    session.out.table([*columns, "need work", "generator"], [[*row, needed, generator]])


def _counted(session: Session, products: int, views: int) -> tuple[list[str], list[object]]:
    """The first columns of the summaries: views are shown where more than the listing is described."""
    if session.settings.attributes.views == ["listing"]:
        return ["products"], [products]
    return ["products", "views"], [products, views]


def _show(
    session: Session,
    generator: str,
    products: int,
    summary: AttributeSummary,
    problems: Problems,
    exported: ExportSummary | None,
) -> None:
    out = session.out
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
    columns, row = _counted(session, products, summary.products)
    rate = f"{summary.products_per_second:.1f}" if summary.asked else "-"
    out.table(
        [*columns, "generated", "done before", "valid", f"{columns[-1]}/s", "generator"],
        [[*row, summary.generated, summary.skipped, f"{summary.valid_share:.1%}", rate, generator]],
    )
    if summary.failures:
        firsts = {kind: (product.id, text[:80]) for kind, (product, text) in summary.failed.items()}
        rows = [[kind, number, *firsts[kind]] for kind, number in summary.failures.most_common()]
        out.table(["failure", columns[-1], "first id", "what was said"], rows)


def _looks_like_a_catalog(session: Session, path: Path) -> bool:
    """Whether a command in this folder would not know any more which table is the catalog."""
    folder = session.folder
    chosen = folder.catalog.stem.lower() == "catalog" or session.settings.catalog.path
    return not chosen and path.resolve().parent == folder.root.resolve()
