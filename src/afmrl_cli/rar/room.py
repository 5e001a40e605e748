"""How much RAR can win: answers sampled before the first step, by the policy that is to be trained, as it would be.

    plain, mean, best, own   recall@k of a sample of the training queries: without attributes, on average of G answers,
                             by the best of them, with the shop's own values
    d(reward)                share of the groups in which two valid answers get different rewards

    rar.k unset              k with the largest d(recall@k); where none has any, the median rank without attributes
    rar.reward = auto        recall@k if d(recall@k) >= 1/4, else rank
    too little to learn      d of that reward < rar.least_spread
    queries                  of more than rar.queries, sampled by weights: d of that reward among the sample's queries
                             with about the same rank without attributes (1, 2 to 3, 4 to 7, ...), and one group at d

A group whose rewards are all equal has advantages of 0. With 16 queries a step a quarter is four groups that teach
something; with an eighth or less no gain is shown (docs/lab/stages.md). An invalid answer counts as no attributes,
which is what it is worth in a search; that eta differs from what others get is not counted: RAR is no way to learn
the format.

The sample follows from the seed, and a run keeps what it found (plan.json): it goes on with the same k and reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ..attributes.own_columns import own_columns, own_text
from ..attributes.schema import read_answer
from ..catalog.problems import Problems
from ..catalog.read import open_catalog
from ..listener import Listener
from ..settings import Settings
from ..store.files import parse_json, reading
from ..training.parallel import World, divided
from ..training.sizes import RAR_K
from ..workspace import Workspace
from .environment import Environment
from .policy import Policy
from .queries import difficulty, prefer
from .reward import PROPOSED_KS, Group, Shape, propose_k, recall_at_k, share_with_variance, well_formed

SAMPLE = 64
"""Most queries of the sample; as many at a time as in a step, lest it takes more memory than training."""
ENOUGH = 1 / 4
"""Share of groups that must differ for recall@k to be rewarded."""
LEAST = 1 / 20
"""Of a query whose like were all answered alike, how likely it is to be taken, against one whose like all differed."""
MOST_INVALID = 1 / 2


class Room(BaseModel, frozen=True, extra="forbid"):
    """What the sample gave: `groups` of `answers` each; recall by k without attributes, on average, by the best answer
    and with the shop's own values ({} where it has none; for `own_queries` it has); the share of groups whose rewards
    differ, by k and by rank; k and reward, as set or as they follow; the share by that reward for queries of one
    `difficulty`; `least`, the share below which it does not train.
    """

    groups: int
    answers: int
    valid_share: float
    plain: dict[str, float]
    mean: dict[str, float]
    best: dict[str, float]
    own: dict[str, float]
    own_queries: int
    spread_by_k: dict[str, float]
    spread_by_rank: float
    spread_by_difficulty: dict[str, float]
    k: int
    reward: Shape
    least: float

    @property
    def spread_of_reward(self) -> float:
        """Return the share of groups that differ by the reward."""
        return self.spread_by_k[str(self.k)] if self.reward == "recall" else self.spread_by_rank

    @property
    def rewarded_by(self) -> str:
        """Name the reward."""
        return f"recall@{self.k}" if self.reward == "recall" else "rank"

    def settle(self, settings: Settings) -> Settings:
        """Return the settings with k and reward, which may be left open there."""
        rar = settings.rar.model_copy(update={"k": self.k, "reward": self.reward})
        return settings.model_copy(update={"rar": rar})

    def choose(self, ranks: Sequence[int], number: int, seed: int) -> list[int]:
        """Return at most `number` of the queries with these ranks without attributes, those preferred by which answers
        differ.
        """
        of_all, shares = self.spread_of_reward, self.spread_by_difficulty
        return prefer([shares.get(str(difficulty(rank)), of_all) or LEAST for rank in ranks], number, seed)

    @property
    def too_little_to_learn(self) -> str:
        """Say why training would teach too little, "" where it may teach something."""
        share = self.spread_of_reward
        if not self.valid_share or share >= self.least:
            return ""  # with no valid answer the trainer says what is wrong
        valid = "" if self.valid_share > MOST_INVALID else f"; {self.valid_share:.0%} of the answers are valid"
        return (
            f"RAR has too little to learn here: of {self.groups} queries {round(share * self.groups)} are answered "
            f"better by one of {self.answers} answers than by another (rewarded by {self.rewarded_by}){valid}"
        )

    @property
    def what_may_help(self) -> str:
        """Say what to do where there is too little to learn."""
        if self.valid_share <= MOST_INVALID:
            return "lower rar.temperature, or train it to the schema first (`afmrl train-sft`)"
        return (
            "try another rar.query, a larger rar.gallery, a higher rar.temperature or, in a cycle, cycle.folds = auto; "
            "rar.least_spread = 0 trains all the same"
        )

    @property
    def lines(self) -> list[str]:
        """Say in lines of 80 columns how much there is to win."""
        name = f"recall@{self.k}"
        own = f", {self.own[name]:.3f} with the shop's own values" if self.own else ""
        share = f"{self.spread_of_reward:.0%} of {self.groups} groups of answers differ"
        return [
            f"room: {name} {self.plain[name]:.3f} without attributes, "
            f"{self.mean[name]:.3f} on average of {self.answers} answers,",
            f"    {self.best[name]:.3f} by the best of them{own}",
            f"    rewarded by {self.rewarded_by}: {share}",
        ]


def kept_room(run: Path) -> Room | None:
    """Return what the run measured when it began, None for a new one. DataError when plan.json is damaged."""
    file = run / "plan.json"
    if not file.is_file():
        return None
    with reading(file):
        found = parse_json(file.read_text("utf-8")).get("room")
        return Room.model_validate(found) if found else None  # an earlier version measured none


def measure_room(work: Workspace, environment: Environment, policy: Policy, world: World | None = None) -> Room:
    """Sample answers to some of the environment's queries, every process to its part, and rank the gallery by them."""
    rar, median_k = environment.settings.rar, environment.median_k
    chosen = np.random.default_rng((rar.seed, 4)).permutation(len(environment.queries))[: min(SAMPLE, rar.queries)]
    numbers = sorted(chosen.tolist())
    world = world or World()

    def sampled(places: Sequence[int]) -> list[list[tuple[int, ...] | None]]:
        return _sampled_ranks(environment, policy, [numbers[place] for place in places], work.listener, world)

    groups = divided(len(numbers), sampled, world)
    plain = environment.ranks(numbers, [None] * len(numbers))
    own = own_values(work, environment, numbers)
    valid, answers = well_formed(groups), len(numbers) * rar.group
    rows = min(len(environment.gallery) - len(query.hidden) for query in environment.queries)
    ks = sorted({median_k, rar.k or median_k, *(k for k in PROPOSED_KS if k < min(rows, RAR_K + 1))})
    best_k, spread = propose_k(groups, ks)
    k = rar.k or (best_k if spread[best_k] else median_k)
    shape: Shape = ("recall" if spread[k] >= ENOUGH else "rank") if rar.reward == "auto" else rar.reward
    as_shown = [
        [without if ranks is None else ranks for ranks in group] for group, without in zip(groups, plain, strict=True)
    ]

    def recall(pick: Callable[[list[float]], Any], of: Sequence[Group]) -> dict[str, float]:
        found = well_formed(of)
        return {
            f"recall@{k}": float(np.mean([pick([recall_at_k(r, k) for r in group]) for group in found])) for k in ks
        }

    return Room(
        groups=len(numbers),
        answers=rar.group,
        valid_share=sum(map(len, valid)) / answers,
        plain=recall(np.mean, [[ranks] for ranks in plain]),
        mean=recall(np.mean, as_shown),
        best=recall(max, as_shown),
        own=recall(np.mean, [[ranks] for ranks in environment.ranks(numbers, own)]) if any(own) else {},
        own_queries=sum(text is not None for text in own),
        spread_by_k={str(k): share for k, share in spread.items()},
        spread_by_rank=share_with_variance(valid, 1, "rank"),
        spread_by_difficulty=_by_difficulty([environment.queries[number].rank for number in numbers], valid, k, shape),
        k=k,
        reward=shape,
        least=rar.least_spread,
    )


