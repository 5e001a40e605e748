"""What `benchmarks.gpu` measures, each task in a process of its own: models of full size, random weights.

A stage is what its command does on a shop whose texts and photos are of a common size: `attributes` and `embed` in
rates, without loading, after a first batch; the trainings by their own dry run, whose second step is timed. Peaks are
those of torch's allocator; the driver takes some hundred MiB beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import BUILT_IN

from .gpu_models import make_model
from .memory import make_shop, status, works

STAGES = ("attributes", "embed", "train-sft", "train-agcl", "train-rar")
SIDE, PRODUCTS = 448, 96
SETTINGS: dict[str, object] = {
    "model.generator_images": 1,
    "model.embedder_images": 1,
    "split.validation": 0.25,
    "split.test": 0.25,
    "agcl.loss": "infonce",
    "agcl.batch_size": 16,
    "sft.source": "columns",
    "sft.batch_size": 8,
    "rar.from_base": True,
    "rar.k": 3,
    "rar.prompts": 4,
    "rar.group": 8,
}
TINY: dict[str, object] = {"attributes.max_new_tokens": 40, "rar.prompts": 1, "rar.group": 2, "agcl.batch_size": 4}
Found = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One measurement. `generator` and `embedder` are architectures, `cap_gib` of 0 is the whole card, `limit_s` the
    longest that it may take.
    """

    kind: str
    name: str
    generator: str = "qwen3_vl"
    embedder: str = "qwen3_vl"
    precision: str = "nf4"
    cap_gib: int = 0
    limit_s: float = 60


def device_here(tiny: bool) -> str:
    """Where models run: a full one on the card, a tiny one on the CPU."""
    if tiny:
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU here: --tiny runs the same code on the CPU")
    return "cuda"


def run_task(task: Task, place: Path, tiny: bool) -> Found:
    """Do the task under its cap; what it found. `place` holds the models and is shared by all tasks."""
    device = device_here(tiny)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        if task.cap_gib:
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, task.cap_gib * 2**30 / whole))
    kinds: dict[str, Callable[[Task, Path, bool], Found]] = {
        "make": make,
        "check": check,
        "equal": equal,
        "against-trl": against_trl,
    }
    return kinds.get(task.kind, stage)(task, place, tiny) | peak(device)


def peak(device: str) -> Found:
    """The most memory so far, in GiB: of torch's allocator on a card, of the process elsewhere."""
    if device == "cpu":
        return {"process_gib": status("VmHWM") / 2**30}
    return {
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
    }


def seconds(work: Callable[[], object]) -> float:
    """What `work` takes by the clock, the card's part included."""
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make(task: Task, place: Path, tiny: bool) -> Found:
    """The model that others load."""
    began = time.perf_counter()
    parameters = make_model(task.generator, place / task.generator, device_here(tiny), tiny)
    return {"seconds": time.perf_counter() - began, "parameters": float(parameters)}


def settings_of(task: Task, place: Path, tiny: bool, **more: object) -> Any:
    from afmrl_cli.by_model import with_values_by_model
    from afmrl_cli.sources import load_settings

    own = {
        "model.generator": str(place / task.generator),
        "model.embedder": str(place / task.embedder),
        "model.device": device_here(tiny),
        "model.precision": task.precision,
    }
    small: dict[str, object] = {**TINY, "model.max_pixels": 56 * 56} if tiny else {}
    return with_values_by_model(load_settings(None, {**SETTINGS, **own, **small, **more}, BUILT_IN))


def check(task: Task, place: Path, tiny: bool) -> Found:
    """The card, and one forward of each kind of precision: what does not work here works nowhere."""
    from afmrl_cli.models.embed_input import Item
    from afmrl_cli.models.embedder import load_embedder
    from afmrl_cli.store.checkpoints import Checkpoints, versions

    found: Found = {f"version_{name}": number for name, number in versions().items()}
    if shutil.which("nvidia-smi"):
        words = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        found["card"] = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    for precision in ("nf4", "bf16"):
        settings = settings_of(task, place, tiny, **{"model.precision": precision})
        began = time.perf_counter()
        embedder = load_embedder(settings.model, settings.embed, Checkpoints(place / "none"))
        found[f"load_{precision}_s"] = time.perf_counter() - began
        vectors = embedder.encode([Item("red shirt"), Item("a blue denim jacket")], instruction="Find:")
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise RuntimeError(f"{precision}: vectors of lengths {np.linalg.norm(vectors, axis=1)}")
    return found


