"""Teaching the generator to judge pairs of photos: what is drawn at each step, and what is validated on.

Every training photo comes once in an epoch, with another photo of its class or one of another class (`saga.pairs`), and
the right answer (`saga.adjudicator`) follows from what is known of both. One row in ten is the reranker's own question,
with the photos alone, about the product: so the adapter can be used as a reranker, too.

    loss = - mean over answers, mean over the lines of an answer, mean over a line's tokens of log p(token | before)

Were all tokens to weigh the same, the verdict would be one of fifty, and be learnt last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..attributes.request import Request
from ..catalog.folds import Part
from ..catalog.images import ImageProblem
from ..errors import DataError
from ..listener import Listener
from ..models.presets import NANO, Base
from ..models.reranker import Side, pair_text
from ..saga.adjudicator import Prompt, Question, answer_text, judging, pair_question
from ..saga.pairs import Pairs, PhotoPair, fixed_pairs
from ..saga.photos import LabelledPhoto, LoadedPhotos, PhotoSet, regrouped
from ..settings import AttributeSettings, Settings
from ..store.files import hash_json
from ..training.parallel import World
from ..training.sizes import peak_rate, with_sft_sizes
from .corpus import SPECIAL, Row
from .pair_score import PairScore, score_pairs
from .plan import NOT_THE_RESULT, Course

if TYPE_CHECKING:
    from ..attributes.task import AttributeTask
    from ..catalog.pictures import Picture
    from ..models.generator import LocalGenerator
    from ..models.processor import Processor

RERANKED = 0.1
"""Share of the rows that ask the reranker's question."""
TOO_LONG = "longer than vision.max_new_tokens"
ANSWERS = 1000
"""Answers by which it is known which words are learnt."""


@dataclass(frozen=True)
class PairExample:
    """Two photos, the question about them (None: the reranker's) and its right answer."""

    pair: PhotoPair
    question: Question | None
    answer: str
    words: tuple[str, str]
    described: bool
    """Whether the answer describes both photos."""

    @property
    def listings(self) -> tuple[str, ...]:
        """Return the ids of the listings that are shown."""
        return (self.pair.first.listing, self.pair.second.listing)

    def request(self, generator: LocalGenerator, settings: Settings) -> Request:
        """Return the question with both photos opened. DataError for one that can't be opened any more."""
        photos = tuple(_open(generator, photo, settings) for photo in (self.pair.first, self.pair.second))
        return Request(self.question.prompt if self.question else "", photos)

    def row(self, generator: LocalGenerator, task: AttributeTask, settings: Settings) -> Row:
        """Return what the generator, or the reranker, would read, with the answer."""
        request = self.request(generator, settings)
        if self.question is not None:
            return Row(generator.text(request), request.images, self.answer, by_line=True)
        first, second = (Side("", (photo,)) for photo in request.images)
        prompt = pair_text(generator.processor, self.words, (first, second))
        return Row(prompt, request.images, self.answer, by_line=True)


def _open(generator: LocalGenerator, photo: LabelledPhoto, settings: Settings) -> Picture:
    try:
        return generator.load_image(photo.photo.path, settings.catalog)
    except ImageProblem as problem:
        raise DataError(f"{problem}: it could be read when the run began", "put it back") from problem


