"""The whole loop with the built-in model: end to end, again, with other settings, by its command."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.app import app
from afmrl_cli.cycle import stages
from afmrl_cli.cycle.records import Record
from afmrl_cli.cycle.report import write_report
from afmrl_cli.cycle.run import Cycle, CycleSummary, run_cycle
from afmrl_cli.cycle.stage_results import StageResult, System, accept, chosen_settings, shows
from afmrl_cli.cycle.stage_work import StageWork
from afmrl_cli.cycle.stages import SLACK
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from afmrl_cli.store.training_products import training_products
from afmrl_cli.workspace import Workspace

from ..store.adapters import adapter, manifest
from .shop import Heard, copied, cycle_settings, metrics, rendered, run


def test_stages_are_chosen_on_validation_and_reported_on_test(
    whole: tuple[CatalogFolder, CycleSummary], heard: Heard
) -> None:
    folder, summary = whole
    content = summary.content
    results = content["leaderboard"]
    assert [stage["name"] for stage in results] == ["base", "InfoNCE", "AGCL", "SFT attributes", "RAR"]
    assert content["shows"][0].startswith("a query shows a whole listing; searched are all other listings")
    assert content["shows"][1].endswith("stages with attributes have them on the query")
    by_name = {stage["name"]: stage for stage in results}
    assert by_name["InfoNCE"]["baseline"] and by_name["InfoNCE"]["against"] == by_name["AGCL"]["against"] == "base"
    assert [stage["attributes"] for stage in results][:4] == [False, False, False, True]
    sides = {p.id: split_of(p, cycle_settings().split) for p in read_products(folder, CatalogSettings(), Problems())}
    for split in ("validation", "test"):
        scored = [stage for stage in results if stage[split]]
        queried = [query for stage in scored for query in _queries(summary, stage[split])]
        once = queried[: len(queried) // len(scored)]
        assert queried == once * len(scored) and len(once) >= 4  # every stage answers the same queries
        assert {sides[query] for query in once} == {split}
        _check_changes(summary, scored, split)
    # Else nothing here would tell one stage from another.
    kept = (summary.run / "scores" / stage["test"]["score"] for stage in results if stage["test"])
    assert len({(place / "run-embedder.trec").read_text() for place in kept}) >= 4
    attributes = [by_name[name]["test"]["queries_with_attributes"] for name in ("AGCL", "SFT attributes")]
    assert attributes[0] == 0 < attributes[1]
    # The test split is scored when nothing is left to decide.
    last = [i for i, name in enumerate(heard.done) if not name.endswith("-test")][-1]
    assert heard.done[last + 1 :] == [f"{key}-test" for key in ("base", "1-infonce", "1-agcl", "1-attributes", "1-rar")]
    store = Checkpoints(folder.checkpoints)
    best = {role: store.labels().get(f"{role}:best", "") for role in ("embedder", "generator")}
    assert best == content["lineage"]
    assert content["stage_seconds"] <= content["seconds"] and all(each["peak_bytes"] for each in content["stages"])


def _check_changes(summary: CycleSummary, scored: list[dict[str, Any]], split: str) -> None:
    by_name = {stage["name"]: stage[split] for stage in scored}
    for stage in scored[1:]:
        scores, other = stage[split], by_name[stage["against"]]
        change = scores["change"]
        assert change["value"] == pytest.approx(scores["metrics"]["recall@1"])
        assert change["other"] == pytest.approx(other["metrics"]["recall@1"])
        assert change["low"] <= change["difference"] <= change["high"]
        record = json.loads((summary.run / "stages" / f"{scores['score'].rpartition('-')[0]}.json").read_text())
        for metric in ("mrr", "recall@1"):
            expected = other["metrics"][metric], scored[0][split]["metrics"][metric]
            found = (record["result"][to][metric]["other"] for to in ("differences", "from_base"))
            assert tuple(found) == pytest.approx(expected)


def _queries(summary: CycleSummary, scores: dict[str, Any]) -> list[str]:
    file: Path = summary.run / "scores" / str(scores["score"]) / "per_query.jsonl"
    return [str(json.loads(line)["qid"]) for line in file.read_text().splitlines()]


def test_no_test_figure_is_shown_before_all_is_decided(
    whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path
) -> None:
    """Though they are stored, of the same cycle with fewer rounds."""
    folder = copied(whole[0], tmp_path / "shop")
    (folder.runs / whole[1].run.name / "stages" / "1-rar.json").unlink()

    class Stopping(Heard):
        def note(self, message: str) -> None:
            super().note(message)
            if message == "== 1-rar":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, Stopping())
    content = json.loads((folder.runs / whole[1].run.name / "cycle.json").read_text())
    assert content["status"] == "running"
    assert [(bool(stage["validation"]), stage["test"]) for stage in content["leaderboard"]] == [(True, None)] * 4
    page = write_report(folder.runs / whole[1].run.name, Workspace(folder, cycle_settings(), Silent())).read_text()
    assert "Not scored yet" in page and "queries of the validation split" in page


def test_models_are_gone_before_the_next_stage(whole: tuple[CatalogFolder, CycleSummary], heard: Heard) -> None:
    """On any machine; on a GPU the cycle itself looks at the memory."""
    assert len(heard.alive) == 17 and set(heard.alive.values()) == {0}, heard.alive
    assert not [line for line in heard.said if "did not come back" in line]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_memory_comes_back(tmp_path: Path) -> None:
    folder, heard = rendered(tmp_path / "shop"), Heard()
    before = torch.cuda.memory_allocated()
    run(folder, heard, **{"model.device": "cuda", "model.precision": "bf16", "cycle.infonce": False})
    assert torch.cuda.memory_allocated() - before < SLACK
    assert not [line for line in heard.said if "did not come back" in line]


def test_a_finished_cycle_is_not_done_again(whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    heard, began = Heard(), time.monotonic()
    again = run_cycle(Workspace(folder, cycle_settings(), heard))
    assert time.monotonic() - began < 10 and metrics(again) == metrics(whole[1])
    assert all(stage["done_before"] for stage in again.content["stages"])
    assert not [line for line in heard.said if line.startswith("==")]
    # A checkpoint that was deleted comes back under its name, and nothing that came from it is done again.
    lost = again.content["leaderboard"][2]["embedder"]
    weights = (folder.checkpoints / lost / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(folder.checkpoints / lost)
    heard = Heard()
    mended = run_cycle(Workspace(folder, cycle_settings(), heard))
    assert [line for line in heard.said if line.startswith("==")] == ["== 1-agcl"]
    assert f"1-agcl is done again: checkpoint {lost} is gone" in heard.said
    assert (folder.checkpoints / lost / "adapter_model.safetensors").read_bytes() == weights
    assert metrics(mended) == metrics(again)


def test_what_a_change_does(whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    text = folder.catalog.read_text()
    folder.catalog.write_text(text.rstrip("\n").rpartition("\n")[0] + "\n")
    heard = Heard()
    plan = run_cycle(Workspace(folder, cycle_settings(), heard), dry_run=True)
    assert any("base-score is done again: another catalog" in line for line in heard.said)
    assert plan.expected[0].name == "base-score" and not any(each.done for each in plan.expected)
    assert all(each.seconds is not None for each in plan.expected)
    # More rounds are the same cycle; another setting is another one, and says so.
    folder.catalog.write_text(text)
    more = run_cycle(Workspace(folder, cycle_settings(**{"cycle.iterations": 2}), Silent()), dry_run=True)
    assert [each.done for each in more.expected].count(False) == 7  # two of them on the test split, at the end
    assert more.run.name == whole[1].run.name
    done = run_cycle(Workspace(folder, cycle_settings(), Silent()), dry_run=True)
    assert all(each.done for each in done.expected)
    other = cycle_settings(**{"agcl.learning_rate": 0.002})
    assert run_cycle(Workspace(folder, other, Silent()), dry_run=True).run.name != whole[1].run.name


@pytest.mark.slow
def test_a_dry_run_measures_what_is_not_known(tmp_path: Path) -> None:
    folder, heard = rendered(tmp_path / "shop"), Heard()
    plan = run_cycle(Workspace(folder, cycle_settings(**{"cycle.iterations": 2}), heard), dry_run=True)
    assert [line for line in heard.said if line.startswith(("warning", "==")) and "too few to decide" not in line] == []
    assert all(each.measured and each.seconds and each.peak_bytes and not each.done for each in plan.expected)
    seconds = {each.name: each.seconds or 0.0 for each in plan.expected}
    assert seconds["2-agcl"] == pytest.approx(seconds["1-agcl"] * 0.5)
    assert not Checkpoints(folder.checkpoints).list() and not plan.run.exists()
    with Database(folder.database) as database:
        assert database.attribute_sources() == {}


def test_queries_that_are_no_listings_have_attributes_of_their_own(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop", 4)
    for protocol, queries in (("queries", 4), ("photo", 8)):
        settings = cycle_settings(**{"split.test": 0.99, "split.validation": 0.0, "cycle.protocol": protocol})
        assert stages.write_attributes(Workspace(folder, settings, Silent()), ["test"])["products"] == 8 + queries
        bare = settings.model_copy(update={"embed": settings.embed.model_copy(update={"enrich": "none"})})
        queried = [
            stages.score(Workspace(folder, chosen, Silent()), "test", tmp_path / f"{protocol}-{name}", (None, None))
            for name, chosen in (("with", settings), ("without", bare))
        ]
        assert [each["with_attributes"] for each in queried] == [queries, 0]
        runs = [(tmp_path / f"{protocol}-{name}" / "run-embedder.trec").read_text() for name in ("with", "without")]
        assert runs[0] != runs[1]


def scored(value: float, products: int = 40) -> Record:
    result = {"metrics": {"recall@1": value}, "groups": products, "differences": {}, "from_base": {}}
    return Record("x-score", "score", "f", {}, result, 1.0, 1, 0.0)


def decided(value: float, products: int = 40, *, keep_worse: bool = False, undecided: str = "accept") -> StageResult:
    last = StageResult("base", 0, System(), "base", scored(0.5, products))
    result = StageResult("AGCL", 1, System("e"), "1-agcl", scored(value, products), "base")
    return accept(result, last, "recall@1", keep_worse=keep_worse, undecided=undecided)


def test_a_stage_that_falls_is_rejected() -> None:
    for value, keep_worse, accepted, noted in (
        (0.6, False, True, ""),
        (0.5, False, True, ""),
        (0.4, True, True, "fell"),
    ):
        result = decided(value, keep_worse=keep_worse)
        assert result.accepted == accepted and noted in result.note
    result = decided(0.4)
    assert not result.accepted and "goes on from base" in result.note


def test_what_is_shown_names_the_fields_that_the_settings_narrow_it_to() -> None:
    record = scored(0.5)
    record.result["protocol"] = "identity"
    results = [StageResult("base", 0, System(), "base", record)]
    whole = shows(cycle_settings(), results)
    narrow = shows(cycle_settings(**{"eval.query_fields": "photos", "eval.gallery_fields": "text"}), results)
    assert narrow == [
        whole[0],
        "of that the fields that are set: eval.query_fields = photos, eval.gallery_fields = text",
        whole[1],
    ]


def test_what_was_chosen_goes_without_attributes_where_no_stage_with_them_was_accepted() -> None:
    lineage = {"embedder": "embedder-1", "generator": ""}
    assert chosen_settings({"lineage": lineage, "attributes": True}) == ["model.embedder_checkpoint=embedder-1"]
    assert chosen_settings({"lineage": lineage, "attributes": False})[1:] == ["embed.enrich=none"]


@pytest.mark.parametrize("value", [0.4, 0.6])
def test_where_validation_is_too_small_the_user_decides(value: float) -> None:
    """And not a handful of products."""
    result = decided(value, 19)
    assert result.accepted and "about 19 products, too few to decide by (20): accepted undecided" in result.note
    assert not decided(value, 19, undecided="reject").accepted
    assert not decided(value, 20).note or value < 0.5
    nothing = StageResult("AGCL", 1, System("e"), "1-agcl", None, "base")
    last = StageResult("base", 0, System(), "base", None)
    assert "about 0 products" in accept(nothing, last, "recall@1", keep_worse=False, undecided="accept").note


def test_a_shop_without_a_validation_split_is_warned_of_and_reported(tmp_path: Path) -> None:
    """RAR needs held-out queries, and says so before the first stage."""
    folder, heard = rendered(tmp_path / "shop", 8), Heard()
    with pytest.raises(DataError, match="the validation split has 0 queries"):
        run(folder, heard, **{"split.validation": 0.0})
    assert heard.done == ["checks"]


def test_a_start_that_saw_test_products_is_reported_before_the_first_stage(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop")
    products = list(read_products(folder, CatalogSettings(), Problems()))
    test = [p for p in products if split_of(p, cycle_settings().split) == "test"]
    rest = [p for p in products if p not in test]
    store, source = Checkpoints(folder.checkpoints), adapter(tmp_path / "adapter")
    same = [p for p in test if p.identity == test[0].identity]
    for seen, known in ((rest, True), (rest + same[:1], True), (rest, False)):
        found = replace(training_products([(p.id, p.identity) for p in seen], []), complete=known)
        store.add(source, manifest("embedder", products=found.written()))
    said = []
    for name in ("", "embedder-1", "embedder-2", "embedder-3"):
        heard = Heard()
        Cycle(Workspace(folder, cycle_settings(**{"model.embedder_checkpoint": name}), heard), dry=True)._tell_sizes()
        said.append([line for line in heard.said if "flatter" in line])
    some = f"embedder-2 saw {len(same)} of the {len(test)} test listings in training: the test metrics flatter"
    unknown = "what embedder-3 saw in training is not known in full: the test metrics may flatter"
    assert len(test) > len(same) and said == [[], [], [f"warning: {some}"], [f"warning: {unknown}"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rar.k": 500}, "recall@500 would always be 1"),
        ({"agcl.batch_size": 500}, "fewer than agcl.batch_size = 500"),
        ({"cycle.sft": "yes", "sft.columns": ["attr_size"]}, "sft.columns"),
    ],
)
def test_what_a_later_stage_refuses_is_refused_before_the_first(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    folder = rendered(tmp_path / "shop")
    for dry in (True, False):
        heard = Heard()
        with pytest.raises((DataError, UsageError), match=said):
            run_cycle(Workspace(folder, cycle_settings(**changes), heard), dry_run=dry)
        assert not [name for name in heard.done if name != "checks"]


@pytest.mark.parametrize(
    ("climbs", "rounds", "stopped"),
    [
        ([0.5, 0.4, 0.5, 0.6], 2, "rounds 1 and 2 brought nothing"),
        ([0.6, 0.5, 0.7, 0.7, 0.6], 5, "rounds 4 and 5 brought nothing"),
        ([0.5, 0.6, 0.6, 0.7], 4, ""),
    ],
)
def test_two_idle_rounds_end_it(
    climbs: list[float], rounds: int, stopped: str, small: CatalogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds' figures are given: what follows from them is decided by the cycle."""
    number = len(climbs) + (2 if rounds == 5 else 0)
    settings = cycle_settings(**{"cycle.iterations": number, "cycle.sft": "no", "cycle.keep_worse": False})
    metrics = iter([*climbs, *([climbs[-1]] * 2)])
    monkeypatch.setattr(Cycle, "_score", lambda self, key, system, last: scored(0.5))

    def one_round(self: Cycle, number: int) -> None:
        result = StageResult(f"round {number}", number, System(), "x", scored(next(metrics)), self.last.name)
        self.results.append(accept(result, self.last, "recall@1", keep_worse=False, undecided="accept"))

    monkeypatch.setattr(Cycle, "_round", one_round)
    cycle = Cycle(Workspace(small, settings, Silent()), dry=True)
    assert cycle._rounds() == stopped
    assert len(cycle.results) - 1 == rounds


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({}, "columns"),
        ({"sft.columns": ["attr_colour"]}, "columns"),
        ({"sft.file": "right.csv"}, "file"),
        ({"sft.teacher": "qwen2.5-vl-72b-instruct"}, ""),  # it has written nothing yet
        ({"cycle.sft": "no"}, ""),
    ],
)
def test_where_right_answers_come_from(changes: dict[str, object], source: str, small: CatalogFolder) -> None:
    (small.root / "right.csv").write_text("id,attributes\nL00001,colour: red\n", "utf-8")
    assert Cycle(Workspace(small, cycle_settings(**changes), Silent()), dry=True).targets == source


