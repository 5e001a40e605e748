"""Training for composed queries after the rounds: what it makes and scores, and what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.cycle import composed
from afmrl_cli.cycle.composed import ComposedStage, composed_lines, composed_table
from afmrl_cli.cycle.inputs import Inputs, read_catalog
from afmrl_cli.cycle.plan import cycle_key
from afmrl_cli.cycle.records import Records
from afmrl_cli.cycle.report import write_report
from afmrl_cli.cycle.run import CycleSummary, run_cycle
from afmrl_cli.cycle.stage_results import StageResult, System
from afmrl_cli.cycle.stage_work import StageWork
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import read_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from afmrl_cli.workspace import Workspace
from tests.composed.conftest import write_composed_shop
from tests.conftest import kill_once

from .shop import Heard, copied, cycle_settings, metrics, run

WANTED: dict[str, object] = {
    "cycle.composed": True,
    "composed.batch_size": 8,
    "composed.steps": 2,
    "composed.validate_every": 1,
    "composed.save_every": 1,
}
NO_TRIPLETS: dict[str, object] = {**WANTED, "composed.windows": ["far"], "triplets.far": False}
Whole = tuple[CatalogFolder, CycleSummary]
Made = tuple[CatalogFolder, CycleSummary, Heard]


@pytest.fixture(scope="module")
def made(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The finished cycle, gone on with when training for composed queries is wanted."""
    folder, heard = copied(whole[0], tmp_path_factory.mktemp("made") / "shop"), Heard()
    return folder, run(folder, heard, **WANTED), heard


def test_a_finished_cycle_goes_on_with_that_stage_alone(whole: Whole, made: Made) -> None:
    _, summary, heard = made
    assert summary.run.name == whole[1].run.name
    assert heard.done == ["checks", "composed", "composed-score", "composed-test"]
    assert whole[1].content["composed"] is None
    *others, own = metrics(summary)
    assert others == metrics(whole[1]) and summary.content["lineage"] == whole[1].content["lineage"]
    found, last = summary.content["composed"], others[-1]
    assert (own["name"], own["baseline"], own["against"]) == ("composed", True, last["name"])
    assert own["embedder"] == found["checkpoint"] and own["generator"] == last["generator"]
    assert own["validation"]["change"] and own["test"]["change"]
    assert found["embedder"] == last["embedder"] and found["accepted"] is None
    assert found["note"].startswith("no variants to ask for in the validation and in the test split; too few triplets")
    manifest = Checkpoints(made[0].checkpoints).get(found["checkpoint"])
    assert manifest.parent == last["embedder"] and manifest.settings["composed"]["steps"] == 2


def test_the_command_the_plan_and_the_report_tell_of_it(made: Made) -> None:
    folder, summary, _ = made
    given = cycle_settings(**WANTED).model_dump(exclude_defaults=True)
    flags = [f"--set={section}.{key}={value}" for section, own in given.items() for key, value in own.items()]
    done = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags], env={"COLUMNS": "80"})
    assert done.exit_code == 0 and "composed: no variants to ask for" in done.stdout, done.output
    used = f"--set model.embedder_checkpoint={summary.content['composed']['checkpoint']}"
    assert f"for search --change: afmrl embed {used}" in done.stderr and "==" not in done.stderr
    page = (summary.run / "report.html").read_text()
    assert "“This one, but in red”" in page and used in page and "No variants to ask for" in page
    (summary.run / "stages" / "composed.json").unlink()
    plan = json.loads(CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags, "--dry-run", "--json"]).stdout)
    left = {each["name"]: each for each in plan["stages"] if not each["done"]}
    assert list(left) == ["composed", "composed-score", "composed-test"]
    assert left["composed"]["seconds"] > 0 and left["composed"]["estimated_bytes"] > 0


@pytest.mark.slow
def test_killed_in_that_stage_it_goes_on_to_the_same_metrics(whole: Whole, made: Made, tmp_path: Path) -> None:
    folder, heard = copied(whole[0], tmp_path / "shop"), Heard()
    kill_once(lambda: list(folder.runs.glob("train-composed-*/batch/state-1")), lambda: run(folder, **WANTED))
    summary = run(folder, heard, **WANTED)
    assert heard.done == ["composed", "composed-score", "composed-test"]
    assert metrics(summary) == metrics(made[1]) and summary.content["composed"] == made[1].content["composed"]


def test_a_shop_without_triplets_ends_well_and_says_why(whole: Whole, tmp_path: Path) -> None:
    folder, heard = copied(whole[0], tmp_path / "shop"), Heard()
    summary = run(folder, heard, **NO_TRIPLETS)
    assert heard.done == ["checks", "composed"] and metrics(summary) == metrics(whole[1])
    found = summary.content["composed"]
    assert found["note"].startswith("skipped: no triplets of the windows far of the train split")
    assert f"composed: {found['note']}" in heard.said and not found["checkpoint"] and found["accepted"] is None
    page = (summary.run / "report.html").read_text()
    assert f"Training for composed queries: {found['note']}." in page
    assert composed_table(found)[1] == []
    again = Heard()
    assert run(folder, again, **NO_TRIPLETS).content["composed"] == found and not again.done


@pytest.fixture
def stage(tmp_path: Path) -> ComposedStage:
    """The stage by itself, of a shop with three colours of each style."""
    folder = CatalogFolder(write_composed_shop(tmp_path / "variants", 3) / "catalog.csv")
    settings = cycle_settings(
        **WANTED,
        **{"split.validation": 0.3, "split.test": 0.3, "eval.query_fields": "text", "eval.ks": [1, 5], "eval.depth": 5},
    )
    work = Workspace(folder, settings, Silent())
    records = Records(tmp_path / "cycle", Silent(), dry=False, changed=list)
    return ComposedStage(StageWork(work, records, Inputs(read_catalog(work)), {"validation": 9, "test": 9}))


