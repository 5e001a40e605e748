"""What the three train commands share: flags, and how a dry run's settings, plan and estimate are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Session

if TYPE_CHECKING:
    from ..training.estimate import Estimate
    from ..training.memory import Stage

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and what it would take.")]
Force = Annotated[bool, typer.Option("--force", help="Train again what is done, or afresh what was stopped.")]


def estimate_document(session: Session, estimate: Estimate | None) -> dict[str, Any]:
    """What a dry run adds to the JSON document; nothing otherwise."""
    if estimate is None:
        return {}
    figures = {
        "peak_bytes": estimate.peak_bytes,
        "step_seconds": estimate.step_seconds,
        "seconds": estimate.whole_seconds,
    }
    return {"estimate": figures, "settings": session.settings.model_dump()}


def show_plan(session: Session, section: str, plan: Mapping[str, object]) -> None:
    """The settings of `section` and the plan, as tables."""
    # What is left open follows from the catalog and the model: the plan has it.
    written = getattr(session.settings, section)
    settings = written.model_dump(exclude=set(written.constants()))
    chosen = {key: plan.get(key, value) for key, value in settings.items()}
    session.out.table(["setting", "value"], [[f"{section}.{key}", _plain(value)] for key, value in chosen.items()])
    session.out.table(["plan", ""], [[key, _plain(value)] for key, value in plan.items()])


def show_estimate(session: Session, stage: Stage, estimate: Estimate) -> None:
    """What was measured, in a line; what the longest rows that the settings allow would take, in another."""
    from ..catalog.read import most_photos
    from ..training.memory import estimate_stages

    memory, hours = estimate.peak_bytes / 2**30, estimate.whole_seconds / 3600
    session.out.text(
        f"measured: {estimate.step_seconds:.2f} s a step, {hours:.2f} h in all; peak memory {memory:.2f} GiB"
    )
    photos = most_photos(session.folder, session.settings.catalog)
    for each in estimate_stages(session.settings, max(1, photos)):
        if each.stage == stage:
            lower, most = ", then ".join(each.lower), each.beside(estimate.peak_bytes) / 2**30
            session.out.text(f"with the longest rows allowed, estimated: {most:.2f} GiB; for less, lower {lower}")


def _plain(value: object) -> str:
    """A setting as one would type it: 5e-05 is not 0.0001."""
    if isinstance(value, dict):
        return ", ".join(f"{number:,} {name}" for name, number in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
