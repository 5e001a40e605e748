"""What is doubtful in an export is reported, and read where that is safe."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import Workbook

from afmrl_cli.catalog.check import CatalogSummary, check_catalog
from afmrl_cli.catalog.doubled import mended
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import product_text
from afmrl_cli.catalog.read import count_rows
from afmrl_cli.errors import DataError
from afmrl_cli.listener import Silent
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder

from .shop import photo, read, write
from .test_shops import SHOPS, photos_of

LONG = "A long text about a product that goes on and on so that nobody takes it for a name or for a word. "


def check(file: Path, **settings: object) -> CatalogSummary:
    chosen = CatalogSettings.model_validate(settings)
    return check_catalog(CatalogFolder(file), chosen, Silent(), open_photos=True, problems=Problems())


def test_gtins_that_stand_for_none_join_nothing_and_are_counted(tmp_path: Path) -> None:
    gaps = ["#N/A", "0000000000000", "\\N", "exempt", "unknown", "#VALUE!", "keine", "GTIN not available"]
    rows = "".join(f"P{i},Cup {i},{gap}\n" for i, gap in enumerate(gaps * 2))
    products, problems = read(write(tmp_path / "a.csv", "sku,title,gtin\n" + rows))
    assert {product.identity for product in products} == {f"P{i}" for i in range(16)}
    assert problems.counts == {"placeholder": 16} and not problems.errors


def test_placeholders_are_no_attributes(tmp_path: Path) -> None:
    gaps = ["N/A", "n/a", "#N/A", "Unknown", "-", "TBD", "nan", "keine Angabe"]
    rows = "".join(f"S{i},Scarf {i},{gap},Red|{gap}\n" for i, gap in enumerate(gaps))
    products, problems = read(write(tmp_path / "a.csv", "sku,title,attr_material,attr_colour\n" + rows))
    assert [dict(product.given) for product in products] == [{"colour": "Red"}] * len(gaps)
    assert problems.first("placeholder")[0].column == "attr_material" and problems.counts["placeholder"] == 16


def test_one_gtin_in_many_spellings_is_one_identity_and_a_wrong_digit_is_reported(tmp_path: Path) -> None:
    written = ["4006381333931", "'4006381333931", '"=""4006381333931"""', "4006381333931.0", "4006381 333931",
               "04006381333931", "4006-3813-33931"]  # fmt: skip
    rows = "".join(f"G{i},Pen {i},{gtin}\n" for i, gtin in enumerate([*written, "4006381333932"]))
    products, problems = read(write(tmp_path / "a.csv", "sku,title,gtin\n" + rows))
    assert {product.identity for product in products} == {"4006381333931", "4006381333932"}
    assert problems.counts == {"wrong check digit": 1}


def test_ids_that_a_spreadsheet_rounded_are_reported_as_that(tmp_path: Path) -> None:
    rows = "sku,title\n1.23457E+11,Stool a\n1.23457E+11,Stool b\n12E5,Stool c\n'001,Stool d\n"
    products, problems = read(write(tmp_path / "a.csv", rows))
    assert [product.id for product in products] == ["12E5", "001"] and problems.counts == {"lost digits": 2}


def test_column_names_that_come_again_are_no_product(tmp_path: Path) -> None:
    products, problems = read(write(tmp_path / "a.csv", "sku,title\nA,a\n\ufeffsku,title\nB,b\n"))
    assert [product.id for product in products] == ["A", "B"]
    assert [p.row for p in problems.first("repeated header")] == [3] and not problems.errors


def test_text_that_was_encoded_twice_is_mended_and_reported(tmp_path: Path) -> None:
    text = "sku,title,description\nU1,Théière bleue,Théière en grès émaillé\nU2,Für Küche,Groß und “klein”\n"
    file = write(tmp_path / "a.csv", text.encode().decode("cp1252", "replace").encode())
    products, problems = read(file)
    assert products[0].title == "Théière bleue" and products[1].title == "Für Küche"
    assert problems.counts["doubled encoding"] == 1
    assert mended("Théière Ω") == "Théière Ω"
    untouched, problems = read(write(tmp_path / "b.csv", text))
    assert untouched[0].title == "Théière bleue" and not problems.counts


def test_links_on_cells_of_a_workbook_and_formulas(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["sku", "title", "image", "note"])
    sheet.append(["X1", "Oak bench", "photo", None])
    sheet.append(["X2", "Elm bench", '=HYPERLINK("https://i.test/2.jpg","photo")', None])
    sheet.append(["X3", '=CONCATENATE("Ash ","bench")', "https://i.test/3.jpg", None])
    sheet["C2"].hyperlink = "https://i.test/1.jpg"
    sheet["B2"].hyperlink = "https://i.test/page"
    book.save(tmp_path / "a.xlsx")
    products, problems = read(tmp_path / "a.xlsx")
    assert photos_of(problems) == {"X1": "1.jpg", "X2": "2.jpg", "X3": "3.jpg"}
    assert products[0].title == "Oak bench"
    (problem,) = problems.first("formula")
    assert problem.row == 4 and "CONCATENATE" in problem.message and problem.severity == "error"


