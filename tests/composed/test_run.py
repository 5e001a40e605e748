"""Whole runs of `train-composed` on a tiny model: what is learnt from, what is written, going on after a kill."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from afmrl_cli.attributes.parse import read_stored
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.composed import corpus
from afmrl_cli.composed.bank import Bank, FrozenSide, make_bank
from afmrl_cli.composed.corpus import PERTURBED
from afmrl_cli.composed.plan import Plan, describe
from afmrl_cli.composed.run import COMPOSED, WORTH, Run, train_composed
from afmrl_cli.composed.step import BankStep, BatchStep, two_vectors
from afmrl_cli.composed.validation import METRICS, make_validation
from afmrl_cli.errors import DataError, ModelError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import QUERY_WEIGHTS, WEIGHTS, Checkpoints
from afmrl_cli.store.files import checksum, hash_file, sealed, write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import trainable
from afmrl_cli.training.pairs import Photo
from afmrl_cli.training.parallel import World, join_world, leave_world, sum_gradients
from afmrl_cli.training.shell import TrainingSummary, start_job
from afmrl_cli.training.staged import load_weights, read_done
from afmrl_cli.triplets.store import triplet_folder
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.processes import copied, finished, kill_one, run_two, tensors_of_two
from tests.training.test_run import Heard

MakeSettings = Callable[..., Settings]


def run(folder: CatalogFolder, settings: Settings, heard: Heard | None = None, **options: bool) -> TrainingSummary:
    summary = train_composed(Workspace(folder, settings, heard or Heard()), **options)
    assert summary is not None
    return summary


def plan_of(folder: CatalogFolder, settings: Settings) -> Plan:
    plan: Plan = COMPOSED.plan(start_job(COMPOSED, Workspace(folder, settings, Silent()))).content
    return plan


def loaded(folder: CatalogFolder, settings: Settings, world: World | None = None) -> Run:
    """A run in memory, without dropout."""
    job = start_job(COMPOSED, Workspace(folder, settings, Silent()), world)
    return Run(job, COMPOSED.plan(job).content, folder.runs / "x")


def gradients(made: Run) -> dict[str, torch.Tensor]:
    found = {name: each.grad.clone() for name, each in trainable(made.model).items() if each.grad is not None}
    made.model.zero_grad()
    return found


def test_triplets_are_of_training_products_and_know_what_answers(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings())
    train = plan.corpus.train
    assert plan.train.rows and plan.validation is not None and set(plan.train.counts) <= {"variants", "near", "far"}
    for row in plan.train.rows:
        said = read_stored(plan.train.captions[row.target])
        edited = read_stored(row.edited)
        assert row.target in row.answers and row.reference not in row.answers
        for key, (was, to) in row.changed.items():
            assert said[key] == to != was and f"{key}: {to}" in row.wish and to in row.sentence
            assert edited[key] == to, "known attributes with the change made"
        for other in row.answers:
            assert read_stored(plan.train.captions[other]) == said, "as the target is, by all attributes"
    sets = [row.answers for row in plan.train.rows if row.window != "variants"]
    assert len({id(each) for each in sets}) == len(set(sets)) < len(sets), "equal ones are kept once"
    sides = {each.id: split_of(each, settings().split) for each in read_products(shop, Settings().catalog, Problems())}
    assert {sides[listing.id] for listing in train} == {"train"}
    assert {sides[listing.id] for listing in plan.corpus.validation} == {"validation"}


def test_all_listings_of_the_targets_product_answer_and_none_of_the_references(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    """Listings of one product need not have the same attributes, nor any."""
    rows = list(csv.DictReader(shop.catalog.read_text().splitlines()))
    more = [row | {"id": f"{row['id']}-again", "product_id": row["id"], "attr_neck": ""} for row in rows]
    with shop.catalog.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "product_id"])
        writer.writeheader()
        writer.writerows([row | {"product_id": row["id"]} for row in rows] + more)
    plan = plan_of(shop, settings())
    product = [listing.identity for listing in plan.corpus.train]
    for row in plan.train.rows:
        assert {i for i, each in enumerate(product) if each == product[row.target]} <= row.answers
        assert product[row.reference] not in {product[i] for i in row.answers}


def test_windows_can_be_chosen(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings(**{"composed.windows": "variants"}))
    assert set(plan.train.counts) == {"variants"}
    assert plan.train.fingerprint != plan_of(shop, settings()).train.fingerprint
    with pytest.raises(UsageError, match=r"composed\.windows: 'close' is no window"):
        plan_of(shop, settings(**{"composed.windows": "close"}))


def test_far_triplets_are_left_out_where_there_are_others_enough(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ["variants", "near", "far"]
    for name in ("colour", "sleeve", "neck"):  # six keys, of which far pairs differ in more than three
        shop.catalog.write_text(shop.catalog.read_text().replace(f"attr_{name}", f"attr_{name},attr_{name}_2", 1))
    lines = [line.split(",") for line in shop.catalog.read_text().splitlines()]
    rows = [",".join([*row[:5], *(cell for each in row[5:] for cell in (each, each))]) for row in lines[1:]]
    shop.catalog.write_text("\n".join([",".join(lines[0]), *rows]) + "\n")
    assert set(plan_of(shop, settings(**{"composed.windows": every})).train.counts) >= {"near", "far"}
    assert "far" in plan_of(shop, settings()).train.counts, "fewer than a hundred others"
    monkeypatch.setattr(corpus, "CLOSE_ENOUGH", 10)
    without = plan_of(shop, settings())
    assert "far" not in without.train.counts and describe(without)["far_left_out"] == without.train.far_left_out > 0
    assert "far" in plan_of(shop, settings(**{"composed.windows": every})).train.counts


def test_perturbed_captions_have_one_value_replaced(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings())
    for i, row in enumerate(plan.train.rows):
        found = plan.train.perturbed(i, 0)
        assert found == plan.train.perturbed(i, 0) and len(set(found)) == PERTURBED
        first, *others = (read_stored(text) for text in found)
        assert first == read_stored(plan.train.captions[row.target])
        differing = [[key for key in first if other[key] != first[key]] for other in others]
        assert all(len(keys) == 1 for keys in differing)
        undone = [(key, was) for key, (was, _) in row.changed.items()][: PERTURBED - 1]
        assert [(key, other[key]) for [key], other in zip(differing, others, strict=True)][: len(undone)] == undone, (
            "the reference's values come first"
        )


def test_queries_are_drawn_in_both_forms_with_and_without_attributes(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    plan = plan_of(shop, settings())
    numbers = list(range(len(plan.train.rows)))
    drawn = [each for epoch in range(4) for each in plan.draw(numbers, epoch)]
    rows = plan.train.rows
    assert {each.query.text == rows[each.number].wish for each in drawn} == {True, False}
    assert {bool(each.query.attributes) for each in drawn if each.query.text == rows[each.number].wish} == {True, False}
    assert not any(each.query.attributes for each in drawn if each.query.text == rows[each.number].sentence), (
        "search replaces attributes only where the change is key: value"
    )
    assert plan.draw(numbers, 1) == plan.draw(numbers, 1) != plan.draw(numbers, 2)
    plain = plan_of(shop, settings(**{"embed.enrich": "none"}))
    assert not any(each.query.attributes for each in plain.draw(numbers, 0))


def test_the_reference_is_read_before_the_change(shop: CatalogFolder, settings: MakeSettings) -> None:
    """s is the vector of the photos: the change that follows them does not move it."""
    made = loaded(shop, settings())
    embedder, photo = made.embedder, shop.root / "images" / "1-0.png"
    made.model.eval()

    def of(*items: Item) -> torch.Tensor:
        texts = embedder.texts(items, made.reader.query)
        images = [[embedder.opened(image) for image in item.images] for item in items]
        with torch.no_grad():
            return two_vectors(embedder, embedder.vision.tensors(texts, images))

    width = embedder.dimension
    two = of(Item("colour: red", (photo,)), Item("a much longer change than that", (photo,)), Item("only words"))
    assert torch.allclose(two[0, width:], two[1, width:], atol=1e-5)
    assert not torch.allclose(two[0, :width], two[1, :width], atol=1e-2)
    assert torch.equal(two[2, :width], two[2, width:])
    whole = embedder.encode([Item("colour: red", (photo,))], instruction=made.reader.query)
    assert two[:1, :width].numpy() == pytest.approx(whole, abs=1e-5), "q is what search encodes"


def learnt(made: Run, stage: str) -> tuple[float, int, dict[str, torch.Tensor]]:
    """Loss, tokens and gradient of a step about seven triplets."""
    with torch.no_grad():
        for i, each in enumerate(trainable(made.model).values()):  # B is 0 at first, and A then has no gradient
            each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(i)) * 0.05)
    drawn = made.plan.draw(range(7), 0)
    rows = np.random.default_rng(0).standard_normal((len(made.plan.corpus.train), made.embedder.dimension))
    bank = Bank(torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1))
    own = (made.plan, made.reader)
    step = BatchStep(*own, made.world) if stage == "batch" else BankStep(*own, bank, made.world)
    loss, tokens = step(drawn)
    sum_gradients(trainable(made.model).values(), made.world)
    return float(loss), tokens, gradients(made)


@pytest.mark.parametrize("stage", ["batch", "bank"])
def test_two_processes_have_the_gradient_of_one(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path, stage: str
) -> None:
    chosen = settings(**{"composed.lora_dropout": 0.0})
    loss, tokens, expected = learnt(loaded(shop, chosen), stage)

    def as_one_of_two(world: World) -> dict[str, torch.Tensor]:
        own_loss, own_tokens, found = learnt(loaded(shop, chosen, world), stage)
        assert own_loss == pytest.approx(loss, rel=1e-5) and own_tokens == tokens
        return found

    for found in tensors_of_two(as_one_of_two, tmp_path):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_a_listing_that_one_process_can_not_read_any_more_is_named_by_both(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    made = loaded(shop, settings())
    train = made.plan.corpus.train
    train[1] = replace(train[1], text="", photos=(Photo(tmp_path / "gone.png", (56, 56), "gone"),))

    def encode() -> None:
        world = join_world()
        frozen = FrozenSide(made.work, made.embedder, tmp_path / "bank", world)
        with pytest.raises(DataError, match=f"1 listings can't be read any more: {train[1].id}$"):
            make_bank(made.plan, frozen, made.embedder.loaded.device)
        leave_world(world)

    run_two(encode)


@pytest.mark.slow
def test_two_processes_learn_and_choose_what_one_does(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    both, chosen = (
        copied(shop, tmp_path / "both"),
        settings(**{"composed.lora_dropout": 0.0, "composed.perturbed": 0.5}),
    )
    one = run(shop, chosen)
    run_two(lambda: train_composed(Workspace(both, chosen, Silent())))
    two = finished(both)
    assert two.run.name != one.run.name
    for name, stage in one.details["stages"].items():
        for key in ("before", "best"):
            assert two.details["stages"][name][key] == pytest.approx(stage[key], rel=1e-3)
        kept = [[path.name for path in (summary.run / name).glob("best-*")] for summary in (one, two)]
        assert kept[0] == kept[1]
    for name in (WEIGHTS, QUERY_WEIGHTS):
        place = shop.checkpoints / one.checkpoint / name
        if place.exists():
            found = load_file(both.checkpoints / two.checkpoint / name)
            for key, tensor in load_file(place).items():
                torch.testing.assert_close(found[key], tensor, atol=1e-3, rtol=1e-2)


def _any(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_both_go_on(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    other, chosen = copied(shop, tmp_path / "other"), settings(**{"composed.lora_dropout": 0.2})
    run_two(lambda: train_composed(Workspace(shop, chosen, Silent())))
    for place in ("*/batch/state-2", "*/bank-vectors/*/1/*.json", "*/bank/state-2"):
        kill_one(partial(_any, other.runs, place), lambda: train_composed(Workspace(other, chosen, Silent())))
    assert not Checkpoints(other.checkpoints).list()
    run_two(lambda: train_composed(Workspace(other, chosen, Silent())))
    whole, resumed = finished(shop), finished(other)
    assert resumed.details == whole.details
    for file in sorted(path.name for path in (shop.checkpoints / whole.checkpoint).glob("*.safetensors")):
        there = load_file(other.checkpoints / resumed.checkpoint / file)
        for name, tensor in load_file(shop.checkpoints / whole.checkpoint / file).items():
            assert torch.equal(there[name], tensor), (file, name)


@pytest.mark.parametrize("stage", ["batch", "bank"])
def test_the_gradient_does_not_depend_on_the_chunks(shop: CatalogFolder, settings: MakeSettings, stage: str) -> None:
    found = []
    for tokens in (128, 100_000):
        made = loaded(shop, settings(**{"composed.chunk_tokens": tokens, "composed.lora_dropout": 0.0}))
        found.append(learnt(made, stage))
    (one_loss, one_tokens, one), (other_loss, other_tokens, other) = found
    assert one_loss == pytest.approx(other_loss, rel=1e-5) and one_tokens == other_tokens and one
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], rtol=1e-3, atol=1e-6), name
    assert any(bool(gradient.abs().sum() > 0) for gradient in one.values())


def test_validation_leaves_out_the_reference_and_what_answers_as_well(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    plan = plan_of(shop, settings())
    validation = make_validation(plan)
    assert validation is not None and plan.validation is not None
    gallery = [side.listing for side in validation.gallery]
    assert len(set(gallery)) == len(gallery) == len(plan.corpus.validation)
    for query, target, out in zip(validation.queries, validation.targets, validation.excluded, strict=True):
        assert out[gallery.index(query.listing)] and not out[target] and len(query.photos) == 1
    plain = [bool(query.attributes) for query in validation.queries]
    assert plain == [True, False] * (len(plain) // 2), "each with known attributes and without"
    asked = {row.reference for row in plan.validation.rows if row.window != "far"}
    assert {query.listing for query in validation.queries} == asked
    scores = np.zeros((len(validation.queries), len(gallery)), np.float32)
    scores[range(len(scores)), validation.targets] = 1
    found = validation.metrics(scores, np.eye(len(gallery), dtype=np.float32))
    assert found == {"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0, "mrr": 1.0}


def test_a_run_leaves_a_gallery_and_a_query_adapter(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(**{"composed.perturbed": 0.5}), heard)
    assert summary.checkpoint == "embedder-1" and summary.plan["stages"] == ["batch", "bank"]
    assert list(summary.details["stages"]) == ["batch", "bank"]
    rows = [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 9)), "the second stage's follow the first's"
    assert [row["step"] for row in rows if "eval_mrr" in row] == [0, 2, 4, 4, 6, 8]
    assert {"done.json", "curve.svg", "plan.json", "settings.json"} <= {path.name for path in summary.run.iterdir()}
    assert not list(summary.run.glob("*/state-*")) and not (summary.run / "bank-vectors").exists()

    stages, place = summary.details["stages"], shop.checkpoints / "embedder-1"
    gained = stages["bank"]["best"]["mrr"] - stages["bank"]["before"]["mrr"] > WORTH
    assert stages["bank"]["before"] == pytest.approx(stages["batch"]["best"]), "it begins where the first one ended"
    assert gained == (place / QUERY_WEIGHTS).exists() == summary.details["query_adapter"]
    manifest = Checkpoints(shop.checkpoints).get("embedder-1")
    assert manifest.role == "embedder" and manifest.metrics == summary.details["metrics"]
    card = (place / "README.md").read_text()
    assert "train-composed" in card and str(shop.root) not in card

    again = run(shop, settings(**{"composed.perturbed": 0.5}))
    assert again.already_done and again.checkpoint == "embedder-1" and again.details == summary.details

    (summary.run / "done.json").unlink()  # killed between the last stage and the end
    (summary.run / "bank-vectors" / "old").mkdir(parents=True)
    again = run(shop, settings(**{"composed.perturbed": 0.5}))
    assert not again.already_done and again.details == summary.details and not (summary.run / "bank-vectors").exists()
    assert [each.name for each in Checkpoints(shop.checkpoints).list()] == ["embedder-1"]


def test_the_second_stage_moves_the_query_side_alone(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    made = loaded(shop, settings())
    made.run.mkdir(parents=True)
    first = made.batch()
    kept = load_file(first.adapter / WEIGHTS)
    second = made.bank(first.adapter)
    query = load_file(second.adapter / WEIGHTS)
    assert query.keys() == kept.keys() and any(not torch.equal(kept[name], query[name]) for name in kept)
    assert all(torch.equal(tensor, load_file(first.adapter / WEIGHTS)[name]) for name, tensor in kept.items())

    assert [path.name for path in (made.run / "bank-vectors").iterdir()] == [hash_file(first.adapter / WEIGHTS)[:10]]
    odd = tmp_path / "odd"
    odd.mkdir()
    save_file(dict(list(kept.items())[1:]), odd / WEIGHTS)
    for folder in (odd, tmp_path / "none"):
        with pytest.raises(ModelError, match="can't go on from here"):
            load_weights(made.model, folder)


def test_killed_in_either_stage_and_going_on_gives_the_same_weights(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(shop.root, tmp_path / "other")
    other = CatalogFolder(tmp_path / "other" / "catalog.csv")
    chosen = settings(**{"composed.lora_dropout": 0.2})
    whole = run(shop, chosen)
    kill_once(lambda: list(other.runs.glob("*/batch/state-2")), lambda: run(other, chosen))
    kill_once(lambda: list(other.runs.glob("*/bank-vectors/*/*.json")), lambda: run(other, chosen))
    kill_once(lambda: list(other.runs.glob("*/bank/state-2")), lambda: run(other, chosen))
    assert not Checkpoints(other.checkpoints).list()
    resumed = run(other, chosen)
    assert resumed.resumed_from >= 2 and resumed.details == whole.details
    for file in sorted(path.name for path in (shop.checkpoints / whole.checkpoint).glob("*.safetensors")):
        there = load_file(other.checkpoints / resumed.checkpoint / file)
        for name, tensor in load_file(shop.checkpoints / whole.checkpoint / file).items():
            assert torch.equal(there[name], tensor), (file, name)


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"best": "../../x"}, "batch/done.json: damaged: .*best"),
        ({"best": "best-7"}, "batch/best-7: not the adapter"),
        ({"start": [1]}, "batch/done.json: damaged: .*start"),
        ({"metrics": {}}, "batch/done.json: damaged: .*other metrics"),
        ({"start": {}, "metrics": {"mrr": 0.2}}, "batch/done.json: damaged: .*other metrics"),
        ({"seconds": "long"}, "batch/done.json: damaged: .*seconds"),
    ],
)
def test_a_forged_stage_is_told(tmp_path: Path, forged: dict[str, object], message: str) -> None:
    place = tmp_path / "batch"
    (place / "best-2").mkdir(parents=True)
    metrics = {"recall@1": 0.1, "recall@5": 0.2, "recall@10": 0.3, "mrr": 0.2}
    written = {"best": "best-2", "start": metrics, "metrics": metrics, "seconds": 1.0}
    write_json(place / "done.json", written)
    assert read_done(place, METRICS) is not None
    write_json(place / "done.json", written | forged)
    with pytest.raises(DataError, match=message):
        read_done(place, METRICS)


def test_no_link_in_a_stages_adapter_is_followed(tmp_path: Path) -> None:
    place = tmp_path / "batch"
    (place / "best-2").mkdir(parents=True)
    (place / "best-2" / "README.md").symlink_to("/etc/hostname")
    write_json(place / "done.json", {"best": "best-2", "start": {}, "metrics": {}, "seconds": 1.0})
    with pytest.raises(DataError, match="best-2: not the adapter"):
        read_done(place, METRICS)


def test_one_stage_can_be_done_alone(shop: CatalogFolder, settings: MakeSettings) -> None:
    batch = run(shop, settings(**{"composed.stages": "batch", "composed.steps": 2}))
    assert not (shop.checkpoints / batch.checkpoint / QUERY_WEIGHTS).exists()
    further = settings(
        **{"composed.stages": "bank", "composed.steps": 2, "model.embedder_checkpoint": batch.checkpoint}
    )
    bank = run(shop, further)
    if bank.checkpoint:
        manifest = Checkpoints(shop.checkpoints).get(bank.checkpoint)
        assert manifest.parent == batch.checkpoint
        one, other = (load_file(shop.checkpoints / each.checkpoint / WEIGHTS) for each in (batch, bank))
        assert all(torch.equal(one[name], other[name]) for name in one), "the gallery stays as it was"
    else:
        assert not bank.details["query_adapter"]


def test_a_shop_where_no_two_products_differ_in_an_attribute_is_told(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    text = shop.catalog.read_text()
    for words, one in (("blue", "red"), ("green", "red"), ("short", "long"), ("collar", "round")):
        text = text.replace(words, one)
    shop.catalog.write_text(text)
    with pytest.raises(DataError, match=r"no two of the .* listings of the train split differ"):
        run(shop, settings())


def test_without_triplets_to_validate_by_the_last_step_is_kept(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    chosen = settings(**{"split.validation": 0.001, "split.test": 0.001, "composed.steps": 1})
    summary = run(shop, chosen, heard)
    assert summary.checkpoint and summary.details["metrics"] == {} and summary.details["query_adapter"]
    assert any("the last one's adapter is kept" in line for line in heard.said)


def test_a_damaged_store_of_validation_triplets_is_not_taken_for_none(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    plan_of(shop, settings())
    place = triplet_folder(shop, "validation")
    (place / "triplets.jsonl").write_text("{}\n")
    manifest = json.loads((place / "triplets.json").read_text())
    manifest["files"] = {"triplets.jsonl": checksum(place / "triplets.jsonl")}
    write_json(place / "triplets.json", sealed(manifest, place))
    with pytest.raises(DataError, match=r"validation/triplets\.jsonl: line 1: no triplet"):
        plan_of(shop, settings())


def test_a_dry_run_measures_both_stages(shop: CatalogFolder, settings: MakeSettings) -> None:
    summary = run(shop, settings(), dry_run=True)
    assert summary.estimate is not None and summary.estimate.whole_seconds > summary.estimate.step_seconds > 0
    assert summary.details["bank_seconds"] > 0 and not shop.checkpoints.exists() and not summary.run.exists()


def test_the_key_follows_what_is_learnt(shop: CatalogFolder, settings: MakeSettings) -> None:
    def key(**changes: object) -> str:
        work = Workspace(shop, settings(**changes), Silent())
        return COMPOSED.plan(start_job(COMPOSED, work)).key

    assert key() == key(**{"composed.chunk_tokens": 64}) == key(**{"composed.name": "mine"})
    assert (
        len({key(), key(**{"composed.perturbed": 1.0}), key(**{"embed.enrich": "both"}), key(**{"composed.seed": 1})})
        == 4
    )
