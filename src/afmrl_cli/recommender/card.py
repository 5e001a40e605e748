"""The model card of a recommender."""

from __future__ import annotations

from ..training.card import adapter_card
from ..training.shell import Job
from .plan import Plan, describe
from .prompt import question_text


def recommender_card(job: Job, plan: Plan) -> str:
    """Return the card."""
    own = plan.settings.recommender
    shown = question_text(["LISTING", "LISTING"], ["CANDIDATE"] * own.candidates, own.answers)
    return adapter_card(
        job.base,
        job.parent,
        title="Recommender of products",
        tags=["afmrl", "sequential-recommendation"],
        trained=f"`afmrl train-recommender` on {len(plan.train):,} interactions with one catalog",
        use=[
            "With afmrl: `model.recommender_checkpoint` in afmrl.toml, then `afmrl recommend`. Elsewhere it is a plain",
            "PEFT adapter on the language model. The user's turn, a listing being a line of "
            f"{', '.join(own.text)} (values apart from each other by commas, parts by semicolons):",
            "",
            "```",
            shown,
            "```",
            "",
            "The answer are so many candidates, a line each. A candidate's score is the log-probability of its line as",
            "the first one, less that of the same line where the question shows no history.",
            "",
            "It has learnt from what customers did: who asks it often enough may find out what was bought together.",
            "Customers themselves are not in it: neither numbers nor names were read.",
        ],
        content={"plan": describe(plan), "recommender": own.model_dump(exclude={"name"})},
    )
