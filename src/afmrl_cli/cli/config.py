"""`afmrl config`: the settings as they are resolved here, and where each comes from."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from ..store.folder import SETTINGS_FILE, find_folder
from .flags import Call, with_flags
from .options import with_split_shares

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..settings import Settings

WIDTH = 80


@with_flags()
def config(call: Call) -> None:
    """Print the settings as TOML: flags over AFMRL_* over afmrl.toml over defaults, which are comments.

    Example: afmrl config --set model.preset=qwen3
    """
    from ..sources import load_with_origins

    flags, out = call.chosen, call.out
    try:
        folder = find_folder(call.catalog, lambda root: load_with_origins(root, flags)[0].catalog.path)
    except DataError as error:
        if call.catalog is not None:
            raise
        folder = None
        out.note(f"{error}: showing flags, environment and defaults only")
    root = folder.root if folder else None
    settings, origins = load_with_origins(root, flags)
    if folder:
        settings = with_split_shares(settings, folder)
    origins = {key: Path(where).name for key, where in origins.items()}
    out.document("afmrl.config/1", {"folder": root, "settings": settings.model_dump(), "origins": origins})
    if root:
        out.note(f"settings of {root / SETTINGS_FILE}" + ("" if (root / SETTINGS_FILE).is_file() else " (not there)"))
    for line in _toml_lines(settings, origins, _resolved(settings)):
        out.text(line)


def _resolved(settings: Settings) -> dict[str, str]:
    """What settings that are left open come to here, as far as it does not hang on the catalog's content."""
    from ..errors import ModelError
    from ..models.device import device_of, precision_of
    from ..models.presets import base_name
    from ..settings import BUILT_IN
    from ..training.sizes import RATES, peak_rate

    model = settings.model
    found: dict[str, object] = {f"model.{role}": base_name(model, role) for role in ("generator", "embedder")}
    built_in = {role: found[f"model.{role}"] == BUILT_IN for role in ("generator", "embedder")}
    for section in RATES:
        role = "embedder" if section == "agcl" else "generator"
        found[f"{section}.learning_rate"] = f"{peak_rate(settings, section, built_in=built_in[role]):g}"
    with contextlib.suppress(ModelError):  # no such device here: the command that needs it says so
        found |= {"model.device": device_of(model), "model.precision": precision_of(model)}
    opens = {key for key in found if _value_of(settings, key) in ("", "auto", 0.0)}
    return {key: f": here {found[key]}" for key in sorted(opens)}


def _value_of(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def _toml_lines(
    section: BaseModel, origins: Mapping[str, str], resolved: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    """The lines of a table and of those in it: what is set, with its origin, and defaults as comments."""
    from pydantic import BaseModel

    fields, inner = type(section).model_fields, list[tuple[str, BaseModel]]()
    if prefix:
        yield f"[{prefix}]"
    for name, field in fields.items():
        key, value = f"{prefix}.{name}" if prefix else name, getattr(section, name)
        if isinstance(value, BaseModel):
            inner.append((key, value))
        elif isinstance(value, dict):
            inner += [(f"{key}.{_toml_key(each)}", table) for each, table in value.items()]
        else:
            if field.description:
                yield from textwrap.wrap(field.description, WIDTH, initial_indent="# ", subsequent_indent="#   ")
            origin = origins.get(key) or _origin_of_table(key, origins)
            yield _setting_line(name, value, field.default, origin) + resolved.get(key, "")
    if prefix:
        yield ""
    for key, table in inner:
        yield from _toml_lines(table, origins, resolved, key)


def _setting_line(name: str, value: object, default: object, origin: str) -> str:
    """`name = value` with its origin; a comment where nobody has set it, so that a file made of these lines freezes no
    default.
    """
    if value is None:
        return f"# {name}: follows from the catalog"
    line = f"{name} = {_toml_value(value)}"
    if origin:
        return f"{line}  # {origin}"
    where = "the catalog's size" if isinstance(value, float) else "the models"
    return f"# {line}  # " + ("default" if value == default else f"follows from {where}")


def _origin_of_table(key: str, origins: Mapping[str, str]) -> str:
    """Where a key of a schema's table comes from: its name may be quoted in TOML."""
    return next((where for known, where in origins.items() if known == key.replace('"', "")), "")


def _toml_key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _toml_value(name)


def _toml_value(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and lists are written alike in TOML
