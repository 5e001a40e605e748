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
    "Etsy, where a SKU is no must": Shop(
        "a.csv",
        (
            "TITLE,DESCRIPTION,PRICE,IMAGE1,VARIATION 1 TYPE,VARIATION 1 NAME,VARIATION 1 VALUES,SKU",
            'Clay mug,A mug,20,https://i.test/1.jpg,Custom,Size,"S,M",',
            "Clay mug,A green mug,21,https://i.test/2.jpg,,,,",
            "Oak spoon,A spoon,9,https://i.test/3.jpg,,,,SP-1",
            "Ring,A ring,9,https://i.test/4.jpg,,,,",
        ),
        {
            "clay-mug": ("Clay mug", "", "1.jpg", {"Size": "S|M"}),
            "clay-mug-2": ("Clay mug", "", "2.jpg", {}),
            "SP-1": ("Oak spoon", "", "3.jpg", {}),
            "ring": ("Ring", "", "4.jpg", {}),
        },
    ),
    "Lightspeed, by country": Shop(
        "a.csv",
        (
            "Internal_ID,Internal_Variant_ID,Brand,US_Title_Short,US_Title_Long,US_Description_Long,US_Variant,SKU,EAN,"
            "Images,US_Category_1",
            f'101,1,Lumo,Shirt,Linen shirt,A shirt of linen,"Colour: White, Size: S",LS-S,{EANS[0]},'
            "https://i.test/1.jpg;https://i.test/2.jpg,Shirts",
            f'101,2,Lumo,Shirt,Linen shirt,A shirt of linen,"Colour: White, Size: M",LS-M,{EANS[1]},'
            "https://i.test/1.jpg;https://i.test/2.jpg,Shirts",
            "102,3,Lumo,Mug,Tin mug,A mug,Default,MUG,,https://i.test/3.jpg,Mugs",
        ),
        {
            "LS-S": ("Linen shirt", "101", "1.jpg 2.jpg", {"Colour": "White", "Size": "S"}),
            "LS-M": ("Linen shirt", "101", "1.jpg 2.jpg", {"Colour": "White", "Size": "M"}),
            "MUG": ("Tin mug", "102", "3.jpg", {}),
        },
        {"description": "A shirt of linen", "category": "Shirts", "product_id": EANS[0]},
    ),
    "Ecwid, with rows of options": Shop(
        "a.csv",
        (
            "type,product_internal_id,product_sku,product_name,product_media_main_image_url,product_option_name,"
            "product_option_value,product_variation_sku,product_variation_option_{Size},product_attribute_Material",
            "product,1,EC,Apple cake,https://i.test/1.jpg,,,,,Apple",
            "product_option,1,,,,Size,S,,,",
            "product_option,1,,,,Size,L,,,",
            "product_variation,1,,,,,,EC-S,S,",
            "product_variation,1,,,,,,EC-L,L,",
        ),
        {
            "EC-S": ("Apple cake", "EC", "1.jpg", {"Size": "S", "Material": "Apple"}),
            "EC-L": ("Apple cake", "EC", "1.jpg", {"Size": "L", "Material": "Apple"}),
        },
    ),
    "Wix of now": Shop(
        "a.csv",
        (
            "handle,fieldType,name,plainDescription,media,sku,productOptionName[1],productOptionType[1],"
            "productOptionChoices[1]",
            "p1,PRODUCT,Linen shirt,A shirt of linen,https://i.test/1.jpg;https://i.test/2.jpg,,Size,TEXT,S;M",
            "p1,VARIANT,,,,LS-S,,,S",
            "p1,VARIANT,,,,LS-M,,,M",
            "p2,PRODUCT,Mug,A mug of clay,https://i.test/m.jpg,MUG,,,",
        ),
        {
            "LS-S": ("Linen shirt", "p1", "1.jpg 2.jpg", {"Size": "S"}),
            "LS-M": ("Linen shirt", "p1", "1.jpg 2.jpg", {"Size": "M"}),
            "MUG": ("Mug", "", "m.jpg", {}),
        },
        {"description": "A shirt of linen"},
    ),
    "Shopify, with metafields": Shop(
        "a.csv",
        (
            "Handle,Title,Vendor,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,Image Src,"
            "Color (product.metafields.shopify.color-pattern),Fabric (product.metafields.shopify.fabric)",
            "tee,Tee,Lumo,Color,White,Size,S,T-S,https://i.test/1.jpg,white,linen; cotton",
            "tee,,,,White,,M,T-M,,,",
        ),
        {
            "T-S": ("Tee", "tee", "1.jpg", {"Color": "White", "Size": "S", "Fabric": "linen|cotton"}),
            "T-M": ("Tee", "tee", "1.jpg", {"Color": "White", "Size": "M", "Fabric": "linen|cotton"}),
        },
    ),
    "Square, joined by titles": Shop(
        "a.csv",
        (
            "Token,Item Name,Variation Name,SKU,Description,Categories,Option Name 1,Option Value 1,Price",
            "T1,Linen shirt,White,S-W,A shirt,Shirts,Colour,White,29",
            "T2,Linen shirt,Blue,S-B,A shirt,Shirts,Colour,Blue,29",
            "T3,Tin mug,Regular,S-M,A mug,Mugs,,,9",
        ),
        {
            "S-W": ("Linen shirt", "S-W", "", {"Colour": "White"}),
            "S-B": ("Linen shirt", "S-W", "", {"Colour": "Blue"}),
            "S-M": ("Tin mug", "", "", {}),
        },
    ),
    "Salsify": Shop(
        "a.csv",
        (
            "salsify:id,salsify:parent_id,Product Name,Long Description,Main Image,Alternate Image 1,GTIN,Color",
            "P,,Linen shirt,A shirt of linen,https://i.test/p.jpg,,,",
            f"P-1,P,Linen shirt white,,https://i.test/1.jpg,https://i.test/2.jpg,{EANS[0]},White",
            f"P-2,P,Linen shirt blue,,,,{EANS[1]},Blue",
        ),
        {
            "P-1": ("Linen shirt white", "P", "1.jpg 2.jpg", {"Color": "White"}),
            "P-2": ("Linen shirt blue", "P", "p.jpg", {"Color": "Blue"}),
        },
        {"description": "A shirt of linen", "product_id": EANS[0]},
    ),
    "Pimcore": Shop(
        "a.csv",
        (
            '"id";"type";"key";"name#en";"name#de";"description#en";"image";"gallery";"ean"',
            '"101";"object";"shirt";"Linen shirt";"Leinenhemd";"A shirt";"https://i.test/1.jpg";'
            f'"https://i.test/2.jpg,https://i.test/3.jpg";"{EANS[0]}"',
            '"102";"object";"mug";"Tin mug";"Becher";"A mug";"https://i.test/4.jpg";"";""',
        ),
        {
            "101": ("Linen shirt", "", "1.jpg 2.jpg 3.jpg", {"name#de": "Leinenhemd"}),
            "102": ("Tin mug", "", "4.jpg", {}),
        },
        {"description": "A shirt", "category": ""},
    ),
    "Volusion, names in one word": Shop(
        "a.csv",
        (
            "productcode,productname,ischildofproductcode,productdescription,photourl,productmanufacturer,productprice",
            "VO,Linen shirt,,A long text,https://i.test/photo/1.jpg,Lumo,29",
            "VO-1,Linen shirt white,VO,,,,29",
        ),
        {"VO-1": ("Linen shirt white", "VO", "1.jpg", {"productprice": "29"})},
        {"description": "A long text", "brand": "Lumo"},
    ),
    "Lazada": Shop(
        "a.csv",
        (
            "Product ID,catId,*Product Name(English),Product Images1,Product Images2,Brand,Main Description,SellerSKU,"
            "Variations Combo,Images1,Images2",
            "111,9,Linen shirt,https://i.test/1.jpg,https://i.test/2.jpg,Lumo,A shirt of linen,L-1,White,"
            "https://i.test/v1.jpg,",
            "111,9,Linen shirt,https://i.test/1.jpg,https://i.test/2.jpg,Lumo,A shirt of linen,L-2,Blue,"
            "https://i.test/v2.jpg,",
            "112,8,Tin mug,https://i.test/3.jpg,,Lumo,A mug,L-3,,,",
        ),
        {
            "L-1": ("Linen shirt", "111", "1.jpg 2.jpg v1.jpg", {}),
            "L-2": ("Linen shirt", "111", "1.jpg 2.jpg v2.jpg", {}),
            "L-3": ("Tin mug", "112", "3.jpg", {}),
        },
        {"description": "A shirt of linen"},
    ),
    "Facebook": Shop(
        "a.csv",
        (
            "# Required | The unique id,# Required | A name,,,,,,",
            "id,title,price,image_link,fb_product_category,google_product_category,image[0].url,image[1].url",
            "F1,Linen shirt,29,https://i.test/1.jpg,Clothing,212,https://i.test/2.jpg,https://i.test/3.jpg",
        ),
        {"F1": ("Linen shirt", "", "1.jpg 2.jpg 3.jpg", {"price": "29"})},
        {"category": "Clothing"},
    ),
    "Magento 1, in several lines": Shop(
        "a.csv",
        (
            "sku,_store,_type,_category,name,description,image,_media_image,_super_products_sku",
            "M-W,,simple,,Shirt white,,,https://i.test/w.jpg,",
            "M,,configurable,Men/Shirts,Shirt,A shirt,https://i.test/p.jpg,https://i.test/p.jpg,M-W",
            ",,,Men/Summer,,,,https://i.test/p2.jpg,M-B",
            ",de,,,Hemd,,,,",
            "M-B,,simple,,Shirt blue,,,,",
            "MUG,,simple,Home,Mug,A mug,https://i.test/1.jpg,https://i.test/1.jpg,",
            ",,,,,,,https://i.test/2.jpg,",
        ),
        {
            "M-W": ("Shirt white", "M", "w.jpg", {}),
            "M-B": ("Shirt blue", "M", "p.jpg p2.jpg", {}),
            "MUG": ("Mug", "", "1.jpg 2.jpg", {}),
        },
        {"description": "A shirt"},
    ),
    "commercetools": Shop(
        "a.csv",
        (
            "key,variants.sku,name.en,name.de,description.en,categories.key,variants.images.url,"
            "variants.attributes.color.label,variants.attributes.size",
            "shirt,CT-W,Linen shirt,Leinenhemd,A shirt,shirts,https://i.test/w.jpg,White,S",
            ",CT-B,,,,,https://i.test/b.jpg,Blue,S",
            "mug,CT-M,Tin mug,Becher,A mug,mugs,https://i.test/m.jpg,Grey,",
        ),
        {
            "CT-W": ("Linen shirt", "CT-W", "w.jpg", {"color": "White", "size": "S"}),
            "CT-B": ("Linen shirt", "CT-W", "b.jpg", {"color": "Blue", "size": "S"}),
            "CT-M": ("Tin mug", "", "m.jpg", {"color": "Grey"}),
        },
        {"category": "shirts", "description": "A shirt"},
    ),
    "Rakuten": Shop(
        "a.csv",
        (
            "商品管理番号（商品URL）,商品番号,商品名,商品画像パス1,商品画像パス2,PC用商品説明文,SKU管理番号",
            "shirt,LS,シャツ,https://i.test/1.jpg,https://i.test/2.jpg,リネンのシャツです,",
            "shirt,,,,,,LS-W",
            "shirt,,,,,,LS-B",
            "mug,MG,マグ,https://i.test/3.jpg,,陶器のマグカップです,",
        ),
        {
            "LS": ("シャツ", "LS", "1.jpg 2.jpg", {}),
            "LS-W": ("シャツ", "LS", "1.jpg 2.jpg", {}),
            "LS-B": ("シャツ", "LS", "1.jpg 2.jpg", {}),
            "MG": ("マグ", "", "3.jpg", {}),
        },
        {"description": "リネンのシャツです"},
    ),
    "a row per photo": Shop(
        "a.csv",
        (
            "sku,title,price,image,position",
            "A,Tee,9,https://i.test/1.jpg,1",
            "A,Tee,9,https://i.test/2.jpg,1",
            "B,Cup,5,https://i.test/3.jpg,1",
        ),
        {"A": ("Tee", "", "1.jpg 2.jpg", {"price": "9"}), "B": ("Cup", "", "3.jpg", {})},
    ),
    "no id but a GTIN, a style and colours": Shop(
        "a.csv",
        (
            "Style #,Color Code,Color Description,Style Description,UPC Number,Image File Name 1,Image File Name 2",
            f"1234,001,White,Linen Shirt,{EANS[0]},https://i.test/1.jpg,https://i.test/2.jpg",
            f"1234,002,Grey,Linen Shirt,{EANS[1]},https://i.test/3.jpg,",
            "1235,002,Grey,Tin Mug,4006381333955,https://i.test/4.jpg,",
        ),
        {
            EANS[0]: ("Linen Shirt", "1234", "1.jpg 2.jpg", {"Color Description": "White"}),
            EANS[1]: ("Linen Shirt", "1234", "3.jpg", {}),
            "4006381333955": ("Tin Mug", "1235", "4.jpg", {}),
        },
    ),
    "Turkish": Shop(
        "a.csv",
        (
            "Barkod;Model Kodu;Ürün Rengi;Marka;Kategori;Tedarikçi Stok Kodu;Ürün Adı;Görsel 1;Görsel 2",
            f"{EANS[0]};LS;Beyaz;Lumo;Gömlek;TY-1;Keten gömlek;https://i.test/1.jpg;https://i.test/2.jpg",
            f"{EANS[1]};LS;Mavi;Lumo;Gömlek;TY-2;Keten gömlek;https://i.test/3.jpg;",
        ),
        {
            "TY-1": ("Keten gömlek", "LS", "1.jpg 2.jpg", {"Ürün Rengi": "Beyaz"}),
            "TY-2": ("Keten gömlek", "LS", "3.jpg", {"Ürün Rengi": "Mavi"}),
        },
        {"product_id": EANS[0], "brand": "Lumo"},
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


def test_parents_and_store_views_are_reported_as_no_listings(tmp_path: Path) -> None:
    _, problems = read(write(tmp_path / "a.csv", "\n".join(SHOPS["Magento"].rows)))
    (problem,) = problems.first("folded rows")
    assert (
        problem.message.endswith("parents of variants: 1, rows of other store views: 1")
        and problem.severity == "warning"
    )


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
