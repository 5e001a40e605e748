"""What every training loop does beside its steps: where it begins, metrics.jsonl, the best adapter, and when it stops.

Two loops stand on this: `trainer` (AGCL, whose gradient is that of one big batch over several processes) and
`resumable` (transformers' and TRL's trainers, for SFT and RAR). Both write the same states, metrics and messages.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..store.files import write_json, writing_folder
from .state import cut_metrics, find_states

RECENT = 20
EXPLODED = 5.0
"""A loss above this many times the median of the RECENT last ones, plus this, has exploded."""


def begin(run: Path, *, first: bool) -> Path | None:
    """Return the state that `run` goes on from, None for a new run, and drop what was written after that state.

    Only the `first` of several processes drops anything.
    """
    state = next(reversed(find_states(run)), None)
    step = step_of(state)
    if first:
        for folder in run.glob("best-*"):
            if int(folder.name.removeprefix("best-")) > step:
                shutil.rmtree(folder)
        cut_metrics(run / "metrics.jsonl", step if state else -1)
    return state


def step_of(state: Path | None) -> int:
    """Return the step after which a state was saved, 0 for none."""
    return int(state.name.removeprefix("state-")) if state else 0


def write_metrics(run: Path, row: dict[str, Any]) -> None:
    """Append a row, with its step, to metrics.jsonl."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def keep_best(run: Path, step: int, save: Callable[[Path], None]) -> None:
    """Write `best-<step>` by `save(folder)`; the one before stays until a state names the new one, so that a kill in
    between goes on from the old state.
    """
    place = run / f"best-{step}"
    if not place.exists():
        with writing_folder(place) as folder:
            save(folder)


def drop_other_bests(run: Path, step: int | None) -> None:
    """Remove every best adapter but that of `step`, which the state just saved names."""
    for other in run.glob("best-*"):
        if other.name != f"best-{step}":
            shutil.rmtree(other)


def find_fault(loss: float, gradient: float = 0.0, recent: Sequence[float] = ()) -> str:
    """Say what is wrong with a step, "" for nothing: loss or gradient is no number, or the loss is far above `recent`.

    `recent` are the losses of the last steps; before there are RECENT of them no loss is too high.
    """
    usual = statistics.median(recent) if len(recent) >= RECENT else math.inf
    if math.isfinite(loss) and math.isfinite(gradient) and loss <= EXPLODED * usual + EXPLODED:
        return ""
    return f"loss {loss:g}" + (f", gradient {gradient:g}" if gradient else "")


def break_down(run: Path, step: int, fault: str, products: Sequence[str], *, first: bool) -> ModelError:
    """Return the error that ends a run before the optimiser takes over what would spoil the weights; the batch's
    products are listed in failed-batch.json.
    """
    if first:
        write_json(run / "failed-batch.json", {"step": step, "what": fault, "products": list(products)})
    states = find_states(run)
    named = f" on products {', '.join(products[:8])}" if products else ""
    more = f" and {len(products) - 8} more (failed-batch.json)" if len(products) > 8 else ""
    good = f"the last good state is {states[-1]}" if states else "there is no state yet"
    return ModelError(
        f"step {step}: training broke down ({fault}){named}{more}; {good}",
        "lower learning_rate; look at these products; try model.precision=fp32",
    )
