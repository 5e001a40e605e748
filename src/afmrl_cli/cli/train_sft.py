"""`afmrl train-sft`: teaches the generator by examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, estimate_document, show_estimate, show_plan

if TYPE_CHECKING:
    from ..sft.run import SftSummary


@in_session(
    setting("sft.source"),
    setting("sft.teacher", metavar="NAME"),
    setting("sft.columns", metavar="A,B,..."),
    setting("sft.file", metavar="FILE"),
    setting("sft.epochs"),
    setting("sft.steps"),
    setting("sft.batch_size"),
    setting("sft.chunk_size"),
    setting("sft.learning_rate"),
    setting("sft.seed"),
    setting("sft.name"),
    setting("model.preset"),
    setting("model.generator", metavar="NAME"),
    roles=("generator",),
    writes=True,
)
def train_sft(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Teach the generator by right answers (SFT); the adapter goes into the checkpoint store.

    Interrupted or killed, the same command goes on from the last saved step.

    Example: afmrl train-sft --source columns; then afmrl attributes --set model.generator_checkpoint=generator-1
    """

    from ..sft.run import train_sft as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    _show(session, summary)


def _show(session: Session, summary: SftSummary) -> None:
    out, estimate = session.out, summary.estimate
    document: dict[str, Any] = {
        "run": summary.run,
        "plan": summary.plan,
        "checkpoint": summary.checkpoint or None,
        "before": summary.before,
        "best": summary.best,
        "resumed_from": summary.resumed_from,
        "seconds": summary.seconds,
        "already_done": summary.already_done,
    }
    out.document("afmrl.train-sft/1", document | estimate_document(session, estimate))
    if estimate is not None:
        show_plan(session, "sft", summary.plan)
        show_estimate(session, "train-sft", estimate)
        return
    _show_scores(session, summary)
    out.text(f"checkpoint {summary.checkpoint}" + (" (trained before; --force trains again)" * summary.already_done))
    out.note(f"curve and metrics: {summary.run}")
    out.note(f"use it: afmrl attributes --set model.generator_checkpoint={summary.checkpoint}")


def _show_scores(session: Session, summary: SftSummary) -> None:
    """Figures of the validation split, before training and of the adapter that was kept."""
    best, before = summary.best, summary.before
    if not best:
        return
    names = {
        "accuracy": "attribute accuracy",
        "exact": "letter by letter",
        "valid": "valid answers",
        "length": "tokens an answer",
        "extra": "pairs beyond the target's",
    }
    rows: list[list[object]] = [[told, float(before[key]), float(best[key])] for key, told in names.items()]
    session.out.table(["validation", "before", "trained"], rows)
    nothing = {"accuracy": 0.0, "exact": 0.0}
    keys = [
        [key, int(each["references"]), before["keys"].get(key, nothing)["accuracy"], each["accuracy"], each["exact"]]
        for key, each in best["keys"].items()
    ]
    session.out.table(["key", "products", "before", "trained", "letter by letter"], keys)
