"""What a run of `train-vision` will do, before any model is loaded: photos, question, batches, steps, and its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.presets import NANO, Base
from ..settings import Settings
from ..store.files import hash_json
from ..training.sizes import peak_rate, with_vision_sizes
from .adjudicator import Question, pair_question
from .photos import LabelledPhoto, LoadedPhotos

NOT_THE_RESULT = {"save_every", "chunk_photos", "chunk_answers", "rollout_answers", "validation_pairs", "name"}
"""Settings that do not change what is learnt, but for rounding and the random numbers drawn."""


@dataclass(frozen=True)
class Plan:
    """Photos of both splits, what is asked about pairs of them, sizes and steps."""

    settings: Settings
    photos: LoadedPhotos
    question: Question
    words: tuple[str, str]
    judge: str
    """The id of the generator that judges pairs."""
    steps_per_epoch: float
    peak_rate: float

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the run."""
        return self.settings.vision.steps

    @property
    def asks(self) -> bool:
        """Tell whether the language model is asked about pairs at all."""
        return bool(self.settings.vision.grpo or self.settings.vision.anchoring)

    @property
    def sizes(self) -> tuple[int, int]:
        """Return how many classes a batch has at most, and how many photos of each."""
        vision = self.settings.vision
        each = min(vision.photos_per_class, max(2, vision.batch_size // 2))
        return max(2, vision.batch_size // each), each

    @property
    def least_photos(self) -> int:
        """Return how many photos a batch may come to: those of the smallest classes."""
        classes, each = self.sizes
        found = Counter(photo.label for photo in self.photos.train.photos).values()
        return sum(sorted(min(each, number) for number in found)[:classes])

    def from_step(self, epoch: int, at: int) -> Iterator[tuple[int, int, list[int]]]:
        """Yield without end (epoch, number of the next batch in it, numbers of photos), from batch `at` of `epoch`.

        Of every class that a batch has it takes as many photos; which classes and which photos is sampled for each.
        """
        by_class: dict[int, list[int]] = {}
        for number, photo in enumerate(self.photos.train.photos):
            by_class.setdefault(photo.label, []).append(number)
        vision, labels, (classes, each) = self.settings.vision, sorted(by_class), self.sizes
        whole = max(1, round(self.steps_per_epoch))
        while True:
            for i in range(at, whole):
                rng = np.random.default_rng((vision.seed, epoch, i))
                chosen = rng.permutation(len(labels))[:classes]
                numbers: list[int] = []
                for label in chosen.tolist():
                    own = by_class[labels[label]]
                    numbers += [own[j] for j in rng.permutation(len(own))[:each]]
                yield epoch, i + 1, numbers
            epoch, at = epoch + 1, 0

    def validation(self) -> Sequence[LabelledPhoto]:
        """Return the photos that validation searches with and among."""
        return self.photos.validation.photos


def make_plan(photos: LoadedPhotos, words: tuple[str, str], judge: str, settings: Settings, base: Base) -> Plan:
    """Return the plan that the settings mean, with sizes that follow from the number of photos."""
    settings = with_vision_sizes(settings, len(photos.train.photos))
    vision = settings.vision
    question = pair_question(photos.keys, words, vision.prompt, vision.classes)
    rate = peak_rate(settings, "vision", built_in=base.name == NANO)
    return Plan(settings, photos, question, words, judge, len(photos.train.photos) / vision.batch_size, rate)


def run_key(plan: Plan, model_id: str) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    content = {
        "vision": plan.settings.vision.model_dump(exclude=NOT_THE_RESULT),
        "question": [plan.question.prompt, *plan.words] if plan.asks else [],
        "judge": plan.judge if plan.asks else "",
        "model": model_id,
        "data": plan.photos.fingerprint,
    }
    return hash_json(content)[:10]


def describe(plan: Plan) -> dict[str, object]:
    """Return the choices made, for --dry-run, reports and manifests."""
    vision, photos = plan.settings.vision, plan.photos
    return {
        "classes_by": list(vision.classes) or ["identity"],
        "train_photos": len(photos.train.photos),
        "train_classes": len(photos.train.classes),
        "validation_photos": len(photos.validation.photos),
        "validation_classes": len(photos.validation.classes),
        "left_out": dict(photos.left_out.most_common()),
        "keys": list(photos.keys),
        "judge": plan.judge if plan.asks else "",
        "words": list(plan.words),
        "batch_size": vision.batch_size,
        "steps": plan.steps,
        "validate_every": vision.validate_every,
        "steps_per_epoch": round(plan.steps_per_epoch, 2),
        "learning_rate": plan.peak_rate,
    }
