"""Which loss the embedder is trained by. It is chosen once, in the plan; what follows takes it as a function.

A new loss is a function here and a line in `choose_loss`: it gets vectors and what is known of the batch, and gives an
`agcl.Loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..training_settings import AgclSettings
from .agcl import Loss, contrastive_loss, log_weights


@dataclass(frozen=True)
class Facts:
    """What is known of a batch of n pairs beside its vectors: `bm25` [n, n] of query i's attributes against target j's,
    `known` and `rejected` bool [n, n], as `contrastive_loss` takes them.
    """

    bm25: Tensor
    known: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Objective:
    """A loss: `compute(queries [n, d], targets [n, d], facts)`, and what it does with the negatives.

    `title` is what a model card calls it. `weighted`: by attributes, so that there must be some; `masked`: those above
    the positive are left out.
    """

    title: str
    compute: Callable[[Tensor, Tensor, Facts], Loss]
    weighted: bool = False
    masked: bool = False

    @property
    def plain(self) -> bool:
        """Tell whether attributes and mask change nothing: InfoNCE."""
        return not self.weighted and not self.masked


def choose_loss(agcl: AgclSettings) -> Objective:
    """Choose the loss that the settings name."""
    if agcl.loss == "infonce":
        return Objective("plain InfoNCE", partial(_infonce, agcl))
    weighted = agcl.weights != "constant"
    title = f"AGCL, weights {agcl.weights}" if weighted else "InfoNCE with a constant margin"
    return Objective(title, partial(_agcl, agcl), weighted=weighted, masked=agcl.mask)


def _infonce(agcl: AgclSettings, queries: Tensor, targets: Tensor, facts: Facts) -> Loss:
    """Compute InfoNCE: all weights equal, no mask by similarity."""
    return contrastive_loss(
        queries,
        targets,
        temperature=agcl.temperature,
        known=facts.known,
        rejected=facts.rejected,
    )


def _agcl(agcl: AgclSettings, queries: Tensor, targets: Tensor, facts: Facts) -> Loss:
    """Compute AGCL: negatives weighted by their attributes and, with `agcl.mask`, left out where they stand above the
    positive.
    """
    return contrastive_loss(
        queries,
        targets,
        temperature=agcl.temperature,
        log_weight=log_weights(facts.bm25, agcl.weights, facts.known),
        delta=agcl.mask_margin if agcl.mask else None,
        known=facts.known,
        rejected=facts.rejected,
    )
