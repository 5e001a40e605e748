"""`afmrl train-agcl`: trains the embedder on the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .eval import trained_by
from .flags import setting
from .options import Session, in_session
from .training import DryRun, Force, reading_done, show_checkpoint, show_estimate, show_training

if TYPE_CHECKING:
    from ..training.shell import TrainingSummary


@in_session(
    setting("agcl.loss"),
    setting("agcl.weights"),
    setting("agcl.epochs"),
    setting("agcl.steps"),
    setting("agcl.batch_size"),
    setting("agcl.chunk_tokens"),
    setting("agcl.learning_rate"),
    setting("agcl.temperature"),
    setting("agcl.batches"),
    setting("agcl.attributes"),
    setting("agcl.seed"),
    setting("agcl.name"),
    setting("model.preset"),
    setting("model.embedder", metavar="NAME"),
    roles=("embedder",),
    writes=True,
)
def train_agcl(session: Session, dry_run: DryRun = False, force: Force = False) -> None:
    """Train the embedder to tell near-identical products apart (AGCL); the adapter goes into the checkpoint store.

    Interrupted or killed, the same command goes on from the last saved step. Several GPUs: torchrun -m afmrl_cli.

    Example: afmrl train-agcl --epochs 3; then afmrl embed --set model.embedder_checkpoint=embedder-1
    """

    from ..training.run import train_agcl as run

    with session.out:
        summary = run(session.work, dry_run=dry_run, force=force)
    if summary is not None:
        with reading_done(summary):
            _show(session, summary)


def _show(session: Session, summary: TrainingSummary) -> None:
    out, details = session.out, summary.details
    if show_training(session, "agcl", summary):
        show_estimate(session, "train-agcl", summary.estimate)
        return
    negatives = details["negatives"]
    rows: list[list[object]] = [[key, value] for key, value in details["metrics"].items()]
    rows += [["masked share of negatives", float(negatives["masked_share"])]]
    rows += [["share of negatives above the answer by the margin", float(negatives["too_similar_share"])]]
    if margin := details.get("nearest_margin"):  # runs of earlier versions have none
        rows += [["gradient's cosine with a constant margin's", float(margin["cosine"])]]
    out.table(["validation", "value"], rows)
    show_checkpoint(
        session, summary, "curve, metrics and the report on negatives", "embed --set model.embedder_checkpoint"
    )
    if not out.json_mode:
        for line in _measured_on(session, summary):
            out.text(line)


def _measured_on(session: Session, summary: TrainingSummary) -> list[str]:
    """Say what the metric is of, and how it differs from what `afmrl eval` will say."""
    # Runs of the first version have no description of their validation.
    validation, metrics = summary.details.get("validation"), summary.details["metrics"]
    metric = session.settings.agcl.best_by
    if not validation or metric not in metrics:
        return []
    kinds, plan = " and ".join(validation["kinds"]), summary.plan
    enriched = {"none": "no attributes", "query": "attributes on queries", "both": "attributes on both sides"}
    sizes = [int(str(plan.get(f"{side}_listings", 0))) for side in ("train", "validation", "test")]
    return [
        f"{metric} {metrics[metric]:.3f} (validation: {validation['queries']:,} queries of the kind {kinds}, "
        f"{enriched[validation['enrich']]}, gallery of {validation['gallery']:,})",
        f"{_evaluated_on(session, summary.checkpoint)} (test split: {sizes[2]:,} listings), in the whole catalog of "
        f"{sum(sizes):,}: in a larger gallery metrics are lower",
    ]


def _evaluated_on(session: Session, checkpoint: str) -> str:
    """Return what plain `afmrl eval` of the checkpoint will ask, found as it finds it."""
    from ..errors import DataError
    from ..evaluation.build import TaskSpec
    from ..evaluation.report import independent_queries
    from ..evaluation.seen import seen_by

    work = session.work.of_embedder()
    model = work.settings.model.model_copy(update={"embedder_checkpoint": checkpoint})
    settings = work.settings.model_copy(update={"model": model})
    trained = trained_by(settings, (), described=settings.embed.enrich != "none")
    spec = TaskSpec(seen=seen_by(trained, session.work.checkpoints))
    try:
        protocol, products = independent_queries(work.with_settings(settings), spec)
    except DataError as error:
        return f"afmrl eval has no queries: {error}"
    return f"afmrl eval (protocol {protocol}) asks about {products:,} products that training never saw"
