"""The settings as data: their dotted keys, their fields, and the page of all of them.

    python -m afmrl_cli.reference docs/settings.md

writes the tables below the page's heading "All settings" anew from the descriptions in `settings.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from .section import Section
from .settings import SchemaKey, Settings

HEADING = "## All settings\n"
KINDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
    list: "list",
    dict: "tables",
}


def known_keys() -> list[str]:
    """Return the dotted keys of all settings."""
    return [key for _, table in tables() for key, _ in table]


def field_of(key: str) -> FieldInfo:
    """Return the field of a dotted key such as `embed.batch_size`. Raises KeyError where there is none."""
    return {key: field for _, table in tables() for key, field in table}[key]


def tables() -> Iterator[tuple[type[Section], list[tuple[str, FieldInfo]]]]:
    """Yield each table of settings with its (dotted key, field), in the order of `afmrl config`."""
    yield from _tables_of(Settings, "")


def _tables_of(section: type[Section], prefix: str) -> Iterator[tuple[type[Section], list[tuple[str, FieldInfo]]]]:
    inner: list[tuple[str, type[Section]]] = []
    own: list[tuple[str, FieldInfo]] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            inner.append((f"{prefix}{name}.", kind))
        else:
            own.append((prefix + name, field))
    if own:
        yield section, own
    for below, kind in inner:
        yield from _tables_of(kind, below)


def page() -> str:
    """Return the reference in Markdown: a table for each section."""
    return "\n".join([HEADING, *_lines()])


def _lines() -> Iterator[str]:
    yield (
        f"{len(known_keys())} keys, as `python -m afmrl_cli.reference docs/settings.md` writes them from `settings.py`."
    )
    for section, table in tables():
        name = table[0][0].rpartition(".")[0]
        yield from _table(f"[{name}]", section, table)
        variable = f"AFMRL_{name}_".upper().replace(".", "_")
        yield f"\nVariables: `{variable}` and the key in capitals, such as `{variable}{_last(table[-1][0]).upper()}`."
        if name == "attributes":
            yield from _table("[attributes.keys.NAME]", SchemaKey, list(SchemaKey.model_fields.items()))


def _table(heading: str, section: type[Section], table: list[tuple[str, FieldInfo]]) -> Iterator[str]:
    yield f"\n### `{heading}`\n\n{(section.__doc__ or '').strip()}\n"
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    for key, field in table:
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{_last(key)}` | {_kind(field.annotation)} | {_default(field.default)} | {meaning} |"


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(annotation) if each != "")
    if get_origin(annotation) is None or get_origin(annotation) in KINDS:
        return KINDS[get_origin(annotation) or annotation]
    return _kind(next(part for part in get_args(annotation) if part is not type(None)))


def _default(value: object) -> str:
    return "" if value is None or value in ("", [], {}) else f"`{json.dumps(value)}`"


def rewritten(text: str) -> str:
    """Return the page `text` with its reference made anew."""
    return text.partition(HEADING)[0] + page() + "\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(rewritten(file.read_text("utf-8")), "utf-8")
