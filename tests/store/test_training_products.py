"""What a manifest keeps of the products that a checkpoint has seen, and what the next checkpoint takes over."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.lineage import with_sources
from afmrl_cli.store.training_products import TrainingProducts, read_training_products, training_products

from .adapters import adapter, manifest

ids = st.text(min_size=1, max_size=6)
listings = st.lists(st.tuples(ids, ids), max_size=8)


@given(listings, listings, ids, ids)
def test_what_is_written_is_read_again(
    train: list[tuple[str, str]], validation: list[tuple[str, str]], id: str, product: str
) -> None:
    made = training_products(train, validation)
    read = read_training_products(made.written())
    assert read == made and read.listings == (len(set(train)), len(set(validation)))
    seen = any(id == known or (product == theirs != id and known != theirs) for known, theirs in train + validation)
    assert read.seen(id, product) == seen
    assert read.trained_on(id, product) <= read.seen(id, product)


def test_a_listing_is_known_by_its_product_or_by_its_own_id() -> None:
    seen = training_products([("L1", "P1"), ("L3", "L3")], [])
    assert seen.seen("L2", "P1") and seen.seen("L1", "L1") and seen.seen("L3", "P9")
    # The id of one listing is no product_id of another.
    assert not seen.seen("P1", "P1") and not seen.seen("L4", "L1")


def test_together_they_count_the_larger_number_of_listings() -> None:
    made = training_products([("L1", "P1"), ("L2", "P2")], [("L3", "P3")])
    assert TrainingProducts().listings == (0, 0) and TrainingProducts().joined(made).listings == (2, 1)
    other = training_products([("L4", "P4")], [("L5", "P5"), ("L6", "P6")])
    both = made.joined(other)
    assert both.listings == (2, 2) and both.seen("L4", "P4") and both.seen("L1", "P1") and both.seen("L3", "P3")


@pytest.mark.parametrize(
    "content",
    [
        {"train": "", "validation": "", "listings": [0]},
        {"train": "", "validation": "", "listings": [0, 0], "complete": 1},
        {"train": "AAA=", "validation": "", "listings": [0, 0], "complete": True},
        {"train": "not base64!", "validation": "", "listings": [0, 0], "complete": True},
        {"train": [1], "validation": "", "listings": [0, 0], "complete": True},
    ],
)
def test_a_damaged_list_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="products"):
        read_training_products(content)


def test_a_checkpoint_has_seen_what_it_came_from_has_seen(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "checkpoints")
    known = training_products([("old", "old")], [("chosen", "chosen")]).written()
    parent = store.add(adapter(tmp_path / "a"), manifest("embedder", products=known))
    teacher = training_products([("taught", "taught")], []).written()
    writer = store.add(adapter(tmp_path / "b", 5), manifest("generator", products=teacher))
    store.add(adapter(tmp_path / "c", 6), manifest("generator", name="of-earlier"))
    own = training_products([("new", "new")], [])

    def made(inputs: dict[str, str]) -> TrainingProducts:
        found = read_training_products(with_sources(own, parent, inputs, store))
        assert found is not None
        return found

    whole = made({"attributes": f"nano-{writer.name}-0123456789"})
    assert whole.complete and all(whole.seen(id, id) for id in ("new", "old", "chosen", "taught"))
    assert not whole.trained_on("chosen", "chosen")
    assert made({"attributes": "nano-0123456789"}).complete  # a bare base has seen nothing of this catalog
    assert not made({"attributes": "nano-of-earlier-0123456789"}).complete
