"""`afmrl eval`: how good retrieval is on this catalog, beside other systems and earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, cast, get_args

import typer

from ..catalog.splits import Split
from ..errors import CheckFailed, UsageError
from ..store.folder import check_output
from .flags import setting
from .options import Session, in_session, tell_embedder

if TYPE_CHECKING:
    from ..evaluation.build import TaskSpec
    from ..evaluation.entries import Entry
    from ..evaluation.report import Report
    from ..settings import Settings
    from ..store.checkpoints import Role

PROTOCOLS = ("identity", "photo", "fine", "coarse", "text", "composed", "queries")

Text: TypeAlias = str | None
Many: TypeAlias = list[str] | None
File: TypeAlias = Path | None
Protocol = Annotated[Text, typer.Option(help=f"{', '.join(PROTOCOLS)}; by default what the catalog offers.")]
Queries = Annotated[
    File, typer.Option(metavar="FILE", help="JSON Lines, FashionIQ's or CIRR's; by default queries.jsonl.")
]
Qrels = Annotated[File, typer.Option(metavar="FILE", help="Judgements, TREC or BEIR; by default beside the queries.")]
Gallery = Annotated[Many, typer.Option(metavar="KEY=VALUE", help="Only these listings can be found. Repeatable.")]
Part = Annotated[
    Text, typer.Option(help="Query products of train, validation, test or all; by default what training never saw.")
]
Baselines = Annotated[
    bool,
    typer.Option("--baselines", help="Add BM25 (text, attributes), colours, fusion, hybrid, parts of queries, base."),
]
FailUnder = Annotated[Many, typer.Option(metavar="METRIC=X", help="Exit 1 when the embedder is below. Repeatable.")]
RunOut = Annotated[File, typer.Option(metavar="FILE", help="Write the ranking as a TREC run.")]
Html = Annotated[File, typer.Option(metavar="FILE", help="Write a page with tables and the worst queries' pictures.")]
Markdown = Annotated[File, typer.Option(metavar="FILE", help="Write the tables as Markdown.")]
Junit = Annotated[File, typer.Option(metavar="FILE", help="Write the checks as JUnit XML.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show all metrics, not only those that fit 80 columns.")]
Github = Annotated[bool, typer.Option("--github", help="Annotate the GitHub workflow that this runs in.")]


@in_session(
    setting("embed.enrich"),
    setting("eval.ks", metavar="K,..."),
    setting("eval.max_queries"),
    setting("eval.labels", metavar="FILE"),
    setting("eval.label", metavar="NAME"),
    setting("eval.query_fields"),
    setting("eval.gallery_fields"),
    setting("eval.systems", metavar="NAME", repeat=True),
    setting("eval.compare", metavar="RUN", repeat=True),
    setting("eval.merge", metavar="RUN", repeat=True),
    setting("eval.max_drop", metavar="METRIC=X", repeat=True),
    setting("eval.slices", metavar="KEYS"),
    setting("search.rerank"),
    writes=True,
)
def eval(
    session: Session,
    protocol: Protocol = None,
    queries: Queries = None,
    qrels: Qrels = None,
    gallery: Gallery = None,
    split: Part = None,
    baselines: Baselines = False,
    fail_under: FailUnder = None,
    run_out: RunOut = None,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    github: Github = False,
    wide: Wide = False,
) -> None:
    """Measure retrieval: Recall@k, hit@k, MRR, nDCG@10, mAP, precision@10, with intervals; classes with coarse.

    identity: listings that share product_id find each other. photo: one photo finds its product. fine: among its
    variants. coarse: listings of a category. text: titles find photos. composed: a photo and "color: red" find the red
    variant, or a file's targets. queries: your own queries.jsonl and qrels.trec. All of it is kept in .afmrl/runs.

    Example: afmrl eval catalog.csv --baselines --fail-under recall@10=0.7
    """
    from ..evaluation.build import TaskSpec

    if protocol not in (None, "queries", "composed") and (queries or qrels):
        raise UsageError(f"--protocol {protocol} takes no --queries and --qrels", "leave one of them out")
    tell_embedder(session)
    taken = protocol or ("queries" if queries or qrels else None)
    spec = TaskSpec(taken, queries, qrels, tuple(gallery or ()), _split(split))
    files = {"--run-out": run_out, "--html": html, "--markdown": markdown, "--junit": junit}
    _check(session, spec, files)
    with session.out:
        report = _measure(session, spec, baselines, fail_under or [])
    _write(session, report, files)
    _show(session, report, [path for path in files.values() if path], wide)
    _conclude(session, report, github)


def _check(session: Session, spec: TaskSpec, files: Mapping[str, Path | None]) -> None:
    """Refuse what can be refused before anything is read; no result may replace a file that the evaluation reads."""
    if spec.protocol is not None and spec.protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {spec.protocol}: no such protocol", f"one of {', '.join(PROTOCOLS)}")
    from ..evaluation.build import judged_files
    from ..evaluation.published import caption_files, is_published, split_file

    chosen, root = session.settings.eval, session.folder.root
    if is_published(spec.queries):
        captions = caption_files(spec.queries)
        read = [*captions, *map(split_file, captions)]
    else:
        read = list(judged_files(root, spec.queries, spec.qrels))
    runs = [name.removeprefix("run:") for name in chosen.systems if name.startswith("run:")]
    for name in [*([chosen.labels] if chosen.labels else []), *chosen.compare, *chosen.merge, *runs]:
        read += [Path(name), root / name]
    written: dict[Path, str] = {}
    for flag, file in files.items():
        if file:
            check_output(file, session.folder, flag, read)
            if (other := written.setdefault(file.resolve(), flag)) != flag:
                raise UsageError(f"{other} and {flag} both write {file}", "give each a file of its own")


def _measure(session: Session, spec: TaskSpec, baselines: bool, fail_under: list[str]) -> Report:
    from ..evaluation.entries import RERANKED, Entry, needs_attributes, parse_entries
    from ..evaluation.report import EvalRequest, measure
    from ..evaluation.seen import seen_by, with_fit
    from ..evaluation.thresholds import parse_thresholds
    from ..models.backends import kind_of_embedder

    settings, work = session.settings, session.work
    entries = tuple(parse_entries(settings.eval.systems, baselines))
    if settings.search.rerank:
        entries = (Entry(RERANKED, "", RERANKED), *entries)
    described = needs_attributes(settings, entries) and work.source_on_disk is not None
    seen = seen_by(trained_by(settings, entries, described=described), work.checkpoints)
    if not settings.embed.endpoint and kind_of_embedder(settings.model, work.listener) == "light":
        seen = with_fit(seen, work)
    return measure(work, EvalRequest(replace(spec, seen=seen), entries, parse_thresholds(fail_under)))


def trained_by(settings: Settings, entries: Sequence[Entry], *, described: bool) -> list[tuple[Role, str]]:
    """Return (role, name) of every checkpoint whose work is in the table: embedders, and whose attributes are read."""
    model, rows = settings.model, [entry for entry in entries if entry.kind == "checkpoint"]
    own: Role = "vision" if model.vision_checkpoint else "embedder"
    found: list[tuple[Role, str]] = [(own, getattr(model, f"{own}_checkpoint"))]
    found += [("embedder", entry.argument) for entry in rows]
    if any(entry.kind == "reranked" for entry in entries):
        found.append(("reranker", model.reranker_checkpoint))
    if described and not settings.attributes.endpoint:
        found.append(("generator", model.generator_checkpoint))
    return found


def _split(written: str | None) -> Split | Literal["all"] | None:
    known = (*get_args(Split), "all")
    if written is not None and written not in known:
        raise UsageError(f"--split {written}: no such split", f"one of {', '.join(known)}")
    return cast("Split | Literal['all'] | None", written)


def _write(session: Session, report: Report, files: Mapping[str, Path | None]) -> None:
    from ..evaluation.outputs import write_junit, write_markdown
    from ..evaluation.page import write_page
    from ..evaluation.trec import write_run

    if file := files["--run-out"]:
        write_run(file, report.own, report.content["embedder"])
    if file := files["--html"]:
        write_page(file, report, session.settings)
    if file := files["--markdown"]:
        write_markdown(file, report.content)
    if file := files["--junit"]:
        write_junit(file, report.content)


def _show(session: Session, report: Report, files: list[Path], wide: bool) -> None:
    from ..evaluation.tables import more_tables, remarks, systems_table

    out, content = session.out, report.content
    out.document("afmrl.eval/2", content)
    for note in report.notes:
        out.note(note)
    title, columns, rows = systems_table(content, wide)
    out.table(columns, rows, title)
    for remark in remarks(content, wide):
        out.words(remark)
    for title, columns, rows in more_tables(content, wide):
        out.table(columns, rows, title)
    for comparison in content["comparisons"]:
        for words in comparison["words"]:
            out.words(words)
    for file in files:
        out.text(f"written: {file}")
    out.text(f"{report.folder}")


def _conclude(session: Session, report: Report, github: bool) -> None:
    """Print annotations, and exit with code 1 when a check failed: after everything is written and shown."""
    from ..evaluation.outputs import github_annotations

    if github:
        for line in github_annotations(report.content):
            session.out.annotate(line)
    if failed := report.failed():
        raise CheckFailed("; ".join(failed), f"the rankings are in {report.folder}")
