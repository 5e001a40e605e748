"""GRPO's loss with one importance ratio for each attribute (`rar.loss = pairs`, an experiment).

    s_gk = exp( 1/|k| sum over t in k of (ln pi(o_t) - ln pi_old(o_t)) )         k = the tokens of a `key: value` pair
    L    = -1/G sum over g of 1/K_g sum over k of min(s_gk A_g, clip(s_gk, 1 - eps, 1 + eps) A_g)  + beta KL

After Rank-GRPO, which has a ratio for each item of a recommended list. K_g = 1 is GSPO: one ratio for an answer. With
`grpo` and `dr_grpo` each token has its own. While every batch of answers is used once all ratios are 1, and what
differs is the weight of a token: here each pair of an answer counts the same, however many tokens its value has, and
each answer the same, however many pairs it has. As with `grpo` a right answer is reinforced more for each pair the
fewer it has.

Departures: Rank-GRPO also has an advantage of its own for each item, from what the list is worth from there on;
our reward is that of the whole answer. A separator belongs to the pair before it, the end token to the last one; an
answer that can't be parsed is divided at its semicolons all the same. KL is the mean over an answer's tokens as in
`grpo`, each weighed by its pair's ratio as TRL weighs it by the token's (`use_bias_correction_kl`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .shared_prefix import SharedPrefix

PAIRS = "pairs"
"""Under which name a batch holds the number of each token's pair."""


def pair_table(numbers: Sequence[Sequence[int]], width: int) -> Tensor:
    """Return the pairs' numbers of each answer's tokens as [answers, width]; what is padded has 0."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in numbers])


def pair_ratios(log_ratio: Tensor, pairs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return s and the number of tokens of each pair, [answers, pairs], of [answers, tokens]."""
    of_pair = functional.one_hot(pairs).to(log_ratio.dtype) * mask[..., None]
    sizes = of_pair.sum(1)
    return ((log_ratio[..., None] * of_pair).sum(1) / sizes.clamp(min=1)).exp(), sizes


def pair_objective(ratio: Tensor, sizes: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """Return what is maximised for each answer, without the KL: [answers]. `advantages` are [answers]."""
    worth = torch.min(ratio * advantages[:, None], ratio.clamp(1 - epsilon, 1 + epsilon) * advantages[:, None])
    there = sizes > 0
    return (worth * there).sum(1) / there.sum(1).clamp(min=1)


def loss_by_pairs(trainer: SharedPrefix, model: object, inputs: dict[str, Tensor]) -> Tensor:
    """Return the loss of a chunk, divided by the chunks of a step, and note its metrics under TRL's names."""
    mask = inputs["completion_mask"]
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        torch.cat([inputs["prompt_mask"], mask], 1),
        mask.shape[1],
        compute_entropy=True,
    )
    old = inputs.get("old_per_token_logps")
    pairs = inputs[PAIRS].to(mask.device)
    ratio, sizes = pair_ratios(logps - (logps.detach() if old is None else old), pairs, mask)
    loss: Tensor = -pair_objective(ratio, sizes, inputs["advantages"], trainer.epsilon_low).mean()
    metrics = trainer._metrics["train"]

    def token_mean(values: Tensor) -> float:
        """Return the mean over the tokens of this chunk in all processes."""
        of_all = trainer.accelerator.reduce(torch.stack([(values * mask).sum(), mask.sum()]), reduction="sum")
        return float(of_all[0] / of_all[1].clamp(min=1))

    if trainer.beta:
        behind = inputs["ref_per_token_logps"] - logps
        kl = (behind.exp() - behind - 1) * mask
        of_answer = (kl * ratio.gather(1, pairs)).sum(1) / mask.sum(1).clamp(min=1)
        loss = loss + trainer.beta * of_answer.mean()
        metrics["kl"].append(token_mean(kl.detach()))
    if entropies is not None:
        metrics["entropy"].append(token_mean(entropies.detach()))
    chunks: int = trainer.current_gradient_accumulation_steps
    return loss / chunks
