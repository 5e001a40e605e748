"""Questions as the recommender is asked them: histories and candidates as text, drawn anew each time.

    history      the last `recommender.history` listings before, the latest last
    candidates   the target and others: a share `recommender.hard` of them from the first of the retrieval, the others
                 any; none of the history, no two of the same text; shuffled anew each time, so that no place means
                 anything
    ranked       what SFT writes: the target, then the others in the retrieval's order, as many as are asked for

The retrieval has learnt from the training part, so that its order among the training questions is not to be measured;
here it chooses wrong candidates, and the order behind the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..next_item.histories import Question, Recommender, Scores
from ..scores import best_first
from ..store.files import hash_json
from .prompt import folded
from .texts import Texts

NEAR = 50
"""First listings of the retrieval that hard candidates are drawn from."""
AT_A_TIME = 256


@dataclass(frozen=True)
class Example:
    """A question as text: `candidates` as they are shown, `target` and `ranked` places among them."""

    key: str
    history: tuple[str, ...]
    candidates: tuple[str, ...]
    target: int
    ranked: tuple[int, ...]


def key_of(ids: Sequence[str], question: Question) -> str:
    """Return what joins a reasoning with its question: a hash of what was taken, after what and when. Never its place
    in a list, which changes with the data; and no customer.
    """
    history = [[ids[item], int(time)] for item, time in zip(question.history, question.times, strict=True)]
    return hash_json([history, question.seconds, ids[question.target]])[:16]


def sampled(questions: Sequence[Question], ids: Sequence[str], most: int, seed: int) -> dict[str, Question]:
    """Return a fixed sample of at most `most` questions by their keys, in the order of these: customers are numbered
    by a key of the folder's own, and the same data must give the same run elsewhere.
    """
    by_key = {key_of(ids, question): question for question in questions}
    keys = sorted(by_key)
    if len(keys) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(keys), most, replace=False))
        keys = [keys[number] for number in chosen]
    return {key: by_key[key] for key in keys}


def first_of(recommender: Recommender, questions: Sequence[Question], number: int) -> list[NDArray[np.int64]]:
    """Return the first `number` listings by `recommender` for each question, best first."""
    found = []
    for begin in range(0, len(questions), AT_A_TIME):
        found += [first(row, number) for row in recommender.scores(questions[begin : begin + AT_A_TIME])]
    return found


def first(scores: Scores, number: int) -> NDArray[np.int64]:
    """Return the first `number` listings by scores [listings], best first; those of -inf are none."""
    there = np.flatnonzero(np.isfinite(scores))
    return np.asarray(best_first(scores[there], number, there)[0])


def history_lines(question: Question, texts: Texts, most: int) -> tuple[str, ...]:
    """Return the texts of the last `most` listings of a history, the latest last."""
    return tuple(texts.lines[item] for item in question.history[-most:])


def draw(
    key: str,
    question: Question,
    near: NDArray[np.int64],
    texts: Texts,
    sizes: tuple[int, int, float, int],
    rng: np.random.Generator,
) -> Example:
    """Draw a question's candidates; `near` are the retrieval's first listings for it, `sizes` are (history, candidates,
    share of hard ones, answers).
    """
    most, number, hard, answers = sizes
    seen = {int(item) for item in question.history} | {question.target}
    taken = {folded(texts.lines[question.target])}
    wrong: list[int] = []

    def take(items: NDArray[np.int64], wanted: int) -> None:
        for item in map(int, items):
            if len(wrong) >= wanted:
                return
            if item not in seen and (line := folded(texts.lines[item])) not in taken:
                taken.add(line)
                wrong.append(item)

    take(rng.permutation(near), round(hard * (number - 1)))
    # Enough of them to find `number` different ones, most likely; of a large catalog not all are shuffled.
    few = min(len(texts.lines), 4 * number + len(seen))
    take(rng.choice(len(texts.lines), few, replace=False), number - 1)
    if len(wrong) < number - 1:
        take(rng.permutation(len(texts.lines)), number - 1)
    place = {int(item): i for i, item in enumerate(near)}
    others = sorted(wrong, key=lambda item: place.get(item, len(near)))
    shown = [question.target, *wrong]
    order = rng.permutation(len(shown))
    at = {shown[old]: new for new, old in enumerate(order)}
    return Example(
        key,
        history_lines(question, texts, most),
        tuple(texts.lines[shown[old]] for old in order),
        at[question.target],
        tuple(at[item] for item in [question.target, *others][:answers]),
    )
