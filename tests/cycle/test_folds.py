"""A cycle in folds: who learns from what, told from the records of the store, and shops that are too small for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from afmrl_cli.attributes.views import LISTING, AttributeSource, StoredViews
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.app import app
from afmrl_cli.cycle import folds, stages
from afmrl_cli.cycle.folds import fold_sizes, folds_lines
from afmrl_cli.cycle.plan import planned
from afmrl_cli.cycle.run import CycleSummary, run_cycle
from afmrl_cli.errors import DataError
from afmrl_cli.listener import Silent
from afmrl_cli.rar import environment
from afmrl_cli.rar import run as rar_run
from afmrl_cli.rar.environment import Environments
from afmrl_cli.settings import CatalogSettings, Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lineage import checkpoint_of
from afmrl_cli.training import corpus as training_corpus
from afmrl_cli.training import run as agcl_run
from afmrl_cli.training.corpus import Corpus
from afmrl_cli.workspace import Workspace

from ..conftest import kill_once
from .shop import Heard, cycle_settings, metrics, rendered, run

FLAGS: dict[str, Any] = {
    "cycle.folds": "auto",
    "cycle.iterations": 2,
    "cycle.share": 0.3,
    "cycle.infonce": False,
    "agcl.batch_size": 2,
    "agcl.steps": 3,
    "agcl.validate_every": 3,
    "split.validation": 0.2,
    "split.test": 0.1,
}
PRODUCTS = 24


@pytest.fixture(scope="module")
def small_folds() -> Iterator[None]:
    """Folds of two products will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "LEAST", 2)
        yield


@dataclass
class Divided:
    """A cycle in folds, what AGCL was trained on in each round, and what RAR asked."""

    folder: CatalogFolder
    summary: CycleSummary
    heard: Heard = field(default_factory=Heard)
    corpora: list[tuple[Workspace, Corpus]] = field(default_factory=list)
    environments: list[Environments] = field(default_factory=list)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory, small_folds: None) -> Divided:
    folder = rendered(tmp_path_factory.mktemp("divided"), PRODUCTS)
    made = Divided(folder, CycleSummary(folder.root, ""))
    with pytest.MonkeyPatch.context() as patch:
        load, make = training_corpus.load_corpus, environment.make_environments

        def load_corpus(work: Workspace, *arguments: Any) -> Corpus:
            made.corpora.append((work, load(work, *arguments)))
            return made.corpora[-1][1]

        def make_environments(*arguments: Any) -> Environments:
            made.environments.append(make(*arguments))
            return made.environments[-1]

        patch.setattr(agcl_run, "load_corpus", load_corpus)
        patch.setattr(rar_run, "make_environments", make_environments)
        made.summary = run(folder, made.heard, **FLAGS)
    return made


@pytest.mark.slow
def test_no_product_is_described_to_agcl_by_a_generator_that_learnt_from_it(divided: Divided) -> None:
    store = Checkpoints(divided.folder.checkpoints)
    seen = {each.name: each.training_products() for each in store.list()}
    products = {p.id: p for p in read_products(divided.folder, CatalogSettings(), Problems())}
    assert len(divided.corpora) == 2
    for work, corpus in divided.corpora:
        others = set[str]()
        with work.database() as database, Fingerprinter(database) as fingerprinter:
            for listing in corpus.train:
                written = set()
                for id in database.attribute_sources():
                    views = StoredViews(database, fingerprinter, AttributeSource(id, work.task.id, 1))
                    if views.attributes([products[listing.id]])[0] == listing.attributes.get(LISTING, "") != "":
                        written.add(checkpoint_of(id, list(seen)))
                known = {name: seen[name] for name in written}
                learnt = {n for n, own in known.items() if own and own.trained_on(listing.id, listing.identity)}
                assert not listing.attributes or written - learnt, f"{listing.id}: {written}"
                others |= written - learnt
        assert corpus.num_with_attributes == sum(corpus.generators.values()) > 0
        assert {checkpoint_of(id, list(seen)) for id in corpus.generators} <= others
    rounds = [set(corpus.generators) for _, corpus in divided.corpora]
    assert len(rounds[0]) == 2 and len(rounds[1]) == 1, "the halves' generators, then the one of the cycle"
    manifest = store.get(divided.summary.content["leaderboard"][1]["embedder"])
    assert set(manifest.inputs.values()) >= rounds[0] and manifest.settings["plan"]["part"]["folds"] == ["a", "b"]


