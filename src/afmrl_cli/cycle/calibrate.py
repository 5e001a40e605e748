"""What a stage that has never been done here will take: a part of it is done, and its time taken times the rest.

    sft, agcl, infonce, rar   a step, as `--dry-run` of the single commands measures it, times the steps
    attributes                the generator is asked about SAMPLE products, times the products
    score                     SAMPLE products are encoded, times the products; what follows is statistics

Loading is left out, and so are the looks at held-out products in between: the figure is a lower one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..attributes.asking import open_request
from ..catalog.pictures import image_loader, load_photos
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..catalog.read import read_products
from ..errors import DataError
from ..listener import Silent
from ..models.backends import load_backend
from ..models.base import Bases
from ..models.device import device_of
from ..models.embed_input import Item
from ..models.embedder import load_embedder
from ..rar.run import train_rar
from ..sft.run import train_sft
from ..training.estimate import Estimate, peak_bytes
from ..training.run import train_agcl
from ..training.sizes import RAR_K
from ..workspace import Workspace
from .records import Expected
from .stages import ResourceUsage, run_isolated

SAMPLE = 16
GALLERY = 128
"""Listings among which a step of RAR is measured: to encode a whole gallery would take more than a few seconds."""


def fill_in(expected: Sequence[Expected], work: Workspace, products: int, targets: str) -> list[Expected]:
    """`expected` with what is not known from earlier stages; `targets` is the source of SFT's right answers. What the
    catalog offers too little of to be measured stays unknown, and the reason is told; UsageError and ModelError are
    raised, as the stage itself would.
    """
    measured: dict[str, ResourceUsage] = {}
    for kind in dict.fromkeys(each.kind for each in expected if not each.done and each.seconds is None):
        work.listener.note(f"measuring a part of {kind}")
        try:
            # Silent: the parts' own notes are of the part, such as of a gallery that is not the whole one.
            measured[kind] = calibrate(kind, replace(work, listener=Silent()), products, targets)
        except DataError as error:  # the checks have passed it: a matter of the part that is measured
            work.listener.warn(f"{kind} could not be measured: {error}")
    return [
        replace(each, seconds=used.seconds * each.share, peak_bytes=used.peak_bytes, measured=True)
        if not each.done and each.seconds is None and (used := measured.get(each.kind))
        else each
        for each in expected
    ]


def calibrate(kind: str, work: Workspace, products: int, targets: str) -> ResourceUsage:
    """Time and memory of a first round's stage of `kind` for a catalog of so many `products`.

    Raises as the stage itself would: DataError, UsageError, ModelError.
    """
    found: list[ResourceUsage] = []

    def measure() -> dict[str, object]:
        found.append(_measured(kind, work, products, targets))
        return {}

    run_isolated(measure, work.listener)
    return found[0]


def _measured(kind: str, work: Workspace, products: int, targets: str) -> ResourceUsage:
    settings = work.settings
    if kind == "attributes":
        return _sampled(work, products, _asking(work))
    if kind == "score":
        return _sampled(work, products, _encoding(work))
    estimate: Estimate | None = None
    if kind == "sft":
        sft = settings.sft.model_copy(update={"source": targets})
        estimate = train_sft(work.with_settings(settings.model_copy(update={"sft": sft})), dry_run=True).estimate
    elif kind == "rar":
        small = {
            "from_base": not settings.model.generator_checkpoint,
            "gallery": max(GALLERY, 4 * (settings.rar.k or RAR_K)),
        }
        small |= {"queries": max(SAMPLE, settings.rar.prompts), "validation_queries": SAMPLE}
        rar = settings.rar.model_copy(update=small)
        estimate = train_rar(work.with_settings(settings.model_copy(update={"rar": rar})), dry_run=True).estimate
    else:  # the attributes that AGCL weights by are not there yet; they cost nothing
        agcl = settings.agcl.model_copy(update={"loss": "infonce"})
        summary = train_agcl(work.with_settings(settings.model_copy(update={"agcl": agcl})), dry_run=True)
        estimate = summary.estimate if summary else None
    if estimate is None:
        raise RuntimeError(f"{kind}: a dry run without an estimate")
    return ResourceUsage(round(estimate.whole_seconds, 3), estimate.peak_bytes)


def _sampled(work: Workspace, products: int, part: Callable[[Sequence[Product]], None]) -> ResourceUsage:
    """`part` is done twice, since the first time warms up."""
    settings = work.settings
    sample = list(itertools.islice(read_products(work.folder, settings.catalog, Problems()), SAMPLE))
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        part(sample)
        seconds = time.monotonic() - began
    device = torch.device(device_of(settings.model))
    return ResourceUsage(round(seconds / len(sample) * products, 3), peak_bytes(device))


def _asking(work: Workspace) -> Callable[[Sequence[Product]], None]:
    settings, task = work.settings, work.task
    generator = load_backend(settings, work.checkpoints, bases=Bases(), listener=work.listener)

    def ask(products: Sequence[Product]) -> None:
        opened = (open_request(task, product, settings, Problems()) for product in products)
        generator.generate([request for request in opened if request is not None])

    return ask


def _encoding(work: Workspace) -> Callable[[Sequence[Product]], None]:
    settings = work.settings
    embedder = load_embedder(
        settings.model,
        settings.embed,
        work.checkpoints,
        bases=Bases(),
        catalog=settings.catalog,
        listener=work.listener,
    )

    def encode(products: Sequence[Product]) -> None:
        load_image = image_loader(embedder, settings.catalog)
        photos = (load_photos(each.images, load_image, settings.model.embedder_images).photos for each in products)
        items = [Item(product_text(each), tuple(shown)) for each, shown in zip(products, photos, strict=True)]
        embedder.encode(
            [item for item in items if item.text or item.images], instruction=settings.embed.target_instruction
        )

    return encode
