"""What a generator's answers about one product say together, and how sure each pair is.

    confidence(key: value) = 1/n  sum over the n answers of  p_i   where answer i says it, else 0

p_i is the probability of the value's tokens where the generator tells it (local models do), 1 where it does not. With
`attributes.agreement = together` there is one answer, from all photos at once (n = 1), and of a server, which tells
nothing, no confidence. With `vote` and `majority` there is one answer for each photo, all with the product's text. A
photo whose answer was invalid or refused, or that does not name the key, has said nothing of it:

    vote      the value that the most photos say, unless more say nothing of the key
    majority  the value that more than half of the photos say

Of two values that are said as often, the one of the earlier photo stands. The confidence is stored with the text, also
of what `attributes.min_confidence` leaves out when it is read (`views`), so that another threshold asks nobody again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..catalog.product import Product
from ..store.database import StoredAttributes
from .parse import read_stored, write_attributes
from .request import Generation, Request
from .schema import AttributeSchema, folded
from .task import AttributeTask

REFUSED = "refused"
"""The failure of an answer that the model or a filter declined."""


@dataclass(frozen=True)
class Reading:
    """A product's answers as one: attribute text, or a failure, and the confidence of its pairs (None: not given)."""

    text: str | None
    failure: str | None = None
    confidence: Mapping[str, float] | None = None


def requests_of(request: Request, agreement: str) -> list[Request]:
    """Return the requests about one product: one about all of its photos, or one about each."""
    if agreement == "together" or len(request.images) < 2:
        return [request]
    return [replace(request, images=(image,)) for image in request.images]


def read_together(answers: Sequence[Generation], product: Product, task: AttributeTask) -> Reading:
    """Read the answers to `requests_of`; none of them is an error of the server."""
    read = [(None, REFUSED) if answer.refused else task.read(answer, product) for answer in answers]
    valid = [text for text, _ in read if text is not None]
    if not valid:
        return Reading(None, read[0][1])
    has_confidence = any(answer.confidence is not None for answer in answers)
    if len(answers) == 1 and not has_confidence and task.settings.agreement == "together":
        return Reading(valid[0])
    said = [_sure_pairs(text, answer.confidence) for (text, _), answer in zip(read, answers, strict=True)]
    return _agreed(said, task)


def _sure_pairs(text: str | None, confidence: Mapping[str, float] | None) -> dict[str, tuple[str, float]]:
    """Return the pairs of an answer with their probabilities; none of an answer that is not valid."""
    pairs = read_stored(text) if text else {}
    if confidence is None:
        return {key: (value, 1.0) for key, value in pairs.items()}
    sure = {folded(key): p for key, p in confidence.items()}
    return {key: (value, sure[folded(key)]) for key, value in pairs.items()}


def _agreed(said: Sequence[Mapping[str, tuple[str, float]]], task: AttributeTask) -> Reading:
    """Return what the answers agree on, keys in the order in which they are first named."""
    majority, settings = task.settings.agreement == "majority", task.settings
    found: dict[str, tuple[str, float]] = {}
    for key in dict.fromkeys(key for pairs in said for key in pairs):
        values: dict[object, list[tuple[str, float]]] = {}
        for pairs in said:
            if key in pairs:
                values.setdefault(_same(pairs[key][0], key, task.schema), []).append(pairs[key])
        best = max(values.values(), key=len)  # the first of several
        silent = len(said) - sum(map(len, values.values()))
        if len(best) * 2 > len(said) if majority else len(best) >= silent:
            found[key] = best[0][0], sum(p for _, p in best) / len(said)
    if len(found) < settings.min_pairs:
        return Reading(None, "too few pairs")
    surest = sorted(found, key=lambda key: -found[key][1])[: settings.max_pairs]
    found = {key: pair for key, pair in found.items() if key in surest}
    text = write_attributes((key, value) for key, (value, _) in found.items())
    return Reading(text, None, {key: p for key, (_, p) in found.items()})


def _same(value: str, key: str, schema: AttributeSchema) -> object:
    """Return what is equal for values that say the same: case aside, and of several the order."""
    entry = schema.keys.get(key)
    several = entry is not None and entry.multiple
    return frozenset(map(folded, value.split(", "))) if several else folded(value)


def write_confidence(confidence: Mapping[str, float]) -> str:
    """Write the confidence of pairs as it is stored, in attribute text's form."""
    return write_attributes({key: f"{p:.4f}" for key, p in confidence.items()})


def read_confidence(row: StoredAttributes) -> dict[str, float]:
    """Read what is stored of a row's confidence; {} for nothing."""
    return {key: float(p) for key, p in read_stored(row.confidence or "").items()}


def surest(text: str, confidence: Mapping[str, float], least: float) -> str:
    """Return attribute text without the pairs whose confidence is below `least`."""
    return write_attributes((key, value) for key, value in read_stored(text).items() if confidence[key] >= least)


def confident(row: StoredAttributes, least: float) -> StoredAttributes | None:
    """Return `row` without the pairs whose confidence is below `least`; None where it has none."""
    if not least or row.failure is not None:
        return row
    if row.confidence is None:
        return None
    return replace(row, text=surest(row.text, read_confidence(row), least))
