"""The parts of `dedupe`: words, candidates, photos, groups, verdicts, measuring."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afmrl_cli.catalog.amounts import read_price
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.verdicts import Verdicts, read_verdicts
from afmrl_cli.dedupe.candidates import distinct_photos, find_candidates, unique_pairs
from afmrl_cli.dedupe.features import NAMES, Sources, pair_features
from afmrl_cli.dedupe.groups import complete_link, components
from afmrl_cli.dedupe.listings import ListingColumns, describe
from afmrl_cli.dedupe.measure import (
    Known,
    choose_threshold,
    curve_of,
    measure_threshold,
    reliability,
    what_is_known,
)
from afmrl_cli.dedupe.neighbours import ALL_PAIRS, nearest_rows
from afmrl_cli.dedupe.photos import Photos, load_signatures
from afmrl_cli.dedupe.score import by_hand, fit_scorer
from afmrl_cli.dedupe.variants import facts_of
from afmrl_cli.dedupe.words import codes_of, numbers_of, read_words
from afmrl_cli.errors import DataError
from afmrl_cli.intervals import interval_of_share
from afmrl_cli.listener import Silent
from afmrl_cli.settings import CatalogSettings, SplitSettings
from afmrl_cli.sources import load_settings
from tests import NANO
from tests.dedupe.shop import picture


def listings(products: list[Product], photos: list[tuple[str, ...]] | None = None) -> ListingColumns:
    none = [frozenset[str]() for _ in products]
    prices = np.full(len(products), np.nan)
    facts = [facts_of(product, {}) for product in products]
    described = describe(products, [{}] * len(products))
    return ListingColumns(products, photos or [() for _ in products], {}, described, none, prices, facts)


def features(products: list[Product], a: int = 0, b: int = 1) -> dict[str, float]:
    held = listings(products)
    sources = Sources(held, read_words(products), None, np.full(len(products), -1), None)
    [row] = pair_features(sources, np.array([[a, b]]))
    return dict(zip(NAMES, map(float, row), strict=True))


def test_codes_are_read_with_and_without_joints() -> None:
    assert {"dscw120b", "dscw120"} & codes_of("Sony DSC-W120/B camera") == {"dscw120b"}
    assert "davhdx589w" in codes_of("dav-hdx589w") & codes_of("DAVHDX589W")
    assert codes_of("Vitamin B12 for men, 500 pieces, size L") == set()
    assert codes_of("order 417190-002") == {"417190", "417190002"}


def test_numbers_are_equal_by_what_they_say() -> None:
    assert numbers_of("15,6 inch, 08 GB") == numbers_of('15.60" 8gb') == {"15.6", "8"}


@pytest.mark.parametrize(
    ("text", "price"),
    [("1.299,00 EUR", 1299), ("$12.50", 12.5), ("12,5", 12.5), ("1,299", 1299), ("1'299.95", 1299.95), ("33", 33)],
)
def test_prices(text: str, price: float) -> None:
    assert read_price(text) == price


def test_no_price() -> None:
    assert np.isnan(read_price("on request"))
    assert np.isnan(read_price("0.00"))


def test_a_listing_is_never_paired_with_itself_and_no_pair_stands_twice() -> None:
    pairs = unique_pairs(np.array([[3, 1], [1, 3], [2, 2], [0, 4]]), 5)
    assert pairs.tolist() == [[0, 4], [1, 3]]


def test_empty_texts_and_what_all_have_bring_nobody_together() -> None:
    products = [Product(f"e{i}") for i in range(4)]
    products += [
        Product("a", title="quiet zebra lamp"),
        Product("b", title="zebra lamp, quiet"),
        Product("c", title="cup"),
    ]
    held = listings(products, [("placeholder",), *[() for _ in products[1:]]])
    found = find_candidates(held, read_words(products), None, np.full(len(products), -1), 3)
    assert found.tolist() == [[4, 5]]


def test_vector_neighbours_are_candidates_and_rows_without_a_vector_are_not() -> None:
    products = [Product(f"p{i}", title=f"thing{i}") for i in range(5)]
    vectors = np.eye(5, 4, dtype=np.float32)
    vectors[3] = vectors[1]
    rows = np.array([1, 0, 2, 3, -1])  # as they are stored, the fifth listing has none
    found = find_candidates(listings(products), read_words(products), vectors, rows, 1).tolist()
    assert [0, 3] in found
    assert not any(4 in pair for pair in found)


def test_neighbours_of_many_vectors_are_sought_in_cells_and_found_all_the_same() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.normal(size=(2000, 24)), 3, axis=0) + 0.1 * rng.normal(size=(6000, 24))
    vectors = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
    assert len(vectors) > ALL_PAIRS
    found = np.concatenate([rows for _, rows in nearest_rows(vectors, 3)])
    of_group = np.arange(6000) // 3
    assert (of_group[found] == of_group[:, None]).mean() > 0.995
    exact = np.argsort(-vectors[:200] @ vectors.T, axis=1)[:, :3]
    assert np.mean([set(a) == set(b) for a, b in zip(exact, found[:200], strict=True)]) > 0.98


def test_a_photo_of_many_different_products_is_a_placeholder() -> None:
    products = [Product(f"p{i}", title=f"thing {i}") for i in range(6)]
    held = listings(products, [("same", f"own{i}") if i < 5 else ("own0",) for i in range(6)])
    assert distinct_photos(held)[:2] == [("own0",), ("own1",)]
    variants = [Product(f"v{i}", title=f"thing {i}", group_id="style") for i in range(6)]
    assert distinct_photos(listings(variants, [("same",)] * 6)) == [("same",)] * 6


def test_a_shared_model_number_speaks_for_and_another_one_against() -> None:
    more = [Product(f"m{i}", title=f"filler text number{i}") for i in range(30)]
    same = features([Product("a", title="Canon DR-2580C scanner"), Product("b", title="dr2580c office scanner"), *more])
    other = features(
        [Product("a", title="Canon DR-2580C scanner"), Product("b", title="Canon DR-2050C scanner"), *more]
    )
    assert same["code"] > 0.5
    assert same["model_other"] == 0
    assert other["code"] == 0 and other["model_other"] > 0.5


def test_cosines_are_those_of_the_stored_rows_however_many_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    products = [Product(f"p{i}", title=f"thing {i}") for i in range(6)]
    rows = np.array([5, 4, -1, 2, 1, 0])
    sources = Sources(listings(products), read_words(products), stored, rows, None)
    a, b = np.array(list(itertools.combinations(range(6), 2))).T
    expected = [max(0, stored[rows[i]] @ stored[rows[j]]) if 2 not in (i, j) else 0 for i, j in zip(a, b, strict=True)]
    for numbers in (8, 20, 10_000):  # one pair at a time, two, all
        monkeypatch.setattr("afmrl_cli.dedupe.features.NUMBERS", numbers)
        assert sources.cosines(a, b) == pytest.approx(expected, abs=1e-6)


def test_conflicting_attributes_and_lists() -> None:
    def product(id: str, colour: str, size: str) -> Product:
        return Product(id, title="Shirt", given={"color": colour, "size": size})

    many = [product(f"m{i}", ("red", "navy")[i % 2], ("S|M", "L")[i % 2]) for i in range(12)]
    assert features([product("a", "red", "S|M"), product("b", "red", "M|L"), *many])["attribute_other"] == 0
    assert features([product("a", "red", "S|M"), product("b", "navy", "L"), *many])["attribute_other"] == 0.75
    assert features([product("a", "red", "S"), product("b", "red", ""), *many])["attribute"] == 1


def test_variants_under_one_title_are_no_duplicates_by_hand() -> None:
    """Equal texts, photos that differ: below the threshold; with the same photo above."""
    shared = [Product(f"s{i}", title="Bruno Compete Hoodie", description="A warm hoodie.") for i in range(2)]
    rest = [Product(f"r{i}", title=f"Other thing{i} zebra{i}") for i in range(20)]
    held, words = listings([*shared, *rest]), read_words([*shared, *rest])
    pairs = np.array([[0, 1]])

    def score(a: int, b: int) -> float:
        rng = np.random.default_rng(0)
        drawn = rng.integers(1, 255, (2, 80), dtype=np.uint8)
        photos = Photos([(str(a),), (str(b),), *[()] * 20], {"0": drawn[0], "1": drawn[1]})
        sources = Sources(held, words, None, np.full(22, -1), photos)
        return float(by_hand(pair_features(sources, pairs))[0])

    assert score(0, 1) < 0 < score(0, 0)


def test_photos_of_one_picture_and_of_another_colour(tmp_path: Path) -> None:
    names = {
        "big": picture(tmp_path / "i" / "big.png", 1, 300),
        "small": picture(tmp_path / "i" / "small.jpg", 1, 120),
        "red": picture(tmp_path / "i" / "red.png", 1, 300, (255, 40, 40)),
        "other": picture(tmp_path / "i" / "other.png", 2, 300),
    }
    (tmp_path / "i" / "broken.png").write_bytes(b"no picture")
    names["broken"] = "i/broken.png"
    hashes = {name: f"{number:064x}" for number, name in enumerate(names)}
    paths = {hashes[name]: tmp_path / file for name, file in names.items()}
    store = tmp_path / "kept.npy"
    made = load_signatures(paths, store, CatalogSettings(), Silent())
    assert set(made) == set(paths) - {hashes["broken"]}
    for path in paths.values():
        path.unlink()
    again = load_signatures(paths, store, CatalogSettings(), Silent())  # kept: the files are not needed
    assert all((again[key] == made[key]).all() for key in made)
    photos = Photos([(hashes[name],) for name in names] + [()], made)
    a, b = np.zeros(5, dtype=np.int64), np.array([1, 2, 3, 4, 5])
    shape, colour = photos.alike(a, b)
    assert shape[0] > 0.95 and colour[0] > 0.95
    assert shape[1] > 0.95 and colour[1] < 0.7
    assert shape[2] < 0.6
    assert (shape[3], colour[3], shape[4]) == (0, 0, 0)


def test_groups_are_complete_links_and_never_chains() -> None:
    assert complete_link({(0, 1): 0.9, (1, 2): 0.8}) == [[0, 1]]
    assert complete_link({(0, 1): 0.9, (1, 2): 0.8, (0, 2): 0.7}) == [[0, 1, 2]]
    assert complete_link({(0, 1): 0.9, (1, 2): 0.8, (2, 3): 0.95}) == [[0, 1], [2, 3]]


def test_what_was_said_is_linked_and_rejected_pairs_never() -> None:
    assert complete_link({}, joined=[(0, 1), (1, 2)]) == [[0, 1, 2]]
    # 3 is alike one of a known group only; then all of it.
    assert complete_link({(2, 3): 0.9}, joined=[(0, 1), (1, 2)]) == [[0, 1, 2]]
    assert complete_link({(i, 3): 0.9 for i in range(3)}, joined=[(0, 1), (1, 2)]) == [[0, 1, 2, 3]]
    three = {pair: 0.9 for pair in itertools.combinations(range(3), 2)}
    assert complete_link(three, rejected=frozenset({(0, 2)})) == [[0, 1]]


def test_every_group_is_a_clique() -> None:
    rng = np.random.default_rng(1)
    pairs = {pair: float(rng.random()) for pair in itertools.combinations(range(25), 2) if rng.random() < 0.4}
    groups = complete_link(pairs)
    assert any(len(rows) > 2 for rows in groups)
    assert all(pair in pairs for rows in groups for pair in itertools.combinations(rows, 2))
    assert len({row for rows in groups for row in rows}) == sum(map(len, groups))


def test_components() -> None:
    assert sorted(components([(0, 1), (1, 2), (5, 4)])) == [[0, 1, 2], [4, 5]]


def verdict_file(root: Path, *lines: str, header: str = "id,other_id,verdict") -> Verdicts:
    (root / "v.csv").write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return read_verdicts(load_settings(None, {"dedupe.verdicts": "v.csv"}, NANO), root)


def test_verdicts_are_read_in_any_order_of_columns_and_by_several_words(tmp_path: Path) -> None:
    read = verdict_file(tmp_path, "same;x;b;a", "no;;a;c", ";empty;a;d", header="Verdict;Title;other_id;id")
    assert set(read.confirmed) == {("a", "b")}
    assert set(read.rejected) == {("a", "c")}
    assert read.identities({"a": "p1", "b": "p2", "c": "p3"}) == {"a": "p1", "b": "p1", "c": "p3"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b,maybe"], "row 2: verdict 'maybe' is not known"),
        (["a,a,same"], "a is paired with itself"),
        (["a,,same"], "without both ids"),
        (["a,b,same", "b,a,different"], "a and b are different here and the same in"),
        (["a,b,same", "b,c,same", "a,c,no"], "a and c are different, but confirmed pairs join them"),
    ],
)
def test_verdicts_that_can_not_be_used(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        verdict_file(tmp_path, *lines)


def test_weights_count_half_a_pair_for_each_measured_listing() -> None:
    split = SplitSettings(validation=0.0, test=0.5)
    products = [Product(f"l{i}", product_id=f"p{i // 2}") for i in range(40)]
    pairs = np.array(list(itertools.combinations(range(40), 2)))
    known = what_is_known(products, pairs, Verdicts({}, {}), split)
    tested = int((known.side == 2).sum())
    assert 4 < tested < 36
    weights = known.weights(pairs, 2)
    assert known.same_weight[2] == tested / 2 == weights[known.labels == 1].sum()
    # Each test listing has 38 wrong partners, every one of them by half.
    assert weights[known.labels == 0].sum() == pytest.approx(tested * 38 / 2)
    assert not (known.training_weights(pairs) * weights).any()


def test_precision_and_recall_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.4, 0.3])
    labels = np.array([1, 1, 0, 1, -1], dtype=np.int8)
    curve = curve_of(scores, labels, np.array([1, 1, 0.5, 1, 0.0]), same=4.0)
    at = curve.at(0.8)
    assert at["precision_interval"] == interval_of_share(0.8, 2.5**2 / 2.25)
    assert (at["precision"], at["recall"], at["pairs"]) == (2 / 2.5, 0.5, 2.5)
    nothing = curve.at(0.95)
    assert (nothing["precision"], nothing["recall"], nothing["pairs"]) == (1, 0, 0)
    assert nothing["precision_interval"] == [0, 1]
    assert curve.at(0.1)["recall"] == 0.75


def test_threshold_by_precision() -> None:
    scores = np.linspace(1, 0.5, 101)
    labels = (np.arange(101) < 60).astype(np.int8)
    curve = curve_of(scores, labels, np.ones(101), same=60)
    choice = choose_threshold(curve, 0.9)
    threshold = choice.threshold
    assert choice.reached and choice.precision >= 0.9
    assert curve.at(threshold)["precision"] >= 0.9 > curve.at(threshold - 0.006)["precision"]
    apart = curve_of(
        np.array([0.99] * 40 + [0.01, 0.005]), np.array([1] * 40 + [0, 0], dtype=np.int8), np.ones(42), same=40
    )
    assert (choose_threshold(apart, 0.95).threshold, choose_threshold(apart, 0.95).reached) == (0.5, True)
    assert choose_threshold(apart, 0.2).threshold == 0.2
    worst = curve_of(scores, np.zeros(101, dtype=np.int8), np.ones(101), same=1)
    assert not choose_threshold(worst, 0.9).reached


def test_a_precision_out_of_reach_is_answered_by_the_surest_one() -> None:
    """Not by a few lucky pairs at the top: of the first eleven 10 are right, and of the first 55 54."""
    labels = np.array([1] * 9 + [0] + [1] * 45 + [0] * 45, dtype=np.int8)
    curve = curve_of(np.linspace(1, 0.01, 100), labels, np.ones(100), same=60)
    choice = choose_threshold(curve, 0.99)
    assert not choice.reached
    assert choice.precision == pytest.approx(54 / 55)
    assert choice.interval == interval_of_share(choice.precision, 55)
    few = curve_of(np.array([0.9, 0.8]), np.array([1, 1], dtype=np.int8), np.ones(2), same=2)
    assert not choose_threshold(few, 0.9).reached
    assert not measure_threshold(few, 0.85, 0.9).reached
    assert measure_threshold(curve, 0.6, 0.9).reached


def test_intervals_have_a_width_at_none_and_all() -> None:
    assert interval_of_share(0.5, 0) == [0, 1]
    assert interval_of_share(0.0, 10) == pytest.approx([0, 0.2775], abs=1e-4)
    assert interval_of_share(1.0, 10) == pytest.approx([0.7225, 1], abs=1e-4)
    assert interval_of_share(0.5, 100) == pytest.approx([0.4038, 0.5962], abs=1e-4)


def reliable(right: np.ndarray, scores: np.ndarray, listings_known: bool = True) -> dict[str, Any]:
    """The table for pairs of test listings; each pair has two listings of its own."""
    count = len(scores)
    pairs = np.arange(2 * count).reshape(count, 2)
    side = np.full(2 * count, 2 if listings_known else 0, dtype=np.int8)
    return reliability(scores, Known(right.astype(np.int8), side, (0.0, 0.0, 1.0), [""] * (2 * count)), pairs)


def test_scores_are_calibrated_only_where_held_out_pairs_say_so() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(4000)
    table = reliable(rng.random(4000) < scores, scores)
    assert table["calibrated"] is True and table["error"] < 0.05
    assert sum(each["pairs"] for each in table["bins"]) == pytest.approx(4000)
    for each in table["bins"]:
        assert each["from"] <= each["predicted"] <= each["to"]
        assert each["interval"][0] < each["observed"] < each["interval"][1]
    sure = reliable(rng.random(4000) < 0.5 + (scores - 0.5) / 2, scores)
    assert sure["calibrated"] is False and sure["error"] > 0.1
    # One bin alone that lies says so, too.
    one = reliable(rng.random(4000) < np.where((scores > 0.8) & (scores < 0.9), 0.5, scores), scores)
    assert one["calibrated"] is False
    assert reliable(rng.random(60) < scores[:60], scores[:60])["calibrated"] is None
    fitted = reliable(rng.random(4000) < scores, scores, listings_known=False)
    assert (fitted["calibrated"], fitted["bins"]) == (None, [])


def test_scores_are_fitted_only_on_what_is_known_and_are_probabilities() -> None:
    rng = np.random.default_rng(0)
    count = 6000
    pairs = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    drawn = np.zeros((count, len(NAMES)), dtype=np.float32)
    drawn[:, 0] = rng.random(count)
    truth = rng.random(count) < 1 / (1 + np.exp(-(12 * drawn[:, 0] - 9)))
    weights = (np.arange(count) % 2).astype(np.float64)
    nobody = [""] * (2 * count)
    scorer = fit_scorer(drawn, pairs, truth.astype(np.int8), weights, nobody)
    assert scorer.fitted
    held = weights == 0
    scores = scorer.scores(drawn, pairs)[held]
    for low in (0.1, 0.3, 0.5, 0.7):
        within = (scores >= low) & (scores < low + 0.2)
        assert truth[held][within].mean() == pytest.approx(scores[within].mean(), abs=0.1)
    few = np.where(np.cumsum(truth) <= 10, weights, 0)
    assert not fit_scorer(drawn, pairs, truth.astype(np.int8), few, nobody).fitted
