"""`afmrl train-rerank`: teaches the reranker, the second stage of search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..training.shell import TrainingSummary


@in_session(
    setting("rerank.pairs", metavar="A,B,..."),
    setting("rerank.negatives"),
    setting("rerank.epochs"),
    setting("rerank.steps"),
    setting("rerank.batch_size"),
    setting("rerank.chunk_size"),
    setting("rerank.learning_rate"),
    setting("rerank.seed"),
    setting("rerank.name"),
    setting("model.preset"),
    setting("model.generator", metavar="NAME"),
    setting("model.embedder_checkpoint", "--embedder", metavar="CHECKPOINT"),
    roles=("generator", "embedder"),
    writes=True,
)
def train_rerank(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Teach the generator's base to say whether two listings are one product: a second stage for search.

    `search`, `eval` and `dedupe` ask it with --rerank; near listings to learn from are those of the embedder.
    Interrupted or killed, the same command goes on from the last saved step.

    Example: afmrl train-rerank; then afmrl eval --rerank 20 --set model.reranker_checkpoint=reranker-1
    """

    from ..rerank.run import train_rerank as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    with reading_done(summary):
        _show(session, summary)


def _show(session: Session, summary: TrainingSummary) -> None:
    if show_training(session, "rerank", summary):
        show_estimate(session, "train-rerank", summary.estimate)
        return
    _show_metrics(session, summary)
    show_checkpoint(session, summary, "curve and metrics", "eval --rerank 20 --set model.reranker_checkpoint")


def _show_metrics(session: Session, summary: TrainingSummary) -> None:
    """Show the validation: of the embedder alone, of the reranker alone, and of both fused."""
    found, out = summary.details["metrics"], session.out
    if not found:
        return
    columns = ["validation", "embedder", "reranker", f"fused, weight {found['weight']:g}"]
    rows: list[list[object]] = [
        [name, found[f"{name}_embedder"], found[f"{name}_reranker"], found[name]] for name in ("hit@1", "mrr")
    ]
    out.table(columns, rows)
    out.words(
        f"right before wrong in {found['auc']:.1%} of the pairs of candidates (auc); the two orders of a pair differ "
        f"by {found['position_bias']:.2f} logits, and give another verdict in {found['flipped']:.1%}; "
        f"{1000 * found['seconds_per_pair']:.0f} ms a pair"
    )
