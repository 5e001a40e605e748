"""The losses of composed retrieval, as pure functions. Lines that begin with > are the papers'.

    > q = f(photos of the reference, then the change)   s = f(photos of the reference)   d = f(target)   c = f(caption)
    > stage 1   L = InfoNCE(q, d) + l1 InfoNCE(s, c of the reference) + l2 InfoNCE(d, c of the target)
    > stage 2   L = CE(q B' / tau, the target's row)
                    + w CE(q C' / tau, the target's caption)

B are the vectors of all training listings by stage 1's f, encoded once: they stay, and the query's side alone learns.
C are, for each query, the target's caption and captions with one value of it replaced. The caption of a listing is its
attribute text. Stage 1 is ProCIR's (FashionMV, 2026), stage 2 SPN4CIR's (2024); the option w is what "negatives by
perturbed attributes" of the fashion retrieval paper of 2025 may mean.

What the papers leave open, or do otherwise, and what we chose:
- s is read in the forward of q, at the token that closes the last photo: the model is causal, so nothing of the change
  is in it. ProCIR writes two turns.
- l1 = l2 = `composed.caption_weight`; the captions of references and of targets are candidates together, and equal ones
  of a batch are one, so that none is a false negative.
- tau = `composed.temperature`, one for all (SPN4CIR: 0.01 in stage 1, 0.02 in stage 2, for CLIP).
- Stage 2 of SPN4CIR trains CLIP's text encoder, and the reference's vector stays; here one model reads photo and
  change, so that the query adapter changes how the reference is read, too.
- No negatives are listings that answer the query as well as the target does: of its product, or as it is by all
  attributes (of variants: in its style alone). The reference is one, in B as it is.
- Perturbed captions are compared with the true caption and not with B: texts lie elsewhere than listings do, so that
  among listings they would be easy negatives.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class BatchVectors:
    """What stage 1 compares, rows of length 1: `queries`, `references` (s) and `targets` [n, d], `captions` [m, d].

    `of_reference` and `of_target` [n] say which caption is whose, -1 for none. `answers` bool [n, n]: target j answers
    query i; i's own does.
    """

    queries: Tensor
    references: Tensor
    targets: Tensor
    captions: Tensor
    of_reference: Tensor
    of_target: Tensor
    answers: Tensor


def batch_loss(vectors: BatchVectors, *, temperature: float, caption_weight: float) -> Tensor:
    """Compute the loss of stage 1, a scalar."""
    logits = vectors.queries @ vectors.targets.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    others = vectors.answers & (own[:, None] != own[None, :])
    loss = cross_entropy(logits.masked_fill(others, -math.inf), own)
    if caption_weight and len(vectors.captions):
        for rows, captions in ((vectors.references, vectors.of_reference), (vectors.targets, vectors.of_target)):
            loss = loss + caption_weight * _alignment(rows, vectors.captions, captions, temperature)
    return loss


def _alignment(rows: Tensor, captions: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE of rows against all captions, over the rows that have one; 0 where none has."""
    there = own >= 0
    if not bool(there.any()):
        return rows.sum() * 0
    return cross_entropy(rows[there] @ captions.T / temperature, own[there])


def bank_loss(
    queries: Tensor, bank: Tensor, targets: Tensor, answers: Sequence[Collection[int]], temperature: float
) -> Tensor:
    """Compute CE of `queries` [n, d] over the rows of `bank` [N, d], summed over the queries.

    `targets` [n] are the right rows; `answers` are, for each query, all rows that answer it, the right one among them.
    """
    logits = queries @ bank.T / temperature
    own = torch.arange(len(logits))
    query = own.repeat_interleave(torch.tensor([len(rows) for rows in answers]))
    row = torch.tensor([row for rows in answers for row in rows], dtype=torch.long)
    mask = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    mask[query.to(logits.device), row.to(logits.device)] = True
    mask[own.to(logits.device), targets] = False
    return cross_entropy(logits.masked_fill(mask, -math.inf), targets, reduction="sum")


def perturbed_loss(queries: Tensor, captions: Tensor, temperature: float) -> Tensor:
    """Compute CE of `queries` [n, d] over `captions` [n, k, d], whose first one is the target's, summed."""
    logits = torch.einsum("nd,nkd->nk", queries, captions) / temperature
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="sum")