def stage(task: Task, place: Path, tiny: bool) -> Found:
    """What a command takes: `task.kind` is its name."""
    shop = place / "shop"
    if not shop.exists():
        make_shop(place / "half", 24 if tiny else PRODUCTS, side=56 if tiny else SIDE)
        (place / "half").rename(shop)
    with tempfile.TemporaryDirectory() as name:
        root = Path(shutil.copytree(shop, Path(name) / "shop"))
        settings, catalog = settings_of(task, place, tiny), root / "catalog.csv"
        if task.kind == "attributes":
            return attributes_rate(catalog, settings)
        if task.kind == "embed":
            return embed_rate(catalog, settings)
        estimate = getattr(works(catalog, settings)[task.kind](), "estimate")  # noqa: B009
        return {"seconds": estimate.step_seconds, "unit": "a step"}


def attributes_rate(catalog: Path, settings: Any) -> Found:
    """Products a second of `attributes`, two batches of them, answers as long as they may be."""
    from afmrl_cli.models.backends import load_backend
    from afmrl_cli.store.checkpoints import Checkpoints

    generator = load_backend(settings, Checkpoints(catalog.parent / "none"))
    requests = requests_of(catalog, settings, 2 * settings.attributes.batch_size)
    generator.generate(requests[:2])
    taken = seconds(lambda: generator.generate(requests))
    return rate(len(requests), taken, generator)


def requests_of(catalog: Path, settings: Any, most: int) -> list[Any]:
    """What the generator is asked about the first products."""
    from afmrl_cli.attributes.open_requests import open_request
    from afmrl_cli.attributes.task import load_task
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.catalog.read import read_products
    from afmrl_cli.store.folder import CatalogFolder

    folder, problems = CatalogFolder(catalog), Problems()
    task = load_task(settings.attributes, folder.root)
    products = islice(read_products(folder, settings.catalog, problems), most)
    opened = (open_request(task, product, settings, problems) for product in products)
    return [request for request in opened if request is not None]


def embed_rate(catalog: Path, settings: Any) -> Found:
    """Products a second of `embed`, photos opened from their files."""
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.catalog.product import product_text
    from afmrl_cli.catalog.read import read_products
    from afmrl_cli.models.embed_input import Item
    from afmrl_cli.models.embedder import load_embedder
    from afmrl_cli.store.checkpoints import Checkpoints
    from afmrl_cli.store.folder import CatalogFolder

    embedder = load_embedder(settings.model, settings.embed, Checkpoints(catalog.parent / "none"))
    products = read_products(CatalogFolder(catalog), settings.catalog, Problems())
    items = [Item(product_text(product), product.images[:1]) for product in products]
    embedder.encode(items[:2], instruction=embedder.template.target_instruction)
    taken = seconds(lambda: embedder.encode(items, instruction=embedder.template.target_instruction))
    return rate(len(items), taken, embedder)


def rate(products: int, taken: float, model: Any) -> Found:
    """The row of a rate; where memory ran out, batches are smaller than they were to be."""
    return {"seconds": taken, "unit": f"{products} products", "rate": products / taken, "batch": model._batches.size}


def against_trl(task: Task, place: Path, tiny: bool) -> Found:
    """A RAR step beside stock TRL's, from equal adapters, in turn (`benchmarks.rar_step`)."""
    from afmrl_cli.nano.shop import ShopPlan, write_shop

    from . import rar_step

    prompts, pixels = (1, 56) if tiny else (2, SIDE)
    own = {"model.device": device_here(tiny), "model.precision": task.precision}
    with tempfile.TemporaryDirectory() as name:
        work, sides = Path(name), {}
        write_shop(work / "shop", ShopPlan(30, seed=3, duplicates=0.5, size=pixels))
        for side, begin in (("ours", rar_step.make_ours), ("stock", rar_step.make_stock)):
            plan, policy = rar_step.make_world(work, str(place / task.generator), prompts, pixels, more=own)
            sides[side] = begin(plan, policy, work / side)
        found = rar_step.measure(sides, 1 if tiny else 3)
    ours, stock = (float(np.median([step["step"][1] for step in found[side]])) for side in ("ours", "stock"))
    return {"seconds": ours, "unit": "a step", "stock_seconds": stock, "ratio": stock / ours}


