"""Provenance of a checkpoint: what it came from, and what was made with it, as far as `.afmrl` holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import Checkpoints, Manifest
from .database import Database
from .files import parse_json
from .folder import CatalogFolder
from .lineage import checkpoint_of, learnt_from

CYCLES = "cycle-*/cycle.json"


@dataclass(frozen=True)
class Provenance:
    """`sources`: (how, checkpoint) that it came from, nearest first. `attributes`: valid texts by generator's id.
    `vectors`, `evaluations`: the folders. `cycles`: the stages of cycles that it stands for. `descendants`: (how,
    checkpoint).
    """

    sources: list[tuple[str, str]]
    attributes: dict[str, int]
    vectors: list[Path]
    evaluations: list[Path]
    cycles: list[str]
    descendants: list[tuple[str, str]]


def provenance_of(folder: CatalogFolder, checkpoints: Checkpoints, manifest: Manifest) -> Provenance:
    """Find where `manifest` came from and what came from it."""
    known = checkpoints.list()
    names = [each.name for each in known]

    def ours(model: object) -> bool:
        return isinstance(model, str) and checkpoint_of(model, names) == manifest.name

    texts: dict[str, int] = {}
    if folder.database.is_file():
        with Database(folder.database) as database:
            texts = {model: number for model, number in database.attribute_sources().items() if ours(model)}

    def made_with(content: dict[str, Any]) -> bool:
        return ours(content.get("embedder")) or ours(_of_generator(content))

    vectors = _read(folder.embeddings.glob("*/v*/manifest.json"))
    evaluations = _read(folder.runs.glob("*-eval*/metrics.json"))
    cycles = _read(folder.runs.glob(CYCLES))
    return Provenance(
        sources=list(_sources(manifest, {each.name: each for each in known})),
        attributes=texts,
        vectors=[path.parent for path, content in vectors if made_with(content)],
        evaluations=[path.parent for path, content in evaluations if made_with(content)],
        cycles=[f"{path.parent.name}: {name}" for path, content in cycles for name in _stages(content, manifest.name)],
        descendants=[
            (how, each.name)
            for each in known
            for how, name in learnt_from(each, names).items()
            if name == manifest.name
        ],
    )


def wanted_checkpoints(folder: CatalogFolder, checkpoints: Checkpoints, chosen: Mapping[str, str]) -> dict[str, str]:
    """Find the checkpoints that are in use, and by what: labels, the settings (`chosen`: name by setting), what every
    cycle chose.
    """
    wanted: dict[str, str] = {}
    for path, content in _read(folder.runs.glob(CYCLES)):
        lineage = content.get("lineage") or {}
        wanted |= {str(name): f"kept by {path.parent.name}" for name in lineage.values() if name}
    for label, name in checkpoints.labels().items():
        wanted[name] = f"{wanted[name]}, {label}" if name in wanted else label
    wanted |= {name: setting for setting, name in chosen.items() if name}
    return wanted


def _sources(manifest: Manifest, known: dict[str, Manifest]) -> Iterator[tuple[str, str]]:
    waiting, seen = [manifest], {manifest.name}
    while waiting:
        for how, name in learnt_from(waiting.pop(0), list(known)).items():
            if name not in seen:
                seen.add(name)
                waiting.append(known[name])
                yield how, name


def _of_generator(content: dict[str, Any]) -> object:
    """Return the generator whose attribute texts vectors or metrics were made with."""
    return (content.get("attributes") or {}).get("generator")


def _stages(content: dict[str, Any], name: str) -> Sequence[str]:
    return [
        stage["name"]
        for stage in content.get("leaderboard", [])
        if name in (stage.get("generator"), stage.get("embedder"))
    ]


def _read(files: Iterator[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the JSON objects among `files`; one that can't be read was made by nothing here."""
    for file in sorted(files):
        try:
            content = parse_json(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            yield file, content
