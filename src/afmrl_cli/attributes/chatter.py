"""What reads like attributes and is a model talking: errors, apologies, notes, and values that only say "not seen".

`Note: the photo is too dark`, `error: rate limit` and `Sorry: I can't help with that` are all `key: value`. A schema
refuses their keys; where any key is welcome, this does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from ..catalog.gaps import is_gap

LONGEST_KEY_WORDS = 6
LONGEST_LONELY_KEY, LONGEST_LONELY_VALUE, LONGEST_VALUE = 3, 6, 10
"""Words of the key and the value of an answer's only pair, and of any value without a comma or a digit: more are a
sentence."""
APOLOGY_CHARS = 120
"""Within which an answer that declines says so."""
MOST_ALIKE = 4
"""Equal parts in a row that make a value a model that has got stuck."""

NEVER_KEYS = {
    *("error", "errors", "error message", "error code", "error type", "exception", "traceback", "refusal", "sorry"),
    *("apology", "apologies", "disclaimer", "assistant", "user", "system", "fehler", "fout", "erreur", "errore"),
    *("erro", "virhe", "fel", "feil", "fejl", "błąd", "chyba", "ошибка", "错误", "エラー", "오류", "抱歉", "对不起"),
}  # fmt: skip
LONELY_KEYS = {
    *("note", "notes", "message", "answer", "response", "output", "result", "status", "detail", "details", "reason"),
    *("explanation", "warning", "comment", "info", "text", "content", "code", "description", "summary", "analysis"),
    *("hinweis", "anmerkung", "opmerking", "remarque", "nota", "obs", "merk", "注意", "备注", "注"),
    *("success", "ok", "failed", "understood", "done", "acknowledged", "confirmed", "request id", "type", "param"),
}  # fmt: skip
"""No attribute where nothing else stands beside them."""
_VERBS = (
    r"(?:help|assist|determine|see|identify|provide|tell|view|analy[sz]e|process|recogni[sz]e|comply|answer|access|read"
    r"|make out|discern|confirm|extract|describe|generate|fulfil\w*|do that|be sure)"
)
_TALKING_KEY = re.compile(
    r"(?:here (?:are|is|you)|(?:this|it|that|they) (?:would|will|is|has|looks|seems|appears)"
    r"|there (?:are|is)|this (?:is|image|photo|product)|these are|the following"
    r"|the (?:image|photo)|sure[,!]|sure here|okay|certainly|of course|unfortunately|sorry|please|based on|as an"
    r"|note that|thank|let me|hier|voici|aquí|es tut mir|leider|entschuldigung"
    r"|je suis|désolé|malheureusement|lo siento|desculpe|mi dispiace|purtroppo|het spijt|helaas|tyvärr)\b.*\s"
    r"|.*\b(?:i|we|you) (?:can|could|will|would|am|are|see|have)\b|.*\b(?:cannot|can['’]t|could not)\b",
)
_SORRY = re.compile(
    r"(?:désolé|lo siento|desculp|mi dispiace|helaas|tyvärr|förlåt|beklager|undskyld|valitettavasti|anteeksi|przeprasz"
    r"|niestety|omlouv|bohužel|bohužiaľ|ospravedl|sajnál|elnézést|îmi pare|ne pare|din păcate|üzgün|maalesef|özür"
    r"|извин|прост|к сожалению|вибач|пробач|на жаль|λυπ|συγγνώμη|δυστυχώς|عذر|آسف|للأسف|متأسف|מצטער|סליחה|לצערי"
    r"|क्षमा|माफ़|खेद|xin lỗi|rất tiếc|maaf|mohon maaf|ขออภัย|ขอโทษ|เสียใจ|抱歉|很抱歉"
    r"|对不起|對不起|申し訳|すみません|ごめん|죄송|미안|žao|nažalost|съжал|apgail|atsipraš|vabandust)",
)
"""How apologies begin in many languages: stems, as they stand at the beginning of a key."""
_FAILING_KEY = re.compile(
    r"(?:\w*(?:error|exception)\b|.*\b(?:timed? ?out|rate limit|out of memory|violation|not found|denied|unavailable"
    r"|overloaded|exceeded)\b|https? \d|model is |step \d|see (?:more|also)|(?:could|can|would) you\b|please\b)"
)
"""What servers and programs say of themselves, and questions back."""
_LINK = re.compile(r"https?://|www\.", re.IGNORECASE)
_TALKING = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bi['’]?(?: a)?m (?:sorry|unable|afraid|not able)\b|\b(?:i|we) apologi[sz]e\b"
    rf"|\b(?:can ?not|can['’]t|could not|couldn['’]t|unable to|not able to) (?:\w+ )?{_VERBS}\b"
    r"|\b(?:sorry|unfortunately|apologies),? (?:but )?(?:i|we|the|there|it|this|your)\b"
    r"|\b(?:image|photo|picture|request)s? (?:could|can) ?(?:not|n['’]t) be\b"
    r"|\b(?:es )?tut mir leid\b"
    r"|\bich kann (?:\w+ ){0,3}(?:nicht|kein)|\bje (?:suis désolé|ne peux)|\blo siento\b|\bno puedo\b"
    r"|\bdesculpe\b|\bnão posso\b|\bmi dispiace\b|\bnon posso\b|\bhet spijt me\b|\btyvärr\b|\bjag kan inte\b"
    r"|抱歉|对不起|無法|无法|申し訳|できません|죄송",
    re.IGNORECASE,
)
_NOT_SEEN = re.compile(
    r"(?:(?:is |it is |are )?(?:not|un)[ -]?(?:clearly )?"
    r"(?:visible|shown|seen|stated|specified|mentioned|provided|given|known|clear|determined|determinable|identifiable"
    r"|applicable|available|discernible|listed|indicated|recogni[sz]able|readable|legible|sure)"
    r"|(?:can ?not|can['’]t|could not|couldn['’]t|impossible to|unable to|hard to|difficult to|not possible to)"
    r"(?: be)? (?:determined?|tell|seen?|identif\w+|said?|say|specif\w+|confirm\w*|discern\w*|assess\w*|infer\w*)"
    r"|nicht (?:sichtbar|erkennbar|ersichtlich|zu erkennen)|non visible|no visible|não visível|non visibile"
    r"|niet zichtbaar|inte synlig\w*|不可见|看不清|无法确定|不明确)(?=$|\W).{0,60}",
    re.IGNORECASE,
)


def declines(text: str) -> bool:
    """Check whether `text` begins as an apology, or as a model that speaks of itself."""
    return _TALKING.search(text[:APOLOGY_CHARS]) is not None


def says_nothing(value: str) -> bool:
    """Check whether `value` is a gap (`N/A`, `unknown`), or a model's words for one (`not visible in the photo`)."""
    return is_gap(value) or _NOT_SEEN.fullmatch(value) is not None


