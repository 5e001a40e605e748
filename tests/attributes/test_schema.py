"""The schema: which answers pass, in which spelling, and what prompt and server get."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmrl_cli.attributes.parse import InvalidAttributes, parse_attributes
from afmrl_cli.attributes.schema import AttributeSchema, read_answer, validated
from afmrl_cli.errors import UsageError
from afmrl_cli.settings import AttributeSettings

SETTINGS = AttributeSettings.model_validate(
    {
        "min_pairs": 2,
        "keys": {
            "Color": {"values": "navy, Light Blue, red", "description": "main colour"},
            "neck_type": {"values": ["v-neck", "crew neck"], "categories": ["Clothing/Tops"]},
            "material": {"values": ["cotton", "elastane"], "multiple": True},
            "model": {},
        },
    }
)
SCHEMA = AttributeSchema.from_settings(SETTINGS)
TOPS, SHOES = "clothing/tops/Blouses", "Clothing/Shoes"


def test_keys_by_category():
    assert list(SCHEMA.keys_for(TOPS)) == ["color", "neck_type", "material", "model"]
    assert list(SCHEMA.keys_for(SHOES)) == ["color", "material", "model"]
    assert list(SCHEMA.keys_for("")) == ["color", "material", "model"]
    assert "neck_type" not in SCHEMA.keys_for("Sale/Clothing/Tops"), "its beginning, not any part of it"


def test_prompt_text_lists_keys_and_values():
    assert SCHEMA.prompt_text(TOPS) == (
        "Use only these keys: color, main colour (navy, Light Blue, red); neck_type (v-neck, crew neck); "
        "material (several of: cotton, elastane); model."
    )
    assert AttributeSchema({}).prompt_text(TOPS) == ""


@pytest.mark.parametrize(
    ("text", "category", "stored"),
    [
        ("Color: LIGHT  BLUE; model: X9", SHOES, "color: Light Blue; model: X9"),
        ("colour_: x; color: navy", SHOES, "outside schema"),
        ("color: light-blue; Neck Type: V neck", TOPS, "color: Light Blue; neck_type: v-neck"),
        ("color: light_blue; neck-type: crew-neck", TOPS, "color: Light Blue; neck_type: crew neck"),
        ("color: navy; neck_type: v-neck", SHOES, "outside schema"),
        ("color: green; model: X9", SHOES, "outside schema"),
        ("color: navy, red; model: X9", SHOES, "outside schema"),
        ("material: Elastane, cotton,cotton; color: red", SHOES, "material: elastane, cotton; color: red"),
        ("material: cotton, wool; color: red", SHOES, "outside schema"),
        ("neck type: v-neck; neck-type: v-neck", TOPS, "repeated key"),
        ("color: navy; Color: navy", TOPS, "repeated key"),
        ("color: navy", SHOES, "too few pairs"),
        ("; ".join(f"k{i}: v" for i in range(13)), SHOES, "too many pairs"),
        ("color: navy; material: N/A; model: X9", SHOES, "color: navy; model: X9"),
        ("color: unknown; model: -", SHOES, "too few pairs"),
        ("material: cotton, n/a; color: red", SHOES, "material: cotton; color: red"),
        ("", SHOES, "empty"),
        ("nice dress", SHOES, "unparsable"),
    ],
)
def test_read_answer(text, category, stored):
    found, failure = read_answer(text, False, SCHEMA, category, SETTINGS)
    assert (found or failure) == stored
    assert (found is None) == (failure is not None)


def test_cut_off_wins_over_what_the_text_says():
    assert read_answer("color: navy; model: X9", True, SCHEMA, SHOES, SETTINGS) == (None, "cut off")
    assert read_answer("", True, SCHEMA, SHOES, SETTINGS) == (None, "cut off")


def test_the_message_names_the_key_and_the_value():
    with pytest.raises(InvalidAttributes, match="color: no value 'green'"):
        validated("color: green; model: X9", False, SCHEMA, SHOES, SETTINGS)
    with pytest.raises(InvalidAttributes, match="no key 'price'"):
        validated("color: navy; price: 0", False, SCHEMA, SHOES, SETTINGS)


def test_without_a_schema_any_pairs_pass():
    settings = AttributeSettings()
    schema = AttributeSchema.from_settings(settings)
    assert read_answer("Anything: goes", False, schema, "", settings) == ("anything: goes", None)


@given(st.text(max_size=60))
def test_nothing_leaves_the_schema(text):
    answer = f"color: {text}; model: X9"
    found, failure = read_answer(answer, False, SCHEMA, SHOES, SETTINGS)
    if found is not None:
        pairs = parse_attributes(found)
        assert set(pairs) <= {"color", "material", "model"}
        assert pairs.get("color", "navy") in {"navy", "Light Blue", "red"}
        assert read_answer(found, False, SCHEMA, SHOES, SETTINGS) == (found, None)
    else:
        assert failure in {"unparsable", "outside schema", "repeated key", "too few pairs"}


def test_json_schema_with_keys():
    schema = SCHEMA.json_schema(TOPS)
    assert schema["required"] == ["color", "neck_type", "material", "model"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["color"] == {
        "type": "string",
        "enum": ["navy", "Light Blue", "red", "unknown"],
        "description": "main colour",
    }
    assert schema["properties"]["material"]["items"]["enum"] == ["cotton", "elastane"]
    json.dumps(schema)


def test_json_schema_without_keys():
    assert AttributeSchema({}).json_schema("") == {"type": "object", "additionalProperties": {"type": "string"}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"neck_type": {}, "Neck Type": {}}, "the same key as neck_type"),
        ({"color": {"values": ["Navy", "navy"]}}, "the same value"),
        ({"color": {"values": ["light-blue", "light blue"]}}, "the same value"),
        ({"color": {"values": ["a;b"]}}, "color"),
        ({"a:b": {}}, "a:b"),
        ({"": {}}, "not a key"),
        ({"size": {"values": ["5 in."]}}, "can't be a value"),
        ({"k" * 41: {}}, "too long"),
        ({"size": {"values": ["x" * 121]}}, "too long"),
    ],
)
def test_a_schema_that_no_answer_could_meet_is_refused(keys, message):
    with pytest.raises(UsageError, match=message):
        AttributeSchema.from_settings(AttributeSettings.model_validate({"keys": keys}))


def test_a_schema_may_allow_a_placeholder() -> None:
    settings = AttributeSettings.model_validate({"keys": {"pattern": {"values": ["none", "striped"]}}})
    schema = AttributeSchema.from_settings(settings)
    assert read_answer("pattern: None", False, schema, "", settings) == ("pattern: none", None)
    assert read_answer("pattern: n/a", False, schema, "", settings) == (None, "too few pairs")
