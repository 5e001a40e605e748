"""Where settings come from: flags over `AFMRL_*` over `afmrl.toml` over the defaults in `settings.py`.

An error names where the value was written (file, variable or flag), and the nearest known key. Keys of earlier
versions are still known: a renamed one is an error that names the new one; one that is fixed now is ignored with a note
where it says what is fixed, else it is an error.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .by_model import with_values_by_model
from .earlier_settings import earlier_keys, without_earlier_keys
from .errors import UsageError
from .reference import known_keys
from .section import as_list
from .settings import BUILT_IN, Settings
from .store.folder import SETTINGS_FILE
from .trust import KEY_HOST_VARIABLE, SERVE_TOKEN_VARIABLE, mark_foreign

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RESERVED_ENVIRONMENT = {"AFMRL_DEBUG", "AFMRL_API_KEY", KEY_HOST_VARIABLE, SERVE_TOKEN_VARIABLE, "AFMRL_INDEX_KEY"}
"""Variables that are no settings: tracebacks on known failures, the endpoint's key (never in a file), its host, and the
token of the search service (never in a file)."""


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known)[:12])}"


def _put(tree: dict[str, Any], dotted: str, value: object, name: str) -> None:
    """Set a dotted key that the flag or variable `name` gives. Raises UsageError where a table is none."""
    *parents, last = dotted.split(".")
    try:
        for part in parents:
            tree = tree.setdefault(part, {})
        tree[last] = value
    except (AttributeError, TypeError) as error:
        raise UsageError(f"{name}: unknown setting {dotted[:200]}", _nearest(dotted[:200], known_keys())) from error


def _written_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a file's tables."""
    keys: list[str] = []
    for name, value in tree.items():
        keys += _written_keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return keys


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Read the variables: `AFMRL_EMBED_BATCH_SIZE=8` is {"embed.batch_size": ("8", "AFMRL_EMBED_BATCH_SIZE")}."""
    keys = [*known_keys(), *earlier_keys()]
    by_variable = {"AFMRL_" + key.upper().replace(".", "_"): key for key in keys}
    found: dict[str, tuple[str, str]] = {}
    for name, value in environment.items():
        if not name.startswith("AFMRL_") or name in RESERVED_ENVIRONMENT:
            continue
        if name not in by_variable:
            known = ["AFMRL_" + key.upper().replace(".", "_") for key in known_keys()]
            raise UsageError(f"environment variable {name} is no setting", _nearest(name, known))
        found[by_variable[name]] = (value, name)
    return found


def _beside_the_catalog(tree: dict[str, Any], folder: Path) -> None:
    """Make model folders in a file's `tree` absolute: there they are relative to the file, not to the current folder.

    A name under which `folder` holds nothing is left as it is: it means a hub model.
    """

    def found(written: object) -> object:
        there = isinstance(written, str) and written not in ("", BUILT_IN) and (folder / written).exists()
        return str((folder / str(written)).resolve()) if there else written

    def system(written: object) -> object:
        kind, colon, name = written.partition(":") if isinstance(written, str) else ("", "", "")
        return f"{kind}:{found(name.strip())}" if colon and kind.strip() in ("clip", "text", "run") else written

    model, evaluation = tree.get("model"), tree.get("eval")
    if isinstance(model, dict):
        model.update({key: found(model[key]) for key in ("generator", "embedder") if key in model})
    if isinstance(evaluation, dict) and "systems" in evaluation:
        names = as_list(evaluation["systems"])
        evaluation["systems"] = [system(name) for name in names] if isinstance(names, list) else names


def _explain(error: ValidationError, origin: Mapping[str, str], file: Path | None) -> UsageError:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = ".".join(parts)
    where = next((origin[key[:i]] for i in range(len(key), 0, -1) if key[:i] in origin), str(file or "settings"))
    if first["type"] == "extra_forbidden":
        known = known_keys()
        sections = sorted({name.rsplit(".", i)[0] for name in known for i in range(1, name.count(".") + 1)})
        siblings = [n for n in known + sections if n.count(".") == key.count(".")]
        return UsageError(f"{where}: unknown setting {key[:200]}", _nearest(key[:200], siblings or known))
    # A flag says by itself what it sets; a file or a variable does not.
    named = where if where.startswith("-") else f"{where}: {key[:200]}"
    message = f"{named}: {_in_words(first)} (got {str(first['input'])[:200]!r})"
    return UsageError(message, "`afmrl config` shows all settings and what they mean")


WORDS = {
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text in quotes",
    "list_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "too_short": "must not be empty",
}


def _in_words(error: ErrorDetails) -> str:
    """Say what is wrong with a value in the words of a setting, not in pydantic's."""
    if words := WORDS.get(error["type"]):
        limits = error.get("ctx", {})
        words = words.format(**{name: f"{x:g}" if isinstance(x, float) else x for name, x in limits.items()})
        return words.replace("'', ", "")  # left open: nobody types that
    return error["msg"][:200].removeprefix("Value error, ")


@dataclass(frozen=True)
class Loaded:
    """Settings as they were written, what they leave open included."""

    settings: Settings
    origins: dict[str, str]
    """Where each value comes from by its dotted key; keys with a default are left out."""
    notes: list[str]
    """What became of keys of earlier versions."""


def load_settings(
    folder: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings for the catalog in `folder` (None: no file is read).

    `flags` maps dotted keys to values; a value of None means that the flag was not given. `names` are the flags' own
    names, for messages (else `--set KEY`). `environment` defaults to the process's. Raises UsageError naming file,
    variable or flag, the key, the nearest known key, and where the
    folder's file reaches out of it (see `trust`).
    """
    return with_values_by_model(load_as_written(folder, flags, environment, names).settings)


def load_as_written(
    folder: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Loaded:
    """Load as `load_settings` does, but leave open what follows from the models."""
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    file = folder / SETTINGS_FILE if folder else None
    if file and file.is_file():
        try:
            tree = tomllib.loads(file.read_text("utf-8-sig"))
        except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, a number of 5,000 digits
            raise UsageError(f"{file}: not valid TOML: {str(error)[:200]}", "mend the file or remove it") from error
        except OSError as error:
            raise UsageError(f"{file}: can't be read: {error.strerror}") from error
        _beside_the_catalog(tree, file.parent)
        origin = {key: str(file) for key in _written_keys(tree)}
    for key, (value, name) in _from_environment(os.environ if environment is None else environment).items():
        _put(tree, key, value, name)
        origin[key] = name
    for key, flag in (flags or {}).items():
        if flag is not None:
            origin[key] = (names or {}).get(key, f"--set {key}")
            _put(tree, key, flag, origin[key].partition(" ")[0])
    notes = without_earlier_keys(tree, origin)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, origin, file) from error
    if file:
        mark_foreign(settings, {key for key, where in origin.items() if where == str(file)}, file)
    return Loaded(settings, origin, notes)
