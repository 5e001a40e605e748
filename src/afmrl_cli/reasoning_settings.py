"""Settings of reasoning about histories: the keys of `[reasoning]`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from .section import EndpointSettings


class ReasoningSettings(EndpointSettings):
    """Reasoning about a customer's history, for a share of what the recommender learns from."""

    judge_temperature: ClassVar[float] = 0.7
    """Of the judge's answers, which must be able to differ."""

    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the training examples that reasoning is written for, such as 0.05 to 0.1; the filter "
        "keeps less of it; 0: none.",
    )
    place: Literal["prompt", "answer"] = Field(
        "prompt", description="Where it stands: in the prompt, as a given thought, or in the answer that is learnt."
    )
    filter: bool = Field(
        True,
        description="Keep only what names no target, is like the history, and leads the judge to the target; false: "
        "all that was written.",
    )
    judged: int = Field(4, ge=1, description="How often the judge chooses a product by one reasoning.")
    agreed: int = Field(3, ge=1, description="How many of these choices must be right.")
    max_new_tokens: int = Field(300, ge=8, description="Longest answer, in tokens, a model's thinking included.")
    temperature: float = Field(0.1, ge=0, description="Temperature of writing; 0: greedy.")
    seed: int = Field(0, description="Seed of the judge's candidates, and of sampling.")

    @model_validator(mode="after")
    def _can_agree(self) -> Self:
        if self.agreed > self.judged:
            raise ValueError("agreed can't be above judged")
        return self
