"""What is asked about two photos, what is taught, and how answers are read."""

from __future__ import annotations

import pytest

from afmrl_cli.saga.adjudicator import answer_text, pair_question, read_adjudication, read_descriptions

WORDS = ("yes", "no")
RED = {"colour": "red", "neckline": "v-neck", "fit": "slim"}
BLUE = {"neckline": "V neck", "colour": "blue"}
TAUGHT = " colour: red; neckline: v-neck\n neckline: V neck; colour: blue\n colour\n no"


def values(text: str, spans: tuple[tuple[int, int], ...]) -> list[str]:
    return [text[begin:end] for begin, end in spans]


def test_the_question_names_keys_and_few_values() -> None:
    many = [f"shade {i}" for i in range(40)]
    keys = {"colour": many, "neckline": ("v-neck", "round")}
    asked = pair_question(keys, WORDS, "schema", ["category", "pattern"]).prompt
    assert "colour; neckline (v-neck, round)" in asked and "shade 1" not in asked
    assert asked.endswith("yes if they are the same in category and pattern, else no.")
    assert "show the same product" in pair_question({}, WORDS, "schema").prompt
    generic = pair_question(keys, ("1", "0"), "generic", ["colour"]).prompt
    assert "colour" not in generic and "specialist" not in generic and generic.endswith("1 if they do, else 0.")


def test_the_answer_names_what_differs_and_judges_last() -> None:
    assert answer_text(RED, BLUE, False, WORDS, ["neckline", "colour"]) == (
        " neckline: v-neck; colour: red\n neckline: V neck; colour: blue\n colour\n no"
    )
    assert answer_text(RED, BLUE, False, WORDS, ["colour"], "generic") == " colour\n no"
    same = answer_text(RED, RED, True, WORDS, ["fit", "length"])
    assert same == " fit: slim\n fit: slim\n none\n yes"
    assert answer_text(RED, BLUE, True, WORDS, ["fit"]).endswith(" none\n yes"), "known of one is no difference"


def test_what_is_taught_is_read() -> None:
    found = read_adjudication(TAUGHT, WORDS)
    assert found.same is False
    assert values(TAUGHT, found.first) == ["red", "v-neck"]
    assert values(TAUGHT, found.second) == ["V neck", "blue"]
    assert read_descriptions(TAUGHT) == (
        {"colour": "red", "neckline": "v-neck"},
        {"neckline": "V neck", "colour": "blue"},
    )
    assert read_adjudication(TAUGHT.replace(" no", " 1"), ("1", "0")).same is True


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"photo_1": {"colour": "red", "sizes": ["S", "M"]}, "photo_2": {"colour": "navy blue"},\n'
        ' "differences": ["colour"], "same": "no"}\n```',
        '{\n  "Photo 1": {\n    "colour": "red",\n    "sizes": ["S", "M"]\n  },\n  "Photo 2": {\n    "colour": '
        '"navy blue"\n  },\n  "differences": ["colour: red vs blue"],\n  "Same": "No"\n}',
        "**Photo 1:** colour: red; sizes: S; other: M\n**Photo 2:** colour: navy blue\n**Differences:** colour\n"
        "**Same:** no",
        "### Photo 1\n- **colour**: red\n- size: S.\n- other: M\n\n### Photo 2\n* Colour: navy blue\n\n"
        "### Differences:\n1. colour: red in photo 1\n\nSame: **No**, they differ",
    ],
)
def test_what_large_models_write_is_read(text: str) -> None:
    found = read_adjudication(text, WORDS)
    assert found.same is False
    assert values(text, found.first) == ["red", "S", "M"]
    assert values(text, found.second) == ["navy blue"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Same: yes", True),
        ("Same:\nYes.", True),
        ("Photo 1: same: no\nPhoto 2: same: no\nSame: yes", True),
        ("Same: yes or no", None),
        ("Same: perhaps", None),
        ("Same: noyes", None),
        ("They are the same: see above\nThe verdict is yes", None),
        ("Both are the same, yes", None),
        ("Same:", None),
        ("", None),
        (" closure: no\n closure: no\n none\n yes", True),
        (" closure: no\n closure: no", None),
        ("colour\n**No.**\n", False),
        ("```\ncolour: red\ncolour: red\nnone\nyes\n```\n", True),
        ("colour\nyes no", None),
        ("colour\nno difference", None),
    ],
)
def test_a_verdict_is_one_word_and_not_the_other(text: str, same: bool | None) -> None:
    assert read_adjudication(text, WORDS).same is same


def test_without_descriptions_there_is_nothing_to_attend_from() -> None:
    for text in ("Differences: colour\nSame: no", " colour\n no", "colour: red\nno", ""):
        found = read_adjudication(text, WORDS)
        assert (found.first, found.second) == ((), ())
    cut_off = "Photo 1: colour: red; fit:\nPhoto 2: colour: blue; fit: sl"
    assert values(cut_off, read_adjudication(cut_off, WORDS).first) == ["red"]
    assert values(cut_off, read_adjudication(cut_off, WORDS).second) == ["blue", "sl"]
    assert read_adjudication("Photo 2: colour: red\nSame: no", WORDS).first == ()
