"""How a cycle divides the training split in folds (`catalog.folds`), and which stage sees which.

    later   with more than one round: `cycle.share` of the products, three batches at least; round 2 and later ones
            learn from these, which the first has not seen
    asked   a quarter, LEAST products at least
    a, b    the rest, in halves of LEAST products at least

A shop that is too small for `asked` and two halves is not divided: all stages see the same products, as `cycle.folds =
"no"` has it. One that is too small for `later` has no second round. Each is said in a line, which the report repeats.

What it costs: SFT trains three generators in place of one, on a half, the other half, and both; the first two write the
attributes of the half that they do not know, on top of those that the third writes of the whole catalog. AGCL learns
from a quarter fewer products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..catalog.folds import FOLDS, Fold, Folds, Part, cut, read_folds
from ..catalog.problems import Problems
from ..catalog.read import read_products
from ..catalog.splits import split_of
from ..catalog.verdicts import read_verdicts
from ..errors import DataError
from ..evaluation.seen import seen_by
from ..settings import Settings
from ..store.checkpoints import Role
from ..training.plan import LEAST_BATCHES
from ..workspace import Workspace

ASKED = 0.25
LEAST = 20
"""Products of a fold: with fewer, RAR learns its queries by heart, and a generator its targets."""
LEAST_BATCH = 16
"""Products of a batch of a later round where `agcl.batch_size` leaves it open."""
HALVES: tuple[Fold, Fold] = ("a", "b")


@dataclass(frozen=True)
class FoldPlan:
    """`folds` is None where the training split is not divided. `notes` say what the shop is too small for, or later
    rounds lack; `rounds` are those that there are products for.
    """

    folds: Folds | None
    rounds: int
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what `read_plan` reads."""
        folds = self.folds.as_json() if self.folds else None
        return {"folds": folds, "rounds": self.rounds, "notes": list(self.notes)}

    def part(
        self, learn: tuple[Fold, ...], ask: tuple[Fold, ...] = (), generators: tuple[str, ...] = ()
    ) -> Part | None:
        """Return the part of a stage; None where nothing is divided."""
        return Part(self.folds, frozenset(learn), frozenset(ask), generators) if self.folds else None

    def agcl(self, number: int, generators: tuple[str, ...]) -> Part | None:
        """Return what AGCL sees in a round."""
        return self.part(HALVES if number == 1 else ("later",), (), generators)

    def rar(self) -> Part | None:
        """Return what RAR sees, in every round: the gallery has the halves, too, the queries are of `asked`."""
        return self.part((*HALVES, "asked"), ("asked",))

    def share(self, of: tuple[Fold, ...], to: tuple[Fold, ...]) -> float:
        """Return how many products some folds have for one of others, for what a stage takes against another."""
        sizes = self.folds.sizes if self.folds else {}
        return sum(sizes.get(fold, 0) for fold in of) / max(1, sum(sizes.get(fold, 0) for fold in to))

    def describe(self) -> str:
        """Say how the products were divided, "" where they were not."""
        if self.folds is None:
            return ""
        sizes = self.folds.sizes
        words = (
            f"{sum(sizes.values()):,} training products in folds: {sizes['a']:,} + {sizes['b']:,} for SFT and AGCL "
            f"(attributes by the generator of the other half), {sizes['asked']:,} that RAR asks about"
        )
        return words + (f", {sizes['later']:,} for later rounds" if "later" in sizes else "")

    def content(self) -> dict[str, Any]:
        """Return it for cycle.json: sizes, the same in words, and what the shop is too small for."""
        sizes = dict(self.folds.sizes) if self.folds else {}
        return {"sizes": sizes, "words": self.describe(), "notes": list(self.notes)}


def folds_lines(content: Mapping[str, Any] | None) -> list[str]:
    """Return what `FoldPlan.content` says in lines for people; none for cycles of earlier versions."""
    return [line for line in (content["words"], *content["notes"]) if line] if content else []


def read_plan(content: dict[str, Any]) -> FoldPlan:
    """Return what `FoldPlan.as_json` gave. KeyError, TypeError or ValueError for anything else."""
    folds = read_folds(content["folds"]) if content["folds"] else None
    return FoldPlan(folds, int(content["rounds"]), tuple(map(str, content["notes"])))


