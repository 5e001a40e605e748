"""The model card that lies in a generator adapter's folder."""

from __future__ import annotations

import json

from ..models.presets import Base
from ..store.checkpoints import Manifest, versions
from .plan import Plan, describe


def model_card(base: Base, plan: Plan, parent: Manifest | None) -> str:
    """What this adapter is, how it was trained, and how to use it, with and without afmrl. Names no folder."""
    name = base.name.rstrip("/").rsplit("/", 1)[-1] if base.folder.as_posix() == base.name else base.name
    sft = {key: value for key, value in plan.settings.sft.model_dump().items() if key not in ("name", "file")}
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {name}",
        "tags: [afmrl, product-attributes]",
        "---",
        "",
        f"# Writer of product attributes: an adapter on {name}",
        "",
        f"Trained by `afmrl train-sft` on {len(plan.corpus.train):,} products of one catalog"
        + (f", going on from the adapter {parent.name}." if parent else "."),
        f"The base's revision is `{base.revision}`.",
        "",
        "## How to use it",
        "",
        "With afmrl: `model.generator_checkpoint` in afmrl.toml, with the same `[attributes]`. Elsewhere it is a plain",
        "PEFT adapter on the language model, which vLLM serves too. The prompt, after the photos in the user's turn:",
        "",
        "```",
        plan.task.template,
        "```",
        "",
        "## What it was trained with",
        "",
        "```json",
        json.dumps({"plan": describe(plan), "sft": sft, "versions": versions()}, ensure_ascii=False, indent=1),
        "```",
        "",
        "It writes what its examples say: measure it on your own products before you rely on it.",
    ]
    return "\n".join(lines) + "\n"
