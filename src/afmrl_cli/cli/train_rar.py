"""`afmrl train-rar`: trains the generator by what its attributes do to retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CheckFailed
from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start
from .training import DryRun, Force, estimate_document, show_estimate, show_plan

if TYPE_CHECKING:
    from ..rar.run import RarSummary


def train_rar(
    catalog: CatalogArgument = None,
    generator_checkpoint: Annotated[
        str | None, typer.Option("--from", help="SFT checkpoint to start from and be held to.", show_default=False)
    ] = None,
    from_base: Annotated[
        bool | None, typer.Option("--from-base", help="Start from the bare base instead.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    force: Force = False,
    steps: Annotated[int | None, typer.Option(help="Batches of answers, once used.", show_default=False)] = None,
    prompts: Annotated[int | None, typer.Option(help="Queries a step.", show_default=False)] = None,
    group: Annotated[int | None, typer.Option(help="Answers to each query.", show_default=False)] = None,
    k: Annotated[int | None, typer.Option("--k", help="Of the recall that is the reward.", show_default=False)] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the KL.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the sampled answers.", show_default=False)] = None,
    loss: Annotated[str | None, typer.Option(help="dr_grpo, dapo, bnpo or grpo.", show_default=False)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak.", show_default=False)] = None,
    chunk_answers: Annotated[
        int | None, typer.Option(help="Answers in memory at a time; lower it for less memory.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another run.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Of the checkpoint.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="Models: nano, paper or qwen3.", show_default=False)] = None,
    embedder_checkpoint: Annotated[
        str | None, typer.Option("--embedder", help="Checkpoint of the embedder that rewards.", show_default=False)
    ] = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Train the generator to write the attributes by which the frozen embedder finds products (RAR, GRPO).

    Interrupted or killed, the same command goes on from the last saved step. A run that collapses is stopped, its best
    step kept, and the exit code is 1.

    Example: afmrl train-rar --from generator-1 --embedder embedder-1 --dry-run
    """
    flags = {
        "model.generator_checkpoint": generator_checkpoint,
        "model.embedder_checkpoint": embedder_checkpoint,
        "model.preset": preset,
        "rar.from_base": from_base,
        "rar.steps": steps,
        "rar.prompts": prompts,
        "rar.group": group,
        "rar.k": k,
        "rar.beta": beta,
        "rar.temperature": temperature,
        "rar.loss": loss,
        "rar.learning_rate": learning_rate,
        "rar.chunk_answers": chunk_answers,
        "rar.seed": seed,
        "rar.name": name,
    }
    session = start(
        catalog,
        json_mode=json_mode,
        quiet=quiet,
        verbose=verbose,
        set_=set_,
        flags=flags,
        roles=("generator", "embedder"),
        writes=not dry_run,
    )

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
