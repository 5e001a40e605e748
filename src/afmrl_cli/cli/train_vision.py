"""`afmrl train-vision`: teaches an encoder for photos through a frozen language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..training.shell import TrainingSummary


@in_session(
    setting("vision.classes", metavar="A,B,..."),
    setting("vision.loss"),
    setting("vision.grpo"),
    setting("vision.anchoring"),
    setting("vision.prompt"),
    setting("vision.epochs"),
    setting("vision.steps"),
    setting("vision.batch_size"),
    setting("vision.learning_rate"),
    setting("vision.seed"),
    setting("vision.name"),
    setting("model.preset"),
    setting("model.generator", metavar="NAME"),
    setting("model.generator_checkpoint", "--judge", metavar="CHECKPOINT"),
    roles=("generator",),
    writes=True,
)
def train_vision(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Teach an encoder for photos what tells two of them apart, through the frozen language model (SAGA).

    The encoder is the generator's vision tower. The generator judges pairs of photos; what made a judgement right flows
    back through it into the tower, and the language model is not needed afterwards. Interrupted or killed, the same
    command goes on from the last saved step. Several GPUs: torchrun -m afmrl_cli.

    Example: afmrl train-vision --judge generator-1 --classes category,pattern
    """

    from ..saga.run import train_vision as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    if summary is not None:
        with reading_done(summary):
            _show(session, summary)


def _show(session: Session, summary: TrainingSummary) -> None:
    from ..saga.page import PAGE

    page = summary.run / PAGE
    if show_training(session, "vision", summary, **({"page": page} if page.is_file() else {})):
        _show_parts(session, summary)
        show_estimate(session, "train-vision", summary.estimate)
        return
    _show_metrics(session, summary)
    if page.is_file():
        session.out.note(f"page: {page}")
    show_checkpoint(session, summary, "metrics", "embed --set model.vision_checkpoint")


def _show_parts(session: Session, summary: TrainingSummary) -> None:
    """Show what each kind of a step's work takes."""
    rows: list[list[object]] = [
        [name, f"{part['seconds']:.2f}", f"{part['peak_bytes'] / 2**30:.2f}"]
        for name, part in summary.details["parts"].items()
    ]
    session.out.table(["a step's work", "seconds", "peak GiB so far"], rows)


def _show_metrics(session: Session, summary: TrainingSummary) -> None:
    """Show the validation before and at the best step, and what the judge was asked."""
    out, details = session.out, summary.details
    before, best, pairs = details["before"], details["metrics"], details["pairs"]
    if best:
        out.table(["validation", "before", "best step"], [[name, before[name], best[name]] for name in best])
    if pairs["asked"]:
        judge = details["judge"]
        out.words(
            f"the generator was right about {judge['right']:,} of {judge['pairs']:,} pairs before; in training it was "
            f"asked about {pairs['asked']:,}, and taught by the {pairs['differing']:,} about which its answers differ"
        )
