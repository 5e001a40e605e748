"""Whole runs of `train-agcl` on a tiny model: what they write, going on after a kill, stopping when they break down."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from afmrl_cli.errors import AfmrlError, DataError, ModelError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import trainable
from afmrl_cli.training.run import train_agcl
from afmrl_cli.training.shell import TrainingSummary
from afmrl_cli.training.stop import stop_between_steps
from afmrl_cli.training.trainer import AgclTrainer
from afmrl_cli.training_settings import AgclSettings
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.processes import copied, finished, kill_one, run_two
from tests.training.shop import write_shop

MakeSettings = Callable[..., Settings]


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append("warning: " + message)


def run(folder: CatalogFolder, settings: Settings, heard: Silent | None = None, **options: bool) -> TrainingSummary:
    summary = train_agcl(Workspace(folder, settings, heard or Silent()), **options)
    assert summary is not None
    return summary


def metrics_of(summary: TrainingSummary) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]


def weights(folder: CatalogFolder, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder.checkpoints / name / "adapter_model.safetensors")
    return found


def test_a_run_writes_a_checkpoint_that_the_embedder_uses(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(), heard)
    assert summary.checkpoint == "embedder-1" and isinstance(summary.plan["pairs"], dict)
    assert any(line.startswith("pairs: ") and "photos" in line for line in heard.said), "the choice is reported"
    rows = metrics_of(summary)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "eval_recall@1" in row] == [0, 3, 6]
    assert {"learning_rate", "grad_norm", "samples_per_second", "epoch"} <= rows[1].keys()
    rates = [row["learning_rate"] for row in rows if "loss" in row]
    assert [rate / max(rates) for rate in rates] == pytest.approx([0, 1, 0.8, 0.6, 0.4, 0.2]), "as transformers' linear"
    names = {path.name for path in summary.run.iterdir()}
    assert {"settings.json", "curve.svg", "negatives.json", "negatives.md", "similar_pairs.csv", "done.json"} <= names
    assert not any(name.startswith("state-") for name in names)

    manifest = Checkpoints(shop.checkpoints).get("embedder-1")
    assert manifest.role == "embedder" and manifest.settings["agcl"]["loss"] == "agcl"
    assert set(manifest.metrics) == {"recall@1", "recall@5", "recall@10"}
    card = (shop.checkpoints / "embedder-1" / "README.md").read_text()
    assert "AGCL, weights negatives" in card and str(shop.root) not in card
    margin = summary.details["nearest_margin"]
    assert 0 < margin["cosine"] <= 1 and json.dumps(margin["cosine"]) in card, "the last step is the best one here"

    used = settings(**{"model.embedder_checkpoint": "embedder-1"})
    trained = load_embedder(used.model, used.embed, Checkpoints(shop.checkpoints))
    bare = load_embedder(settings().model, used.embed, Checkpoints(shop.checkpoints))
    vectors = [each.encode([Item("red shirt")], instruction="Find this product:") for each in (trained, bare)]
    assert trained.id != bare.id and np.abs(vectors[0] - vectors[1]).max() > 1e-3

    again = run(shop, settings(), Heard())
    assert again.already_done and again.checkpoint == "embedder-1"
    assert len(Checkpoints(shop.checkpoints).list()) == 1


def test_the_test_split_is_never_seen(shop: CatalogFolder, settings: MakeSettings) -> None:
    """Another salt decides who is held out; whatever the test split holds changes nothing."""
    from tests.training.rig import make_plan_for

    plan = make_plan_for(shop, settings(**{"split.test": 0.3}))
    everything = make_plan_for(shop, settings(**{"split.test": 0.0, "split.validation": 0.0}))
    seen = {listing.id for listing in plan.corpus.train}
    looked = {listing.id for listing in plan.corpus.validation}
    assert len(everything.corpus.train) == 40 and 0 < len(seen) < 40 and len(looked) > 0
    assert not seen & looked
    assert len(seen) + len(looked) < 40
    drawn = {
        plan.corpus.train[side.listing].id
        for _, _, pairs in _first(plan, 10)
        for p in pairs
        for side in (p.query, p.target)
    }
    assert drawn <= seen


def test_a_share_of_the_products(shop: CatalogFolder, settings: MakeSettings) -> None:
    """`agcl.share`: a sample that the seed decides, three batches at least; the gallery of weights stays whole."""
    from tests.training.rig import make_plan_for

    def products(**changes: object) -> set[str]:
        plan = make_plan_for(shop, settings(**{"split.validation": 0.0, "split.test": 0.0, **changes}))
        assert len(plan.corpus.train) == 40
        return {plan.corpus.train[positive.listing].identity for positive in plan.positives}

    some = products(**{"agcl.share": 0.7})
    assert len(some) == 28 and some < products() and some == products(**{"agcl.share": 0.7})
    assert products(**{"agcl.share": 0.7, "agcl.seed": 1}) != some
    assert len(products(**{"agcl.share": 0.01})) == 24
    assert len(products(**{"agcl.share": 0.01, "agcl.batch_size": 16})) == 40  # all, where three batches are not there
    assert len(products(**{"agcl.share": 0.01, "agcl.batch_size": 0})) == 24  # the batch that all of them would have


def _first(plan: Any, number: int) -> list[Any]:
    steps = plan.from_step(0, 0)
    return [next(steps) for _ in range(number)]


def test_killed_and_going_on_gives_the_same_weights(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(shop.root, tmp_path / "other")
    other = CatalogFolder(tmp_path / "other" / "catalog.csv")
    chosen = settings(**{"agcl.lora_dropout": 0.2, "agcl.steps": 9, "agcl.save_every": 2})
    whole = run(shop, chosen)

    kill_once(lambda: list(other.runs.glob("*/state-4")), lambda: train_agcl(Workspace(other, chosen, Silent())))
    assert not Checkpoints(other.checkpoints).list()
    heard = Heard()
    resumed = run(other, chosen, heard)
    assert resumed.resumed_from >= 4
    assert any("going on after step" in line for line in heard.said)
    for name, tensor in weights(shop, whole.checkpoint).items():
        assert torch.equal(weights(other, resumed.checkpoint)[name], tensor), name
    timeless = [
        [{k: v for k, v in row.items() if k != "samples_per_second"} for row in metrics_of(summary)]
        for summary in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]
    assert whole.details["nearest_margin"] == resumed.details["nearest_margin"] is not None
    for name in ("negatives.json", "similar_pairs.csv"):
        assert (whole.run / name).read_text() == (resumed.run / name).read_text()


@pytest.mark.slow
def test_two_processes_choose_what_one_does_and_go_on_when_one_is_killed(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    both, other = copied(shop, tmp_path / "both"), copied(shop, tmp_path / "other")
    chosen = settings(**{"agcl.lora_dropout": 0.0, "agcl.save_every": 2})
    one = run(shop, chosen)
    run_two(lambda: train_agcl(Workspace(both, chosen, Silent())))
    kill_one(lambda: list(other.runs.glob("*/state-2")), lambda: train_agcl(Workspace(other, chosen, Silent())))
    run_two(lambda: train_agcl(Workspace(other, chosen, Silent())))
    two, resumed = finished(both), finished(other)
    assert [path.name for path in two.run.glob("best-*")] == [path.name for path in one.run.glob("best-*")]
    assert two.details["metrics"] == pytest.approx(one.details["metrics"], abs=0.05)
    assert resumed.details == two.details
    expected = weights(shop, one.checkpoint)
    for name, tensor in weights(both, two.checkpoint).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-3, rtol=1e-2)
        assert torch.equal(tensor, weights(other, resumed.checkpoint)[name]), name


def test_ctrl_c_stops_between_steps_and_the_second_one_at_once() -> None:
    import signal

    with stop_between_steps() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_saves_and_the_run_goes_on(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    chosen = settings(**{"agcl.save_every": 100, "agcl.validate_every": 100})
    step = AgclTrainer.gradients

    def interrupted(self: AgclTrainer, *args: Any) -> torch.Tensor:
        if self.state.global_step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(AgclTrainer, "gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(shop, chosen)
    monkeypatch.undo()
    (counters,) = shop.runs.glob("*/state-2/trainer_state.json")
    text = counters.read_text()
    counters.unlink()
    with pytest.raises(ModelError, match="state-2: can't go on from here: an earlier version saved it") as error:
        run(shop, chosen)
    assert "--force" in error.value.hint
    counters.write_text(text)
    assert run(shop, chosen).resumed_from == 2


def test_a_loss_that_is_no_number_stops_with_step_products_and_last_state(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = AgclTrainer.gradients

    def broken(self: AgclTrainer, *args: Any) -> torch.Tensor:
        if self.state.global_step == 2:
            next(iter(trainable(self.model).values())).data.fill_(float("nan"))
        return step(self, *args)

    monkeypatch.setattr(AgclTrainer, "gradients", broken)
    with pytest.raises(ModelError, match=r"step 3: training broke down \(loss nan.*products S.*state-2") as error:
        run(shop, settings())
    assert error.value.exit_code == 4 and "learning_rate" in error.value.hint
    content = json.loads(next(shop.runs.glob("*/failed-batch.json")).read_text())
    assert content["step"] == 3 and len(content["products"]) == 8
    monkeypatch.undo()
    assert run(shop, settings()).resumed_from == 2, "the state before is good"


@pytest.mark.slow
def test_infonce_has_the_same_batches(shop: CatalogFolder, settings: MakeSettings) -> None:
    agcl = run(shop, settings())
    plain = run(shop, settings(**{"agcl.loss": "infonce"}))
    assert plain.run != agcl.run and plain.plan | (same := {"loss": "", "weights": ""}) == agcl.plan | same
    unweighted = plain.details["negatives"]
    assert unweighted["masked_share"] == 0 and sum(unweighted["bm25"]["count"]) == 0
    negatives = agcl.details["negatives"]
    assert sum(negatives["bm25"]["count"]) == negatives["negatives"] == 6 * 8 * 7
    assert metrics_of(agcl)[0] == metrics_of(plain)[0], "the same start"


@pytest.mark.parametrize("mask", [True, False])
def test_pairs_above_the_margin_are_reported(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, mask: bool
) -> None:
    monkeypatch.setattr(AgclSettings, "mask_margin", -0.5)
    summary = run(shop, settings(**{"agcl.mask": mask}))
    with (summary.run / "similar_pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (summary.details["negatives"]["masked_share"] > 0) == mask and summary.details["negatives"][
        "too_similar_share"
    ] > 0
    assert len(rows) == summary.details["negatives"]["similar_pairs"] > 0
    similarity = [float(row["similarity"]) for row in rows]
    assert similarity == sorted(similarity, reverse=True)
    assert {"id", "other_id", "positive", "times", "shared", "title", "other_title"} <= rows[0].keys()
    page = (summary.run / "negatives.md").read_text()
    assert "probable duplicates" in page and ("not masked" in page) != mask


def test_going_on_from_a_checkpoint(shop: CatalogFolder, settings: MakeSettings) -> None:
    first = run(shop, settings())
    second = run(shop, settings(**{"model.embedder_checkpoint": first.checkpoint, "agcl.name": "second"}))
    assert second.checkpoint == "second"
    assert Checkpoints(shop.checkpoints).get("second").parent == first.checkpoint
    assert metrics_of(second)[0]["eval_recall@5"] == first.details["metrics"]["recall@5"], (
        "it starts where that was best"
    )
    with pytest.raises(ModelError, match="'second' exists already"):
        run(shop, settings(**{"agcl.name": "second", "agcl.seed": 1}))


def test_no_validation_split(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(**{"split.validation": 0.0}), heard)
    assert summary.checkpoint and summary.details["metrics"] == {}
    assert any("too few pairs to measure recall" in line for line in heard.said)


def test_a_training_that_gains_nothing_says_so(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(**{"agcl.learning_rate": 1e-12}), heard)
    same = f"{summary.details['metrics']['recall@1']:.3f}"
    message = f"warning: validation recall@1: {same} before training, {same} at the best step: nothing was gained"
    assert any(line.startswith(message) for line in heard.said), heard.said


def test_dry_run_trains_nothing(shop: CatalogFolder, settings: MakeSettings) -> None:
    summary = run(shop, settings(), dry_run=True)
    assert summary.estimate is not None and summary.estimate.peak_bytes > 0
    assert summary.estimate.whole_seconds == pytest.approx(6 * summary.estimate.step_seconds)
    assert summary.plan["steps"] == 6 and not summary.run.exists() and not shop.checkpoints.exists()


BAD: list[tuple[dict[str, object], type[AfmrlError], str]] = [
    ({"agcl.batch_size": 64}, DataError, "fewer than agcl.batch_size = 64"),
    ({"agcl.attributes": "generated"}, DataError, "no attributes yet"),
    ({"agcl.given": "fabric"}, DataError, "no training product has a value in fabric"),
    ({"agcl.pairs": "listings"}, DataError, "no positive pairs of the kinds listings"),
    ({"agcl.pairs": "videos"}, UsageError, "'videos' is no kind of pair"),
    ({"model.embedder_checkpoint": "embedder-9"}, ModelError, "no checkpoint 'embedder-9'"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input(
    shop: CatalogFolder, settings: MakeSettings, changes: dict[str, object], kind: type[AfmrlError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        run(shop, settings(**changes))
    assert error.value.hint and "\n" not in str(error.value)


def test_a_base_that_differs_from_the_checkpoints(
    shop: CatalogFolder, settings: MakeSettings, tiny_model: Callable[[str], Path]
) -> None:
    first = run(shop, settings())
    changes = {"model.embedder_checkpoint": first.checkpoint, "model.embedder": str(tiny_model("qwen3_vl"))}
    with pytest.raises(ModelError, match="was trained on"):
        run(shop, settings(**changes))


def test_attributes_of_another_generator(shop: CatalogFolder, settings: MakeSettings) -> None:
    with Database(shop.database) as database:
        database.put_attributes([StoredAttributes("f", "nano-1a2b", "p", "S1", "colour: red", None, 0.0)])
    with pytest.raises(DataError, match=r"stored are attributes by: nano-1a2b \(1\)"):
        run(shop, settings(**{"agcl.attributes": "generated"}))


def test_attributes_none_of_which_is_valid(shop: CatalogFolder, settings: MakeSettings) -> None:
    from afmrl_cli.models.backends import generator_id

    chosen = settings(**{"agcl.attributes": "generated"})
    generator = generator_id(chosen, Checkpoints(shop.checkpoints))
    with Database(shop.database) as database:
        database.put_attributes([StoredAttributes("f", generator, "p", "S1", "well,", "unparsable", 0.0)])
    with pytest.raises(DataError, match=f"attributes by {generator}: none of its 1 stored answers is valid"):
        run(shop, chosen)


def test_generated_attributes_are_used(shop: CatalogFolder, settings: MakeSettings) -> None:
    from afmrl_cli.attributes.task import load_task
    from afmrl_cli.attributes.views import listing_views
    from afmrl_cli.catalog.fingerprints import Fingerprinter
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.catalog.read import read_products
    from afmrl_cli.models.backends import generator_id
    from tests.training.rig import make_plan_for

    chosen = settings(**{"agcl.attributes": "generated", "agcl.attribute_dropout": 0.0})
    generator = generator_id(chosen, Checkpoints(shop.checkpoints))
    task = load_task(chosen.attributes, shop.root).id
    with Database(shop.database) as database, Fingerprinter(database) as fingerprinter:
        products = list(read_products(shop, chosen.catalog, Problems()))[:-5]
        row = StoredAttributes("", generator, task, "", "", None, 0.0)
        rows = [
            dataclasses.replace(row, fingerprint=fingerprinter.of(p), text=f"colour: {p.given['colour']}")
            for p in products
        ]
        database.put_attributes(rows)
        listings_alone = make_plan_for(shop, chosen, generator, task)
        rows = [
            dataclasses.replace(row, fingerprint=fingerprinter.of(view), text="colour: as the photo shows")
            for p in products
            for view in listing_views(p, ["photos"], [fingerprinter.hash_of(path) for path in p.images]).values()
        ]
        database.put_attributes(rows)
    assert 0 < listings_alone.corpus.num_with_attributes < len(listings_alone.corpus.train)
    assert not any(pair.query.attributes for pair in next(listings_alone.from_step(0, 0))[2]), "photos ask"
    pairs = next(make_plan_for(shop, chosen, generator, task).from_step(0, 0))[2]
    assert {pair.query.attributes for pair in pairs} >= {"colour: as the photo shows"}
    assert not any(pair.target.attributes for pair in pairs)
    heard = Heard()
    run(shop, chosen, heard, dry_run=True)
    assert any("have no attributes" in line for line in heard.said)


def test_a_category_of_one_product_is_reported(shop: CatalogFolder, settings: MakeSettings) -> None:
    lines = shop.catalog.read_text().splitlines()
    lines[1] = lines[1].replace("tops", "lonely")
    shop.catalog.write_text("\n".join(lines) + "\n")
    heard = Heard()
    run(shop, settings(**{"agcl.batches": "category", "split.validation": 0.1, "split.test": 0.0}), heard, dry_run=True)
    assert any("1 categories have one product, such as lonely" in line for line in heard.said)


def test_unreadable_photos_are_reported_and_left_out(shop: CatalogFolder, settings: MakeSettings) -> None:
    (shop.root / "images" / "3-0-0.png").write_bytes(b"no photo")
    heard = Heard()
    run(shop, settings(**{"agcl.steps": 2}), heard)
    assert any("unreadable image" in line and "3-0-0.png" in line for line in heard.said)


@pytest.mark.slow
def test_duplicate_listings_as_positives(tmp_path: Path, settings: MakeSettings) -> None:
    folder = CatalogFolder(write_shop(tmp_path / "twins", 30, listings_each=2, photos=1) / "catalog.csv")
    summary = run(folder, settings())
    assert summary.plan["pairs"] == {"listings": 2 * summary.plan["products"]}  # type: ignore[operator]
    assert summary.checkpoint == "embedder-1"
