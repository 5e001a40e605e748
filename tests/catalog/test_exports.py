"""What shops export: samples made by hand after the formats' public descriptions (tests/data)."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import date
from pathlib import Path

import pytest
from openpyxl import Workbook

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import count_rows, open_catalog
from afmrl_cli.errors import DataError
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder

from .shop import found, photo, read, write

DATA = Path(__file__).parents[1] / "data"


def sample(name: str, folder: Path) -> Path:
    return write(folder / name, (DATA / name).read_bytes())


def links(file: Path) -> dict[str, list[str]]:
    """The photos that each listing names: links are reported, not fetched."""
    _, problems = read(file)
    by_listing: dict[str, list[str]] = {}
    for problem in problems.first("image url"):
        by_listing.setdefault(problem.listing, []).append(problem.message.split("/")[-1].split(":")[0])
    return by_listing


def layout(file: Path, **settings: object) -> str:
    with open_catalog(CatalogFolder(file), CatalogSettings.model_validate(settings), Problems()) as catalog:
        return catalog.layout


def test_shopify_variants_take_what_the_first_row_has(tmp_path: Path) -> None:
    file = sample("shopify.csv", tmp_path)
    products, problems = read(file)
    assert [(p.id, p.row, p.group_id, p.product_id) for p in products] == [
        ("LB-NAVY-S", 2, "linen-blouse", "4006381333931"),
        ("LB-NAVY-M", 3, "linen-blouse", "4006381333948"),
        ("LB-RED-S", 4, "linen-blouse", None),
        ("tote-bag", 6, "tote-bag", None),
    ]
    assert {p.title for p in products[:3]} == {"Linen Blouse"}
    assert {p.description for p in products[:3]} == {"Soft, washed linen.\nV-neck\nCare & repair"}
    assert [p.category for p in products] == ["Blouses"] * 3 + ["Apparel & Accessories > Handbags"]
    assert [(p.given.get("Color"), p.given.get("Size")) for p in products] == [
        ("Navy", "S"),
        ("Navy", "M"),
        ("Red", "S"),
        (None, None),
    ]
    assert products[1].given["Variant Price"] == "49.00" and products[3].given["Status"] == "draft"
    assert set(problems.counts) == {"image url"} and layout(file) == "shopify"


def test_shopify_photos_are_the_variants_own_first_and_never_anothers(tmp_path: Path) -> None:
    navy = ["lb-navy.jpg?v=1 a link that has not been fetched", "lb-back.jpg?v=1", "lb-detail.jpg?v=1"]
    by_listing = links(sample("shopify.csv", tmp_path))
    assert by_listing["LB-NAVY-S"] == by_listing["LB-NAVY-M"] == [navy[0].split(" ")[0], *navy[1:]]
    assert by_listing["LB-RED-S"] == ["lb-red.jpg?v=1", "lb-back.jpg?v=1", "lb-detail.jpg?v=1"]
    assert by_listing["tote-bag"] == ["tote.jpg"]


def test_shopify_columns_of_2025(tmp_path: Path) -> None:
    file = sample("shopify_2025.csv", tmp_path)
    products, _ = read(file)
    assert [(p.id, p.title, p.description.split(), p.given["Colour"]) for p in products] == [
        ("WS-1", "Wool Scarf", ["Warm", "merino"], "Grey"),
        ("WS-2", "Wool Scarf", ["Warm", "merino"], "Green"),
    ]
    assert links(file) == {"WS-1": ["ws1.jpg"], "WS-2": ["ws2.jpg"]}


def test_shopify_rows_that_were_sorted_apart_are_reported(tmp_path: Path) -> None:
    lines = (DATA / "shopify_2025.csv").read_text("utf-8").splitlines()
    other = lines[1].replace("wool-scarf", "cap").replace("WS-1", "C-1")
    _, problems = read(write(tmp_path / "s.csv", "\n".join([lines[0], lines[1], other, lines[2]])))
    assert ("row apart", 4) in found(problems)


def test_shopify_without_skus_names_variants_by_their_options(tmp_path: Path) -> None:
    text = "Handle,Title,Option1 Name,Option1 Value,Variant Price\nshirt,Shirt,Size,S,5\nshirt,,,M,5\ncap,Cap,,,3\n"
    products, problems = read(write(tmp_path / "s.csv", text))
    assert [(p.id, p.title) for p in products] == [("shirt-S", "Shirt"), ("shirt-M", "Shirt"), ("cap", "Cap")]
    assert not problems.counts
    assert found(read(tmp_path / "s.csv", format="csv", columns={"id": "Handle"})[1]) == [("duplicate id", 3)]


def test_woocommerce(tmp_path: Path) -> None:
    file = sample("woocommerce.csv", tmp_path)
    products, problems = read(file)
    assert [(p.id, p.title, p.category, p.brand, p.group_id) for p in products] == [
        ("woo-cap", "Cap", "Accessories", "", None),
        ("46", "=Album", "Music", "", None),
        ("woo-vneck-blue", "V-Neck T-Shirt - Blue", "Clothing > Tshirts", "Luma", "woo-vneck"),
        ("51", "V-Neck T-Shirt - Green", "Clothing > Tshirts", "Luma", "woo-vneck"),
        ("woo-hoodie", "Hoodie", "Clothing > Hoodies", "", None),
    ]
    by_id = {p.id: p for p in products}
    assert by_id["woo-vneck-blue"].description == "Soft cotton.\nTwo colours."
    assert by_id["51"].description == "Green one." and by_id["woo-cap"].description == "A cap, plain."
    assert by_id["woo-cap"].product_id == "4006381333931" and by_id["woo-cap"].given["Regular price"] == "18,50"
    assert by_id["woo-vneck-blue"].given["Color"] == "Blue" and by_id["woo-hoodie"].given["Logo"] == "Yes|No"
    assert links(file)["51"] == ["vneck.jpg", "vneck-2.jpg"] and links(file)["woo-vneck-blue"] == ["vneck-blue.jpg"]
    assert set(problems.counts) == {"image url"} and layout(file) == "woocommerce"


def test_a_woocommerce_variation_before_its_parent_is_reported(tmp_path: Path) -> None:
    lines = (DATA / "woocommerce.csv").read_text("utf-8").splitlines()
    text = "\n".join([lines[0], next(line for line in lines if line.startswith("50,"))])
    products, problems = read(write(tmp_path / "w.csv", text))
    assert [p.id for p in products] == ["woo-vneck-blue"] and ("row apart", 2) in found(problems)


def test_google_tsv(tmp_path: Path) -> None:
    file = sample("google.tsv", tmp_path)
    products, problems = read(file)
    assert [(p.id, p.title, p.category, p.product_id, p.group_id) for p in products] == [
        ("TS-1", "T-shirt, navy", "Apparel > T-shirts", "4006381333931", "TS"),
        ("TS-2", 'T-shirt "red"', "Apparel > T-shirts", "Luma TS1R", "TS"),
        ("MUG", "Mug", "", None, None),
    ]
    assert products[0].description == 'Organic cotton T-shirt with 5" logo' and products[2].given["price"] == "9,90 EUR"
    assert links(file)["TS-1"] == ["ts1.jpg", "ts2.jpg?w=1", "ts3.jpg"]
    assert set(problems.counts) == {"image url"} and layout(file) == "google"


def test_google_xml(tmp_path: Path) -> None:
    file = sample("google.xml", tmp_path)
    products, problems = read(file)
    first, second = products
    assert (first.id, first.title, first.product_id, first.group_id) == ("TS-1", "T-shirt, navy", "4006381333931", "TS")
    assert first.description == "Organic cotton & more" and first.category == "Apparel > T-shirts"
    assert first.given["Neck"] == "crew: round" and first.given["link"].endswith("?a=1&b=2")
    assert (second.title, second.product_id, second.row) == ("T-shirt, röd", "Luma TS1R", 2)
    assert links(file)["TS-1"] == ["ts1.jpg", "ts2.jpg?a=1,2", "ts3.jpg"]
    assert set(problems.counts) == {"image url"} and layout(file) == "google"
    (entry,), _ = read(sample("google_atom.xml", tmp_path))
    assert (entry.id, entry.title, entry.description) == ("MUG", "Mug", "Stoneware")
    assert entry.given["link"] == "https://shop.example.com/mug"


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "utf-8-sig"])
def test_xml_in_other_encodings(encoding: str, tmp_path: Path) -> None:
    text = (DATA / "google.xml").read_text("utf-8").replace('"UTF-8"', f'"{encoding.removesuffix("-sig")}"')
    products, _ = read(write(tmp_path / "feed.xml", text.encode(encoding)))
    assert [p.title for p in products] == ["T-shirt, navy", "T-shirt, röd"]


def test_a_broken_feed_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    text = (DATA / "google.xml").read_text("utf-8").replace("T-shirt, navy", "Shirt & tie")
    products, problems = read(write(tmp_path / "feed.xml", text))
    assert [p.id for p in products] == ["TS-1", "TS-2"] and problems.counts["broken xml"] == 1
    products, problems = read(write(tmp_path / "feed.xml", text[: text.index("TS1R")]))
    assert [p.id for p in products] == ["TS-1", "TS-2"] and problems.counts["broken xml"] >= 2


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">{}]><rss><item><id>&j;</id><title>t</title></item></rss>'
)
BOMBS = {
    "laughs": BOMB.format(
        "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    ),
    "file": '<!DOCTYPE l [<!ENTITY j SYSTEM "file:///etc/hostname">]><rss><item><id>&j;</id></item></rss>',
    "network": '<!DOCTYPE l SYSTEM "http://127.0.0.1:9/x.dtd"><rss><item><id>1</id></item></rss>',
}


@pytest.mark.parametrize("name", BOMBS)
def test_document_types_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an XML document type"):
        read(write(tmp_path / "feed.xml", BOMBS[name]))


@pytest.mark.parametrize("text", ["<rss>" + "<a>" * 3_000_000, "<rss><item><id>" + "x" * 9_000_000])
def test_xml_without_products_ends_early(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without the end of a product"):
        read(write(tmp_path / "feed.xml", text))


def book(path: Path, **sheets: list[list[object]]) -> Path:
    made = Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def test_xlsx(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    rows: list[list[object]] = [
        [],
        ["SKU", "Name", "Bild", "Preis", "Neu", "Seit", "EAN"],
        [1001, "Röd kjol", "a.png", 12.5, True, date(2026, 1, 2), 4006381333931],
        [],
        ["A-2", "Blå", None, 7.0],
        [None, "no id"],
        ["A-4", "x", None, None, None, None, None, "beyond"],
    ]
    products, problems = read(book(tmp_path / "catalog.xlsx", Empty=[], Artikel=rows, Lager=[["x"]]))
    assert [(p.id, p.title, p.product_id, p.row) for p in products] == [
        ("1001", "Röd kjol", "4006381333931", 3),
        ("A-2", "Blå", None, 5),
    ]
    assert products[0].given == {"Preis": "12.5", "Neu": "true", "Seit": "2026-01-02 00:00:00"}
    assert products[0].images == (tmp_path / "a.png",) and products[1].given == {"Preis": "7"}
    assert found(problems) == [("other sheets", 0), ("no id", 6), ("row too long", 7)]
    with pytest.raises(DataError, match="the workbook is empty"):
        read(book(tmp_path / "empty.xlsx", Empty=[]))


def test_a_zip_that_is_no_workbook_or_a_bomb(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("catalog.csv", "id,title\n1,a\n")
    with pytest.raises(DataError, match="a ZIP file and no Excel workbook"):
        read(write(tmp_path / "catalog.zip", packed.getvalue()))
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        with archive.open("xl/sharedStrings.xml", "w", force_zip64=True) as part:
            for _ in range(300):
                part.write(bytes(1 << 20))
    with pytest.raises(DataError, match="unpacks to gigabytes"):
        read(tmp_path / "bomb.xlsx")


@pytest.mark.parametrize("name", ["shopify.csv", "woocommerce.csv", "google.tsv", "google.xml"])
def test_gzip_means_the_same(name: str, tmp_path: Path) -> None:
    plain, packed = sample(name, tmp_path), write(tmp_path / f"{name}.gz", gzip.compress((DATA / name).read_bytes()))
    assert read(plain)[0] == read(packed)[0]
    assert (
        count_rows(CatalogFolder(packed), CatalogSettings()) == count_rows(CatalogFolder(plain), CatalogSettings()) > 1
    )


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as out:
        for _ in range(300):
            out.write(b"x" * (1 << 20))
    with pytest.raises(DataError, match="more than 200 times its size"):
        read(write(tmp_path / "catalog.csv.gz", packed.getvalue()))


def test_the_format_can_be_said(tmp_path: Path) -> None:
    plain = write(tmp_path / "c.csv", "id,title\n1,a\n")
    with pytest.raises(DataError, match=r"c\.csv: no shopify export: the columns are id, title"):
        read(plain, format="shopify")
    assert layout(write(tmp_path / "feed", (DATA / "google.tsv").read_bytes())) == "google"
    assert layout(tmp_path / "feed", format="tsv") == ""
    assert layout(write(tmp_path / "wrong.jsonl", "id,title\n1,a\n")) == ""  # the content counts, not the name


WOO_HEADERS = {
    "de": 'ID,Typ,Artikelnummer,"GTIN, UPC, EAN oder ISBN",Name,"Ist hervorgehoben?","Sichtbarkeit im Katalog",'
    "Kurzbeschreibung,Beschreibung,Vorrätig?,Regulärer Preis,Kategorien,Bilder,Übergeordnetes Produkt,Marken,"
    "Attribut 1 Name,Attribut 1 Wert(e),Attribut 1 Sichtbar",
    "fr": 'ID,Type,UGS,"GTIN, UPC, EAN ou ISBN",Nom,"Mis en avant ?","Visibilité dans le catalogue",Description courte,'
    "Description,En stock ?,Tarif régulier,Catégories,Images,Parent,Marques,Nom de l’attribut 1,"
    "Valeur(s) de l’attribut 1,Attribut 1 visible",
    "es": 'ID,Tipo,SKU,"GTIN, UPC, EAN o ISBN",Nombre,"¿Está destacado?","Visibilidad en el catálogo",'
    "Descripción corta,Descripción,¿En inventario?,Precio normal,Categorías,Imágenes,Superior,Marcas,"
    "Nombre del atributo 1,Valor(es) del atributo 1,Atributo visible 1",
    "nl": 'ID,Type,Artikelnummer,"GTIN, UPC, EAN of ISBN",Naam,Uitgelicht?,"Zichtbaarheid in catalogus",'
    "Korte beschrijving,Beschrijving,Op voorraad?,Reguliere prijs,Categorieën,Afbeeldingen,Hoofd,Merken,"
    "Naam eigenschap 1,Waarde(n) eigenschap 1,Zichtbare eigenschap 1",
    "it": 'ID,Tipo,COD,"GTIN, UPC, EAN o ISBN",Nome,"In primo piano?","Visibilità nel catalogo",Breve descrizione,'
    "Descrizione,In stock?,Prezzo di listino,Categorie,Immagini,Genitore,Marchi,Attributo 1 nome,"
    "Attributo 1 valuta(e),Attributo 1 visibile",
}
WOO_ROWS = """
44,variable,v,,Shirt,1,visible,Short,Long,1,,"Wear, Wear > Shirts",https://x/a.jpg,,Luma,Colour,"Blue, Green",1
50,variation,v-b,4006381333931,Shirt - Blue,0,visible,,,1,20,,https://x/b.jpg,v,,Colour,Blue,
45,simple,cap,,Cap,0,visible,A cap,,1,18,Hats,https://x/c.jpg,,,,,
"""


@pytest.mark.parametrize("language", WOO_HEADERS)
def test_woocommerce_in_other_languages(language: str, tmp_path: Path) -> None:
    file = write(tmp_path / "wc-product-export.csv", WOO_HEADERS[language] + WOO_ROWS)
    assert layout(file) == "woocommerce"
    shirt, cap = read(file)[0]
    assert (shirt.id, shirt.title, shirt.description, shirt.category) == (
        "v-b",
        "Shirt - Blue",
        "Long",
        "Wear > Shirts",
    )
    assert (shirt.brand, shirt.product_id, shirt.group_id) == ("Luma", "4006381333931", "v")
    assert shirt.given["Colour"] == "Blue" and not any("1" in key for key in shirt.given)
    assert (cap.id, cap.description, cap.category, cap.group_id) == ("cap", "A cap", "Hats", None)
    assert links(file) == {"v-b": ["b.jpg"], "cap": ["c.jpg"]}
