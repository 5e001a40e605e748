"""Titles, descriptions and queries: varied, never naming everything, and true."""

from random import Random

from afmrl_cli.nano.garment import random_garment
from afmrl_cli.nano.wording import _SAID, listing_words, query_words


def says(text: str, key: str, value: str) -> bool:
    return any(words.removeprefix("a ").removeprefix("an ").lower() in text.lower() for words in _SAID[key][value])


def test_what_is_said_to_be_stated_is_in_the_text_and_something_is_left_out():
    rng = Random(1)
    for _ in range(400):
        garment = random_garment(rng)
        words = listing_words(garment, rng, "Norrsken")
        text = f"{words.title} {words.description}"
        for key, value in words.stated.items():
            assert value in text if key == "accent" else says(text, key, value), (key, value, text)
        assert len(words.stated) < len(garment.attributes())
        assert words.stated["category"] == garment.category


def test_every_attribute_is_stated_at_times_and_left_out_at_times():
    rng = Random(2)
    stated: dict[str, list[bool]] = {}
    for _ in range(1500):
        garment = random_garment(rng)
        words = listing_words(garment, rng, "Norrsken")
        for key, value in garment.attributes().items():
            if value != "none":
                stated.setdefault(key, []).append(key in words.stated)
    shares = {key: sum(hits) / len(hits) for key, hits in stated.items()}
    assert shares.pop("category") == 1
    assert all(0.2 < share < 0.7 for share in shares.values()), shares


def test_the_same_garment_is_described_in_many_ways():
    garment = random_garment(Random(3))
    titles = {listing_words(garment, Random(n), "Norrsken").title for n in range(40)}
    assert len(titles) > 25


def test_a_query_names_what_it_says_it_names():
    rng = Random(4)
    for _ in range(400):
        garment = random_garment(rng)
        text, named = query_words(garment, rng)
        attributes = garment.attributes()
        assert 2 <= len(named) <= 7
        for key, value in named.items():
            assert attributes[key] == value
            assert value in text if key == "accent" else says(text, key, value), (key, value, text)
