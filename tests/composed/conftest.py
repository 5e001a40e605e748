"""A shop whose products differ in a few columns, and settings to teach a tiny embedder."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from tests.tiny import photo, tiny_settings

COLOURS, SLEEVES, NECKS = ("red", "blue", "green"), ("long", "short"), ("round", "collar")


def write_composed_shop(root: Path, styles: int = 4) -> Path:
    """catalog.csv: of each style every colour, sleeve and neck; three colours of one style are its variants."""
    (root / "images").mkdir(parents=True)
    rows = []
    each = itertools.product(range(styles), SLEEVES, NECKS, COLOURS)
    for i, (style, sleeve, neck, colour) in enumerate(each):
        names = [f"images/{i}-{k}.png" for k in range(1 + i % 2)]
        for k, name in enumerate(names):
            photo(100 * i + k).save(root / name)
        rows.append(
            {
                "id": f"S{i}",
                "group_id": f"G{style}-{sleeve}-{neck}",
                "title": f"shirt of style {style}",
                "category": "shirts",
                "image": "|".join(names),
                "attr_colour": colour,
                "attr_sleeve": sleeve,
                "attr_neck": neck,
            }
        )
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    """48 products in 16 groups of three colours."""
    return CatalogFolder(write_composed_shop(tmp_path / "shop") / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"composed.steps": 4})`: a tiny Qwen2-VL, fp32, eight triplets a step."""
    return tiny_settings(
        tiny_model("qwen2_vl"),
        {
            "split.validation": 0.25,
            "split.test": 0.2,
            "composed.batch_size": 8,
            "composed.learning_rate": 0.01,
            "composed.steps": 4,
            "composed.validate_every": 2,
            "composed.save_every": 1,
            "composed.chunk_tokens": 512,
        },
    )
