"""The last run's pairs, as the report of a cycle shows them."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.cycle.report import _duplicates, _Shop
from afmrl_cli.listener import Silent
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.dedupe.shop import picture, write


def test_the_report_of_a_cycle_shows_what_the_last_run_found(tmp_path: Path) -> None:
    listed = [
        {"id": f"p{i}", "title": f"Corda lamp zebra{i} k{i}77", "image": picture(tmp_path / "images" / f"{i}.png", i)}
        for i in range(12)
    ]
    write(tmp_path, [*listed, {**listed[0], "id": "again"}])
    folder, settings = CatalogFolder(tmp_path / "catalog.csv"), load_settings(tmp_path, {}, NANO)
    shop = _Shop(Workspace(folder, settings, Silent()), None)
    assert _duplicates(folder, shop) is None
    for flags in (["--threshold", "0.99999999"], []):  # the later one counts, in the same second too
        result = CliRunner().invoke(app, ["dedupe", str(tmp_path), *flags])
        assert result.exit_code == 0, result.output
    summary = _duplicates(folder, shop)
    assert summary is not None
    assert (summary["found"], summary["groups_found"], summary["calibrated"]) == (1, 1, False)
    [pair] = summary["pairs"]
    assert [side["id"] for side in pair["sides"]] == ["p0", "again"]
    assert all(side["picture"].startswith("data:image/jpeg") for side in pair["sides"])