def test_composed_queries_are_asked_before_and_after(stage: ComposedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    work = stage.do.work
    assert stage.wanted and stage.describe() is None and all(stage.wishes.values())
    with writer_lock(work.folder.store, "afmrl cycle", lend=True):
        system = stage.train(StageResult("AGCL", 1, System(), "1-agcl"))
        stage.ask("validation")
        stage.ask("test")
    assert system is not None and system.embedder == "embedder-1" and stage.trained["validation"]
    found = stage.describe()
    assert found is not None and found["validation"]["asked"] == "triplets" and found["test"]["asked"] == "variants"
    assert found["validation"]["after"]["mrr"] == stage.trained["metrics"]["mrr"]
    assert found["accepted"] == (found["validation"]["after"]["mrr"] >= found["validation"]["before"]["mrr"])
    of_validation, of_test = composed_lines(found)
    assert of_validation.startswith("validation: ") and "by which its best step was chosen" in of_validation
    assert of_test.endswith(f"about {stage.wishes['test']} styles, too few to tell by; 36 listings are searched")
    test = found["test"]
    assert test["wish"].startswith(("colour: ", "sleeve: ", "neck: ")) and test["products"] == stage.wishes["test"]
    for name, chosen in (("before", ""), ("after", "embedder-1")):  # as a person asks for it
        flags = ["--set=embed.enrich=none", "--set=eval.resamples=100", f"--set=model.embedder_checkpoint={chosen}"]
        flags += [f"--set=split.{split}=0.3" for split in ("validation", "test")]
        flags += [
            "--set=model.preset=nano",
            "--set=model.embedder_images=1",
            "--set=model.precision=fp32",
            "--set=model.device=cpu",
        ]
        words = [str(work.folder.catalog), *flags, "--json"]
        assert CliRunner().invoke(app, ["embed", *words]).exit_code == 0
        scored = CliRunner().invoke(app, ["eval", *words, "--protocol", "composed", "--split", "test"])
        assert scored.exit_code == 0, scored.output
        own = json.loads(scored.stdout)["systems"][0]["composed"]
        for cut in ("R@1", "R@10"):
            assert test[name][cut] == pytest.approx(own["metrics"][cut])
    assert test["change"]["R@10"]["difference"] == pytest.approx(test["after"]["R@10"] - test["before"]["R@10"])
    columns, rows, _ = composed_table(found)
    assert [row[0] for row in rows] == ["validation", "test"] and len(columns) == len(rows[0])
    # Variants decide where they are about enough styles.
    monkeypatch.setattr(composed, "LEAST_PRODUCTS", 1)
    stage.ask("validation")
    again = stage.describe()
    assert again is not None and again["validation"]["asked"] == "variants" and again["validation"]["change"]
    assert again["accepted"] == (again["validation"]["after"]["R@10"] >= again["validation"]["before"]["R@10"])
    planned = [name for name, _, _ in stage.planned([("base-score", "score", 1.0)], ["validation"])]
    asked = [f"composed-{side}-{kind}" for kind in ("score", "test") for side in ("before", "after")]
    assert planned == ["base-score", "composed", "composed-score", *asked]


def test_what_it_depends_on_trains_it_anew(stage: ComposedStage) -> None:
    """And does not make another cycle of it."""
    from afmrl_cli.composed.run import COMPOSED

    folder = stage.do.work.folder
    key = cycle_key(cycle_settings(**WANTED))
    assert key == cycle_key(cycle_settings())

    def inputs(**changes: object) -> dict[str, str]:
        work = Workspace(folder, cycle_settings(**WANTED | changes), Silent())
        assert cycle_key(work.settings) == key
        return Inputs(read_catalog(work)).training(COMPOSED, work)

    before = inputs()
    for changes in (
        {"composed.steps": 3},
        {"triplets.per_product": 1},
        {"search.known_attributes": False},
        {"triplets.verdicts": ["said.csv"]},
    ):
        (folder.root / "said.csv").write_text("reference_id,target_id,verdict\nS0,S1,no\n")
        assert inputs(**changes) != before, changes
    said = inputs(**{"triplets.verdicts": ["said.csv"]})
    (folder.root / "said.csv").write_text("reference_id,target_id,verdict\nS0,S1,yes\n")
    assert inputs(**{"triplets.verdicts": ["said.csv"]}) != said
    assert inputs(**{"composed.save_every": 9}) == before


def test_what_it_would_refuse_is_refused_before_the_first_stage(whole: Whole) -> None:
    (whole[0].root / "wrong.csv").write_text("reference_id,target_id,verdict\nS0,S1,perhaps\n")
    for changes, error, words in (
        ({"composed.windows": ["close"]}, UsageError, "'close' is no window"),
        ({"triplets.verdicts": ["wrong.csv"]}, DataError, "verdict 'perhaps' is not known"),
    ):
        with pytest.raises(error, match=words):
            run_cycle(Workspace(whole[0], cycle_settings(**WANTED | changes), Silent()), dry_run=True)
    (whole[0].root / "wrong.csv").unlink()


def test_a_cycle_of_an_earlier_version_is_reported_as_before(whole: Whole, tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    place = folder.runs / whole[1].run.name
    content = read_json(place / "cycle.json")
    del content["composed"]
    (place / "cycle.json").write_text(json.dumps(content))
    assert "in red" not in write_report(place, Workspace(folder, cycle_settings(), Silent())).read_text()
