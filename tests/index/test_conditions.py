"""What the engine lets through is what `retrieval.filters` lets through, whatever keys and cells are like."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.errors import UsageError
from afmrl_cli.index.card import Card
from afmrl_cli.index.conditions import condition_of, unwished
from afmrl_cli.index.edge import open_folder
from afmrl_cli.index.points import Key, amounts_of, cells_of, number_field, number_of, numbers_of, payload_of
from afmrl_cli.listener import Silent
from afmrl_cli.retrieval.filters import has_one, parse_filters, passes
from afmrl_cli.retrieval.listings import Listing

CELLS = {
    "color": ["Red", "red|Blue", " navy ", "STRASSE", "straße", "", "x" * 300, "y" * 300, "1|2", "a=b"],
    "category": ["Women/Tops", "women", "Men/Tops/Shirts", "", "W" * 300 + "/x"],
    "price": ["12", "12,90", "1.299,00", "free", "", "9.99|20"],
    "weight": ["900 g", "2 kg", "1 kg|3 kg", "ca 360g", "", "no idea"],
    'neck "type".x': ["v", "2 cm", "3 cm"],
    "size__eu": ["38", "40", "-2"],
    "grösse": ["38", "L"],
}
FILTERS = [
    ["color=red"], ["color=blue"], ["color=navy", "color=1"], ["color=strasse"], ["color=" + "X" * 300],
    ["color=" + "x" * 299], ["color=red|blue"], ["color=a=b"], ["category=wom"], ["category=women/tops"],
    ["category=" + "w" * 250], ["category=tops"], ["price<12.9"], ["price<=12.90"], ["price>20", "price<5000"],
    ["price>=9.99", "price<10"], ["weight<1kg"], ["weight>=1kg"], ["weight>400g", "color=red"], ['neck "type".x>2'],
    ['neck "type".x=v'], ["size__eu<39"], ["grösse>=38"], ["price>5", "price<15", "category=men", "color=blue"],
]  # fmt: skip


def listing(number: int, fields: dict[str, str]) -> Listing:
    return Listing(f"s{number}", "", "", "", "", "", [], json.dumps(fields))


def test_filters_and_exclusions_mean_the_same(tmp_path: Path) -> None:
    rng = random.Random(0)
    shop = [{key: rng.choice(cells) for key, cells in CELLS.items()} for _ in range(200)]
    keys: dict[str, Key] = {}
    for fields in shop:
        for key, cell in cells_of(fields, "").items():
            keys.setdefault(key, Key()).see(key, cell)
    ids = [f"s{i}" for i in range(len(shop))]
    numbers = numbers_of(ids)
    payloads = [payload_of(listing(i, fields), "", i) for i, fields in enumerate(shop)]
    vectors = np.random.default_rng(0).standard_normal((len(shop), 4), dtype=np.float32)
    with open_folder(tmp_path / "index", "test", tmp_path / "shop") as engine:
        engine.prepare(Card("e", "v", 4))
        engine.index([number_field("price", ""), number_field("weight", "kg")])  # others are compared one by one
        engine.put([int(number) for number in numbers], vectors, payloads)
        engine.finish(Silent())
        held, prints = engine.held()
        assert dict(zip(held.tolist(), prints.tolist(), strict=True)) == {number_of(id): i for i, id in enumerate(ids)}
        ids_of = dict(zip(numbers.tolist(), ids, strict=True))
        some = 0
        for written in FILTERS:
            filters = parse_filters(written, "--filter")
            right = {id for id, fields in zip(ids, shop, strict=True) if passes(fields, filters)}
            near = engine.nearest(vectors[0], 1000, condition_of(filters, [], keys), payload=False)
            assert {ids_of[each.number] for each in near} == right, written
            some += bool(right)
        assert some >= len(FILTERS) - 3, "filters that nothing passes compare nothing"
        assert list(unwished(["Color=a=b"], keys)) == [("color", "a=b")]
        pairs = list(unwished(["color: Red", "category: Wom"], keys))
        wished = parse_filters(["weight>0g"], "--filter")
        right = {
            id
            for id, fields in zip(ids, shop, strict=True)
            if passes(fields, wished) and not any(has_one(key, fields[key], [value]) for key, value in pairs)
        }
        near = engine.nearest(vectors[0], 1000, condition_of(wished, pairs, keys), payload=False)
        assert {ids_of[each.number] for each in near} == right != set()
        assert engine.count(condition_of(wished, pairs, keys)) == len(right)


def test_bounds_that_can_not_be_compared_are_refused() -> None:
    keys = {"weight": Key(examples={"g": "900 g", "kg": "2 kg"}), "color": Key(cells=["red"])}
    for bound in ("weight<2", "weight<2lb", "color<3", "colour=red"):
        with pytest.raises(UsageError):
            condition_of(parse_filters([bound], "--filter"), [], keys)


def test_numbers_lie_under_names_of_their_own() -> None:
    names = [
        ("weight", "kg"),
        ("weight", ""),
        ("weight__kg", ""),
        ("a.b", ""),
        ("a b", ""),
        ("grösse", "cm"),
        ("p", "€"),
    ]
    assert len({number_field(*each) for each in names}) == len(names)
    assert number_field("price", "") == "price" and number_field("weight", "kg") == "weight__kg"
    assert amounts_of("weight", "1 kg|900 g") == (("kg", 1.0), ("g", 900.0))
    assert amounts_of("weight", "x" * 40 + " 1 kg") == amounts_of("brand", "7") == ()