@dataclass(frozen=True)
class PairPlan(Course):
    """The photos that are learnt from, with their classes and with their identities, and how pairs are asked about."""

    photos: LoadedPhotos
    known: PhotoSet
    """The training photos with a right answer."""
    left_out: Counter[str]
    """Training listings without one, by reason."""
    words: tuple[str, str]
    question: Question

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.known)

    @cached_property
    def _products(self) -> Pairs | None:
        """Return the pairs of the reranker's question: None where no two products have two photos each."""
        products = regrouped(self.known.photos, lambda photo: photo.identity)
        return Pairs(products) if len(products.classes) > 1 else None

    @property
    def reranks(self) -> bool:
        """Tell whether the reranker's question is learnt, too."""
        return self._products is not None

    @property
    def num_firsts(self) -> int:
        """Count the photos that make an epoch."""
        return min(len(self.known.photos), self.settings.sft.max_products)

    def __getitem__(self, position: int) -> PairExample:
        """Return the pair at a position of the run, drawn anew in each epoch."""
        at, rng = self.place(position, self.num_firsts), np.random.default_rng((self.settings.sft.seed, position))
        short, same = rng.random() < RERANKED, rng.random() < 0.5
        products = self._products
        if short and products is not None:
            pair = products.draw(int(rng.integers(len(products.photos))), same, rng)
            return PairExample(pair, None, self.words[0 if same else 1], self.words, False)
        return self._example(self._pairs.draw(at, same, rng))

    def _example(self, pair: PhotoPair) -> PairExample:
        prompt: Prompt = self.settings.vision.prompt
        answer = answer_text(pair.first.pairs, pair.second.pairs, pair.same, self.words, list(self.photos.keys), prompt)
        return PairExample(pair, self.question, answer, self.words, prompt == "schema")

    @cached_property
    def validation(self) -> list[PairExample]:
        """Return what is validated on: the pairs by which `train-vision` knows whether a generator can judge."""
        return list(map(self._example, fixed_pairs(self.photos.validation, self.settings.vision.validation_pairs)))

    @property
    def answers(self) -> list[str]:
        """Return answers that are learnt."""
        return [self[i].answer for i in range(min(len(self), ANSWERS))]

    @property
    def attributes(self) -> AttributeSettings:
        """Return how the generator answers in validation."""
        return judging(self.settings)

    @property
    def prompt(self) -> str:
        """Return what is asked, for the model card."""
        return self.question.prompt

    @property
    def learnt_from(self) -> str:
        """Say what is learnt from, for the model card."""
        return f"pairs of {len(self.known.photos):,} photos"

    def score(self, generator: LocalGenerator, world: World, listener: Listener) -> PairScore:
        """Let the generator judge this process's part of the validation pairs."""
        return score_pairs(generator, world.part(self.validation), self.settings, listener)

    def key(self, student: str, world: World) -> str:
        """Hash all that decides what is learnt: the same key, the same run."""
        vision = self.settings.vision
        content = {
            "sft": self.settings.sft.model_dump(exclude=NOT_THE_RESULT),
            "student": student,
            "question": [self.question.prompt, *self.words, vision.prompt],
            "judged": [vision.validation_pairs, vision.max_new_tokens],
            "data": self.photos.fingerprint,
            **world.key,
        }
        return hash_json(content)[:10]

    def describe(self, part: Part | None) -> dict[str, object]:
        """Return the choices made, for --dry-run, reports and manifests."""
        sft, photos = self.settings.sft, self.photos
        return {
            "source": f"pairs, attributes from {photos.source}",
            "classes": list(self.settings.vision.classes),
            "train_photos": len(self.known.photos),
            "train_classes": len(self.known.classes),
            "validation_pairs": len(self.validation),
            "left_out": dict((photos.left_out + self.left_out).most_common()),
            "keys": list(photos.keys),
            "question": self.question.prompt,
            # By these the adapter is known to judge as a reranker does (`models.reranker.words_of`).
            **({"words": list(self.words)} if self.reranks else {}),
            "batch_size": sft.batch_size,
            "steps": self.steps,
            "validate_every": sft.validate_every,
            "steps_per_epoch": round(self.steps_per_epoch, 2),
            "learning_rate": self.peak_rate,
            **({"part": part.describe()} if part else {}),
        }


def make_pair_plan(
    photos: LoadedPhotos,
    words: tuple[str, str],
    task: AttributeTask,
    settings: Settings,
    base: Base,
    processor: Processor,
) -> PairPlan:
    """Return the plan that the settings mean. DataError when no two classes have two photos with a right answer."""
    vision = settings.vision
    refused = _refuser(list(photos.keys), words, settings, processor)
    kept, left_out = list[LabelledPhoto](), dict[str, set[str]]()
    for photo in photos.train.photos:
        if reason := refused(photo.pairs):
            left_out.setdefault(reason, set()).add(photo.listing)
        else:
            kept.append(photo)
    known = regrouped(kept, lambda photo: str(photo.label))
    counts = Counter({reason: len(listings) for reason, listings in left_out.items()})
    if len(known.classes) < 2:
        reasons = ", ".join(f"{number:,} listings: {reason}" for reason, number in counts.most_common())
        raise DataError(
            f"no right answers about pairs: attributes are known of photos of {len(known.classes)} classes, two are "
            f"needed{'; ' if reasons else ''}{reasons}",
            "name columns in sft.columns, a file in sft.file, or write attributes with a teacher (`afmrl attributes`)",
        )
    settings = with_sft_sizes(settings, min(len(known.photos), settings.sft.max_products))
    sft = settings.sft
    rate = peak_rate(settings, "sft", built_in=base.name == NANO)
    question = pair_question(photos.keys, words, vision.prompt, vision.classes)
    each = min(len(known.photos), sft.max_products) / sft.batch_size
    return PairPlan(settings, task, sft.steps, each, rate, photos, known, counts, words, question)


def _refuser(
    keys: list[str], words: tuple[str, str], settings: Settings, processor: Processor
) -> Callable[[Mapping[str, str]], str]:
    """Return what says why no answer can be taught about a photo with these known attributes, "" where one can."""
    found: dict[str, str] = {}

    def reason(pairs: Mapping[str, str]) -> str:
        if not pairs:
            return "no known attributes"
        # The longest answer in which it may stand: beside a photo like it, from which it differs in everything.
        text = answer_text(pairs, pairs, False, words, keys) + ", ".join(key for key in keys if key in pairs)
        if text not in found:
            long = len(processor.tokenizer(text)["input_ids"]) + 1 > settings.vision.max_new_tokens
            found[text] = SPECIAL if processor.clean(text) != text else TOO_LONG if long else ""
        return found[text]

    return reason
