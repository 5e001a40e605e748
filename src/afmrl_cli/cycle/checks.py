"""What a cycle can know to fail before its first stage: each training's own checks, without a model in memory.

The attributes that stages write are not there yet, so that AGCL's plan is made as for InfoNCE. Raises as the stage
itself would, hours later: DataError, UsageError, ModelError, each with its exit code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..catalog.folds import Part
from ..catalog.problems import Problems
from ..catalog.read import open_catalog, read_products
from ..catalog.splits import split_of
from ..composed.run import COMPOSED
from ..errors import DataError, UsageError
from ..evaluation.build import TaskSpec
from ..evaluation.report import independent_queries
from ..evaluation.seen import seen_by
from ..listener import Silent
from ..methods import METHODS
from ..settings import Settings
from ..sft.run import SFT
from ..sft.targets import open_source
from ..store.checkpoints import Role
from ..training.corpus import load_corpus, part_of
from ..training.shell import Method
from ..workspace import Workspace
from .folds import HALVES, FoldPlan
from .stages import Scored

PAIRS_OF_PROTOCOL = {"photo": "photos", "text": "image-text"}
"""The pairs by which AGCL's best step is chosen, for protocols that don't ask with the first kind that there is."""
SPLITS: tuple[Scored, ...] = ("validation", "test")


def products_with_queries(work: Workspace) -> dict[Scored, int]:
    """Return how many products the queries of each split are about. Raises DataError when the catalog offers no
    queries.
    """
    settings = work.settings
    return {
        split: independent_queries(work, TaskSpec(settings.cycle.protocol or None, split=split))[1] for split in SPLITS
    }


def choose_protocol(work: Workspace) -> Settings:
    """Return the settings with the protocol that stages are scored by: as `afmrl eval` chooses one for a split, with a
    note where it is another than that of the whole catalog. Raises as `products_with_queries`.
    """
    settings = work.settings
    if settings.cycle.protocol:
        return settings
    first, _ = independent_queries(work, TaskSpec(split="all"))
    chosen, products = independent_queries(work, TaskSpec(split="validation"))
    if chosen == first:
        return settings
    work.listener.note(
        f"scored by protocol {chosen}, whose validation queries are about {products:,} products; those of {first}, "
        "which the catalog offers first, are about too few (cycle.protocol)"
    )
    return _with(settings, "cycle", protocol=chosen)


def judged_as_scored(settings: Settings) -> Settings:
    """Return the settings with the kind of pairs by which AGCL's best step is chosen: that which the protocol asks
    with.
    """
    pairs = settings.agcl.validation_pairs or PAIRS_OF_PROTOCOL.get(settings.cycle.protocol, "")
    return settings.model_copy(update={"agcl": settings.agcl.model_copy(update={"validation_pairs": pairs})})


def check_stages(work: Workspace, targets: str, plan: FoldPlan) -> None:
    """Raise what a training (SFT only where there are `targets`) would raise before its first step."""
    work = replace(work, listener=Silent())
    given = work.settings.agcl.attributes == "given"
    corpus = load_corpus(work, None, Problems(), for_agcl=given)
    taught = work.with_settings(_with(work.settings, "sft", source=targets))
    if work.settings.cycle.composed:
        COMPOSED.check(work, corpus)
    for method in METHODS.values():
        if method is not SFT:
            for part in parts_of(method, plan):
                method.check(replace(work, part=part), part_of(corpus, part))
        elif targets:
            for half in HALVES if plan.folds else HALVES[:1]:  # undivided, all of it is one part
                method.check(replace(taught, part=plan.part((half,))), corpus)


def parts_of(method: Method, plan: FoldPlan) -> list[Part | None]:
    """Return what a method sees in the first round, and in later ones where that differs."""
    if method.role == "generator":
        return [plan.rar()]
    return [plan.agcl(1, ()), *([plan.agcl(2, ())] if plan.folds and plan.rounds > 1 else [])]


def _with(settings: Settings, section: str, **changes: Any) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=changes)})


def test_products_seen(work: Workspace) -> str:
    """Return a line for people where the checkpoints that the cycle starts from saw products of the test split; else
    "".
    """
    folder, settings, model = work.folder, work.settings, work.settings.model
    trained: list[tuple[Role, str]] = [
        ("embedder", model.embedder_checkpoint),
        ("generator", model.generator_checkpoint),
    ]
    seen = seen_by(trained, work.checkpoints)
    if not seen.names:
        return ""
    names = " and ".join(seen.names)
    products = read_products(folder, settings.catalog, Problems())
    test = [each for each in products if split_of(each, settings.split) == "test"]
    if number := sum(seen.products.seen(each.id, each.identity) for each in test):
        return f"{names} saw {number:,} of the {len(test):,} test listings in training: the test metrics flatter"
    if seen.unknown:
        return f"what {' and '.join(seen.unknown)} saw in training is not known in full: the test metrics may flatter"
    return ""


def choose_targets(work: Workspace) -> str:
    """Choose which source of right answers SFT has: the one that the settings name, else the shop's own columns; "" for
    none.

    UsageError or DataError where cycle.sft = yes and there is none.
    """
    settings = work.settings
    wanted, sft = settings.cycle.sft, settings.sft
    if wanted == "no":
        return ""
    # A teacher must be named: the texts of the cycle's own generators are stored beside those of any other.
    if wanted == "yes" and sft.source == "teacher" and not sft.teacher:
        raise UsageError("cycle.sft = yes needs a named teacher or another source", "set sft.teacher or sft.source")
    # What is asked of pairs is for train-vision: a cycle's generator describes single products.
    source = sft.source if sft.source != "pairs" and (sft.source != "teacher" or sft.teacher) else ""
    source = source or ("file" if sft.file else "teacher" if sft.teacher else "columns")
    chosen = work.with_settings(_with(settings, "sft", source=source))
    try:
        with (
            work.database() as database,
            open_catalog(work.folder, settings.catalog, Problems()) as catalog,
        ):
            open_source(chosen, catalog, database, work.generator_id)
    except (DataError, UsageError) as error:
        if wanted == "yes":
            raise
        work.listener.note(f"no SFT: {error}")
        return ""
    return source