def equal(task: Task, place: Path, tiny: bool) -> Found:
    """How far apart two ways to the same numbers are: a batch and its rows alone; answers behind one prefix and in
    full; a gradient by chunks and in one. In fp32 the aim is 1e-5.
    """
    from afmrl_cli.listener import Silent
    from afmrl_cli.models.batching import Batches
    from afmrl_cli.models.embedder import load_embedder
    from afmrl_cli.rar.frozen import frozen
    from afmrl_cli.rar.prefix import encode_groups
    from afmrl_cli.store.checkpoints import Checkpoints

    from .rar_reward import workloads

    settings, instruction = settings_of(task, place, tiny), "Find this product:"
    embedder = load_embedder(settings.model, settings.embed, Checkpoints(place / "none"))
    with tempfile.TemporaryDirectory() as name:
        groups = workloads(Path(name), 2 if tiny else 4, 4)["photos and text, rests alike"]
        items = [item for group in groups for item in group]
        batch = embedder.encode(items, instruction=instruction)
        alone = np.concatenate([embedder.encode([item], instruction=instruction) for item in items])
        with frozen(embedder):
            batches = Batches(settings.embed.batch_size, Silent(), "reward")
            shared = np.concatenate(encode_groups(embedder, groups, instruction=instruction, batches=batches))
        gradient = gradient_difference(embedder, settings, items, instruction)
    return {
        "batch_differs": float(np.abs(batch - alone).max()),
        "prefix_differs": float(np.abs(shared - batch).max()),
        "gradient_differs": gradient,
    }


def gradient_difference(embedder: Any, settings: Any, items: Sequence[Any], instruction: str) -> float:
    """The norm of the difference over that of the gradient, the batch in one chunk and in many."""
    from afmrl_cli.store.checkpoints import Checkpoints
    from afmrl_cli.training.adapter import add_trainable, trainable
    from afmrl_cli.training.agcl import contrastive_loss
    from afmrl_cli.training.gradcache import cached_gradients, token_chunks

    own = settings.agcl.model_copy(update={"activation_checkpointing": False, "lora_dropout": 0.0})
    model = add_trainable(embedder, own, None, Checkpoints(Path("none")))
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_(std=0.02)
    texts = embedder.texts(items, instruction)
    lengths = [
        len(embedder.processor.tokenizer(text)["input_ids"]) + sum(map(embedder.image_tokens, item.images))
        for text, item in zip(texts, items, strict=True)
    ]

    def loss_of(vectors: torch.Tensor) -> tuple[None, torch.Tensor]:
        leaf = vectors.detach().requires_grad_()
        with torch.enable_grad():
            value = contrastive_loss(leaf[0::2], leaf[1::2], temperature=0.05).value
            return None, torch.autograd.grad(value, leaf)[0]

    found = []
    for most in (sum(lengths) * 2, max(lengths)):
        model.zero_grad(set_to_none=True)
        chunks = token_chunks(lengths, most)
        cached_gradients(chunks, lambda rows: _tensors(embedder, texts, items, rows), embedder.unit_vectors, loss_of)
        slopes = [each.grad.float().flatten() for each in trainable(model).values() if each.grad is not None]
        found.append(torch.cat(slopes))
    return float((found[0] - found[1]).norm() / found[0].norm())


def _tensors(embedder: Any, texts: Sequence[str], items: Sequence[Any], rows: Sequence[int]) -> Any:
    images = [[embedder.opened(image) for image in items[row].images] for row in rows]
    return embedder.vision.tensors([texts[row] for row in rows], images)
