from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from tests.catalog.shop import photo, write

TEXT = """sku,name,category,image,gtin,attr_color,price
1,Blouse,Tops,a.png,400,navy,5
2,Blouse again,Tops,a.png;b.png,400,red,5
3,,Shoes,b.png,,,
4,Lost photo,Shoes,gone.png,,,
,No id,Shoes,,,,
1,Same id,,,,,
"""


def run(*words: str, code: int) -> str:
    done = CliRunner().invoke(app, ["check", *words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    photo(tmp_path / "a.png")
    write(tmp_path / "b.png", "a text file")
    return write(tmp_path / "catalog.csv", TEXT)


def test_one_screen(shop: Path) -> None:
    output = run(str(shop), code=1)
    for words in (
        "products                 4",
        "photos                   4",
        "with several           1",
        "no title or description  1",
        "categories               2, largest: Tops (2), Shoes (2)",
        "identities               3, 1 with several listings",
        "product_id               column gtin",
        "filters and labels       color, price (2 in all)",
        "filled                 2 of 2 in at least half of the products; least: color 50%, price 50%",
        "pairs for training       1 identities with several listings, 1 listings with several photos, 2 with text",
        "error: unreadable image: 2",
        "row 3 (id 2): b.png: no photo but text",
        "error: missing image: 1\n    row 5, column image (id 4): gone.png: no such file\n    mend: check the path",
        "error: duplicate id: 1\n    row 7 (id 1): row 2 has the same id",
        "5 problems: rows, photos or settings that can't be used",
    ):
        assert words in output
    assert len(output.splitlines()) <= 45
    assert not (shop.parent / ".afmrl").exists()


def test_a_photo_that_many_products_share_is_reported_but_not_among_variants(tmp_path: Path) -> None:
    photo(tmp_path / "none.png", "gray")
    photo(tmp_path / "again.png", "gray")  # the same bytes under another name
    photo(tmp_path / "style.png", "red")
    rows = [f"{i},Thing {i},{'none' if i % 2 else 'again'}.png,\n" for i in range(6)]
    rows += [f"v{i},Blouse size {i},style.png,blouse\n" for i in range(6)]
    write(tmp_path / "catalog.csv", "id,title,image,group_id\n" + "".join(rows))
    output = run(str(tmp_path), code=0)
    assert "warning: shared photo: 1\n    row 3 (id 1): none.png: 6 different products have this photo" in output
    assert "style.png" not in output
    assert "shared photo" not in run(str(tmp_path), "--no-images", code=0)  # three rows for each name
    assert "6 different" not in run(str(tmp_path), "--no-images", code=0)


def test_every_problem_as_a_line_of_a_file(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "problems.csv"
    write(shop, TEXT + "".join(f"=cmd{i},x,y,gone{i}.png,,,\n" for i in range(30)))
    run(str(shop), "--out", str(out), code=1)
    with out.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert Counter(line["kind"] for line in lines)["missing image"] == 31
    first = next(line for line in lines if line["kind"] == "unreadable image")
    assert first["row"] == "3" and first["listing"] == "2" and first["severity"] == "error" and first["mend"]
    assert all(not line["listing"].startswith("=") for line in lines)  # a spreadsheet would run it
    assert "is the retailer's own file" in run(str(shop), "--out", str(shop), code=2)
    assert "lies inside" in run(str(shop), "--out", str(shop.parent / ".afmrl/x.csv"), code=2)


def test_a_shop_export_on_one_screen(tmp_path: Path) -> None:
    write(tmp_path / "products.csv", (Path(__file__).parents[1] / "data/shopify.csv").read_bytes())
    output = run(str(tmp_path), code=0)
    for words in (
        "read as Shopify export",
        "groups of variants       2, 1 with several",
        "warning: image url: 10",
        "Variant SKU",
    ):
        assert words in output
    assert len(output.splitlines()) <= 45
    content = json.loads(CliRunner().invoke(app, ["check", "--json", str(tmp_path)]).stdout)
    assert content["layout"] == "shopify" and content["attributes"]["Color"] == 3
    assert "read as" not in run(str(tmp_path), "--format", "csv", code=1)


def test_what_lets_a_later_command_fail(tmp_path: Path) -> None:
    write(tmp_path / "catalog.csv", "id,title\n1,a\n2,b\n")
    output = run(str(tmp_path), code=0)
    assert "warning: nothing to train on: 1" in output and "pairs for training       none" in output
    write(tmp_path / "catalog.csv", "id,title,gtin\n1,a,1\n2,b,1\n")
    assert "nothing to train on" not in run(str(tmp_path), code=0)
    write(tmp_path / "afmrl.toml", '[attributes]\ntemplate = "gone.txt"\n')
    output = run(str(tmp_path), code=1)
    assert "error: bad settings: 1" in output and "gone.txt: No such file" in output


def test_languages(tmp_path: Path) -> None:
    titles = ["Röd kjol i bomull med fickor", "Blå klänning till sommaren", "Röda skor av läder för barn"]
    write(tmp_path / "catalog.csv", "id,title\n" + "".join(f"{i},{title} {i}\n" for i, title in enumerate(titles * 4)))
    assert "languages                Swedish 100%" in run(str(tmp_path), code=0)


def test_json_is_one_document(shop: Path) -> None:
    done = CliRunner().invoke(app, ["check", "--json", str(shop)])
    assert done.exit_code == 1
    content = json.loads(done.stdout)
    assert content["schema"] == "afmrl.check/1" and content["ok"] is False
    assert (content["products"], content["photos"], content["identities"]) == (4, 4, 3)
    assert content["columns"]["image"] == ["image"] and content["given"] == ["color", "price"]
    kinds = {problem["kind"]: problem for problem in content["problems"]}
    assert kinds["no id"]["count"] == 1 and kinds["no id"]["first"][0]["row"] == 6
    assert kinds["unreadable image"]["severity"] == "error" and kinds["unreadable image"]["mend"]


def test_photos_may_stay_closed(shop: Path) -> None:
    assert "unreadable image" not in (output := run("--no-images", str(shop), code=1))
    assert "4 (not opened)" in output


def test_a_good_catalog_is_no_failure_and_warnings_are_none_either(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    write(tmp_path / "catalog.csv", "id,title,image\n1,a,a.png\n2,b,https://example.org/b.png\n")
    assert "warning: image url: 1" in run(str(tmp_path), code=0)
    write(tmp_path / "catalog.csv", "id,title,image\n1,a,a.png\n")
    assert "no problems found" in run(str(tmp_path), code=0)


def test_settings_that_fail_do_not_hide_the_rest(shop: Path) -> None:
    assert "duplicate id" in run(str(shop), "--set", "catalog.bad_rows=fail", code=1)


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("catalog.csv", "", 3, "the file is empty"),
        ("catalog.csv", "id,title\n", 3, "no products"),
        ("catalog.csv", "id,title\n,a\n", 1, "no id: 1"),
        ("catalog.csv", "title,price\na,b\n", 3, "no id column; the columns are: title, price"),
        ("catalog.csv", "PK\x03\x04", 3, "not an Excel workbook, or damaged"),
        ("catalog.parquet", "PAR1 text", 3, "not a Parquet file"),
    ],
)
def test_bad_input(name: str, content: str, code: int, words: str, tmp_path: Path) -> None:
    assert words in run(str(write(tmp_path / name, content)), code=code)


def test_no_catalog_there(tmp_path: Path) -> None:
    assert "no such file or folder" in run(str(tmp_path / "gone.csv"), code=3)
    assert "no catalog here" in run(str(tmp_path), code=3)
    assert "neither a file nor a folder" in run("/dev/null", code=3)
    write(tmp_path / "catalog.csv", "id,title\n1,a\n")
    write(tmp_path / "afmrl.toml", '[catalog.columns]\ntitle = "titel"\n')
    assert "did you mean title?" in run(str(tmp_path), code=3)
    assert "is not one character" in run(str(tmp_path), "--set", "catalog.delimiter=;;", code=2)


def test_check_fits_eighty_columns_but_for_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = "sku,title,image," + ",".join(f"a rather long name of a column {i}" for i in range(9))
    rows = f"A,Tee,https://example.test/{'x' * 90}.jpg{',red' * 9}\nB,Cup,a rather long name of a photo.jpg{',' * 9}\n"
    (tmp_path / "catalog.csv").write_text(f"{names}\n{rows}")
    shown = CliRunner().invoke(app, ["check", str(tmp_path)]).stdout
    assert "filters and labels" in shown and "no such file" in shown
    assert [
        line for line in shown.splitlines() if len(line) > 80 and "http" not in line and str(tmp_path) not in line
    ] == []
