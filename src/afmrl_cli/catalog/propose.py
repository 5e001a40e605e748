"""Settings for a catalog that nobody has set up yet: proposed from its names and from what its cells hold.

Columns whose names say nothing are judged by their first rows: links or file names of photos, digits with a GTIN's
check digit, paths of categories, long and short texts, values that are all different.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ..errors import DataError, UsageError
from ..settings import CatalogSettings, Columns
from ..store.folder import CATALOG_NAMES, CatalogFolder, candidates
from .columns import ROLES, ColumnMap, map_columns
from .detect import read_table
from .images import image_cells
from .languages import LanguageSample
from .markup import plain_text
from .problems import Problem, clipped
from .table import Cell, Row, one_text

SAMPLE_ROWS = 2000
PHOTO = re.compile(r".+\.(jpe?g|png|webp|gif|bmp|tiff?|avif)([?#].*)?|https?://.*(image|img|photo|cdn|media).*", re.I)
PATH = re.compile(r"[^>/|]{2,40}\s*[>/|]\s*[^>/|]{2,40}.*")
MOST = 0.8
"""Share of a column's cells that must look alike."""
SCHEMA_KEYS, SCHEMA_VALUES = 8, 30
NO_ATTRIBUTE = re.compile(
    r"(price|cost|stock|qty|quantity|inventory|status|published|visib|url|link|date|tax|shipping|weight|position|gift|"
    r"seo|alt|tag|availab|condition|policy|tracker|fulfil|rating|review|sold|compare|sale|split|parent|mpn|lang|^type$)",
    re.IGNORECASE,
)  # fmt: skip


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
    told: dict[str, str] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    languages: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def propose(folder: CatalogFolder | None, root: Path, settings: CatalogSettings) -> Proposal:
    """The proposal for the catalog of `folder`, or for the most promising file in `root`.

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
    with file.open("rb") as source:
        table = read_table(source, file, settings, problems.append)
        rows = list(islice(table.rows, SAMPLE_ROWS))
    found = Proposal(file, [], table.layout, rows=len(rows), names=table.names)
    found.encoding = next((p.message for p in problems if p.kind == "guessed encoding"), "")
    by_content = _by_content(table.names, rows, settings.columns, file)
    columns = map_columns(table.names, by_content, file)
    for role in ROLES:
        found.columns[role] = columns.read_as(role)
        found.told[role] = _described(role, rows, columns)
    _schema(found, rows, columns)
    sample = LanguageSample()
    for row in rows:
        texts = (row.cells[i] for role in ("title", "description") for i in columns.roles.get(role, ()))
        sample.add(" ".join(filter(None, map(plain_text, map(one_text, texts)))))
    found.languages = sample.languages()
    return found


def _by_content(names: Sequence[str], rows: Sequence[Row], chosen: Columns, file: Path) -> Columns:
    """The columns of the settings, and those that only their cells betray, for roles that no name has."""
    named = _named(names, chosen, file)
    named = {
        role: positions
        for role, positions in named.items()
        if getattr(chosen, role) or any(one_text(row.cells[i]) for row in rows for i in positions)
    }
    taken = {i for positions in named.values() for i in positions}
    free = [i for i, name in enumerate(names) if name and i not in taken]
    found: dict[str, list[str]] = {}
    for role, test in (("image", _photos), ("product_id", _gtins), ("id", _numbers), ("category", _paths),
                       ("description", _long), ("title", _short)):  # fmt: skip
        if named.get(role):
            continue
        for i in free:
            if role == "id" and NO_ATTRIBUTE.search(names[i]):
                continue
            cells = [text for row in rows if (text := one_text(row.cells[i]))]
            if len(cells) >= max(1, len(rows) // 2) and test(cells):
                found[role] = [names[i]]
                free.remove(i)
                break
    return chosen.model_copy(update=found)


def _named(names: Sequence[str], chosen: Columns, file: Path) -> dict[str, tuple[int, ...]]:
    try:
        return map_columns(names, chosen, file).roles
    except DataError:
        if len(set(names)) < len(names) or chosen.id:
            raise
        # No column numbers the listings by its name: the others are mapped as if one did.
        roles = map_columns([*names, "id"], chosen, file).roles
        return {role: positions for role, positions in roles.items() if role != "id"}


def _share(cells: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.fullmatch(cell) is not None for cell in cells) / len(cells)


def _photos(cells: Sequence[str]) -> bool:
    return _share([part for cell in cells for part in image_cells(cell, "")[:1]], PHOTO) >= MOST


def _gtins(cells: Sequence[str]) -> bool:
    return sum(is_gtin(cell) for cell in cells) >= MOST * len(cells)


def is_gtin(text: str) -> bool:
    """Whether `text` is 8, 12, 13 or 14 digits of which the last one is right."""
    if len(text) not in (8, 12, 13, 14) or not (text.isascii() and text.isdigit()):
        return False
    digits = [int(digit) for digit in reversed(text)]
    return (sum(digits[1::2]) * 3 + sum(digits[::2])) % 10 == 0


def _numbers(cells: Sequence[str]) -> bool:
    return len(set(cells)) == len(cells) and max(map(len, cells)) <= 40 and all(" " not in cell for cell in cells)


def _paths(cells: Sequence[str]) -> bool:
    return _share(cells, PATH) >= MOST and len(set(cells)) <= len(cells) / 2


def _long(cells: Sequence[str]) -> bool:
    return sum(map(len, cells)) / len(cells) > 100 and len(set(cells)) > len(cells) / 4


def _short(cells: Sequence[str]) -> bool:
    words = sum(len(cell.split()) for cell in cells) / len(cells)
    return 2 <= words <= 20 and len(set(cells)) > len(cells) / 2


def _described(role: str, rows: Sequence[Row], columns: ColumnMap) -> str:
    """`filled in 98 %, such as "Linen blouse"`."""
    if not rows or role not in columns.roles:
        return ""
    texts = [" ".join(filter(None, (one_text(row.cells[i]) for i in columns.roles[role]))) for row in rows]
    filled = [text for text in texts if text]
    if not filled:
        return "empty"
    return f"filled in {len(filled) / len(rows):.0%}, such as {clipped(plain_text(filled[0]), 40)!r}"


def _schema(found: Proposal, rows: Sequence[Row], columns: ColumnMap) -> None:
    """The catalog's own attributes: columns (and options) with few different short values."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        pairs: list[tuple[str, Cell]] = [(key, row.cells[i]) for i, key in columns.given]
        for key, cell in (*pairs, *row.more.items()):
            for text in plain_text(one_text(cell)).split("|"):
                if text and len(text) <= 30 and not NO_ATTRIBUTE.search(key):
                    counts.setdefault(key, Counter())[text] += 1
    for key, values in sorted(counts.items(), key=lambda item: -item[1].total()):
        worded = sum(any(char.isalpha() for char in value) for value in values)
        repeated = values.total() >= 2 * len(values) or len(values) <= SCHEMA_VALUES // 4
        if (
            2 <= len(values) <= SCHEMA_VALUES
            and worded >= len(values) / 2
            and repeated
            and len(found.keys) < SCHEMA_KEYS
        ):
            found.keys[key] = [value for value, _ in values.most_common()]


def settings_text(found: Proposal) -> str:
    """The proposal as a commented `afmrl.toml`."""
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
        if names and found.told[role] == "empty":
            lines.append(f"# {role} = {_toml(names)}  # empty")
        elif names:
            lines.append(f"{role} = {_toml(names)}" + (f"  # {found.told[role]}" if found.told[role] else ""))
        else:
            lines.append(f"# {role} = []  # none found")
    used = {name for names in found.columns.values() for name in names}
    if rest := [name for name in found.names if name and name not in used]:
        lines.append(f"# filters and labels, never shown to a model: {clipped(', '.join(rest), 160)}")
    lines += [
        "",
        "[model]",
        'preset = "nano"  # for real photos: "qwen3" or "paper"; `afmrl doctor` says what fits here',
    ]
    lines += ["", "[attributes]", *_language(found.languages)]
    if found.keys:
        lines += ["", "# The catalog's own attributes. Uncommented, they are the schema that the generator answers by:"]
    for key, values in found.keys.items():
        name = key.lower() if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key.lower())
        lines += [f"# [attributes.keys.{name}]", f"# values = {_toml(values)}"]
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
