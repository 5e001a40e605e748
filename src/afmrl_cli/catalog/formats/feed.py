"""Product feeds in XML: RSS 2.0 and 1.0 (<item>), Atom (<entry>), and lists of <product>. Rows are items, from 1.

An element's name without its namespace is the column; `g:title` wins over RSS's own `title`. Elements that stand
several times are lists. `g:product_detail` becomes an attribute of its own name. Document types, which nothing but
entity bombs and external entities needs, are refused. A feed that is not well-formed is read on as far as libxml2
can recover.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..problems import Problem, clipped
from ..table import Report, Row, Table, row_limit
from .jsonl import records_table

ITEMS = ("{*}item", "{*}entry", "{*}product")
GOOGLE = "{http://base.google.com/ns/1.0}"
READ_CHUNK = 1 << 16
DOCTYPE = re.compile(rb"\s*(?>(?><\?.*?\?>|<!--.*?-->)\s*)*+<!DOCTYPE", re.DOTALL | re.IGNORECASE)
ATOM = {"summary": "description", "content": "description"}
MOST_ERRORS = 1000
DETAILS = "product_detail"


def feed_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """The table in `source`, XML in UTF-8 (whatever it declares)."""
    items = _items(source, file, row_limit(settings), report)
    table = records_table(_records(items, report), settings, report)
    if not table.names:
        raise DataError(f"{file}: no <item>, <entry> or <product> in this XML file", "export a product feed or CSV")
    if DETAILS not in table.names:
        return table
    at = table.names.index(DETAILS)
    names = (*table.names[:at], *table.names[at + 1 :])
    rows = (Row(row, [*cells[:at], *cells[at + 1 :]], _details(cells[at])) for row, cells, _ in table.rows)
    return Table(names, rows)


def _items(source: BinaryIO, file: Path, limit: int, report: Report) -> Iterator[tuple[int, Any]]:
    """(number, element) of each product; what has been yielded is forgotten afterwards."""
    from lxml import etree

    options: Any = {"recover": True, "resolve_entities": False, "no_network": True, "load_dtd": False}
    parser = etree.XMLPullParser(("end",), tag=ITEMS, encoding="utf-8", **options)
    row, open_bytes, told = 0, 0, 0
    while True:
        chunk = source.read(READ_CHUNK)
        if not row and DOCTYPE.match(chunk):
            raise DataError(f"{file}: an XML document type, which no feed needs", "remove <!DOCTYPE ...>")
        try:
            if chunk:
                parser.feed(chunk)
            else:
                parser.close()
        except etree.XMLSyntaxError as error:
            if not row:
                raise DataError(f"{file}: not XML: {clipped(str(error), 100)}", "export the feed again") from error
            report(Problem("broken xml", row, f"the feed ends here: {clipped(str(error), 100)}"))
            return
        open_bytes += len(chunk)
        for _, element in parser.read_events():
            row, open_bytes = row + 1, 0
            yield row, element
            _forget(element)
        if told < MOST_ERRORS:
            told = _tell(list(parser.feed_error_log)[:MOST_ERRORS], told, row, report)
        if open_bytes > limit:
            raise DataError(f"{file}: after item {row}: {limit:,} bytes without the end of a product", "is it a feed?")
        if not chunk:
            return


def _tell(errors: Sequence[Any], told: int, row: int, report: Report) -> int:
    for entry in errors[told:]:
        report(Problem("broken xml", row, f"line {entry.line}: {clipped(entry.message, 100)}"))
    return len(errors)


def _forget(element: Any) -> None:
    element.clear()
    while (before := element.getprevious()) is not None:
        element.getparent().remove(before)


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""


def _records(items: Iterator[tuple[int, Any]], report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, item in items:
        try:
            record = _record(item)
        except UnicodeDecodeError:  # libxml2 lets halves of surrogate pairs through, and Python has no text for them
            report(Problem("broken xml", row, "a name or text that is not UTF-8; the product is skipped"))
        else:
            yield row, record


def _record(item: Any) -> dict[str, Any]:
    record: dict[str, list[str]] = {}
    own: set[str] = set()  # names that have stood as g:name
    for child in item:
        name = ATOM.get(_local(child), _local(child))
        google = name and child.tag.startswith(GOOGLE)
        if not name or (name in own and not google):
            continue
        if google and name not in own:
            own.add(name)
            record.pop(name, None)
        if text := _text(child, name):
            record.setdefault(name, []).append(text)
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in record.items()}


def _text(element: Any, name: str) -> str:
    if len(element) and name == DETAILS:
        parts = {_local(part): "".join(part.itertext()).strip() for part in element}
        return f"{parts.get('attribute_name', '')}:{parts.get('attribute_value', '')}"
    if name == "link" and not element.text and element.get("href"):  # Atom
        return str(element.get("href"))
    return (
        "".join(part for part in element.itertext() if part).strip() if len(element) else (element.text or "").strip()
    )


def _details(cell: str | tuple[str, ...]) -> dict[str, str]:
    parts = (part.partition(":") for part in ([cell] if isinstance(cell, str) else cell))
    return {name.strip(): value.strip() for name, _, value in parts if name.strip() and value.strip()}
