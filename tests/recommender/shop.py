"""A small catalog of words and the customers of it, who follow a rule: after a colour comes the next one."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from afmrl_cli.listener import Listener, Silent
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.tiny import tiny_settings

COLOURS = ("red", "blue", "green", "navy", "white", "black")
KINDS = ("shirt", "coat", "skirt", "hat")
MakeSettings = Callable[..., Settings]


def write_shop(root: Path, customers: int = 30, length: int = 6) -> CatalogFolder:
    """24 listings without photos; each customer stays with a kind and goes through its colours."""
    root.mkdir(parents=True)
    with (root / "catalog.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "attr_colour"])
        for i, kind in enumerate(KINDS):
            for j, colour in enumerate(COLOURS):
                writer.writerow([f"{kind[:2].upper()}{i}{j}", f"{kind} {colour}", colour])
    with (root / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", "item", "time"])
        for number in range(customers):
            i, first = number % len(KINDS), number % len(COLOURS)
            for step in range(length):
                day = 1 + (number + 40 * step) % 360
                item = f"{KINDS[i][:2].upper()}{i}{(first + step) % len(COLOURS)}"
                writer.writerow(
                    [f"C{number}", item, f"2024-{1 + (day - 1) // 30:02}-{1 + (day - 1) % 30:02}T12:00:00Z"]
                )
    return CatalogFolder(root / "catalog.csv")


def recommender_settings(model: Path | str) -> MakeSettings:
    """`settings(**{"recommender.steps": 4})`: few steps, two of them in memory at a time."""
    return tiny_settings(
        Path(model),
        {
            "recommend.validation": 0.25,
            "recommender.text": "title",
            "recommender.item_tokens": 8,
            "recommender.history": 3,
            "recommender.candidates": 4,
            "recommender.answers": 2,
            "recommender.shortlist": 5,
            "recommender.batch_size": 4,
            "recommender.chunk_size": 2,
            "recommender.learning_rate": 0.01,
            "recommender.steps": 4,
            "recommender.validate_every": 2,
            "recommender.validation_questions": 20,
            "recommender.grpo_steps": 2,
            "recommender.group": 4,
            "recommender.prompts": 2,
            "recommender.chunk_answers": 4,
            "recommender.save_every": 1,
        },
    )


def workspace(folder: CatalogFolder, settings: Settings, listener: Listener | None = None) -> Workspace:
    return Workspace(folder, settings, listener or Silent())