@pytest.mark.slow
def test_rar_asks_about_products_that_neither_sft_nor_agcl_learnt_from(divided: Divided) -> None:
    store, identities = Checkpoints(divided.folder.checkpoints), {}
    for product in read_products(divided.folder, CatalogSettings(), Problems()):
        identities[product.id] = product.identity
    taught = store.get("generator-1").training_products()
    embedders = [store.get(stage["embedder"]) for stage in divided.summary.content["leaderboard"] if stage["embedder"]]
    seen = [taught, *(each.training_products() for each in embedders[:1])]
    asked = {query.id for environments in divided.environments for query in environments.train.queries}
    assert len(divided.environments) == 2 and len(asked) >= 5
    for id in asked:
        assert not any(own is not None and own.trained_on(id, identities[id]) for own in seen), id
    later = {listing.id for listing in divided.corpora[1][1].train}
    assert later and not later & asked
    ids = {divided.environments[1].train.gallery[i].listing for i in range(len(divided.environments[1].train.gallery))}
    assert len(ids) < len(identities), "what is kept for later rounds stands in no gallery"


@pytest.mark.slow
def test_the_second_round_learns_from_other_products_at_a_lower_rate_after_a_rest(divided: Divided) -> None:
    (_, first), (_, second) = divided.corpora
    assert not {each.identity for each in first.train} & {each.identity for each in second.train}
    store, board = Checkpoints(divided.folder.checkpoints), divided.summary.content["leaderboard"]
    trained = [store.get(board[i]["embedder"]) for i in (1, 4)]
    plans = [each.settings["plan"] for each in trained]
    assert plans[1]["steps_per_epoch"] >= 3 and plans[1]["part"]["folds"] == ["later"]
    assert plans[1]["learning_rate"] == pytest.approx(plans[0]["learning_rate"] / 3)
    assert [each.settings["agcl"]["warmup"] for each in trained] == [0.1, 0.3]
    assert trained[1].settings["agcl"]["share"] == 1, "the fold is the share"


@pytest.mark.slow
def test_folds_are_reported_and_the_stages_planned(divided: Divided) -> None:
    content = divided.summary.content["folds"]
    products = {
        p.identity
        for p in read_products(divided.folder, CatalogSettings(), Problems())
        if split_of(p, cycle_settings(**FLAGS).split) == "train"
    }
    assert sum(content["sizes"].values()) == len(products) and set(content["sizes"]) == {"a", "b", "asked", "later"}
    assert content["words"] in divided.heard.said and content["notes"] == []
    assert content["words"] in (divided.summary.run / "report.html").read_text()
    began = ["checks", "base-score", "1-sft", "1-attributes", "1-sft-a", "1-sft-b", "1-attributes-a", "1-attributes-b"]
    assert divided.heard.done[: len(began) + 1] == [*began, "1-agcl"]
    plan = run_cycle(Workspace(divided.folder, cycle_settings(**FLAGS), Silent()), dry_run=True)
    assert [each.name for each in plan.expected] == [name for name in divided.heard.done if name != "checks"]
    assert all(each.done for each in plan.expected) and plan.content["folds"] == content


