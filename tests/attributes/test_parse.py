"""The grammar of attribute text: examples of every failure, and round trips that hypothesis looks for holes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmrl_cli.attributes.parse import (
    MAX_KEY_CHARS,
    MAX_VALUE_CHARS,
    InvalidAttributes,
    clean_value,
    parse_attributes,
    read_stored,
    write_attributes,
)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("color: navy", {"color": "navy"}),
        ("color: navy; neckline: v-neck", {"color": "navy", "neckline": "v-neck"}),
        ("  color :  navy   blue ;neckline:v-neck ", {"color": "navy blue", "neckline": "v-neck"}),
        ("Color: Navy", {"color": "Navy"}),
        ("color: navy;", {"color": "navy"}),
        ("color: navy.", {"color": "navy"}),
        ("color: navy.;", {"color": "navy"}),
        ("color: navy; .", {"color": "navy"}),
        ("size: 5 in.; color: navy", {"size": "5 in.", "color": "navy"}),
        ("ratio: 16:9", {"ratio": "16:9"}),
        ("url: https://example.org/a:b", {"url": "https://example.org/a:b"}),
        ("färg: mörkblå; 材质: 棉", {"färg": "mörkblå", "材质": "棉"}),
        ("4k: yes", {"4k": "yes"}),
        ("material: cotton, elastane", {"material": "cotton, elastane"}),
        ("color:\tnavy", {"color": "navy"}),
        ("color: navy\n", {"color": "navy"}),
    ],
)
def test_valid(text, pairs):
    assert parse_attributes(text) == pairs


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        (";", "unparsable"),
        (".", "unparsable"),
        ("navy", "unparsable"),
        ("color:", "unparsable"),
        ("color: ;", "unparsable"),
        (": navy", "unparsable"),
        ("color: navy;; size: M", "unparsable"),
        ("color: navy;;", "unparsable"),
        ("color: navy; nice dress", "unparsable"),
        ("color: navy\nsize: M", "unparsable"),
        ("color: navy\u2028size: M", "unparsable"),
        ("color: navy\x0bsize: M", "unparsable"),
        ("color: navy, size: M", "unparsable"),
        ("Here are the attributes: color: navy; size: M", "unparsable"),
        ("color: navy:", "unparsable"),
        ("- color: navy; size: M", "unparsable"),
        ("**color**: navy", "unparsable"),
        ('{"color": "navy"}', "unparsable"),
        ("color: \x1b[31mnavy", "unparsable"),
        ("color: na\x00vy", "unparsable"),
        ("color: \ud800", "unparsable"),
        ("k" * (MAX_KEY_CHARS + 1) + ": x", "unparsable"),
        ("color: " + "x" * (MAX_VALUE_CHARS + 1), "unparsable"),
        ("color: navy; Color: red", "repeated key"),
        ("neck  type: v; NECK TYPE: v", "repeated key"),
        ("; ".join(f"k{i}: v" for i in range(13)), "too many pairs"),
    ],
)
def test_named_failures(text, failure):
    with pytest.raises(InvalidAttributes) as caught:
        parse_attributes(text)
    assert caught.value.failure == failure


def test_limits_are_inclusive():
    text = "k" * MAX_KEY_CHARS + ": " + "v" * MAX_VALUE_CHARS
    assert write_attributes(parse_attributes(text)) == text
    twelve = "; ".join(f"k{i}: v" for i in range(12))
    assert len(parse_attributes(twelve)) == 12
    with pytest.raises(InvalidAttributes, match="12 pairs, at most 3"):
        parse_attributes(twelve, max_pairs=3)


def test_stored_text_is_read_without_a_limit_and_damaged_text_is_shown_as_it_is():
    fifteen = {f"k{i}": "v" for i in range(15)}
    assert read_stored(write_attributes(fifteen)) == fifteen
    assert read_stored("") == {}
    assert read_stored("no pairs") == {"attributes": "no pairs"}


PIECES = st.sampled_from(
    [":", ";", ".", " ", ": ", "; ", ",", "\n", "\u2028", "\x00", "\x1f", "a", "B", "İ", "ß", "-", "9", "\u00a0"]
)
NASTY = st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=20).map("".join)


@given(NASTY)
def test_whatever_is_accepted_reads_the_same_again(text):
    try:
        pairs = parse_attributes(text)
    except InvalidAttributes:
        return
    assert parse_attributes(write_attributes(pairs)) == pairs
    assert pairs and all(pairs) and all(pairs.values())
    assert len(write_attributes(pairs).splitlines()) == 1
    write_attributes(pairs).encode()  # a lone surrogate could not be stored


@given(NASTY.filter(lambda text: len(text) < 60))
def test_a_cleaned_value_fits_the_grammar(text):
    value = clean_value(text)
    if value:
        assert parse_attributes(f"key: {value}") == {"key": value}
        assert clean_value(value) == value


@given(st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9 _]{0,20}[a-z]", fullmatch=True), NASTY, min_size=1, max_size=12))
def test_clean_pairs_survive_writing_and_reading(pairs):
    clean = {" ".join(key.split()): clean_value(value) or "x" for key, value in pairs.items()}
    assert parse_attributes(write_attributes(clean)) == clean
