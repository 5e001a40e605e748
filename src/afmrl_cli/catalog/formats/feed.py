"""Product feeds in XML: RSS 2.0 and 1.0 (<item>), Atom (<entry>), lists of <product>, <offer>, <SHOPITEM> and whatever
else is repeated. Rows are items, from 1.

An element's name without its namespace is the column, and so is an attribute's of the item; `g:title` wins over RSS's
own `title`. Elements that stand several times are lists; what is nested is taken apart as of JSON (records.py), so that
`g:product_detail` and `<param name="Color">` become attributes. Document types, which nothing but entity bombs and
external entities needs, are refused. A feed that is not well-formed is read on as far as libxml2 can recover.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..markup import TAGS
from ..problems import Problem, clipped
from ..table import Report, Table, row_limit
from .records import records_table

ITEMS = ("item", "entry", "product", "offer", "shopitem", "article", "artikel", "produkt", "produit", "row", "record")
HEAD_BYTES = 1 << 16
GOOGLE = "{http://base.google.com/ns/1.0}"
READ_CHUNK = 1 << 16
DOCTYPE = re.compile(rb"\s*(?>(?><\?.*?\?>|<!--.*?-->)\s*)*+<!DOCTYPE", re.DOTALL | re.IGNORECASE)
ATOM = {"summary": "description", "content": "description"}
MOST_ERRORS = 1000
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
HTML = re.compile(TAGS)
MOST_NESTED = 6
NO_HTML = {"title", "link", "main", "header", "code", "section", "article", "style", "a", "i", "video"}
"""Elements of HTML that feeds have for something else."""


def feed_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `source`, XML in UTF-8 (whatever it declares)."""
    items = _items(source, file, row_limit(settings), report)
    table = records_table(_records(items, report), settings, report)
    if not table.names:
        raise DataError(f"{file}: no <item>, <entry> or <product> in this XML file", "export a product feed or CSV")
    return table


def _item_tag(head: bytes) -> str:
    """Return the element that stands for a product: a known one, else the outermost that is repeated and holds
    something.
    """
    from lxml import etree

    parser = etree.XMLPullParser(
        ("start", "end"), encoding="utf-8", recover=True, resolve_entities=False, no_network=True
    )
    with suppress(etree.XMLSyntaxError):
        parser.feed(head)
    depth, seen, found = 0, Counter[tuple[int, str]](), dict[str, int]()
    for event, element in parser.read_events():
        depth += 1 if event == "start" else -1
        tag = _tag(element)
        if event == "start" and tag:
            seen[depth, tag] += 1
            if _local(element) in ITEMS:
                found.setdefault(tag, depth)
        elif event == "end" and not len(element) and not element.attrib:
            seen[depth + 1, tag] = -(1 << 30)  # a mere text
    if found:
        return min(found, key=lambda tag: (found[tag], ITEMS.index(tag.rsplit("}", 1)[-1].lower())))
    return next((tag for (_, tag), count in sorted(seen.items()) if count > 1), "")


def _tag(element: Any) -> str:
    """Return an element's name with its namespace; "" of comments, and of names that are not UTF-8 (see _records)."""
    try:
        return element.tag if isinstance(element.tag, str) else ""
    except UnicodeDecodeError:
        return ""


def _items(source: BinaryIO, file: Path, limit: int, report: Report) -> Iterator[tuple[int, Any]]:
    """Yield (number, element) of each product; what has been yielded is forgotten afterwards."""
    from lxml import etree

    options: Any = {"recover": True, "resolve_entities": False, "no_network": True, "load_dtd": False}
    chunk = source.read(HEAD_BYTES)
    tag = _item_tag(chunk) if not DOCTYPE.match(chunk) else ""
    parser = etree.XMLPullParser(("end",), tag=tag or "item", encoding="utf-8", **options)
    row, open_bytes, reported = 0, 0, 0
    while True:
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
        if reported < MOST_ERRORS:
            reported = _report_errors(list(parser.feed_error_log)[:MOST_ERRORS], reported, row, report)
        if open_bytes > limit:
            raise DataError(f"{file}: after item {row}: {limit:,} bytes without the end of a product", "is it a feed?")
        if not chunk:
            return
        chunk = source.read(READ_CHUNK)


def _report_errors(errors: Sequence[Any], reported: int, row: int, report: Report) -> int:
    for entry in errors[reported:]:
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
    record: dict[str, Any] = {key.rsplit("}", 1)[-1]: text for key, text in item.attrib.items() if key != LANG}
    own: set[str] = set()  # names that have stood as g:name
    for child in item:
        name = ATOM.get(_local(child), _local(child))
        google = name and child.tag.startswith(GOOGLE)
        if not name or (name in own and not google):
            continue
        if google and name not in own:
            own.add(name)
            record.pop(name, None)
        _put(record, name, _value(child, name, 0))
    return {name: _in_one_language(value) for name, value in record.items()}


def _put(record: dict[str, Any], name: str, value: Any) -> None:
    """Add `value` to `record`; what stands several times is a list."""
    if value in ("", {}):
        return
    if name not in record:
        record[name] = value
    elif isinstance(record[name], list):
        record[name].append(value)
    else:
        record[name] = [record[name], value]


def _value(element: Any, name: str, depth: int) -> Any:
    """Return what an element holds: a text, or an object of its attributes, elements and text."""
    children = [child for child in element if isinstance(child.tag, str)]
    attributes = {key.rsplit("}", 1)[-1]: text for key, text in element.attrib.items() if text.strip()}
    if (
        not children
        or depth >= MOST_NESTED
        or any(HTML.fullmatch(_local(child)) and _local(child) not in NO_HTML for child in children)
    ):
        text = "".join(part for part in element.itertext() if part).strip()
        if name == "link" and not text and element.get("href"):  # Atom
            return str(element.get("href"))
        return (
            {**attributes, ("value" if "lang" not in attributes else "#text"): text}
            if attributes and text
            else text or attributes
        )
    record: dict[str, Any] = dict(attributes)
    for child in children:
        _put(record, _local(child), _value(child, _local(child), depth + 1))
    return {key: _in_one_language(value) for key, value in record.items()}


def _in_one_language(value: Any) -> Any:
    """Turn texts in several languages into an object of language and text; return anything else as it is."""
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, dict) and part.keys() == {"lang", "#text"} for part in parts):
        return {part["lang"]: part["#text"] for part in parts}
    return value
