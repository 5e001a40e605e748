"""What the commands that train share: flags, their JSON document, and how a dry run and a checkpoint are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ..store.files import reading
from .options import Session
from .output import plain_text

if TYPE_CHECKING:
    from ..training.estimate import Estimate
    from ..training.shell import TrainingSummary

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and what it would take.")]
Force = Annotated[bool, typer.Option("--force", help="Train again what is done, or afresh what was stopped.")]


def reading_done(summary: TrainingSummary) -> contextlib.AbstractContextManager[None]:
    """Turn what a done.json that is not what was written leads to, when it is shown, into a DataError that names it."""
    return reading(summary.run / "done.json") if summary.already_done else contextlib.nullcontext()


def show_training(session: Session, name: str, summary: TrainingSummary, **changes: object) -> bool:
    """Write the JSON document of method `name` and, for a dry run, plan and estimate; return whether it was one.

    `changes` are details that are shown in another way than they are stored.
    """
    out, estimate = session.out, summary.estimate
    content = {
        "run": summary.run,
        "plan": summary.plan,
        "checkpoint": summary.checkpoint or None,
        **summary.details,
        **changes,
        "resumed_from": summary.resumed_from,
        "seconds": summary.seconds,
        "already_done": summary.already_done,
    }
    if estimate is not None:
        measured = {"peak_bytes": estimate.peak_bytes, "step_seconds": estimate.step_seconds}
        content["estimate"] = measured | {"seconds": estimate.whole_seconds}
        content["settings"] = session.settings.model_dump()
    out.document(f"afmrl.train-{name}/1", content)
    if estimate is not None:
        show_plan(session, name, summary.plan)
    return estimate is not None


def show_checkpoint(session: Session, summary: TrainingSummary, left: str, use: str) -> None:
    """Say which checkpoint was made, where what is `left` beside it is, and by which setting (`use`) it is used."""
    session.out.text(
        f"checkpoint {summary.checkpoint}" + (" (trained before; --force trains again)" * summary.already_done)
    )
    session.out.note(f"{left}: {summary.run}")
    session.out.note(f"use it: afmrl {use}={summary.checkpoint}")


def show_plan(session: Session, section: str, plan: Mapping[str, object]) -> None:
    """Show the settings of `section` and the plan, as tables."""
    # What is left open follows from the catalog and the model: the plan has it. A text there is another thing than a
    # number here: rar.gallery is how many listings, the plan's gallery a hash of them.
    written = getattr(session.settings, section)
    settings = written.model_dump(exclude=set(written.constants()))
    chosen = {
        key: value if isinstance(value, int) and isinstance(plan.get(key), str) else plan.get(key, value)
        for key, value in settings.items()
    }
    session.out.table(["setting", "value"], [[f"{section}.{key}", plain_text(value)] for key, value in chosen.items()])
    session.out.table(["plan", ""], [[key, plain_text(value)] for key, value in plan.items() if key != "room"])


def show_estimate(session: Session, command: str, estimate: Estimate | None) -> None:
    """Show what was measured and, where there is a formula for the command's memory, what the longest rows that the
    settings allow would take.
    """
    from ..catalog.read import most_photos
    from ..training.memory import estimate_stages

    if estimate is None:
        return
    memory, minutes = estimate.peak_bytes / 2**30, estimate.whole_seconds / 60
    whole = f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
    session.out.words(f"measured: {estimate.step_seconds:.2f} s a step, {whole} in all; peak memory {memory:.2f} GiB")
    photos = most_photos(session.folder, session.settings.catalog)
    for each in estimate_stages(session.settings, max(1, photos)):
        if each.stage == command:
            lower, most = ", then ".join(each.lower), each.beside(estimate.peak_bytes) / 2**30
            session.out.words(f"with the longest rows allowed, estimated: {most:.2f} GiB; for less, lower {lower}")
