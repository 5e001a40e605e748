"""Numbers of products in one normal form, whatever a spreadsheet or an export made of them.

'4006381333931   ="4006381333931"   4006381333931.0   4006-3813-33931   04006381333931      one GTIN
4.00638E+12                                                                              no number any more
"""

from __future__ import annotations

import re

from .gaps import is_gap

FORMULA = re.compile(r"=\s*\"(.*)\"|=(\d+)|[t]\(\"(.*)\"\)", re.IGNORECASE | re.DOTALL)
FLOAT = re.compile(r"(\d{4,})[.,]0+")
EXPONENT = re.compile(r"(\d)(?:[.,](\d+))?[eE]\+?(\d{1,2})")
SHOWN = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d{2}|\d[.,]\d+[eE]\d{2}")
"""As a spreadsheet shows a long number; 12E5 may be a shop's own."""
APART = re.compile(r"[\s\u00a0\u2009\u202f\u2010-\u2015-]+")
GTIN_LENGTHS = (8, 12, 13, 14)
ONE_DIGIT = re.compile(r"0+|(\d)\1{7,}")
COUNTED_UP = {"123456789012", "1234567890123", "1234567890128", "12345678", "01234567890128"}
"""Typed where a form wants a number."""
GTIN_NAME = re.compile(r"(^|_)(gtin|ean|upc|jan|isbn|barcode|strichcode|code_barre|streckkod|gtins|eans)")


def code(text: str) -> str:
    """Return `text` without what spreadsheets put around numbers: an apostrophe, `="..."`, `.0`, an exponent that is
    exact.
    """
    text = text.strip(" \t\r\n\u00a0\u200b\ufeff")
    if found := FORMULA.fullmatch(text):
        text = next(part for part in found.groups() if part is not None).strip()
    if text[:1] in ("'", "\u2019", "`") and len(text) > 1:
        text = text[1:].removesuffix("'").strip()
    if found := FLOAT.fullmatch(text):
        return found[1]
    if (found := EXPONENT.fullmatch(text)) and len(found[2] or "") == int(found[3]) >= 6:
        return f"{found[1]}{found[2]}"
    return text


def lost_digits(text: str, *, strict: bool = True) -> bool:
    """Tell whether `text` is a long number that a spreadsheet has rounded; not strict: any number with an exponent."""
    return (SHOWN if strict else EXPONENT).fullmatch(text) is not None


def gtin(text: str) -> str:
    """Return the GTIN that `text` is, by its check digit, in its shortest form of 8, 12, 13 or 14 digits; "" when it is
    none.

    Blanks and hyphens don't count, and leading zeros that a spreadsheet took away are put back: 8 digits and more.
    """
    digits = APART.sub("", text)
    if not (digits.isascii() and digits.isdigit() and 8 <= len(digits) <= 14) or ONE_DIGIT.fullmatch(digits):
        return ""
    if not _check_digit(digits):
        return ""
    short = digits.lstrip("0")
    return short.zfill(next(length for length in GTIN_LENGTHS if length >= len(short)))


def _check_digit(digits: str) -> bool:
    numbers = [int(digit) for digit in reversed(digits)]
    return (sum(numbers[1::2]) * 3 + sum(numbers[::2])) % 10 == 0


def is_gtin(text: str) -> bool:
    """Tell whether `text` has a GTIN's length and check digit."""
    return len(APART.sub("", text)) in GTIN_LENGTHS and gtin(text) != ""


def holds_gtins(name: str) -> bool:
    """Tell whether a column of this name, as `columns.plain` writes it, holds GTINs."""
    return GTIN_NAME.search(name) is not None


def identity(text: str, *, gtins: bool) -> str:
    """Return an identity in its normal form; "" for a placeholder. `gtins`: the column's name says that it holds GTINs.

    A rounded number is returned as it is: see `lost_digits`.
    """
    text = code(text)
    if is_gap(text) or ONE_DIGIT.fullmatch(APART.sub("", text)) or text in COUNTED_UP:
        return ""
    if gtins and not any(char.isdigit() for char in text):
        return ""
    return gtin(text) or text
