"""Names by which shops, marketplaces and feeds call the columns of a catalog, as `columns.plain` writes them.

English, German, French, Spanish, Portuguese, Italian, Dutch, Swedish, Danish, Norwegian, Finnish, Polish, Czech,
Slovak, Hungarian, Romanian, Turkish, Russian, Ukrainian, Greek, Arabic, Hebrew, Japanese, Chinese and Korean; the most
telling first.
"""

from __future__ import annotations

COMMON_NAMES = {
    "id": (
        "id sku item_id listing_id article_id variant_sku product_sku item_number article_number article_no "
        "item_no product_number product_code item_code asin artikelnummer artikel_nr artikelnr art_nr artnr "
        "produktnummer bestellnummer item_sku seller_sku contribution_sku custom_label_sku custom_label "
        "merchant_sku vendor_sku shop_sku supplier_sku offer_sku product_code_sku partner_sku sku_number sku_code "
        "stock_keeping_unit order_number ordernumber oxartnum supplier_aid supplier_pid product_reference "
        "artikelnummer_sku artikel_id handels_artikelnummer varenummer varenr tuotenumero tuotekoodi tuote_id "
        "reference ref referencia referenz reference_produit ugs codigo codice cod code sku_id offer_id variant_id "
        "codigo_producto codigo_produto codigo_do_produto codigo_articulo codice_prodotto codice_articolo "
        "productnummer artikelcode kod_produktu kod_towaru symbol indeks numer_katalogowy kod_produktu_sku "
        "kod_zbozi katalogove_cislo cislo_produktu cikkszam termekkod cod_produs urun_kodu stok_kodu urun_id "
        "barkod_kodu артикул код_товара код артикул_товара ид κωδικοσ κωδικοσ_προιοντοσ رمز_المنتج رمز_المنتج_sku "
        "מקט מק_ט 品番 商品コード 商品番号 商品管理番号 商品id 商品编码 商品编号 货号 商品代码 상품코드 상품번호 "
        "품번 sku管理番号 system連携用sku番号 internal_reference default_code external_id tedarikci_stok_kodu "
        "stok_kodu_sku handle_id"
    ),
    "title": (
        "title name product_name product_title item_name item_title product_display_name display_name prod_name "
        "titel article_name listing_title model_name short_name full_name "
        "title_long title_short name_long bezeichnung produktname artikelname "
        "artikelbezeichnung produktbezeichnung produkttitel produktnamn namn benamning artikelbenamning "
        "artikelnamn titre nom nom_produit nom_du_produit designation libelle titulo nombre nombre_producto "
        "nombre_del_producto nombre_articulo nome_produto nome_do_produto titulo_do_produto naam productnaam "
        "artikelnaam nome nome_prodotto titolo denominazione navn produktnavn varenavn nimi tuotenimi nazwa "
        "nazwa_produktu nazwa_towaru tytul nazev nazev_produktu nazev_zbozi nazov nazov_produktu productname "
        "termeknev nev megnevezes megnevezes_hu denumire nume nume_produs denumire_produs urun_adi ad urun_ismi "
        "baslik название наименование название_товара наименование_товара назва назва_товару ονομα τιτλοσ ονομασια "
        "اسم_المنتج أسم_المنتج الاسم שם שם_המוצר 商品名 商品名称 名前 品名 名称 产品名称 标题 商品标题 상품명 "
        "제품명 oxtitle description_short product_line"
    ),
    "description": (
        "description product_description item_description long_description full_description body_html body desc "
        "details detail_desc description_long short_description summary additional_text text_description "
        "html_description beschreibung produktbeschreibung artikelbeschreibung langtext langbeschreibung "
        "beschreibung_lang beskrivning produktbeskrivning description_produit description_longue descriptif "
        "descripcion descripcion_producto descripcion_larga descricao descricao_do_produto descricao_produto "
        "descrizione descrizione_prodotto descrizione_lunga beschrijving omschrijving productbeschrijving "
        "beskrivelse produktbeskrivelse kuvaus tuotekuvaus opis opis_produktu opis_towaru dlugi_opis popis "
        "popis_produktu dlouhy_popis leiras termekleiras hosszu_leiras descriere descriere_produs aciklama "
        "urun_aciklamasi описание описание_товара опис опис_товару περιγραφη الوصف وصف_المنتج وصف תיאור תאור_מוצר "
        "説明 商品説明 説明文 商品説明文 描述 商品描述 产品描述 详情 설명 상품설명 상세설명 oxlongdesc "
        "product_copy romance_copy marketing_copy copy kurzbeschreibung description_courte korte_beschrijving "
        "descripcion_corta breve_descrizione krotki_opis "
        "oxshortdesc text"
    ),
    "category": (
        "category category_path product_category categories product_type google_product_category category_name "
        "category_names supercategories category_full_path categorytext "
        "fb_product_category category_text category_tree breadcrumb breadcrumbs taxonomy categ_id node_name "
        "categorie_produit product_type_name product_group_name kategorie kategorien produktkategorie warengruppe "
        "kategori kategorier produktkategori varugrupp categorie categories_de_produit rayon categoria categorias "
        "categorias_de_produto categorieen kategoria kategorie_produktu kategoria_produktu kategorija kategoriak "
        "categorie_produs kategori_adi kategoriler категория категории категорія κατηγορια κατηγοριεσ تصنيف_المنتج "
        "التصنيف קטגוריה カテゴリ カテゴリー 类目 分类 商品分类 类别 카테고리 tuoteryhma kategoria_nimi collection "
        "collections department article_type product_group feed_product_type item_type_keyword classification type"
    ),
    "brand": (
        "brand brand_name brands brand_label manufacturer manufacturer_name vendor vendor_name maker marke "
        "hersteller herstellername markenname varumarke tillverkare marque marques fabricant marca marcas "
        "fabricante marken merk merken fabrikant marchio marchi produttore maerke brandnavn merke valmistaja "
        "merkki tuotemerkki producent marka znacka vyrobce vyrobca gyarto marka_adi uretici producator бренд "
        "производитель марка торговая_марка виробник μαρκα κατασκευαστησ الماركة العلامة_التجارية ماركة מותג יצרן "
        "ブランド ブランド名 メーカー 品牌 品牌名称 브랜드 제조사 shop_brand designer label_name oxmanufacturer"
    ),
    "image": (
        "image images image_path image_paths image_file image_files image_filename main_image photo photos "
        "photo_path picture pictures img bild bilder bildpfad bilddatei bildfil foto fotos imagen imagenes imagem "
        "imagens image_principale afbeelding afbeeldingen immagine immagini billede billeder bilde kuva kuvat "
        "zdjecie zdjecia obraz obrazek obrazky obrazok fotka kep kepek imagine imagini poza resim resimler gorsel "
        "gorseller изображение изображения фото картинка зображення εικονα εικονεσ صورة_المنتج صورة صور תמונה "
        "תמונות 画像 商品画像 图片 商品图片 主图 이미지 상품이미지 대표이미지 base_image main_picture "
        "primary_image default_image featured_image cover_image main_photo primary_photo product_image "
        "product_images product_photo product_picture hauptbild produktbild produktbilder artikelbild "
        "artikelbilder zdjecie_glowne hlavni_obrazek main_product_image_locator image_link image_url image_urls "
        "image_src image_links images_urls photo_url photo_urls picture_url picture_urls pic_url pic_urls img_url "
        "img_urls img_src imgurl imgurls product_image_url main_image_url item_photo_url hosted_image_urls "
        "bild_url bildurl bilder_urls bild_urls foto_url url_image url_imagen url_imagem url_zdjecia zdjecia_url "
        "thumbnail_url media_urls image_name image_names cover_media_url "
        "cover_media media_gallery media mime_source cover_url cover"
    ),
    "product_id": (
        "product_id productid gtin gtin13 gtin_13 gtin14 gtin_14 ean ean13 ean_13 ean_code ean_gtin gtin_ean eans "
        "gtins upcs upc "
        "upc_ean ean_upc upc_code upc_number barcode barcodes variant_barcode isbn isbn13 isbn_13 jan jan_code "
        "gtin_upc_ean_or_isbn gtin_upc_ean_oder_isbn gtin_upc_ean_ou_isbn gtin_upc_ean_o_isbn gtin_upc_ean_of_isbn "
        "product_upc_ean global_trade_item_number global_unique_id external_product_id "
        "externally_assigned_product_identifier kod_ean kod_kreskowy ean_kod vonalkod barkod cod_bare "
        "codigo_de_barras codigo_barras codice_a_barre code_barre code_barres code_ean ean_nummer strekkode "
        "stregkode streckkod strichcode viivakoodi штрихкод штрих_код バーコード janコード 条码 条形码 바코드 "
        "oxean international_pid"
    ),
    "group_id": (
        "group_id item_group_id style_id style_number style_no parent_sku parent_id parent_product_id parent "
        "handle url_handle variant_group master_id itemgroup_id item_group parent_asin parent_product_sku "
        "parent_identifier parent_code parent_item_sku parent_reference master_sku master_product_id "
        "configurable_sku style_code model_code product_group_id product_group_sku variant_group_code "
        "variant_group_id variation_group variation_group_id group_sku color_group vaterartikel "
        "variant_of is_child_of_product_code child_of parent_sku_id model_kodu vater_artikelnummer mainnumber "
        "main_number oxparentid base_product baseproduct"
    ),
}  # fmt: skip


