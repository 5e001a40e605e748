"""Exports of shops, marketplaces and feeds as they come, each written by the test: which listings they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product

from .shop import read, write

EANS = ("4006381333931", "4006381333948")


@dataclass(frozen=True)
class Shop:
    """An export, and of each listing (title, group, photos, attributes that it must have)."""

    file: str
    rows: tuple[str, ...]
    listings: dict[str, tuple[str, str, str, dict[str, str]]]
    texts: dict[str, str] = field(default_factory=dict)
    """Role -> what the first listing has."""


SHOPS = {
    "PrestaShop": Shop(
        "a.csv",
        (
            "Product ID;Active (0/1);Name *;Categories (x,y,z...);Reference #;EAN13;Description;Image URLs (x,y,z...);"
            "Feature (Name:Value:Position:Customized)",
            f"7;1;Tin pot;Kitchen,Pots;TP-1;{EANS[0]};<p>A pot</p>;https://i.test/1.jpg,https://i.test/2.jpg;"
            "Material:Tin:1:0,Finish:Matt:2:0",
        ),
        {"TP-1": ("Tin pot", "", "1.jpg 2.jpg", {"Material": "Tin", "Finish": "Matt"})},
        {"product_id": EANS[0], "category": "Kitchen,Pots", "description": "A pot"},
    ),
    "BigCommerce of old": Shop(
        "a.csv",
        (
            "Item Type,Product ID,Product Name,Product Code/SKU,Brand Name,Product Description,Category,"
            "Product Image File - 1,Product Image Description - 1,Product Image Sort - 1,Product Image File - 2",
            "Product,1,Reed bag,RB,Oak,<p>Reed</p>,Home/Bags,https://i.test/1.jpg,front,0,https://i.test/2.jpg",
            '  SKU,9,"[S]Size=Small,[RB]Colour=Red",RB-S,,,,https://i.test/s.jpg,,,',
            "  SKU,8,[S]Size=Large,RB-L,,,,,,,",
            "Product,2,Tray,TR,Oak,<p>Flat</p>,Home,https://i.test/3.jpg,,0,",
        ),
        {
            "RB-S": ("Reed bag", "RB", "s.jpg", {"Size": "Small", "Colour": "Red"}),
            "RB-L": ("Reed bag", "RB", "1.jpg 2.jpg", {"Size": "Large"}),
            "TR": ("Tray", "", "3.jpg", {}),
        },
        {"brand": "Oak", "description": "Reed"},
    ),
    "BigCommerce of now": Shop(
        "a.csv",
        (
            "Item,ID,Name,Type,SKU,Options,Price,Categories,Description,GTIN,Image URL (Import),Image is Thumbnail",
            "Product,77,Fog shirt,physical,FS,,49,Shop All/Tops;Shop All,<p>Linen</p>,,,",
            f"Variant,78,,,FS-B,Type=Rectangles|Name=Color|Value=Blue,,,,{EANS[0]},,",
            f"Variant,79,,,FS-R,Type=Rectangles|Name=Color|Value=Red,,,,{EANS[1]},,",
            "Image,301,,,,,,,,,https://i.test/1.jpg,TRUE",
            "Image,302,,,,,,,,,https://i.test/2.jpg,FALSE",
        ),
        {
            "78": ("Fog shirt", "77", "1.jpg 2.jpg", {"Color": "Blue"}),
            "79": ("Fog shirt", "77", "1.jpg 2.jpg", {"Color": "Red"}),
        },
        {"product_id": EANS[0], "category": "Shop All/Tops"},
    ),
    "Amazon flat file": Shop(
        "a.txt",
        (
            "TemplateType=fptcustom\tVersion=2021\tThe top 3 rows are for the marketplace\t\t\t\t\t\t",
            "Seller SKU\tProduct ID\tProduct Name\tBrand\tMain Image URL\tOther Image URL\tParentage\tParent SKU\t"
            "Color",
            "item_sku\texternal_product_id\titem_name\tbrand_name\tmain_image_url\tother_image_url1\tparent_child\t"
            "parent_sku\tcolor_name",
            "P\t\tLinen shirt\tLumo\thttps://i.test/p.jpg\t\tParent\t\t",
            f"R\t{EANS[0]}\tLinen shirt red\tLumo\thttps://i.test/r.jpg\thttps://i.test/r2.jpg\tChild\tP\tRed",
            f"B\t{EANS[1]}\t\t\thttps://i.test/b.jpg\t\tChild\tP\tBlue",
        ),
        {
            "R": ("Linen shirt red", "P", "r.jpg r2.jpg", {"color_name": "Red"}),
            "B": ("Linen shirt", "P", "b.jpg", {"color_name": "Blue"}),
        },
        {"product_id": EANS[0], "brand": "Lumo"},
    ),
    "Amazon's new flat file": Shop(
        "a.txt",
        (
            "TemplateType=x\tThe top rows are notes\t\t\t\t\t",
            "SKU\tItem Name\tProduct Id\tMain Image URL\tParentage Level\tParent SKU\tColour",
            "contribution_sku#1.value\titem_name[language_tag=en_GB]#1.value\t"
            "externally_assigned_product_identifier[marketplace_id=A]#1.value\t"
            "main_product_image_locator[marketplace_id=A]#1.media_location\tparentage_level[marketplace_id=A]#1.value\t"
            "child_parent_sku_relationship[marketplace_id=A]#1.parent_sku\tcolor#1.value",
            "P\tShirt\t\thttps://i.test/p.jpg\tParent\t\t",
            f"C\tShirt red\t{EANS[0]}\thttps://i.test/c.jpg\tChild\tP\tRed",
        ),
        {"C": ("Shirt red", "P", "c.jpg", {"color#1.value": "Red"})},
        {"product_id": EANS[0]},
    ),
    "Akeneo": Shop(
        "a.csv",
        (
            "sku;categories;family;EAN;description-en_US-ecommerce;description-fr_FR-ecommerce;name-en_US;name-fr_FR;"
            "picture;price-EUR;colour",
            f"AK;lamps;lamp;{EANS[0]};Lamp of brass;Lampe;Desk lamp;Lampe;https://i.test/1.jpg;9;brass",
            f"AL;lamps;lamp;{EANS[1]};Lamp of tin;;Tin lamp;;https://i.test/2.jpg;9;tin",
        ),
        {
            "AK": ("Desk lamp", "", "1.jpg", {"colour": "brass", "name-fr_FR": "Lampe"}),
            "AL": ("Tin lamp", "", "2.jpg", {}),
        },
        {"description": "Lamp of brass", "product_id": EANS[0]},
    ),
    "Magento": Shop(
        "a.csv",
        (
            "sku,store_view_code,product_type,categories,name,description,base_image,small_image,additional_images,"
            "additional_attributes,configurable_variations",
            'T-R,,simple,"Default Category/Women/Tops,Default Category",Tee-Red,,https://i.test/r.jpg,'
            'https://i.test/r.jpg,,"size=M,color=Red",',
            'T-B,,simple,"Default Category/Women/Tops,Default Category",Tee-Blue,,,,,size=M,',
            'T,,configurable,"Default Category/Women/Tops,Default Category",Tee,<p>Soft</p>,https://i.test/t.jpg,'
            'https://i.test/t.jpg,"https://i.test/t.jpg,https://i.test/t2.jpg",'
            '"material=Cotton|Spandex,pattern=Solid","sku=T-R,color=Red|sku=T-B,color=Blue"',
            "T,fr,configurable,,T-shirt,,,,,,",
            "MUG,,simple,Default Category/Kitchen,Mug,<p>Clay</p>,https://i.test/m.jpg,,,,",
        ),
        {
            "T-R": ("Tee-Red", "T", "r.jpg", {"size": "M", "color": "Red", "material": "Cotton|Spandex"}),
            "T-B": ("Tee-Blue", "T", "t.jpg t2.jpg", {"size": "M", "color": "Blue", "pattern": "Solid"}),
            "MUG": ("Mug", "", "m.jpg", {}),
        },
        {"category": "Women/Tops", "description": "Soft"},
    ),
    "Squarespace": Shop(
        "a.csv",
        (
            "Product ID [Non Editable],Variant ID [Non Editable],Title,Description,SKU,Option Name 1,Option Value 1,"
            "Price,Categories,Hosted Image URLs",
            "6a,7a,Rope bag,<p>Cotton</p>,S1,Colour,Sand,30,Bags,https://i.test/1.jpg https://i.test/2.jpg",
            ",7b,,,S2,,Olive,30,,",
            "6b,7c,Cap,<p>Wool</p>,S3,,,9,Hats,https://i.test/3.jpg",
        ),
        {
            "S1": ("Rope bag", "S1", "1.jpg 2.jpg", {"Colour": "Sand"}),
            "S2": ("Rope bag", "S1", "1.jpg 2.jpg", {"Colour": "Olive"}),
            "S3": ("Cap", "", "3.jpg", {}),
        },
        {"category": "Bags"},
    ),
    "eBay": Shop(
        "a.csv",
        (
            "Info,Version=1.0.0,Template=fx_category_template_EBAY_GB",
            "*Action(SiteID=UK|Country=GB),CustomLabel,*Category,*Title,*Description,C:Brand,P:UPC,PicURL,Relationship,"
            "RelationshipDetails,*StartPrice",
            "Add,TEE,15687,Cotton tee,<p>Soft</p>,Lumo,,https://i.test/1.jpg|https://i.test/2.jpg,,"
            "Size=S;M|Colour=Red,",
            f",TEE-S,,,,,{EANS[0]},,Variation,Size=S|Colour=Red,10",
            f",TEE-M,,,,,{EANS[1]},,Variation,Size=M|Colour=Red,10",
            "Add,CUP,15688,Tin cup,<p>Cup</p>,Lumo,Does not apply,https://i.test/3.jpg,,,5",
        ),
        {
            "TEE-S": ("Cotton tee", "TEE", "1.jpg 2.jpg", {"Size": "S", "Colour": "Red"}),
            "TEE-M": ("Cotton tee", "TEE", "1.jpg 2.jpg", {"Size": "M", "Colour": "Red"}),
            "CUP": ("Tin cup", "", "3.jpg", {}),
        },
        {"brand": "Lumo", "product_id": EANS[0]},
    ),
    "Wix": Shop(
        "a.csv",
        (
            "handleId,fieldType,name,description,productImageUrl,collection,sku,productOptionName1,productOptionType1,"
            "productOptionDescription1",
            f"p1,Product,Linen shirt,<p>Soft</p>,96bfc4_{'0' * 32}~mv2.jpg;https://i.test/2.jpg,Shirts,,Size,DROP,S;M",
            "p1,Variant,,,,,LS-S,,,S",
            "p1,Variant,,,,,,,,M",
            "p2,Product,Mug,<p>Clay</p>,https://i.test/m.jpg,Kitchen,MUG,,,",
        ),
        {
            "LS-S": ("Linen shirt", "p1", f"96bfc4_{'0' * 32}~mv2.… 2.jpg", {"Size": "S"}),
            "p1-M": ("Linen shirt", "p1", f"96bfc4_{'0' * 32}~mv2.… 2.jpg", {"Size": "M"}),
            "MUG": ("Mug", "", "m.jpg", {}),
        },
    ),
    "Ecwid": Shop(
        "a.csv",
        (
            "type,product_internal_id,product_sku,product_name,product_media_main_image_url,product_variation_sku",
            "product,1,EC,Apple cake,https://i.test/1.jpg,",
            "product_variation,1,,,,EC-S",
            "product_variation,1,,,,EC-L",
        ),
        {"EC-S": ("Apple cake", "EC", "1.jpg", {}), "EC-L": ("Apple cake", "EC", "1.jpg", {})},
    ),
    "Etsy": Shop(
        "a.csv",
        (
            "TITLE,DESCRIPTION,PRICE,TAGS,MATERIALS,IMAGE1,IMAGE2,VARIATION 1 TYPE,VARIATION 1 NAME,"
            "VARIATION 1 VALUES,SKU",
            'Ring,A ring,30,"a,b",silver,https://i.test/1.jpg,https://i.test/2.jpg,Custom,Size,"5,6",R-1',
        ),
        {"R-1": ("Ring", "", "1.jpg 2.jpg", {"Size": "5|6", "MATERIALS": "silver"})},
    ),
    "Shopware 5": Shop(
        "a.csv",
        (
            "ordernumber;mainnumber;name;additionalText;description;description_long;imageUrl;categories;"
            "configuratorOptions",
            "SW1;SW1;Shirt;S;Kurz;<p>Eine lange Beschreibung</p>;https://i.test/1.jpg;Deutsch>Mode>Shirts;"
            "Größe:S|Farbe:rot",
            "SW1.1;SW1;;M;;;;;Größe:M|Farbe:rot",
        ),
        {
            "SW1": ("Shirt", "SW1", "1.jpg", {"Größe": "S", "Farbe": "rot"}),
            "SW1.1": ("Shirt", "SW1", "1.jpg", {"Größe": "M", "Farbe": "rot"}),
        },
        {"description": "Eine lange Beschreibung", "category": "Deutsch>Mode>Shirts"},
    ),
    "Shopware 6": Shop(
        "a.csv",
        (
            "id;parent_id;product_number;translations.DEFAULT.name;translations.DEFAULT.description;cover.media.url;"
            "manufacturer.translations.DEFAULT.name;ean",
            "a1;;SWP;Polo;<p>Cotton</p>;https://i.test/1.jpg;Lumo;",
            f"a2;a1;SWP.1;;;;;{EANS[0]}",
            f"a3;a1;SWP.2;;;;;{EANS[1]}",
        ),
        {"a2": ("Polo", "a1", "1.jpg", {"product_number": "SWP.1"}), "a3": ("Polo", "a1", "1.jpg", {})},
        {"brand": "Lumo", "product_id": EANS[0], "description": "Cotton"},
    ),
    "OXID": Shop(
        "a.csv",
        (
            "OXID;OXPARENTID;OXARTNUM;OXEAN;OXTITLE;OXLONGDESC;OXPIC1;OXPIC2;OXVARNAME;OXVARSELECT",
            "p1;;2401;;Jeans;<p>Lang</p>;https://i.test/1.jpg;https://i.test/2.jpg;Größe | Farbe;",
            f"v1;p1;2401-1;{EANS[0]};;;;;;W30 | Blau",
            f"v2;p1;2401-2;{EANS[1]};;;;;;W31 | Blau",
        ),
        {
            "2401-1": ("Jeans", "p1", "1.jpg 2.jpg", {"Größe": "W30", "Farbe": "Blau"}),
            "2401-2": ("Jeans", "p1", "1.jpg 2.jpg", {"Größe": "W31", "Farbe": "Blau"}),
        },
    ),
    "JTL": Shop(
        "a.csv",
        (
            "Artikelnummer;Artikelname;Beschreibung;GTIN;Hersteller;Kategorie Ebene 1;Kategorie Ebene 2;Bild 1;Bild 2;"
            "Vaterartikel;Variationsname 1;Variationswert 1",
            "V1;Hose;Lange Hose;;Lumo;Mode;Hosen;https://i.test/1.jpg;https://i.test/2.jpg;;;",
            f"K1;Hose S;;{EANS[0]};;;;;;V1;Größe;S",
        ),
        {"K1": ("Hose S", "V1", "1.jpg 2.jpg", {"Größe": "S"})},
        {"category": "Mode/Hosen", "brand": "Lumo"},
    ),
    "Lightspeed": Shop(
        "a.csv",
        (
            "Internal_ID,Brand,EN_Title_Short,EN_Title_Long,EN_Description_Long,SKU,EAN,Images,EN_Category_1",
            f"1,Lumo,Tee,Tee of cotton,A tee,T-S,{EANS[0]},https://i.test/1.jpg;https://i.test/2.jpg,Tees",
        ),
        {"T-S": ("Tee of cotton", "", "1.jpg 2.jpg", {})},
        {"category": "Tees", "description": "A tee"},
    ),
    "OpenCart": Shop(
        "a.csv",
        (
            "product_id,name(en-gb),name(de-de),sku,upc,ean,manufacturer,image_name,description(en-gb),"
            "meta_title(en-gb)",
            f"28,Phone,,SK1,,{EANS[0]},HTC,https://i.test/1.jpg,A phone,Phone",
            f"29,Watch,Uhr,SK2,,{EANS[1]},HTC,https://i.test/2.jpg,A watch,Watch",
        ),
        {"SK1": ("Phone", "", "1.jpg", {}), "SK2": ("Watch", "", "2.jpg", {"name(de-de)": "Uhr"})},
        {"product_id": EANS[0], "description": "A phone"},
    ),
    "Salla, in Arabic": Shop(
        "a.csv",
        (
            "بيانات المنتج,,,,,",
            "النوع ,أسم المنتج,تصنيف المنتج,صورة المنتج,الوصف,رمز المنتج sku",
            'منتج,كوب,مطبخ,"https://i.test/1.jpg,https://i.test/2.jpg",كوب ازرق,SA-1',
        ),
        {"SA-1": ("كوب", "", "1.jpg 2.jpg", {})},
        {"category": "مطبخ"},
    ),
    "Mirakl, labels above names": Shop(
        "a.csv",
        (
            "Category;Shop SKU;Product name;Description;Brand;EAN;Main image;Image 2;Variant group code;Colour",
            "category;shop_sku;product_title;product_description;brand;ean;main_image;image_2;variant_group_code;color",
            f"Shoes;M-1;Boot;A boot;Lumo;{EANS[0]};https://i.test/1.jpg;https://i.test/2.jpg;VG;Red",
        ),
        {"M-1": ("Boot", "VG", "1.jpg 2.jpg", {"color": "Red"})},
    ),
    "SAP Commerce": Shop(
        "a.csv",
        (
            "INSERT_UPDATE Product;code[unique=true];name[lang=en];name[lang=de];ean;picture(code);"
            "supercategories(code)",
            f";IMP-1;Camera;Kamera;{EANS[0]};https://i.test/1.jpg;cameras",
        ),
        {"IMP-1": ("Camera", "", "1.jpg", {"name[lang=de]": "Kamera"})},
        {"category": "cameras"},
    ),
    "Google, with details": Shop(
        "a.tsv",
        (
            "id\ttitle\tdescription\timage_link\tadditional_image_link\tgtin\tproduct_detail",
            f"G1\tFlask\tA flask\thttps://i.test/1.jpg\thttps://i.test/2.jpg,https://i.test/3.jpg\t{EANS[0]}\t"
            "General:Material:Steel,General:Capacity:500 ml",
        ),
        {"G1": ("Flask", "", "1.jpg 2.jpg 3.jpg", {"Material": "Steel", "Capacity": "500 ml"})},
    ),
    "a fashion set": Shop(
        "a.csv",
        (
            "article_id,product_code,prod_name,product_type_name,product_group_name,colour_group_name,detail_desc",
            "0108775015,0108775,Strap top,Vest top,Garment Upper body,Black,Jersey top with straps.",
            "0108775044,0108775,Strap top,Vest top,Garment Upper body,White,Jersey top with straps.",
        ),
        {
            "0108775015": ("Strap top", "0108775", "", {"colour_group_name": "Black"}),
            "0108775044": ("Strap top", "0108775", "", {"colour_group_name": "White"}),
        },
        {"description": "Jersey top with straps.", "category": "Vest top"},
    ),
    "another fashion set": Shop(
        "a.csv",
        (
            "id,gender,masterCategory,subCategory,articleType,baseColour,season,productDisplayName",
            "15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,Turtle Check Men Navy Blue Shirt",
        ),
        {"15970": ("Turtle Check Men Navy Blue Shirt", "", "", {"articleType": "Shirts", "baseColour": "Navy Blue"})},
        {"category": "Apparel/Topwear/Shirts"},
    ),
    "Polish": Shop(
        "a.csv",
        (
            "Kod produktu;Nazwa produktu;Opis;Kategoria;Producent;Zdjęcie;EAN",
            f"PL-1;Łyżka;Srebrna łyżka;Kuchnia;Lumo;https://i.test/1.jpg;{EANS[0]}",
        ),
        {"PL-1": ("Łyżka", "", "1.jpg", {})},
        {"product_id": EANS[0], "brand": "Lumo", "category": "Kuchnia", "description": "Srebrna łyżka"},
    ),
}


def photos_of(problems: Problems) -> dict[str, str]:
    """The last parts of the links that each listing names, in their order."""
    found: dict[str, list[str]] = {}
    for problem in problems.first("image url"):
        found.setdefault(problem.listing, []).append(problem.message.split(": a link")[0].rsplit("/", 1)[-1])
    return {listing: " ".join(names) for listing, names in found.items()}


@pytest.mark.parametrize("name", SHOPS)
def test_an_export_gives_the_shops_listings(name: str, tmp_path: Path) -> None:
    shop = SHOPS[name]
    products, problems = read(write(tmp_path / shop.file, "\n".join(shop.rows) + "\n"))
    assert [product.id for product in products] == list(shop.listings)
    photos = photos_of(problems)
    for product in products:
        title, group, names, attributes = shop.listings[product.id]
        assert (product.title, product.group_id or "", photos.get(product.id, "")) == (title, group, names)
        assert attributes.items() <= dict(product.given).items()
    first: Product = products[0]
    assert {role: getattr(first, role) for role in shop.texts} == shop.texts
    assert not problems.errors


def test_parents_and_store_views_are_told_as_no_listings(tmp_path: Path) -> None:
    _, problems = read(write(tmp_path / "a.csv", "\n".join(SHOPS["Magento"].rows)))
    (told,) = problems.first("folded rows")
    assert told.message.endswith("parents of variants: 1, rows of other store views: 1") and told.severity == "warning"


def test_a_parent_that_can_be_bought_itself_stays_a_listing(tmp_path: Path) -> None:
    rows = f"sku,parent_sku,title,ean\nA,,Tee,{EANS[0]}\nA-2,A,Tee two,{EANS[1]}\n"
    products, _ = read(write(tmp_path / "a.csv", rows))
    assert [(p.id, p.group_id) for p in products] == [("A", "A"), ("A-2", "A")]


def test_a_parent_may_come_after_its_variants_and_be_missing(tmp_path: Path) -> None:
    rows = "sku,parent_sku,title,colour\nA-1,A,,red\nB-1,B,Cup,blue\nA,,Tee,\n"
    products, _ = read(write(tmp_path / "a.csv", rows))
    assert [(p.id, p.title, p.group_id) for p in products] == [("A-1", "Tee", "A"), ("B-1", "Cup", "B")]


def test_a_parent_without_variants_is_a_listing(tmp_path: Path) -> None:
    rows = "sku,parent_child,parent_sku,title\nA,Parent,,Tee\nB,Parent,,Cup\nB-1,Child,B,\n"
    products, _ = read(write(tmp_path / "a.csv", rows))
    assert [(p.id, p.title) for p in products] == [("A", "Tee"), ("B-1", "Cup")]