def plan_folds(work: Workspace, check: Callable[[FoldPlan], None]) -> FoldPlan:
    """Divide the training split as the settings and its size have it. `check` raises DataError where a stage would lack
    products with a plan: then there is no `later`, or nothing is divided; what is left of it then is raised.
    """
    settings = work.settings
    identities, joined = _training_products(work)
    products = len({joined.get(id, identity) for id, identity in identities.items()})
    sizes, rounds, notes = fold_sizes(products, settings)
    while sizes:
        made = FoldPlan(cut(identities, sizes, settings.split.salt, joined), rounds, tuple(notes))
        try:
            check(made)
            return replace(made, notes=(*notes, *_seen_before(work, made)))
        except DataError as error:
            later = sizes.pop("later", 0)
            rounds = 1
            if later:
                sizes["a"], sizes["b"] = _halves(sizes["a"] + sizes["b"] + later)
                notes = [f"rounds after the first are left out, since they would lack products: {error}"]
            else:
                sizes = {}
                notes = [f"the training products are not divided in folds, since a stage would lack some: {error}"]
    made = FoldPlan(None, rounds, tuple(notes))
    check(made)
    return made


def fold_sizes(products: int, settings: Settings) -> tuple[dict[Fold, int], int, list[str]]:
    """Return (products of each fold, {} where nothing is divided; rounds; the plan's notes)."""
    rounds, share = settings.cycle.iterations, settings.cycle.share
    if settings.cycle.folds == "no":
        again = "rounds after the first learn from products that it has seen (cycle.folds = auto keeps others)"
        return {}, rounds, [again] if rounds > 1 else []
    batch = settings.agcl.batch_size or LEAST_BATCH
    asked = max(LEAST, round(ASKED * products))
    later = max(LEAST_BATCHES * batch, round(share * products)) if rounds > 1 else 0
    notes: list[str] = []
    if products - asked < 2 * LEAST:
        asked = 0
        notes.append(
            f"{products:,} training products are too few to divide in folds ({3 * LEAST}): AGCL sees attributes by a "
            "generator that learnt from the same products, and RAR asks about them"
        )
    if rounds > 1 and products - asked - later < max(2 * LEAST, later):
        later, rounds = 0, 1
        notes.append(
            f"rounds after the first are left out: {LEAST_BATCHES} batches of {batch} products that it has not seen "
            f"would leave it too few of {products:,}"
        )
    if not asked:
        return {}, rounds, notes
    a, b = _halves(products - asked - later)
    sizes: dict[Fold, int] = {"a": a, "b": b, "asked": asked, "later": later}
    return {fold: sizes[fold] for fold in FOLDS if sizes[fold]}, rounds, notes


def _halves(products: int) -> tuple[int, int]:
    return products - products // 2, products // 2


def _seen_before(work: Workspace, plan: FoldPlan) -> list[str]:
    """Say how many of the products that RAR asks about the checkpoints have seen that the cycle starts from."""
    model, part = work.settings.model, plan.rar()
    trained: list[tuple[Role, str]] = [
        ("embedder", model.embedder_checkpoint),
        ("generator", model.generator_checkpoint),
    ]
    seen = seen_by(trained, work.checkpoints)
    if not seen.names or part is None:
        return []
    products = read_products(work.folder, work.settings.catalog, Problems())
    asked = [p for p in products if split_of(p, work.settings.split) == "train" and part.asks(p.id, p.identity)]
    number = sum(seen.products.trained_on(each.id, each.identity) for each in asked)
    names = " and ".join(seen.names)
    return [f"{names} learnt from {number:,} of the {len(asked):,} listings that RAR asks about"] if number else []


def _training_products(work: Workspace) -> tuple[dict[str, str], dict[str, str]]:
    """Return the identities of the training split's listings, and those that people's verdicts changed."""
    settings = work.settings
    products = read_products(work.folder, settings.catalog, Problems())
    identities = {p.id: p.identity for p in products if split_of(p, settings.split) == "train"}
    verdicts = read_verdicts(settings, work.folder.root)
    if not verdicts:
        return identities, {}
    joined = verdicts.identities(identities)
    return identities, {id: joined[id] for id in identities if joined[id] != identities[id]}
