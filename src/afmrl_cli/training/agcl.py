"""AGCL: the attribute-guided contrastive loss, as a pure function. Lines that begin with > are the paper's.

    > B_ij = BM25(attributes of query i, attributes of candidate j)
    > w_ij = exp(1 + tanh(B_ij))
    > L_i  = -log( w_ii e^{s_ii/tau} / ( w_ii e^{s_ii/tau} + sum_{j in N_i} w_ij e^{s_ij/tau} ) )
    > N_i  = the negatives of the batch that survive the false-negative mask

It is computed as the cross-entropy with target i over the logits s_ij/tau + 1 + tanh(B_ij), masked entries at -inf;
with the positive itself in the denominator it is finite even when every negative is masked. s is the cosine.

These functions are the paper's. What it leaves open, and what we chose:
- Mask: j is no negative when s_ij > s_ii + delta, delta = 0.1, on cosines without gradient. Besides, always: candidates
  that are known positives, and candidates whose content is identical (`known`; `training.pairs` says what is). The
  positive is never masked.
- Weights and mask carry no gradient; a pair that a person rejected is never masked.

Where `train-agcl` departs from the paper by default, because the paper's form did not beat InfoNCE on any set that we
measured and was worse on some (docs/lab/agcl-evidence.md):
- `agcl.weight_positive = false`: only the negatives of the denominator are weighted, by e to e^2. With the positive
  weighted as well, whose own B is high, no negative is ever heavier than in InfoNCE: unrelated ones become lighter.
- `agcl.mask = false`: what stands above the positive is mostly what the model gets wrong, not a duplicate.
- `agcl.temperature = 0.05`. The paper names none; VLM2Vec, on which its embedder builds, has 0.02.
Scaling B before the tanh is left to the code that computes B (`training.lexical`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A batch's loss and what went into it. `value` carries the gradient, all else is detached.

    `too_similar` and `known` [n, m] say which candidates were taken out, and why; `cosines` [n, m].
    """

    value: Tensor
    cosines: Tensor
    too_similar: Tensor
    known: Tensor


def log_weights(bm25: Tensor, *, weight_positive: bool = True) -> Tensor:
    """Compute ln w [n, m] of BM25 scores [n, m] (row i's positive is column i): 1 + tanh(B); 0 at the positives when
    they are not weighted.
    """
    weights = 1 + torch.tanh(bm25)
    if weight_positive:
        return weights
    rows = torch.arange(len(bm25), device=bm25.device)
    return weights.index_put((rows, rows), torch.zeros(len(bm25), dtype=bm25.dtype, device=bm25.device))


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
        logits = logits + log_weight.detach().to(logits)
    logits = logits.masked_fill(similar | already, -math.inf)
    value = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
    return Loss(value, cosines.detach(), similar, already)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(*like.shape, dtype=torch.bool, device=like.device)
