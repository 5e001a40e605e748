"""Validation on the held-out queries: greedy answers of the policy, how many are valid, and what they do to ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..attributes.parse import count_pairs
from ..escaping import markdown
from ..store.files import write_json, writing
from ..training.parallel import World, divided
from .environment import Environment, mean_recall
from .policy import Policy

SAMPLES = 10


@dataclass(frozen=True)
class Validation:
    """`metrics`: recall@k, mrr, valid_share and mean length (in pairs and in characters). `answers`: the first few as
    they came, invalid ones included.
    """

    metrics: dict[str, float]
    answers: list[str]


class HeldOut:
    """The held-out environment, and how its answers are generated. `main` is the metric by which the best is chosen:
    recall@k where that is rewarded, else MRR, since recall@k then stays the same from step to step. Every process
    answers its part, and all have the same metrics.
    """

    def __init__(self, environment: Environment, policy: Policy, world: World) -> None:
        k = environment.settings.rar.k
        self.environment, self.policy, self.world = environment, policy, world
        self.ks = sorted({1, 10, k})
        self.main = f"recall@{k}" if environment.settings.rar.reward == "recall" else "mrr"

    def plain(self) -> dict[str, float]:
        """Return recall and MRR of the queries without attributes."""

        def own(numbers: Sequence[int]) -> list[tuple[int, ...]]:
            return self.environment.ranks(numbers, [None] * len(numbers))

        return self._metrics(divided(len(self.environment.queries), own, self.world))

    def _metrics(self, ranks: Sequence[Sequence[int]]) -> dict[str, float]:
        return {**mean_recall(ranks, self.ks), "mrr": _mean([1 / min(each) for each in ranks])}

    def validate(self) -> Validation:
        """Answer every held-out query and rank the gallery by it."""

        def own(numbers: Sequence[int]) -> list[tuple[str, str | None, tuple[int, ...]]]:
            answers = self.policy.answers(self.environment, numbers)
            texts = [self.environment.read(number, answer) for number, answer in zip(numbers, answers, strict=True)]
            ranks = self.environment.ranks(numbers, texts)
            return list(zip([answer.text for answer in answers], texts, ranks, strict=True))

        answers, texts, ranks = zip(*divided(len(self.environment.queries), own, self.world), strict=True)
        valid = [text for text in texts if text is not None]
        metrics = {
            **self._metrics(ranks),
            "valid_share": len(valid) / len(texts),
            "pairs": _mean([count_pairs(text) for text in valid]),
            "characters": _mean([len(text) for text in valid]),
        }
        return Validation(metrics, list(answers[:SAMPLES]))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def write_samples(run: Path, environment: Environment, before: Sequence[str], after: Sequence[str], step: int) -> None:
    """Write samples.json, and samples.md for reading: what the generator said of the first held-out products and says
    now.
    """
    rows: list[Mapping[str, Any]] = [
        {
            "product": query.id,
            "text": query.side.text,
            "photos": [photo.path.name for photo in query.side.photos],
            "before": old,
            "after": new,
        }
        for query, old, new in zip(environment.queries, before, after, strict=False)
    ]
    write_json(run / "samples.json", {"step": step, "samples": rows})
    lines = [f"# Attributes before and after {step} steps", ""]
    for row in rows:
        shown = markdown(" / ".join([*row["text"].splitlines(), *row["photos"]]))
        after = "the same" if row["before"] == row["after"] else markdown(row["after"])
        lines += [f"**{markdown(row['product'])}**: {shown}", ""]
        lines += [f"- before: {markdown(row['before'])}", f"- after: {after}", ""]
    with writing(run / "samples.md") as temporary:
        temporary.write_text("\n".join(lines), "utf-8")
