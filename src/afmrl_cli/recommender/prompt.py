"""What the recommender is asked, and how its answer is read.

    asked     the history, the latest last; reasoning, where it has its place there (`reasoning.place`); the candidates
    answered  the n likeliest candidates, a line each, the likeliest first, letter by letter

Every listing is a line of its own with MARK before it, as in any list; a small model has never written a word at the
beginning of a line, and does not learn to.

A listing is named by its text. MLLMRec-R1 writes "[ITEM_id] title": an id means nothing to a model that has never seen
it, and labels such as A, B, C would be learnt by their places. Candidates whose texts are equal but for capitals
can't be told apart, so no two of them stand in one question.
"""

from __future__ import annotations

from collections.abc import Sequence

HISTORY = "A customer had to do with these products, the latest last:"
REASONING = "What may be behind it:"
CANDIDATES = "Which of these comes next? Write the {n} likeliest, the likeliest first, a line each:"
MARK = "- "
ANSWER = "Next:"
"""What reasoning in an answer ends with (`reasoning.place = "answer"`)."""


def question_text(history: Sequence[str], candidates: Sequence[str], answers: int, reasoning: str = "") -> str:
    """Return the question about texts of listings; `answers` are written, at most as many as there are candidates."""
    behind = [REASONING, reasoning] if reasoning else []
    asked = CANDIDATES.format(n=min(answers, len(candidates)))
    return "\n".join([HISTORY, *map(listed, history), *behind, asked, *map(listed, candidates)])


def listed(line: str) -> str:
    """Return the text of a listing as a line of a list."""
    return f"{MARK}{line}"


def answer_text(ranked: Sequence[str], reasoning: str = "") -> str:
    """Return the answer that names the listings of these texts; with reasoning before it."""
    lines = "\n".join(map(listed, ranked))
    return f"{reasoning}\n{ANSWER}\n{lines}" if reasoning else lines


def read_answer(text: str, candidates: Sequence[str], answers: int) -> list[int] | None:
    """Return the places of the candidates that an answer names, best first; None where it is malformed: not the
    number asked for, something that is no candidate, or one twice.

    White space, capitals and a missing MARK make no difference. What is before these lines is reasoning, if it ends
    with `ANSWER`.
    """
    place = {folded(candidate): number for number, candidate in enumerate(candidates)}
    number = min(answers, len(candidates))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasoning, named = lines[:-number], [place.get(folded(line.removeprefix(MARK)), -1) for line in lines[-number:]]
    if len({*named} - {-1}) < number or (reasoning and reasoning[-1] != ANSWER):
        return None
    return named


def folded(line: str) -> str:
    """Return what a line is compared by."""
    return " ".join(line.casefold().split())
