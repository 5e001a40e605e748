"""What a run of `train-composed` will do, before any model is loaded: examples, batches, steps, and its key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..attributes.views import LISTING
from ..models.presets import NANO, Base
from ..settings import Settings
from ..store.files import hash_json
from ..training.corpus import Corpus
from ..training.pairs import Photo, Side, TrainListing, first_photos_of, view_side
from ..training.parallel import World
from ..training.sizes import peak_rate, with_composed_sizes
from .corpus import Example, Examples

NOT_THE_RESULT = {"save_every", "chunk_tokens", "name"}
"""Settings that do not change what is learnt."""
ONE_PHOTO = 0.5
"""Share of the queries that show one photo of a reference that has several: that is what people have at hand."""


@dataclass(frozen=True)
class Drawn:
    """An example as one epoch sees it: what asks, what is searched, and the number of the example."""

    number: int
    query: Side
    target: Side


@dataclass(frozen=True)
class Plan:
    """Examples of both splits, sizes and steps; `validation` is None where its split has no triplets."""

    settings: Settings
    corpus: Corpus
    train: Examples
    validation: Examples | None
    steps: int
    steps_per_epoch: int
    peak_rate: float

    def from_step(self, epoch: int, at: int) -> Iterator[tuple[int, int, list[int]]]:
        """Yield without end (epoch, number of the next batch in it, numbers of examples), from batch `at` of `epoch`.

        Every epoch is in another order; what its whole batches leave over is not seen in it.
        """
        composed, number = self.settings.composed, len(self.train.rows)
        while True:
            order = np.random.default_rng((composed.seed, epoch)).permutation(number)
            for i in range(at, self.steps_per_epoch):
                yield epoch, i + 1, order[i * composed.batch_size : (i + 1) * composed.batch_size].tolist()
            epoch, at = epoch + 1, 0

    def draw(self, numbers: Sequence[int], epoch: int) -> list[Drawn]:
        """Sample for this epoch how each change is written, which photos are shown, and whether attributes are."""
        return [self._draw(i, np.random.default_rng((self.settings.composed.seed, epoch, i))) for i in numbers]

    def _draw(self, number: int, rng: np.random.Generator) -> Drawn:
        example, listings = self.train.rows[number], self.corpus.train
        in_words = rng.random() < 0.5
        plain = in_words or rng.random() < self.settings.composed.attribute_dropout
        photos = listings[example.reference].photos
        if rng.random() < ONE_PHOTO:
            photos = (photos[int(rng.integers(len(photos)))],)
        query = Side(
            example.reference,
            example.sentence if in_words else example.wish,
            self._first(photos),
            "" if plain else example.edited,
        )
        return Drawn(number, query, self.listing_side(listings, example.target))

    def listing_side(self, listings: Sequence[TrainListing], number: int) -> Side:
        """Return a listing as `afmrl embed` shows it."""
        side = view_side(listings[number], number, LISTING, enriched=self.settings.embed.enrich == "both")
        return first_photos_of(side, self.settings.model.embedder_images)

    def validation_queries(self, example: Example, listings: Sequence[TrainListing]) -> list[Side]:
        """Return validation queries as `eval --protocol composed` asks them: one photo, the change as pairs; with the
        reference's known attributes, where there are some, and without.
        """
        plain = Side(example.reference, example.wish, listings[example.reference].photos[:1])
        return [replace(plain, attributes=example.edited), plain] if example.edited else [plain]

    def _first(self, photos: tuple[Photo, ...]) -> tuple[Photo, ...]:
        most = self.settings.model.embedder_images
        return photos[:most] if most else photos


def make_plan(corpus: Corpus, train: Examples, validation: Examples | None, settings: Settings, base: Base) -> Plan:
    """Return the plan that the settings mean, with sizes that follow from the number of triplets."""
    settings = with_composed_sizes(settings, len(train.rows))
    rate = peak_rate(settings, "composed", built_in=base.name == NANO)
    each = max(1, len(train.rows) // settings.composed.batch_size)
    return Plan(settings, corpus, train, validation, settings.composed.steps, each, rate)


def run_key(plan: Plan, embedder_id: str, world: World) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    settings = plan.settings
    own = settings.composed.model_dump(exclude=NOT_THE_RESULT)
    content = {
        "composed": own,
        "instructions": [settings.embed.query_instruction, settings.embed.target_instruction, settings.embed.enrich],
        "embedder": embedder_id,
        "data": data_of(plan),
        **world.key,
    }
    return hash_json(content)[:10]


def data_of(plan: Plan) -> str:
    """Return a hash of what training sees of the catalog."""
    held_out = plan.validation.fingerprint if plan.validation else ""
    return hash_json([plan.corpus.fingerprint, plan.train.fingerprint, held_out])


def describe(plan: Plan) -> dict[str, object]:
    """Return the choices made, for --dry-run, reports and manifests."""
    composed, train = plan.settings.composed, plan.train
    return {
        "stages": list(stages_of(plan.settings)),
        "train_listings": len(plan.corpus.train),
        "validation_listings": len(plan.corpus.validation),
        "test_listings": plan.corpus.others,
        "triplets": train.counts,
        "far_left_out": train.far_left_out,
        "validation_triplets": plan.validation.counts if plan.validation else {},
        "captions": len(train.captions),
        "attributes_by": list(train.made_by),
        "with_known_attributes": sum(bool(row.edited) for row in train.rows),
        "batch_size": composed.batch_size,
        "steps": plan.steps,
        "validate_every": composed.validate_every,
        "steps_per_epoch": plan.steps_per_epoch,
        "learning_rate": plan.peak_rate,
    }


def stages_of(settings: Settings) -> tuple[str, ...]:
    """Return the stages in order: batch, bank, or both."""
    chosen = settings.composed.stages
    return ("batch", "bank") if chosen == "both" else (chosen,)
