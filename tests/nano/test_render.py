"""The renderer: same arguments, same pixels; and what an answer names can be seen at the model's resolution."""

from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest
from nano_training.pool import MODEL_SIZE, as_seen
from PIL import Image

from afmrl_cli.nano.garment import CATEGORIES, KEYS, Garment, colour_variants, contrasts, random_garment, values_of
from afmrl_cli.nano.render import draw_garment, render_photo


def example(category: str, seed: int = 5) -> Garment:
    chosen = {key: values[0] for key, values in CATEGORIES[category].items()}
    return Garment(category, "teal", "solid", seed=seed, **chosen)


def seen(garment: Garment) -> np.ndarray:
    """The garment upright on grey, as the model would see it."""
    layer = draw_garment(garment, 2 * MODEL_SIZE)
    grey = Image.new("RGB", layer.size, (128, 128, 128))
    grey.paste(layer, (0, 0), layer)
    return np.asarray(as_seen(grey), dtype=np.int16)


def changed(one: Garment, other: Garment) -> int:
    """How many pixels of the model's picture clearly differ."""
    return int((np.abs(seen(one) - seen(other)).max(axis=2) > 40).sum())


def variants() -> list[tuple[str, str]]:
    return [(category, key) for category in CATEGORIES for key in values_of(category)]


@pytest.mark.parametrize(("category", "key"), variants())
def test_every_value_of_an_attribute_looks_different(category, key):
    base = example(category)
    if key == "accent":
        base = replace(base, pattern="striped", colour="brown", accent="white")
    values = values_of(category)[key]
    if key == "accent":
        values = tuple(value for value in values if contrasts(base.colour, value))
    for one, other in combinations(values, 2):
        pictures = []
        for value in (one, other):
            garment = replace(base, **{key: value})  # type: ignore[arg-type]
            if key == "pattern" and value != "solid":
                garment = replace(garment, accent="white")
            pictures.append(garment)
        # 36 pixels = six by six of 112; a two-pixel button would change 4.
        assert changed(*pictures) >= 36, f"{category} {key}: {one} / {other}"


def test_categories_look_different_from_each_other():
    for one, other in combinations(CATEGORIES, 2):
        assert changed(example(one), example(other)) > 200, (one, other)


def test_same_arguments_give_the_same_pixels_and_another_photo_seed_others():
    garment = random_garment(Random(3))
    first, again, other = (np.asarray(render_photo(garment, n, MODEL_SIZE)) for n in (1, 1, 2))
    assert (first == again).all()
    assert (np.abs(first.astype(int) - other).max(axis=2) > 40).mean() > 0.1


@pytest.mark.parametrize("size", [56, 112, 300, 448])
def test_any_size_gives_a_square_picture_of_that_size(size):
    photo = render_photo(random_garment(Random(4)), 0, size)
    assert photo.size == (size, size)
    assert photo.mode == "RGB"


def test_a_large_photo_reduced_shows_what_a_small_one_shows():
    rng = Random(6)
    for number in range(6):
        garment = random_garment(rng)
        small = np.asarray(render_photo(garment, number, MODEL_SIZE), dtype=float)
        large = np.asarray(as_seen(render_photo(garment, number, 448)), dtype=float)
        assert np.abs(small - large).mean() < 9


def test_fine_details_belong_to_the_garment():
    one = example("dress")
    striped = replace(one, pattern="striped", accent="white")
    assert changed(striped, replace(striped, seed=6)) > 100
    assert changed(one, one) == 0


def test_colour_variants_differ_in_colour_alone():
    for seed in range(50):
        first, second = colour_variants(Random(seed))
        assert first.colour != second.colour
        assert replace(second, colour=first.colour) == first
        if second.accent:
            assert contrasts(second.colour, second.accent)


def test_answers_have_five_to_eight_pairs_and_only_what_applies():
    rng = Random(8)
    for _ in range(300):
        garment = random_garment(rng)
        attributes = garment.attributes()
        assert 5 <= len(attributes) <= 8
        assert set(attributes) - {"category"} <= set(values_of(garment.category))
        assert ("accent" in attributes) == (garment.pattern != "solid")
        assert list(attributes) == [key for key in KEYS if key in attributes]
