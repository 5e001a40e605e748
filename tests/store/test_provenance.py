"""Where a checkpoint came from, what came from it, and which are in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.provenance import Provenance, provenance_of, wanted_checkpoints

from .adapters import adapter, attributes
from .test_lineage import chain

ID = "nano-{}-0123456789".format


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n")
    folder = CatalogFolder(tmp_path / "catalog.csv")
    chain(Checkpoints(folder.checkpoints), adapter(tmp_path / "adapter"))
    return folder


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file.parent


def provenance(folder: CatalogFolder, name: str) -> Provenance:
    store = Checkpoints(folder.checkpoints)
    return provenance_of(folder, store, store.get(name))


def test_sources_nearest_first_and_descendants(folder: CatalogFolder) -> None:
    found = provenance(folder, "embedder-2")
    assert found.sources == [("attributes", "generator-2"), ("parent", "embedder-1"), *found.sources[2:]]
    assert [name for _, name in found.sources[2:]] == ["generator-1"] and found.descendants == []
    assert provenance(folder, "generator-1").sources == []
    assert provenance(folder, "generator-1").descendants == [("attributes", "embedder-1"), ("parent", "generator-2")]
    nothing = provenance(folder, "lonely")
    assert nothing == Provenance([], {}, [], [], [], [])


def test_what_was_made_with_it(folder: CatalogFolder) -> None:
    with Database(folder.database) as database:
        rows = [attributes(f"f{i}", generator=ID("generator-1")) for i in range(3)]
        rows += [attributes("f1", generator=ID("generator-2")), attributes("f2", generator="nano-0123456789")]
        database.put_attributes([*rows, attributes("f9", generator=ID("generator-1"), text="", failure="empty")])
    one = write(folder.embeddings / "a" / "v1" / "manifest.json", {"embedder": ID("embedder-1"), "attributes": None})
    both = {"embedder": ID("embedder-2"), "attributes": {"generator": ID("generator-1")}}
    two = write(folder.embeddings / "b" / "v2" / "manifest.json", both)
    run = write(folder.runs / "2026-eval" / "metrics.json", both)
    write(folder.embeddings / "c" / "v1" / "manifest.json", "{ no JSON")
    write(folder.embeddings / "d" / "v1" / "manifest.json", ["no object"])
    stages = [
        {"name": "AGCL", "embedder": "embedder-1", "generator": ""},
        {"name": "RAR", "embedder": "embedder-1", "generator": "generator-1"},
        {"name": "base"},
    ]
    write(folder.runs / "cycle-1" / "cycle.json", {"leaderboard": stages, "lineage": {"embedder": "embedder-1"}})

    generator, embedder = provenance(folder, "generator-1"), provenance(folder, "embedder-1")
    assert generator.attributes == {ID("generator-1"): 3} and embedder.attributes == {}
    assert (generator.vectors, generator.evaluations, generator.cycles) == ([two], [run], ["cycle-1: RAR"])
    assert (embedder.vectors, embedder.evaluations) == ([one], [])
    assert embedder.cycles == ["cycle-1: AGCL", "cycle-1: RAR"]
    assert provenance(folder, "embedder-2").vectors == [two]


def test_which_are_counted_on(folder: CatalogFolder) -> None:
    store = Checkpoints(folder.checkpoints)
    lineage = {"embedder": "embedder-1", "generator": ""}
    write(folder.runs / "cycle-1" / "cycle.json", {"lineage": lineage, "leaderboard": []})
    write(folder.runs / "cycle-2" / "cycle.json", {"lineage": None})
    store.set_best("embedder-1")
    chosen = {"model.generator_checkpoint": "generator-1", "model.embedder_checkpoint": ""}
    assert wanted_checkpoints(folder, store, chosen) == {
        "embedder-1": "kept by cycle-1, embedder:best",
        "lonely": "embedder:latest",
        "lost": "generator:latest",
        "generator-1": "model.generator_checkpoint",
    }
