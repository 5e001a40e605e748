"""What a killed run goes on from: weights, optimiser and counters, written as one folder that is renamed into place.

No pickles: tensors are safetensors, the rest is JSON, with the checksums of all: a damaged state is refused. Random
numbers need no state, since every step draws its own from (seed, step, process).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import DataError, ModelError
from ..store.files import FILES, SEAL, find_damage, read_object, sealed, writing_folder

TENSORS, COUNTERS = "state.safetensors", "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_state(
    run: Path,
    step: int,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    counters: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write `state-<step>` and remove the older ones. `counters` is anything that JSON can hold; `files` are texts to
    put beside it by name.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for moment, value in optimizer.state[parameter].items():
            tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()
    place = run / f"state-{step}"
    if place.exists():
        return place
    with writing_folder(place) as folder:
        save_file(tensors, folder / TENSORS)
        for name, text in (files or {}).items():
            (folder / name).write_text(text, "utf-8")
        (folder / COUNTERS).write_text(json.dumps(sealed(json.loads(json.dumps(counters)), folder)), "utf-8")
    for other in find_states(run):
        if other != place:
            shutil.rmtree(other)
    return place


def find_states(run: Path) -> list[Path]:
    """Return the states in a run's folder, the latest last."""
    found = {path: path.name.removeprefix("state-") for path in run.glob("state-*")}
    return sorted((path for path, step in found.items() if step.isdecimal()), key=lambda path: int(found[path]))


def read_counters(place: Path) -> dict[str, Any]:
    """Return the counters of a state, once all of it is known to be what was saved. ModelError when it is not."""
    try:
        counters = read_object(place / COUNTERS)
        damage = find_damage(counters, place) if SEAL in counters else ""  # states of earlier versions have none
    except (OSError, DataError) as error:
        raise _unusable(place, error) from error
    if SEAL not in counters and "scheduler" not in counters:
        damage = f"{COUNTERS} holds no counters"
    if damage:
        raise _unusable(place, damage)
    return {key: value for key, value in counters.items() if key not in (FILES, SEAL)}


def _unusable(place: Path, reason: object) -> ModelError:
    said = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    return ModelError(f"{place}: can't go on from here: {said}", "start afresh with --force")


def load_state(
    place: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put weights and moments back; returns the counters. ModelError when the folder is damaged or does not fit."""
    # A fused AdamW keeps its count of steps where the parameters are, others on the CPU.
    fused = bool(optimizer.param_groups[0].get("fused"))
    counters = read_counters(place)
    try:
        tensors = load_file(place / TENSORS)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"weight.{name}"])
                if f"step.{name}" in tensors:
                    moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS}
                    optimizer.state[parameter] = {
                        moment: value if moment == "step" and not fused else value.to(parameter.device)
                        for moment, value in moments.items()
                    }
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _unusable(place, error) from error
    return counters


def cut_metrics(file: Path, step: int) -> None:
    """Leave out what a killed run wrote after its last state: it will be written again."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a killed run may be half a line
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    file.write_text("".join(kept), "utf-8")
