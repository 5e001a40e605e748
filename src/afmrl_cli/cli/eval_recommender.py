"""`afmrl eval-recommender`: how well what customers take next is foretold, beside simple systems."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckFailed, UsageError
from ..store.folder import check_output
from .flags import setting
from .options import Session, in_session
from .output import Output

if TYPE_CHECKING:
    from ..next_item.measure import Measurement


class Part(StrEnum):
    """Which interactions are to be foretold."""

    test = "test"
    validation = "validation"


@in_session(
    setting("recommend.interactions", metavar="FILE", repeat=True, from_here=True),
    setting("eval.max_queries"),
    writes=True,
)
def eval_recommender(
    session: Session,
    split: Annotated[Part, typer.Option("--split", help="Which interactions are to be foretold.")] = Part.test,
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", metavar="METRIC=X", help="Exit 1 when `fused` is below. Repeatable."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with all metrics and some questions.")
    ] = None,
    ranks: Annotated[
        Path | None, typer.Option("--ranks", metavar="FILE", help="Write each question's rank by each system as CSV.")
    ] = None,
) -> None:
    """Measure recommending: HR@k and nDCG@k of what customers took next, over the whole catalog, beside baselines.

    Rows: popularity, likeness to what was taken before, what others bought with it, all of it fused, a sequential model
    that knows the orders alone, and the recommender that `model.recommender_checkpoint` names. Intervals are over
    customers; new items and new customers stand apart.

    Example: afmrl eval-recommender --fail-under hr@10=0.1 --html report.html
    """
    from ..evaluation.thresholds import parse_thresholds
    from ..next_item.measure import check_name, measure
    from ..next_item.page import write_page
    from ..next_item.ranks import write_ranks
    from ..next_item.systems import MAIN, open_systems
    from ..recommend.split import PARTS
    from ..store.lock import writer_lock
    from .train_recommender import trained_order

    work, part = session.work, PARTS.index(split.value)
    files = {"--html": html, "--ranks": ranks}
    _check(session, files)
    thresholds = parse_thresholds(fail_under or [], "--fail-under", check_name, "hr@10=0.1")
    with session.out:
        with writer_lock(work.folder.store, "afmrl eval-recommender"):
            histories, systems = open_systems(work, part)
        if order := trained_order(work):
            systems = [*systems, order(next(system for system in systems if system.name == MAIN))]
        measured = measure(work, histories, part, systems, MAIN, thresholds)
        if html:
            write_page(html, measured, work)
        if ranks:
            write_ranks(ranks, measured)
    _show(session, measured, [path for path in files.values() if path])
    if failed := measured.failed():
        raise CheckFailed("; ".join(failed))


def _check(session: Session, files: Mapping[str, Path | None]) -> None:
    """Refuse files that can't be written before anything is read."""
    from ..recommend.interactions import interaction_files

    read = interaction_files(session.work)
    for flag, file in files.items():
        if file:
            check_output(file, session.folder, flag, read)
    if (html := files["--html"]) and (ranks := files["--ranks"]) and html.resolve() == ranks.resolve():
        raise UsageError(f"--html and --ranks both write {html}", "give each a file of its own")


def _show(session: Session, measured: Measurement, files: list[Path]) -> None:
    session.out.document("afmrl.eval-recommender/1", measured.content)
    show_content(session.out, measured.content)
    for file in files:
        session.out.text(f"written: {file}")


def show_content(out: Output, content: Mapping[str, Any]) -> None:
    """Show an evaluation's document: its tables, and what must be known to read them."""
    from ..next_item.tables import all_tables, remarks

    for title, columns, rows in all_tables(content):
        out.table(columns, rows, title)
    for line in [*remarks(content), *content["notes"]]:
        out.words(line)
