"""The model card that lies in every adapter's folder."""

from __future__ import annotations

import json

from ..models.presets import Base
from ..store.checkpoints import Manifest, versions
from .plan import Plan, describe


def model_card(base: Base, plan: Plan, parent: Manifest | None) -> str:
    """What this adapter is, how it was trained, and how to use it, with and without afmrl. Names no folder."""
    settings = plan.settings
    name = base.name.rstrip("/").rsplit("/", 1)[-1] if base.folder.as_posix() == base.name else base.name
    agcl = {key: value for key, value in settings.agcl.model_dump().items() if key != "name"}
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {name}",
        "tags: [afmrl, product-retrieval, embedding]",
        "---",
        "",
        f"# Product embedder: an adapter on {name}",
        "",
        f"Trained by `afmrl train-agcl` ({'AGCL' if settings.agcl.loss == 'agcl' else 'plain InfoNCE'}) on "
        f"{len(plan.corpus.train):,} listings of one catalog"
        + (f", going on from the adapter {parent.name}." if parent else "."),
        f"The base's revision is `{base.revision}`.",
        "",
        "## How to use it",
        "",
        "With afmrl: `model.embedder_checkpoint` in afmrl.toml. Elsewhere it is a plain PEFT adapter: hang it on the",
        f"base, write `{settings.embed.query_instruction} <text>` (queries) or",
        f"`{settings.embed.target_instruction} <text>` (products) and a line break,",
        "take the last token's hidden state in the last layer, and divide it by its length.",
        "",
        "## What it was trained with",
        "",
        "```json",
        json.dumps({"plan": describe(plan), "agcl": agcl, "versions": versions()}, ensure_ascii=False, indent=1),
        "```",
        "",
        "It knows what its catalog taught it: measure it on your own products (`afmrl eval`) before you rely on it.",
    ]
    return "\n".join(lines) + "\n"
