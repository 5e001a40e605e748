"""`afmrl train-recommender`: teaches the recommender, the second stage of recommending."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..next_item.histories import Recommender
    from ..training.shell import TrainingSummary
    from ..workspace import Workspace


@in_session(
    setting("recommender.stages"),
    setting("recommender.text", metavar="A,B,..."),
    setting("recommender.epochs"),
    setting("recommender.steps"),
    setting("recommender.grpo_steps"),
    setting("recommender.batch_size"),
    setting("recommender.chunk_size"),
    setting("recommender.seed"),
    setting("recommender.name"),
    setting("reasoning.share", "--reasoning", metavar="SHARE"),
    setting("model.preset"),
    setting("model.generator", metavar="NAME"),
    roles=("generator",),
    writes=True,
)
def train_recommender(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Teach the generator's base which listing a customer takes next: by what came next, then by reward (GRPO).

    Listings are read as text; no photo is read. `recommend` and `eval-recommender` ask it about the first of the
    retrieval. Interrupted or killed, the same command goes on from the last saved step.

    Example: afmrl train-recommender; then afmrl recommend --customer 4711 --set
    model.recommender_checkpoint=recommender-1
    """
    from ..recommender.run import train_recommender as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    with reading_done(summary):
        _show(session, summary)


def trained_order(work: Workspace) -> Callable[[Recommender], Recommender] | None:
    """Return what puts the first of a ranking into the order of the settings' recommender; None where they name none.
    It is loaded when it is called.
    """
    if not work.settings.model.recommender_checkpoint:
        return None
    from ..recommender.load import load_recommender

    return partial(load_recommender, work)


def _show(session: Session, summary: TrainingSummary) -> None:
    if show_training(session, "recommender", summary):
        show_estimate(session, "train-recommender", summary.estimate)
        return
    _show_metrics(session, summary)
    if not summary.checkpoint:
        session.out.text("no checkpoint: GRPO made nothing better than what it started from")
        return
    show_checkpoint(session, summary, "curve and metrics", "eval-recommender --set model.recommender_checkpoint")


def _show_metrics(session: Session, summary: TrainingSummary) -> None:
    """Show the validation: of the retrieval, of the recommender alone, and of both fused, and its bias by place."""
    found, out = summary.details["metrics"], session.out
    for reason, number in summary.details.get("reasoning", {}).items():
        out.text(f"reasoning, {reason}: {number:,}")
    if not found:
        return
    columns = ["validation", "retrieval", "recommender", f"fused, weight {found['weight']:.2f}"]
    names = ("hr@1", "hr@5", "hr@10", "ndcg@10")
    rows: list[list[object]] = [
        [name, found[f"{name}_retrieval"], found[name], found[f"{name}_fused"]] for name in names
    ]
    out.table(columns, rows)
    out.words(
        f"shown in reverse, {found['changed']:.1%} of the shortlists get another first listing; the right one "
        f"is first where it stands in the first third in {found['hr@1_first']:.1%}, in the middle in "
        f"{found['hr@1_middle']:.1%}, in the last in {found['hr@1_last']:.1%}"
    )
    if stopped := summary.details["stopped"]:
        out.words(stopped)
