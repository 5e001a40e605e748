"""`afmrl train-sft`: teaches the generator by examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start
from .training import DryRun, Force, estimate_document, show_estimate, show_plan

if TYPE_CHECKING:
    from ..sft.run import SftSummary


def train_sft(
    catalog: CatalogArgument = None,
    source: Annotated[
        str | None, typer.Option(help="Of the right answers: teacher, columns or file.", show_default=False)
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Whose stored attributes: id, folder or model name.", show_default=False)
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="The catalog's columns to learn, a,b,c.", show_default=False)
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Table with ids and attributes, from the catalog's folder.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    force: Force = False,
    epochs: Annotated[float | None, typer.Option(help="Times through all products.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of epochs.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Products in a step.", show_default=False)] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Products in memory at a time; lower it for less.", show_default=False)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another run.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Of the checkpoint.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="Models: nano, paper or qwen3.", show_default=False)] = None,
    generator: Annotated[str | None, typer.Option(help="Hub name or folder of a Qwen-VL.", show_default=False)] = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Teach the generator by right answers (SFT); the adapter goes into the checkpoint store.

    Interrupted or killed, the same command goes on from the last saved step.

    Example: afmrl train-sft --source columns; then afmrl attributes --set model.generator_checkpoint=generator-1
    """
    flags = {
        "sft.source": source,
        "sft.teacher": teacher,
        "sft.columns": columns,
        "sft.file": file,
        "sft.epochs": epochs,
        "sft.steps": steps,
        "sft.batch_size": batch_size,
        "sft.chunk_size": chunk_size,
        "sft.learning_rate": learning_rate,
        "sft.seed": seed,
        "sft.name": name,
        "model.preset": preset,
        "model.generator": generator,
    }
    session = start(
        catalog,
        json_mode=json_mode,
        quiet=quiet,
        verbose=verbose,
        set_=set_,
        flags=flags,
        roles=("generator",),
        writes=not dry_run,
    )

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
