"""What every training run leaves behind, and how the next one finds it: done.json, the checkpoint, the curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..store.checkpoints import Checkpoints
from ..store.files import parse_json, reading, writing
from .curve import training_curve


def find_done(run: Path, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """What a finished run says of itself (done.json), None when it is not finished or its checkpoint is gone.

    `checkpoint` is "" where a run ended without one. Raises ModelError when its checkpoint is there and damaged,
    DataError when done.json is.
    """
    file = run / "done.json"
    if not file.is_file():
        return None
    with reading(file):
        content: dict[str, Any] = parse_json(file.read_text("utf-8"))
        name = str(content["checkpoint"])
    if not name:
        return content
    if not checkpoints.path(name).is_dir():
        return None
    checkpoints.get(name)
    return content


def refuse_taken_name(name: str, checkpoints: Checkpoints, run: Path) -> None:
    """Before hours of training rather than after them; the checkpoint of `run` itself, killed before it noted that, is
    none that is in the way.
    """
    if name and checkpoints.path(name).exists() and checkpoints.get(name).run != run.name:
        raise ModelError(f"checkpoint {name!r} exists already", "choose another --name")


def draw_curve(run: Path, left: str, right: str) -> None:
    """curve.svg from metrics.jsonl: the figure `left` of every step, and `eval_<right>` where it was measured."""
    file = run / "metrics.jsonl"
    with reading(file):
        rows = [parse_json(line) for line in file.read_text("utf-8").splitlines()]
        steps = [(row["step"], row[left]) for row in rows if left in row]
        measured = [(row["step"], row[f"eval_{right}"]) for row in rows if f"eval_{right}" in row]
    with writing(run / "curve.svg") as temporary:
        temporary.write_text(training_curve(run.name, steps, measured, f"validation {right}", left), "utf-8")
