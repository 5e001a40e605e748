"""Which languages a catalog's texts are in, from a sample: py3langid over title and description.

Product titles are short and full of names and numbers, so only answers that it is sure of are counted, among languages
that shops sell in.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import lru_cache
from typing import Any

NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian",
    "is": "Icelandic", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian",
    "sr": "Serbian", "sv": "Swedish", "ta": "Tamil", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
SAMPLE = 500
SURE = 0.9
MOST_CHARS = 500
TOGETHER = 10
"""Texts that are not clear one by one are identified together."""
RARE = 0.02
"""A language of fewer texts than this share is more likely a mistake than a language of the shop."""


class LanguageSample:
    """A fair sample of texts, however many are added."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._texts: list[str] = []
        self._seen = 0

    def add(self, text: str) -> None:
        """Take note of a product's text."""
        if not text:
            return
        self._seen += 1
        if len(self._texts) < SAMPLE:
            self._texts.append(text[:MOST_CHARS])
        elif (at := int(self._random.random() * self._seen)) < SAMPLE:
            self._texts[at] = text[:MOST_CHARS]

    def languages(self) -> dict[str, float]:
        """Return the languages and the share of the texts whose language is clear, the most frequent first."""
        if not self._texts:
            return {}
        identifier = _identifier()
        guesses = [identifier.classify(text) for text in self._texts]
        unclear = [text for text, (_, sure) in zip(self._texts, guesses, strict=True) if sure < SURE]
        groups = [" ".join(unclear[i : i + TOGETHER]) for i in range(0, len(unclear), TOGETHER)]
        clear = Counter(NAMES[code] for code, sure in guesses if sure >= SURE)
        for code, sure in map(identifier.classify, groups):
            clear[NAMES[code]] += TOGETHER if sure >= SURE else 0
        total = max(1, clear.total())
        return {name: count / total for name, count in clear.most_common() if count / total >= RARE}


@lru_cache
def _identifier() -> Any:
    """Return py3langid's identifier; its model takes a third of a second to unpack."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(NAMES))
    return identifier
