"""What comes from outside steers no reader: no terminal, no CI, no spreadsheet, no Markdown page."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmrl_cli.escaping import (
    STEERS,
    from_spreadsheet_cell,
    json_text,
    log_text,
    markdown,
    printable,
    spreadsheet_cell,
    write_csv,
)


@pytest.mark.parametrize("char", ["\x1b", "\x9b", "\u202e", "\u2066", "\u200f", "\ufeff", "\U000e0041", "\ud800"])
def test_nothing_steers_a_terminal(char: str) -> None:
    assert printable(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    "line",
    [
        "::error::x",
        "  ::set-output name=a::b",
        "fine\n::warning::x",
        "##[error]x",
        "a ##[group]x",
        "##vso[task.setvariable]x",
    ],
)
def test_no_line_is_a_command_to_a_ci(line: str) -> None:
    said = log_text(line)
    assert not any(each.lstrip().startswith("::") for each in said.splitlines())
    assert "##[" not in said and "##vso[" not in said


def test_words_with_colons_stay() -> None:
    assert log_text("size: 4, std::vector, # 1") == "size: 4, std::vector, # 1"


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_the_same_and_steers_nothing(content: dict[str, str]) -> None:
    document = json_text(json.dumps(content, ensure_ascii=False))
    assert json.loads(document) == content
    assert not STEERS.search(document) and "##[" not in document


@given(st.text(alphabet="=+-@\t＝＠ '1a,;\n\"#"))
def test_no_cell_is_a_formula_and_each_is_read_back(value: str) -> None:
    cell = spreadsheet_cell(value)
    assert not cell.lstrip(" ").startswith(("=", "@", "\t", "＝", "＠"))
    if cell.startswith(("+", "-")):
        float(cell.replace(",", "."))
    if not value.startswith("'"):
        assert from_spreadsheet_cell(cell) == value


def test_a_table_keeps_numbers_and_disarms_the_rest() -> None:
    file = io.StringIO()
    write_csv(file, [["id", "score"], ['=HYPERLINK("http://x")', -0.5], ["@a", "+3"]])
    rows = list(csv.reader(io.StringIO(file.getvalue())))
    assert rows == [["id", "score"], ['\'=HYPERLINK("http://x")', "-0.5"], ["'@a", "+3"]]


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("![x](http://a/b.png)", "]("),
        ("[x](http://a)", "]("),
        ("[x][y]", "]["),
        ("see http://a.example", "http://"),
        ("www.example.com", "www."),
        ("<img src=x>", "<"),
        ("a | b", " | "),
        ("`code`", "``"),
    ],
)
def test_markdown_holds_no_link_no_picture_and_no_html(text: str, gone: str) -> None:
    assert gone not in re.sub(r"\\.", "", markdown(text))


def test_markdown_mentions_nobody_and_leaves_metrics_alone() -> None:
    assert markdown("@all") == "\\@all"
    assert markdown("recall@10: 0.5 [0.4, 0.6] by base_1") == "recall@10: 0.5 [0.4, 0.6] by base_1"
    assert markdown("two\nlines") == "two lines"
