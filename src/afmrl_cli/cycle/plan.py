"""Whether the settings make a cycle, which one, how it differs from the one before, and the stages that it has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..catalog.folds import FOLDS
from ..catalog.splits import SHARE
from ..errors import UsageError
from ..evaluation.metrics import metric_names
from ..methods import METHODS
from ..models.backends import check_trainable
from ..models.presets import NANO, base_name
from ..settings import Settings
from ..sft.run import SFT
from ..store.checkpoints import BEST, LATEST
from ..store.files import hash_json, read_json
from ..store.folder import CatalogFolder
from ..store.runs import in_order
from ..training.plan import LEAST_BATCHES
from ..training.shell import Method
from ..training.sizes import peak_rate
from .folds import HALVES, FoldPlan
from .stages import Scored

SHOWN = 5
EVERY_ROUND = [method for method in METHODS.values() if method is not SFT]
"""The methods that every round trains by, in order; SFT teaches the generator once, before the first."""
SECTIONS = ("split", "model", "attributes", "embed", *METHODS, "eval", "cycle")
LATER_RATE, LATER_WARMUP = 1 / 3, 0.3
"""Of the embedder's training from the second round on: share of the learning rate, and share of the steps over which it
rises, so that its first steps don't undo what the first round has learnt."""
NOT_THE_CYCLE = {
    "cycle": {"iterations", "composed"},
    "model": {"fetch", "vision_checkpoint"},
    **{name: method.not_the_result for name, method in METHODS.items()},
}
"""Settings with which a cycle is still the same one: more rounds, and training for composed queries, go on
from what is done."""


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


def of_round(settings: Settings, method: Method, number: int, *, divided: bool) -> dict[str, Any]:
    """Return the settings of a method that differ in a round: the seed; from the second on `cycle.share` of samples and
    steps, and AGCL's rate and warm-up. `divided`: the embedder's share is a fold already.
    """
    own, share = getattr(settings, method.name), settings.cycle.share
    changes: dict[str, Any] = {"seed": own.seed + number - 1}
    if number == 1:
        return changes
    embedder = method.role == "embedder"
    changes["steps"] = own.steps and max(LEAST_BATCHES if embedder else 1, round(own.steps * share))
    if embedder:
        built_in = base_name(settings.model, "embedder") == NANO
        changes["learning_rate"] = LATER_RATE * peak_rate(settings, method.name, built_in=built_in)
        changes["warmup"] = max(own.warmup, LATER_WARMUP)
    if not (embedder and divided):
        samples = getattr(own, method.samples)
        changes[method.samples] = max(1, round(samples * share)) if isinstance(samples, int) else samples * share
    return changes


def planned(
    settings: Settings, plan: FoldPlan, *, taught: bool, scored: Sequence[Scored]
) -> list[tuple[str, str, float]]:
    """Return (name, kind, share of what its kind takes in the first round) of every stage, in order; `scored` are the
    splits that there are queries of.
    """
    found: list[tuple[str, str, float]] = []
    keys: list[str] = []

    def score(key: str) -> None:
        keys.append(key)
        if "validation" in scored:
            found.append((f"{key}-score", "score", 1.0))

    score("base")
    for number in range(1, plan.rounds + 1):
        share = settings.cycle.share if number > 1 else 1.0
        later = plan.share(("later",), HALVES) if plan.folds and number > 1 else share
        if number == 1:
            found += _before_training(settings, plan) if taught else [("1-attributes", "attributes", 1.0)]
            if settings.cycle.infonce:
                found.append(("1-infonce", "infonce", 1.0))
                score("1-infonce")
        for method in EVERY_ROUND:
            key = f"{number}-{method.name}"
            found.append((key, method.name, later if method.role == "embedder" else share))
            if method.role == "generator":
                found.append((f"{key}-attributes", "attributes", 1.0))
            score(key)
            if number == 1 and method is EVERY_ROUND[0]:
                score("1-attributes")
    return found + [(f"{key}-test", "score", 1.0) for key in keys if "test" in scored]


def _before_training(settings: Settings, plan: FoldPlan) -> list[tuple[str, str, float]]:
    """Return the stages of the first round before AGCL where the generator is taught."""
    found = [("1-sft", "sft", 1.0), ("1-attributes", "attributes", 1.0)]
    if plan.folds is None:
        return found
    train = 1.0 - sum(getattr(settings.split, side) or SHARE for side in ("validation", "test"))
    found += [(f"1-sft-{half}", "sft", plan.share((half,), HALVES)) for half in HALVES]
    return found + [(f"1-attributes-{half}", "attributes", train * plan.share((half,), FOLDS)) for half in HALVES]
