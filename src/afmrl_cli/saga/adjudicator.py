"""What the generator is asked about two photos, the answer that is taught, and how any answer is read.

     key: value; key: value        of the first photo
     key: value; key: value        of the second
     key, key                      in which they differ; none, where there are none
     yes                           whether both are the same: a reranker's words (`models.reranker.choose_words`)

Photos alone are shown: a product's text would give its class away. Descriptions come first, so that the verdict can
follow from them. The generic question has neither a role nor a list of attributes, and its answer no descriptions.
Lines have no titles, and begin with a space: small models know few words, and those better that stand after one.

A large model that was never taught writes titles, Markdown, or JSON: that is read, too. A verdict counts where the last
line is one of the two words, or the last line (or key) called Same holds one of them and not the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..attributes.parse import write_attributes
from ..attributes.request import Request
from ..attributes.schema import folded
from ..catalog.pictures import Picture
from ..settings import BUILT_IN, AttributeSettings, CatalogSettings, Settings
from .photos import class_key

if TYPE_CHECKING:
    from ..models.generator import LocalGenerator
    from ..models.presets import Base
    from ..store.checkpoints import Manifest

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
_KEY = re.compile(r"[\s*_`#>•\-]*(?:\d+[.)]\s*)?([^:\uff1a]*)[:\uff1a][\s*_`\"']*")
_Value = tuple[str, tuple[int, int]]
_AROUND = " \t\r*_`\"'.,>#-"
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
    of = f"are the same in {' and '.join(map(class_key, classes))}" if classes else "show the same product"
    if prompt == "generic":
        return Question(
            f"Do both photos show the same? First a line with the keys that differ, or {NONE}. Last a line with {yes} "
            f"if they do, else {no}."
        )
    named = "; ".join(f"{key} ({', '.join(some)})" if 0 < len(some) <= FEW else key for key, some in keys.items())
    return Question(
        f"You are a product specialist. Describe both photos{f' by {named}' if named else ''}: one line each, key: "
        f"value; key: value. Then a line with the keys that differ, or {NONE}. Last a line with {yes} if they {of}, "
        f"else {no}."
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
    lines = [", ".join(differing(first, second, keys)) or NONE, words[0] if same else words[1]]
    if prompt == "schema":
        described = (write_attributes((key, known[key]) for key in keys if key in known) for known in (first, second))
        lines = [*described, *lines]
    return "\n".join(f" {line}" for line in lines)


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
    first, second = (tuple(place for _, place in part) for part in _descriptions(text))
    return Adjudication(_verdict(text, words), first, second)


def read_descriptions(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return what an answer says of the first photo and of the second: values by key in lower case, several joined."""
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    for described, part in zip(found, _descriptions(text), strict=True):
        for key, (begin, end) in part:
            value = text[begin:end]
            described[key] = f"{described[key]}, {value}" if key in described else value
    return found


def _verdict(text: str, words: tuple[str, str]) -> bool | None:
    titled = _SAME.findall(text)
    lines = titled or [line for line in text.splitlines() if line.strip(_AROUND)] or [""]
    # Without a title the line is the word and nothing else: a description may hold it, too.
    written = set(re.findall(r"\w+", lines[-1].casefold())) if titled else {lines[-1].strip(_AROUND).casefold()}
    yes, no = (word.casefold() in written for word in words)
    return None if yes == no else yes


def _descriptions(text: str) -> tuple[list[_Value], list[_Value]]:
    """Return keys and places of the values of the first photo and of the second: where titles say, else in the first
    two lines, if both are descriptions.
    """
    first = re.search(_PHOTO.format(_DECORATION, 1), text)
    second = re.compile(_PHOTO.format(_DECORATION, 2)).search(text, first.end()) if first else None
    if first is None or second is None:
        lines = [line.span() for line in re.finditer(r"[^\n]*\w[^\n]*", text)][:2]
        both = len(lines) == 2 and all(_KEY.match(text, *line) and not _END.match(text, *line) for line in lines)
        return (_values(text, *lines[0]), _values(text, *lines[1])) if both else ([], [])
    end = _END.search(text, second.end())
    return _values(text, first.end(), second.start()), _values(text, second.end(), end.start() if end else len(text))


def _values(text: str, begin: int, end: int) -> list[_Value]:
    """Return the keys and places of values between two places of `text`."""
    found: list[_Value] = []
    if text[begin:end].lstrip().startswith("{"):
        for pair in _JSON_PAIR.finditer(text, begin, end):
            places = [pair.span(2)] if pair[2] is not None else []
            if pair[3] is not None:
                places = [each.span(1) for each in re.compile(_QUOTED).finditer(text, *pair.span(3))]
            found += [(_plain_key(pair[1]), place) for place in places]
    else:
        for part in _PART.finditer(text, begin, end):
            if key := _KEY.match(text, part.start(), part.end()):
                value = text[key.end() : part.end()].rstrip(_AFTER_VALUE)
                found.append((_plain_key(key[1]), (key.end(), key.end() + len(value))))
    return [(key, (first, last)) for key, (first, last) in found if first < last]


def _plain_key(text: str) -> str:
    return " ".join(text.strip("*_`\"' ").lower().split())


def verdict_words(base: Base, judge: Manifest | None, tokenizer: Any) -> tuple[str, str]:
    """Return the words of a verdict: those of the adapter that judges, if it was taught any, else such as `base` can
    write. A reranker needs to prefer one of two words to the other, a generator one to all others.
    """
    from ..models.reranker import VERDICTS, choose_words, words_of

    if judge is not None and judge.judges:
        return words_of(judge)
    return choose_words(tokenizer, base.name, VERDICTS[::-1] if base.name == BUILT_IN else VERDICTS)


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
