"""What a workbook's cells have beside their values: links that lie on them, and formulas."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

HYPERLINKS = ("{*}hyperlink",)
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
REFERENCE = re.compile(r"([A-Z]{1,3})(\d+)")
HYPERLINK = re.compile(r"=\s*(?:HYPERLINK|IMAGE)\(\s*\"([^\"]*)\"", re.IGNORECASE)
FORMULA = re.compile(rb"<(?:\w+:)?f[ >/]")
SEARCHED_BYTES = 8 << 20


def cell_links(source: BinaryIO, sheet: str) -> dict[tuple[int, int], str]:
    """Map (row, column from 0) to the link on that cell. `sheet` is the path of the sheet's part in the workbook."""
    from lxml import etree

    with zipfile.ZipFile(source) as archive:
        folder, _, name = sheet.rpartition("/")
        relations = f"{folder}/_rels/{name}.rels"
        if relations not in archive.namelist():
            return {}
        with archive.open(relations) as file:
            targets = {part.get("Id"): part.get("Target") or "" for part in etree.parse(file, _parser()).getroot()}
        found: dict[tuple[int, int], str] = {}
        with archive.open(sheet) as file:
            options: Any = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
            for _, element in etree.iterparse(file, events=("end",), tag=(*HYPERLINKS, "{*}row"), **options):
                at = REFERENCE.match(element.get("ref") or "")
                target = targets.get(element.get(RELATION))
                if at and target and element.tag.endswith("hyperlink"):
                    found[int(at[2]), _column(at[1])] = target
                element.clear()
        return found


def has_formulas(source: BinaryIO, sheet: str) -> bool:
    """Tell whether there are formulas in the first part of a sheet."""
    with zipfile.ZipFile(source) as archive, archive.open(sheet) as file:
        return FORMULA.search(file.read(SEARCHED_BYTES)) is not None


def formula_rows(source: BinaryIO, title: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the sheet called `title` with formulas in place of their results."""
    from openpyxl import load_workbook

    sheet = load_workbook(source, read_only=True, data_only=False, keep_links=False)[title]
    sheet.reset_dimensions()
    yield from sheet.iter_rows(values_only=True)


def link_of(formula: object) -> str:
    """Return the address in =HYPERLINK("address", "text"); "" when `formula` is none."""
    found = HYPERLINK.match(formula) if isinstance(formula, str) else None
    return found[1] if found else ""


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _parser() -> Any:
    from lxml import etree

    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
