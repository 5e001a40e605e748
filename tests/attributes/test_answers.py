"""What models write around attributes, and how else they write them: read where it is clear, else left invalid."""

from __future__ import annotations

import json
import random

import pytest

from afmrl_cli.attributes.answers import SPECIAL_TOKEN, attribute_text
from afmrl_cli.attributes.prompt import DEFAULT_TEMPLATE
from afmrl_cli.attributes.request import Generation
from afmrl_cli.attributes.schema import AttributeSchema
from afmrl_cli.attributes.task import AttributeTask
from afmrl_cli.catalog.product import Product
from afmrl_cli.settings import AttributeSettings

SCARF = "color: navy; material: wool; item: scarf"
JSON = '{"color": "navy", "material": "wool", "item": "scarf"}'
PAIRS = json.loads(JSON)


def read(answer: str, **settings) -> tuple[str | None, str | None]:
    made = AttributeSettings.model_validate(settings)
    task = AttributeTask(made, AttributeSchema.from_settings(made), DEFAULT_TEMPLATE)
    return task.read(Generation(attribute_text(answer), False), Product("A"))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("color: navy; size: M", "color: navy; size: M"),
        ('{"color": "navy", "size": "M"}', "color: navy; size: M"),
        ('```json\n{"color": "navy"}\n```', "color: navy"),
        ('{"color": null, "size": "", "fit": "slim"}', "fit: slim"),
        ('{"pockets": 2, "hood": true, "width": 1.5}', "pockets: 2; hood: yes; width: 1.5"),
        ('{"material": ["cotton", "elastane"]}', "material: cotton, elastane"),
        ('{"care": "wash; do not iron: ever."}', "care: wash, do not iron ever"),
        ('{"color": "navy", "color": "red"}', "color: navy; color: red"),
        ('{"color": {"main": "navy"}}', '{"color": {"main": "navy"}}'),
        ('{"color": [["navy"]]}', '{"color": [["navy"]]}'),
        ('{"color": "na', '{"color": "na'),
        ("{}", ""),
        ("", ""),
    ],
)
def test_json_becomes_attribute_text(answer: str, text: str) -> None:
    assert attribute_text(answer) == text


