"""`afmrl config`: the resolved settings."""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from ..store.folder import SETTINGS_FILE, find_folder
from .options import CatalogArgument, Json, Quiet, Set, Verbose, flags_of
from .output import Output


def config(
    catalog: CatalogArgument = None,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Print the resolved settings: flags over AFMRL_* over afmrl.toml over defaults.

    Example: afmrl config --set model.preset=qwen3
    """
    from ..sources import load_settings

    flags = flags_of(set_)
    out = Output(json_mode=json_mode, quiet=quiet, verbose=verbose)
    try:
        root = find_folder(catalog, lambda root: load_settings(root, flags).catalog.path).root
    except DataError as error:
        if catalog is not None:
            raise
        root = None
        out.note(f"{error}: showing flags, environment and defaults only")
    settings = load_settings(root, flags)
    out.document("afmrl.config/1", {"folder": root, "settings": settings.model_dump()})
    if root:
        out.note(f"settings of {root / SETTINGS_FILE}" + ("" if (root / SETTINGS_FILE).is_file() else " (not there)"))
    for line in _toml_lines(settings.model_dump()):
        out.text(line)


def _toml_lines(tree: dict[str, Any], prefix: str = "") -> list[str]:
    plain = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    lines = [f"[{prefix}]"] if prefix and plain else []
    lines += [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    lines += [""] if lines else []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, f"{prefix}.{key}" if prefix else key)
    return lines


def _toml_value(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and lists are written alike in TOML
