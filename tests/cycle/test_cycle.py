"""The whole loop with the built-in model: end to end, again, with other settings, by its command."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.cycle import stages
from afmrl_cli.cycle.ladder import Rung, System, judged
from afmrl_cli.cycle.records import Record
from afmrl_cli.cycle.run import Cycle, CycleSummary, run_cycle
from afmrl_cli.cycle.stages import SLACK
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock

from .shop import Heard, copied, cycle_settings, figures, rendered, run


def test_the_ladder(whole: tuple[CatalogFolder, CycleSummary]) -> None:
    folder, summary = whole
    content = summary.content
    names = [rung["name"] for rung in content["ladder"]]
    assert names == ["base", "InfoNCE", "AGCL", "SFT attributes", "RAR"]
    by_name = {rung["name"]: rung for rung in content["ladder"]}
    scored = [rung for rung in content["ladder"] if rung["score"]]
    asked = [json.loads(line)["qid"] for rung in scored for line in _lines(summary, rung)]
    once = asked[: len(asked) // len(scored)]
    assert asked == once * len(scored) and len(once) >= 4  # every rung answers the same queries
    assert by_name["InfoNCE"]["baseline"] and by_name["InfoNCE"]["against"] == by_name["AGCL"]["against"] == "base"
    assert [rung["attributes"] for rung in content["ladder"]][:4] == [False, False, False, True]
    assert by_name["SFT attributes"]["queries_with_attributes"] > 0 == by_name["AGCL"]["queries_with_attributes"]
    for rung in scored[1:]:
        change, other = rung["change"], by_name[rung["against"]]
        assert change["value"] == pytest.approx(rung["metrics"]["recall@1"])
        assert change["other"] == pytest.approx(other["metrics"]["recall@1"])
        assert change["low"] <= change["difference"] <= change["high"]
    # Else nothing here would tell one rung from another.
    assert len({round(rung["metrics"]["mrr"], 6) for rung in scored}) > 1
    for rung, metric in ((rung, metric) for rung in scored[1:] for metric in ("mrr", "recall@1")):
        now = json.loads((summary.run / "stages" / f"{rung['score'].rpartition('-')[0]}-score.json").read_text())[
            "result"
        ]
        told = by_name[rung["against"]]["metrics"][metric], scored[0]["metrics"][metric]
        assert (now["differences"][metric]["other"], now["from_base"][metric]["other"]) == pytest.approx(told)
    store = Checkpoints(folder.checkpoints)
    best = {role: store.labels().get(f"{role}:best", "") for role in ("embedder", "generator")}
    assert best == content["lineage"]
    assert content["stage_seconds"] <= content["seconds"] and all(each["peak_bytes"] for each in content["stages"])


def _lines(summary: CycleSummary, rung: dict[str, Any]) -> list[str]:
    file: Path = summary.run / "scores" / str(rung["score"]) / "per_query.jsonl"
    return file.read_text().splitlines()


def test_models_are_gone_before_the_next_stage(whole: tuple[CatalogFolder, CycleSummary], heard: Heard) -> None:
    """On any machine; on a GPU the cycle itself looks at the memory."""
    assert len(heard.alive) == 11 and set(heard.alive.values()) == {0}, heard.alive
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
    again = run_cycle(folder, cycle_settings(), heard)
    assert time.monotonic() - began < 10 and figures(again) == figures(whole[1])
    assert all(stage["done_before"] for stage in again.content["stages"])
    assert not [line for line in heard.said if line.startswith("==")]
    # A checkpoint that somebody deleted comes back under its name, and nothing that came from it is done again.
    lost = again.content["ladder"][2]["embedder"]
    weights = (folder.checkpoints / lost / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(folder.checkpoints / lost)
    heard = Heard()
    mended = run_cycle(folder, cycle_settings(), heard)
    assert [line for line in heard.said if line.startswith("==")] == ["== 1-agcl"]
    assert f"1-agcl is done again: checkpoint {lost} is gone" in heard.said
    assert (folder.checkpoints / lost / "adapter_model.safetensors").read_bytes() == weights
    assert figures(mended) == figures(again)


def test_what_a_change_does(whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    text = folder.catalog.read_text()
    folder.catalog.write_text(text.rstrip("\n").rpartition("\n")[0] + "\n")
    heard = Heard()
    plan = run_cycle(folder, cycle_settings(), heard, dry_run=True)
    assert any("base-score is done again: another catalog" in line for line in heard.said)
    assert plan.expected[0].name == "base-score" and not any(each.done for each in plan.expected)
    assert all(each.seconds is not None for each in plan.expected)
    # More rounds are the same cycle; another setting is another one, and says so.
    folder.catalog.write_text(text)
    more = run_cycle(folder, cycle_settings(**{"cycle.iterations": 2}), Silent(), dry_run=True)
    assert [each.done for each in more.expected].count(False) == 5
    assert more.run.name == whole[1].run.name
    done = run_cycle(folder, cycle_settings(), Silent(), dry_run=True)
    assert all(each.done for each in done.expected)
    other = cycle_settings(**{"agcl.learning_rate": 0.002})
    assert run_cycle(folder, other, Silent(), dry_run=True).run.name != whole[1].run.name


def test_a_dry_run_measures_what_is_not_known(tmp_path: Path) -> None:
    folder, heard = rendered(tmp_path / "shop"), Heard()
    plan = run_cycle(folder, cycle_settings(**{"cycle.iterations": 2}), heard, dry_run=True)
    assert [line for line in heard.said if line.startswith(("warning", "=="))] == []
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
        assert stages.write_attributes(folder, settings, Silent())["products"] == 8 + queries
        bare = settings.model_copy(update={"embed": settings.embed.model_copy(update={"enrich": "none"})})
        asked = [
            stages.score(folder, chosen, tmp_path / f"{protocol}-{name}", None, None, Silent())
            for name, chosen in (("with", settings), ("without", bare))
        ]
        assert [each["with_attributes"] for each in asked] == [queries, 0]
        runs = [(tmp_path / f"{protocol}-{name}" / "run-embedder.trec").read_text() for name in ("with", "without")]
        assert runs[0] != runs[1]


def scored(figure: float) -> Record:
    return Record(
        "x-score", "score", "f", {}, {"metrics": {"recall@1": figure}, "differences": {}, "from_base": {}}, 1.0, 1, 0.0
    )


def test_a_rung_that_falls_is_kept_out() -> None:
    last = Rung("base", 0, System(), scored(0.5))
    for figure, keep_worse, kept, noted in ((0.6, False, True, ""), (0.5, False, True, ""), (0.4, True, True, "fell")):
        rung = judged(Rung("AGCL", 1, System("e"), scored(figure), "base"), last, "recall@1", keep_worse=keep_worse)
        assert rung.kept == kept and noted in rung.note
    rung = judged(Rung("AGCL", 1, System("e"), scored(0.4), "base"), last, "recall@1", keep_worse=False)
    assert not rung.kept and "goes on from base" in rung.note


@pytest.mark.parametrize(
    ("climbs", "rounds", "stopped"),
    [
        ([0.5, 0.4, 0.5, 0.6], 2, "rounds 1 and 2 brought nothing"),
        ([0.6, 0.5, 0.7, 0.7, 0.6], 5, "rounds 4 and 5 brought nothing"),
        ([0.5, 0.6, 0.6, 0.7], 4, ""),
    ],
)
def test_two_idle_rounds_end_it(
    climbs: list[float], rounds: int, stopped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds' figures are given: what follows from them is decided by the cycle."""
    folder = rendered(tmp_path / "shop", 4)
    number = len(climbs) + (2 if rounds == 5 else 0)
    settings = cycle_settings(**{"cycle.iterations": number, "cycle.sft": "no", "cycle.keep_worse": False})
    figures = iter([*climbs, *([climbs[-1]] * 2)])
    monkeypatch.setattr(Cycle, "_score", lambda self, stage, system, last: scored(0.5))

    def climb(self: Cycle, number: int) -> None:
        rung = Rung(f"round {number}", number, System(), scored(next(figures)), self.last.name)
        self.ladder.append(judged(rung, self.last, "recall@1", keep_worse=False))

    monkeypatch.setattr(Cycle, "_round", climb)
    cycle = Cycle(folder, settings, Silent(), dry=True)
    assert cycle._rounds() == stopped
    assert len(cycle.ladder) - 1 == rounds


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
def test_where_right_answers_come_from(changes: dict[str, object], source: str, tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop", 4)
    (folder.root / "right.csv").write_text("id,attributes\nL00001,colour: red\n", "utf-8")
    assert Cycle(folder, cycle_settings(**changes), Silent(), dry=True).targets == source


def test_a_generator_that_unlearnt_to_answer_is_left_out(tmp_path: Path) -> None:
    """Nothing could be trained on what it writes: the cycle goes on with the one that it had."""
    folder = rendered(tmp_path / "shop", 8)
    heard = Heard()
    cycle = Cycle(folder, cycle_settings(**{"sft.learning_rate": 10.0}), heard, dry=False)
    assert cycle._teach("") == ("", False)
    assert "SFT is left out: no answer of the taught generator is valid" in heard.said[-1]


def test_what_is_refused(whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path) -> None:
    folder = whole[0]
    for changes, words in (
        ({"embed.enrich": "none"}, "needs attributes"),
        ({"cycle.metric": "recall@7"}, "not measured"),
        ({"model.embedder_checkpoint": "latest"}, "the label moves"),
        ({"cycle.sft": "yes"}, "named teacher"),
    ):
        with pytest.raises(UsageError, match=words):
            run(folder, **changes)
    # flock is per open file, so that one process serves as two.
    with writer_lock(folder.store, "afmrl embed"), pytest.raises(DataError, match=r"afmrl embed \(process"):
        run(folder)
    result = CliRunner().invoke(app, ["cycle", str(folder.catalog), "--iterations", "0", "--json"])
    assert result.exit_code == 2 and "cycle.iterations" in json.loads(result.stdout)["error"]["message"]


def test_the_command(whole: tuple[CatalogFolder, CycleSummary], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    settings = cycle_settings(**{"cycle.iterations": 2}).model_dump(exclude_defaults=True)
    flags = [f"--set={section}.{key}={value}" for section, told in settings.items() for key, value in told.items()]
    result = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags, "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    # A second round is the same cycle: what the first has done stands, and the second goes on from it.
    assert content["schema"] == "afmrl.cycle/1" and content["ladder"][:5] == whole[1].content["ladder"]
    agcl, rar = content["ladder"][5:]
    assert (agcl["name"], rar["name"]) == ("round 2: AGCL", "round 2: RAR")
    store, first = Checkpoints(folder.checkpoints), content["ladder"][2]["embedder"]
    trained = store.get(agcl["embedder"])
    assert trained.parent == first and trained.settings["agcl"]["share"] == 0.5
    assert trained.settings["agcl"]["seed"] == store.get(first).settings["agcl"]["seed"] + 1
    told = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags])
    assert "round 2: AGCL" in told.stdout and "kept: embedder" in told.stdout
    plan = CliRunner().invoke(app, ["cycle", str(folder.catalog), *flags, "--dry-run"])
    assert "all is done" in plan.stdout
    told = CliRunner().invoke(app, ["report", str(folder.catalog), "--json"])
    page = Path(json.loads(told.stdout)["file"]).read_text()
    assert all(rung["name"] in page for rung in content["ladder"]) and "data:image/jpeg" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert page.count("Before: base") >= min(20, len(_lines(whole[1], content["ladder"][0])))
    assert "Gained most" in page or "Lost most" in page or "Unchanged" in page
    assert "no cycle x" in CliRunner().invoke(app, ["report", str(folder.catalog), "--run", "x"]).stderr
    # Said of the last rung only where it is true.
    *others, last = [rung["metrics"]["recall@1"] for rung in content["ladder"] if rung["score"]]
    assert ("Higher was" in page) == (max(others) > last) != ("It is the best of the rungs" in page)
    shown = CliRunner().invoke(app, ["checkpoints", "show", "embedder:best", "-c", str(folder.root)])
    assert "rungs of cycles: cycle-" in shown.stdout
    assert content["number"] == 1 and "The mask is off (agcl.mask = false): nothing was masked." in page
    # Whether there was a mask is the cycle's setting, not that of the command that writes the page.
    chosen = folder.runs / whole[1].run.name / "settings.json"
    chosen.write_text(chosen.read_text().replace('"mask": false', '"mask": true'))
    CliRunner().invoke(app, ["report", str(folder.catalog)])
    page = Path(json.loads(told.stdout)["file"]).read_text()
    assert "Masked: products in a batch that were more similar" in page and "The mask is off" not in page
    document = folder.runs / whole[1].run.name / "cycle.json"
    document.write_text(document.read_text()[:100])
    broken = CliRunner().invoke(app, ["report", str(folder.catalog)])
    assert broken.exit_code == 3 and "cycle.json: damaged" in broken.stderr and "remove this file" in broken.stderr
