"""How far a loss is from InfoNCE with a constant margin: two names for one loss are not to be compared.

    l_ij  = s_ij/tau + ln w_ij, masked entries at -inf                      the logits of the loss (`training.agcl`)
    g_i   = softmax(l_i) - e_i                                          its gradient by them, e_i = 1 at the positive
    q_ij  = e^{s_ij/tau} / sum_{k in M_i} e^{s_ik/tau}                      M_i: the negatives that are not known
    h_i(c) = a_i(c) (q_i, -1 at the positive)                               the gradient of "all negatives times e^c":
    a_i(c) = e^c S_i / (P_i + e^c S_i)                                      S_i of the negatives, P_i of the positive

The measure is the cosine of g and h(c) over all rows of all steps, at the c for which it is highest. At 1 the weights
are a constant margin of c tau in cosines, whatever they are called: the attributes change how hard is pushed, not what.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .agcl import Loss

CONSTANTS = tuple(round(0.1 * i, 1) for i in range(-20, 61))
"""The c that are tried, in nats."""
ALIKE = 0.99
"""From this cosine on it is called the same loss."""


@dataclass
class Margin:
    """Sums over a run: of <g, h(c)> and |h(c)|^2 for each of CONSTANTS, and of |g|^2."""

    products: list[float] = field(default_factory=lambda: [0.0] * len(CONSTANTS))
    lengths: list[float] = field(default_factory=lambda: [0.0] * len(CONSTANTS))
    own: float = 0.0

    def add(self, loss: Loss, temperature: float) -> None:
        """Add a batch."""
        product, length, own = compare(loss, temperature)
        self.products = [a + b for a, b in zip(self.products, product.tolist(), strict=True)]
        self.lengths = [a + b for a, b in zip(self.lengths, length.tolist(), strict=True)]
        self.own += float(own)

    def summary(self) -> dict[str, float] | None:
        """Return the nearest constant, in nats and as the factor on all negatives, and the cosine; None without a step
        that has a gradient.
        """
        found = [
            product / math.sqrt(length * self.own) if length * self.own > 0 else -1.0
            for product, length in zip(self.products, self.lengths, strict=True)
        ]
        best = max(range(len(found)), key=found.__getitem__)
        if found[best] < 0:
            return None
        return {"constant": CONSTANTS[best], "factor": math.exp(CONSTANTS[best]), "cosine": min(1.0, found[best])}


def compare(loss: Loss, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return <g, h(c)> and |h(c)|^2 for each of CONSTANTS, and |g|^2, summed over the rows of a batch, in float64."""
    plain = (loss.cosines.double() / temperature).masked_fill(loss.known, -math.inf)
    weighted = plain if loss.log_weight is None else plain + loss.log_weight.double()
    rows = torch.arange(len(plain), device=plain.device)
    gradient = weighted.masked_fill(loss.too_similar, -math.inf).softmax(1)
    gradient[rows, rows] -= 1
    negatives = plain.clone()
    negatives[rows, rows] = -math.inf
    mass = negatives.logsumexp(1)
    has_any = mass > -math.inf  # a row of which every candidate is known pushes nothing
    direction = torch.where(has_any[:, None], (negatives - mass[:, None]).exp(), 0.0)
    direction[rows, rows] = -1.0
    constants = torch.tensor(CONSTANTS, dtype=plain.dtype, device=plain.device)
    push = torch.sigmoid(constants[:, None] + (mass - plain.diagonal())[None, :])
    product, length = (direction * gradient).sum(1), direction.square().sum(1)
    return push @ product, push.square() @ length, gradient.square().sum()


def message(margin: dict[str, float]) -> str:
    """Say it for people."""
    found = f"gradient against InfoNCE with all negatives times {margin['factor']:.2f}: cosine {margin['cosine']:.4f}"
    if margin["cosine"] < ALIKE:
        return found
    return f"{found}: nearly the same loss, what it gains over InfoNCE a constant margin gains too"
