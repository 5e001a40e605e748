"""`afmrl dedupe` as a person types it."""

from __future__ import annotations

import csv
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli import calls
from tests.dedupe.shop import Row, picture, rows, write

call, document = partial(calls.call, "dedupe"), partial(calls.document, "dedupe")


def pairs_of(content: dict[str, Any]) -> set[tuple[str, str]]:
    return {(pair["id"], pair["other_id"]) for pair in content["pairs"]}


def read(file: Path) -> list[Row]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


SPLIT = "[split]\ntest = 0.2\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """240 products, 180 of them listed twice; every fifth listing does not tell its product."""
    listed = rows(240)
    for row in listed[::5]:
        row["product_id"] = ""
    write(tmp_path / "shop", listed)
    (tmp_path / "shop" / "afmrl.toml").write_text(SPLIT)
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def truth() -> dict[str, str]:
    return {row["id"]: row["product_id"] for row in rows(240)}


def test_finds_what_the_catalog_does_not_say_and_tells_how_good_that_is(shop: Path) -> None:
    content = document()
    assert content["schema"] == "afmrl.dedupe/1"
    assert content["fitted"] is True
    product = truth()
    said = {row["id"]: row["product_id"] for row in read(shop / "catalog.csv")}
    wanted = {
        (a, b)
        for a in product
        for b in product
        if int(a[1:]) < int(b[1:]) and product[a] == product[b] and not (said[a] and said[b])
    }
    found = pairs_of(content)
    assert len(found & wanted) >= 0.8 * len(wanted)
    assert len(found & wanted) >= 0.8 * len(found)
    assert not any(said[a] and said[a] == said[b] for a, b in found)
    held_out = content["held_out"]
    assert held_out["at_threshold"]["precision"] >= 0.8
    assert held_out["candidate_recall"] >= 0.8
    recalls = [point["recall"] for point in held_out["curve"]]
    assert recalls == sorted(recalls, reverse=True)
    low, high = held_out["at_threshold"]["precision_interval"]
    assert low <= held_out["at_threshold"]["precision"] <= high and low < high
    table = content["reliability"]
    assert content["calibrated"] is (table["calibrated"] is True)
    assert sum(each["pairs"] for each in table["bins"]) > 100
    for pair in content["pairs"]:
        assert pair["status"] == ("probable duplicate" if content["precision_reached"] else "to review")
        assert pair["score"] >= content["threshold"] - 1e-6
    kept = json.loads((Path(content["files"]["run"]) / "dedupe.json").read_text("utf-8"))
    assert kept["pairs"] == content["pairs"]
    assert set(kept["made_from"]) == {"catalog", "verdicts", "versions"}


def test_the_same_again(shop: Path) -> None:
    one, other = document(), document()
    assert one["pairs"] == other["pairs"]
    assert one["files"]["run"] != other["files"]["run"]


def test_a_table_for_people_and_what_they_say_is_respected(shop: Path) -> None:
    result = call("--out", "review.csv", "--html", "review.html")
    assert result.exit_code == 0, result.output
    assert "no vectors" in " ".join(result.stderr.split())
    assert "on held-out listings" in result.stdout
    review = read(shop / "review.csv")
    assert review
    assert all(row["verdict"] == "" for row in review)
    page = (shop / "review.html").read_text("utf-8")
    assert page.count('class="pair card"') == min(200, len(review))
    assert 'class="picture"' not in page  # no listing has a photo: no empty boxes
    assert "How far to trust a score" in page
    assert "http" not in page.replace("http-equiv", "")
    # One is rejected, and two that nobody found are confirmed.
    review[0]["verdict"] = "different"
    write(shop, review, "said.csv")
    write(shop, [{"id": "s0", "other_id": "s100", "verdict": "Yes"}], "more.csv")
    rejected = (review[0]["id"], review[0]["other_id"])
    content = document("--verdicts", "said.csv", "--verdicts", "more.csv")
    assert rejected not in pairs_of(content)
    assert not any(set(rejected) <= set(group) for group in content["groups"])
    [confirmed] = [pair for pair in content["pairs"] if pair["confirmed"]]
    assert (confirmed["id"], confirmed["other_id"]) == ("s0", "s100")
    assert any({"s0", "s100"} <= set(group) for group in content["groups"])
    assert content["verdicts"] == {"confirmed": 1, "rejected": 1}
    # By setting, as training reads them, it is the same.
    (shop / "afmrl.toml").write_text(SPLIT + '[dedupe]\nverdicts = ["said.csv", "more.csv"]\n')
    assert document()["pairs"] == content["pairs"]


def test_filled_in_verdicts_are_not_written_over(shop: Path) -> None:
    write(shop, [{"id": "s0", "other_id": "s1", "verdict": "same", "note": "mine"}], "review.csv")
    before = (shop / "review.csv").read_bytes()
    result = call("--out", "review.csv")
    assert result.exit_code == 2
    assert "verdicts were filled in there" in " ".join(result.stderr.split())
    result = call("--out", "review.csv", "--verdicts", "review.csv")
    assert result.exit_code == 2
    assert (shop / "review.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--verdicts", "none.csv"], 3, "none.csv: no such file"),
        (["--verdicts", "catalog.csv"], 3, "no column other_id"),
        (["--precision", "0"], 2, "--precision: must be more than 0"),
        (["--threshold", "1.5"], 2, "--threshold: must be 1 or less"),
        (["--out", "catalog.csv"], 2, "retailer's own file"),
        (["--out", "pairs.txt"], 2, "must end in .csv"),
        (["--html", "page.pdf"], 2, "must end in .html"),
        (["--html", ".afmrl/page.html"], 2, "lies inside .afmrl"),
    ],
)
def test_what_can_not_be_done(shop: Path, words: list[str], code: int, message: str) -> None:
    before = (shop / "catalog.csv").read_bytes()
    result = call(*words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert (shop / "catalog.csv").read_bytes() == before


def test_without_known_products_the_default_says_that_it_is_uncalibrated(tmp_path: Path) -> None:
    listed = [{**row, "product_id": ""} for row in rows(40)]
    listed += [{"id": "twice", "title": listed[0]["title"], "brand": listed[0]["brand"], "price": listed[0]["price"]}]
    write(tmp_path, listed)
    result = call(str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "weighed by hand and are no probabilities" in " ".join(result.stderr.split())
    assert "to review in" in result.stdout
    assert "default, weighed by hand" in result.stdout
    content = document(str(tmp_path))
    assert (content["calibrated"], content["held_out"], content["threshold"]) == (False, None, 0.5)
    assert (content["fitted"], content["reliability"], content["precision_reached"]) == (False, None, False)
    assert {pair["status"] for pair in content["pairs"]} == {"to review"}
    assert ("s0", "twice") in pairs_of(content)


def test_traps(tmp_path: Path) -> None:
    """Variants of a style, a placeholder photo, empty texts and a number that stands twice make no duplicates."""
    rng = random.Random(0)
    words = [f"{rng.choice('bdfgk')}{rng.choice('aeiou')}{rng.choice('lmnrst')}{i}x" for i in range(60)]
    listed: list[Row] = []
    for i, fabric in enumerate(("wool", "linen", "cotton", "fleece")):
        listed.append({"id": f"v{i}", "title": "Bruno Hoodie", "group_id": "bruno", "fabric": fabric})
    for i, size in enumerate(("S", "M", "L")):
        name = picture(tmp_path / "images" / f"t{i}.png", i)
        listed.append({"id": f"t{i}", "title": "Prima Tank", "size": size, "image": name})
    placeholder = picture(tmp_path / "images" / "none.png", 99)
    listed += [{"id": f"p{i}", "title": f"{words[i]} {words[i + 20]}", "image": placeholder} for i in range(8)]
    listed += [{"id": f"e{i}", "title": "", "brand": "Luma"} for i in range(3)]
    listed += [{"id": f"o{i}", "title": f"{words[i + 40]} thing", "size": "SML"[i % 3]} for i in range(12)]
    listed += [{"id": "o1", "title": "the same number again"}]
    write(tmp_path, listed)
    content = document(str(tmp_path))
    assert content["pairs"] == []
    assert content["variants_left_out"] == 6
    assert content["listings"] == len(listed) - 1


def test_a_listing_twice_in_a_group_is_found_and_variants_are_not(tmp_path: Path) -> None:
    """Equal photos, words and colour in one group: variants must differ in something."""
    photos = [picture(tmp_path / "images" / f"{i}.png", 1, tint=tint) for i, tint in enumerate([(9, 9, 9), (255,) * 3])]
    shirt = {"title": "Checked shirt", "group_id": "S1", "image": photos[0], "color": "black"}
    listed = [
        {**shirt, "id": "1", "stock": "5"},
        {**shirt, "id": "2", "stock": "7"},
        {**shirt, "id": "3", "color": "white", "image": photos[1]},
        {**shirt, "id": "4", "material": "wool"},
        {**shirt, "id": "5", "material": "linen"},
        {**shirt, "id": "6", "color": "white"},
    ]
    write(tmp_path, listed[:3])
    content = document(str(tmp_path))
    assert pairs_of(content) == {("1", "2")}
    assert content["variants_left_out"] + len(content["pairs"]) <= 3
    write(tmp_path, listed)
    assert ("4", "5") not in pairs_of(document(str(tmp_path)))
    assert not any("6" in pair for pair in pairs_of(document(str(tmp_path))))


def test_sizes_that_share_photo_colour_and_words_are_variants(tmp_path: Path) -> None:
    """A configurable product as a shop exports it: a row a size, without a group."""
    listed: list[Row] = []
    for i, name in enumerate(("Chaz Kangeroo Hoodie", "Teton Pullover Hoodie", "Bruno Compete Tank")):
        photo = picture(tmp_path / "images" / f"{i}.png", i)
        for size in ("XS", "S", "M", "L", "XL"):
            row = {"id": f"{i}-{size}", "title": f"{name}-{size}-Black", "image": photo, "price": "52"}
            listed.append(row | ({"size": size, "title": name} if i == 1 else {}))
    write(tmp_path, [*listed, {**listed[0], "id": "again"}])
    assert pairs_of(document(str(tmp_path))) == {("0-XS", "again")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Samsung Galaxy S21 Smartphone 128GB", "Samsung Galaxy S21 Smartphone 256 GB"),
        ("Adidas Samba OG Shoes White", "Adidas Samba OG Shoes Black"),
        ("Sony DSC-W120 Digital Camera Silver", "Sony DSC-W130 Digital Camera Silver"),
        ("Nike Air Force 1 Shoes", "Nike Air Max 90 Shoes"),
        ("Levi's 501 Original Jeans W32 L32", "Levi's 501 Original Jeans W34 L32"),
    ],
)
def test_another_model_size_or_colour_is_no_duplicate_by_hand(tmp_path: Path, one: str, other: str) -> None:
    """Although the words are the same and, in a second try, the photo and the description, too."""
    filler = [{"id": f"f{i}", "title": f"{kind} zebra{i} thing"} for i, kind in enumerate(["lamp", "cup", "sofa"] * 7)]
    pair = [{"id": "a", "title": one, "brand": "B"}, {"id": "b", "title": other, "brand": "B"}]
    write(tmp_path, [*filler, *pair, {"id": "c", "title": one, "brand": "B"}])
    found = {(p["id"], p["other_id"]): p for p in document(str(tmp_path), "--threshold", "0.0001")["pairs"]}
    assert found["a", "c"]["score"] > 0.5
    assert ("a", "b") not in found or found["a", "b"]["score"] < 0.1
    photo = picture(tmp_path / "images" / "one.png", 1)
    pair = [{**row, "image": photo, "description": "As described."} for row in [*pair, {**pair[0], "id": "c"}]]
    write(tmp_path, [*filler, *pair])
    assert pairs_of(document(str(tmp_path))) == {("a", "c")}


def test_photos_alone_are_not_enough_to_begin_with(tmp_path: Path) -> None:
    write(tmp_path, [{"id": f"p{i}", "image": picture(tmp_path / "images" / f"{i}.png", i)} for i in range(3)])
    result = call(str(tmp_path))
    assert result.exit_code == 3
    assert "run `afmrl embed` first" in " ".join(result.stderr.split())


def test_one_listing_is_no_pair(tmp_path: Path) -> None:
    write(tmp_path, [{"id": "a", "title": "Only one"}])
    assert document(str(tmp_path))["pairs"] == []


def test_a_vision_encoders_vectors_are_what_photos_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn listings without words that tell: those of one product are nearer each other than those of others."""
    from afmrl_cli.dedupe.features import NAMES
    from afmrl_cli.dedupe.run import compare_catalog
    from afmrl_cli.listener import Silent
    from afmrl_cli.models.presets import resolve_base
    from afmrl_cli.retrieval.vectors import load_vectors
    from afmrl_cli.sources import load_settings
    from afmrl_cli.store.checkpoints import Checkpoints
    from afmrl_cli.workspace import Workspace
    from tests.models.adapters import add_vision
    from tests.retrieval.shop import shop_rows, write_shop

    folder = write_shop(tmp_path / "shop", [row | {"title": "Shirt", "description": ""} for row in shop_rows(12)])
    monkeypatch.chdir(folder.root)
    Path("afmrl.toml").write_text('[model]\nvision_checkpoint = "eyes"\n')
    settings = load_settings(Path.cwd())
    add_vision(Checkpoints(folder.checkpoints), resolve_base(settings.model, "vision"), "eyes", trained=False)
    assert calls.call("embed").exit_code == 0
    assert document()["embedder"].startswith("nano-eyes-")
    work = Workspace(folder, settings, Silent())
    found = compare_catalog(work, load_vectors(work))
    products = [product.product_id for product in found.sources.listings.products]
    same = np.array([products[a] == products[b] for a, b in found.pairs])
    cosines = found.features[:, NAMES.index("vector")]
    assert same.sum() == 6 and cosines[same].mean() > cosines[~same].mean() + 0.1
