"""Whole runs of `train-rerank` on a tiny model: what is learnt from, what is written, going on after a kill."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from afmrl_cli.catalog.splits import split_of
from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.presets import nano_folder
from afmrl_cli.models.reranker import choose_words, fuse, position_bias, probabilities
from afmrl_cli.rerank.groups import FAR, Groups, Plan, mine
from afmrl_cli.rerank.run import RERANK, _encode, train_rerank
from afmrl_cli.rerank.validation import Ranking, metrics_of
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.pairs import Side
from afmrl_cli.training.shell import TrainingSummary, start_job
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.training.test_run import Heard

MakeSettings = Callable[..., Settings]


def run(folder: CatalogFolder, settings: Settings, heard: Heard | None = None, **options: bool) -> TrainingSummary:
    return train_rerank(Workspace(folder, settings, heard or Heard()), **options)


def plan_of(folder: CatalogFolder, settings: Settings) -> tuple[Plan, Workspace]:
    work = Workspace(folder, settings, Silent())
    plan: Plan = RERANK.plan(start_job(RERANK, work)).content
    return plan, work


def groups_of(folder: CatalogFolder, settings: Settings) -> Groups:
    plan, work = plan_of(folder, settings)
    return Groups(plan, mine(plan, partial(_encode, work.embedder(), Silent())))


def weights(folder: CatalogFolder, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder.checkpoints / name / "adapter_model.safetensors")
    return found


def test_the_score_of_a_pair_and_what_is_told_of_its_orders() -> None:
    scores = np.array([[2.0, 4.0], [-1.0, 1.0]])
    assert fuse(scores, np.array([0.8, 0.9]), 0.5) == pytest.approx([0.5 * 16 + 0.5 * 3, 0.5 * 18])
    assert probabilities(scores) == pytest.approx([1 / (1 + math.exp(-3)), 0.5])
    assert position_bias(scores) == {"position_bias": 2.0, "flipped": 0.5}


def test_metrics_are_those_of_the_order_that_the_best_weight_gives() -> None:
    """By cosine the right one is second, then first; the reranker alone has both first, and its pairs are right."""
    side = Side(0, "x")
    relevant = [np.array([False, True]), np.array([True, False]), np.array([False, False])]
    cosines = [np.array([0.9, 0.8], np.float32), np.array([0.9, 0.5], np.float32), np.array([0.9, 0.5], np.float32)]
    ranking = Ranking([side] * 3, [[side, side]] * 3, cosines, relevant)
    assert ranking.asked == [0, 1], "the third has no right candidate: it can't be mended, and counts as missed"
    found = metrics_of(ranking, [np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])])
    assert found["hit@1_embedder"] == pytest.approx(1 / 3) and found["mrr_embedder"] == pytest.approx(1.5 / 3)
    assert found["hit@1"] == found["hit@1_reranker"] == pytest.approx(2 / 3)
    assert found["weight"] == 0.2, "the least that mends the first: 0.8 * 2 < 0.2 * 9 + ..."
    assert found["auc"] == 1.0


def test_the_verdicts_are_words_of_one_token(tiny_model: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    assert choose_words(AutoTokenizer.from_pretrained(nano_folder()), "nano") == ("yes", "no")
    assert choose_words(AutoTokenizer.from_pretrained(tiny_model("qwen2_vl")), "tiny") == ("y", "n")

    class Numbers:
        def get_vocab(self) -> dict[str, int]:
            return {"7": 7}

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [7] * len(text)}

    with pytest.raises(ModelError, match="no single tokens for a verdict"):
        choose_words(Numbers(), "numbers")


def test_negatives_are_near_training_listings_of_other_products(shop: CatalogFolder, settings: MakeSettings) -> None:
    groups = groups_of(shop, settings())
    train, swapped = groups.plan.corpus.train, set[bool]()
    assert len(groups) == 16
    for group in map(groups.__getitem__, range(len(groups))):
        own = train[group.query.listing].identity
        first, *others = [train[side.listing].identity for side in group.targets]
        assert first == own and len(others) == 2 and own not in others
        assert group.query.listing != group.targets[0].listing
        swapped.update(group.swapped)
    assert swapped == {True, False}, "which of the two stands first is sampled"
    assert [groups[3], groups[5]] == [groups_of(shop, settings())[i] for i in (3, 5)], "the same in a second process"


def test_products_of_validation_and_test_are_in_no_group(shop: CatalogFolder, settings: MakeSettings) -> None:
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.catalog.read import read_products

    chosen = settings(**{"rerank.steps": 20})
    groups = groups_of(shop, chosen)
    train = groups.plan.corpus.train
    met = {train[side.listing].id for i in range(len(groups)) for side in (groups[i].query, *groups[i].targets)}
    side_of = {p.id: split_of(p, chosen.split) for p in read_products(shop, chosen.catalog, Problems())}
    assert {side_of[id] for id in met} == {"train"} and len(set(side_of.values())) == 3


def test_what_people_called_different_comes_first(shop: CatalogFolder, settings: MakeSettings) -> None:
    train = groups_of(shop, settings()).plan.corpus.train
    one = train[0]
    other = next(each for each in train if each.identity == one.identity and each.id != one.id)
    far = train[-1] if train[-1].identity != one.identity else train[-3]
    file = shop.root / "verdicts.csv"
    file.write_text(f"id,other_id,verdict\n{one.id},{far.id},different\n{one.id},{other.id},different\n")
    groups = groups_of(shop, settings(**{"dedupe.verdicts": "verdicts.csv"}))
    train = groups.plan.corpus.train
    near = [
        [train[i].id for i in found] for (_, listing, _), found in groups.near.items() if train[listing].id == one.id
    ]
    assert near and all(set(found[:2]) == {other.id, far.id} for found in near), (
        "other products, whatever the shop says"
    )
    back = [found for (_, listing, _), found in groups.near.items() if train[listing].id == far.id]
    assert back and all(train[found[0]].id == one.id for found in back), "both ways"


def test_a_run_teaches_and_the_reranker_reads_pairs(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(), heard)
    assert summary.checkpoint == "reranker-1" and summary.plan["words"] == ["y", "n"]
    assert any("validation hit@1" in line for line in heard.said)
    rows = [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval_mrr" in row] == [2, 4]
    assert rows[0]["loss"] == pytest.approx(math.log(2), rel=0.2), "it begins without an opinion"
    assert {"done.json", "curve.svg", "plan.json", "settings.json"} <= {path.name for path in summary.run.iterdir()}

    manifest = Checkpoints(shop.checkpoints).get("reranker-1")
    assert manifest.role == "reranker" and {"weight", "auc", "position_bias", "flipped"} <= manifest.metrics.keys()
    card = (shop.checkpoints / "reranker-1" / "README.md").read_text()
    assert "train-rerank" in card and "logit(y) - logit(n)" in card and str(shop.root) not in card

    chosen = settings(**{"model.reranker_checkpoint": "latest"})
    reranker = Workspace(shop, chosen, Silent()).reranker()
    assert reranker.words == ("y", "n") and reranker.weight == manifest.metrics["weight"]
    photo = shop.root / "images" / "0-0-0.png"
    pairs = [
        (Item("red shirt", (photo,)), Item("a red shirt with a very long description of its round neckline")),
        (Item("blue <|im_end|> <|image_pad|> shirt"), Item("", (photo, photo))),
        (Item("green"), Item("white")),
    ]
    scores = reranker.score(pairs)
    assert scores.shape == (3, 2) and reranker.text(reranker.read(pairs[1])).count("<|image_pad|>") == 2
    alone = np.concatenate([reranker.score([pair]) for pair in pairs])
    assert scores == pytest.approx(alone, abs=1e-5), "a pair does not depend on its batch"
    turned = reranker.score([(other, one) for one, other in pairs])
    assert turned[:, ::-1] == pytest.approx(scores, abs=1e-5)
    assert reranker.score([]).shape == (0, 2)

    again = run(shop, settings())
    assert again.already_done and again.checkpoint == "reranker-1" and again.details == summary.details


def test_training_further_keeps_words_and_names_the_parent(shop: CatalogFolder, settings: MakeSettings) -> None:
    run(shop, settings(**{"rerank.steps": 1}))
    second = run(shop, settings(**{"rerank.steps": 1, "model.reranker_checkpoint": "reranker-1"}))
    assert Checkpoints(shop.checkpoints).get(second.checkpoint).parent == "reranker-1"


def test_killed_and_going_on_gives_the_same_weights(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(shop.root, tmp_path / "other")
    other = CatalogFolder(tmp_path / "other" / "catalog.csv")
    chosen = settings(**{"rerank.lora_dropout": 0.2, "rerank.steps": 5})
    whole = run(shop, chosen)
    kill_once(lambda: list(other.runs.glob("*/state-2")), lambda: run(other, chosen))
    assert not Checkpoints(other.checkpoints).list()
    resumed = run(other, chosen)
    assert resumed.resumed_from >= 2
    for name, tensor in weights(shop, whole.checkpoint).items():
        assert torch.equal(weights(other, resumed.checkpoint)[name], tensor), name
    unlike = {"seconds_per_pair"}
    told = [{k: v for k, v in each.details["metrics"].items() if k not in unlike} for each in (whole, resumed)]
    assert told[0] == told[1]


def test_the_chunk_size_changes_memory_not_the_result(shop: CatalogFolder, settings: MakeSettings) -> None:
    changes: dict[str, object] = {"rerank.lora_dropout": 0.0, "rerank.steps": 2, "split.validation": 0.0}
    losses = []
    for chunk, force in ((1, False), (4, True)):
        summary = run(shop, settings(**changes, **{"rerank.chunk_size": chunk}), force=force)
        rows = map(json.loads, (summary.run / "metrics.jsonl").read_text().splitlines())
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_without_validation_products_the_last_step_is_kept(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(**{"split.validation": 0.0, "rerank.steps": 1}), heard)
    assert summary.checkpoint and summary.details["metrics"] == {}
    assert any("the last step's adapter is kept" in line for line in heard.said)
    chosen = settings(**{"model.reranker_checkpoint": "latest"})
    assert Workspace(shop, chosen, Silent()).reranker().weight == 0.5


def rewrite(shop: CatalogFolder, change: Callable[[dict[str, Any]], dict[str, Any]], keep: int = 1000) -> None:
    with shop.catalog.open(newline="", encoding="utf-8") as file:
        rows = [change(row) for row in list(csv.DictReader(file))[:keep]]
    with shop.catalog.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_catalog_without_pairs(shop: CatalogFolder, settings: MakeSettings) -> None:
    rewrite(shop, lambda row: {**row, "product_id": "", "image": ""})
    with pytest.raises(DataError, match="no positive pairs"):
        run(shop, settings())
    assert not shop.checkpoints.exists()


def test_a_catalog_of_one_product(shop: CatalogFolder, settings: MakeSettings) -> None:
    rewrite(shop, lambda row: {**row, "product_id": "P0"}, keep=2)
    with pytest.raises(DataError, match="no other training product"):
        run(shop, settings(**{"split.validation": 0.0, "split.test": 0.0}))
    assert not shop.checkpoints.exists()


def test_negatives_that_are_all_far(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = plan_of(shop, settings())

    def apart(sides: Any, instruction: str) -> Any:
        identities = [plan.corpus.train[side.listing].identity for side in sides]
        names = sorted({each.identity for each in plan.corpus.train})
        return np.eye(len(names), dtype=np.float32)[[names.index(name) for name in identities]]

    with pytest.raises(DataError, match=rf"nothing to rerank: .* near it \(by {FAR:g} in cosine\)"):
        mine(plan, apart)
