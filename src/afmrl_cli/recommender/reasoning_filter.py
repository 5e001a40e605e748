"""Which reasoning is kept: the paper keeps it "where modality and prediction agree", and says no more of how.

    (a) prediction   the judge, who reads the reasoning and not the history, names the target in at least `agreed` of
                     `judged` questions, the candidates in another order each time
    (b) modality     cos(e(reasoning), mean of e(text) over the history)  >=  median of it over all that was written
    (c) target       neither the target's text nor its title or id stands in the reasoning
    (d) answers      that are empty, cut off, too long, refused, or an error of the server

At the median counts as above it (ties as `scores` has them), so of equal similarities all are kept, and a single
reasoning is. (a) uses the target, as training does, so it is for training examples alone. (d) is no judgement of
content: it holds without `reasoning.filter`, too. The paper's released code has none of these, and its refinement shows
the target to the writer.
"""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from ..attributes.chatter import declines
from ..attributes.request import Generation
from ..scores import TIE
from .reasoning_prompt import reasoning_of

EMPTY, CUT_OFF, TOO_LONG, REFUSED, ENDPOINT_ERROR = "empty", "cut off", "too long", "refused", "endpoint error"
NAMES_TARGET, MODALITY, PREDICTION = "names the target", "unlike the history", "judge misses the target"
UNJUDGED = "judge did not answer"
MOST_CHARS = 1600
"""Twice what the writer is asked for."""
COMPACT_CHARS = 8
"""From so many letters and digits on a name is found whatever stands between them: A-0012-X, A 0012 X, a0012x."""


def flaw_of(answer: Generation) -> str:
    """Return what is wrong with a writer's answer, whatever it says; "" for nothing."""
    if answer.refused:
        return REFUSED
    if answer.error is not None:
        return ENDPOINT_ERROR
    text = reasoning_of(answer.text)
    if answer.cut_off:
        return CUT_OFF
    if not any(char.isalpha() for char in text):
        return EMPTY
    if declines(text):
        return REFUSED
    return TOO_LONG if len(text) > MOST_CHARS else ""


def names_target(reasoning: str, names: Sequence[str]) -> bool:
    """Tell whether one of the target's names (text, title, id) stands in `reasoning`, whole, by letters and digits.

    A number of one or two digits names nothing: "3 to 5 criteria" is no product.
    """
    spaced = _plain(reasoning)
    compact = spaced.replace(" ", "")
    for name in map(_plain, names):
        short = name.replace(" ", "")
        if not short or (short.isdigit() and len(short) < 3):
            continue
        if f" {name} " in f" {spaced} " or (len(short) >= COMPACT_CHARS and short in compact):
            return True
    return False


def similarity(reasoning: NDArray[np.float32], history: NDArray[np.float32]) -> float:
    """Return the cosine of a vector [d] with the mean of the vectors [n, d]; 0 where one of them is nothing."""
    mean = history.mean(axis=0)
    lengths = float(np.linalg.norm(reasoning)) * float(np.linalg.norm(mean))
    return float(reasoning @ mean) / lengths if lengths else 0.0


def close_to_history(similarities: Mapping[str, float]) -> set[str]:
    """Return the keys at or above the median of `similarities`."""
    if not similarities:
        return set()
    middle = statistics.median(similarities.values())
    return {key for key, value in similarities.items() if value >= middle - TIE}


def shuffled(candidates: Sequence[str], seed: int, key: str, question: int) -> list[str]:
    """Return the candidates as the judge sees them in a question about the case `key`: an order of its own, whatever
    that of `candidates`.
    """
    found = sorted(candidates)
    Random(f"{seed} {key} {question}").shuffle(found)
    return found


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())