def test_paths_of_shops_are_found_below_the_folder(tmp_path: Path) -> None:
    photo(tmp_path / "pub/media/catalog/product/m/g/a.jpg")
    photo(tmp_path / "media/catalog/product/m/g/b.jpg", "blue")
    photo(tmp_path / "images/c.jpg", "green")
    photo(tmp_path / "photos_x/m/d.jpg", "white")
    photo(tmp_path / "mine/e.jpg", "black")
    cells = ["/m/g/a.jpg", "/m/g/b.jpg", "/images/c.jpg", "/photos_x/m/d.jpg", "/e.jpg", "c.jpg?v=12", "/images/no.jpg"]
    file = write(tmp_path / "a.csv", "sku,title,image\n" + "".join(f"{i},t,{cell}\n" for i, cell in enumerate(cells)))
    products, problems = read(file, image_folder="mine")
    assert [[path.name for path in p.images] for p in products] == [[f"{x}.jpg"] for x in "abcdec"] + [[]]
    (problem,) = problems.first("missing image")
    assert "pub/media/catalog/product" in problem.message and problems.counts == {"missing image": 1}


def test_a_folder_of_photos_adds_none_to_a_listing_that_names_its_own(tmp_path: Path) -> None:
    for name in ("t1-red", "t1-blue", "t2"):
        photo(tmp_path / f"images/z/{name}.jpg")
    rows = "sku,title,image\nT1,Tee,images/z/t1-red.jpg\nT2,Cup,\nT3,Cap,images/gone.jpg\n"
    products, _ = read(write(tmp_path / "a.csv", rows), image_folder="images")
    assert [[path.name for path in p.images] for p in products] == [["t1-red.jpg"], ["t2.jpg"], []]


def test_sizes_that_share_a_photo_share_it_rightly(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    sizes = "".join(f"T-{size},Tee {size},a.jpg,{size}\n" for size in ("XS", "S", "M", "L", "XL"))
    assert not check(write(tmp_path / "a.csv", "id,title,image,size\n" + sizes)).problems.counts
    others = "".join(f"{name},{name},a.jpg,\n" for name in ("Tee", "Cup", "Pot", "Hat", "Bag"))
    summary = check(write(tmp_path / "a.csv", "id,title,image,size\n" + others))
    assert summary.problems.counts["shared photo"] == 1


def test_where_names_do_not_tell_what_columns_hold_decides_and_is_reported(tmp_path: Path) -> None:
    rows = [
        f"X{i};https://cdn.test/{i}.jpg;400638133393{1 if i < 9 else 0};Aa > Bb;Yks kaks {i};{LONG}{i};red"
        for i in range(9)
    ]
    products, problems = read(write(tmp_path / "a.csv", "a;b;c;d;e;f;g\n" + "\n".join(rows)))
    first = products[0]
    assert (first.id, first.title, first.category) == ("X0", "Yks kaks 0", "Aa > Bb")
    assert first.description.startswith("A long text") and first.product_id == "4006381333931"
    messages = [problem.message for problem in problems.first("guessed column")]
    assert len(messages) == 6 and any("catalog.columns.title = ['e']" in message for message in messages)


def test_columns_that_nothing_reads_are_named_with_their_setting(tmp_path: Path) -> None:
    rows = "".join(f"A{i},Cup {i},https://i.test/{i}.jpg,{LONG}{i},{LONG}{i},4006381333931\n" for i in range(3))
    header = "sku,title,image,description,care_advice,supplier_gtin\n"
    summary = check(write(tmp_path / "a.csv", header + rows))
    messages = [problem.message for problem in summary.problems.first("unread column")]
    assert messages == ['it holds long text: catalog.columns.description = ["description", "care_advice"]']
    header = "sku,title,hero_shot,description,x,supplier_gtin\n"
    messages = [
        p.message
        for p in check(write(tmp_path / "a.csv", header + rows), columns={"image": "x"}).problems.first("unread column")
    ]
    assert any("links or paths of photos: catalog.columns.image" in message for message in messages)


def test_own_columns_become_text_and_stay_filters(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "sku,title,description,attr_material,care\nA,Cup,Fine,Clay,n/a\n")
    (product,), _ = read(file, columns={"text": ["attr_material", "care"]})
    assert product_text(product) == "Title: Cup\nMaterial: Clay\nDescription: Fine" and product.given == {
        "material": "Clay"
    }
    with pytest.raises(DataError, match=r"catalog\.columns\.text names 'colour'"):
        read(file, columns={"text": ["colour"]})


@pytest.mark.parametrize("name", SHOPS)
def test_the_count_of_rows_is_that_of_listings(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / SHOPS[name].file, "\n".join(SHOPS[name].rows) + "\n")
    assert count_rows(CatalogFolder(file), CatalogSettings()) == len(SHOPS[name].listings)


@pytest.mark.parametrize(
    "cell",
    [
        "<img " * 100_000, "a" + " " * 400_000 + "b::", "https://i.test/a" + " " * 400_000 + "b", ".ab?" * 100_000,
        "https://" + "img" * 100_000 + " x", "a/" + " " * 400_000 + "b", "a=" + " " * 400_000 + ";", "'" * 300_000,
    ],
)  # fmt: skip
def test_no_cell_takes_longer_than_its_length(cell: str, tmp_path: Path) -> None:
    """Patterns that try every place from every place would take hours here."""
    rows = f'1,t,"{cell}","{cell}","{cell}"\n'
    products, _ = read(write(tmp_path / "a.csv", "id,title,image,category,attributes\n" + rows))
    assert len(products) == 1
