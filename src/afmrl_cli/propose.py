"""Propose settings for a catalog that is not set up yet: from its names and from what its cells hold.

Columns are found as every command finds them (columns.py); the schema of the catalog's own attributes is found from all
of its rows (attributes/values.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .attributes.values import ProposedKey, SchemaValues
from .catalog.columns import ROLES, ColumnMap, map_columns
from .catalog.content import Sample
from .catalog.detect import peeked, read_table
from .catalog.languages import LanguageSample
from .catalog.markup import plain_text
from .catalog.problems import Problem, clipped
from .catalog.table import Row, one_text
from .errors import DataError, UsageError
from .settings import CatalogSettings
from .store.folder import CATALOG_NAMES, CatalogFolder, candidates
from .store.source import opened

MAX_PAIRS = 12
"""As `attributes.max_pairs`, unless set."""


@dataclass
class Proposal:
    """What was found out about a folder: its catalog, and the settings that it needs."""

    file: Path
    others: list[str]
    layout: str = ""
    encoding: str = ""
    rows: int = 0
    names: tuple[str, ...] = ()
    columns: dict[str, list[str]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    keys: dict[str, ProposedKey] = field(default_factory=dict)
    languages: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def propose(folder: CatalogFolder | None, root: Path, settings: CatalogSettings) -> Proposal:
    """Make the proposal for the catalog of `folder`, or for the most promising file in `root`.

    Raises DataError when there is no file that can be read as a catalog.
    """
    files = [folder.catalog] if folder else candidates(root)
    readable: list[Proposal] = []
    failed: DataError | None = None
    for file in files:
        try:
            readable.append(_look_at(file, settings))
        except (DataError, UsageError) as error:
            failed = failed or DataError(str(error), error.hint)
    if not readable:
        assert failed is not None
        raise failed
    best = max(readable, key=lambda found: (_promise(found), found.rows, found.file.stat().st_size))
    best.others = [path.name for path in files if path != best.file]
    return best


def _promise(found: Proposal) -> tuple[bool, int]:
    named = found.file.name.split(".")[0].lower() in CATALOG_NAMES
    return named, sum(bool(found.columns.get(role)) for role in ("id", "title", "image", "description"))


def _look_at(file: Path, settings: CatalogSettings) -> Proposal:
    problems: list[Problem] = []
    with opened(file) as source:
        table = read_table(source, file, settings, problems.append)
        rows, table = peeked(table)
        sample = Sample.of(len(table.names), rows)
        columns = map_columns(table.names, settings.columns, file, sample, own_attributes=table.own_attributes)
        schema = SchemaValues(columns)
        for row in table.rows:
            schema.add(row)
    found = Proposal(file, [], table.layout, rows=schema.rows, names=table.names)
    found.encoding = next((p.message for p in problems if p.kind == "guessed encoding"), "")
    found.keys = schema.keys()
    for role in ROLES:
        found.columns[role] = columns.read_as(role)
        found.summaries[role] = _summary(role, rows, columns)
    languages = LanguageSample()
    for row in rows:
        texts = (row.cells[i] for role in ("title", "description") for i in columns.roles.get(role, ()))
        languages.add(" ".join(filter(None, map(plain_text, map(one_text, texts)))))
    found.languages = languages.languages()
    return found


def _summary(role: str, rows: Sequence[Row], columns: ColumnMap) -> str:
    """Summarise a column: `filled in 98 %, such as "Linen blouse"`."""
    if not rows or role not in columns.roles:
        return ""
    texts = [" ".join(filter(None, (one_text(row.cells[i]) for i in columns.roles[role]))) for row in rows]
    filled = [text for text in texts if text]
    if not filled:
        return "empty"
    return f"filled in {len(filled) / len(rows):.0%}, such as {clipped(plain_text(filled[0]), 40)!r}"


def settings_text(found: Proposal) -> str:
    """Write the proposal as a commented `afmrl.toml`."""
    lines = [
        "# Settings of this catalog for afmrl, proposed by `afmrl init`. All keys and their defaults: afmrl config",
        "",
        "[catalog]",
        f"path = {_toml(found.file.name)}"
        + (f"  # beside {clipped(', '.join(found.others), 60)}" if found.others else ""),
        f"# format = {_toml(found.layout)}  # found from the columns" if found.layout else "",
    ]
    if found.encoding:
        name = found.encoding.split("read as ")[1].split(",")[0]
        lines.append(f"encoding = {_toml(name)}  # a guess: it says {found.encoding.split('says ')[1]}")
    lines += ["", "[catalog.columns]"]
    for role in ROLES:
        names = found.columns.get(role)
        if names and found.summaries[role] == "empty":
            lines.append(f"# {role} = {_toml(names)}  # empty")
        elif names:
            lines.append(f"{role} = {_toml(names)}" + (f"  # {found.summaries[role]}" if found.summaries[role] else ""))
        else:
            lines.append(f"# {role} = []  # none found")
    used = {name for names in found.columns.values() for name in names}
    if rest := [name for name in found.names if name and name not in used]:
        lines.append(f"# filters and labels, never shown to a model: {clipped(', '.join(rest), 160)}")
    lines += [
        "",
        "[model]",
        '# preset = "auto"  # what this machine can run: `afmrl doctor` says it',
    ]
    lines += ["", "[attributes]", *_language(found.languages)]
    if len(found.keys) > MAX_PAIRS:
        lines.append(f"# max_pairs = {len(found.keys)}")
    if found.keys:
        lines += ["", "# The catalog's own attributes. Uncommented, they are the schema that the generator answers by:"]
    for key, proposed in found.keys.items():
        name = key.lower() if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key.lower())
        lines.append(f"# [attributes.keys.{name}]")
        lines += [f"# values = {_toml(proposed.values)}"] if proposed.values else []
        lines += ["# multiple = true"] if proposed.multiple else []
    text = "\n".join(line for i, line in enumerate(lines) if line or lines[i - 1])
    return "".join(char for char in text if char == "\n" or char.isprintable()) + "\n"


def _language(languages: dict[str, float]) -> list[str]:
    if not languages:
        return ['# language = ""  # of keys and values, such as "Swedish"; the texts do not tell theirs']
    main = next(iter(languages))
    shares = ", ".join(f"{name} {share:.0%}" for name, share in list(languages.items())[:4])
    return [f"# language = {_toml(main)}  # of keys and values; the texts are {shares}"]


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
