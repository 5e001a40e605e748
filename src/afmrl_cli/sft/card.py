"""The model card that lies in the folder of an adapter by `train-sft`."""

from __future__ import annotations

from ..models.presets import Base
from ..store.checkpoints import Manifest
from ..training.card import generator_card
from .plan import Plan, describe


def model_card(base: Base, plan: Plan, parent: Manifest | None) -> str:
    """What this adapter is, how it was trained, and how to use it, with and without afmrl. Names no folder."""
    sft = {key: value for key, value in plan.settings.sft.model_dump().items() if key not in ("name", "file")}
    return generator_card(
        base,
        parent,
        trained=f"`afmrl train-sft` on {len(plan.corpus.train):,} products of one catalog",
        template=plan.task.template,
        content={"plan": describe(plan), "sft": sft},
    )
