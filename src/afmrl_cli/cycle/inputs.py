"""What a stage's result depends on, as short strings: the same inputs, the same stage; others, and they are named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..attributes.task import load_task
from ..attributes.views import first_photos
from ..catalog.fingerprints import Fingerprinter
from ..catalog.folds import Part
from ..catalog.problems import Problems
from ..catalog.read import read_products
from ..catalog.splits import split_of
from ..evaluation.build import labels_file
from ..settings import Settings
from ..store.files import hash_file, hash_json
from ..training.shell import Method
from ..workspace import Workspace

SHORT = 16


@dataclass(frozen=True)
class Catalog:
    """A catalog in short: hashes of what models see of it (photos too), of its other columns, and of the files beside
    it: queries with their judgements and labels, right answers for SFT, people's verdicts on pairs and on triplets, the
    prompt's template.

    `fingerprints` are those of what the generator is shown of its products, in order; `train` the places of the
    training split's among them, with ids and identities.
    """

    products: str
    columns: str
    queries: str
    targets: str
    verdicts: str
    prompt: str
    fingerprints: tuple[str, ...]
    train: tuple[tuple[int, str, str], ...] = ()
    triplets: str = ""

    def shown(self, part: Part | None) -> list[str]:
        """Return the fingerprints of all products, or of those of the training split that are in `part`."""
        if part is None:
            return sorted(set(self.fingerprints))
        return sorted({self.fingerprints[place] for place, id, identity in self.train if part.sees(id, identity)})

    def differs(self, other: Catalog) -> list[str]:
        """Return what is another than in `other`, in words."""
        words = {
            "products": "the catalog or its photos",
            "columns": "the catalog's columns",
            "queries": "the queries",
            "targets": "the targets file",
            "verdicts": "the verdicts",
            "prompt": "the prompt",
            "triplets": "the triplets' verdicts",
        }
        return [word for name, word in words.items() if getattr(self, name) != getattr(other, name)]


def read_catalog(work: Workspace) -> Catalog:
    """Read the catalog in one pass; photos that have not changed are not read again."""
    folder, settings = work.folder, work.settings
    seen, columns = hashlib.sha256(), hashlib.sha256()
    prints: list[str] = []
    train: list[tuple[int, str, str]] = []
    with work.database() as database, Fingerprinter(database) as fingerprinter:
        for product in read_products(folder, settings.catalog, Problems()):
            prints.append(fingerprinter.of(first_photos(product, settings.model.generator_images)))
            split = split_of(product, settings.split)
            if split == "train":
                train.append((len(prints) - 1, product.id, product.identity))
            row = [
                product.id,
                fingerprinter.of(product),
                product.identity,
                product.category,
                product.group_id or "",
                split,
            ]
            seen.update(hash_json(row).encode())
            columns.update(hash_json(sorted(product.given.items())).encode())
    beside = [folder.root / name for name in ("queries.jsonl", "qrels.trec")]
    if labels := labels_file(settings, folder.root):
        beside.append(labels)
    targets = folder.root / settings.sft.file
    return Catalog(
        seen.hexdigest()[:SHORT],
        columns.hexdigest()[:SHORT],
        _contents(beside),
        hash_file(targets)[:SHORT] if settings.sft.file and targets.is_file() else "",
        _contents([folder.root / name for name in settings.dedupe.verdicts]),
        load_task(settings.attributes, folder.root).id,
        tuple(prints),
        tuple(train),
        _contents([folder.root / name for name in settings.triplets.verdicts]) if settings.cycle.composed else "",
    )


def _contents(files: list[Path]) -> str:
    return _short([hash_file(path) for path in files if path.is_file()])


def _short(content: Any) -> str:
    return hash_json(content)[:SHORT]


def _texts(work: Workspace) -> str:
    embed = work.embed
    return _short([embed.enrich, embed.query_instruction, embed.target_instruction])


def _triplets(work: Workspace, catalog: Catalog) -> str:
    """Return what triplets, and queries made of them, depend on beside attributes."""
    settings = work.settings
    own = settings.triplets.model_dump(exclude={"verdicts"})
    return _short([own, settings.search.known_attributes, catalog.triplets])


def _folds(work: Workspace) -> dict[str, str]:
    """Return what a stage sees of the training split, and by which generators it is described; nothing of all of it."""
    if (part := work.part) is None:
        return {}
    ids = [work.generator_id_of(name) for name in part.generators]
    return {"folds": _short(part.describe()), **({"generators of folds": _short(ids)} if ids else {})}


class Inputs:
    """Makes the inputs of each kind of stage; the workspace's settings name the models."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def _generator(self, work: Workspace) -> dict[str, str]:
        found = {
            "generator": work.generator_id,
            "prompt": work.task.id,
            "generator photos": str(work.settings.model.generator_images),
        }
        least = work.settings.attributes.min_confidence  # without one, stages of earlier versions stand
        return found | ({"min confidence": str(least)} if least else {})

    def _embedder(self, work: Workspace) -> dict[str, str]:
        return {"embedder": work.embedder_id}

    def _evaluation(self, settings: Settings) -> dict[str, str]:
        """Return what the evaluation depends on; labels, where queries are made of them, are columns of the catalog."""
        protocol = settings.cycle.protocol
        labels = {"columns": self.catalog.columns} if protocol in ("coarse", "composed") else {}
        return {
            "queries": self.catalog.queries,
            "eval settings": _short([settings.eval.model_dump(), protocol]),
            **labels,
        }

    def checks(self, work: Workspace, targets: str) -> dict[str, str]:
        """Return the fingerprints of what is checked before the first stage."""
        catalog, files = self.catalog, [self.catalog.targets, self.catalog.verdicts]
        content = [work.settings.model_dump(), targets, [*files, catalog.triplets] if catalog.triplets else files]
        return {
            "catalog": catalog.products,
            "columns": catalog.columns,
            "settings": _short(content),
            **self._generator(work),
        }

    def attributes(self, work: Workspace) -> dict[str, str]:
        """Return the fingerprints of the stage that writes attributes: of the products, and of other views that ask or
        are searched.
        """
        settings = work.settings
        views = _short([settings.embed.enrich, settings.agcl.pairs, settings.agcl.validation_pairs, settings.rar.query])
        found = {"catalog": self.catalog.products, **self._generator(work), **self._evaluation(settings)}
        return {**found, "views": views, **_folds(work)}

    def training(self, method: Method, work: Workspace) -> dict[str, str]:
        """Return the fingerprints of a training: its settings, the catalog, and what `method.uses` names."""
        settings, uses = work.settings, method.uses(work.settings)
        own = getattr(settings, method.name).model_dump(exclude=method.not_the_result)
        found = {"catalog": self.catalog.products, f"{method.name} settings": _short(own)}
        found |= self._generator(work) if "generator" in uses else {}
        found |= self._embedder(work) if "embedder" in uses else {}
        found |= {"columns": self.catalog.columns} if "columns" in uses else {}
        found |= {"targets file": self.catalog.targets} if "targets" in uses else {}
        found |= {"embed settings": _texts(work)} if "texts" in uses else {}
        found |= _folds(work)
        found |= {"triplets": _triplets(work, self.catalog)} if "triplets" in uses else {}
        # Verdicts join listings for training; without any, stages of earlier versions stand.
        verdicts = "verdicts" in uses and settings.dedupe.verdicts
        return found | ({"verdicts": self.catalog.verdicts} if verdicts else {})

    def score(self, work: Workspace, split: str, against: str) -> dict[str, str]:
        """Return the fingerprints of a stage's metrics on `split`; `against` is the fingerprint of the metrics that
        they are compared with.
        """
        settings = work.settings
        texts = self._generator(work) if settings.embed.enrich != "none" else {}
        if texts and settings.cycle.protocol == "composed" and settings.search.known_attributes:
            texts["known attributes"] = "true"  # without them, stages of earlier versions stand
        found = {"catalog": self.catalog.products, **self._embedder(work), **texts}
        return {
            **found,
            **self._evaluation(settings),
            "embed settings": _texts(work),
            "split": split,
            "stage before": against,
        }
