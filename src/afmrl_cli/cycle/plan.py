"""Whether the settings make a cycle, which one, how it differs from the one before, and the stages that it has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation.metrics import metric_names
from ..methods import METHODS
from ..models.backends import check_trainable
from ..settings import Settings
from ..sft.run import SFT
from ..store.checkpoints import BEST, LATEST
from ..store.files import hash_json, read_json
from ..store.folder import CatalogFolder
from ..store.runs import in_order
from .stages import Scored

SHOWN = 5
EVERY_ROUND = [method for method in METHODS.values() if method is not SFT]
"""The methods that every round trains by, in order; SFT teaches the generator once, before the first."""
SECTIONS = ("split", "model", "attributes", "embed", *METHODS, "eval", "cycle")
NOT_THE_CYCLE = {
    "cycle": {"iterations"},
    "model": {"fetch"},
    **{name: method.not_the_result for name, method in METHODS.items()},
}
"""Settings with which a cycle is still the same one: more rounds go on from those that are done."""


def refuse(settings: Settings) -> None:
    """Raise UsageError where a cycle can't work with the settings."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("cycle works in one process", "start it without torchrun")
    if settings.embed.enrich == "none":
        raise UsageError("embed.enrich = none: a cycle needs attributes on the queries", "set it to query or both")
    check_trainable(settings, "generator", "embedder")
    known = metric_names(settings.eval.ks)
    if settings.cycle.metric not in known:
        message = f"cycle.metric = {settings.cycle.metric}: not measured"
        raise UsageError(message, f"one of {', '.join(known)} (eval.ks)")
    for key in ("generator_checkpoint", "embedder_checkpoint"):
        if (name := getattr(settings.model, key)).rpartition(":")[2] in (LATEST, BEST):
            message = f"model.{key} = {name}: the label moves while the cycle trains"
            raise UsageError(message, "name the checkpoint itself")


def cycle_key(settings: Settings) -> str:
    """Hash the settings: the same key, the same cycle."""
    content = settings.model_dump()
    return hash_json({name: _without(content[name], NOT_THE_CYCLE.get(name, set())) for name in SECTIONS})[:10]


def _without(tree: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}


def cycles(folder: CatalogFolder) -> list[Path]:
    """Return cycle.json of every cycle of the catalog."""
    return list(folder.runs.glob("cycle-*/cycle.json"))


def changed_settings(folder: CatalogFolder, settings: Settings) -> list[str]:
    """Return a line for people about which settings differ from those of the last cycle of the catalog; none for the
    first.
    """
    others = in_order(cycles(folder))
    if not others:
        return []
    before, now = read_json(others[-1].with_name("settings.json")), settings.model_dump()
    changed = [
        f"{section}.{key}: {before.get(section, {}).get(key)!r} -> {value!r}"
        for section in SECTIONS
        for key, value in now[section].items()
        if before.get(section, {}).get(key) != value
    ]
    shown = "; ".join(changed[:SHOWN]) + ("; ..." if len(changed) > SHOWN else "")
    return [
        f"a new cycle, since settings differ from those of {others[-1].parent.name} ({shown}); "
        "trainings and attributes that they do not touch are taken over"
    ]


def planned(settings: Settings, *, taught: bool, scored: Sequence[Scored]) -> list[tuple[str, str, float]]:
    """Return (name, kind, share of the first round's training samples) of every stage, in order; `scored` are the
    splits that there are queries of.
    """
    validation, rounds = "validation" in scored, range(1, settings.cycle.iterations + 1)
    found: list[tuple[str, str, float]] = []
    keys: list[str] = []

    def score(key: str) -> None:
        keys.append(key)
        if validation:
            found.append((f"{key}-score", "score", 1.0))

    score("base")
    for number in rounds:
        share = settings.cycle.share if number > 1 else 1.0
        if number == 1:
            found += [("1-sft", "sft", 1.0)] if taught else []
            found.append(("1-attributes", "attributes", 1.0))
            if settings.cycle.infonce:
                found.append(("1-infonce", "infonce", 1.0))
                score("1-infonce")
        for method in EVERY_ROUND:
            key = f"{number}-{method.name}"
            found.append((key, method.name, share))
            if method.role == "generator":
                found.append((f"{key}-attributes", "attributes", 1.0))
            score(key)
            if number == 1 and method is EVERY_ROUND[0]:
                score("1-attributes")
    return found + [(f"{key}-test", "score", 1.0) for key in keys if "test" in scored]
