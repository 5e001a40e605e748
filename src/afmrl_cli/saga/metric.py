"""Metric learning on pooled vectors: three losses, two of them pytorch-metric-learning's. Lines that begin with > are
the papers'.

x_i [D_e] are the vectors of a batch of m photos, of length 1, s the cosine, d the Euclidean distance.

Multi-Similarity (Wang et al. 2019), without proxies; P_i are the photos of i's class, N_i the others:

    > j of N_i is kept where s_ij > min_{k in P_i} s_ik - eps
    > j of P_i is kept where s_ij < max_{k in N_i} s_ik + eps
    > L = 1/m sum_i [ 1/alpha log( 1 + sum_{j in P_i kept} e^{-alpha (s_ij - base)} )
    >               + 1/beta  log( 1 + sum_{j in N_i kept} e^{ beta  (s_ij - base)} ) ]

with the authors' alpha 2, beta 50, base 0.5, eps 0.1. A photo of whose class, or of other classes, the batch has no
other photo adds 0; so may all of them. The library makes it 0, too, where one pair of each kind is kept in all.

Proxy-Anchor (Kim et al. 2020), with one learnt proxy p for each class:

    > L = 1/|P+| sum_{p in P+} log( 1 + sum_{x of p's class}     e^{-alpha (s(x, p) - margin)} )
    >   + 1/|P|  sum_{p in P}  log( 1 + sum_{x of other classes} e^{ alpha (s(x, p) + margin)} )

P are all proxies, P+ those whose class is in the batch; the authors' alpha 32, margin 0.1.

Potential Field (Bhatnagar and Ahuja 2025), with M learnt proxies for each class. Vectors and proxies are charges:

    > attraction -1 / d^alpha between charges of one class
    > repulsion   1 / d^alpha between charges of different classes within the radius delta, none beyond it
    > L = the total energy

Proxies start as Kaiming normal (fan out) drawn from `seed` by a generator of their own, and are used at length 1.

What was open to us in Potential Field, and what we chose:
- alpha = 1, delta = 1 (a cosine of about 0.5), M = 4. With a larger alpha the few nearest pairs are nearly all of the
  gradient, and less is learnt once it is clipped.
- d^2 = |x - y|^2 + 0.2^2 instead of |x - y|^2: energy and force stay bounded, and charges of different classes that lie
  very near each other go on repelling, which they would not if d were cut off.
- Repulsion is 1 / d^alpha - 1 / delta^alpha, so that it ends at 0 and not in a step; the force is the same.
- The energy is that of the photos and of the proxies of their classes in the field of all charges. What proxies of
  classes that are not in the batch have between each other is left out: with identities as classes that is too much.
- The proxies of one class do not attract each other, or they would become one.
- The total is divided by the number of pairs that attract: it does not shrink where there are more classes, and
  attraction and repulsion keep the proportion that they have in the sum.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

ALPHA, BETA, BASE, EPS = 2.0, 50.0, 0.5, 0.1
"""Of Multi-Similarity."""
ANCHOR_ALPHA, MARGIN = 32.0, 0.1
"""Of Proxy-Anchor."""
DECAY, RADIUS, SOFT, PROXIES = 1.0, 1.0, 0.2, 4
"""Of Potential Field: alpha, delta, what is added to a distance in squares, M."""


def make_metric(
    loss: Literal["multi-similarity", "proxy-anchor", "potential-field"], classes: int, dimension: int, seed: int
) -> nn.Module:
    """Make a loss for vectors [n, dimension] of length 1 and labels [n] from 0 to classes - 1. Its parameters are the
    proxies; Multi-Similarity has none.
    """
    if loss == "multi-similarity":
        return MultiSimilarity()
    if loss == "proxy-anchor":
        return _proxy_anchor(classes, dimension, seed)
    return PotentialField(classes, dimension, seed)


class MultiSimilarity(nn.Module):
    """The loss of that name on the pairs that it keeps, by pytorch-metric-learning; without parameters."""

    def __init__(self) -> None:
        super().__init__()
        from pytorch_metric_learning.losses import MultiSimilarityLoss
        from pytorch_metric_learning.miners import MultiSimilarityMiner

        self.kept = MultiSimilarityMiner(epsilon=EPS)
        self.loss = MultiSimilarityLoss(alpha=ALPHA, beta=BETA, base=BASE)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar."""
        loss: Tensor = self.loss(vectors, labels, self.kept(vectors, labels))
        return loss


def _proxy_anchor(classes: int, dimension: int, seed: int) -> nn.Module:
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    with torch.random.fork_rng():  # its own start, which would take from the training's random numbers, is replaced
        loss: nn.Module = ProxyAnchorLoss(classes, dimension, margin=MARGIN, alpha=ANCHOR_ALPHA)
    loss.proxies = _new_proxies(classes, dimension, seed)
    return loss


class PotentialField(nn.Module):
    """The loss of that name, with its `proxies` [classes * M, D_e], those of a class in succession."""

    def __init__(self, classes: int, dimension: int, seed: int) -> None:
        super().__init__()
        self.proxies = _new_proxies(classes * PROXIES, dimension, seed)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar."""
        owners = torch.arange(len(self.proxies), device=labels.device) // PROXIES
        return potential_field(vectors, labels, self.proxies, owners)


def _new_proxies(number: int, dimension: int, seed: int) -> nn.Parameter:
    proxies = torch.empty(number, dimension)
    nn.init.kaiming_normal_(proxies, mode="fan_out", generator=torch.Generator().manual_seed(seed))
    return nn.Parameter(proxies)


def potential_field(vectors: Tensor, labels: Tensor, proxies: Tensor, owners: Tensor) -> Tensor:
    """Compute the Potential Field loss of `vectors` [m, D_e] of length 1 with `labels` [m]; `owners` says of each proxy
    which label it stands for.
    """
    charges, classes = torch.cat([vectors, normalize(proxies, dim=1)]), torch.cat([labels, owners])
    number = torch.arange(len(charges), device=labels.device)
    rows, proxy = number[torch.isin(classes, labels)], number >= len(vectors)
    same = classes[rows, None] == classes[None, :]
    both = proxy[rows, None] & proxy[None, :]
    attracted = same & ~both & (rows[:, None] != number[None, :])
    squared = (2 - 2 * charges[rows] @ charges.T).clamp_min(0) + SOFT**2
    field = squared.pow(-DECAY / 2)
    attraction = field.masked_fill(~attracted, 0.0)
    repulsion = (field - math.pow(RADIUS, -DECAY)).clamp_min(0).masked_fill(same, 0.0)
    return (repulsion.sum() - attraction.sum()) / attracted.sum()
