"""What a cycle is made of: the functions of the single commands, each given settings that name its models.

Every stage loads what it needs and lets go of it: two trainers are never in memory at once. What comes back is plain,
fit for JSON: the cycle keeps it and never does the stage again while its inputs are the same.
"""

from __future__ import annotations

import gc
import itertools
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..attributes.generate import generate_attributes
from ..attributes.views import AttributeSource, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import count_rows, read_products
from ..catalog.splits import split_of
from ..evaluation.build import TaskSpec
from ..evaluation.composed import is_composed
from ..evaluation.earlier import EMBEDDER_RUN
from ..evaluation.entries import Entry
from ..evaluation.report import EvalRequest, measure, task_views
from ..evaluation.seen import seen_by
from ..listener import Listener
from ..retrieval.embed import embed_catalog
from ..settings import Settings
from ..store.checkpoints import Role
from ..store.lock import writer_lock
from ..training.corpus import training_views
from ..training.shell import Method, run_training
from ..triplets.records import NoTriplets
from ..workspace import Workspace

Result = dict[str, Any]
Scored = Literal["validation", "test"]
BASE = "base"
"""The first stage in the table of another one's score."""
SLACK = 64 * 2**20
"""Bytes of GPU memory that may stay behind a stage: caches of the libraries, made once."""


@dataclass(frozen=True)
class ResourceUsage:
    """What a stage used: seconds, and the peak of memory in bytes (of the GPU; on a CPU, of the process so far)."""

    seconds: float
    peak_bytes: int


def run_isolated(work: Callable[[], Result], listener: Listener) -> tuple[Result, ResourceUsage]:
    """Do `work` and free its memory; a warning when the GPU's does not come back."""
    cuda = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    try:
        result = work()
    finally:
        gc.collect()  # models and trainers point at each other
        if cuda:
            torch.cuda.empty_cache()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if cuda and (left := torch.cuda.memory_allocated() - before) > SLACK:
        listener.warn(f"{left / 2**20:.0f} MiB of the GPU's memory did not come back")
    return result, ResourceUsage(round(time.monotonic() - began, 3), peak)


def task_spec(settings: Settings, split: Scored) -> TaskSpec:
    """Return the evaluation of every stage: by the validation split it is accepted, the test split reports."""
    return TaskSpec(settings.cycle.protocol or None, split=split)


def write_attributes(work: Workspace, splits: Sequence[Scored]) -> Result:
    """Write as `afmrl attributes` does: the generator of the settings describes every product that it has not
    described, and with `embed.enrich` the views that ask, or are searched, in the evaluation of the `splits` and in
    training. With `work.part` no more than what of the training split is in it.
    """
    folder, settings, listener = work.folder, work.settings, work.listener
    problems, queried = Problems(), list[Product]()
    if settings.embed.enrich != "none":
        queried = [view for split in splits for view in task_views(work, task_spec(settings, split))]
        queried += training_views(work)
    with writer_lock(folder.store, "afmrl attributes"), open_views(work, work.source) as views:
        read = read_products(folder, settings.catalog, problems)
        products = itertools.chain((each for each in read if work.part is None or _in_part(work, each)), queried)
        total = count_rows(folder, settings.catalog) + len(queried)
        summary = generate_attributes(work, products, views, problems, total=total)
    problems.tell(listener)
    return {"generator": work.generator_id, "products": summary.products, "valid_share": summary.valid_share}


def _in_part(work: Workspace, product: Product) -> bool:
    return split_of(product, work.settings.split) == "train" and work.sees(product)


def train(method: Method, work: Workspace) -> Result:
    """Train as the method's command does; `checkpoint` is "" when no step was worth keeping, or there was nothing to
    learn from, as `refused` says.
    """
    try:
        summary = run_training(method, work)
    except NoTriplets as error:
        return {"checkpoint": "", "run": "", "refused": str(error).removeprefix(f"{work.folder.catalog}: ")}
    if summary is None:
        raise RuntimeError("the first of several processes has the result")  # refused before
    if reason := summary.details.get("collapsed"):
        work.listener.warn(f"the policy collapsed: {reason}; raise rar.beta or lower rar.learning_rate")
    return {"checkpoint": summary.checkpoint, "run": summary.run.name, **summary.details}


def score(work: Workspace, split: Scored, place: Path, others: tuple[Path | None, Path | None]) -> Result:
    """Score as `afmrl embed` and then `afmrl eval --split SPLIT`, kept in the folder `place`.

    `others` are the scores of the stage before and of the first stage, on the same split; None for the first itself.
    """
    against, first = others
    chosen = work.settings.eval.model_copy(
        update={"compare": [str(against)] if against else [], "systems": [], "merge": [], "max_drop": [], "slices": []}
    )
    settings = work.settings.model_copy(update={"eval": chosen})
    work = work.with_settings(settings)
    source = work.source if settings.embed.enrich != "none" else None
    # Of a checkpoint that the cycle began with, and that was trained by another split.
    used: list[tuple[Role, str]] = [("embedder", settings.model.embedder_checkpoint)]
    seen = seen_by(used + ([("generator", settings.model.generator_checkpoint)] if source else []), work.checkpoints)
    embed_catalog(work)
    # Several runs in eval.compare would be taken for seeds of one.
    entries = (Entry("run", str(first / EMBEDDER_RUN), BASE),) if first and first != against else ()
    report = measure(work, EvalRequest(replace(task_spec(settings, split), seen=seen), entries), place)
    content = report.content
    own = content["systems"][0]
    differences = [
        {each["metric"]: each for each in comparison["differences"]} for comparison in content["comparisons"]
    ]
    return {
        "place": place.name,
        "split": split,
        "protocol": content["protocol"],
        "queries": content["queries"],
        "groups": content["groups"],
        "gallery": content["gallery"],
        "metrics": own["metrics"],
        "intervals": own["intervals"],
        "differences": differences[0] if differences else {},
        "from_base": differences[-1] if differences else {},
        "with_attributes": _with_attributes(work, report.task.queries, source),
        "wish": report.task.queries[0].text if is_composed(report.task) else "",
    }


def _with_attributes(work: Workspace, queries: Any, source: AttributeSource | None) -> int:
    """Return how many queries have attributes."""
    if source is None:
        return 0
    with open_views(work, source) as views:
        texts = views.texts([query.fingerprint for query in queries])
    return sum(query.fingerprint in texts for query in queries)
