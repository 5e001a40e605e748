"""`afmrl eval`: how good retrieval is on this catalog, beside two baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckFailed, UsageError
from ..store.folder import check_output
from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start

if TYPE_CHECKING:
    from ..evaluation.report import Report

PROTOCOLS = ("identity", "photo", "queries")


def eval(
    catalog: CatalogArgument = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="identity, photo or queries; by default what the catalog offers.", show_default=False),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines; by default queries.jsonl beside the catalog.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judgements, TREC; by default qrels.trec beside the queries.")
    ] = None,
    gallery: Annotated[
        list[str] | None,
        typer.Option("--gallery", metavar="KEY=VALUE", help="Only these listings can be found. Repeatable."),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Add BM25 over text and a colour histogram.")] = False,
    enrich: Annotated[
        str | None, typer.Option(help="Which side gets attribute text: none, query or both.", show_default=False)
    ] = None,
    ks: Annotated[str | None, typer.Option(help="Cuts, such as 1,5,10.", show_default=False)] = None,
    max_queries: Annotated[
        int | None, typer.Option(help="A fixed sample of so many queries; 0: all.", show_default=False)
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", metavar="METRIC=X", help="Exit 1 when the embedder is below. Repeatable."),
    ] = None,
    run_out: Annotated[
        Path | None, typer.Option("--run-out", metavar="FILE", help="Write the embedder's ranking as a TREC run.")
    ] = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Measure retrieval: Recall@k, hit@k, MRR, nDCG@10, mAP, precision@10.

    identity: listings that share product_id find each other. photo: one photo finds its product. queries: your own
    queries.jsonl and qrels.trec. Settings, figures and rankings are kept in .afmrl/runs.

    Example: afmrl eval catalog.csv --baselines --fail-under recall@10=0.7
    """
    flags = {"embed.enrich": enrich, "eval.ks": ks, "eval.max_queries": max_queries}
    session = start(catalog, json_mode=json_mode, quiet=quiet, verbose=verbose, set_=set_, flags=flags)
    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol}: no such protocol", f"one of {', '.join(PROTOCOLS)}")
    if protocol in ("identity", "photo") and (queries or qrels):
        raise UsageError(f"--protocol {protocol} takes no --queries and --qrels", "leave one of them out")
    if run_out:
        beside = [session.folder.root / name for name in ("queries.jsonl", "qrels.trec")]
        check_output(run_out, session.folder, "--run-out", [queries, qrels, *beside])

    from ..evaluation.report import Wanted, measure, parse_thresholds
    from .models import Models

    models = Models(session)
    wanted = Wanted(
        protocol="queries" if queries or qrels else protocol,  # type: ignore[arg-type]
        queries=queries,
        qrels=qrels,
        gallery=tuple(gallery or ()),
        baselines=baselines,
        thresholds=parse_thresholds(fail_under or []),
    )
    with session.out:
        report = measure(
            session.folder,
            session.settings,
            wanted,
            models.embedder_id,
            models.embedder,
            models.source if session.settings.embed.enrich != "none" else None,
            session.out,
        )
    if run_out:
        from ..evaluation.trec import write_run

        write_run(run_out, report.runs["embedder"], models.embedder_id)
    _show(session, report, run_out)
    if failed := report.failed():
        if json_mode:  # the document, checks included, is out: an error's document after it would be a second one
            session.out.warn("; ".join(failed))
            raise typer.Exit(CheckFailed.exit_code)
        raise CheckFailed("; ".join(failed), f"the rankings are in {report.folder}")


def _show(session: Session, report: Report, run_out: Path | None) -> None:
    out = session.out
    out.document("afmrl.eval/1", report.content)
    for note in report.notes:
        out.note(note)
    content = report.content
    names: Sequence[str] = list(content["systems"][0]["metrics"])
    shown = [_row(system, names, content["queries"]) for system in content["systems"]]
    title = f"{content['protocol']}: {content['queries']:,} queries, gallery of {content['gallery']:,}"
    out.table(["system", *names], shown, title)
    if run_out:
        out.text(f"run: {run_out}")
    out.text(f"{report.folder}")


def _row(system: dict[str, Any], names: Sequence[str], queries: int) -> list[object]:
    if not system["readable"]:
        return [f"{system['system']} (can't read these queries)", *("-" for _ in names)]
    part = "" if system["readable"] == queries else f" (reads {system['readable']:,} of {queries:,} queries)"
    return [system["system"] + part, *(system["metrics"][name] for name in names)]
