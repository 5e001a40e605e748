"""What `train-rerank` reads, reports, trains and leaves."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..errors import UsageError
from ..listener import Listener
from ..models.base import Bases, open_role
from ..models.embed_input import Encoder
from ..models.presets import NANO
from ..models.processor import load_processor
from ..models.reranker import EQUAL_WEIGHT, FIRST, QUESTION, SECOND, Reranker, choose_words, make_reranker, words_of
from ..store.files import hash_json
from ..store.training_products import training_products
from ..training.adapter import add_trainable
from ..training.card import adapter_card
from ..training.corpus import load_corpus
from ..training.estimate import Estimate, measure
from ..training.loop import train_resumably
from ..training.pairs import KINDS, Kind, Side, find_positives, mix
from ..training.shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_alone
from ..training.sizes import peak_rate, with_rerank_sizes
from ..training.step import item_of
from ..training.validation import Validation, make_validation
from ..workspace import Workspace
from .groups import Groups, Near, Plan, key_of, mine, need_others
from .trainer import Collator, RerankTrainer, loss_of, save_as
from .validation import Ranking, make_ranking

NOT_THE_RESULT = {"save_every", "chunk_size", "name"}
"""Settings that do not change what is learnt."""
AT_A_TIME = 256
"""Sides that are encoded between two words on the progress."""


def train_rerank(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary:
    """Train the reranker on pairs of listings and put the adapter into the checkpoint store, as `run_training`.

    `details`: metrics of the best step; {} without a validation.
    """
    return run_alone(RERANK, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    work, problems = job.work.with_instructions(), Problems()
    words = words_of(job.parent) if job.parent else choose_words(load_processor(job.base).tokenizer, job.base.name)
    rerank = work.settings.rerank
    if unknown := [kind for kind in rerank.pairs if kind not in KINDS]:
        raise UsageError(f"rerank.pairs: {unknown[0]!r} is no kind of pair", f"known: {', '.join(KINDS)}")
    corpus = load_corpus(work, None, problems, for_agcl=False)
    problems.tell(work.listener)
    kinds: list[Kind] = [kind for kind in KINDS if kind in rerank.pairs]
    positives = find_positives(corpus.train, kinds)
    settings = with_rerank_sizes(work.settings, len(positives))
    rate = peak_rate(settings, "rerank", built_in=job.base.name == NANO)
    each = len(positives) / settings.rerank.batch_size
    plan = Plan(settings, corpus, positives, words, settings.rerank.steps, each, rate)
    counts = ", ".join(f"{number:,} {kind}" for kind, number in mix(positives).items())
    work.listener.note(
        f"queries: {counts}, each with {settings.rerank.negatives} near listing of other products; {plan.steps:,} "
        f"steps of {settings.rerank.batch_size} queries"
    )
    used = {i for positive in positives for i in (positive.listing, *positive.others)}
    return Planned(
        settings,
        _run_key(plan, job.model_id, work.embedder_id),
        corpus.fingerprint,
        training_products(
            ((corpus.train[i].id, corpus.train[i].identity) for i in used),
            ((each.id, each.identity) for each in corpus.validation),
        ),
        {"embedder": work.embedder_id},
        _describe(plan),
        plan,
    )


def _run_key(plan: Plan, model_id: str, embedder_id: str) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    settings = plan.settings
    content = {
        "rerank": settings.rerank.model_dump(exclude=NOT_THE_RESULT),
        "prompt": [FIRST, SECOND, QUESTION, *plan.words],
        "model": model_id,
        "embedder": embedder_id,
        "instructions": [settings.embed.query_instruction, settings.embed.target_instruction],
        "data": plan.corpus.fingerprint,
    }
    return hash_json(content)[:10]


def _describe(plan: Plan) -> dict[str, object]:
    """Return the choices made, for --dry-run, reports and manifests."""
    train, rerank = plan.corpus.train, plan.settings.rerank
    return {
        "words": list(plan.words),
        "train_listings": len(train),
        "validation_listings": len(plan.corpus.validation),
        "test_listings": plan.corpus.others,
        "pairs": mix(plan.positives),
        "different_by_verdict": sum(len(listing.rejected) for listing in train) // 2,
        "batch_size": rerank.batch_size,
        "steps": plan.steps,
        "validate_every": rerank.validate_every,
        "steps_per_epoch": round(plan.steps_per_epoch, 2),
        "learning_rate": plan.peak_rate,
    }


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    plan = planned.content
    return Training(
        planned.settings, planned.description, partial(_train, job, plan, run), partial(_measure, job, plan)
    )


def _load(job: Job, plan: Plan, bases: Bases) -> Reranker:
    """Load the bare base; the adapter comes on top, to be trained."""
    work = job.work
    opened = open_role(job.bare_model, "reranker", work.checkpoints, bases, work.listener)
    return make_reranker(opened, plan.words, EQUAL_WEIGHT, plan.settings, work.listener)


def _train(job: Job, plan: Plan, run: Path) -> Outcome:
    work, listener = job.work, job.work.listener
    groups, ranking = _find(work, plan)
    gc.collect()  # the embedder's weights, before those that are trained are loaded
    if ranking is None:
        listener.warn(
            "the validation split offers too few queries: the last step's adapter is kept, and fused with the "
            f"embedder by the weight {EQUAL_WEIGHT:g} (split.validation is its share)"
        )
    reranker = _load(job, plan, work.bases)
    model = add_trainable(reranker, plan.settings.rerank, job.parent, work.checkpoints, "CAUSAL_LM")
    save = save_as(model, job.base, _card(job, plan))
    trainer = RerankTrainer(groups, ranking, reranker, model, run, save, listener)
    resumed = train_resumably(trainer, listener, steps_per_epoch=plan.steps_per_epoch)
    best = trainer.best
    if best and best["weight"] == 0:
        listener.warn("validation trusts the embedder alone (weight 0): train longer (rerank.epochs), or go without")
    metrics = {key: float(value) for key, value in best.items() if key != "step"}
    adapter = run / f"best-{trainer.state.best_global_step}"
    return Outcome(adapter, metrics, {"metrics": metrics}, ("loss", "mrr"), resumed, trainer.seconds)


def _find(work: Workspace, plan: Plan) -> tuple[Groups, Ranking | None]:
    """Let the embedder find near listings for the training queries, and the candidates of the validation (None: too few
    queries); it is in memory no longer than that.
    """
    encode = partial(_encode, work.with_settings(work.settings).embedder(), work.listener)
    groups, validation = Groups(plan, mine(plan, encode)), _validation(plan)
    return groups, make_ranking(validation, encode, plan.settings) if validation is not None else None


def _encode(embedder: Encoder, listener: Listener, sides: Sequence[Side], instruction: str) -> NDArray[np.float32]:
    """Return the unit vectors of `sides`, equal ones encoded once."""
    distinct = {side.content: side for side in sides}
    items, made = [item_of(side) for side in distinct.values()], list[NDArray[np.float32]]()
    for start in range(0, len(items), AT_A_TIME):
        made.append(embedder.encode(items[start : start + AT_A_TIME], instruction=instruction))
        listener.progress("finding near listings", min(start + AT_A_TIME, len(items)), len(items))
    row = {content: i for i, content in enumerate(distinct)}
    return np.concatenate(made)[[row[side.content] for side in sides]]


def _validation(plan: Plan) -> Validation | None:
    """Make the queries and gallery of the validation split, of the kinds of pairs that are trained."""
    settings, rerank = plan.settings, plan.settings.rerank
    agcl = settings.agcl.model_copy(
        update={
            "pairs": rerank.pairs,
            "seed": rerank.seed,
            "validation_queries": rerank.validation_queries,
            "validation_enrich": "none",
        }
    )
    return make_validation(plan.corpus.validation, settings.model_copy(update={"agcl": agcl}))


def _card(job: Job, plan: Plan) -> str:
    rerank = {key: value for key, value in plan.settings.rerank.model_dump().items() if key != "name"}
    yes, no = plan.words
    return adapter_card(
        job.base,
        job.parent,
        title="Product reranker",
        tags=["afmrl", "product-retrieval", "reranker"],
        trained=f"`afmrl train-rerank` on {len(plan.corpus.train):,} listings of one catalog",
        use=[
            "With afmrl: `model.reranker_checkpoint` in afmrl.toml. Elsewhere it is a plain PEFT adapter on the",
            "language model: in one user's turn of the chat template write",
            f"`{FIRST.strip()}`, photos and text, `{SECOND.strip()}`, photos and text, and",
            f"`{QUESTION.format(yes=yes, no=no).strip()}`; the score is logit({yes}) - logit({no}) of the answer's",
            "first token, the mean of both orders.",
        ],
        content={"plan": _describe(plan), "rerank": rerank},
    )


def _measure(job: Job, plan: Plan) -> tuple[Estimate, dict[str, Any]]:
    """Load the model and learn one chunk; time and memory of a whole step follow from that.

    The nearest listings are not searched for: any others take as long.
    """
    reranker = _load(job, plan, Bases())
    model = add_trainable(reranker, plan.settings.rerank, job.parent, job.work.checkpoints, "CAUSAL_LM").train()
    groups = Groups(plan, _any_listings(plan))
    batch = Collator(reranker)([groups[i] for i in range(plan.chunk)])

    def part() -> torch.Tensor:
        loss = loss_of(model, batch, reranker)
        torch.autograd.backward(loss)
        return loss.detach()

    return measure(part, reranker.loaded.device, plan.settings.rerank.batch_size / plan.chunk, plan.steps), {}


def _any_listings(plan: Plan) -> Near:
    train, near = plan.corpus.train, Near()
    for pair in map(plan.pair, range(plan.chunk)):
        own = train[pair.query.listing].identity
        near[key_of(pair)] = [i for i, listing in enumerate(train) if listing.identity != own]
    need_others(plan, near)
    return near


RERANK = Method("rerank", "reranker", "reranker", _plan, _prepare)
