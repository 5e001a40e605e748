"""AGCL: the attribute-guided contrastive loss, as pure functions. Lines that begin with > are the paper's.

    > B_ij = BM25(attributes of query i, attributes of candidate j)
    > w_ij = exp(1 + tanh(B_ij))
    > L_i  = -log( w_ii e^{s_ii/tau} / ( w_ii e^{s_ii/tau} + sum_{j in N_i} w_ij e^{s_ij/tau} ) )
    > N_i  = the negatives of the batch that survive the false-negative mask

It is computed as the cross-entropy with target i over the logits s_ij/tau + ln w_ij, masked entries at -inf; with the
positive itself in the denominator it is finite even when every negative is masked. s is the cosine.

What the paper leaves open, and what we chose:
- Mask: j is no negative when s_ij > s_ii + delta, delta = 0.1, on cosines without gradient. Besides, always: candidates
  that are known positives, and candidates whose content is identical (`known`; `training.pairs` says what is). The
  positive is never masked.
- Weights and mask carry no gradient; a pair that a person rejected is never masked.

The forms of the weights (`agcl.weights`); all but the paper's leave the positive alone, w_ii = 1:

    paper       ln w_ij = 1 + tanh(B_ij), j = i too
    negatives   ln w_ij = 1 + tanh(B_ij)
    graded      ln w_ij = NATS B_ij / max_k B_ik                   k over the negatives of row i that are not known
    constant    ln w_ij = MARGIN                                   no attributes: what the others are compared with

With the paper's form no negative is ever heavier than in InfoNCE: the positive's own B is high, unrelated negatives
become lighter, and these have next to no mass in the softmax. `negatives` makes all related ones heavier, and since
tanh is flat from B = 2 on, nearly alike: a constant margin. `graded` spreads the related ones of a row over NATS, so
that the nearest by attributes pushes hardest. It pushes a duplicate that the catalog does not know of hardest, too,
which is what the mask is for. `training.margin` measures how far a form is from a constant.

Where `train-agcl` departs from the paper by default, because the paper's form did not beat InfoNCE on any set that we
measured and was worse on some (docs/lab/agcl-evidence.md):
- `agcl.weights = "negatives"`.
- `agcl.mask = false`: what stands above the positive is mostly what the model gets wrong, not a duplicate.
- `agcl.temperature = 0.05`. The paper names none; VLM2Vec, on which its embedder builds, has 0.02.
Scaling B before the tanh is left to the code that computes B (`training.lexical`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..training_settings import Weights

NATS = 3.0
"""By how many nats the negative that shares most with the query outweighs one that shares nothing, when graded."""
MARGIN = 1.5
"""The constant margin, in nats: in cosines MARGIN times the temperature."""


@dataclass(frozen=True)
class Loss:
    """A batch's loss and what went into it. `value` carries the gradient, all else is detached.

    `too_similar` and `known` [n, m] say which candidates were taken out, and why; `cosines` [n, m]; `log_weight` [n, m]
    is ln w, None where all weigh the same.
    """

    value: Tensor
    cosines: Tensor
    log_weight: Tensor | None
    too_similar: Tensor
    known: Tensor


def log_weights(bm25: Tensor, form: Weights, known: Tensor | None = None) -> Tensor:
    """Compute ln w [n, m] of BM25 scores [n, m] by one of the forms above; row i's positive is column i.

    `known` bool [n, m] are candidates that are no negatives: what they share is no measure for the others of the row.
    """
    if form == "paper":
        return 1 + torch.tanh(bm25)
    if form == "negatives":
        weights = 1 + torch.tanh(bm25)
    elif form == "graded":
        negatives = bm25.masked_fill(_eye(bm25) if known is None else _eye(bm25) | known, 0.0)
        most = negatives.max(1, keepdim=True).values
        weights = torch.where(most > 0, NATS * negatives / most, 0.0)
    else:
        weights = torch.full_like(bm25, MARGIN)
    return weights.masked_fill(_eye(bm25), 0.0)


def false_negatives(cosines: Tensor, delta: float) -> Tensor:
    """Return bool [n, m]: s_ij > s_ii + delta, the positive-anchored rule; never true at the positive. Without
    gradient.
    """
    cosines = cosines.detach()
    found = cosines > cosines.diagonal().unsqueeze(1) + delta
    return found & ~_eye(cosines)


def contrastive_loss(
    queries: Tensor,
    candidates: Tensor,
    *,
    temperature: float,
    log_weight: Tensor | None = None,
    delta: float | None = None,
    known: Tensor | None = None,
    rejected: Tensor | None = None,
) -> Loss:
    """Compute AGCL over `queries` [n, d] and `candidates` [m, d], m >= n, rows of length 1; candidate i is query i's
    positive.

    `log_weight` [n, m] is ln w (None: all equal, which is InfoNCE), `delta` the mask's margin (None: no mask), `known`
    bool [n, m] the candidates that are no negatives whatever their cosine, `rejected` [n, m] those that a
    person called another product: the mask leaves them.
    """
    cosines = queries @ candidates.T
    already = torch.zeros_like(cosines, dtype=torch.bool) if known is None else known & ~_eye(cosines)
    sure = torch.zeros_like(already) if rejected is None else rejected
    similar = torch.zeros_like(already) if delta is None else false_negatives(cosines, delta) & ~already & ~sure
    logits = cosines / temperature
    if log_weight is not None:
        log_weight = log_weight.detach().to(logits)
        logits = logits + log_weight
    logits = logits.masked_fill(similar | already, -math.inf)
    value = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
    return Loss(value, cosines.detach(), log_weight, similar, already)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(*like.shape, dtype=torch.bool, device=like.device)
