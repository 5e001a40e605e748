"""The rule that stands in for a reasoning model in measurements."""

from __future__ import annotations

from benchmarks.reasoner import Faults, criteria_of, judge, matches, values_in, write

from afmrl_cli.recommender.reasoning_prompt import judging_prompt, writing_prompt

HISTORY = ("Brand coat; coat, navy, zip", "Frock; dress, navy, mini", "Dress; dress, red, mini")
NONE = Faults(0.0, 0.0, 0.0)


def test_the_rule_writes_what_is_most_frequent_and_judges_by_it() -> None:
    text, cut = write(writing_prompt(HISTORY), NONE)
    assert criteria_of(text) == ["dress", "mini", "navy", "red"] and not cut
    assert [line.partition(":")[0] for line in text.splitlines()][1:] == ["Next intent", "Criteria", "Profile"]
    candidates = ("A; coat, navy", "B; dress, navy, mini", "C; dress, red")
    assert [matches(text, each) for each in candidates] == [1, 3, 2]
    assert judge(judging_prompt(text, candidates), 0.0) == "2"
    drawn = {judge(judging_prompt(text, [*candidates, f"D; {number}"]), 5.0) for number in range(40)}
    assert drawn == {"1", "2", "3", "4"}


def test_its_faults_are_what_they_say() -> None:
    had = {value for text in HISTORY for value in values_in(text)}
    assert had.isdisjoint(criteria_of(write(writing_prompt(HISTORY), Faults(1.0, 0.0, 0.0))[0]))
    assert "such as Dress" in write(writing_prompt(HISTORY), Faults(0.0, 1.0, 0.0))[0]
    assert write(writing_prompt(HISTORY), Faults(0.0, 0.0, 1.0))[1]
    faults = [Faults(0.3).of(f"prompt {number}") for number in range(1000)]
    assert 0.25 < faults.count("wrong") / 1000 < 0.35 and 0 < faults.count("cut") < faults.count("named")
