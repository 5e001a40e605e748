"""`afmrl train-rar`: trains the generator by what its attributes do to retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed
from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..training.shell import TrainingSummary


@in_session(
    setting("model.generator_checkpoint", "--from", metavar="CHECKPOINT"),
    setting("rar.from_base"),
    setting("rar.steps"),
    setting("rar.prompts"),
    setting("rar.group"),
    setting("rar.k"),
    setting("rar.beta"),
    setting("rar.temperature"),
    setting("rar.loss"),
    setting("rar.learning_rate"),
    setting("rar.chunk_answers"),
    setting("rar.seed"),
    setting("rar.name"),
    setting("model.preset"),
    setting("model.embedder_checkpoint", "--embedder", metavar="CHECKPOINT"),
    roles=("generator", "embedder"),
    writes=True,
)
def train_rar(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Train the generator to write the attributes by which the frozen embedder finds products (RAR, GRPO).

    Interrupted or killed, the same command goes on from the last saved step. A run that collapses is stopped, its best
    step kept, and the exit code is 1. So it is where answers sampled beforehand show that there is too little to learn.
    Several GPUs: torchrun -m afmrl_cli.

    Example: afmrl train-rar --from generator-1 --embedder embedder-1 --dry-run
    """

    from ..rar.run import train_rar as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    if summary is None:
        return
    with reading_done(summary):
        _show(session, summary)
    if why := summary.details.get("refused"):
        if not dry_run:
            raise CheckFailed(why, summary.details["what_may_help"])
        session.out.warn(f"{why}: it would be refused")
        session.out.note(f"  {summary.details['what_may_help']}")
    if why := summary.details.get("collapsed"):
        kept = f"kept is step {summary.details['step']}" if summary.checkpoint else "no step was as good as the start"
        raise CheckFailed(f"the policy collapsed: {why}; {kept}", "raise --beta or lower --learning-rate")


def _show(session: Session, summary: TrainingSummary) -> None:
    out, details = session.out, summary.details
    shown = {name: details.get(name) or None for name in ("collapsed", "refused")}
    if show_training(session, "rar", summary, **shown):
        _show_room(session, summary.plan["room"])
        show_estimate(session, "train-rar", summary.estimate)
        return
    if details.get("refused"):
        _show_room(session, summary.plan["room"])
        return
    columns = [details["plain"], details["start"], details["metrics"]]
    rows = [[name, *(metrics.get(name, "") for metrics in columns)] for name in details["start"]]
    out.table(["held out", "no attributes", "at the start", f"best: step {details['step']}"], rows)
    left = "curve, metrics and samples"
    if summary.checkpoint:
        show_checkpoint(session, summary, left, "attributes --set model.generator_checkpoint")
    else:
        out.note(f"{left}: {summary.run}")
        out.text("no checkpoint: no step was as good as the start on the held-out queries")


def _show_room(session: Session, room: Any) -> None:
    """Show how much there is to win: recall by what stands on the query, and how many groups differ."""
    answers = room["answers"]
    columns = ["k", "no attributes", f"mean of {answers}", f"best of {answers}", "own values", "groups that differ"]
    rows = [
        [k, *(f"{room[way][f'recall@{k}']:.3f}" if room[way] else "" for way in ("plain", "mean", "best", "own"))]
        for k in room["spread_by_k"]
    ]
    shares = [*room["spread_by_k"].values(), room["spread_by_rank"]]
    rows.append(["rank", "", "", "", ""])
    session.out.table(columns, [[*row, f"{share:.0%}"] for row, share in zip(rows, shares, strict=True)])
