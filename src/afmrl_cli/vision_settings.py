"""Settings of the vision encoder's training: the keys of `[vision]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .section import Names
from .training_settings import TrainingSettings


class VisionSettings(TrainingSettings):
    """Training of the vision encoder: classes, losses, pairs, batches, optimiser."""

    role = "generator"
    rates = (1e-3, 2e-5)
    pooler_rate: ClassVar[float] = 5.0
    """Learning rate of the pooler, in units of the tower's."""
    proxy_rate: ClassVar[float] = 100.0
    """That of the proxies."""
    schedule: ClassVar[Literal["cosine"]] = "cosine"
    weight_decay: ClassVar[float] = 1e-4
    lora_dropout: ClassVar[float] = 0.0  # type: ignore[misc]
    """With dropout the rollouts would be sampled from another policy than the one that learns."""
    temperature: ClassVar[float] = 0.7
    top_p: ClassVar[float] = 0.95
    best_by: ClassVar[Literal["recall@1"]] = "recall@1"
    tries: ClassVar[int] = 3
    """Most pairs that are asked about in a step, in units of those that are learnt from."""

    classes: Names = Field(
        [],
        description="Columns and keys (also category) whose values make a class; empty: the product's identity.",
    )
    loss: Literal["multi-similarity", "proxy-anchor", "potential-field"] = Field(
        "multi-similarity", description="Metric learning on the pooled vectors."
    )
    pooling: Literal["attention", "mean"] = Field("attention", description="How a photo's tokens become one vector.")
    dimension: int = Field(0, ge=0, description="Numbers of a vector; 0: as many as the language model's states have.")
    grpo: float = Field(1.0, ge=0, description="Weight of GRPO through the frozen language model; 0: none.")
    anchoring: float = Field(
        0.1, ge=0, description="Weight of the attention that the pooler learns from the language model; 0: none."
    )
    prompt: Literal["schema", "generic"] = Field(
        "schema", description="What the generator is asked about a pair; generic: without a list of attributes."
    )
    layer: int = Field(
        0, ge=0, description="Layer of the language model, from 1, whose attention is learnt; 0: at 70 % of its depth."
    )
    group: int = Field(8, ge=2, description="G: answers about one pair that are compared with each other.")
    pairs: int = Field(8, ge=1, description="Pairs a step whose answers differ in their verdict.")
    max_new_tokens: int = Field(256, ge=16, description="Longest answer about a pair, in tokens.")
    batch_size: int = Field(0, ge=0, description="Photos in a step; 0: by their number, 64 at most.")
    photos_per_class: int = Field(4, ge=2, description="Photos of one class in a step.")
    chunk_photos: int = Field(
        0, ge=0, description="Photos that the tower is trained on at a time; 0: 64, with other models than nano 8."
    )
    chunk_answers: int = Field(
        0, ge=0, description="Answers that are trained on at a time; 0: 32, with other models than nano 4."
    )
    rollout_answers: int = Field(
        0, ge=0, description="Answers sampled at a time, in whole groups; 0: 1024, with other models than nano 16."
    )
    epochs: float = Field(
        0.0, ge=0, description="Times through all photos; 0: 3, on a small catalog as many as make up 40 steps."
    )
    learning_rate: float = Field(
        0.0, ge=0, description="Peak learning rate of the tower; 0: 1e-3 for nano, 2e-5 for all others."
    )
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps over which the learning rate rises.")
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a run, 50 steps apart at most."
    )
    validation_photos: int = Field(2000, ge=2, description="Most validation photos.")
    validation_pairs: int = Field(200, ge=2, description="Pairs by which it is known whether the generator can judge.")
    name: str = Field("", description="Name of the checkpoint; empty: vision-1, vision-2, ...")
