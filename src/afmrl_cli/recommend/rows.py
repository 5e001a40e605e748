"""The rows of one file of interactions as columns of numbers: customers hashed, items looked up, times read.

Nothing of a row is kept as text but the names of items and events. What a row of an order lacks (customer, time,
state) it takes from the order's other rows, whatever their order in the file is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..catalog.codes import code
from ..catalog.gaps import is_gap
from ..catalog.name_forms import plain
from ..catalog.table import Cell, Row, one_text
from .columns import ColumnMap
from .customers import Customers, customer_text
from .items import ItemIndex
from .left_out import EXAMPLES, LeftOut
from .orders import Line, is_partly_undone, is_undone, lines_in, quantity_of, undoes
from .private import looks_private, shape
from .times import NEVER, Clock

UNREADABLE_TIME = NEVER + 1
"""In place of seconds: a time stood there. NEVER: there was none."""
MOST_EVENTS, OTHER = 100, "other"
SHAPES = 100
ORDER_BITS = (1 << 63) - 1


@dataclass
class Names:
    """Items by number: listings of the catalog, and names that it does not know (`how` is "" for these)."""

    index: ItemIndex
    names: list[str] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _cells: dict[tuple[str, ...], int] = field(default_factory=dict)

    def number(self, cells: tuple[str, ...], *, titles: bool) -> int:
        """Return the number of the item that `cells` name, the surest name first; -1 where none does."""
        known = self._cells.get(cells)
        if known is None:
            known = self._cells[cells] = self._find(cells, titles)
        return known

    def _find(self, cells: tuple[str, ...], titles: bool) -> int:
        named = [name for cell in cells if not is_gap(name := code(cell))]
        for name in named:
            if found := self.index.find(name, titles=titles):
                return self._add(*found)
        return self._add(named[0], "") if named else -1

    def _add(self, name: str, how: str) -> int:
        number = self._numbers.setdefault((name, how and "known"), len(self.names))
        if number == len(self.names):
            self.names.append(name)
            self.how.append(how)
        return number


@dataclass(frozen=True)
class Columns:
    """Readable rows, a column each: `item` are numbers of `Names`, `undo` marks rows that undo an earlier one."""

    customer: NDArray[np.uint64]
    item: NDArray[np.int32]
    seconds: NDArray[np.int64]
    quantity: NDArray[np.float32]
    undo: NDArray[np.bool_]
    event: NDArray[np.int16]
    order: NDArray[np.int64]
    file: NDArray[np.uint8]
    row: NDArray[np.int64]

    def kept(self, where: NDArray[np.bool_] | NDArray[np.int64]) -> Columns:
        """Return the rows at `where`."""
        return Columns(**{name: getattr(self, name)[where] for name in self.__dataclass_fields__})

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Return the rows of `parts`, one after the other."""
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__}
        )


