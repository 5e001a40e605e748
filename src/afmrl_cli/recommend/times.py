"""Times as shops write them, in seconds since 1970 (UTC).

    2024-05-01T12:30:00Z, 2024-05-01 12:30:00 +0200, 20240501, 2024年5月1日    the year first
    01.05.2024 12:30, 1/5/24, 5/1/2024 3:30 PM                                in the order of the whole column
    1 May 2024, May 1, 2024 3:30 pm, Wed, 01 May 2024 12:30:00 GMT, 1. Mai    a month's name
    1714566600, 1714566600000, 45413.5                                        seconds, milliseconds, a sheet's days

One cell does not show which of two numbers is the day. `Clock` reads both ways, and `Clock.day_first` decides when
the column is at its end: by rows in which one of them is above 12; dots put the day first where nothing speaks against
it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from ..catalog.codes import code
from ..catalog.name_forms import plain
from ..errors import DataError, UsageError

NEVER = -(1 << 62)
"""Stands for a time that can't be read."""
DAY = 86_400
EARLIEST = 631_152_000
"""The beginning of 1990: what is before is a default of some program, or a misread number."""
SHEET_DAYS = (32_874, 73_051)
"""From 1990 to 2099, as sheets count the days."""
SHEET_START = datetime(1899, 12, 30)
MONTHS = (
    "jan januar january janv janvier ene enero gen gennaio januari janeiro",
    "feb februar february fev fevr fevrier febrero febbraio februari fevereiro",
    "mar mrz marz march mars marzo maart marco",
    "apr april avr avril abr abril aprile",
    "may mai mayo mag maggio mei maj maio",
    "jun juni june juin junio giu giugno junho",
    "jul juli july juil juillet julio lug luglio julho",
    "aug august aout ago agosto augustus augusti",
    "sep sept september septembre septiembre set settembre setembro",
    "oct okt oktober october octobre octubre ott ottobre out outubro",
    "nov november novembre noviembre novembro",
    "dec dez dezember december decembre dic diciembre dicembre dezembro",
)
MONTH = {name: number for number, names in enumerate(MONTHS, 1) for name in names.split()}
ZONES = {
    **dict.fromkeys(("z", "utc", "gmt", "wet"), 0),
    **dict.fromkeys(("cet", "mez", "west"), 1),
    **dict.fromkeys(("cest", "mesz", "eet"), 2),
    **{"eest": 3, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7},
}
"""Hours east of Greenwich; the American ones as RFC 822 has them."""
OF_DAY = (
    r"(?:(?:,?\s+|T|,)(?:um\s|at\s|à\s|kl\.?\s|ore\s)?(?P<hour>\d{1,2})[:.h](?P<minute>\d{2})"
    r"(?:[:.](?P<second>\d{2})(?:[.,]\d+)?)?(?:\s?(?P<half>[ap])\.?m\.?)?(?:\s?Uhr)?)?"
    r"\s?(?P<zone>Z|(?:UTC|GMT)?[+-]\d{1,2}(?::?\d{2})?|[A-Z]{3,4})?(?:\s?\([^()]*\)|\[[^\[\]]*\])?"
)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
YEAR_FIRST = re.compile(r"(?P<y>\d{4})[-/.年]\s?(?P<m>\d{1,2})[-/.月]\s?(?P<d>\d{1,2})日?" + OF_DAY, re.IGNORECASE)
DAY_MONTH = re.compile(
    r"(?P<a>\d{1,2})(?P<sign>[-/.])(?P<b>\d{1,2})(?P=sign)(?P<y>\d{4}|\d{2})" + OF_DAY, re.IGNORECASE
)
WEEKDAY = r"(?:[^\W\d]{2,10}\.?,?\s+)?"
DAY_NAME = re.compile(
    WEEKDAY
    + r"(?P<d>\d{1,2})(?:st|nd|rd|th|\.)?[\s-](?:de\s)?(?P<m>[^\W\d]{3,12})\.?,?[\s-](?:de\s)?(?P<y>\d{4})"
    + OF_DAY,
    re.IGNORECASE,
)
NAME_DAY = re.compile(
    WEEKDAY + r"(?P<m>[^\W\d]{3,12})\.?[\s-](?P<d>\d{1,2})(?:st|nd|rd|th)?,?[\s-](?P<y>\d{4})" + OF_DAY, re.IGNORECASE
)
COMPACT = re.compile(r"(?:19|20)\d{6}(?:\d{4}(?:\d{2})?)?")
Seconds = tuple[int, int]
"""Read with the day first, and with the month first; the same where there is no question."""
UNREADABLE: Seconds = (NEVER, NEVER)


def zone_of(name: str) -> tzinfo:
    """Return the zone of `recommend.timezone`. Raises UsageError where there is none of that name."""
    try:
        return UTC if name.upper() == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"recommend.timezone: no zone {name[:60]!r}", "for example Europe/Berlin") from error


