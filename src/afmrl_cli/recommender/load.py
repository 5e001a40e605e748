"""The recommender in memory: the generator's base with its adapter, and all that it needs to rank by."""

from __future__ import annotations

from functools import partial

from ..by_model import value_by_model
from ..catalog.problems import Problems
from ..errors import ModelError
from ..listener import Listener
from ..models.base import Opened, open_role
from ..models.batching import Batches
from ..models.generator import LocalGenerator
from ..models.presets import resolve_adapter, resolve_base
from ..next_item.histories import Recommender
from ..settings import Settings
from ..store.checkpoints import Manifest
from ..store.lock import writer_lock
from ..training_settings import RecommenderSettings
from ..workspace import Workspace
from .shortlist import Reader, TrainedRecommender
from .texts import Texts, listing_texts

LINE_MARKS = 2
"""Tokens of an answer's line beside the listing's: its break, and one to spare."""
READ = ("text", "item_tokens", "history", "answers")
"""Settings by which a recommender reads: those that it was trained with."""


def make_generator(opened: Opened, settings: Settings, listener: Listener) -> LocalGenerator:
    """Return the generator of an opened base that answers questions about what comes next."""
    own, reasoning = settings.recommender, settings.reasoning
    room = own.answers * (own.item_tokens + LINE_MARKS)
    if reasoning.share and reasoning.place == "answer":
        room += reasoning.max_new_tokens
    attributes = settings.attributes.model_copy(update={"max_new_tokens": room, "temperature": 0.0})
    return LocalGenerator(
        opened, attributes=attributes, max_text_tokens=settings.model.max_text_tokens, listener=listener
    )


def make_reader(generator: LocalGenerator, texts: Texts, settings: Settings, base: str, listener: Listener) -> Reader:
    """Return what shows questions to `generator`, whose base is `base`."""
    size = settings.attributes.batch_size or value_by_model("attributes.batch_size", base)
    own = settings.recommender
    # A row is a candidate's line, a few tokens; what takes memory are the repeated caches of the questions.
    return Reader(generator, texts, own.history, own.answers, Batches(4 * size, listener, "ranking"))


def load_recommender(work: Workspace, fused: Recommender) -> TrainedRecommender:
    """Return the trained recommender that the settings name over the retrieval `fused`. ModelError when they name none,
    or it does not fit the generator's base.
    """
    model = work.settings.model
    if not model.recommender_checkpoint:
        trained = work.checkpoints.labels().get("recommender:latest")
        how = f"name it: --set model.recommender_checkpoint={trained}" if trained else "`afmrl train-recommender`"
        raise ModelError("no recommender: model.recommender_checkpoint names none", how)
    base = resolve_base(model, "recommender", work.listener)
    manifest = resolve_adapter(model, "recommender", base, work.checkpoints)
    assert manifest is not None
    settings = as_trained(work.settings, manifest)
    opened = open_role(model, "recommender", work.checkpoints, work.bases, work.listener)
    generator = make_generator(opened, settings, work.listener)
    problems = Problems()
    lock = partial(writer_lock, work.folder.store, "afmrl recommend")
    texts = listing_texts(work.with_settings(settings), generator.processor, problems, lock)
    problems.tell(work.listener)
    reader = make_reader(generator, texts, settings, base.name, work.listener)
    weight, until = how_trusted(manifest)
    return TrainedRecommender(fused, reader, weight, settings.recommender.shortlist, until)


MOST_WEIGHT = 1e6
EQUAL_WEIGHT = 0.5
"""Of a recommender without a validation by which its weight could be fitted."""


def how_trusted(manifest: Manifest) -> tuple[float, int]:
    """Return the weight that validation has chosen, and the second up to which was learnt (0: not known). ModelError
    where the manifest says neither.
    """
    weight, plan = manifest.metrics.get("weight", EQUAL_WEIGHT), manifest.settings.get("plan")
    until = plan.get("learnt_until", 0) if isinstance(plan, dict) else 0
    if not 0 <= weight <= MOST_WEIGHT or not isinstance(until, int) or not 0 <= until < 2**37:
        message = f"checkpoint {manifest.name}: its weight or its plan is not what was written"
        raise ModelError(message, "train it again")
    return weight, until


def as_trained(settings: Settings, manifest: Manifest) -> Settings:
    """Return the settings with those by which the recommender read in training. ModelError where its manifest does not
    say them.
    """
    stored = manifest.settings.get("recommender")
    try:
        if not isinstance(stored, dict):
            raise ValueError("no settings")
        trained = RecommenderSettings.model_validate({name: stored[name] for name in READ})
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"checkpoint {manifest.name}: it does not say how it was trained to read", "train it again"
        ) from error
    section = settings.recommender.model_copy(update={name: getattr(trained, name) for name in READ})
    return settings.model_copy(update={"recommender": section})
