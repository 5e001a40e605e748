"""`afmrl eval-recommender` on a drawn shop without photos, from outside."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afmrl_cli.nano.shop import ShopPlan, catalog_text, plan_listings
from afmrl_cli.nano.shoppers import TRUTH, interactions_text, plan_shoppers, truth_text
from afmrl_cli.next_item.histories import Histories, questions_of
from afmrl_cli.next_item.measure import sample_questions
from afmrl_cli.recommend.split import TEST
from tests.cli.calls import call, document


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of 60 products and 80 shoppers; nothing was embedded."""
    root = tmp_path_factory.mktemp("drawn")
    listings = plan_listings(ShopPlan(60, 3))
    events, truth = plan_shoppers(listings, 80, 3)
    (root / "catalog.csv").write_text(catalog_text(listings), "utf-8")
    (root / "interactions.csv").write_text(interactions_text(events), "utf-8")
    (root / "truth").mkdir()
    (root / TRUTH).write_text(truth_text(truth), "utf-8")
    return root


@pytest.fixture(scope="module")
def content(root: Path) -> dict[str, Any]:
    return document("eval-recommender", str(root))


def rows(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {system["system"]: system for system in content["systems"]}


def test_the_oracle_is_best_and_each_row_has_all_metrics(content: dict[str, Any]) -> None:
    found = rows(content)
    assert {"popularity", "co-occurrence", "fused", "sequential", "oracle"} <= found.keys()
    assert max(found, key=lambda name: float(found[name]["metrics"]["ndcg@10"])) == "oracle"
    for system in found.values():
        assert system["metrics"].keys() == system["intervals"].keys()
        for name, value in system["metrics"].items():
            low, high = system["intervals"][name]
            assert 0 <= low <= value <= high <= 1
        assert system["metrics"]["hr@5_of_10"] >= system["metrics"]["hr@5"]


def test_everything_asked_is_accounted_for(content: dict[str, Any]) -> None:
    assert content["schema"] == "afmrl.eval-recommender/1"
    assert content["asked"] + content["without_history"] == content["interactions"]
    assert content["questions"] == content["asked"]
    sizes = content["slices"]
    assert sizes["known"]["questions"] <= content["questions"] - sizes["new_items"]["questions"]
    assert sizes["new_items"]["questions"] and sizes["new_customers"]["questions"]
    assert content["main"] == "fused"
    assert {each["system"] for each in content["comparisons"]} == rows(content).keys() - {"fused"}


def test_a_catalog_too_small_for_99_others_says_so(root: Path, content: dict[str, Any]) -> None:
    assert content["sampled"] == [9]
    assert any("no metrics among 99 sampled listings" in note for note in content["notes"])
    result = call("eval-recommender", str(root), "--fail-under", "hr@10_of_100=0.1")
    assert result.exit_code == 2
    assert "hr@10_of_100: no metrics among 99 sampled listings" in result.stderr


def test_a_cut_as_large_as_the_catalog_checks_nothing(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\nA,Shirt\nB,Hat\nC,Bag\n", "utf-8")
    days = ["x,A,2024-01-01", "y,B,2024-01-02", "x,B,2024-02-01", "x,C,2024-03-01", "y,C,2024-03-02"]
    (tmp_path / "interactions.csv").write_text("customer,item,time\n" + "\n".join(days) + "\n", "utf-8")
    words = ("eval-recommender", str(tmp_path), "--set", "recommend.test=0.4")
    found = document(*words)
    assert found["sampled"] == []
    assert any(note.startswith("hr@3, hr@5, hr@10: whatever is ranked") for note in found["notes"])
    refused = call(*words, "--fail-under", "hr@3=0.5")
    assert refused.exit_code == 2 and "nothing is missed among 3 listings" in refused.stderr
    assert call(*words, "--fail-under", "ndcg@10=0").exit_code == 0


def test_tables_page_and_ranks_name_no_customer(root: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    page, ranks = tmp_path / "page.html", tmp_path / "ranks.csv"

    result = call("eval-recommender", str(root), "--html", str(page), "--ranks", str(ranks))

    assert result.exit_code == 0, result.output
    assert "among all" in result.stdout and "oracle: the true probabilities" in result.stdout
    assert "ask nothing" in result.stdout and "stored before" in " ".join(result.stdout.split())
    with ranks.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == content["questions"]
    found = [float(row["oracle"]) for row in table]
    assert sum(rank <= 10 for rank in found) / len(found) == pytest.approx(rows(content)["oracle"]["metrics"]["hr@10"])
    text = page.read_text("utf-8")
    assert text.count("Taken: ") == 12 and "ndcg@5_of_10" in text
    assert not [row["customer"] for row in table if row["customer"] in text or row["customer"] in result.stdout]
    assert call("eval-recommender", str(root), "--ranks", str(ranks)).exit_code == 0, "its own file may be replaced"
    assert call("eval-recommender", str(root), "--ranks", str(root / "interactions.csv")).exit_code == 2


def test_another_key_of_the_hashes_changes_no_number(root: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    for name in ("catalog.csv", "interactions.csv"):
        (tmp_path / name).write_text((root / name).read_text("utf-8"), "utf-8")
    again = document("eval-recommender", str(tmp_path))
    assert "oracle" not in rows(again)
    assert again["sequential"] == content["sequential"]
    for name, system in rows(again).items():
        assert system | {"seconds": 0} == rows(content)[name] | {"seconds": 0}
    assert again["comparisons"] == [each for each in content["comparisons"] if each["system"] != "oracle"]


def test_a_value_that_is_not_reached_ends_with_1_after_the_result(root: Path) -> None:
    result = call("eval-recommender", str(root), "--fail-under", "hr@10=0.99", "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout.splitlines()[0])
    assert [check["passed"] for check in shown["checks"]] == [False]
    assert call("eval-recommender", str(root), "--fail-under", "recall@10=0.1").exit_code == 2


def test_the_validation_split_and_the_split_that_leaks_say_so(root: Path) -> None:
    found = document("eval-recommender", str(root), "--split", "validation", "--set", "recommend.split=last")
    assert found["part"] == "validation"
    assert found["split"]["leaks"].startswith("leaks")
    assert any("better than it is" in note for note in found["notes"])


def test_questions_are_sampled_by_customer(root: Path) -> None:
    found = document("eval-recommender", str(root), "--max-queries", "20")
    assert found["questions"] <= 20 < found["asked"]
    assert any("sampled at random" in note for note in found["notes"])
    many = 30
    held = Histories(
        ("a", "b"),
        np.repeat(np.arange(many, dtype=np.int32), 4),
        np.zeros(4 * many, dtype=np.int32),
        np.tile(np.arange(4, dtype=np.int64), many),
        np.tile(np.array([0, 0, 2, 2], dtype=np.uint8), many),
        np.arange(many, dtype=np.uint64),
    )
    asked = questions_of(held, TEST)
    chosen = sample_questions(asked, held, 11, 0)
    assert len(chosen) == 10, "both of five customers"
    assert [each.customer for each in chosen] == sorted(each.customer for each in chosen)


def test_a_truth_that_is_none_is_named(root: Path, tmp_path: Path) -> None:
    for name in ("catalog.csv", "interactions.csv"):
        (tmp_path / name).write_text((root / name).read_text("utf-8"), "utf-8")
    (tmp_path / "truth").mkdir()
    (tmp_path / TRUTH).write_text("[]", "utf-8")
    result = call("eval-recommender", str(tmp_path))
    assert result.exit_code == 3
    assert "is no truth of a drawn shop" in result.stderr


def test_a_split_in_which_nobody_has_a_history(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\nA,Shirt\nB,Hat\n", "utf-8")
    lines = [f"c{number},{'AB'[number % 2]},2024-01-{1 + number:02d}" for number in range(20)]
    (tmp_path / "interactions.csv").write_text("customer,item,time\n" + "\n".join(lines) + "\n", "utf-8")
    result = call("eval-recommender", str(tmp_path))
    assert result.exit_code == 3
    assert "the 2 interactions of the test split are all their customers' first" in result.stderr
    nothing = call("eval-recommender", str(tmp_path), "--set", "recommend.test=0")
    assert nothing.exit_code == 3 and "the test split holds no interaction" in nothing.stderr
