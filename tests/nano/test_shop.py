"""The example shop on disk."""

import csv
import json
from dataclasses import replace
from itertools import combinations

import pytest
from PIL import Image

from afmrl_cli.listener import Silent
from afmrl_cli.nano.garment import KEYS, Garment
from afmrl_cli.nano.shop import COLUMNS, Listing, ShopPlan, plan_listings, plan_queries, write_shop

PLAN = ShopPlan(24, seed=3, duplicates=0.3, text_queries=10, photo_queries=6, size=128)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    return write_shop(folder, PLAN)


def rows(shop):
    with (shop.folder / "catalog.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_catalog_has_its_columns_and_photos_that_exist(shop):
    found = rows(shop)
    assert tuple(found[0]) == COLUMNS
    assert len({row["id"] for row in found}) == len(found)
    assert len({row["product_id"] for row in found}) == 24
    for row in found:
        names = row["image"].split("|")
        assert 2 <= len(names) <= 3
        for name in names:
            with Image.open(shop.folder / name) as photo:
                assert photo.size == (128, 128)


def test_listings_of_one_product_share_attributes_but_neither_photos_nor_words():
    listings = plan_listings(ShopPlan(200, 1, duplicates=0.3))
    by_product: dict[str, list[Listing]] = {}
    for listing in listings:
        by_product.setdefault(listing.product_id, []).append(listing)
    doubles = [pair for pair in by_product.values() if len(pair) == 2]
    assert 0.2 < len(doubles) / 200 < 0.4
    for one, other in doubles:
        assert one.garment == other.garment
        assert not {shot.number for shot in one.shots} & {shot.number for shot in other.shots}
    assert sum(one.title != other.title for one, other in doubles) > 0.8 * len(doubles)


def test_detail_variants_share_a_group_and_differ_in_one_key_that_is_not_the_colour():
    listings = plan_listings(ShopPlan(120, 1, variants=1.0, details=True, duplicates=0.0))
    groups: dict[str, list[Garment]] = {}
    for listing in listings:
        groups.setdefault(listing.group_id, []).append(listing.garment)
    variants = [group for group in groups.values() if len(group) > 1]
    assert len(variants) >= len(groups) - 1  # of the last style there may be no place for a second
    for group in variants:
        apart = [
            [key for key in KEYS if getattr(one, key) != getattr(other, key)] for one, other in combinations(group, 2)
        ]
        assert min(map(len, apart)) == 1
        assert max(map(len, apart)) < len(group)  # the third differs from the first, too
        assert not {"category", "colour", "pattern", "accent"} & {key for keys in apart for key in keys}


def test_colour_variants_share_a_group_and_differ_in_colour_alone():
    listings = plan_listings(ShopPlan(200, 1, duplicates=0.0))
    groups: dict[str, list[Garment]] = {}
    for listing in listings:
        groups.setdefault(listing.group_id, []).append(listing.garment)
    variants = [group for group in groups.values() if len(group) > 1]
    assert len(variants) > 30
    for group in variants:
        assert len({garment.colour for garment in group}) == len(group)
        assert len({replace(garment, colour="red") for garment in group}) == 1


def test_few_listings_state_all_their_attributes_in_words(shop):
    # The category column is coarser than the attribute, and some values are nowhere in the text.
    whole = 0
    for row in rows(shop):
        assert row["category"].lower() != row["attr_category"]
        text = f"{row['title']} {row['description']}".lower()
        filled = [row[f"attr_{key}"] for key in KEYS if row[f"attr_{key}"]]
        assert "none" not in filled
        whole += all(value in text for value in filled)
    assert whole <= len(rows(shop)) / 10


def test_queries_and_qrels_belong_together(shop):
    lines = [json.loads(line) for line in (shop.folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["type"] for line in lines] == ["text"] * 10 + ["photo"] * 6
    qrels = [line.split() for line in (shop.folder / "qrels.trec").read_text().splitlines()]
    ids = {row["id"] for row in rows(shop)}
    assert {qid for qid, *_ in qrels} == {line["qid"] for line in lines}
    assert {listing for *_, listing, _ in qrels} <= ids
    sold = {shot.name for listing in shop.listings for shot in listing.shots}
    for line in lines:
        assert bool(line["text"]) == (line["type"] == "text")
        for name in line["images"]:
            assert (shop.folder / name).exists()
            assert name not in sold


def test_word_queries_are_answered_by_all_listings_that_fit():
    listings = plan_listings(ShopPlan(300, 2))
    by_id = {listing.id: listing.garment.attributes() for listing in listings}
    queries = plan_queries(listings, 2, 40, 0)
    assert all(query.answers for query in queries)
    assert max(len(query.answers) for query in queries) > 1
    for query in queries:
        shared = set.intersection(*(set(by_id[name].items()) for name in query.answers))
        others = [name for name in by_id if name not in query.answers]
        assert not any(shared <= set(by_id[name].items()) for name in others) or len(query.answers) == 1


def test_same_seed_same_bytes_and_another_seed_another_shop(shop, tmp_path):
    write_shop(tmp_path / "again", PLAN)
    for path in sorted(path for path in shop.folder.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(shop.folder)).read_bytes() == path.read_bytes()
    assert plan_listings(ShopPlan(24, 3)) != plan_listings(ShopPlan(24, 4))


def test_another_catalog_is_never_overwritten(tmp_path):
    (tmp_path / "catalog.csv").write_text("id,title\n1,mine\n")
    with pytest.raises(FileExistsError, match="another catalog"):
        write_shop(tmp_path, ShopPlan(4, size=64))
    assert (tmp_path / "catalog.csv").read_text() == "id,title\n1,mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.csv"]


def test_the_same_shop_again_draws_only_what_is_missing(tmp_path):
    plan = ShopPlan(4, seed=1, text_queries=2, photo_queries=2, size=64)
    shop = write_shop(tmp_path, plan)
    first, second = (tmp_path / shot.name for shot in shop.listings[0].shots[:2])
    before = first.read_bytes()
    first.unlink()
    untouched = second.stat().st_mtime_ns
    progress = []

    class Heard(Silent):
        def progress(self, what, done, total=None):
            progress.append((what, done, total))

    write_shop(tmp_path, plan, listener=Heard())
    assert progress == [("photos", 1, 1)]
    assert first.read_bytes() == before
    assert second.stat().st_mtime_ns == untouched


@pytest.mark.slow
def test_several_processes_draw_the_same_photos(tmp_path):
    plan = ShopPlan(60, seed=1, text_queries=0, photo_queries=0, size=56)
    one = write_shop(tmp_path / "one", plan)
    write_shop(tmp_path / "two", plan, processes=2)
    for shot in one.listings[7].shots:
        assert (tmp_path / "one" / shot.name).read_bytes() == (tmp_path / "two" / shot.name).read_bytes()
