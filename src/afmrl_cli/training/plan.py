"""What a run will do, before any model is loaded: pairs, batches, steps, and the key by which it is found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..attributes.views import AttributeSource
from ..catalog.folds import Part
from ..errors import UsageError
from ..models.presets import NANO, Base
from ..settings import Settings
from ..store.files import hash_json
from .batches import Strategy, choose_strategy, plan_batches
from .corpus import Corpus
from .lexical import Lexical, build_lexical
from .loss import Objective, choose_loss
from .pairs import KINDS, Enrich, Kind, Pair, Positive, draw_pair, find_positives, mix, query_views
from .sizes import AGCL_BATCH, batch_size, peak_rate, with_agcl_batch, with_agcl_steps

LEAST_BATCHES = 3
NOT_THE_RESULT = {"save_every", "tensorboard", "name"}
"""Settings that do not change what is learnt."""


@dataclass(frozen=True)
class Plan:
    """Positives, lexical weights, the loss and the number of steps of a run."""

    settings: Settings
    corpus: Corpus
    positives: list[Positive]
    lexical: Lexical
    loss: Objective
    strategy: Strategy
    steps: int
    steps_per_epoch: int
    peak_rate: float

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch, as numbers of positives."""
        agcl, train = self.settings.agcl, self.corpus.train
        listings = [positive.listing for positive in self.positives]
        return plan_batches(
            [train[i].identity for i in listings],
            [train[i].category for i in listings],
            listings,
            self.lexical,
            batch_size=agcl.batch_size,
            strategy=self.strategy,
            seed=(agcl.seed, epoch),
        )

    def draw(self, batch: list[int], epoch: int) -> list[Pair]:
        """Sample the pairs of a batch for this epoch."""
        agcl = self.settings.agcl
        enrich: Enrich = self.settings.embed.enrich if agcl.attributes == "generated" else "none"
        return [
            draw_pair(
                self.positives[i],
                self.corpus.train,
                np.random.default_rng((agcl.seed, epoch, i)),
                max_photos=self.settings.model.embedder_images,
                enrich=enrich,
                dropout=agcl.attribute_dropout,
            )
            for i in batch
        ]

    def from_step(self, epoch: int, at: int) -> Iterator[tuple[int, int, list[Pair]]]:
        """Yield without end (epoch, number of the next batch in it, pairs), from batch `at` of `epoch` on."""
        while True:
            batches = self.batches(epoch)
            for i in range(at, len(batches)):
                yield epoch, i + 1, self.draw(batches[i], epoch)
            epoch, at = epoch + 1, 0


def make_plan(corpus: Corpus, settings: Settings, base: Base, processes: int = 1) -> Plan:
    """Return the plan that the settings mean, with sizes that follow from the catalog where they leave them open.

    Raises UsageError for settings that can't be used, DataError without positives or with too few products.
    """
    agcl = settings.agcl
    if unknown := [kind for kind in agcl.pairs if kind not in KINDS]:
        raise UsageError(f"agcl.pairs: {unknown[0]!r} is no kind of pair", f"known: {', '.join(KINDS)}")
    kinds: list[Kind] = [kind for kind in KINDS if kind in agcl.pairs]
    positives = _some(find_positives(corpus.train, kinds), corpus, settings)
    products = {corpus.train[positive.listing].identity for positive in positives}
    settings = with_agcl_batch(settings, len(products), processes)
    agcl = settings.agcl
    # Every loss gets the same batches, so that nothing differs but the loss.
    lexical = build_lexical(corpus.tokens, normalise=agcl.bm25_normalise, scale=agcl.bm25_scale)
    strategy = choose_strategy(agcl.batches, agcl.batch_size, corpus.num_with_attributes > 0)
    if strategy == "neighbours" and not corpus.num_with_attributes:
        raise UsageError("agcl.batches = neighbours needs attributes, and there are none", "set it to category")
    rate = peak_rate(settings, "agcl", built_in=base.name == NANO)
    plan = Plan(settings, corpus, positives, lexical, choose_loss(agcl), strategy, 0, 0, rate)
    each = len(plan.batches(0))
    settings = with_agcl_steps(settings, each)
    return replace(plan, settings=settings, steps=settings.agcl.steps, steps_per_epoch=each)


def _some(positives: list[Positive], corpus: Corpus, settings: Settings) -> list[Positive]:
    """Return those of `agcl.share` of the products, of LEAST_BATCHES batches at least: with one batch every step would
    have the same products.
    """
    agcl = settings.agcl
    if agcl.share == 1:
        return positives
    products = sorted({corpus.train[positive.listing].identity for positive in positives})
    batch = agcl.batch_size or batch_size(len(products), AGCL_BATCH)
    number = max(LEAST_BATCHES * batch, round(agcl.share * len(products)))
    chosen = set(np.random.default_rng((agcl.seed, len(products))).permutation(products)[:number].tolist())
    return [positive for positive in positives if corpus.train[positive.listing].identity in chosen]


def run_key(plan: Plan, embedder_id: str, source: AttributeSource | None, processes: int) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    settings = plan.settings
    own = settings.agcl.model_dump(exclude=NOT_THE_RESULT | ({"share"} if settings.agcl.share == 1 else set()))
    if own["weights"] in ("negatives", "paper"):  # as earlier versions, whose runs are found again, wrote it
        own["weight_positive"] = own.pop("weights") == "paper"
    content = {
        "agcl": own,
        "instructions": [settings.embed.query_instruction, settings.embed.target_instruction, settings.embed.enrich],
        "embedder": embedder_id,
        "attributes": [source.generator, source.prompt] if source else "given",
        "data": plan.corpus.fingerprint,
        "processes": processes,
    }
    return hash_json(content)[:10]


def queries_with_attributes(plan: Plan) -> dict[str, int]:
    """Return how many positives of each kind have stored attributes of a view that asks for them."""
    enriched = plan.settings.embed.enrich != "none" and plan.settings.agcl.attributes == "generated"
    train = plan.corpus.train
    described = [
        positive
        for positive in plan.positives
        if enriched
        and any(view in train[positive.listing].attributes for view in query_views(positive, train[positive.listing]))
    ]
    return {kind: mix(described).get(kind, 0) for kind in mix(plan.positives)}


def describe(plan: Plan, part: Part | None = None) -> dict[str, object]:
    """Return the choices made, for --dry-run, reports and manifests; `part` is what was taken of the training split."""
    train = plan.corpus.train
    return {
        "loss": plan.settings.agcl.loss,
        "weights": plan.settings.agcl.weights if plan.settings.agcl.loss == "agcl" else "equal",
        "train_listings": len(train),
        "validation_listings": len(plan.corpus.validation),
        "test_listings": plan.corpus.others,
        "with_attributes": plan.corpus.num_with_attributes,
        "pairs": mix(plan.positives),
        "queries_with_attributes": queries_with_attributes(plan),
        "products": len({train[positive.listing].identity for positive in plan.positives}),
        "batches": plan.strategy,
        "batch_size": plan.settings.agcl.batch_size,
        "steps": plan.steps,
        "validate_every": plan.settings.agcl.validate_every,
        "steps_per_epoch": plan.steps_per_epoch,
        "learning_rate": plan.peak_rate,
        **({"part": part.describe(), "attributes_by": plan.corpus.generators} if part else {}),
    }
