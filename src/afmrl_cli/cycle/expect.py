"""What a dry run expects a stage to take: what its kind took before in this catalog, else a part of it, done now.

    a training (sft, ...)     a step, as `--dry-run` of the single command measures it, times the steps
    attributes                the generator writes for SAMPLE products, times the products
    score                     SAMPLE products are encoded, times the products; what follows is statistics

Loading is left out of what is measured, and so are validations in between: the estimate is a lower bound.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch

from ..attributes.agreement import requests_of
from ..attributes.open_requests import open_request
from ..catalog.pictures import image_loader, load_photos
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..catalog.read import read_products
from ..composed.run import COMPOSED
from ..errors import DataError
from ..listener import Silent
from ..methods import METHODS
from ..models.device import device_of
from ..models.embed_input import Item
from ..training.estimate import peak_bytes
from ..training.shell import run_training
from ..workspace import Workspace
from .records import Record, read_record
from .stages import ResourceUsage, run_isolated

SAMPLE = 16


@dataclass(frozen=True)
class Expected:
    """What a stage of a dry run will take; None: nothing is known. `share` is that of the first round's training
    samples, `measured` says that a part of it was done just now.
    """

    name: str
    kind: str
    done: bool
    share: float = 1.0
    seconds: float | None = None
    peak_bytes: int | None = None
    measured: bool = False


def expect(
    work: Workspace, stages: Sequence[tuple[str, str, float]], done: Collection[str], products: int
) -> list[Expected]:
    """Expect `stages` (name, kind, share) of a cycle in a catalog of so many `products`.

    What the catalog offers too little of to be measured stays unknown, with a warning; UsageError and
    ModelError are raised, as the stage itself would.
    """
    took: dict[str, ResourceUsage | None] = {}
    measured: set[str] = set()
    for kind in dict.fromkeys(kind for _, kind, _ in stages):
        took[kind] = _took_before(work, kind)
        if took[kind] is None and any(each == kind and name not in done for name, each, _ in stages):
            took[kind] = _measured(work, kind, products)
            measured.add(kind)
    found: list[Expected] = []
    for name, kind, share in stages:
        expected = Expected(name, kind, name in done, share)
        if used := took[kind]:
            taken = {"seconds": used.seconds * share, "peak_bytes": used.peak_bytes, "measured": kind in measured}
            expected = replace(expected, **taken)  # type: ignore[arg-type]
        found.append(expected)
    return found


def _took_before(work: Workspace, kind: str) -> ResourceUsage | None:
    """Return what the newest stage of the kind took in any cycle of this catalog; one of a first round, if there is
    any.
    """
    files = sorted(work.folder.runs.glob("cycle-*/stages/*.json"))
    records: list[Record] = [each for file in files if (each := read_record(file)) and each.kind == kind]
    whole = [each for each in records if each.name == f"1-{kind}"]  # a half's beside it would be too little
    first = whole or [each for each in records if each.name.startswith("1-")] or records
    if not first:
        return None
    newest = max(first, key=lambda each: each.created)
    return ResourceUsage(newest.seconds, newest.peak_bytes)


def _measured(work: Workspace, kind: str, products: int) -> ResourceUsage | None:
    """Do a part of a first round's stage of `kind`; None, with a warning, where the catalog has too little for that."""
    work.listener.note(f"measuring a part of {kind}")
    # Silent: the parts' own notes are of the part, such as of a gallery that is not the whole one.
    quiet, found = replace(work, listener=Silent()), []

    def measure() -> dict[str, object]:
        found.append(_measure(quiet, kind, products))
        return {}

    try:
        run_isolated(measure, quiet.listener)
    except DataError as error:  # the checks have passed it: a matter of the part that is measured
        work.listener.warn(f"{kind} could not be measured: {error}")
        return None
    return found[0]


def _measure(work: Workspace, kind: str, products: int) -> ResourceUsage:
    settings = work.settings
    if kind in ("attributes", "score"):
        # A dry run writes nothing, so no store of photos.
        cache = settings.cache.model_copy(update={"vision": False})
        work = work.with_settings(settings.model_copy(update={"cache": cache}))
        return _sample(work, products, _generation(work) if kind == "attributes" else _encoding(work))
    method = COMPOSED if kind == COMPOSED.name else METHODS["agcl" if kind == "infonce" else kind]
    summary = run_training(method, work.with_settings(method.trial(settings)), dry_run=True)
    if summary is None or summary.estimate is None:
        raise RuntimeError(f"{kind}: a dry run without an estimate")
    return ResourceUsage(round(summary.estimate.whole_seconds, 3), summary.estimate.peak_bytes)


def _sample(work: Workspace, products: int, part: Callable[[Sequence[Product]], None]) -> ResourceUsage:
    """Do `part` for SAMPLE products, twice, since the first time warms up."""
    sample = list(itertools.islice(read_products(work.folder, work.settings.catalog, Problems()), SAMPLE))
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        part(sample)
        seconds = time.monotonic() - began
    device = torch.device(device_of(work.settings.model))
    return ResourceUsage(round(seconds / len(sample) * products, 3), peak_bytes(device))


def _generation(work: Workspace) -> Callable[[Sequence[Product]], None]:
    generator, agreement = work.generator(), work.settings.attributes.agreement

    def generate(products: Sequence[Product]) -> None:
        opened = (open_request(work.task, product, work.settings, Problems()) for product in products)
        generator.generate(
            [one for request in opened if request is not None for one in requests_of(request, agreement)]
        )

    return generate


def _encoding(work: Workspace) -> Callable[[Sequence[Product]], None]:
    settings, embedder = work.settings, work.embedder()

    def encode(products: Sequence[Product]) -> None:
        load_image = image_loader(embedder, settings.catalog)
        photos = (load_photos(each.images, load_image, settings.model.embedder_images).photos for each in products)
        items = [Item(product_text(each), tuple(shown)) for each, shown in zip(products, photos, strict=True)]
        embedder.encode([item for item in items if item.text or item.images], instruction=work.embed.target_instruction)

    return encode
