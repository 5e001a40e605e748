"""How well a generator answers: attribute accuracy per key, valid share, length.

    exact      = share of the reference's pairs whose value the answer has letter by letter, as the model wrote it
    normalised = the same without regard to case, spacing, hyphens and the order of several values, in the schema's
                 spelling; an invalid answer has nothing right

Pairs that the reference does not have are not wrong here, since a shop's table has gaps: they are counted (`extra`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..attributes.open_requests import open_request
from ..attributes.parse import InvalidAttributes, parse_attributes
from ..attributes.request import Generation
from ..attributes.schema import folded
from ..attributes.task import AttributeTask
from ..catalog.problems import Problems
from ..listener import Listener
from ..settings import Settings
from .corpus import Example

if TYPE_CHECKING:
    from ..models.generator import LocalGenerator


@dataclass
class KeyScore:
    """Pairs of one key: in the references, right letter by letter, right when normalised."""

    references: int = 0
    exact: int = 0
    normalised: int = 0


@dataclass
class Score:
    """Metrics over products. `length` is the mean number of tokens of an answer, `extra` of pairs that no
    reference has.
    """

    products: int = 0
    valid: int = 0
    tokens: int = 0
    extra_pairs: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    keys: dict[str, KeyScore] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Return {"accuracy", "exact", "valid", "length", "extra"}: shares over all reference pairs, or over
        products.
        """
        pairs = sum(key.references for key in self.keys.values()) or 1
        products = self.products or 1
        return {
            "accuracy": sum(key.normalised for key in self.keys.values()) / pairs,
            "exact": sum(key.exact for key in self.keys.values()) / pairs,
            "valid": self.valid / products,
            "length": self.tokens / products,
            "extra": self.extra_pairs / products,
        }

    def by_key(self) -> dict[str, dict[str, float]]:
        """Return {key: {"references", "exact", "accuracy"}}, the most frequent first."""
        return key_table(self.keys)

    def add(self, answer: Generation, tokens: int, example: Example, task: AttributeTask) -> None:
        """Count one product's answer of `tokens` tokens."""
        self.products += 1
        self.tokens += tokens
        valid, failure = task.read(answer, example.product)
        found = parse_attributes(valid, max_pairs=task.settings.max_pairs) if valid is not None else {}
        written = _written(answer.text, task) if valid is not None else {}
        if failure is None:
            self.valid += 1
        else:
            self.failures[failure] = self.failures.get(failure, 0) + 1
        self.extra_pairs += len(found.keys() - example.target.pairs.keys())
        for key, value in example.target.pairs.items():
            score = self.keys.setdefault(key, KeyScore())
            score.references += 1
            score.exact += written.get(key) == value
            score.normalised += key in found and _same(found[key]) == _same(value)


def joined(scores: Sequence[Any]) -> Any:
    """Add scores of one kind, `Score` or another one's, each over its own part of what is validated on."""
    first = scores[0]
    if isinstance(first, int):
        return sum(scores)
    if isinstance(first, dict):
        names = dict.fromkeys(name for each in scores for name in each)
        return {name: joined([each[name] for each in scores if name in each]) for name in names}
    return type(first)(*(joined([getattr(each, field.name) for each in scores]) for field in fields(first)))


def key_table(keys: Mapping[str, KeyScore]) -> dict[str, dict[str, float]]:
    """Return the shares that `keys` count, the most frequent key first."""
    ordered = sorted(keys.items(), key=lambda item: (-item[1].references, item[0]))
    return {
        key: {
            "references": score.references,
            "exact": score.exact / score.references,
            "accuracy": score.normalised / score.references,
        }
        for key, score in ordered
    }


def _same(value: str) -> frozenset[str]:
    return frozenset(folded(part) for part in value.split(","))


def _written(text: str, task: AttributeTask) -> Mapping[str, str]:
    try:
        return parse_attributes(text, max_pairs=task.settings.max_pairs)
    except InvalidAttributes:
        return {}


def score_generator(
    generator: LocalGenerator,
    examples: Sequence[Example],
    task: AttributeTask,
    settings: Settings,
    listener: Listener,
    what: str = "validating",
) -> Score:
    """Ask `generator` about the examples' products, in the same words and pictures as `afmrl attributes`."""
    score, problems = Score(), Problems()
    group = 4 * settings.attributes.batch_size
    for begin in range(0, len(examples), group):
        some = examples[begin : begin + group]
        opened = [open_request(task, example.product, settings, problems, generator) for example in some]
        readable = [(example, request) for example, request in zip(some, opened, strict=True) if request is not None]
        answers = generator.generate([request for _, request in readable])
        for (example, _), answer in zip(readable, answers, strict=True):
            tokens = len(generator.processor.tokenizer(answer.text)["input_ids"]) if answer.text else 0
            score.add(answer, tokens, example, task)
        listener.progress(what, min(begin + group, len(examples)), len(examples))
    return score
