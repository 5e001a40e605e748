"""Clocks of shops, as `recommend.times` reads them."""

from __future__ import annotations

import pytest

from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.recommend.times import NEVER, Clock, zone_of

NOON = 1_714_566_600
"""2024-05-01 12:30:00 UTC"""


def read(text: str, zone: str = "UTC", *, day_first: bool = True) -> int:
    return Clock(zone_of(zone)).read(text, 2)[0 if day_first else 1]


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T12:30:00Z",
        "2024-05-01 12:30",
        "2024-05-01 14:30:00 +0200",
        "2024-05-01T14:30:00.250+02:00[Europe/Berlin]",
        "2024-05-01 14:30:00 CEST",
        "2024-05-01 08:30:00 EDT",
        "20240501123000",
        "2024/5/1 12:30",
        "2024年5月1日 12:30",
        "01.05.2024 12:30 Uhr",
        "01.05.2024, 12:30:00",
        "1.5.24 12:30",
        "1/5/2024 12:30 PM",
        "1. Mai 2024 12:30",
        "May 1, 2024 12:30 pm",
        "Wed, 01 May 2024 12:30:00 GMT",
        "Wed May 01 2024 14:30:00 GMT+0200 (Central European Summer Time)",
        "1 de mayo de 2024 12:30",
        "1714566600",
        "1714566600.75",
        "1714566600000",
        "1714566600000000",
        "45413.5208333333",
        "'2024-05-01 12:30:00",
    ],
)
def test_one_moment_in_many_forms(text: str) -> None:
    assert read(text) == NOON


@pytest.mark.parametrize("text", ["2024-05-01", "20240501", "01.05.2024", "45413", "1 May 2024"])
def test_a_date_is_its_first_second_in_the_zone_of_the_settings(text: str) -> None:
    midnight = NOON - 12 * 3600 - 1800
    assert read(text) == midnight
    assert read(text, "Europe/Berlin") == midnight - 2 * 3600
    assert read(text, "America/New_York") == midnight + 4 * 3600


def test_a_time_with_a_zone_of_its_own_stays_whatever_the_settings_say() -> None:
    assert read("2024-05-01T12:30:00Z", "Asia/Tokyo") == NOON


@pytest.mark.parametrize(
    "text", ["soon", "12:30", "2024-13-01", "30/02/2024", "0000-00-00 00:00:00", "24-05-01", "9" * 40]
)
def test_what_is_no_time_is_never(text: str) -> None:
    assert read(text) == NEVER


@pytest.mark.parametrize(
    ("texts", "day_first"),
    [
        (["13/04/2024", "03/04/2024"], True),
        (["03/04/2024", "04/13/2024"], False),
        (["03.04.2024"], True),
        (["03.04.2024", "04.13.2024"], False),
        (["2024-04-03"], True),
    ],
)
def test_the_whole_column_tells_which_number_is_the_day(texts: list[str], day_first: bool) -> None:
    clock = Clock(zone_of("UTC"))
    for row, text in enumerate(texts, 2):
        clock.read(text, row)
    assert clock.day_first("auto", "x.csv: column time") is day_first


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["03/04/2024"], "nothing shows which number is the day and which the month (1 times, first in row 2)"),
        (["13/04/2024", "04/13/2024"], "row 2 day-first and row 3 month-first"),
    ],
)
def test_an_order_that_cannot_be_told_is_an_error_that_names_the_setting(texts: list[str], said: str) -> None:
    clock = Clock(zone_of("UTC"))
    for row, text in enumerate(texts, 2):
        clock.read(text, row)
    with pytest.raises(DataError, match=r"x.csv: column time") as found:
        clock.day_first("auto", "x.csv: column time")
    assert said in str(found.value) and "recommend.day_order" in found.value.hint
    assert clock.day_first("month-first", "x.csv") is False


def test_an_unknown_zone_is_told() -> None:
    with pytest.raises(UsageError, match=r"recommend.timezone: no zone 'Mars/Base'"):
        zone_of("Mars/Base")
