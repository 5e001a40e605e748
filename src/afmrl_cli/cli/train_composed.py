"""`afmrl train-composed`: teaches the embedder to find a listing by a photo and a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..training.shell import TrainingSummary


@in_session(
    setting("composed.stages"),
    setting("composed.windows", metavar="A,B,..."),
    setting("composed.caption_weight"),
    setting("composed.perturbed"),
    setting("composed.epochs"),
    setting("composed.steps"),
    setting("composed.batch_size"),
    setting("composed.learning_rate"),
    setting("composed.seed"),
    setting("composed.name"),
    setting("triplets.attributes"),
    setting("model.preset"),
    setting("model.embedder", metavar="NAME"),
    roles=("embedder",),
    writes=True,
)
def train_composed(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Teach the embedder to find a listing by a photo and a change (search --change), from triplets of the catalog.

    First both sides learn from batches and captions, then the query side alone against all training listings.
    Interrupted or killed, the same command goes on from the last saved step. Several GPUs: torchrun -m afmrl_cli.

    Example: afmrl train-composed; then afmrl eval --protocol composed --set model.embedder_checkpoint=embedder-1
    """

    from ..composed.run import train_composed as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    if summary is not None:
        with reading_done(summary):
            _show(session, summary)


def _show(session: Session, summary: TrainingSummary) -> None:
    if show_training(session, "composed", summary):
        show_estimate(session, "train-composed", summary.estimate)
        return
    _show_metrics(session, summary)
    if not summary.checkpoint:
        session.out.text("no checkpoint: no step was better than what training began with")
        return
    show_checkpoint(session, summary, "curve and metrics", "embed --set model.embedder_checkpoint")


def _show_metrics(session: Session, summary: TrainingSummary) -> None:
    """Show the validation before and after each stage."""
    out, stages = session.out, summary.details["stages"]
    rows: list[list[object]] = []
    for name, each in stages.items():
        if each["before"]:
            rows.append([f"{name}: {'both sides' if name == 'batch' else 'query side'}"])
            rows[-1] += [
                f"{each['before'][key]:.3f} -> {each['best'][key]:.3f}" for key in ("recall@1", "recall@10", "mrr")
            ]
    if rows:
        out.table(["validation", "recall@1", "recall@10", "mrr"], rows)
        of = summary.details["validation"]
        out.words(f"{of['queries']:,} composed queries among {of['gallery']:,} listings of the validation split")
    kept = "gallery and query adapter" if summary.details["query_adapter"] else "one adapter for both sides"
    out.words(kept)