def words_of(text: str) -> frozenset[str]:
    """Return the words of `text` as a set."""
    return frozenset(text.split())


COMMON = {role: tuple(names.split()) for role, names in COMMON_NAMES.items()}
ALSO_ID = (*COMMON["product_id"], "handle")
"""When nothing else numbers the listings, a column of this name does; it is then no identity (and no group)."""
ALSO_GROUP = (
    *("product_code", "style", "model_number", "style_name", "product_reference", "product_number", "internal_id"),
    *("product_id", "productid", "product_internal_id", "spu", "spu_id", "item_id", "model", "model_id", "design"),
)
"""Joins variants when another column numbers the listings and the values of this one come again."""
VARIANT_WORDS = words_of("variant variants variante variantes variation variations varianti variacion option options")
"""Words in the names of columns that say that a product has several rows."""
DESCRIPTION_WORDS = words_of(
    "description descriptions beschreibung beskrivning descriptif descripcion descricao descrizione beschrijving "
    "omschrijving beskrivelse kuvaus opis popis leiras descriere aciklama aciklamasi описание περιγραφη"
)
EXPLAINED = ("説明", "描述", "설명", "詳細")
"""The same in languages that write without blanks."""
CATEGORY_LEVELS = (
    ("master_category", "sub_category", "article_type"),
    ("main_category", "sub_category"),
    ("category", "subcategory", "sub_subcategory"),
    ("category", "sub_category", "sub_sub_category"),
    ("kategorie", "unterkategorie"),
    ("categoria", "subcategoria"),
    ("categorie", "sous_categorie"),
)
"""Columns that are the steps of one path."""