@pytest.mark.parametrize(
    "before",
    [
        "<think>\nA scarf. It is {blue} perhaps.\n</think>\n\n",
        '<think>\nIt may be {"color": "red"}.\n</think>\n',
        "A scarf.\n</think>\n\n",
        "<THINKING>a</THINKING>",
        "<thought>a</thought>\n<reflection>b</reflection>",
        "[THINK]blue or navy[/THINK]",
        "◁think▷blue◁/think▷",
        "<seed:think>blue</seed:think>",
        "<|begin_of_thought|>blue<|end_of_thought|>\n<|begin_of_solution|>",
        "<|START_THINKING|>blue<|END_THINKING|><|START_RESPONSE|>",
        "<|channel|>analysis<|message|>It is blue.<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|channel|>analysis<|message|>Blue.<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
        "analysisThe photo shows a scarf.assistantfinal",
        "<|channel>thought\nblue<channel|>",
        "Here is my thought process: blue. Here is my response:\n",
        "<think>a <think>b</think> c</think>",
        "<|im_start|>assistant\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ],
)
@pytest.mark.parametrize("answer", [JSON, SCARF])
def test_thinking_is_no_answer(before: str, answer: str) -> None:
    assert read(before + answer) == (SCARF, None)


@pytest.mark.parametrize(
    "answer", ["<think>\ncolor: navy; item: scarf", f"<think>perhaps {JSON}", "<|channel|>analysis"]
)
def test_a_thought_that_does_not_end_is_no_answer(answer: str) -> None:
    text, failure = read(answer)
    assert text is None and failure in ("empty", "unparsable")


@pytest.mark.parametrize(
    "answer",
    [
        f"Here are the attributes:\n```json\n{JSON}\n```\nLet me know if you need more.",
        f"```JSON\n{JSON}\n```",
        f"```\n{JSON}\n```",
        f"~~~json\n{JSON}\n~~~",
        f"```json\n{JSON}",
        f"```json {JSON}```\nHope this helps!",
        f"Sure! {JSON}",
        f"The photo [1] shows {{blue}}. {JSON} I hope that helps.",
        f"```\n{SCARF}\n```",
        f'{{"attributes": {JSON}}}',
        f'{{"result": {{"product_attributes": {JSON}}}}}',
        f'{{"status": "ok", "attributes": {JSON}, "confidence": 0.9}}',
        f'{{"reasoning": "the photo shows a scarf", "attributes": {JSON}}}',
        json.dumps({"attributes": [{"key": key, "value": value} for key, value in PAIRS.items()]}),
        json.dumps([{"key": key, "value": value} for key, value in PAIRS.items()]),
        json.dumps([{"attribute": key, "value": value, "confidence": 0.9} for key, value in PAIRS.items()]),
        json.dumps([{key: value} for key, value in PAIRS.items()]),
        "\n".join(json.dumps({key: value}) for key, value in PAIRS.items()),
        json.dumps([[key, value] for key, value in PAIRS.items()]),
        json.dumps([f"{key}: {value}" for key, value in PAIRS.items()]),
        json.dumps({key: {"value": value, "confidence": 0.5} for key, value in PAIRS.items()}),
        json.dumps({key: {"en": value} for key, value in PAIRS.items()}),
        json.dumps({"answer": SCARF}),
        json.dumps({"output": JSON}),
        json.dumps(JSON),
        json.dumps(SCARF),
        f"[{JSON}]",
        f"{JSON}\n{JSON}",
        "{'color': 'navy', 'material': 'wool', 'item': 'scarf'}",
        "{'color': 'navy', 'size': None, 'material': 'wool', 'item': 'scarf',}",
        '{"color": "navy", "fit": null, "material": "wool", "item": "scarf",}',
        "{“color”: “navy”, “material”: “wool”, “item”: “scarf”}",
        f"<answer>{JSON}</answer>",
        f"<|begin_of_box|>{SCARF}<|end_of_box|>",
        f'<tool_call>\n{{"name": "attributes", "arguments": {JSON}}}\n</tool_call>',
        f'[TOOL_CALLS][{{"name": "attributes", "arguments": {JSON}}}]',
        "color: navy\nmaterial: wool\nitem: scarf",
        "```yaml\nattributes:\n  color: navy\n  material: 'wool'\n  item: \"scarf\"\n```",
        "---\ncolor:\n  - navy\nmaterial: wool\nitem: scarf\n...",
        "# Attributes\n\n- **Color:** navy\n- **Material:** wool\n- **Item:** scarf",
        "1. color: navy\n2. material: wool\n3. item: scarf",
        "Here:\n\n| Attribute | Value |\n| :-- | --: |\n| **color** | navy |\n| material | wool |\n| item | scarf |",
    ],
)
def test_wrapped_answers_are_read(answer: str) -> None:
    assert read(answer) == (SCARF, None)


@pytest.mark.parametrize(
    "token",
    [
        *(
            "<|im_end|>",
            "<|endoftext|>",
            "<|eot_id|>",
            "<|end|>",
            "<|return|>",
            "</s>",
            "<eos>",
            "<end_of_turn>",
            "[/INST]",
        ),
        *(
            "<｜end▁of▁sentence｜>",
            "<|END_OF_TURN_TOKEN|>",
            "<turn|>",
            "<end_of_utterance>",
            "<|im_",
            "<pad>",
            "<0x0A>",
        ),
        *("[EOS]", "[UNUSED_TOKEN_145]", "<[EOS_never_used_51bce0c785ca2f68081bfa7d91973934]>", "<extra_id_0>"),
    ],
)
def test_special_tokens_are_never_in_a_value(token: str) -> None:
    before = "" if token == "<|im_" else token  # one that was cut off stands at the end
    for answer in (JSON + token, SCARF + token, before + SCARF, JSON.replace("scarf", f"scarf{token}")):
        assert read(answer) == (SCARF, None), answer
    assert SPECIAL_TOKEN.sub("", token) == ""


def test_what_a_model_says_after_its_turn_is_not_read() -> None:
    assert read(f"{SCARF}<|im_end|>\n<|im_start|>user\nsize: M") == (SCARF, None)
    assert read(f'{JSON}<|im_end|>\n<|im_start|>user\n{{"size": "M"}}') == (SCARF, None)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, I can't help with that.",
        "I'm sorry: I can't help with that.",
        "Sorry: the image could not be processed",
        "Error: rate limit reached; retry after: 20 s",
        "Note: the photo is too dark",
        "Here are the attributes of this scarf: navy wool",
        "Based on the image: a navy scarf",
        "color: I cannot determine the color; material: wool",
        "answer: As an AI language model I have no eyes",
        "Status: 503; message: overloaded",
        "抱歉：我无法查看图片",
        "Es tut mir leid: ich kann das Bild nicht sehen",
        '{"error": "cannot process image"}',
        '{"error": {"message": "boom", "code": 500}}',
        f'{{"error": "timeout", "attributes": {JSON}}}',
        '{"message": "the image could not be loaded"}',
        '{"detail": "Not Found"}',
        '{"answer": "I am sorry, I cannot help with that"}',
        '{"color": "navy"} or {"color": "red"}',
        "color: navy, navy, navy, navy, navy",
        "color: navy navy navy navy",
        "Przepraszam: nie mogę pomóc",
        "Omlouvám se: nemohu pomoci",
        "Üzgünüm: bu konuda yardımcı olamam",
        "К сожалению: я не могу помочь",
        "عذراً: لا أستطيع المساعدة",
        "Xin lỗi: tôi không thể giúp",
        "ขออภัย: ฉันไม่สามารถช่วยได้",
        "申し訳ありません：画像",
        "The garment in the picture: a long navy scarf with fringes that looks warm",
        "overall impression: elegant; this would suit: a winter wardrobe of any gentleman",
        "Could you provide: a clearer image?",
        "HTTP 500: Internal Server Error",
        "ValueError: invalid image",
        "Request timed out: 504",
        "Model is loading: please wait",
        "See more: https://example.com",
        '{"success": false, "message": "invalid image"}',
        '[{"key": "color", "value": "navy"}, {"key": "it',
        "The color: navy\nIt seems to be a scarf that somebody has knitted\nitem: scarf",
        "[" * 5000,
        "{'a': " * 3000,
        "{" + "-" * 7000 + "1}",
        "'" * 7_000 + "{'",
        "x" * 300_000,
    ],
)
def test_prose_errors_and_apologies_are_never_attributes(answer: str) -> None:
    assert read(answer)[0] is None


