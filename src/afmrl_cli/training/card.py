"""The model card that lies in every adapter's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..models.presets import Base
from ..models.templates import Template, with_instructions
from ..settings import EmbedSettings
from ..store.checkpoints import Manifest, versions
from .plan import Plan, describe
from .shell import Job


def model_card(job: Job, plan: Plan, template: Template, margin: Mapping[str, float] | None) -> str:
    """Return the card of an embedder that was trained under `template`; `margin` says how far the loss was from a
    constant margin.
    """
    settings = plan.settings
    agcl = {key: value for key, value in settings.agcl.model_dump().items() if key != "name"}
    return adapter_card(
        job.base,
        job.parent,
        title="Product embedder",
        tags=["afmrl", "product-retrieval", "embedding"],
        trained=f"`afmrl train-agcl` ({plan.loss.title}) on {len(plan.corpus.train):,} listings of one catalog",
        use=[
            "With afmrl: `model.embedder_checkpoint` in afmrl.toml. Elsewhere it is a plain PEFT adapter: hang it on",
            "the base, write the text as follows (`\\n` is a line break),",
            *reading(template, settings.embed),
        ],
        content={"plan": describe(plan, job.work.part), "agcl": agcl} | ({"nearest_margin": margin} if margin else {}),
    )


def reading(template: Template, embed: EmbedSettings) -> list[str]:
    """Return the lines that say which hidden state is the vector, and how TEXT is written on either side."""
    embed = with_instructions(embed, template)
    instructions = {"queries": embed.query_instruction, "products": embed.target_instruction}
    written = {side: template.text("", own, "TEXT").replace("\n", "\\n") for side, own in instructions.items()}
    return [
        "take the last token's hidden state in the last layer, and divide it by its length.",
        "",
        *(f"- {side}: `{text}`" for side, text in written.items()),
    ]


def generator_card(
    base: Base, parent: Manifest | None, *, trained: str, template: str, content: Mapping[str, Any]
) -> str:
    """Return the card of a generator, with the prompt `template`."""
    return adapter_card(
        base,
        parent,
        title="Writer of product attributes",
        tags=["afmrl", "product-attributes"],
        trained=trained,
        use=[
            "With afmrl: `model.generator_checkpoint` in afmrl.toml, with the same `[attributes]`. Elsewhere it is a",
            "plain PEFT adapter on the language model, which vLLM serves too. The prompt, after the photos in the",
            "user's turn:",
            "",
            "```",
            template,
            "```",
        ],
        content=content,
    )


def adapter_card(
    base: Base,
    parent: Manifest | None,
    *,
    title: str,
    tags: Sequence[str],
    trained: str,
    use: Sequence[str],
    content: Mapping[str, Any],
) -> str:
    """Return what an adapter is, how it was trained, and how to use it, with and without afmrl. Names no folder.

    `trained` follows "Trained by"; `use` are lines of Markdown; `content` is shown as JSON, with versions beside it.
    """
    name = base.name.rstrip("/").rsplit("/", 1)[-1] if base.folder.as_posix() == base.name else base.name
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {name}",
        f"tags: [{', '.join(tags)}]",
        "---",
        "",
        f"# {title}: an adapter on {name}",
        "",
        f"Trained by {trained}" + (f", going on from the adapter {parent.name}." if parent else "."),
        f"The base's revision is `{base.revision}`.",
        "",
        "## How to use it",
        "",
        *use,
        "",
        "## What it was trained with",
        "",
        "```json",
        json.dumps({**content, "versions": versions()}, ensure_ascii=False, indent=1),
        "```",
        "",
        "It knows what its catalog taught it: measure it on your own products (`afmrl eval`) before you rely on it.",
    ]
    return "\n".join(lines) + "\n"