class Reader:
    """Reads the rows of one file, number `file` of `left_out.files`."""

    def __init__(
        self,
        columns: ColumnMap,
        file: int,
        clock: Clock,
        customers: Customers,
        names: Names,
        events: dict[str, int],
        left_out: LeftOut,
    ) -> None:
        self._columns, self._file, self._clock = columns, file, clock
        self._names, self._events, self._left_out = names, events, left_out
        self.rows = 0
        self.partly: set[int] = set()
        self._at = {role: columns.roles.get(role, ()) for role in ("customer", "item", "time")}
        self._one = {role: next(iter(positions), -1) for role, positions in columns.roles.items()}
        self._has_states = not {"order", "status", "cancelled"}.isdisjoint(columns.roles)
        self._shapes: dict[int, str] = {}
        self._happenings: dict[str, tuple[bool, int]] = {}
        self._heads = tuple(array(kind) for kind in "Qqqqbqh")
        """Customer, time with the day and with the month first, order, whether it was undone, row, event."""
        self._item, self._quantity, self._undo = array("i"), array("f"), array("b")
        self._undone = array("b")
        """Lines that came back as a whole, whatever became of their order."""

        @lru_cache(maxsize=1 << 16)
        def hashed(cell: str) -> int:
            text = customer_text(cell)
            return customers.hash_of(text) if text else 0

        self._hashed = hashed

    def add(self, row: Row) -> None:
        """Read one row."""
        self.rows += 1
        cells = row.cells
        customer = 0
        for i in self._at["customer"]:
            if customer := self._hashed(one_text(cells[i])):
                break
        first, second = self._time(row)
        order, done = self._state(row)
        undo, event = self._happened(cells)
        head = (customer, first, second, order, done, row.number, event)
        found = False
        for line in self._lines(cells):
            item = self._names.number(line.items, titles=bool(self._columns.layout))
            if item < 0:
                continue
            found = True
            quantity, undone = self._amount(line, row.number)
            if quantity is None:
                item, quantity = -1, 1.0  # what the row says of its order counts all the same
            self._append(head, item, abs(quantity), undo or quantity < 0, undone)
        if not found:
            empty = not any(map(one_text, cells))
            self._left_out.add("empty row" if empty else "no item", self._file, row.number)
            if order:  # what an order's row says counts for its lines
                self._append(head, -1)

    def _append(
        self, head: tuple[int, ...], item: int, quantity: float = 1.0, undo: bool = False, undone: bool = False
    ) -> None:
        for column, value in zip(self._heads, head, strict=True):
            column.append(value)
        self._item.append(item)
        self._quantity.append(quantity)
        self._undo.append(undo)
        self._undone.append(undone)

    def _text(self, role: str, cells: Sequence[Cell]) -> str:
        at = self._one.get(role, -1)
        return one_text(cells[at]) if at >= 0 else ""

    def _time(self, row: Row) -> tuple[int, int]:
        for i in self._at["time"]:
            text = one_text(row.cells[i])
            if not text:
                continue
            first, second = self._clock.read(text, row.number)
            if first == second == NEVER:
                if is_gap(text):
                    continue
                if len(self._shapes) < SHAPES:
                    self._shapes[row.number] = f"written as {shape(text)}"
            return max(first, UNREADABLE_TIME), max(second, UNREADABLE_TIME)
        return NEVER, NEVER

    def _state(self, row: Row) -> tuple[int, int]:
        """Return (the order as a number, 0 for none; whether it was undone: 1, 0, or -1 where the row is silent)."""
        if not self._has_states:
            return 0, -1
        text = self._text("order", row.cells)
        order = (hash(text) & ORDER_BITS or 1) if text and not is_gap(text) else 0
        cancelled, status = self._text("cancelled", row.cells), self._text("status", row.cells)
        if is_partly_undone(status):
            self.partly.add(order or row.number)
        if cancelled and not is_gap(cancelled):
            return order, 1
        return order, int(is_undone(status)) if status else -1

    def _happened(self, cells: Sequence[Cell]) -> tuple[bool, int]:
        """Return (whether the event undoes an earlier one, its number; -1 for none)."""
        text = self._text("event", cells)
        known = self._happenings.get(text)
        if known is None:
            known = self._event_of(text)
            if len(self._happenings) < MOST_EVENTS:
                self._happenings[text] = known
        return known

    def _event_of(self, text: str) -> tuple[bool, int]:
        if is_gap(text):
            return False, -1
        name = OTHER if looks_private(text) else plain(text)[:40].replace("_", " ")
        if name not in self._events and len(self._events) >= MOST_EVENTS:
            name = OTHER
        return undoes(text), self._events.setdefault(name, len(self._events))

    def _lines(self, cells: Sequence[Cell]) -> Iterable[Line]:
        if self._columns.line_items:
            return (line for i in self._columns.line_items for line in lines_in(one_text(cells[i])))
        named = [cells[i] for i in self._at["item"]]
        if isinstance(named[0], tuple):  # a basket
            return (Line((each,), "", "") for each in named[0])
        return (Line(tuple(map(one_text, named)), self._text("quantity", cells), self._text("refunded", cells)),)

    def _amount(self, line: Line, row: int) -> tuple[float | None, bool]:
        """Return (the quantity without what was refunded, None where it is left out; whether all was refunded)."""
        quantity = quantity_of(line.quantity)
        back = quantity_of(line.refunded) if line.refunded else 0.0
        if quantity is None or back is None:
            self._left_out.add("unreadable quantity", self._file, row, f"written as {shape(line.quantity)}")
            return None, False
        if not quantity:
            self._left_out.add("quantity of 0", self._file, row)
            return None, False
        left = quantity - abs(back)
        return (quantity, True) if quantity > 0 >= left else (left if quantity > 0 else quantity, False)

    def columns(self, *, day_first: bool) -> Columns:
        """Return the rows that have customer, item and time; the others are counted."""
        customer, first, second, order, done, row, event = map(np.array, self._heads)
        customer, seconds, done = _from_orders(customer, first if day_first else second, done, order)
        read = Columns(
            customer=customer,
            item=np.array(self._item, dtype=np.int32),
            seconds=seconds,
            quantity=np.array(self._quantity, dtype=np.float32),
            undo=np.array(self._undo, dtype=np.bool_),
            event=event,
            order=order,
            file=np.full(len(order), self._file, dtype=np.uint8),
            row=row,
        )
        kept = read.item >= 0
        for reason, wrong in (
            ("no customer", customer == 0),
            ("no time", seconds == NEVER),
            ("unreadable time", seconds == UNREADABLE_TIME),
            ("cancelled or refunded", (done == 1) | np.array(self._undone, dtype=np.bool_)),
        ):
            out = kept & wrong
            rows = read.row[out]
            shapes = [self._shapes.get(int(row), "") for row in np.sort(rows)[:EXAMPLES]]
            self._left_out.add_rows(reason, read.file[out], rows, shapes if reason == "unreadable time" else ())
            kept &= ~wrong
        return read.kept(kept)


def _from_orders(
    customer: NDArray[np.uint64], seconds: NDArray[np.int64], done: NDArray[np.int8], order: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int8]]:
    """Fill what rows lack from the other rows of their order."""
    lacking = (order != 0) & ((customer == 0) | (seconds == NEVER) | (done < 0))
    if not lacking.any():
        return customer, seconds, done
    _, at = np.unique(order, return_inverse=True)
    nobody = np.iinfo(np.uint64).max
    count = int(at.max()) + 1
    whose = np.full(count, nobody, dtype=np.uint64)
    np.minimum.at(whose, at, np.where(customer == 0, nobody, customer))
    when = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(when, at, np.where(seconds <= UNREADABLE_TIME, np.iinfo(np.int64).max, seconds))
    state = np.full(count, -1, dtype=np.int8)
    np.maximum.at(state, at, done)
    take = lacking & (customer == 0) & (whose[at] != nobody)
    customer = np.where(take, whose[at], customer)
    take = lacking & (seconds == NEVER) & (when[at] != np.iinfo(np.int64).max)
    seconds = np.where(take, when[at], seconds)
    done = np.where(lacking & (done < 0), state[at], done)
    return customer, seconds, done
