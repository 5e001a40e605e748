"""`afmrl eval`: how good retrieval is on this catalog, beside other systems and earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CheckFailed, UsageError
from ..store.folder import check_output
from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start

if TYPE_CHECKING:
    from ..evaluation.report import Report

PROTOCOLS = ("identity", "photo", "fine", "coarse", "text", "composed", "queries")
Many = list[str] | None


def eval(
    catalog: CatalogArgument = None,
    protocol: Annotated[
        str | None, typer.Option(help=f"{', '.join(PROTOCOLS)}; by default what the catalog offers.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines; by default queries.jsonl beside the catalog.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judgements, TREC or BEIR; by default beside the queries.")
    ] = None,
    gallery: Annotated[
        Many, typer.Option("--gallery", metavar="KEY=VALUE", help="Only these listings can be found. Repeatable.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="CSV with labels that only the judging sees.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Which label coarse and composed go by.")] = None,
    ask: Annotated[str | None, typer.Option(help="Ask with text, title, photos or all.")] = None,
    show: Annotated[str | None, typer.Option(help="What the gallery shows: text, photos or all.")] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add BM25 over text and attributes, colours, fusion, the bare base.")
    ] = False,
    systems: Annotated[
        Many, typer.Option(metavar="NAME", help="More rows: bm25, checkpoint:NAME, clip:NAME, ... Repeatable.")
    ] = None,
    compare: Annotated[
        Many, typer.Option(metavar="RUN", help="Earlier run to compare with; several are seeds of one. Repeatable.")
    ] = None,
    merge: Annotated[
        Many, typer.Option(metavar="RUN", help="Run of another seed, averaged with this one. Repeatable.")
    ] = None,
    slices: Annotated[str | None, typer.Option(metavar="KEYS", help="Figures by category, brand, ...; or all.")] = None,
    enrich: Annotated[str | None, typer.Option(help="Which side gets attribute text: none, query or both.")] = None,
    ks: Annotated[str | None, typer.Option(help="Cuts, such as 1,5,10.")] = None,
    max_queries: Annotated[int | None, typer.Option(help="A fixed sample of so many queries; 0: all.")] = None,
    fail_under: Annotated[
        Many, typer.Option("--fail-under", metavar="METRIC=X", help="Exit 1 when the embedder is below. Repeatable.")
    ] = None,
    max_drop: Annotated[
        Many, typer.Option(metavar="METRIC=X", help="Exit 1 when it fell by more than X since --compare. Repeatable.")
    ] = None,
    run_out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ranking as a TREC run.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with tables and the worst queries' pictures.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the checks as JUnit XML.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Annotate the GitHub workflow that this runs in.")] = False,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Measure retrieval: Recall@k, hit@k, MRR, nDCG@10, mAP, precision@10, with intervals; classes with coarse.

    identity: listings that share product_id find each other. photo: one photo finds its product. fine: among its
    twins. coarse: listings of a category. text: titles find photos. composed: a photo and "color: red" find the red
    twin. queries: your own queries.jsonl and qrels.trec. Settings, figures and rankings are kept in .afmrl/runs.

    Example: afmrl eval catalog.csv --baselines --fail-under recall@10=0.7
    """
    flags = {
        "embed.enrich": enrich,
        "eval.ks": ks,
        "eval.max_queries": max_queries,
        "eval.labels": labels,
        "eval.label": label,
        "eval.ask": ask,
        "eval.show": show,
        "eval.systems": systems,
        "eval.compare": compare,
        "eval.merge": merge,
        "eval.max_drop": max_drop,
        "eval.slices": slices,
    }
    session = start(catalog, json_mode=json_mode, quiet=quiet, verbose=verbose, set_=set_, flags=flags)
    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol}: no such protocol", f"one of {', '.join(PROTOCOLS)}")
    if protocol not in (None, "queries") and (queries or qrels):
        raise UsageError(f"--protocol {protocol} takes no --queries and --qrels", "leave one of them out")
    files = {"--run-out": run_out, "--html": html, "--markdown": markdown, "--junit": junit}
    _check_outputs(
        session, files, [queries, qrels, *map(Path, [*([labels] if labels else []), *(compare or []), *(merge or [])])]
    )

    from ..evaluation.build import Asked
    from ..evaluation.outputs import github_annotations

    asked = Asked("queries" if queries or qrels else protocol, queries, qrels, tuple(gallery or ()))
    with session.out:
        report = _measure(session, asked, baselines, fail_under or [])
    _write(session, report, files)
    _show(session, report, [path for path in files.values() if path])
    if github:
        for line in github_annotations(report.content):
            session.out.annotate(line)
    if failed := report.failed():
        raise CheckFailed("; ".join(failed), f"the rankings are in {report.folder}")


def _measure(session: Session, asked: object, baselines: bool, fail_under: list[str]) -> Report:
    from ..evaluation.build import Asked
    from ..evaluation.entries import Entry, model_contestant, parse_entries
    from ..evaluation.report import Wanted, measure
    from ..evaluation.systems import Contestant
    from ..evaluation.thresholds import parse_thresholds
    from .models import Models

    assert isinstance(asked, Asked)
    settings, models = session.settings, Models(session)
    entries = tuple(parse_entries(settings.eval.systems, baselines))

    def contestant(entry: Entry) -> Contestant:
        return model_contestant(entry, settings, models.checkpoints, models.bases, session.out)

    source = models.source if settings.embed.enrich != "none" else None
    wanted = Wanted(asked, entries, parse_thresholds(fail_under))
    return measure(
        session.folder, settings, wanted, models.embedder_id, models.embedder, source, session.out, contestant
    )


def _check_outputs(session: Session, files: Mapping[str, Path | None], own: Sequence[Path | None]) -> None:
    beside = [session.folder.root / name for name in ("queries.jsonl", "qrels.trec")]
    for flag, file in files.items():
        if file:
            check_output(file, session.folder, flag, [*own, *beside])


def _write(session: Session, report: Report, files: Mapping[str, Path | None]) -> None:
    from ..evaluation.outputs import write_junit, write_markdown
    from ..evaluation.page import write_page
    from ..evaluation.trec import write_run

    if file := files["--run-out"]:
        write_run(file, report.runs["embedder"], report.content["embedder"])
    if file := files["--html"]:
        write_page(file, report, session.settings)
    if file := files["--markdown"]:
        write_markdown(file, report.content)
    if file := files["--junit"]:
        write_junit(file, report.content)


def _show(session: Session, report: Report, files: list[Path]) -> None:
    from ..evaluation.tables import class_table, slice_tables, systems_table, twins_table

    out, content = session.out, report.content
    out.document("afmrl.eval/1", content)
    for note in report.notes:
        out.note(note)
    for title, columns, rows in (
        systems_table(content),
        *twins_table(content),
        *class_table(content),
        *slice_tables(content),
    ):
        out.table(columns, rows, title)
    for comparison in content["comparisons"]:
        for words in comparison["words"]:
            out.text(words)
    for file in files:
        out.text(f"written: {file}")
    out.text(f"{report.folder}")
