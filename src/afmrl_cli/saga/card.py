"""The model card of a vision encoder."""

from __future__ import annotations

from ..store.checkpoints import POOLER_WEIGHTS
from ..training.card import adapter_card
from ..training.shell import Job
from .plan import Plan, describe


def vision_card(job: Job, plan: Plan) -> str:
    """Return the card."""
    vision = {key: value for key, value in plan.settings.vision.model_dump().items() if key != "name"}
    return adapter_card(
        job.base,
        job.parent,
        title="Vision encoder for product photos",
        tags=["afmrl", "product-retrieval", "image-retrieval", "embedding"],
        trained=f"`afmrl train-vision` on {len(plan.photos.train.photos):,} photos of one catalog",
        use=[
            "With afmrl: `model.vision_checkpoint` in afmrl.toml, then `afmrl embed` and `afmrl search --image`.",
            "Elsewhere: `afmrl checkpoints export` writes the tower with the adapter merged in, and the pooler, as one",
            "module of plain transformers and torch. Here it is a PEFT adapter on the vision tower, and",
            f"`{POOLER_WEIGHTS}` pools the tokens that the tower's merger gives: softmax(query (key X)^T / sqrt(D)) X,",
            "`out`, length 1.",
        ],
        content={"plan": describe(plan), "vision": vision},
    )