class Clock:
    """Reads the times of one column, and notes what they show of the order of day and month."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._only_first: dict[str, int] = {}
        """By order, the first row that can be read in no other one."""
        self._open = self._open_row = 0
        self.ordered = False
        """The column has times in which day and month could be mistaken for each other."""
        self.dates = 0
        """Times without a time of day."""
        self.utc = False
        """Whatever the settings say, times without a zone are UTC."""

    def read(self, text: str, row: int) -> Seconds:
        """Return what `text`, in row `row`, says."""
        if NUMBER.fullmatch(text):
            moment = self._number(text)
            return (moment, moment)
        if text[:4].isdecimal():
            try:
                read = datetime.fromisoformat(text)
            except ValueError:
                pass
            else:
                self.dates += len(text) <= 10
                return self._twice(read)
        if found := YEAR_FIRST.fullmatch(text):
            return self._twice(self._moment(int(found["y"]), int(found["m"]), int(found["d"]), found))
        if found := DAY_MONTH.fullmatch(text):
            return self._either(found, row)
        if found := DAY_NAME.fullmatch(text) or NAME_DAY.fullmatch(text):
            month = MONTH.get(plain(found["m"]), 0)
            return self._twice(self._moment(int(found["y"]), month, int(found["d"]), found))
        shorn = code(text)  # what spreadsheets put around a cell
        return self.read(shorn, row) if shorn != text and shorn else UNREADABLE

    def _number(self, text: str) -> int:
        value = float(text.replace(",", "."))
        if COMPACT.fullmatch(text):
            form = "%Y%m%d" + {8: "", 12: "%H%M", 14: "%H%M%S"}[len(text)]
            try:
                self.dates += len(text) == 8
                return self._seconds(datetime.strptime(text, form))
            except ValueError:
                pass
        if SHEET_DAYS[0] <= value < SHEET_DAYS[1]:
            self.dates += value == int(value)
            return self._seconds(SHEET_START + timedelta(seconds=round(value * DAY)))
        for above, scale in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
            if abs(value) >= above:
                value /= scale
                break
        return int(value) if abs(value) < 1e11 else NEVER

    def _either(self, found: re.Match[str], row: int) -> Seconds:
        """Read 1/5/2024 both ways."""
        a, b, year = int(found["a"]), int(found["b"]), int(found["y"])
        if len(found["y"]) == 2:
            if found["sign"] == "-":
                return UNREADABLE  # 24-05-01 may begin with its year
            year += 2000 if year < 70 else 1900
        day_first, month_first = (self._moment(year, b, a, found), self._moment(year, a, b, found, count=False))
        self.ordered = True
        if day_first and month_first:
            if a != b and found["sign"] != ".":
                self._open, self._open_row = self._open + 1, min(row, self._open_row or row)
        elif day_first or month_first:
            order = "day-first" if day_first else "month-first"
            self._only_first[order] = min(row, self._only_first.get(order, row))
        return self._seconds_or_never(day_first), self._seconds_or_never(month_first)

    def _moment(self, year: int, month: int, day: int, found: re.Match[str], *, count: bool = True) -> datetime | None:
        """Return the moment of a date and of the time in `found`; None where there is no such one."""
        hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
        if half := found["half"]:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (half.lower() == "p")
        midnight = (hour, minute, second) == (24, 0, 0)
        try:
            zone = offset_of(found["zone"])
            read = datetime(year, month, day, 0 if midnight else hour, minute, min(second, 59), tzinfo=zone)
        except ValueError:
            return None
        self.dates += count and not found["hour"]
        return read + timedelta(days=midnight)

    def _twice(self, read: datetime | None) -> Seconds:
        seconds = self._seconds_or_never(read)
        return (seconds, seconds)

    def _seconds_or_never(self, read: datetime | None) -> int:
        return NEVER if read is None else self._seconds(read)

    def _seconds(self, read: datetime) -> int:
        try:
            return int((read if read.tzinfo else read.replace(tzinfo=UTC if self.utc else self._zone)).timestamp() // 1)
        except (OverflowError, ValueError):
            return NEVER

    def day_first(self, order: Literal["auto", "day-first", "month-first"], where: str) -> bool:
        """Tell whether the day stands first in what this clock has read. Raises DataError, whose hint names the
        setting, where the column does not show it; `where` names the file and the column.
        """
        if order != "auto":
            return order == "day-first"
        hint = 'say which: recommend.day_order = "day-first" or "month-first"'
        if len(self._only_first) == 2:
            rows = " and ".join(f"row {row:,} {name}" for name, row in sorted(self._only_first.items()))
            raise DataError(f"{where}: day and month stand in two orders: {rows}", hint)
        if self._open and not self._only_first:
            times = f"{self._open:,} times, first in row {self._open_row:,}"
            raise DataError(f"{where}: nothing shows which number is the day and which the month ({times})", hint)
        return "month-first" not in self._only_first


@lru_cache(maxsize=256)
def offset_of(name: str | None) -> tzinfo | None:
    """Return the zone +0200, GMT+2, CEST; None where there is none. Raises ValueError for an unknown one."""
    from datetime import timezone

    if not name:
        return None
    known = name.lower()
    if known in ZONES:
        return timezone(timedelta(hours=ZONES[known]))
    found = re.fullmatch(r"(?:utc|gmt)?([+-])(\d{1,2}):?(\d{2})?", known)
    if not found:
        raise ValueError(f"no zone {name}")
    away = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
    return timezone(-away if found[1] == "-" else away)
