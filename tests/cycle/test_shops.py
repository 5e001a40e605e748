"""Cycles of shops in which stages can't help: skipped, with a line that says why, and nothing crashes."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.attributes.views import open_views
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.read import read_products
from afmrl_cli.cycle import stage_results
from afmrl_cli.cycle.stages import task_spec
from afmrl_cli.evaluation.report import task_views
from afmrl_cli.listener import Silent
from afmrl_cli.nano.garment import CATEGORIES, KEYS, values_of
from afmrl_cli.store.database import StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.corpus import training_views
from afmrl_cli.workspace import Workspace

from .shop import cycle_settings, rendered, run

FLAGS: dict[str, Any] = {
    "embed.enrich": "both",
    "cycle.sft": "no",
    "cycle.keep_worse": False,
    "cycle.infonce": False,
    "agcl.steps": 1,
    "agcl.learning_rate": 1e-6,
    "rar.steps": 1,
}


def rows_of(folder: CatalogFolder) -> list[dict[str, str]]:
    with folder.catalog.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def at_random(row: dict[str, str], rng: random.Random) -> dict[str, str]:
    category = rng.choice(sorted(CATEGORIES))
    return {"category": category, **{key: rng.choice(values) for key, values in values_of(category).items()}}


def as_it_is(row: dict[str, str], rng: random.Random) -> dict[str, str]:
    return {key: row[f"attr_{key}"] for key in KEYS if row[f"attr_{key}"]}


def describe(folder: CatalogFolder, answer: Callable[[dict[str, str], random.Random], dict[str, str]]) -> None:
    """Store what a generator with these answers would have written of every view that the cycle needs."""
    work, rng = Workspace(folder, cycle_settings(**FLAGS), Silent()), random.Random(0)
    rows = {row["id"]: row for row in rows_of(folder)}
    views: list[Product] = [*read_products(folder, work.settings.catalog, Problems()), *training_views(work)]
    for split in ("validation", "test"):
        views += task_views(work, task_spec(work.settings, split))
    with open_views(work, work.source) as stored:
        prints = dict(zip(stored.fingerprints(views), views, strict=True))
        stored.database.put_attributes(
            [
                StoredAttributes(
                    each,
                    work.source.generator,
                    work.source.prompt,
                    view.id,
                    write_attributes(answer(rows[view.id], rng)),
                    None,
                    0.0,
                )
                for each, view in prints.items()
            ]
        )


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "helps"), [(at_random, False), (as_it_is, True)])
def test_attributes_at_random_are_kept_out_and_right_ones_are_kept(
    answer: Callable[[dict[str, str], random.Random], dict[str, str]],
    helps: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage_results, "LEAST_PRODUCTS", 3)
    folder = rendered(tmp_path / "shop", 20)
    describe(folder, answer)
    content = run(folder, **FLAGS).content
    by_name = {stage["name"]: stage for stage in content["leaderboard"]}
    attributes = by_name["attributes"]
    values = [by_name[name]["validation"]["metrics"]["recall@1"] for name in ("AGCL", "attributes")]
    assert attributes["accepted"] is helps
    assert values[1] >= values[0] if helps else values[1] < values[0]


def test_a_shop_without_second_photos_and_identities_is_judged_by_titles(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop")
    (folder.root / "queries.jsonl").unlink()
    rows = rows_of(folder)
    for row in rows:
        row["product_id"], row["group_id"], row["image"] = "", "", row["image"].split("|")[0]
    with folder.catalog.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    content = run(folder, **FLAGS).content
    assert content["status"] == "finished"
    assert content["shows"][0].startswith("a query shows a title; searched are photos alone")
    assert [stage["name"] for stage in content["leaderboard"]] == ["base", "AGCL", "attributes", "RAR"]
