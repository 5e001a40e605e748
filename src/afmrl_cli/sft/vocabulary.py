"""Words that a base hardly learns to choose between: tokens whose vectors in the vocabulary's head are much the same.

    alike(a, b) = cos(head[a], head[b]) > 0.95

The head is frozen, so the score of a token is its row times what the adapter can change. Rows that have never
been a target in training drift to one direction, and an adapter hardly gets to prefer one of them to the other.
The built-in model has that for every word that is not in its own answers; models trained on text at large
should have little of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from ..listener import Listener
from ..models.generator import LocalGenerator

ALIKE = 0.95
MOST_TOKENS = 4000
WORTH_TELLING = 0.1


def indistinct(generator: LocalGenerator, answers: Sequence[str]) -> tuple[float, list[str]]:
    """Return (share of the targets' tokens that the base can't tell from another one of them, the most frequent of
    those).
    """
    tokenizer = generator.processor.tokenizer
    counts: Counter[int] = Counter()
    for ids in tokenizer(list(answers))["input_ids"]:
        counts.update(ids)
    tokens = [token for token, _ in counts.most_common(MOST_TOKENS)]
    with torch.no_grad():
        head = generator.loaded.causal.get_output_embeddings().weight[tokens].float()
        rows = torch.nn.functional.normalize(head, dim=1)
        alike = (rows @ rows.T).fill_diagonal_(-1.0).amax(1) > ALIKE
    found = [token for token, same in zip(tokens, alike.tolist(), strict=True) if same]
    words = [tokenizer.decode([token]).strip() for token in found[:6]]
    return sum(counts[token] for token in found) / max(1, counts.total()), words


def warn_of_indistinct(generator: LocalGenerator, answers: Sequence[str], listener: Listener) -> None:
    """Warn when a noticeable share of the targets can't be learnt on this base."""
    share, words = indistinct(generator, answers)
    if share > WORTH_TELLING:
        listener.warn(
            f"{share:.0%} of the targets' word pieces look alike to this base's output layer, such as "
            f"{', '.join(words)}: it will hardly learn to choose between them; "
            "use a larger base, or words that it writes"
        )
