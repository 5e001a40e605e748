"""Numbers in one normal form, and what stands where there is nothing."""

from __future__ import annotations

import pytest

from afmrl_cli.catalog.codes import code, gtin, identity, is_gtin, lost_digits
from afmrl_cli.catalog.gaps import filled, is_gap


@pytest.mark.parametrize(
    "written",
    [
        *("4006381333931", "'4006381333931", '="4006381333931"', "4006381333931.0", "4006381333931,00"),
        *(" 4006381333931\u00a0", "4006381 333931", "04006381333931", "4006-3813-33931", "4.006381333931E+12"),
        *(
            "\u20194006381333931",
            "00004006381333931"[3:],
            "\ufeff4006381333931",
            "'4006381333931'",
            "4006 381\u202f333 931",
        ),
    ],
)
def test_a_gtin_has_one_form_however_it_was_written(written: str) -> None:
    assert identity(written, gtins=True) == "4006381333931"


@pytest.mark.parametrize(
    ("written", "short"),
    [
        ("0012345678905", "012345678905"),
        ("012345678905", "012345678905"),
        ("12345678905", "012345678905"),
        ("96385074", "96385074"),
        ("00000096385074", "96385074"),
        ("10012345678902", "10012345678902"),
        ("4006381333932", ""),
        ("4006381", ""),
        ("AB-4006381333931", ""),
        ("0000000000000", ""),
    ],
)
def test_gtins_by_their_check_digit(written: str, short: str) -> None:
    assert gtin(written) == short
    assert is_gtin(written) == (short != "" and len(written) in (8, 12, 13, 14))


def test_a_shops_own_identity_stays_as_it_is() -> None:
    own = ["24-WB06-Blue", "7", "22", "1.5", "A 12", "p-0001", "12E5", "None of it", "007", "4006381333932"]
    assert [identity(text, gtins=False) for text in own] == own
    assert code("'001") == "001" and code("10.0") == "10.0" and code("'n'") == "n" and code("'") == "'"


@pytest.mark.parametrize(
    "text", ["0", "0000000000000", "exempt", "GTIN not available", "111111111111", "1234567890123"]
)
def test_no_identity_is_made_of_what_stands_for_none(text: str) -> None:
    assert identity(text, gtins=True) == ""


def test_rounded_numbers() -> None:
    assert all(map(lost_digits, ["4.00638E+12", "1.23457e+11", "2,5E+10", "4E+12", "4.00638E12"]))
    assert not any(map(lost_digits, ["12E5", "5E3", "4006381333931", "E+12", "1E-05"]))
    assert lost_digits("5E12", strict=False)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "N/A",
            "n/a",
            "#N/A",
            "NA",
            "nan",
            "NaN",
            "NULL",
            "(null)",
            "<NA>",
            "None",
            "\\N",
            "#VALUE!",
            "#REF!",
        ),
        *(
            "#NAME?",
            "#DIV/0!",
            "-",
            "--",
            "—",
            "...",
            "?",
            "TBD",
            "tba",
            "Unknown",
            "UNKNOWN",
            "not specified",
            "exempt",
        ),
        *("keine", "k. A.", "unbekannt", "inconnu", "non renseigné", "desconocido", "não se aplica", "sconosciuto"),
        *(
            "okänd",
            "saknas",
            "onbekend",
            "n.v.t.",
            "brak",
            "neznámý",
            "yok",
            "нет",
            "不明",
            "なし",
            "غير متوفر",
            "Not visible",
        ),
        *("Does not apply", '"n/a"', "[N/A]", "n / a", "#WERT!", "undefined"),
    ],
)
def test_placeholders_in_many_languages(text: str) -> None:
    assert is_gap(text) and filled(text) == ""


@pytest.mark.parametrize(
    "text", ["0", "Navy", "No", "no", "x", "NA-12", "Nana", "-5", "€€", "Kein Eisen", "none of these", "★"]
)
def test_values_that_look_a_little_like_placeholders(text: str) -> None:
    assert not is_gap(text) and filled(text) == text


def test_of_several_values_the_placeholders_are_left_out() -> None:
    assert filled("Cotton|N/A|Wool") == "Cotton|Wool" and filled("-|n/a") == "" and filled("a|b") == "a|b"
