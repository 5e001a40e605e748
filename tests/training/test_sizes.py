"""Sizes follow from the catalog where nothing is set, and what is set stands."""

from __future__ import annotations

import pytest

from afmrl_cli.methods import METHODS
from afmrl_cli.settings import Settings
from afmrl_cli.training.sizes import (
    batch_size,
    epoch_steps,
    interval,
    median_rank_k,
    with_agcl_batch,
    with_agcl_steps,
    with_composed_sizes,
    with_rar_steps,
    with_sft_sizes,
)


@pytest.mark.parametrize(
    ("products", "size"), [(2, 2), (5, 2), (12, 4), (48, 16), (60, 16), (104, 32), (384, 128), (48_000, 128)]
)
def test_an_epoch_has_three_batches_or_more_and_a_batch_128_pairs_at_most(products: int, size: int) -> None:
    assert batch_size(products, 128) == size


def test_a_small_shop_is_gone_through_until_there_are_steps_enough_and_a_large_one_three_times() -> None:
    assert epoch_steps(0, 3, 30) == 30
    assert epoch_steps(0, 375, 30) == 1125
    assert epoch_steps(1, 3, 30) == 3, "an epoch that is asked for is one epoch"


def test_a_run_is_validated_six_times_and_at_least_every_fifty_steps() -> None:
    assert [interval(steps) for steps in (1, 6, 30, 300, 1125)] == [1, 1, 5, 50, 50]


def test_agcl_and_sft_of_sixty_products_and_of_sixty_thousand() -> None:
    small = with_agcl_steps(with_agcl_batch(Settings(), 48), 3).agcl
    assert (small.batch_size, small.steps, small.validate_every) == (16, 30, 5)
    large = with_agcl_steps(with_agcl_batch(Settings(), 48_000), 375).agcl
    assert (large.batch_size, large.steps, large.validate_every) == (128, 1125, 50)
    sft = with_sft_sizes(Settings(), 48).sft
    assert (sft.batch_size, sft.steps, sft.validate_every) == (16, 40, 7)


def test_what_is_set_stands() -> None:
    own = Settings.model_validate(
        {
            "agcl": {"batch_size": 6, "steps": 4, "validate_every": 2},
            "sft": {"batch_size": 5, "steps": 3, "validate_every": 1},
            "rar": {"k": 7, "steps": 9, "validate_every": 4},
        }
    )
    assert with_agcl_steps(with_agcl_batch(own, 48_000), 375) == own
    assert with_sft_sizes(own, 48_000) == own
    assert with_rar_steps(own, 500) == own


def test_several_processes_share_a_batch_evenly() -> None:
    assert with_agcl_batch(Settings(), 48_000, 3).agcl.batch_size == 126
    assert with_agcl_batch(Settings(), 6, 4).agcl.batch_size == 4


def test_half_of_the_queries_have_a_hit_at_the_median_rank_and_k_is_fifty_at_most() -> None:
    assert median_rank_k([1, 7, 90]) == 7
    assert median_rank_k([1, 1, 1]) == 1
    assert median_rank_k([400, 500, 600]) == 50


def test_rar_asks_each_query_three_times() -> None:
    assert with_rar_steps(Settings(), 512).rar.steps == 96
    assert with_rar_steps(Settings(), 12).rar.steps == 10
    assert with_rar_steps(Settings(), 3000).rar.steps == 200
    assert with_rar_steps(Settings(), 5000).rar.steps == 313, "once at least"


def test_triplets_take_three_epochs_in_forty_steps_at_least_and_fifteen_hundred_at_most() -> None:
    for triplets, size, steps in ((40, 8, 40), (2_560, 64, 120), (300_000, 64, 1_500)):
        found = with_composed_sizes(Settings(), triplets).composed
        assert (found.batch_size, found.steps) == (size, steps)
    whole = Settings().model_copy(update={"composed": Settings().composed.model_copy(update={"epochs": 3.0})})
    assert with_composed_sizes(whole, 300_000).composed.steps == 14_062, "what is set is done"


def test_each_method_has_learning_rates_of_the_model_that_it_trains() -> None:
    assert all(getattr(Settings(), m.name).role == m.role for m in METHODS.values())
    assert all(0 < rate < 0.1 for m in METHODS.values() for rate in getattr(Settings(), m.name).rates)
    assert not {"role", "rates"} & Settings().sft.model_dump().keys(), "keys of earlier runs stay as they are"
