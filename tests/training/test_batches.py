"""Batches: full, without two of a product, deterministic, and near each other where that is wanted."""

from __future__ import annotations

import random

import pytest

from afmrl_cli.errors import DataError
from afmrl_cli.training.batches import Strategy, choose_strategy, plan_batches
from afmrl_cli.training.lexical import build_lexical

N = 120


def shop(listings_each: int = 2) -> tuple[list[str], list[str], list[list[str]]]:
    """Identities (some shared), categories and attribute tokens: ten families of near-identical products."""
    identities = [f"p{i // listings_each}" for i in range(N)]
    families = [i // 12 for i in range(N)]
    rng = random.Random(0)
    tokens = [[f"family{family}", f"style{family}", f"own{rng.randrange(40)}"] for family in families]
    return identities, [f"c{family % 3}" for family in families], tokens


def plan(strategy: Strategy, size: int = 10, seed: tuple[int, int] = (1, 0)) -> list[list[int]]:
    identities, categories, tokens = shop()
    lexical = build_lexical(tokens)
    return plan_batches(identities, categories, range(N), lexical, batch_size=size, strategy=strategy, seed=seed)


@pytest.mark.parametrize("strategy", ["random", "category", "neighbours"])
def test_batches_are_full_and_never_hold_a_product_twice(strategy: Strategy) -> None:
    identities = shop()[0]
    batches = plan(strategy)
    used = [pair for batch in batches for pair in batch]
    assert len(used) == len(set(used)), "no pair stands twice"
    assert len(used) >= 0.75 * N
    for batch in batches:
        assert len(batch) == 10 == len({identities[pair] for pair in batch})


@pytest.mark.parametrize("strategy", ["random", "category", "neighbours"])
def test_the_seed_decides(strategy: Strategy) -> None:
    assert plan(strategy) == plan(strategy)
    assert plan(strategy) != plan(strategy, seed=(1, 1))


def test_inside_a_category() -> None:
    categories = shop()[1]
    batches = plan("category", size=6)
    pure = [batch for batch in batches if len({categories[pair] for pair in batch}) == 1]
    assert len(pure) >= len(batches) - 2, "what is left of the categories is mixed"


def test_neighbours_are_nearer_than_chance() -> None:
    lexical = build_lexical(shop()[2])

    def nearness(batches: list[list[int]]) -> float:
        scores = [lexical.bm25.pairs(batch, batch) for batch in batches]
        return sum(float((s.sum() - s.trace()) / (s.size - len(s))) for s in scores) / len(scores)

    assert nearness(plan("neighbours")) > 2 * nearness(plan("random"))


def test_a_category_of_one_product_lands_in_a_mixed_batch() -> None:
    categories = ["many"] * 9 + ["alone"]
    batches = plan_batches(
        [str(i) for i in range(10)],
        categories,
        range(10),
        None,
        batch_size=5,
        strategy="category",
        seed=(0, 0),
    )
    assert len(batches) == 2 and any(9 in batch for batch in batches)


def test_fewer_products_than_the_batch() -> None:
    with pytest.raises(DataError, match=r"60 products with a positive pair are fewer than agcl.batch_size = 64"):
        plan("random", size=64)


def test_auto() -> None:
    assert choose_strategy("auto", 64, True) == "neighbours"
    assert choose_strategy("auto", 64, False) == "category"
    assert choose_strategy("auto", 1024, True) == "random"
    assert choose_strategy("category", 1024, True) == "category"


def test_auto_takes_chance_from_512_on() -> None:
    assert (choose_strategy("auto", 511, True), choose_strategy("auto", 512, True)) == ("neighbours", "random")


@pytest.mark.parametrize("seed", range(5))
def test_a_products_second_listing_goes_into_the_next_batch(seed: int) -> None:
    identities = [f"p{i % 10}" for i in range(20)]
    batches = plan_batches(identities, [""] * 20, range(20), None, batch_size=10, strategy="random", seed=(seed, 0))
    assert sorted(pair for batch in batches for pair in batch) == list(range(20))


@pytest.mark.parametrize("seed", range(5))
def test_a_cluster_looks_past_the_listings_of_its_own_products(seed: int) -> None:
    """Two families of five products, each listed four times in the same words."""
    identities = [f"p{i // 4}" for i in range(40)]
    families = [i // 20 for i in range(40)]
    lexical = build_lexical([[f"family{family}", f"also{family}"] for family in families])
    batches = plan_batches(
        identities, [""] * 40, range(40), lexical, batch_size=5, strategy="neighbours", seed=(seed, 0)
    )
    assert len(batches) == 8
    assert all(len({families[pair] for pair in batch}) == 1 for batch in batches)
