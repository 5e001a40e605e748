"""Attention anchoring: the pooler learns where the language model looks. Lines that begin with > are the paper's.

    > a_t     = attention of one layer from the generated token t onto the patches of the photo that it describes,
    >           averaged over heads, then renormalised over that photo's patches
    > alpha   = mean over the tokens t of a_t
    > L_KL    = KL( alpha_a || beta_a ) + KL( alpha_b || beta_b )       a, b: the photos of a pair

beta is the pooler's attention (`saga.pooler`). The order matters: heads that look elsewhere count less in a_t, tokens
that look elsewhere count as much as others in alpha. alpha is detached, so that the gradient reaches beta only.

What the paper leaves open, or does otherwise, and what we chose:
- The mean over all photos of a step, not the sum over the two of a pair: the losses of two steps can be compared.
- A token that gives the photo no attention at all (0 in its precision) has no a_t and is left out; alpha is 0 where no
  token has one, and so is its KL.
- beta counts as the smallest number of its precision where it is 0, so that the loss is finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def teacher_attention(weights: Tensor, patches: Tensor) -> Tensor:
    """Compute alpha [p], which sums to 1, of the attention `weights` [heads, tokens, length] of a layer.

    `tokens` are those that describe the photo, `patches` [p] the columns where its patches stand. All 0 where there is
    no token, or none looks at the photo.
    """
    seen = weights.detach().float().mean(0)[:, patches]
    total = seen.sum(1, keepdim=True)
    there = total.squeeze(1) > 0
    if not bool(there.any()):
        return seen.new_zeros(len(patches))
    return (seen[there] / total[there]).mean(0)


def anchoring_loss(alpha: Sequence[Tensor], beta: Sequence[Tensor]) -> Tensor:
    """Compute the mean of KL(alpha || beta), a scalar, over one photo or more; both are [p] of the photo's patches."""
    return torch.stack([_divergence(a.detach().to(b), b) for a, b in zip(alpha, beta, strict=True)]).mean()


def _divergence(alpha: Tensor, beta: Tensor) -> Tensor:
    log_beta = beta.clamp_min(torch.finfo(beta.dtype).tiny).log()
    return (torch.xlogy(alpha, alpha) - alpha * log_beta).sum()
