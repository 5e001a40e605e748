"""Stages of one training, one after the other: what each leaves in its folder of the run, and how the next goes on.

<run>/<stage>/    all that a training's folder holds (`loop`), and done.json when the stage has ended
<run>/metrics.jsonl    the rows of all stages: the steps of a later one go on from those before
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from peft import PeftModel, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import DataError, ModelError
from ..store.checkpoints import WEIGHTS
from ..store.files import parse_json, read_object, reading, write_json, writing
from ..store.strict import validated
from .adapter import ADAPTER_NAME

DONE = "done.json"
AFRESH = "start afresh with --force"


@dataclass(frozen=True)
class Done:
    """A stage that has ended: the folder of its best adapter, metrics before the first step and of the best one, and
    what else it says of itself."""

    adapter: Path
    start: dict[str, float]
    best: dict[str, float]
    seconds: float
    resumed_from: int
    said: str = ""

    def gained(self, by: str, least: float = 0.0) -> bool:
        """Tell whether the best step was better than the start by more than `least`; True where nothing was
        measured.
        """
        return not self.start or self.best[by] - self.start[by] > least


class _DoneFile(BaseModel):
    """done.json of a stage."""

    model_config = ConfigDict(strict=True)

    best: Annotated[str, Field(pattern=r"^best-[0-9]{1,9}$")]
    start: dict[str, FiniteFloat]
    metrics: dict[str, FiniteFloat]
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    said: Annotated[str, Field(max_length=500)] = ""


def write_done(place: Path, done: Done) -> None:
    """Note that the stage in `place` has ended."""
    content: dict[str, Any] = {
        "best": done.adapter.name,
        "start": done.start,
        "metrics": done.best,
        "seconds": done.seconds,
    }
    write_json(place / DONE, content | ({"said": done.said} if done.said else {}))


def read_done(place: Path, metrics: AbstractSet[str]) -> Done | None:
    """Return the stage in `place`, whose metrics are those of these names or none; None when it has not ended.
    DataError when its files are not what was written.
    """
    file = place / DONE
    if not file.is_file():
        return None
    with reading(file):
        found = validated(_DoneFile, read_object(file))
        names = found.start.keys()
        if names != found.metrics.keys() or (names and names != metrics):
            raise ValueError("other metrics")
    adapter = place / found.best
    if adapter.is_symlink() or not adapter.is_dir() or any(each.is_symlink() for each in adapter.iterdir()):
        raise DataError(f"{adapter}: not the adapter that this stage left", AFRESH)
    return Done(adapter, found.start, found.metrics, found.seconds, 0, found.said)


def load_weights(model: PeftModel, folder: Path) -> None:
    """Put the adapter in `folder` in place of the one that is trained. ModelError when it does not fit."""
    try:
        tensors = load_file(folder / WEIGHTS)
        expected = sum(f".{ADAPTER_NAME}." in name for name, _ in model.named_parameters())
        if set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER_NAME).unexpected_keys or (
            len(tensors) != expected
        ):
            raise ValueError("its tensors are not those that are trained")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise ModelError(f"{folder / WEIGHTS}: can't go on from here: {reason}", AFRESH) from error


def join_metrics(run: Path, steps: Mapping[str, int]) -> None:
    """Write metrics.jsonl of the whole run; `steps` are those of its stages, in their order."""
    rows, before = [], 0
    for name, number in steps.items():
        file = run / name / "metrics.jsonl"
        with reading(file):
            for line in file.read_text("utf-8").splitlines():
                row = parse_json(line)
                rows.append({**row, "step": row["step"] + before, "stage": name})
        before += number
    with writing(run / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
