"""The example schema, and the one in the docs, are settings that a run takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from afmrl_cli.attributes.schema import AttributeSchema, read_answer
from afmrl_cli.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_example_schema(tmp_path):
    settings = Settings.model_validate(tomllib.loads((ROOT / "examples" / "attributes.toml").read_text("utf-8")))
    schema = AttributeSchema.from_settings(settings.attributes)
    assert "neckline" in schema.keys_for("Clothing/Tops/Blouses")
    assert "neckline" not in schema.keys_for("Shoes")
    answer = "Color: Light-Blue; material: cotton, Elastane; neckline: V neck; series: Aria 2"
    assert read_answer(answer, False, schema, "clothing/tops", settings.attributes) == (
        "color: light blue; material: cotton, elastane; neckline: v-neck; series: Aria 2",
        None,
    )


def test_the_schema_in_the_docs():
    page = (ROOT / "docs" / "attributes.md").read_text("utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    settings = Settings.model_validate(tomllib.loads(block))
    schema = AttributeSchema.from_settings(settings.attributes)
    assert list(schema.keys) == ["color", "material", "neckline"]
    assert read_answer("Color: Light-Blue", False, schema, "", settings.attributes) == ("color: light blue", None)
