"""Amounts in a shop's cells: "1.299,00 EUR", "$12.50", "ca 360g", "2 kg".

A point or a comma before one or two last digits is a decimal one; so is a point before three, but in prices, where
"1.299" is a thousand and more. Of several numbers the first counts.
"""

from __future__ import annotations

import math
import re

_MONEY = "€$£¥₹₽₩₺₫฿₴₪"
_BEFORE = rf"([{_MONEY}]|\b[A-Z]{{3}})?\s*"
_DIGITS = r"((?<!\w)-)?(\d(?:[\d.,']|[\s\u00a0\u202f](?=\d{3}))*)"
_NUMBER = re.compile(rf"{_BEFORE}{_DIGITS}\s*(°[CFcf]|[^\W\d_]+|[{_MONEY}%°′″\"])?")
_DECIMALS = re.compile(r"[.,](\d{1,2})$")


def read_amount(text: str, *, price: bool = False) -> tuple[float, str]:
    """Read (the number, its unit in lower case, "" without one) of a cell; (NaN, "") for no number at all."""
    found = _NUMBER.search(text)
    if not found:
        return math.nan, ""
    before, minus, digits, after = found.groups()
    amount = float((minus or "") + _plain(re.sub(r"[\s']", "", digits).rstrip(".,"), price=price))
    return amount, (before or after or "").casefold()


def read_price(text: str) -> float:
    """Read the amount in "1.299,00 EUR", "$12.50" or "12,50"; NaN for anything else and for 0."""
    return read_amount(text, price=True)[0] or math.nan


def _plain(digits: str, *, price: bool) -> str:
    """Return `digits` with a decimal point alone."""
    if (end := _DECIMALS.search(digits)) is None and not price and digits.count(".") == 1 and "," not in digits:
        return digits
    whole, cents = (digits, "") if end is None else (digits[: end.start()], f".{end[1]}")
    return re.sub(r"[.,]", "", whole) + cents
