"""`afmrl triplets` as a person types it, on drawn shops' catalogs with small files as photos."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from afmrl_cli.attributes.agreement import write_confidence
from afmrl_cli.attributes.parse import parse_attributes, write_attributes
from afmrl_cli.attributes.views import open_views
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of, with_shares
from afmrl_cli.cli.app import app
from afmrl_cli.evaluation.composed import fault_of
from afmrl_cli.evaluation.trec import read_qrels, read_queries
from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, catalog_text, plan_listings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.database import StoredAttributes
from afmrl_cli.store.files import checksum, sealed, write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.triplets.store import TripletSplit, read_triplets
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once

Row = dict[str, str]
PLAIN = (
    ("color", ("red", "blue", "green")),
    ("sleeve", ("long", "short")),
    ("neck", ("round", "collar")),
    ("pattern", ("solid", "striped")),
    ("fit", ("slim", "wide")),
)


def photo(name: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(held, "JPEG")
    return held.getvalue() + name.encode()


def write(root: Path, rows: list[Row]) -> None:
    """catalog.csv, and for each photo that it names a file with other bytes."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for name in {name for row in rows for name in row["image"].split("|") if name}:
        if not (root / name).exists():
            (root / name).write_bytes(photo(name))


def drawn(count: int, seed: int = 0) -> list[Row]:
    return list(csv.DictReader(io.StringIO(catalog_text(plan_listings(ShopPlan(products=count, seed=seed))))))


def plain_rows(count: int) -> list[Row]:
    """Products of one type that differ in five attributes."""
    dice = random.Random(1)
    rows = []
    for i in range(count):
        pairs = {f"attr_{key}": dice.choice(values) for key, values in PLAIN}
        row = {"id": f"s{i}", "product_id": f"p{i}", "group_id": "", "title": f"shirt {i}", "category": "Tops"}
        rows.append({**row, "image": f"images/{i}.jpg", **pairs})
    return rows


def call(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["triplets", str(root), *words])


