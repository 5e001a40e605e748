"""`afmrl train-rar`: trains the generator by what its attributes do to retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CheckFailed
from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, estimate_document, show_estimate, show_plan

if TYPE_CHECKING:
    from ..rar.run import RarSummary


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
    step kept, and the exit code is 1.

    Example: afmrl train-rar --from generator-1 --embedder embedder-1 --dry-run
    """

    from ..rar.run import train_rar as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    _show(session, summary)
    if summary.collapsed:
        kept = f"kept is step {summary.step}" if summary.checkpoint else "no step was as good as the start"
        raise CheckFailed(f"the policy collapsed: {summary.collapsed}; {kept}", "raise --beta or lower --learning-rate")


def _show(session: Session, summary: RarSummary) -> None:
    out, estimate = session.out, summary.estimate
    document = {
        "run": summary.run,
        "plan": summary.plan,
        "checkpoint": summary.checkpoint or None,
        "step": summary.step,
        "plain": summary.plain,
        "start": summary.start,
        "metrics": summary.metrics,
        "spread_by_k": summary.spread_by_k,
        "collapsed": summary.collapsed or None,
        "resumed_from": summary.resumed_from,
        "seconds": summary.seconds,
        "already_done": summary.already_done,
    }
    out.document("afmrl.train-rar/1", document | estimate_document(session, estimate))
    if estimate is not None:
        show_plan(session, "rar", summary.plan)
        out.table(["k", "groups with spread"], [[k, f"{share:.0%}"] for k, share in summary.spread_by_k.items()])
        show_estimate(session, "train-rar", estimate)
        return
    columns = [summary.plain, summary.start, summary.metrics]
    rows = [[name, *(figures.get(name, "") for figures in columns)] for name in summary.start]
    out.table(["held out", "no attributes", "at the start", f"best: step {summary.step}"], rows)
    out.note(f"curve, metrics and samples: {summary.run}")
    if summary.checkpoint:
        out.text(
            f"checkpoint {summary.checkpoint}" + (" (trained before; --force trains again)" * summary.already_done)
        )
        out.note(f"use it: afmrl attributes --set model.generator_checkpoint={summary.checkpoint}")
    else:
        out.text("no checkpoint: no step was as good as the start on the held-out queries")
