"""What the generator is asked about two photos, the answer that is taught, and how any answer is read.

    Photo 1: key: value; key: value
    Photo 2: key: value; key: value
    Differences: key, key              none, where there are none
    Same: yes                          the reranker's words (`models.reranker.choose_words`)

Photos alone are shown: a product's text would give its class away. Descriptions come first, so that the verdict can
follow from them. The generic question has neither a role nor a list of attributes, and its answer no descriptions.

A large model that was never taught writes Markdown or JSON of the same keys: that is read, too. A verdict counts where
the last line (or key) called Same holds one of the two words and not the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..attributes.parse import write_attributes
from ..attributes.request import Request
from ..attributes.schema import folded
from ..catalog.pictures import Picture
from ..settings import AttributeSettings, CatalogSettings, Settings

if TYPE_CHECKING:
    from ..models.generator import LocalGenerator

Prompt = Literal["schema", "generic"]
FEW = 12
"""Allowed values of a key that the question names; of more only the key."""
NONE = "none"
"""Stands for no differences."""

_DECORATION = r"[\s#>*_`\"'\-]*"
_PHOTO = r"(?im)(?:^|[{{,]){0}(?:photo|image|picture|item|product)[\s_-]*{1}\b[\"'*_`]*[ \t]*:?[\"'*_`]*"
_END = re.compile(rf"(?im)(?:^|[,}}]){_DECORATION}(?:key[ _])?(?:differences?|same)[\"'*_`]*[ \t]*:")
_SAME = re.compile(r"(?i)(?<![^\W_])same[\"'*_`]*[ \t]*[:=][\"'*_`]*\s*([^\n]*)")
_QUOTED = r'"((?:[^"\\\n]|\\.)*)"'
_JSON_PAIR = re.compile(rf"{_QUOTED}\s*:\s*(?:{_QUOTED}|\[([^\]]*)\])")
_PART = re.compile(r"[^;\n]+")
_KEY = re.compile(r"[\s*_`#>•\-]*(?:\d+[.)]\s*)?[^:\uff1a]*[:\uff1a][\s*_`\"']*")
_AFTER_VALUE = " \t\r*_`\"',."


@dataclass(frozen=True)
class Question:
    """What is asked about two photos: the text that stands after them."""

    prompt: str


@dataclass(frozen=True)
class Adjudication:
    """An answer as it was read: whether both are the same (None: it can't be told), and where the values of the first
    photo's attributes stand in the text, and those of the second: first character and last + 1.
    """

    same: bool | None
    first: tuple[tuple[int, int], ...] = ()
    second: tuple[tuple[int, int], ...] = ()


def pair_question(
    keys: Mapping[str, Sequence[str]], words: tuple[str, str], prompt: Prompt, classes: Sequence[str] = ()
) -> Question:
    """Return the question. `keys`: the schema's keys with the values that each allows (() for any), `words` the
    verdicts, `classes` what makes two photos the same (`vision.classes`; empty: the product).
    """
    yes, no = words
    of = f"are the same in {' and '.join(classes)}" if classes else "show the same product"
    if prompt == "generic":
        return Question(f"How do both photos differ?\nDifferences: key, key (or {NONE})\nSame: {yes} or {no}")
    named = "; ".join(f"{key} ({', '.join(some)})" if 0 < len(some) <= FEW else key for key, some in keys.items())
    by = f"Attributes: {named}.\n" if named else ""
    return Question(
        f"You are a product specialist. {by}Describe both photos, then judge whether they {of}, in four lines:\n"
        f"Photo 1: key: value; key: value\nPhoto 2: key: value; key: value\n"
        f"Differences: key, key (or {NONE})\nSame: {yes} or {no}"
    )


def answer_text(
    first: Mapping[str, str],
    second: Mapping[str, str],
    same: bool,
    words: tuple[str, str],
    keys: Sequence[str],
    prompt: Prompt = "schema",
) -> str:
    """Write the right answer about photos with these known attributes: those of `keys`, in this order. A key that is
    known of one photo alone is no difference.
    """
    differences = f"Differences: {', '.join(differing(first, second, keys)) or NONE}"
    verdict = f"Same: {words[0] if same else words[1]}"
    if prompt == "generic":
        return f"{differences}\n{verdict}"
    lines = [write_attributes((key, known[key]) for key in keys if key in known) for known in (first, second)]
    return f"Photo 1: {lines[0]}\nPhoto 2: {lines[1]}\n{differences}\n{verdict}"


def differing(first: Mapping[str, str], second: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    """Return which of `keys` are known of both to be different."""
    return [key for key in keys if key in first and key in second and not same_value(first[key], second[key])]


def same_value(one: str, other: str) -> bool:
    """Tell whether two values are the same but for case, spacing, hyphens and the order of several."""
    return _parts(one) == _parts(other)


def _parts(value: str) -> frozenset[str]:
    return frozenset(folded(part) for part in value.split(","))


def read_adjudication(text: str, words: tuple[str, str]) -> Adjudication:
    """Read an answer in the form above, or in one that large models choose instead."""
    first = re.search(_PHOTO.format(_DECORATION, 1), text)
    second = re.compile(_PHOTO.format(_DECORATION, 2)).search(text, first.end()) if first else None
    if first is None or second is None:
        return Adjudication(_verdict(text, words))
    end = _END.search(text, second.end())
    return Adjudication(
        _verdict(text, words),
        _values(text, first.end(), second.start()),
        _values(text, second.end(), end.start() if end else len(text)),
    )


def _verdict(text: str, words: tuple[str, str]) -> bool | None:
    lines = _SAME.findall(text)
    written = set(re.findall(r"\w+", lines[-1].casefold())) if lines else set()
    yes, no = (word.casefold() in written for word in words)
    return None if yes == no else yes


def _values(text: str, begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """Return where the values of `text` between two places stand."""
    found: list[tuple[int, int]] = []
    if text[begin:end].lstrip().startswith("{"):
        for pair in _JSON_PAIR.finditer(text, begin, end):
            if pair[2] is not None:
                found.append(pair.span(2))
            else:
                inside = re.compile(_QUOTED).finditer(text, *pair.span(3))
                found += [each.span(1) for each in inside]
    else:
        for part in _PART.finditer(text, begin, end):
            if key := _KEY.match(text, part.start(), part.end()):
                value = text[key.end() : part.end()].rstrip(_AFTER_VALUE)
                found.append((key.end(), key.end() + len(value)))
    return tuple((first, last) for first, last in found if first < last)


def judging(settings: Settings) -> AttributeSettings:
    """Return how a generator is to answer about pairs: greedily, in as many tokens as `vision.max_new_tokens` says."""
    own = {"max_new_tokens": settings.vision.max_new_tokens, "temperature": 0.0}
    return settings.attributes.model_copy(update=own)


def adjudicate(
    generator: LocalGenerator,
    question: Question,
    words: tuple[str, str],
    pairs: Sequence[tuple[Path | Picture, Path | Picture]],
    catalog: CatalogSettings,
) -> list[Adjudication]:
    """Return the answers of `generator`, loaded with `judging`, about pairs of photos. Raises ImageProblem for a photo
    that can't be opened.
    """

    def load(photo: Path | Picture) -> Picture:
        return generator.load_image(photo, catalog) if isinstance(photo, Path) else photo

    requests = [Request(question.prompt, (load(first), load(second))) for first, second in pairs]
    return [read_adjudication(answer.text, words) for answer in generator.generate(requests)]
