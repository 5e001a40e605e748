"""How well a generator judges pairs of photos: right verdicts, readable ones, attributes by key.

accuracy   = share of pairs whose verdict is right; one that can't be read is wrong
exact      = share of answers that are the right one letter by letter
valid      = share of answers with a verdict
attributes = share of the known values that the answer has for the right photo, without regard to case, spacing,
             hyphens and the order of several
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..attributes.request import Generation
from ..intervals import interval_of_share
from ..listener import Listener
from ..saga.adjudicator import read_adjudication, read_descriptions, same_value
from ..settings import Settings
from .score import KeyScore, key_table

if TYPE_CHECKING:
    from ..models.generator import LocalGenerator
    from .pairs import PairExample

NO_VERDICT, CUT_OFF = "no verdict", "cut off"
AT_A_TIME = 128


@dataclass
class PairScore:
    """Metrics over pairs."""

    pairs: int = 0
    right: int = 0
    exact: int = 0
    tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    keys: dict[str, KeyScore] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Return {"accuracy", "exact", "valid", "attributes", "length"}."""
        pairs = self.pairs or 1
        return {
            "accuracy": self.right / pairs,
            "exact": self.exact / pairs,
            "valid": (self.pairs - sum(self.failures.values())) / pairs,
            "attributes": sum(key.normalised for key in self.keys.values())
            / (sum(key.references for key in self.keys.values()) or 1),
            "length": self.tokens / pairs,
        }

    def by_key(self) -> dict[str, dict[str, float]]:
        """Return {key: {"references", "exact", "accuracy"}}, the most frequent first."""
        return key_table(self.keys)

    def add(self, answer: Generation, tokens: int, example: PairExample) -> None:
        """Count the answer of `tokens` tokens about one pair."""
        self.pairs += 1
        self.tokens += tokens
        self.exact += answer.text.strip() == example.answer.strip()
        verdict = read_adjudication(answer.text, example.words).same
        if verdict is None:
            failure = CUT_OFF if answer.cut_off else NO_VERDICT
            self.failures[failure] = self.failures.get(failure, 0) + 1
        self.right += verdict is example.pair.same
        if not example.described:
            return
        photos = (example.pair.first, example.pair.second)
        for photo, described in zip(photos, read_descriptions(answer.text), strict=True):
            for key, value in photo.pairs.items():
                score = self.keys.setdefault(key, KeyScore())
                score.references += 1
                score.exact += described.get(key) == value
                score.normalised += key in described and same_value(described[key], value)


def near_chance(accuracy: float, pairs: int) -> bool:
    """Tell whether such a share of right verdicts about so many pairs may be luck: a coin is right half of the time."""
    return interval_of_share(accuracy, pairs)[0] <= 0.5


def score_pairs(
    generator: LocalGenerator, examples: Sequence[PairExample], settings: Settings, listener: Listener
) -> PairScore:
    """Let `generator` judge the examples' pairs."""
    score = PairScore()
    for begin in range(0, len(examples), AT_A_TIME):
        some = examples[begin : begin + AT_A_TIME]
        answers = generator.generate([example.request(generator, settings) for example in some])
        for example, answer in zip(some, answers, strict=True):
            tokens = len(generator.processor.tokenizer(answer.text)["input_ids"]) if answer.text else 0
            score.add(answer, tokens, example)
        listener.progress("validating", min(begin + AT_A_TIME, len(examples)), len(examples))
    return score
