"""How much RAR can win, measured before the first step: what follows from it, and what a run does with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from afmrl_cli.attributes.schema import AttributeSchema
from afmrl_cli.cli.app import app
from afmrl_cli.errors import DataError
from afmrl_cli.listener import Silent
from afmrl_cli.rar import run as rar_run
from afmrl_cli.rar.queries import difficulty
from afmrl_cli.rar.reward import Reward, valid_reward
from afmrl_cli.rar.room import Room, kept_room, measure_room, own_values
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.rar.rig import ANY_ROOM, Rig, make_rig, rar_settings, train
from tests.training.shop import write_shop

FLAT: dict[str, object] = {"rar.least_spread": 0.2, "rar.from_base": True, "rar.temperature": 1e-6}
"""All answers of a group are the same, whatever the generator knows."""


def room(by_k: dict[str, float], by_rank: float, **changes: Any) -> Room:
    recall = {f"recall@{k}": 0.5 for k in by_k}
    found = {"groups": 64, "answers": 8, "spread_by_k": by_k, "spread_by_rank": by_rank, "k": int(min(by_k))}
    return ANY_ROOM.model_copy(update=found | {"plain": recall, "mean": recall, "best": recall} | changes)


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    return CatalogFolder(write_shop(tmp_path / "shop", 30) / "catalog.csv")


def measured(rig: Rig, shop: CatalogFolder, ranks: list[list[int]], **changes: object) -> Room:
    """What is measured when one answer in a group leads to each of these ranks; the gallery has 24 rows."""
    chosen = rar_settings(
        **{"rar.from_base": True, "rar.k": 0, "rar.reward": "auto", "rar.queries": len(ranks)} | changes
    )
    environment = rig.plan.environments.train.under(chosen)
    environment.queries = tuple(replace(each, rank=2) for each in environment.queries[: len(ranks)])
    groups = iter(ranks)

    def rewards(numbers: list[int], *_: object) -> list[Reward]:
        shape = [rank for _ in range(len(numbers) // 4) for rank in next(groups)]
        return [valid_reward("a: b", [rank], k=1, shape="rank") for rank in shape]

    environment.rewards = rewards  # type: ignore[method-assign,assignment]
    return measure_room(Workspace(shop, chosen, Silent()), environment, rig.policy)


def test_recall_is_rewarded_where_a_quarter_of_the_groups_differ_by_it_and_rank_elsewhere(
    shop: CatalogFolder, tmp_path: Path
) -> None:
    rig = make_rig(shop, rar_settings(**{"rar.from_base": True}), tmp_path)
    flat, first, later = [1, 1, 1, 1], [1, 1, 2, 1], [2, 3, 4, 3]
    wide = measured(rig, shop, [flat, first, flat, first])
    assert (wide.reward, wide.k, wide.spread_by_k["1"]) == ("recall", 1, 0.5)
    assert measured(rig, shop, [flat, flat, flat, first]).reward == "recall", "a quarter is enough"
    narrow = measured(rig, shop, [flat, flat, flat, flat, later])
    assert (narrow.reward, narrow.k, narrow.spread_of_reward) == ("rank", 2, 0.2), "as many differ by 3"
    by_one = measured(rig, shop, [later, later], **{"rar.k": 1})
    assert (by_one.reward, by_one.k) == ("rank", 1), "by the k that is set none differs"
    own = measured(rig, shop, [later, later], **{"rar.k": 1, "rar.reward": "recall"})
    assert (own.reward, own.k, own.spread_of_reward) == ("recall", 1, 0.0), "what is set stands"
    rank = measured(rig, shop, [first, first], **{"rar.reward": "rank"})
    assert rank.reward == rank.settle(Settings()).rar.reward == "rank"


def test_too_little_is_to_be_learnt_where_fewer_groups_differ_than_the_setting_says() -> None:
    why = room({"1": 0.0, "5": 0.0}, 3 / 64).too_little_to_learn
    assert "of 64 queries 3 are answered better by one of 8 answers" in why and "rewarded by rank" in why
    assert not room({"1": 0.0}, 0.2).too_little_to_learn and room({"1": 0.0}, 0.199).too_little_to_learn
    assert not room({"1": 0.0}, 0.0, least=0.0).too_little_to_learn, "as the user says"
    assert "rewarded by recall@1" in room({"1": 0.0, "5": 0.5}, 0.5, reward="recall").too_little_to_learn


def test_what_helps_depends_on_whether_answers_are_valid() -> None:
    flat, broken = room({"1": 0.0}, 0.0), room({"1": 0.0}, 0.0, valid_share=0.1)
    assert "another rar.query" in flat.what_may_help and "valid" not in flat.too_little_to_learn
    assert "train-sft" in broken.what_may_help and "10% of the answers" in broken.too_little_to_learn
    never = room({"1": 0.0}, 0.0, valid_share=0.0)
    assert not never.too_little_to_learn, "the trainer says what is wrong with these"


def test_queries_are_preferred_whose_like_were_answered_differently() -> None:
    found = room({"1": 0.2}, 0.2, spread_by_difficulty={"1": 0.02, "2": 0.9})
    ranks = [1] * 300 + [3] * 300 + [50] * 300
    chosen = np.array([ranks[i] for i in found.choose(ranks, 200, 0)])
    assert len(chosen) == 200 and (chosen == 3).mean() > 0.7 > (chosen == 50).mean() > (chosen == 1).mean()
    assert found.choose([1, 2], 5, 0) == [0, 1]
    nothing = room({"1": 0.0}, 0.0, spread_by_difficulty={"1": 0.0})
    assert len(nothing.choose(ranks, 200, 0)) == 200


def test_the_lines_say_what_there_is_to_win() -> None:
    recall = {"plain": 0.594, "mean": 0.652, "best": 0.719, "own": 0.75}
    found = room({"1": 0.188, "5": 0.1}, 0.47, **{way: {"recall@1": each} for way, each in recall.items()})
    assert found.lines == [
        "room: recall@1 0.594 without attributes, 0.652 on average of 8 answers,",
        "    0.719 by the best of them, 0.750 with the shop's own values",
        "    rewarded by rank: 47% of 64 groups of answers differ",
    ]
    assert found.model_copy(update={"own": {}}).lines[1].endswith("0.719 by the best of them")


def test_what_is_measured_is_what_the_policy_answers(shop: CatalogFolder, tmp_path: Path) -> None:
    """Against recall computed from the answers one by one; twice the same."""
    chosen = rar_settings(**{"rar.from_base": True, "rar.query": "text-to-photos"})
    rig, work = make_rig(shop, chosen, tmp_path), Workspace(shop, chosen, Silent())
    environment = rig.plan.environments.train
    seen: list[Any] = []
    rewards = environment.rewards
    environment.rewards = lambda *given: seen.append(rewards(*given)) or seen[-1]  # type: ignore[func-returns-value,method-assign]
    found = measure_room(work, environment, rig.policy)
    assert found == measure_room(work, environment, rig.policy) and found.groups == 10 and found.answers == 4
    made = [each for some in seen[:5] for each in some]
    plain = [(query.rank,) for query in environment.queries for _ in range(4)]
    ranks = np.array([min(each.ranks or bare) for each, bare in zip(made, plain, strict=True)]).reshape(10, 4)
    assert found.valid_share == np.mean([each.valid for each in made])
    for k in (1, 5):
        assert found.plain[f"recall@{k}"] == np.mean([query.rank <= k for query in environment.queries])
        assert found.mean[f"recall@{k}"] == pytest.approx(np.mean(ranks <= k))
        assert found.best[f"recall@{k}"] == np.mean((ranks <= k).any(1))
    valid = [[each.ranks for each in made[i : i + 4] if each.valid] for i in range(0, 40, 4)]
    assert found.spread_by_rank == np.mean([len(set(group)) > 1 for group in valid])
    assert found.spread_by_difficulty.keys() == {str(difficulty(query.rank)) for query in environment.queries}
    assert found.spread_by_k.keys() == {"1", "2", "3", "5", "10", "20", str(environment.median_k)}


def test_the_shops_own_values_are_those_of_its_columns(shop: CatalogFolder, tmp_path: Path) -> None:
    """Those that train-sft would learn from; where the schema refuses one it counts as nothing."""
    chosen = rar_settings(**{"rar.from_base": True})
    rig, work = make_rig(shop, chosen, tmp_path), Workspace(shop, chosen, Silent())
    environment = rig.plan.environments.train
    numbers = range(len(environment.queries))
    own = own_values(work, environment, numbers)
    assert len(own) == len(numbers) and all(text and ": " in text for text in own)
    rows = shop.catalog.read_text("utf-8").splitlines()
    row = next(row for row in rows if row.startswith(f"{environment.queries[0].id},"))
    assert own[0] is not None and all(pair.split(": ")[1] in row for pair in own[0].split("; "))
    work.task.__dict__["schema"] = AttributeSchema.from_settings(
        rar_settings(**{"attributes.keys": {"colour": {"values": ["no such colour"]}}}).attributes
    )
    assert own_values(work, environment, numbers) == [None] * len(numbers)


def test_a_run_without_anything_to_learn_is_refused_and_stays_refused(shop: CatalogFolder) -> None:
    summary = train(Workspace(shop, rar_settings(**FLAT), Silent()))
    assert summary.checkpoint == "" and summary.details["step"] == 0
    assert "too little to learn here: of 10 queries 0 are" in summary.details["refused"]
    assert not (summary.run / "metrics.jsonl").exists() and (summary.run / "plan.json").is_file()
    again = train(Workspace(shop, rar_settings(**FLAT), Silent()))
    assert again.already_done and again.details == summary.details


def test_the_command_refuses_in_two_lines_after_it_has_shown_what_was_measured(shop: CatalogFolder) -> None:
    words = ["model.device=cpu", "split.validation=0.4", "split.test=0", "rar.validation_queries=5", "rar.queries=6"]
    words += ["rar.query=text-to-photos", "attributes.max_new_tokens=24", "rar.temperature=1e-6", "rar.group=2"]
    sets = [word for pair in words for word in ("--set", pair)]
    refused = CliRunner().invoke(app, ["train-rar", str(shop.root), "--from-base", *sets, "--json"])
    content = json.loads(refused.stdout)
    assert refused.exit_code == 1 and content["checkpoint"] is None and "too little to learn" in content["refused"]
    assert content["plan"]["room"]["spread_by_rank"] == 0.0
    shown = CliRunner().invoke(app, ["train-rar", str(shop.root), "--from-base", *sets])
    assert shown.exit_code == 1 and "groups that differ" in shown.stdout
    assert len([line for line in shown.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "another rar.query" in " ".join(shown.stderr.split()) and "Traceback" not in shown.output
    dry = CliRunner().invoke(app, ["train-rar", str(shop.root), "--from-base", *sets, "--dry-run"])
    assert dry.exit_code == 0 and "it would be refused" in " ".join(dry.stderr.split())


class KilledAtTheStart(Silent):
    """As a kill before the first state."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        if what == "training":
            raise RuntimeError("killed")


def test_a_run_that_was_killed_goes_on_with_what_it_had_measured(
    shop: CatalogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = rar_settings(**{"rar.from_base": True, "rar.k": 0, "rar.reward": "auto", "rar.steps": 1})
    with pytest.raises(RuntimeError, match="killed"):
        train(Workspace(shop, chosen, KilledAtTheStart()))
    (plan,) = shop.runs.glob("train-rar-*/plan.json")
    found = kept_room(plan.parent)
    content = json.loads(plan.read_text())
    assert found is not None and content["k"] == found.k
    monkeypatch.setattr(rar_run, "measure_room", lambda *_: pytest.fail("measured again"))
    assert train(Workspace(shop, chosen, Silent())).plan == content


def test_a_damaged_plan_is_named(shop: CatalogFolder) -> None:
    place = shop.runs / "train-rar-1"
    place.mkdir(parents=True)
    assert kept_room(place) is None
    (place / "plan.json").write_text('{"room": {"groups": "many"}}')
    with pytest.raises(DataError, match=r"plan\.json: damaged"):
        kept_room(place)
    (place / "plan.json").write_text('{"queries": 3}')
    assert kept_room(place) is None, "of the version before"
