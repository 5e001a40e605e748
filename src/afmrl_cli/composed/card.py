"""The model card of an embedder that was trained for composed queries."""

from __future__ import annotations

from ..models.templates import Template
from ..store.checkpoints import QUERY_WEIGHTS, WEIGHTS
from ..training.card import adapter_card, reading
from ..training.shell import Job
from .plan import Plan, describe


def composed_card(job: Job, plan: Plan, template: Template) -> str:
    """Return the card."""
    settings = plan.settings
    composed = {key: value for key, value in settings.composed.model_dump().items() if key != "name"}
    return adapter_card(
        job.base,
        job.parent,
        title="Product embedder for composed queries",
        tags=["afmrl", "product-retrieval", "composed-image-retrieval", "embedding"],
        trained=f"`afmrl train-composed` on {len(plan.train.rows):,} triplets of one catalog",
        use=[
            "With afmrl: `model.embedder_checkpoint` in afmrl.toml, then `afmrl search --image ... --change ...`.",
            f"Elsewhere these are plain PEFT adapters: `{WEIGHTS}` reads listings and plain queries;",
            f"`{QUERY_WEIGHTS}`, where it is there, has the same configuration and reads a photo with a change. Hang",
            "one on the base, write the text as follows (`\\n` is a line break),",
            *reading(template, settings.embed),
        ],
        content={"plan": describe(plan), "composed": composed},
    )
