"""WooCommerce translates the column names of its export; here are the English ones for German, French, Spanish, Dutch
and Italian, as its language packs have them (several where they changed)."""

from __future__ import annotations

import re

from ..name_forms import plain

TRANSLATED = {
    "type": "typ tipo",
    "sku": "artikelnummer ugs cod",
    "name": "nom nombre naam nome",
    "is_featured": "ist_hervorgehoben hervorgehoben mis_en_avant esta_destacado destacado uitgelicht in_primo_piano",
    "visibility_in_catalog": "sichtbarkeit_im_katalog katalogsichtbarkeit visibilite_dans_le_catalogue "
    "visibilidad_en_el_catalogo zichtbaarheid_in_catalogus visibilita_nel_catalogo",
    "short_description": "kurzbeschreibung description_courte descripcion_corta korte_beschrijving korte_omschrijving "
    "breve_descrizione",
    "description": "beschreibung descripcion beschrijving descrizione",
    "in_stock": "vorratig auf_lager en_stock en_inventario existencias op_voorraad",
    "regular_price": "regularer_preis normaler_preis tarif_regulier prix_regulier precio_normal precio_regular "
    "reguliere_prijs prezzo_di_listino",
    "categories": "kategorien categorias categorieen categorie",
    "tags": "schlagworter etiquettes etiquetas tag",
    "images": "bilder imagenes afbeeldingen immagini",
    "parent": "ubergeordnetes_produkt ubergeordnet superior hoofd genitore",
    "brands": "marken marques marcas merken marchi",
}
ENGLISH = {word: name for name, words in TRANSLATED.items() for word in words.split()}
NUMBERED = re.compile(r"(?=.*(?:attribute?|atributo|attributo|eigenschap)(?:_|$))\D*?_?(\d+)(?:_.*)?")
KEYS = ("_name", "nom_de", "nombre_del", "naam_", "_nome", "nome_dell")
VALUES = ("_value_s", "_wert_e", "valeur_s_de", "valor_es_del", "waarde", "_valuta_e", "_valore_i", "_valori", "valore")


def english(name: str) -> str:
    """Return a column's English name, as `plain` writes it: `Nom de l'attribut 1` is attribute_1_name; unknown ones
    stay.
    """
    written = plain(name)
    if found := NUMBERED.fullmatch(written):
        if any(part in written for part in VALUES):
            return f"attribute_{found[1]}_value_s"
        return f"attribute_{found[1]}_{'name' if any(part in written for part in KEYS) else written}"
    return ENGLISH.get(written, written)
