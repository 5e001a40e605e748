"""What rows of shops say beside customer, item and time: quantities, lines of orders in one cell, refunds and returns.

An order that was cancelled or refunded as a whole is taken out; one that was refunded in part is kept, since exports
don't say which line it was, but for those with refunded quantities. A row of its own that says return, or a negative
quantity, undoes an earlier purchase (`clean.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..catalog.column_names import words_of
from ..catalog.gaps import is_gap
from ..catalog.name_forms import plain


def _words(text: str) -> frozenset[str]:
    return frozenset(plain(word) for word in text.split(","))


UNDONE = _words(
    "return, returned, returns, return requested, return completed, refund, refunded, refunds, fully "
    "refunded, chargeback, cancel, cancelled, canceled, cancellation, cancelation, voided, void, remove "
    "from cart, removed from cart, cart remove, remove, removed, unlike, unwish, remove from wishlist, "
    "storno, storniert, stornierung, abgebrochen, retoure, retourniert, zuruckgesendet, zuruckgegeben, "
    "ruckgabe, rucksendung, ruckerstattung, ruckerstattet, erstattet, erstattung, gutschrift, retour, "
    "retourne, remboursement, rembourse, remboursee, annule, annulee, annulation, avoir, devolucion, "
    "devuelto, reembolso, reembolsado, cancelado, cancelada, anulado, anulada, devolucao, devolvido, "
    "estornado, reso, restituito, rimborso, rimborsato, annullato, annullata, stornato, geretourneerd, "
    "terugbetaald, terugbetaling, geannuleerd, retourzending, retur, returnerad, aterbetald, "
    "aterbetalning, avbruten, makulerad, returneret, refunderet, annulleret, returnert, refundert, "
    "kansellert, palautus, palautettu, hyvitetty, peruttu, zwrot, zwrocone, zwrocony, anulowane, "
    "anulowany, vraceno, vraceni, zruseno, storno, visszaru, visszaterites, torolve, rambursat, anulat, "
    "returnat, iade, iade edildi, iptal, iptal edildi, возврат, возвращен, отмена, отменен, отменён, "
    "повернення, скасовано, επιστροφη, ακυρωση, ακυρωθηκε, إرجاع, ملغي, مسترجع, החזרה, בוטל, זיכוי, 返品, "
    "返金, キャンセル, 退货, 退款, 已取消, 取消, 已退款, 반품, 환불, 취소"
)
"""Events and states by which a purchase is undone."""
UNDONE_WORDS = words_of("returned refunded cancelled canceled voided storniert erstattet retourniert annule rembourse")
NOT_ALL = words_of("not no non never nicht partially partly partial teilweise partiellement")
"""Words in longer states: Shipped - Returned to Seller, but not Partially refunded."""
NEVER_DONE = _words("failed, trash, expired, checkout draft, auto draft, draft, fehlgeschlagen")
"""States of orders that were never placed."""
PARTLY = _words("partially refunded, partially returned, partial refund, teilweise erstattet")
QUANTITY = re.compile(
    r"(?P<sign>[-+−])?\s*(?P<whole>\d{1,9})(?:(?P<point>[.,])(?P<rest>\d{1,6}))?\s*(?:x|×|st(?:k|ck)?\.?|pcs?\.?|pieces?)?",
    re.IGNORECASE,
)
BRACKETS = re.compile(r"\((.+)\)")
"""A negative number as accountants write it."""
LINE_END = re.compile(r";(?=\s*\w+:)|\n")
LINE_NAMES = {
    "item": ("sku", "variation_id", "product_id", "item_sku"),
    "name": ("name", "item_name"),
    "quantity": ("quantity", "qty"),
    "refunded": ("refunded_qty", "qty_refunded"),
}


class Line(NamedTuple):
    """A line of an order in cells as they stand: candidates for the item, and quantities."""

    items: tuple[str, ...]
    quantity: str
    refunded: str


@lru_cache(maxsize=1 << 12)
def undoes(text: str) -> bool:
    """Tell whether an event or a state says that a purchase was undone."""
    name = plain(text).removeprefix("wc_")
    words = frozenset(name.split("_"))
    return name in UNDONE or (not words.isdisjoint(UNDONE_WORDS) and words.isdisjoint(NOT_ALL))


@lru_cache(maxsize=1 << 12)
def is_undone(status: str) -> bool:
    """Tell whether an order of this state counts for nothing."""
    return undoes(status) or plain(status).removeprefix("wc_") in NEVER_DONE


@lru_cache(maxsize=1 << 12)
def is_partly_undone(status: str) -> bool:
    """Tell whether an order of this state was refunded in part."""
    return plain(status) in PARTLY


@lru_cache(maxsize=1 << 12)
def quantity_of(text: str) -> float | None:
    """Return a quantity, 1 of an empty cell; None of what is none."""
    text = text.strip()
    if is_gap(text):
        return 1.0
    bracket = BRACKETS.fullmatch(text)
    found = QUANTITY.fullmatch(bracket[1] if bracket else text)
    if not found:
        return None
    rest = found["rest"] or ""
    thousands = found["point"] == "," and len(rest) == 3  # 1,000, where 1.000 is a database's 1
    value = float(found["whole"] + rest) if thousands else float(f"{found['whole']}.{rest or 0}")
    return -value if bracket or found["sign"] in ("-", "−") else value


def lines_in(cell: str) -> Iterator[Line]:
    """Yield the lines of an order in a cell of WooCommerce's plugins: `name:Shirt|sku:A-1|quantity:2`, several of them
    with `;` or line breaks between."""
    for part in LINE_END.split(cell):
        pairs: dict[str, str] = {}
        for pair in part.split("|"):
            key, colon, value = pair.partition(":")
            if colon:
                pairs.setdefault(plain(key), value.strip())
        if pairs:
            found = {role: [pairs[name] for name in names if pairs.get(name)] for role, names in LINE_NAMES.items()}
            items = tuple(value for value in (*found["item"], *found["name"]) if value != "0")
            yield Line(items, next(iter(found["quantity"]), ""), next(iter(found["refunded"]), ""))
