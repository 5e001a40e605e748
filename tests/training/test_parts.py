"""Validation recall, the saved state, the report on negatives and the curve, each by itself."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from afmrl_cli.attributes.views import LISTING
from afmrl_cli.errors import ModelError
from afmrl_cli.sources import load_settings
from afmrl_cli.training.curve import training_curve
from afmrl_cli.training.negatives import Negatives
from afmrl_cli.training.pairs import Photo, Side, TrainListing
from afmrl_cli.training.state import find_states, load_state, save_state
from afmrl_cli.training.validation import Validation, make_validation, recall_at
from tests import NANO


def test_recall_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.7]], dtype=np.float32)
    relevant = np.array([[False, True, False], [True, False, True]])
    nothing = np.zeros_like(relevant)
    assert recall_at(scores, relevant, nothing, (1, 2, 3)) == {"recall@1": 0.25, "recall@2": 0.75, "recall@3": 1.0}
    own = np.array([[True, False, False], [True, False, False]])
    assert recall_at(scores, relevant, own, (1, 2)) == {"recall@1": 0.5, "recall@2": 1.0}


def test_sides_of_one_content_tie_whatever_the_batch_did_to_them() -> None:
    """Six products, the first two listed with the same words: for either query both stand equally near."""
    listings = [TrainListing(f"a{i}", f"p{i}", "", f"a {max(i, 1)}", (), {LISTING: ""}) for i in range(6)]
    sides = [Side(i, listing.text) for i, listing in enumerate(listings)]
    rng, sizes = np.random.default_rng(0), []

    def encode(some: Sequence[Side], instruction: str) -> NDArray[np.float32]:
        sizes.append(len(some))
        words = [int(side.text.removeprefix("a ")) for side in some]
        noisy = np.eye(6, dtype=np.float32)[words] + rng.uniform(0, 1e-2, (len(some), 6)).astype(np.float32)
        return noisy

    relevant = np.eye(6, dtype=bool)
    made = Validation(sides, sides, relevant, np.zeros_like(relevant), ("listings",), "none")
    assert made.recall(encode, load_settings(None, {}, NANO))["recall@1"] == pytest.approx(5 / 6)
    assert sizes == [5, 5]


def make_state() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
    torch.manual_seed(0)
    parameters = {name: torch.nn.Parameter(torch.randn(3)) for name in "ab"}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def take_steps(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW, number: int) -> None:
    for _ in range(number):
        optimizer.zero_grad()
        sum((p**2).sum() for p in parameters.values()).backward()  # type: ignore[union-attr]
        optimizer.step()


def test_state_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    parameters, optimizer = make_state()
    take_steps(parameters, optimizer, 3)
    save_state(tmp_path, 3, parameters, optimizer, {"epoch": 1})
    take_steps(parameters, optimizer, 2)
    save_state(tmp_path, 5, parameters, optimizer, {"epoch": 2})
    assert [path.name for path in find_states(tmp_path)] == ["state-5"], "only the last one is kept"

    others, other = make_state()
    assert load_state(tmp_path / "state-5", others, other) == {"epoch": 2}
    take_steps(parameters, optimizer, 2)
    take_steps(others, other, 2)
    for name in parameters:
        assert torch.equal(parameters[name], others[name])


def test_a_damaged_state_is_reported(tmp_path: Path) -> None:
    parameters, optimizer = make_state()
    place = save_state(tmp_path, 1, parameters, optimizer, {})
    (place / "state.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="can't go on from here") as error:
        load_state(place, parameters, optimizer)
    assert "--force" in error.value.hint
    (place / "state.json").write_text('{"other": "JSON"}')
    with pytest.raises(ModelError, match="can't go on from here"):
        load_state(place, parameters, optimizer)


def test_negatives_are_counted_and_survive_a_kill(tmp_path: Path) -> None:
    counted = Negatives()
    cosines = np.array([[0.5, 0.8], [0.1, 0.9]], dtype=np.float32)
    masked = np.array([[False, True], [False, False]])
    bm25 = np.array([[9.0, 3.0], [0.0, 9.0]])
    for times in (1, 2):
        counted.add(
            np.array([4, 7]),
            np.array([4, 7]),
            (bm25, 1 + np.tanh(bm25)),
            cosines + 0.01 * np.float32(times),
            masked,
            ~np.eye(2, dtype=bool) & ~masked,
        )
    counted = Negatives.from_json(counted.as_json())
    details = counted.summary()
    assert (details["negatives"], details["masked_share"], details["known_share"], details["similar_pairs"]) == (
        4,
        0.5,
        0.5,
        1,
    )
    assert details["bm25"]["count"][0] == 2 and sum(details["bm25"]["count"]) == 4, "the diagonal is not counted"
    pair = counted.similar[4, 7]
    assert (pair.times, round(pair.similarity, 2), round(pair.positive, 2)) == (2, 0.82, 0.52)

    listings = [TrainListing(f"S{i}", f"P{i}", "", f"Title: shirt {i}\nBrand: x") for i in range(8)]
    counted.write(tmp_path, listings, [["red", f"n{i % 3}"] for i in range(8)])
    lines = (tmp_path / "similar_pairs.csv").read_text().splitlines()
    assert lines[1] == "S4,S7,0.8200,0.5200,2,n1 red,shirt 4,shirt 7"
    page = (tmp_path / "negatives.md").read_text()
    assert "| S4 | S7 | 0.8200 | 0.5200 | 2 | n1 red |" in page
    assert "| 2.72 | 50.00% |" in page and "| 5.75 | 50.00% |" in page, "e^(1 + tanh 0) and e^(1 + tanh 3)"


@pytest.mark.parametrize(
    ("loss", "recall"), [([(1.0, 2.0), (2.0, 1.0)], [(0.0, 0.1), (2.0, 0.4)]), ([(1.0, 0.0)], []), ([], [])]
)
def test_the_curve_is_a_picture(loss: list[tuple[float, float]], recall: list[tuple[float, float]]) -> None:
    drawn = ElementTree.fromstring(training_curve("a <run>", loss, recall, "recall@1"))
    lines = [each.attrib["points"].split() for each in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [len(loss), len(recall)]
    assert "nan" not in str(lines)


def test_the_best_step_is_chosen_by_the_kind_of_query_that_is_evaluated() -> None:
    photos = tuple(Photo(Path(f"{i}.png"), (9, 9), str(i)) for i in range(2))

    def listings(shared: int) -> list[TrainListing]:
        made = [
            TrainListing(f"a{i}", f"p{i // 2}", "", f"a {i}", photos, {LISTING: f"colour: {i}"}) for i in range(shared)
        ]
        return made + [TrainListing(f"b{i}", f"b{i}", "", f"b {i}", photos, {LISTING: f"size: {i}"}) for i in range(8)]

    def queried(shared: int, **changes: object) -> tuple[list[str], int, list[str]]:
        made = make_validation(listings(shared), load_settings(None, changes, NANO))
        assert made is not None
        summary = made.describe()
        assert (summary["queries"], summary["gallery"]) == (len(made.queries), len(made.gallery))
        return list(made.kinds), len(made.queries), [side.attributes for side in made.queries]

    # As `eval` does: listings that share a product, where these are products enough; else what asks about the most.
    kinds, number, attributes = queried(40)
    assert (kinds, number) == (["listings"], 40) and all(attributes)
    assert queried(40, **{"agcl.validation_enrich": "none"})[2] == [""] * 40
    assert queried(6)[:2] == (["photos"], 14)
    assert queried(0)[:2] == (["photos"], 8)
    assert queried(4)[:2] == (["photos"], 12)
    # The gallery is every listing of the split, not only those that are asked for.
    for shared, pairs in ((6, "listings"), (40, "")):
        made = make_validation(listings(shared), load_settings(None, {"agcl.validation_pairs": pairs}, NANO))
        assert made is not None and sorted(side.listing for side in made.gallery) == list(range(shared + 8))
    assert queried(6, **{"agcl.validation_pairs": "image-text"})[:2] == (["image-text"], 14)
    assert queried(6, **{"agcl.pairs": ["photos"]})[:2] == (["photos"], 14)


def test_a_row_with_the_words_that_ask_is_no_answer() -> None:
    """Listings of one product under one title: the text of the other one would be found at once."""
    photos = [tuple(Photo(Path(f"{i}{side}.png"), (9, 9), f"{i}{side}") for side in "ab") for i in range(20)]
    listings = [TrainListing(f"a{i}", f"p{i // 2}", "", f"title {i // 2}", photos[i]) for i in range(20)]
    made = make_validation(listings, load_settings(None, {"agcl.validation_pairs": "image-text"}, NANO))
    assert made is not None
    same_words = np.array(
        [[bool(row.text) and row.text == query.text for row in made.gallery] for query in made.queries]
    )
    assert same_words.any() and made.excluded[same_words].all()
    assert (made.relevant & ~made.excluded).any(axis=1).all()
