"""Keys of earlier versions in `afmrl.toml`, `AFMRL_*` and `--set`: renamed, or constants now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .errors import UsageError
from .section import Section
from .settings import Settings

MAX_IMAGES, BOTH = "model.max_images", ("model.generator_images", "model.embedder_images")
RENAMED = {
    "eval.ask": ("eval.query_fields", "rename it"),
    "eval.show": ("eval.gallery_fields", "rename it"),
    "agcl.weight_positive": ("agcl.weights", 'write agcl.weights = "paper" for true, "negatives" for false'),
}
"""Keys that have another name now: (the new one, what to do)."""


def fixed_keys() -> dict[str, Any]:
    """Return the constants of all sections by their dotted keys; most were settings once."""
    sections: Iterator[tuple[str, Section]] = iter(Settings())
    return {f"{name}.{key}": value for name, section in sections for key, value in section.constants().items()}


def earlier_keys() -> list[str]:
    """Return the keys that are no settings and are understood all the same."""
    return [MAX_IMAGES, *RENAMED, *fixed_keys()]


def without_earlier_keys(tree: dict[str, Any], origin: dict[str, str]) -> list[str]:
    """Take keys of earlier versions out of `tree`, whose values come from where `origin` says; return notes for the
    user. Raises UsageError that names the new key, or the value that is fixed now."""
    notes = _one_number_for_both(tree, origin)
    for key, (new, what) in RENAMED.items():
        if key in origin:
            raise UsageError(f"{_written(key, origin)}: {key} is {new} now", what)
    for key, fixed in fixed_keys().items():
        section, _, name = key.partition(".")
        table = tree.get(section)
        if key not in origin or not isinstance(table, dict):  # --set agcl=3 may have put another value there
            continue
        given = table.pop(name)
        always = f"{key} is no setting any more: it is always {json.dumps(fixed)}"
        if not _same(given, fixed):
            raise UsageError(f"{_written(key, origin)}: {always}", "remove it")
        notes.append(f"{_written(key, origin)}: {always}; leave it out")
    return notes


def _one_number_for_both(tree: dict[str, Any], origin: dict[str, str]) -> list[str]:
    """Take `max_images`, the one number of earlier versions, for both models."""
    where, table = origin.get(MAX_IMAGES), tree.get("model")
    if where is None or not isinstance(table, dict):
        return []
    number = table.pop("max_images")
    for key in BOTH:
        table.setdefault(key.partition(".")[2], number)
        origin.setdefault(key, where)
    return [f"{_written(MAX_IMAGES, origin)}: {MAX_IMAGES} is taken for {' and '.join(BOTH)}"]


def _written(key: str, origin: dict[str, str]) -> str:
    return origin[key].removesuffix(f" {key}")  # "--set agcl.clip: agcl.clip" would say it twice


def _same(given: object, fixed: object) -> bool:
    """Return whether a value means the constant: "false" and "1" may come from a variable or --set."""
    if not isinstance(given, str) or isinstance(fixed, str):
        return given == fixed and isinstance(given, bool) == isinstance(fixed, bool)
    if isinstance(fixed, bool):
        return given.strip().lower() in (("true", "1", "yes", "on") if fixed else ("false", "0", "no", "off"))
    try:
        return float(given) == fixed
    except ValueError:
        return False
