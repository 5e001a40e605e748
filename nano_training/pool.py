"""The pool of rendered photos the nano model is trained on: one memory-mapped file, made once, in parts.

Styles come in pairs of colour variants, each garment in several photos; the pool grows in whole chunks, and a chunk
that a killed run left half-written is drawn again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afmrl_cli.nano.garment import Garment, colour_variant, random_garment
from afmrl_cli.nano.phone import by_phone
from afmrl_cli.nano.render import render_photo

MODEL_SIZE = 112
"""What the nano model sees: pixels along each side."""

_CHUNK = 100
_THROUGH_JPEG = 0.12


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What is in a pool; two pools of the same plan hold the same pixels.

    Of each garment `studio` photos, then `phone` photos as a seller's phone takes them.
    """

    styles: int
    studio: int = 4
    phone: int = 0
    seed: int = 0

    @property
    def garments(self) -> int:
        """How many garments: two colours of each style."""
        return 2 * self.styles

    @property
    def photos(self) -> int:
        """How many photos of each garment."""
        return self.studio + self.phone


def pool_garments(plan: PoolPlan) -> list[Garment]:
    """Return the pool's garments: 2 i and 2 i + 1 are colour variants."""
    found: list[Garment] = []
    for style in range(plan.styles):
        rng = Random(f"train {plan.seed} {style}")
        garment = random_garment(rng)
        found += [garment, colour_variant(garment, rng)]
    return found


def as_seen(photo: Image.Image) -> Image.Image:
    """Return a photo at the model's resolution, reduced as the image processor reduces it."""
    return photo.convert("RGB").resize((MODEL_SIZE, MODEL_SIZE), Image.Resampling.BICUBIC)


def training_photo(garment: Garment, number: int) -> Image.Image:
    """Return photo `number` of a garment at the model's resolution.

    Some go the whole way of a shop's photo (drawn at 448, saved as JPEG, reduced); the rest are drawn small at once,
    which is six times faster and hardly differs.
    """
    rng = Random(f"way {garment.seed} {garment.colour} {number}")
    if rng.random() >= _THROUGH_JPEG:
        return render_photo(garment, number, MODEL_SIZE)
    held = io.BytesIO()
    render_photo(garment, number, rng.choice((280, 336, 448))).save(held, "JPEG", quality=rng.randint(75, 95))
    return as_seen(Image.open(held))


def phone_photo(garment: Garment, number: int) -> Image.Image:
    """Return photo `number` of a garment as taken by phone, at the model's resolution.

    Always drawn and saved as large as a shop's and only then reduced: the smaller the photo, the coarser the phone's
    noise.
    """
    rng = Random(f"phone {garment.seed} {garment.colour} {number}")
    size = rng.choices((224, 448), (0.9, 0.1))[0]
    held = io.BytesIO()
    by_phone(render_photo(garment, number, size), rng).save(held, "JPEG", quality=rng.randint(75, 95))
    return as_seen(Image.open(held))


def _draw_chunk(plan: PoolPlan, chunk: int, path: str) -> int:
    garments = pool_garments(plan)[chunk * 2 * _CHUNK : (chunk + 1) * 2 * _CHUNK]
    photos = np.stack(
        [
            np.asarray(training_photo(g, n) if n < plan.studio else phone_photo(g, n))
            for g in garments
            for n in range(plan.photos)
        ]
    )
    pool = np.memmap(path, np.uint8, "r+", shape=_shape(plan))
    start = chunk * 2 * _CHUNK * plan.photos
    pool[start : start + len(photos)] = photos
    pool.flush()
    return chunk


def _shape(plan: PoolPlan) -> tuple[int, int, int, int]:
    return plan.garments * plan.photos, MODEL_SIZE, MODEL_SIZE, 3


def make_pool(
    folder: Path, plan: PoolPlan, processes: int = 2, report: Callable[[int, int], None] | None = None
) -> NDArray[np.uint8]:
    """Return the pool's photos, [garments * photos, 112, 112, 3]; drawn if missing, opened if there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"pool-{plan.styles}x{plan.studio}+{plan.phone}-seed{plan.seed}"
    path, state = folder / f"{name}.u8", folder / f"{name}.json"
    done: list[int] = json.loads(state.read_text())["done"] if state.exists() and path.exists() else []
    if not path.exists():
        np.memmap(path, np.uint8, "w+", shape=_shape(plan)).flush()
    chunks = range(-(-plan.styles // _CHUNK))
    missing = [chunk for chunk in chunks if chunk not in done]
    if missing:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
            drawn = [workers.submit(_draw_chunk, plan, chunk, str(path)) for chunk in missing]
            for one in as_completed(drawn):
                done.append(one.result())
                part = state.with_suffix(".tmp")
                part.write_text(json.dumps({"plan": asdict(plan), "done": done}))
                part.replace(state)
                if report:
                    report(len(done), len(chunks))
    return np.memmap(path, np.uint8, "r", shape=_shape(plan))
