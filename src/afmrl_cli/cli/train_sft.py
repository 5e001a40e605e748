"""`afmrl train-sft`: teaches the generator by examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..training.shell import TrainingSummary


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

    Interrupted or killed, the same command goes on from the last saved step. Several GPUs: torchrun -m afmrl_cli.

    Example: afmrl train-sft --source columns; then afmrl attributes --set model.generator_checkpoint=generator-1
    """

    from ..sft.run import train_sft as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    if summary is not None:
        with reading_done(summary):
            _show(session, summary)


def _show(session: Session, summary: TrainingSummary) -> None:
    if show_training(session, "sft", summary):
        show_estimate(session, "train-sft", summary.estimate)
        return
    _show_scores(session, summary)
    show_checkpoint(session, summary, "curve and metrics", "attributes --set model.generator_checkpoint")


def _show_scores(session: Session, summary: TrainingSummary) -> None:
    """Show the metrics of the validation split, before training and of the adapter that was kept."""
    best, before = summary.details["best"], summary.details["before"]
    if not best:
        return
    pairs = {
        "accuracy": "right verdicts",
        "exact": "letter by letter",
        "valid": "readable verdicts",
        "attributes": "attribute accuracy",
        "length": "tokens an answer",
    }
    names = (
        pairs
        if "attributes" in best
        else {
            "accuracy": "attribute accuracy",
            "exact": "letter by letter",
            "valid": "valid answers",
            "length": "tokens an answer",
            "extra": "pairs beyond the target's",
        }
    )
    rows: list[list[object]] = [[title, float(before[key]), float(best[key])] for key, title in names.items()]
    session.out.table(["validation", "before", "trained"], rows)
    nothing = {"accuracy": 0.0, "exact": 0.0}
    keys = [
        [key, int(each["references"]), before["keys"].get(key, nothing)["accuracy"], each["accuracy"], each["exact"]]
        for key, each in best["keys"].items()
    ]
    session.out.table(
        ["key", "photos" if names is pairs else "products", "before", "trained", "letter by letter"], keys
    )
