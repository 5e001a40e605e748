"""The rankings of an evaluation: the embedder's first, then those of the systems that stand in its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..catalog.problems import Problems
from ..errors import DataError, UsageError
from ..settings import Settings
from ..workspace import Workspace
from .composed import ALONE, is_composed, part_alone
from .earlier import outside_run
from .entries import RERANKED, Entry, model_system
from .fusion import Pair
from .hybrid import HybridTask, tuned_run
from .reranked import reranked_run
from .systems import (
    Encoded,
    RetrievalSystem,
    SystemRun,
    bm25_attributes_run,
    bm25_run,
    encode_task,
    fusion_run,
    histogram_run,
    pair_of,
    rank_encoded,
    vector_run,
)
from .task import Task


@dataclass(frozen=True)
class Answering:
    """What the rankings of one evaluation have in common: the task, the queries that weights are tuned on (None: no
    others), and the embedder's own system.
    """

    work: Workspace
    task: Task
    tuning: Task | None
    own: RetrievalSystem
    problems: Problems

    @property
    def depth(self) -> int:
        """Return how many products are ranked."""
        return self.work.settings.eval.depth

    @property
    def texts(self) -> Mapping[str, str]:
        """Return stored attribute texts by fingerprint."""
        return self.own.attributes or {}

    @cached_property
    def encoded(self) -> Encoded:
        """Return what the embedder has read."""
        return encode_task(self.task, self.own, self.work, self.problems)

    @cached_property
    def first(self) -> SystemRun:
        """Return the embedder's ranking."""
        return rank_encoded(self.encoded, self.own, self.depth)

    @cached_property
    def lexical(self) -> SystemRun:
        """Return BM25's ranking."""
        return bm25_run(self.task, self.depth)

    def all(self, entries: Sequence[Entry]) -> tuple[list[SystemRun], list[str]]:
        """Rank by the embedder first, then by the entries; and what is to be noted, in words."""
        answers, notes = [self.first], list[str]()
        for entry in entries:
            more, noted = self.of(entry)
            answers, notes = [*answers, *more], [*notes, *noted]
        return answers, notes

    def of(self, entry: Entry) -> tuple[list[SystemRun], list[str]]:
        """Rank by an entry; none where there is nothing to make an optional one from."""
        plain: dict[str, Callable[[], SystemRun]] = {
            "bm25": lambda: self.lexical,
            "fusion": self._fusion,
            "hybrid": self._hybrid,
            "colors": lambda: histogram_run(self.task, self.work, self.problems),
        }
        if entry.kind in plain:
            return [plain[entry.kind]()], []
        if entry.kind == RERANKED:
            second, note = reranked_run(self.first, self.task, self.work, self.problems)
            return [second], [note]
        if entry.kind == "bm25-attributes":
            return self._attributes(entry), []
        if entry.kind in ALONE:
            return self._alone(entry), []
        if entry.kind == "run":
            run = outside_run(_run_file(entry.argument, self.work.folder.root), self.task, self.depth)
            return [SystemRun(entry.name, run, frozenset(run))], []
        return self._model(entry)

    def _fusion(self) -> SystemRun:
        able = bool(self.tuning and self.first.readable and self.lexical.readable)
        return fusion_run(self.first, self.lexical, self.task, self._pair() if able else None, self.work.settings)

    def _pair(self) -> Pair | None:
        """Rank the queries that a fusion is tuned on, by the embedder and by BM25."""
        if self.tuning is None:
            return None
        found = vector_run(self.tuning, self.own, self.work, self.problems)
        return pair_of(found, bm25_run(self.tuning, self.depth), self.tuning)

    def _hybrid(self) -> SystemRun:
        validation = None
        if self.tuning is not None:
            encoded = encode_task(self.tuning, self.own, self.work, self.problems)
            validation = HybridTask(self.tuning, encoded, self.work, self.texts)
        scored = HybridTask(self.task, self.encoded, self.work, self.texts)
        run, weights = tuned_run(scored, validation, self.depth)
        return SystemRun("hybrid", run, frozenset(run), hybrid=tuple(weights))

    def _attributes(self, entry: Entry) -> list[SystemRun]:
        if any(self.texts.get(document.row.fingerprint) for document in self.task.documents):
            return [bm25_attributes_run(self.task, self.texts, self.depth)]
        if entry.optional:
            return []
        raise DataError("bm25-attributes: no listing has stored attributes", "run `afmrl attributes` first")

    def _alone(self, entry: Entry) -> list[SystemRun]:
        """Rank composed queries by a part of each; other queries have no such parts."""
        if is_composed(self.task):
            if entry.kind == "attributes-alone" and not any(query.attributes for query in self.task.queries):
                if entry.optional:
                    return []
                hint = (
                    "a change `key: value` of a known reference has them, with search.known_attributes and embed.enrich"
                )
                raise DataError("attributes-alone: no query has edited attributes", hint)
            found = vector_run(part_alone(self.task, ALONE[entry.kind]), self.own, self.work, self.problems)
            return [replace(found, system=entry.name)]
        if entry.optional:
            return []
        raise UsageError(
            f"{entry.kind}: {self.task.protocol} asks no composed queries", "it is for --protocol composed"
        )

    def _model(self, entry: Entry) -> tuple[list[SystemRun], list[str]]:
        """Rank by the model of an entry."""
        if entry.optional and not _is_trained(self.work.settings):  # the base is the embedder
            return [], []
        rival = model_system(entry, self.work)
        if rival.id == self.own.id:
            return [replace(self.first, system=entry.name)], [
                f"{entry.name} is the {self.own.name} itself: its row says nothing new"
            ]
        if entry.kind in ("base", "checkpoint"):  # they read the same fields as the embedder
            rival = replace(rival, attributes=self.texts)
        return [vector_run(self.task, rival, self.work, self.problems)], []


def _is_trained(settings: Settings) -> bool:
    return bool(settings.model.vision_checkpoint or settings.model.embedder_checkpoint)


def _run_file(written: str, root: Path) -> Path:
    """Return the file of `run:FILE`, from where one stands or from the catalog's folder."""
    given = Path(written).expanduser()
    places = list(dict.fromkeys([given.absolute(), root / given]))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"run:{written}: no such file", f"looked for {' and '.join(map(str, places))}")
    return found
