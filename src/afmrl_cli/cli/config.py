"""`afmrl config`: the settings as they are resolved here, and where each comes from."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from ..by_model import with_values_by_model
    from ..models.auto import choose_preset
    from ..sources import load_as_written

    flags, out = call.chosen, call.out
    try:
        folder = find_folder(call.catalog, lambda root: load_as_written(root, flags).settings.catalog.path)
    except DataError as error:
        if call.catalog is not None:
            raise
        folder = None
        out.note(f"{error}: showing flags, environment and defaults only")
    root = folder.root if folder else None
    loaded = load_as_written(root, flags)
    for note in loaded.notes:
        out.note(note)
    chosen = choose_preset(loaded.settings, folder)
    here = with_values_by_model(chosen.settings)
    if folder:
        here = with_split_shares(here, folder)
    if chosen.why:
        out.note(chosen.line)
    origins = {key: Path(where).name for key, where in loaded.origins.items()}
    out.document("afmrl.config/1", {"folder": root, "settings": _values(here), "origins": origins})
    if root:
        out.note(f"settings of {root / SETTINGS_FILE}" + ("" if (root / SETTINGS_FILE).is_file() else " (not there)"))
    for line in _toml_lines(loaded.settings, origins, _resolved(loaded.settings, here)):
        out.text(line)


def _values(settings: Settings) -> dict[str, Any]:
    """Return the settings as tables, without the constants that stand beside them: nobody can set those."""
    from ..earlier_settings import fixed_keys

    values = settings.model_dump()
    for section, _, name in (key.partition(".") for key in fixed_keys()):
        del values[section][name]
    return values


def _resolved(written: Settings, here: Settings) -> dict[str, str]:
    """Return what settings that are left open come to here, as far as it does not hang on the catalog's content."""
    from ..errors import ModelError
    from ..models.backends import server_of
    from ..models.device import device_of
    from ..models.presets import base_name
    from ..reference import known_keys
    from ..settings import BUILT_IN
    from ..training.memory import ROLES
    from ..training.sizes import peak_rate
    from ..training_settings import TrainingSettings

    model = here.model
    found: dict[str, object] = {"model.preset": model.preset}
    found |= {f"model.{role}": base_name(model, role) for role in ROLES}
    built_in = {role: found[f"model.{role}"] == BUILT_IN for role in ("generator", "embedder")}
    for section, own in written:
        if isinstance(own, TrainingSettings):
            found[f"{section}.learning_rate"] = f"{peak_rate(written, section, built_in=built_in[own.role]):g}"
    with contextlib.suppress(ModelError):  # no such device here: the command that needs it says so
        device = device_of(model)
        found |= {"model.device": device}
        found["model.precision"] = "fp32" if device == "cpu" else "by what fits, see `afmrl doctor`"
    found = {key: value for key, value in found.items() if written.value_of(key) in ("", "auto", 0.0)}
    found |= {
        f"model.{role}": f"{server.endpoint_model or 'a model'} behind the endpoint"
        for role in ROLES
        if (server := server_of(written, role))
    }
    for key in known_keys():
        if (value := here.value_of(key)) != written.value_of(key):
            found[key] = _toml_value(value)
    return {key: f": here {value}" for key, value in found.items()}


def _toml_lines(
    section: BaseModel, origins: Mapping[str, str], resolved: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    """Yield the lines of a table and of those in it: what is set, with its origin, and defaults as comments."""
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
            yield _setting_line(name, value, origin) + resolved.get(key, "")
    if prefix:
        yield ""
    for key, table in inner:
        yield from _toml_lines(table, origins, resolved, key)


def _setting_line(name: str, value: object, origin: str) -> str:
    """Return `name = value` with its origin; a comment where it is a default: a file of these lines freezes none."""
    line = f"{name} = {'' if value is None else _toml_value(value)}".rstrip()
    return f"{line}  # {origin}" if origin else f"# {line}  # default"


def _origin_of_table(key: str, origins: Mapping[str, str]) -> str:
    """Return where a key of a schema's table comes from: its name may be quoted in TOML."""
    return next((where for known, where in origins.items() if known == key.replace('"', "")), "")


def _toml_key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _toml_value(name)


def _toml_value(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and lists are written alike in TOML