def test_a_generator_that_unlearnt_to_answer_or_got_worse_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cycle goes on with the one that it had, and its leaderboard says so."""
    folder = rendered(tmp_path / "shop", 8)
    heard = Heard()
    cycle = Cycle(Workspace(folder, cycle_settings(**{"sft.learning_rate": 10.0}), heard), dry=False)
    cycle.results.append(StageResult("base", 0, System()))
    assert cycle._teach("") == ("", "attributes")
    assert "SFT is left out: no answer of the taught generator is valid" in heard.said[-1]

    worse = {"checkpoint": "generator-1", "before": {"accuracy": 0.5}, "metrics": {"accuracy": 0.4, "valid": 1.0}}
    monkeypatch.setattr(StageWork, "train", lambda *_: worse)
    assert cycle._teach("") == ("generator-1", "SFT attributes"), "cycle.keep_worse"
    kept = cycle.settings.cycle.model_copy(update={"keep_worse": False})
    cycle.settings = cycle.settings.model_copy(update={"cycle": kept})
    assert cycle._teach("") == ("", "attributes") and not cycle.results[-1].accepted
    content = json.loads((cycle.place / "cycle.json").read_text())
    assert "validation accuracy fell from 0.500 to 0.400" in content["leaderboard"][-1]["note"]


def test_what_is_refused(small: CatalogFolder) -> None:
    folder = small
    for changes, words in (
        ({"embed.enrich": "none"}, "needs attributes"),
        ({"cycle.metric": "recall@7"}, "not measured"),
        ({"model.embedder_checkpoint": "latest"}, "the label moves"),
        ({"cycle.sft": "yes", "sft.source": "teacher"}, "named teacher"),
    ):
        with pytest.raises(UsageError, match=words):
            run(folder, **changes)
    # flock is per open file, so that one process serves as two.
    with writer_lock(folder.store, "afmrl embed"), pytest.raises(DataError, match=r"afmrl embed \(process"):
        run(folder)
    result = CliRunner().invoke(app, ["cycle", str(folder.catalog), "--iterations", "0", "--json"])
    assert result.exit_code == 2 and "--iterations" in json.loads(result.stdout)["error"]["message"]


def test_rar_is_kept_out_where_there_is_too_little_to_learn(
    whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path
) -> None:
    """All answers to a query are the same, whatever the generator knows; again, nothing is done again."""
    folder = copied(whole[0], tmp_path / "shop")
    changes = {"rar.temperature": 1e-6, "rar.least_spread": 0.2, "cycle.infonce": False}
    work, again = Workspace(folder, cycle_settings(**changes), Heard()), Heard()
    summary = run_cycle(work)
    assert metrics(run_cycle(replace(work, listener=again))) == metrics(summary) and not again.done
    *others, rar = summary.content["leaderboard"]
    assert (rar["name"], rar["accepted"], rar["validation"], rar["test"]) == ("RAR", False, None, None)
    assert rar["note"].startswith("skipped: RAR has too little to learn here: of ")
    assert [stage["name"] for stage in others] == ["base", "AGCL", "SFT attributes"]
    assert "RAR has too little to learn here" in (summary.run / "report.html").read_text()


def test_the_command(whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    settings = cycle_settings(**{"cycle.iterations": 2}).model_dump(exclude_defaults=True)
    flags = [f"--set={section}.{key}={value}" for section, own in settings.items() for key, value in own.items()]
    result = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags, "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    # A second round is the same cycle: what the first has done stands, and the second goes on from it.
    assert content["schema"] == "afmrl.cycle/2" and content["leaderboard"][:5] == whole[1].content["leaderboard"]
    agcl, rar = content["leaderboard"][5:]
    assert (agcl["name"], rar["name"]) == ("round 2: AGCL", "round 2: RAR")
    store, first = Checkpoints(folder.checkpoints), content["leaderboard"][2]["embedder"]
    trained = store.get(agcl["embedder"])
    assert trained.parent == first and trained.settings["agcl"]["share"] == 0.5
    assert trained.settings["agcl"]["seed"] == store.get(first).settings["agcl"]["seed"] + 1
    done = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags])
    assert "round 2: AGCL" in done.stdout and "chosen: embedder" in done.stdout
    assert "validation, by which stages were accepted" in done.stdout and "test, not used for choosing" in done.stdout
    plan = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags, "--dry-run"])
    assert "all is done" in plan.stdout
    done = CliRunner().invoke(app, ["report", str(folder.catalog), "--json"])
    page = Path(json.loads(done.stdout)["file"]).read_text()
    assert all(stage["name"] in page for stage in content["leaderboard"]) and "data:image/jpeg" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert page.count("Before: base") >= min(20, len(_queries(whole[1], content["leaderboard"][0]["test"])))
    assert "Not used for choosing: scored once" in page and "too few to decide by" in page
    assert "Gained most" in page or "Lost most" in page or "Unchanged" in page
    assert "no cycle x" in CliRunner().invoke(app, ["report", str(folder.catalog), "--run", "x"]).stderr
    # Said only where it is true.
    *others, last = [stage["test"]["metrics"]["recall@1"] for stage in content["leaderboard"] if stage["test"]]
    assert ("Higher on these was" in page) == (max(others) > last)
    shown = CliRunner().invoke(app, ["checkpoints", "show", "embedder:best", "-c", str(folder.root)])
    assert "stages of cycles: cycle-" in shown.stdout
    assert content["number"] == 1 and "The mask is off (agcl.mask = false): nothing was masked." in page
    # Whether there was a mask is the cycle's setting, not that of the command that writes the page.
    chosen = folder.runs / whole[1].run.name / "settings.json"
    chosen.write_text(chosen.read_text().replace('"mask": false', '"mask": true'))
    CliRunner().invoke(app, ["report", str(folder.catalog)])
    page = Path(json.loads(done.stdout)["file"]).read_text()
    assert "Masked: products in a batch that were more similar" in page and "The mask is off" not in page
    document = folder.runs / whole[1].run.name / "cycle.json"
    document.write_text(document.read_text()[:100])
    broken = CliRunner().invoke(app, ["report", str(folder.catalog)])
    assert broken.exit_code == 3 and "cycle.json: damaged" in broken.stderr and "remove this file" in broken.stderr