def document(root: Path, *words: str) -> dict[str, Any]:
    result = call(root, *words, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


def error(root: Path, *words: str, code: int = 3) -> str:
    result = call(root, *words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def lines(root: Path, *words: str) -> list[dict[str, Any]]:
    out = root / "triplets.jsonl"
    assert call(root, "--out", str(out), *words).exit_code == 0
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def everything(root: Path, split: str = "train") -> bytes:
    return (root / ".afmrl" / "triplets" / split / "triplets.jsonl").read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    root, rows = tmp_path_factory.mktemp("shop"), drawn(150)
    write(root, rows)
    return root, rows


def attributes_of(row: Row) -> dict[str, str]:
    return {key.removeprefix("attr_"): value for key, value in row.items() if key.startswith("attr_") and value}


def test_each_triplet_is_true_at_both_ends(made: tuple[Path, list[Row]]) -> None:
    root, rows = made
    by_id = {row["id"]: row for row in rows}
    found = lines(root)
    assert Counter(each["window"] for each in found).keys() == {"variants", "near", "far"}
    for each in found:
        one, other = by_id[each["reference_id"]], by_id[each["target_id"]]
        ours, theirs = attributes_of(one), attributes_of(other)
        assert ours["category"] == theirs["category"] and one["product_id"] != other["product_id"]
        differ = {key: [ours[key], theirs[key]] for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
        assert each["changed"] == differ
        assert parse_attributes(each["text"]) == {key: to for key, (_, to) in differ.items()}
        assert all(to in each["sentence"] for _, to in differ.values())
        if each["window"] == "far":
            assert len(differ) > 3
        else:
            assert 1 <= len(differ) <= 3
        if each["window"] == "near":
            assert ours.keys() == theirs.keys() and len(ours) - len(differ) > len(differ)
        if each["window"] == "variants":
            assert one["group_id"] == other["group_id"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_both_ends_are_of_the_split_and_nothing_is_of_test_products(
    made: tuple[Path, list[Row]], split: TripletSplit
) -> None:
    root, rows = made
    settings = with_shares(load_settings(root).split, len(rows))
    side = {row["id"]: split_of(Product(row["id"], product_id=row["product_id"]), settings) for row in rows}
    assert Counter(side.values())["test"] > 10
    found = lines(root, "--split", split)
    named = {id for each in found for id in (each["reference_id"], each["target_id"], *each["exclude"])}
    judged = {line.split()[2] for line in (root / "triplets.trec").read_text().splitlines()}
    stored = {
        id for each in read_triplets(CatalogFolder(root / "catalog.csv"), split) for id in (each.reference, each.target)
    }
    assert found and {side[id] for id in named | judged | stored} == {split}
    assert stored <= named


def test_eval_reads_them_as_composed_queries(made: tuple[Path, list[Row]]) -> None:
    root, rows = made
    found = {each["qid"]: each for each in lines(root)}
    ids = {row["id"] for row in rows}
    queries = read_queries(root / "triplets.jsonl", fault=lambda query: fault_of(query, ids))
    right = read_qrels(root / "triplets.trec", {query.id for query in queries}, ids)
    assert {query.id for query in queries} == found.keys() == right.keys()
    for query in queries:
        assert query.images[0].is_file() and query.kind == "composed"
        assert found[query.id]["target_id"] in right[query.id] and not query.exclude & right[query.id].keys()


def test_the_seed_decides_and_the_order_of_rows_does_not(made: tuple[Path, list[Row]], tmp_path: Path) -> None:
    root, rows = made
    assert document(root)["triplets"]
    first = everything(root)
    write(tmp_path, random.Random(3).sample(rows, len(rows)))
    assert not document(tmp_path)["made_before"]
    assert everything(tmp_path) == first
    assert document(tmp_path)["made_before"]
    assert not document(tmp_path, "--seed", "1")["made_before"]
    assert everything(tmp_path) != first


def test_a_killed_run_comes_to_the_same(made: tuple[Path, list[Row]], tmp_path: Path) -> None:
    root, rows = made
    document(root)
    write(tmp_path, rows)
    kill_once((tmp_path / ".afmrl" / "lock.json").exists, lambda: call(tmp_path))
    assert not document(tmp_path)["made_before"]
    assert everything(tmp_path) == everything(root)
    store = tmp_path / ".afmrl" / "triplets" / "train" / "triplets.jsonl"
    store.write_bytes(store.read_bytes()[:-40])  # as a damaged disk leaves it
    assert not document(tmp_path)["made_before"]
    assert everything(tmp_path) == everything(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": ["s1"]}, "line 2: no triplet: reference: "),
        ({"reference": "elsewhere"}, "line 2: no triplet: 'elsewhere' is no listing of the train split"),
        ({"window": "close"}, "line 2: no triplet: window 'close' is not known"),
        ({"changed": {"color": "red"}}, "line 2: no triplet: changed: "),
        ({"text": None}, "line 2: no triplet: text: "),
        (None, "line 2: no triplet: "),
    ],
)
def test_a_forged_line_is_named(tmp_path: Path, change: dict[str, object] | None, message: str) -> None:
    write(tmp_path, plain_rows(40))
    document(tmp_path)
    place = tmp_path / ".afmrl" / "triplets" / "train"
    first, second, *others = everything(tmp_path).splitlines()
    forged = b"[" if change is None else json.dumps(json.loads(second) | change).encode()
    (place / "triplets.jsonl").write_bytes(b"\n".join([first, forged, *others, b""]))
    manifest = json.loads((place / "triplets.json").read_text())
    manifest["files"] = {"triplets.jsonl": checksum(place / "triplets.jsonl")}
    write_json(place / "triplets.json", sealed(manifest, place))
    said = error(tmp_path)
    assert f"triplets.jsonl: {message}" in said and "remove this file" in said
    (place / "triplets.jsonl").unlink()
    assert document(tmp_path)["triplets"] == manifest["triplets"]


def test_a_forged_manifest_is_made_again(tmp_path: Path) -> None:
    write(tmp_path, plain_rows(40))
    document(tmp_path)
    place = tmp_path / ".afmrl" / "triplets" / "train"
    manifest = json.loads((place / "triplets.json").read_text())
    write_json(place / "triplets.json", sealed({**manifest, "windows": [1]}, place))
    assert not document(tmp_path)["made_before"]


def test_no_product_and_no_key_dominates(tmp_path: Path) -> None:
    rows = plain_rows(700)
    for row in rows[:640]:  # but for their colour they are all alike
        row |= {"attr_sleeve": "long", "attr_neck": "round", "attr_pattern": "solid", "attr_fit": "slim"}
    write(tmp_path, rows)
    content = document(tmp_path, "--per-product", "1", "--set", "triplets.far=false")
    assert content["dropped"]["too many of one key"] > 0
    found = list(read_triplets(CatalogFolder(tmp_path / "catalog.csv"), "train"))
    alone = Counter(next(iter(each.changed)) for each in found if len(each.changed) == 1)
    assert alone["color"] <= max(200, len(found) // 2 + 1)
    for end in ("reference", "target"):
        assert max(Counter(getattr(each, end) for each in found).values()) == 1
    assert document(tmp_path, "--per-product", "1", "--set", "triplets.key_share=1")["triplets"] > len(found)


def test_titles_name_the_colours_of_variants(tmp_path: Path) -> None:
    rows = [
        {"id": f"{style}-{color}", "product_id": f"{style}-{color}", "group_id": f"g{style}", "category": "Tops",
         "title": f"Shirt {style} {color}", "image": f"images/{style}-{color}.jpg"}
        for style in range(12) for color in ("Rot", "grün", "Streifen")
    ]  # fmt: skip
    write(tmp_path, rows)
    found = lines(tmp_path)
    assert {each["text"] for each in found} == {"color: rot", "color: grün"}
    assert all(each["reference_id"].split("-")[0] == each["target_id"].split("-")[0] for each in found)


def test_variants_that_share_a_photo_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [row | {"group_id": f"g{i // 2}"} for i, row in enumerate(plain_rows(60))]
    for i, row in enumerate(rows):
        row["image"] = f"images/{i // 2}.jpg"
    write(tmp_path, rows)
    content = document(tmp_path)
    assert content["windows"]["variants"] == 0 and content["dropped"]["same photo"] > 0


def store_attributes(root: Path, rows: list[Row], *, sure: float = 1.0) -> None:
    """What a generator would have stored of each listing; its colour with the confidence `sure` for every other one."""
    settings = load_settings(root)
    folder = CatalogFolder(root / "catalog.csv")
    work = Workspace(folder, settings, Silent())
    source = work.source
    by_id = {row["id"]: row for row in rows}
    with open_views(work, source) as views:
        products = list(read_products(folder, settings.catalog, Problems()))
        stored = []
        for product, print_ in zip(products, views.fingerprints(products), strict=True):
            pairs = dict(attributes_of(by_id[product.id]))
            confidence = {key: sure if key == "color" and int(product.id[1:]) % 2 else 1.0 for key in pairs}
            stored.append(
                StoredAttributes(
                    print_, source.generator, source.prompt, product.id, write_attributes(pairs), None, 0.0,
                    confidence=write_confidence(confidence),
                )
            )  # fmt: skip
        views.database.put_attributes(stored)


def bare(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if not key.startswith("attr_")} for row in rows]


def test_generated_attributes_that_the_generator_was_not_sure_of_change_nothing(tmp_path: Path) -> None:
    rows = plain_rows(80)
    write(tmp_path, bare(rows))
    store_attributes(tmp_path, rows, sure=0.3)
    content = document(tmp_path)
    assert content["attributes"]["source"] == "generated" and content["attributes"]["made_by"][0].startswith("nano")
    unsure = {row["id"] for i, row in enumerate(rows) if i % 2}
    assert any("color" in each["changed"] and each["target_id"] in unsure for each in lines(tmp_path))
    found = lines(tmp_path, "--set", "attributes.min_confidence=0.5")
    ends = {each[end] for each in found if "color" in each["changed"] for end in ("reference_id", "target_id")}
    assert ends and not ends & unsure
    told = document(tmp_path, "--set", "attributes.min_confidence=0.5")
    assert told["dropped"]["unclear: one end does not say the key"] > 0
    assert told["attributes"]["min_confidence"] == 0.5


def test_what_the_other_source_contradicts_is_dropped(tmp_path: Path) -> None:
    rows = plain_rows(80)
    write(tmp_path, rows)
    store_attributes(tmp_path, [row | {"attr_color": "purple"} for row in rows])
    content = document(tmp_path)
    assert content["attributes"]["source"] == "given" and content["dropped"]["contradicted"] > 0
    assert "color" not in content["keys"] and content["keys"]["sleeve"] > 0


def test_verdicts_are_respected(tmp_path: Path) -> None:
    write(tmp_path, plain_rows(60))
    table = tmp_path / "review.csv"
    document(tmp_path, "--out", str(table), "--html", str(tmp_path / "review.html"))
    assert 'src="data:image/jpeg;base64,' in (tmp_path / "review.html").read_text("utf-8")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept, gone = rows[0], rows[1]
    kept["verdict"], gone["verdict"] = "yes", "no"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["reference_id", "target_id", "verdict"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    content = document(tmp_path, "--verdicts", str(table), "--seed", "7")
    pairs = {
        (each.reference, each.target): each for each in read_triplets(CatalogFolder(tmp_path / "catalog.csv"), "train")
    }
    assert pairs[kept["reference_id"], kept["target_id"]].confirmed
    assert (gone["reference_id"], gone["target_id"]) not in pairs
    assert content["confirmed"] == 1
    assert "would be lost" in error(tmp_path, "--out", str(table), code=2)
    table.write_text(f"reference_id,target_id,verdict\n{gone['reference_id']},gone,yes\n")
    assert "or gone: 1" in call(tmp_path, "--verdicts", str(table)).stderr
    table.write_text("reference_id,target_id,verdict\ns1,s2,perhaps\n")
    assert f"{table}: row 2: verdict 'perhaps' is not known" in error(tmp_path, "--verdicts", str(table))
    table.write_text("reference_id,verdict\ns1,yes\n")
    assert "no column target_id" in error(tmp_path, "--verdicts", str(table))


def test_where_nothing_comes_of_it_one_message_says_why(tmp_path: Path) -> None:
    rows = [row | {f"attr_{key}": values[0] for key, values in PLAIN} for row in plain_rows(60)]
    write(tmp_path / "equal", rows)
    assert "differ in one to 3 keys" in error(tmp_path / "equal")
    write(tmp_path / "bare", bare(rows))
    assert "no listing of the train split has photo and attributes" in error(tmp_path / "bare")
    unclear = [row | {f"attr_{key}": "unclear" for key, _ in PLAIN} for row in rows]
    write(tmp_path / "unclear", unclear)
    assert "no attributes" in error(tmp_path / "unclear")
    write(tmp_path / "untyped", [row | {"category": ""} for row in plain_rows(60)])
    assert "listings without category or type" in error(tmp_path / "untyped")
    write(tmp_path / "photos", [row | {"image": ""} for row in plain_rows(60)])
    assert "no photo" in error(tmp_path / "photos")
    write(tmp_path / "good", plain_rows(60))
    message = error(tmp_path / "good", "--out", str(tmp_path / "good" / "catalog.csv"), code=2)
    assert "the retailer's own file" in message
    assert call(tmp_path / "good", "--split", "test").exit_code == 2