@pytest.mark.slow
def test_killed_among_the_folds_it_goes_on_to_the_same_metrics(divided: Divided, tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop", PRODUCTS)
    for stage in ("1-sft-b", "1-attributes-a", "2-agcl"):
        kill_once(lambda stage=stage: _begun(folder, stage), lambda: run(folder, **FLAGS))  # type: ignore[misc]
    assert metrics(run(folder, **FLAGS)) == metrics(divided.summary)


def _begun(folder: CatalogFolder, stage: str) -> list[Path]:
    """Look whether the stage before `stage` is over and a training, or the writing, has begun."""
    before = {"1-sft-b": "1-sft-a", "1-attributes-a": "1-sft-b", "2-agcl": "1-rar-score"}[stage]
    return list(folder.runs.glob(f"cycle-*/stages/{before}.json"))


def sizes(products: int, **changes: Any) -> tuple[dict[str, int], int, list[str]]:
    settings: Settings = cycle_settings(**{"cycle.folds": "auto", "agcl.batch_size": 0, **changes})
    found, rounds, notes = fold_sizes(products, settings)
    return {str(fold): size for fold, size in found.items()}, rounds, notes


def test_how_a_shop_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "LEAST", 20)
    two = {"cycle.iterations": 2, "cycle.share": 0.3}
    assert sizes(1000) == ({"a": 375, "b": 375, "asked": 250}, 1, [])
    assert sizes(1000, **two) == ({"a": 225, "b": 225, "asked": 250, "later": 300}, 2, [])
    assert sizes(60) == ({"a": 20, "b": 20, "asked": 20}, 1, [])
    small, rounds, notes = sizes(59, **two)
    assert (small, rounds) == ({}, 1) and "59 training products are too few to divide in folds (60)" in notes[0]
    assert "rounds after the first are left out" in notes[1] and len(notes) == 2
    middle, rounds, notes = sizes(100, **two)
    assert middle == {"a": 38, "b": 37, "asked": 25} and rounds == 1 and "3 batches of 16" in notes[0]
    assert sizes(1000, **two, **{"agcl.batch_size": 128})[1] == 1, "384 products, and 366 would stay"
    undivided, rounds, notes = sizes(59, **two, **{"cycle.folds": "no"})
    assert (undivided, rounds) == ({}, 2), "what the user has wanted"
    assert notes == ["rounds after the first learn from products that it has seen (cycle.folds = auto keeps others)"]
    assert sizes(59, **{"cycle.folds": "no"}) == ({}, 1, [])


def test_a_small_shop_is_not_divided_and_has_one_round_as_a_line_says(
    small: CatalogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "LEAST", 20)
    settings = cycle_settings(**{"cycle.folds": "auto", "cycle.iterations": 2})
    plan = folds.plan_folds(Workspace(small, settings, Silent()), lambda plan: None)
    assert plan.folds is None and plan.rounds == 1 and plan.part(("a",)) is None
    first, second = folds_lines(plan.content())
    assert "too few to divide" in first and "rounds after the first are left out" in second
    stages_of = [name for name, _, _ in planned(settings, plan, taught=True, scored=["validation"])]
    assert "1-rar" in stages_of and not [name for name in stages_of if name.startswith(("2-", "1-sft-"))]


def test_where_a_stage_would_lack_products_nothing_is_divided(
    tmp_path: Path, small_folds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shop is large enough, but RAR has too little to ask about in a fold."""
    folder, heard = rendered(tmp_path / "shop", 12), Heard()
    monkeypatch.setattr(stages, "score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    flags = {
        "cycle.folds": "auto",
        "rar.query": "listings",
        "split.validation": 0.3,
        "split.test": 0.1,
        "agcl.batch_size": 2,
    }
    with pytest.raises(KeyboardInterrupt):
        run(folder, heard, **flags)
    (note,) = [line for line in heard.said if "not divided in folds" in line]
    assert "fewer than 5 training products have an answer" in note
    with pytest.raises(DataError, match="500"):  # what no plan can help is said as before
        run(folder, **flags, **{"rar.k": 500})


@pytest.mark.slow
def test_the_command_says_how_products_were_divided(divided: Divided) -> None:
    settings = cycle_settings(**FLAGS).model_dump(exclude_defaults=True)
    flags = [f"--set={section}.{key}={value}" for section, own in settings.items() for key, value in own.items()]
    result = CliRunner().invoke(app, ["cycle", str(divided.folder.catalog), *flags, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["folds"] == divided.summary.content["folds"]
    done = CliRunner().invoke(app, ["cycle", str(divided.folder.catalog), *flags])
    words = " ".join(done.stdout.split())
    assert divided.summary.content["folds"]["words"] in words
