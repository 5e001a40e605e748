"""What checkpoints have to do with each other: parents, the models that they learnt from, what must stay, differences.

The id of a model names its adapter (`models.presets.name_of`): "nano-embedder-2-1a2b3c4d5e" is the base nano with
embedder-2. That is how vectors, attributes and metrics, which are stored under ids, lead back to a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .checkpoints import POOLER_WEIGHTS, QUERY_WEIGHTS, WEIGHTS, Checkpoints, Manifest
from .training_products import TrainingProducts

DIGEST = re.compile(r"-[0-9a-f]{10}$")


def checkpoint_of(model_id: str, names: Iterable[str]) -> str:
    """Return which of the checkpoints `names` a model's id names, "" for a bare base or another machine's."""
    if not DIGEST.search(model_id):
        return ""
    stem = DIGEST.sub("", model_id)
    fitting = [name for name in names if stem.endswith("-" + re.sub(r"[^a-z0-9.]+", "-", name))]
    return max(fitting, key=len, default="")


def learnt_from(manifest: Manifest, names: Sequence[str]) -> dict[str, str]:
    """Return the checkpoints that `manifest` came from directly, by how: "parent", "attributes", "embedder",
    "targets".
    """
    found = {how: checkpoint_of(model, names) for how, model in manifest.inputs.items()}
    if manifest.parent in names:
        found["parent"] = str(manifest.parent)
    return {how: name for how, name in found.items() if name and name != manifest.name}


def with_sources(
    own: TrainingProducts, parent: Manifest | None, inputs: Mapping[str, str], checkpoints: Checkpoints
) -> dict[str, object]:
    """Make the manifest entry of a checkpoint that has seen `own`: with all that its parent and the models of `inputs`
    have seen. Where one of these does not say, the new one's are not complete.
    """
    known = {manifest.name: manifest for manifest in checkpoints.list()}
    names = {checkpoint_of(model, known) for model in inputs.values()} | ({parent.name} if parent else set())
    for name in sorted(names & set(known)):
        own = own.joined(known[name].training_products() or TrainingProducts(complete=False))
    return own.written()


def needed(manifests: Sequence[Manifest], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return which checkpoints must stay, and why. `wanted` says of some, by name, why they are wanted; all that these
    came from stays with them.
    """
    by_name = {manifest.name: manifest for manifest in manifests}
    reasons: dict[str, str] = {}
    waiting = [(name, reason) for name, reason in wanted.items() if name in by_name]
    while waiting:
        name, reason = waiting.pop()
        if name in reasons:
            continue
        reasons[name] = reason
        for how, source in learnt_from(by_name[name], list(by_name)).items():
            words = "parent of" if how == "parent" else f"its {how} made"
            waiting.append((source, f"{words} {name}"))
    return reasons


def tree(manifests: Sequence[Manifest]) -> list[tuple[int, Manifest]]:
    """Return (depth, checkpoint): each below its parent, the oldest first; one whose parent is gone stands at
    depth 0.
    """
    names = {manifest.name for manifest in manifests}
    children: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        parent = manifest.parent if manifest.parent in names and manifest.parent != manifest.name else ""
        children.setdefault(str(parent), []).append(manifest)
    found: list[tuple[int, Manifest]] = []

    def add(parent: str, depth: int) -> None:
        for manifest in children.pop(parent, []):  # popped: a damaged store that goes in circles must end too
            found.append((depth, manifest))
            add(manifest.name, depth + 1)

    add("", 0)
    return found


def differences(first: Manifest, second: Manifest) -> list[tuple[str, Any, Any]]:
    """Return (what, of the first, of the second) of all that differs; None where one of them lacks it."""
    ours, theirs = _flat(first), _flat(second)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [(key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


def _flat(manifest: Manifest) -> dict[str, Any]:
    content: dict[str, Any] = {
        "role": manifest.role,
        "base": manifest.base,
        "base_revision": manifest.base_revision,
        "parent": manifest.parent,
        "run": manifest.run,
        "data": manifest.data,
        "weights": manifest.files[WEIGHTS],
        "two_sided": manifest.two_sided,
        "query_weights": manifest.files.get(QUERY_WEIGHTS),
        "pooler": manifest.files.get(POOLER_WEIGHTS),
        **{f"inputs.{key}": value for key, value in manifest.inputs.items()},
        **{f"metrics.{key}": value for key, value in manifest.metrics.items()},
        **{f"versions.{key}": value for key, value in manifest.versions.items()},
    }
    _flatten("settings", manifest.settings, content)
    return content


def _flatten(prefix: str, tree: Mapping[str, Any], into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _flatten(f"{prefix}.{key}", value, into)
        else:
            into[f"{prefix}.{key}"] = value
