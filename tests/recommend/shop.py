"""A small catalog and files of interactions beside it, and the command on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.listener import Silent
from afmrl_cli.recommend.run import Loaded, load_interactions
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

CATALOG = """sku,title,gtin,style_id,maker_code,color
A-1,Linen shirt navy,4006381333931,S1,m1,navy
A-2,Linen shirt white,,S1,m2,white
B-1,Denim jacket,,S2,m3,blue
C-1,Wool hat,,,m4,grey
"""


def shop(root: Path, interactions: str = "", name: str = "interactions.csv", toml: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "catalog.csv").write_text(CATALOG, "utf-8")
    if interactions:
        (root / name).write_text(interactions, "utf-8")
    if toml:
        (root / "afmrl.toml").write_text(toml, "utf-8")
    return root


def call(root: Path, *words: str, command: str = "interactions") -> Result:
    return CliRunner().invoke(app, [command, str(root), *words])


def document(root: Path, *words: str, command: str = "interactions", code: int = 0) -> dict[str, Any]:
    result = call(root, *words, "--json", command=command)
    assert result.exit_code == code, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


def counts(content: dict[str, Any]) -> dict[str, int]:
    """What was left out, by reason."""
    return {reason: found["count"] for reason, found in content["left_out"].items()}


def workspace(root: Path, **flags: object) -> Workspace:
    return Workspace(CatalogFolder(root / "catalog.csv"), load_settings(root, flags, environment={}), Silent())


def loaded(root: Path, **flags: object) -> Loaded:
    return load_interactions(workspace(root, **flags))


def rows(root: Path) -> list[tuple[int, str, float]]:
    """The stored interactions, without customers: seconds, item, quantity."""
    found = loaded(root).interactions
    each = zip(found.seconds.tolist(), found.item.tolist(), found.quantity.tolist(), strict=True)
    return sorted((seconds, found.items[item], quantity) for seconds, item, quantity in each)
