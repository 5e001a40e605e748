"""What a run of `train-rar` will do: from which policy, in which environment, which queries in which step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..catalog.folds import Part
from ..models.presets import NANO, Base
from ..settings import Settings
from ..store.checkpoints import Manifest
from ..training.parallel import World, gather_objects
from ..training.sizes import peak_rate, with_rar_steps
from .environment import Environments
from .room import Room

NOT_THE_RESULT = {"save_every", "name", "chunk_answers", "rollout_answers", "shared_prefix"}
"""Settings that do not change what is learnt (but for rounding). Nor does the number of processes."""


@dataclass(frozen=True)
class Plan:
    """Where the generator is trained, and how: `prompts` queries a step, answered `group` times each."""

    settings: Settings
    environments: Environments
    base: Base
    parent: Manifest | None
    generator: str
    """The id of the generator that training starts from."""
    prompts: int
    peak_rate: float
    room: Room
    part: Part | None = None
    world: World = field(default_factory=World)

    @property
    def order(self) -> list[int]:
        """Return the queries of all batches of rollouts, one after another."""
        rar = self.settings.rar
        return query_order(len(self.environments.train.queries), rar.steps, self.prompts, rar.seed)

    def describe(self) -> dict[str, object]:
        """Describe it for people, manifests and cards."""
        rar = self.settings.rar
        return {
            **self.environments.description,
            "generator": self.generator,
            "reference": "the base" if self.parent is None else self.parent.name,
            "prompts": self.prompts,
            "answers_a_step": self.prompts * rar.group,
            "steps": rar.steps,
            "validate_every": rar.validate_every,
            "learning_rate": self.peak_rate,
            "reward": rar.reward,
            "room": self.room.model_dump(),
            **({"part": self.part.describe()} if self.part else {}),
        }


def make_plan(
    environments: Environments,
    room: Room,
    base: Base,
    parent: Manifest | None,
    generator: str,
    part: Part | None = None,
    world: World | None = None,
) -> Plan:
    """Return the plan that the environments' settings and what was measured in them mean; a step asks no more queries
    than there are. UsageError when the processes can't have equally many of these.
    """
    settings = room.settle(environments.train.settings)
    world, ranks = world or World(), [query.rank for query in environments.train.queries]
    queries = min(len(ranks), settings.rar.queries)
    prompts = min(settings.rar.prompts, queries)
    world.share(prompts, "rar.prompts")
    chosen = room.choose(ranks, settings.rar.queries, settings.rar.seed)
    chosen = gather_objects(chosen, world)[0]  # ranks may be rounded otherwise in another process
    settings = with_rar_steps(settings, queries)
    rate = peak_rate(settings, "rar", built_in=base.name == NANO)
    chosen_environments = environments.with_choice(settings, chosen)
    return Plan(settings, chosen_environments, base, parent, generator, prompts, rate, room, part, world)


def query_order(queries: int, batches: int, size: int, seed: int) -> list[int]:
    """Return `batches` times `size` numbers below `queries`: shuffled anew each time round, no number twice in
    a batch.
    """
    order: list[int] = []
    epoch = 0
    while len(order) < batches * size:
        shuffled = np.random.default_rng((seed, epoch)).permutation(queries)
        order += shuffled[: queries // size * size].tolist()
        epoch += 1
    return order[: batches * size]