def _by_difficulty(
    ranks: Sequence[int], groups: Sequence[Sequence[Sequence[int]]], k: int, shape: Shape
) -> dict[str, float]:
    """Return the share of groups that differ for queries of each difficulty, and one more group at the share of all."""
    of_all = share_with_variance(groups, k, shape)
    found: dict[int, list[Sequence[Sequence[int]]]] = {}
    for rank, group in zip(ranks, groups, strict=True):
        found.setdefault(difficulty(rank), []).append(group)
    return {
        str(each): (share_with_variance(some, k, shape) * len(some) + of_all) / (len(some) + 1)
        for each, some in sorted(found.items())
    }


def _sampled_ranks(
    environment: Environment, policy: Policy, numbers: Sequence[int], listener: Listener, world: World
) -> list[list[tuple[int, ...] | None]]:
    """Return the ranks that each of a group's answers leads to, None for an invalid one."""
    rar, groups = environment.settings.rar, list[list[tuple[int, ...] | None]]()
    at_once = max(1, rar.prompts // world.size)
    for i in range(0, len(numbers), at_once):
        some = numbers[i : i + at_once]
        seeds = [(rar.seed, 0, number) for number in some]  # as in a step before the first
        tokens = policy.sample([policy.request(environment, number) for number in some], rar, seeds)
        answers = [policy.generator.generation(row) for row in tokens]
        query_of_answer = [number for number in some for _ in range(rar.group)]
        rewards = environment.rewards(
            query_of_answer, [each.text for each in answers], [each.cut_off for each in answers]
        )
        ranks = [each.ranks if each.valid else None for each in rewards]
        groups += [ranks[at : at + rar.group] for at in range(0, len(ranks), rar.group)]
        listener.progress("measuring the room", len(groups), len(numbers))
    return groups


def own_values(work: Workspace, environment: Environment, numbers: Sequence[int]) -> list[str | None]:
    """Return what the shop's own columns, those that `train-sft` would learn from, say of the queries' listings as
    attribute text; None for nothing, or for what the schema refuses.
    """
    settings, task = work.settings, work.task
    wanted = {environment.queries[number].id for number in numbers}
    texts: dict[str, str] = {}
    with open_catalog(work.folder, settings.catalog, Problems()) as catalog:
        columns = own_columns(settings.sft.columns, task.schema, catalog)
        for product in catalog.products if columns else ():
            if product.id in wanted:
                texts[product.id] = own_text(product, columns)
    queries = [environment.queries[number] for number in numbers]
    return [
        read_answer(texts.get(query.id, ""), False, task.schema, query.category, task.settings)[0] for query in queries
    ]
