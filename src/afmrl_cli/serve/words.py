"""The texts of the page, all of them in `pages/serve/words.json`, and which language a client gets."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from ..catalog.languages import NAMES
from ..settings import Settings

DEFAULT = "en"
MOST_LANGUAGES = 20


@cache
def all_words() -> dict[str, dict[str, str]]:
    """Return the texts by language and name."""
    content: dict[str, dict[str, str]] = json.loads(
        (files("afmrl_cli") / "pages" / "serve" / "words.json").read_text("utf-8")
    )
    return content


def language_of(settings: Settings, accepted: str) -> str:
    """Choose the page's language: `serve.language`, else that of the catalog's attributes, else the first of
    `accepted` (an Accept-Language) that the page has.
    """
    if settings.serve.language:
        return settings.serve.language
    own = settings.attributes.language.strip().casefold()
    for code in all_words():
        if own and own in (code, NAMES[code].casefold()):
            return code
    return next((code for code in _wanted(accepted) if code in all_words()), DEFAULT)


def _wanted(accepted: str) -> list[str]:
    weighted = []
    for at, part in enumerate(accepted.split(",")[:MOST_LANGUAGES]):
        name, _, weight = part.partition(";")
        try:
            share = float(weight.partition("=")[2] or 1)
        except ValueError:
            share = 0.0
        weighted.append((-share, at, name.strip().lower().partition("-")[0]))
    return [code for share, _, code in sorted(weighted) if share < 0]
