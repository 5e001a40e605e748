"""What `benchmarks.saga` measures by: which classes are held out, what counts as found, what the control exchanges."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchmarks.saga import score, shuffled_rewards
from benchmarks.saga_catalogs import TRUTH, Row, split_settings, write_catalog
from benchmarks.saga_table import print_tables

from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.saga import learn
from afmrl_cli.saga.grpo import advantages


@pytest.mark.parametrize(("number", "sides"), [(48, (16, 8, 24)), (15, (6, 3, 6)), (12, (4, 3, 5))])
def test_whole_classes_are_held_out_as_many_as_wanted(number: int, sides: tuple[int, int, int]) -> None:
    classes = [f"class {i}" for i in range(number)]
    splits = [split_settings("colour", classes, seed) for seed in (1, 2)]
    held = [
        [each for each in classes if split_of(Product("a listing", product_id=each), split) == "test"]
        for split in splits
    ]
    found = Counter(split_of(Product("a listing", product_id=each), splits[0]) for each in classes)
    assert (found["train"], found["validation"], found["test"]) == sides
    assert held[0] != held[1], "another seed holds out other classes"


def test_a_catalog_shows_photos_and_known_attributes_alone(tmp_path: Path) -> None:
    rows = [
        Row(f"L{i}", (f"images/{i}.jpg",), f"class {i % 30}", f"L{i}", {"colour": f"colour {i % 30}"})
        for i in range(60)
    ]
    write_catalog(tmp_path, "colour", rows, tmp_path, 0)
    with (tmp_path / "catalog.csv").open() as file:
        first = next(csv.DictReader(file))
    assert first == {
        "id": "L0",
        "product_id": "class 0",
        "image": "images/0.jpg",
        "attr_colour": "colour 0",
    }
    assert json.loads((tmp_path / TRUTH).read_text())["31.jpg"] == ["class 1", "L31"]


def test_a_photo_is_not_found_by_another_of_its_group() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0.9, 0.2], [0.9, 0.19], [0, 1], [0.01, 1]], dtype=np.float32)
    labels = np.array(["a", "a", "b", "a", "c", "c"])
    groups = np.array(["1", "1", "2", "3", "4", "4"])
    found = score(vectors, labels, groups, list("uvwxyz"))
    # u and v are one listing: next to both stands x, then w; y and z have no right answer but each other; w has none.
    assert found["queries"] == {"u": [1.0, 1.0], "v": [1.0, 1.0], "x": [0.0, 1.0]}
    assert found["number"] == 3
    assert 0 < found["nmi"] <= 1


def test_equal_vectors_find_nothing_first() -> None:
    same = np.ones((4, 3), dtype=np.float32)
    found = score(same, np.array(["a", "b", "a", "b"]), np.array(list("1234")), list("wxyz"))
    assert [hits[0] for hits in found["queries"].values()] == [0.0] * 4


def test_the_control_exchanges_rewards_within_a_pair() -> None:
    rewards = [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]] * 8
    with shuffled_rewards(0) as exchanged:
        assert vars(learn)["advantages"] is exchanged
        control = exchanged(rewards)
    assert vars(learn)["advantages"] is advantages
    plain = advantages(rewards)
    assert control != plain
    assert [sorted(group) for group in control] == [sorted(group) for group in plain]


def test_a_change_is_over_the_same_photos_and_a_refusal_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    hits = {"metric learning": [0.0, 0.0, 1.0, 0.0], "all": [1.0, 0.0, 1.0, 1.0]}
    for arm, values in hits.items():
        for seed in range(4):
            queries = {f"p{i}": [value, 1.0] for i, value in enumerate(values)}
            classes = {name: name for name in queries}
            made = {"queries": queries, "classes": classes, "nmi": 0.5, "number": 4, "photos": 4}
            content = {"kind": "colour", "seed": seed, "arm": arm, "set": {}, **made}
            (tmp_path / "results" / f"{arm}-{seed}.json").write_text(json.dumps(content))
    refused = {"kind": "colour", "seed": 0, "arm": "+ GRPO", "set": {}, "refused": "no better than chance"}
    (tmp_path / "results" / "x.json").write_text(json.dumps(refused))
    print_tables(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("| all |")).split(" | ")
    assert row[1:7] == ["75.0", "100.0", "50.0", "metric learning", "+50.0", row[6]]
    assert row[7] == "+50.0 to +50.0", "all seeds gain the same"
    assert "| + GRPO | 0 | refused: no better than chance |" in lines