def chatter(attributes: Mapping[str, str]) -> str | None:
    """Say why these pairs are no attributes but a model talking; None: they may be attributes."""
    if len(attributes) == 1 or attributes.keys() <= LONELY_KEYS:
        for key in attributes.keys() & LONELY_KEYS:
            return f"{key!r} is no attribute"
    for key, value in attributes.items():
        if key in NEVER_KEYS or len(key.split()) > LONGEST_KEY_WORDS or _TALKING_KEY.match(f"{key} "):
            return f"{key!r} is no attribute"
        if _SORRY.match(key) or _FAILING_KEY.match(key) or _LINK.match(value):
            return f"{key!r} is no attribute"
        if _TALKING.search(value) or _is_sentence(key, value, lonely=len(attributes) == 1):
            return f"{key}: a sentence, no value: {value[:60]!r}"
        if _stuck(value):
            return f"{key}: the same again and again: {value[:60]!r}"
    return None


def _is_sentence(key: str, value: str, *, lonely: bool) -> bool:
    """Tell whether `value` is longer than values are; where nothing stands beside it, less is enough."""
    words = len(value.split())
    listed = "," in value or any(char.isdigit() for char in value)
    if lonely and len(key.split()) > LONGEST_LONELY_KEY:
        return True
    return not listed and words > (LONGEST_LONELY_VALUE if lonely else LONGEST_VALUE)


def _stuck(value: str) -> bool:
    """Check whether a model repeats itself: `navy, navy, navy, navy`."""
    for parts in (value.split(","), value.split()):
        alike = [part.strip().casefold() for part in parts]
        runs = 1
        for before, part in pairwise(alike):
            runs = runs + 1 if part == before else 1
            if runs >= MOST_ALIKE:
                return True
    return False
