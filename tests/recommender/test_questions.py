"""What the recommender is asked, what its answers are worth, and when a run is stopped."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from afmrl_cli.catalog.product import Product
from afmrl_cli.next_item.histories import Question
from afmrl_cli.recommender.constrained import lines_alone
from afmrl_cli.recommender.inflation import Inflation
from afmrl_cli.recommender.prompt import answer_text, question_text, read_answer
from afmrl_cli.recommender.questions import Example, draw, history_lines, key_of, sampled
from afmrl_cli.recommender.reward import reward_of
from afmrl_cli.recommender.texts import Texts, listing_line

LINES = ("red shirt", "blue shirt", "green coat", "red shirt", "navy hat", "white hat", "black coat")
TEXTS = Texts(tuple("abcdefg"), LINES, LINES, tuple("abcdefg"), 0)


def question(*history: int, target: int) -> Question:
    return Question(np.array(history, dtype=np.int32), np.arange(len(history), dtype=np.int64), 99, target, 0)


def drawn(seed: int, *, number: int = 4, hard: float = 0.5, near: tuple[int, ...] = (4, 5)) -> Example:
    sizes = (9, number, hard, 3)
    return draw("k", question(1, target=0), np.array(near), TEXTS, sizes, np.random.default_rng(seed))


def test_a_question_shows_history_reasoning_and_candidates_in_this_order() -> None:
    assert question_text(["red hat", "blue hat"], ["navy hat", "shoe"], 3, "likes hats") == (
        "A customer had to do with these products, the latest last:\n- red hat\n- blue hat\n"
        "What may be behind it:\nlikes hats\n"
        "Which of these comes next? Write the 2 likeliest, the likeliest first, a line each:\n- navy hat\n- shoe"
    )
    assert "behind" not in question_text(["red hat"], ["navy hat"], 1)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("b\nc", [1, 2]),
        (" B \n\nc ", [1, 2]),
        ("- b\n- c", [1, 2]),
        ("- - b\n- c", None),
        ("they like b\nNext:\nc\na", [2, 0]),
        ("b", None),
        ("b\nc\na", None),
        ("b\nb", None),
        ("b\nx", None),
        ("", None),
    ],
)
def test_only_candidates_letter_by_letter_are_an_answer(answer: str, named: list[int] | None) -> None:
    assert read_answer(answer, ["a", "b", "c"], 2) == named


def test_what_is_written_as_an_answer_is_read_as_one() -> None:
    for reasoning in ("", "two lines\nof thought"):
        assert read_answer(answer_text(["c", "a"], reasoning), ["a", "b", "c"], 2) == [2, 0]
    assert read_answer("b\na", ["a", "b"], 3) == [1, 0], "no more than there are"


def test_a_listing_may_be_called_as_what_reasoning_ends_with() -> None:
    assert read_answer("a\nNext:\nb", ["a", "b", "Next:"], 3) == [0, 2, 1]
    assert read_answer("thought\nNext:\nNext:\nb", ["a", "b", "Next:"], 2) == [2, 1]
    assert read_answer("thought\nNext:\nb\na", ["a", "b", "Next:"], 2) == [1, 0]


def test_candidates_that_differ_in_capitals_alone_do_not_stand_together() -> None:
    lines = ("Red Shirt", "hat", "red  shirt", "RED SHIRT", "coat")
    texts = Texts(tuple("abcde"), lines, lines, tuple("abcde"), 0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        asked = draw("k", question(1, target=0), np.array([2, 3]), texts, (9, 5, 0.5, 3), rng)
        assert sorted(asked.candidates) == ["Red Shirt", "coat"]


def test_the_reward_is_graded_by_rank_and_outside_the_candidates_is_malformed() -> None:
    candidates = ("a", "b", "c", "d")
    assert reward_of("c\na\nb", candidates, 3, 2).value == 1.0
    assert reward_of("a\nc\nb", candidates, 3, 2).value == pytest.approx(1 / math.log2(3))
    assert reward_of("a\nb\nc", candidates, 3, 2).value == 0.5
    assert (reward_of("a\nb\nd", candidates, 3, 2).value, reward_of("a\nb\nd", candidates, 3, 2).valid) == (0.0, True)
    for wrong in ("a\nb", "a\nb\ne", "a\na\nc", "I think c"):
        assert reward_of(wrong, candidates, 3, 2).value == -1.0
    assert reward_of("c\na\nb", candidates, 3, 2, cut_off=True).value == -1.0


def test_candidates_are_no_part_of_the_history_and_differ_in_their_texts() -> None:
    for seed in range(50):
        asked = drawn(seed, number=6)
        assert "blue shirt" not in asked.candidates
        assert len(set(asked.candidates)) == len(asked.candidates) == 5, "all that there are: two are red shirts"
        assert asked.candidates[asked.target] == "red shirt"
        assert asked.history == ("blue shirt",)


def test_half_of_the_wrong_ones_are_of_the_retrieval_and_follow_the_target_in_its_order() -> None:
    for seed in range(20):
        asked = drawn(seed, number=5)
        ranked = [asked.candidates[place] for place in asked.ranked]
        assert ranked == ["red shirt", "navy hat", "white hat"], "the order behind the target is the retrieval's"
    assert {drawn(seed, number=2, hard=1.0, near=(6,)).candidates[1 - drawn(seed, number=2, hard=1.0, near=(6,)).target]
            for seed in range(5)} == {"black coat"}  # fmt: skip


def test_the_latest_listings_of_a_history_are_read_the_latest_last() -> None:
    assert history_lines(question(0, 1, 2, 4, target=3), TEXTS, 2) == ("green coat", "navy hat")
    assert history_lines(question(0, 1, target=3), TEXTS, 9) == ("red shirt", "blue shirt")


def test_a_key_is_of_what_was_taken_after_what_and_when_and_of_no_customer() -> None:
    one = question(0, 1, target=3)
    assert key_of(TEXTS.ids, one) == key_of(TEXTS.ids, replace(one, customer=7))
    others = [
        replace(one, seconds=98),
        replace(one, target=4),
        replace(one, times=one.times - 1),
        question(1, target=3),
    ]
    assert len({key_of(TEXTS.ids, each) for each in (one, *others)}) == 5


def test_of_many_interactions_a_fixed_sample_is_learnt_from() -> None:
    asked = [question(number, target=3) for number in range(7)]
    found = sampled(asked, TEXTS.ids, 3, 0)
    assert len(found) == 3 and list(found) == list(sampled(asked[::-1], TEXTS.ids, 3, 0))
    assert (
        found.keys() != sampled(asked, TEXTS.ids, 3, 1).keys() or found.keys() != sampled(asked, TEXTS.ids, 3, 2).keys()
    )
    assert all(key_of(TEXTS.ids, each) == key for key, each in found.items())
    assert len(sampled(asked, TEXTS.ids, 9, 0)) == 7


def test_candidates_are_shuffled_anew_each_time_and_the_same_for_one_seed() -> None:
    places = Counter(drawn(seed).target for seed in range(400))
    assert set(places) == {0, 1, 2, 3} and min(places.values()) > 70, "no place is the target's"
    assert drawn(5) == drawn(5) != drawn(6)


def test_listings_that_text_cant_tell_apart_are_counted() -> None:
    assert TEXTS.shared == 2


def test_a_listing_is_a_line_of_what_the_settings_name() -> None:
    product = Product("A-1", title="Linen  shirt", brand="Oak", given={"price": "9.90"})
    said = "colour: navy; material: linen"
    assert listing_line(product, ["title", "attributes"], said, "") == "Linen shirt; navy, linen"
    assert listing_line(product, ["brand", "price", "caption"], said, "A shirt.") == "Oak; 9.90; A shirt."
    assert listing_line(Product("A-1", title="Linen\nshirt\u2028<b>"), ["title"], "", "") == "Linen shirt <b>", (
        "one line"
    )
    assert listing_line(Product("A-2"), ["title", "attributes"], "", "") == "A-2", "never empty"


def test_a_reward_that_rises_without_the_ranking_is_inflation() -> None:
    watched = Inflation(0.1)
    assert watched.held_out(0.30) == ""
    found = []
    for reward, ranking in ((0.2, 0.30), (0.4, 0.29), (0.5, 0.30)):
        watched.rollouts(reward)
        found.append(watched.held_out(ranking))
    assert found[:2] == ["", ""] and "reward inflation" in found[2]
    assert "0.200 to 0.500" in found[2] and "0.300 before" in found[2]


def test_no_inflation_where_the_ranking_rises_too_or_the_reward_does_not() -> None:
    for steps in (((0.2, 0.3), (0.5, 0.31), (0.6, 0.32)), ((0.2, 0.3), (0.25, 0.3), (0.2, 0.2), (0.28, 0.1))):
        watched = Inflation(0.1)
        watched.held_out(0.30)
        for reward, ranking in steps:
            watched.rollouts(reward)
            assert watched.held_out(ranking) == ""


def test_once_is_no_inflation_and_a_better_ranking_begins_anew() -> None:
    watched = Inflation(0.1)
    watched.held_out(0.30)
    for reward, ranking in ((0.2, 0.30), (0.4, 0.30), (0.4, 0.31), (0.4, 0.30)):
        watched.rollouts(reward)
        assert watched.held_out(ranking) == ""


class Letters:
    """A tokenizer whose tokens are letters."""

    def __call__(self, lines: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in line] for line in lines]}


def test_only_the_candidates_lines_can_be_sampled() -> None:
    allowed = lines_alone(Letters(), ["red", "rex", "re", "blue"], 2, 0)

    def after(text: str) -> str:
        return "".join(chr(token) for token in allowed([ord(letter) for letter in text]))

    assert after("") == "-" and after("- ") == "br"
    assert after("- re") == "\ndx"
    assert after("- red") == "\n"
    assert after("- red\n- ") == "br" and after("- red\n- re") == "\x00x", "no line twice, and the last one ends"
    assert after("- red\n- rex") == after("- red\n- rex\x00") == "\x00"