@pytest.mark.parametrize(
    "gap", ["N/A", "unknown", "not visible", "not visible in the photo", "None", "-", "null", "n.a."]
)
def test_gaps_are_no_values(gap: str) -> None:
    assert read(f"color: navy; material: {gap}") == ("color: navy", None)
    assert read(json.dumps({"color": "navy", "material": ["wool", gap]})) == ("color: navy; material: wool", None)
    assert read(f"material: {gap}") == (None, "too few pairs")


def test_a_gap_that_the_schema_allows_is_a_value() -> None:
    keys = {"pattern": {"values": ["none", "striped"]}, "color": {"values": ["navy"]}}
    assert read("pattern: none; color: unknown", keys=keys) == ("pattern: none", None)


def test_gaps_do_not_count_as_pairs() -> None:
    seen = "; ".join(f"key {i}: v" for i in range(12))
    assert read(f"{seen}; one more: unknown") == (seen, None)
    assert read(f"{seen}; one more: v") == (None, "too many pairs")


def test_what_looks_like_chatter_and_is_none_stays() -> None:
    text = "top note: bergamot; brand: I Am Gia; print: I can't adult today; care: cannot be bleached; i/o ports: 4"
    assert read(text) == (text, None)


def test_wide_punctuation_is_read_as_ours() -> None:
    pairs = "颜色: 藏青; 材质: 羊毛; 类别: 围巾"
    for text in (
        "颜色：藏青；材质：羊毛；类别：围巾",
        "颜色：藏青; 材质：羊毛；类别：围巾。",
        "颜色﹕藏青﹔材质﹕羊毛；类别：围巾",
    ):
        assert read(text) == (pairs, None)
    assert read("اللون: كحلي؛ المادة: صوف") == ("اللون: كحلي; المادة: صوف", None)
    assert read("比例：16：9") == ("比例: 16:9", None)
    assert read("颜色：藏青，材质：羊毛") == (None, "unparsable")
    assert read('{"尺寸：": "大；红"}') == ("尺寸: 大,红", None)


def test_a_long_thought_is_taken_off() -> None:
    assert read(f"<think>{'It may be blue. ' * 5000}</think>{JSON}") == (SCARF, None)


def test_whatever_a_model_writes_is_read_or_invalid() -> None:
    """Pieces of answers in any order, among them what Python would run."""
    pieces = [
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "color",
        ":",
        ",",
        " ",
        "\n",
        "<think>",
        "</think>",
        "<|im_end|>",
        "```json\n",
    ]
    pieces += [
        "```",
        "null",
        "None",
        "\\",
        "\\u00e9",
        "-",
        "1e400",
        "NaN",
        "attributes",
        "<answer>",
        "：",
        "；",
        "\ud800",
    ]
    pieces += [
        "\0",
        "“",
        "<|channel|>final<|message|>",
        "(",
        "lambda",
        "b'x'",
        '{"a":1}',
        "[1,2]",
        "...",
        "# x",
        "__import__",
    ]
    chance = random.Random(0)
    for _ in range(1000):
        answer = "".join(chance.choices(pieces, k=chance.randrange(1, 25)))
        text, failure = read(answer)
        assert (text is None) == (failure is not None)
