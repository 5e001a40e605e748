"""What a dry run tells of memory: each stage's estimate, and what to lower where the device has less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.cycle.expect import expect
from afmrl_cli.errors import ModelError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models import device
from afmrl_cli.store.files import make_folder, write_json
from afmrl_cli.training.memory import estimate_stages
from afmrl_cli.workspace import Workspace

from .shop import cycle_settings, rendered


@pytest.mark.slow
def test_a_stage_that_is_too_large_is_named_with_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, settings = rendered(tmp_path / "shop"), cycle_settings(**{"cycle.composed": True})
    # What an earlier cycle took, so that nothing has to be measured.
    for kind in ("score", "sft", "attributes", "infonce", "agcl", "rar", "composed"):
        place = make_folder(folder.runs / "cycle-earlier" / "stages") / f"1-{kind}.json"
        record: dict[str, object] = {"name": f"1-{kind}", "kind": kind, "fingerprint": "", "inputs": {}, "result": {}}
        write_json(place, {**record, "seconds": 5.0, "peak_bytes": 2**30, "created": 1.0})
    sections = settings.model_dump(exclude_defaults=True)
    flags = [f"--set={section}.{key}={value}" for section, own in sections.items() for key, value in own.items()]
    command = ["cycle", str(folder.catalog), *flags, "--dry-run"]
    no_stages = ("train-rerank", "train-recommender", "train-vision")  # of a cycle
    own = [each for each in estimate_stages(settings) if each.stage not in no_stages]
    estimates = {each.stage: each.peak_bytes for each in own}

    plenty = CliRunner().invoke(app, [*command, "--json"])
    assert plenty.exit_code == 0, plenty.output
    document = json.loads(plenty.stdout)
    by_name = {each["name"]: each["estimated_bytes"] for each in document["stages"]}
    assert by_name["base-score"] == estimates["embed"] and by_name["1-rar"] == estimates["train-rar"]
    assert by_name["1-rar-attributes"] == estimates["attributes"] and by_name["1-infonce"] == estimates["train-agcl"]
    assert by_name["composed"] == estimates["train-composed"]
    assert document["advice"] == {} and document["memory_here"] > max(estimates.values())

    # As on a card with one byte less than the largest stage takes.
    largest = max(estimates, key=lambda stage: estimates[stage])
    monkeypatch.setattr(device, "memory_here", lambda model: estimates[largest] - 1)
    small = CliRunner().invoke(app, command)
    for line in [line for line in small.stdout.splitlines() if " 1.00 GiB" in line]:  # measured, then estimated
        assert float(line.split()[-2]) >= 1.0
    (line,) = [line for line in small.stdout.splitlines() if "is estimated at" in line]
    assert line.startswith(largest) and ": lower " in line
    advice = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["advice"]
    assert list(advice) == [largest]


def test_a_model_that_cannot_be_loaded_ends_the_measuring(tmp_path: Path) -> None:
    """It would end the stage, too; only what the catalog has too little of is reported and left out."""
    folder = rendered(tmp_path / "shop", 2)
    settings = cycle_settings(**{"model.embedder": str(tmp_path / "nowhere")})
    with pytest.raises((ModelError, UsageError)):
        expect(Workspace(folder, settings, Silent()), [("base-score", "score", 1.0)], (), 2)
