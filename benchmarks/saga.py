"""What the vision encoder's training brings, and each part of it: unseen classes of drawn shops and of real catalogs.

    python -m benchmarks.saga run WORK [--kinds category+pattern,colour,identity] [--seeds 1,2,3,4,5] [--arms "all; +"]
    python -m benchmarks.saga run WORK --kinds luma,myntra,grocery --data DATA --seeds 1,2,3
    python -m benchmarks.saga table WORK

Catalogs are those of `benchmarks.saga_catalogs`: the classes of the test split are never trained on. Every photo of the
test split asks, all others are searched but those of its listing (of real catalogs: of its style); right is what is of
its class. The checkpoint of each run was chosen by the validation split, which has other classes again; the test split
is scored once, at the end. Each result is a file of WORK/results: what is there is not done again, so that the command
can be killed and started anew.

The adjudicator is the same for all arms: of drawn shops the base (`benchmarks.saga_base`) as it comes, of real catalogs
and for the generic prompt taught once for each (`train-sft`, `sft.source` = pairs). How often it is right about pairs
of validation classes stands in the table; where `train-vision` refuses it, the arms that ask it are missing.

    pretrained                  the base's tower, mean pooling
    metric learning             without what the language model says; with mean pooling; longer: in as many steps as
                                take about the time of all
    + GRPO                      and without the list of attributes (generic prompt); with mean pooling
    + anchoring                 the pooler's attention alone is learnt from the language model
    all                         the settings as they come
    control: shuffled rewards   GRPO, the rewards of a pair's answers exchanged among them: must not gain
    colours, random             the colour histogram of `eval --baselines`; vectors that know nothing
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from afmrl_cli.catalog.images import open_image
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.output import Output
from afmrl_cli.errors import AfmrlError
from afmrl_cli.models.base import active_adapter, open_role
from afmrl_cli.retrieval.histogram import color_histogram
from afmrl_cli.saga import learn
from afmrl_cli.saga.grpo import advantages
from afmrl_cli.saga.pooler import Pooler, load_pooler
from afmrl_cli.saga.run import train_vision
from afmrl_cli.sft.run import train_sft
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import POOLER_WEIGHTS
from afmrl_cli.store.files import hash_json, write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .saga_base import SIZES as BASE
from .saga_base import make_base
from .saga_catalogs import DRAWN, KINDS, TRUTH, Sizes, catalog_of
from .saga_table import print_tables

Flags = Mapping[str, object]
Floats = NDArray[np.float32]
SHARED: Flags = {
    "model.device": "cpu",
    "model.preset": "nano",
    "catalog.allow_outside": True,
    "sft.source": "pairs",
    "sft.steps": 80,
    "sft.batch_size": 32,
    "sft.learning_rate": 1e-3,
    "sft.chunk_size": 16,
    "sft.activation_checkpointing": False,
    "vision.steps": 40,
    "vision.learning_rate": 1e-3,
    "vision.chunk_photos": 64,
    "vision.chunk_answers": 64,
    "vision.rollout_answers": 1024,
    "vision.activation_checkpointing": False,
    "vision.batch_size": 32,
    "vision.group": 6,
    "vision.pairs": 4,
    "vision.max_new_tokens": 64,
    "vision.validation_pairs": 100,
    "vision.validate_every": 10,
}
"""Settings of all runs, that --set changes: small, for two cores; the base is as large as nano, but not called so."""
METRIC: Flags = {"vision.grpo": 0.0, "vision.anchoring": 0.0}
MEAN: Flags = {"vision.pooling": "mean", "vision.anchoring": 0.0}
UNTRAINED = ("pretrained", "colours", "random")
SHUFFLED = "control: shuffled rewards"
LONGER = 4
"""By how many times `metric learning, longer` is longer."""
ARMS: Mapping[str, Flags] = {
    "metric learning": METRIC,
    "all": {},
    "+ GRPO": {"vision.anchoring": 0.0},
    "+ GRPO, generic prompt": {"vision.anchoring": 0.0, "vision.prompt": "generic"},
    "+ anchoring": {"vision.grpo": 0.0},
    # A run is known by its settings: one that decides nothing here tells the control from the arm.
    SHUFFLED: {"vision.anchoring": 0.0, "vision.validation_photos": 1999},
    "metric learning, longer": {**METRIC, "vision.steps": LONGER},
    "metric learning, mean pooling": {**METRIC, **MEAN},
    "+ GRPO, mean pooling": MEAN,
}
"""The trained rows, the most important ones first: settings that differ from `all`."""
CLUSTERINGS = 5
BATCH = 64


class Bench:
    """One catalog with one seed."""

    def __init__(self, folder: CatalogFolder, kind: str, seed: int, base: Path, flags: Flags, out: Output) -> None:
        self.folder, self.kind, self.seed, self.out = folder, kind, seed, out
        own = {"vision.classes": list(KINDS[kind]), "vision.seed": seed, "sft.seed": seed}
        self.flags: dict[str, object] = {**SHARED, **own, "model.generator": str(base), **flags}
        self.photos, self.labels, self.groups = self._asked()

    def work(self, changes: Flags | None = None) -> Workspace:
        """Return a workspace with these settings on top."""
        flags = {**self.flags, **(changes or {})}
        return Workspace(self.folder, load_settings(self.folder.root, flags, BUILT_IN), self.out)

    def _asked(self) -> tuple[list[Path], NDArray[np.str_], NDArray[np.str_]]:
        """Return the photos of the test split, their classes and their groups."""
        settings = self.work().settings
        truth = json.loads((self.folder.root / TRUTH).read_text("utf-8"))
        photos = [
            photo
            for product in read_products(self.folder, settings.catalog, Problems())
            if split_of(product, settings.split) == "test"
            for photo in product.images
        ]
        photos = list(dict.fromkeys(photos))
        labels, groups = zip(*(truth[photo.name] for photo in photos), strict=True)
        return photos, np.array(labels), np.array(groups)

    def judge(self, prompt: str) -> str:
        """Return the adjudicator's checkpoint, taught where it is missing; "" for the base, which knows the question
        about drawn shops, but not the generic one, that does not say what is to be the same.
        """
        if self.kind in DRAWN and prompt == "schema":
            return ""
        name = f"judge-{prompt}"
        work = self.work({"sft.name": name, "vision.prompt": prompt})
        made = train_sft(work)
        assert made is not None
        return made.checkpoint

    def arm(self, arm: str) -> dict[str, Any]:
        """Train an arm and score it; `refused` says why there is nothing to score."""
        found: dict[str, Any] = {}
        if arm == "colours":
            vectors = np.stack([color_histogram(self._open(photo)) for photo in self.photos])
        elif arm == "random":
            vectors = np.random.default_rng(self.seed).standard_normal((len(self.photos), 192)).astype(np.float32)
        elif arm == "pretrained":
            vectors = self.encode("")
        else:
            try:
                found = self.train(arm)
            except AfmrlError as error:
                return {"refused": str(error)}
            vectors = self.encode(found["checkpoint"])
        return {**found, **score(vectors, self.labels, self.groups, [photo.name for photo in self.photos])}

    def train(self, arm: str) -> dict[str, Any]:
        """Train an arm; returns its checkpoint and what the run says of itself."""
        changes = dict(ARMS[arm])
        if changes.get("vision.steps") == LONGER:
            changes["vision.steps"] = LONGER * int(str(self.flags["vision.steps"]))
        asks = not METRIC.items() <= changes.items()
        judge = self.judge(str(changes.get("vision.prompt", "schema"))) if asks else ""
        began = time.monotonic()
        with shuffled_rewards(self.seed) if arm == SHUFFLED else contextlib.nullcontext():
            made = train_vision(self.work({**changes, "model.generator_checkpoint": judge}))
        assert made is not None
        rows = [json.loads(line) for line in (made.run / "metrics.jsonl").read_text("utf-8").splitlines()]
        steps = [row for row in rows if "metric" in row]
        return {
            "checkpoint": made.checkpoint,
            "seconds": time.monotonic() - began,
            "details": made.details,
            "steps": steps,
            "validation": {row["step"]: row["eval_recall@1"] for row in rows if "eval_recall@1" in row},
        }

    def encode(self, checkpoint: str) -> Floats:
        """Return the vectors of the test photos by a checkpoint; "": the base's tower, mean pooling."""
        work = self.work({"model.vision_checkpoint": checkpoint})
        opened = open_role(work.settings.model, "vision", work.checkpoints, None, self.out)
        loaded, processor = opened.loaded, opened.loaded.processor(opened.base)
        width = int(loaded.causal.config.get_text_config().hidden_size)
        pooler = Pooler(width, width, "mean")
        if checkpoint:
            pooler = load_pooler(work.checkpoints.path(checkpoint) / POOLER_WEIGHTS)
        made = []
        with torch.inference_mode(), active_adapter(loaded.peft, opened.adapter):
            for i in range(0, len(self.photos), BATCH):
                shown = processor.pixels([self._open(photo) for photo in self.photos[i : i + BATCH]])
                seen = loaded.trunk.get_image_features(shown["pixel_values"], shown["image_grid_thw"], return_dict=True)
                made.append(pooler(list(seen.pooler_output)).vectors.numpy())
        return np.concatenate(made)

    def _open(self, photo: Path) -> Any:
        return open_image(photo, self.work().settings.catalog)


@contextlib.contextmanager
def shuffled_rewards(seed: int) -> Iterator[Callable[[Sequence[Sequence[float]]], list[list[float]]]]:
    """Let the advantages of each pair's answers change places inside the block; gives what computes them there."""
    rng = np.random.default_rng(seed)

    def exchanged(rewards: Sequence[Sequence[float]]) -> list[list[float]]:
        return [rng.permutation(group).tolist() for group in advantages(rewards)]

    with mock.patch.object(learn, "advantages", exchanged):
        yield exchanged


def score(vectors: Floats, labels: NDArray[Any], groups: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return R@1 and R@4 of each photo that has a right answer, its class, and the mean NMI over `CLUSTERINGS`."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hidden = groups[:, None] == groups
    right = (labels[:, None] == labels) & ~hidden
    # A wrong one that scores the same stands before: equal vectors are no success.
    order = np.lexsort((right, -np.where(hidden, -np.inf, unit @ unit.T)), axis=1)[:, :4]
    first = np.take_along_axis(right, order, axis=1)
    asked = np.flatnonzero(right.any(axis=1)).tolist()
    number = len(set(labels.tolist()))
    shares = [
        normalized_mutual_info_score(labels, KMeans(number, n_init=1, random_state=i).fit_predict(unit))
        for i in range(CLUSTERINGS)
    ]
    return {
        "queries": {names[i]: [float(first[i, 0]), float(first[i].any())] for i in asked},
        "classes": {names[i]: str(labels[i]) for i in asked},
        "nmi": float(np.mean(shares)),
        "number": number,
        "photos": len(names),
    }


def run(wanted: argparse.Namespace) -> None:
    """Do what is missing: of all kinds the first arm, then the next one."""
    flags = dict(each.split("=", 1) for each in wanted.set)
    arms = [arm.strip() for arm in wanted.arms.split(";") if arm.strip()] or [*UNTRAINED, *ARMS]
    sizes = Sizes(wanted.products, wanted.listings)
    base = wanted.base or make_base(wanted.work, BASE)
    for arm in arms:
        for kind in wanted.kinds.split(","):
            for seed in map(int, wanted.seeds.split(",")):
                one(Shop(wanted.work, kind, seed, sizes, wanted.data), arm, base, flags)


@dataclass(frozen=True)
class Shop:
    """Which catalog: where it is, the kind of its classes, the seed, how large, and where real ones come from."""

    work: Path
    kind: str
    seed: int
    sizes: Sizes
    data: Path | None


def one(shop: Shop, arm: str, base: Path, flags: Flags) -> dict[str, Any]:
    """Return the result of an arm of a catalog, measured where it is missing."""
    tag, kind, seed = hash_json({**SHARED, **flags})[:6], shop.kind, shop.seed
    file = shop.work / "results" / f"{kind}-{seed}-{re.sub(r'[^a-z]+', '-', arm.lower()).strip('-')}-{tag}.json"
    if not file.is_file():
        out = Output()
        with out:
            folder = catalog_of(shop.work, kind, seed, shop.sizes, shop.data)
            found = Bench(folder, kind, seed, base, flags, out).arm(arm)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"kind": kind, "seed": seed, "arm": arm, "set": dict(flags), **found})
        said = found.get("refused") or f"R@1 {mean(hits[0] for hits in found['queries'].values()):.3f}"
        print(f"{kind} {seed}, {arm}: {said}", flush=True)
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("run")
    start.add_argument("work", type=Path)
    start.add_argument("--kinds", default=",".join(DRAWN))
    start.add_argument("--seeds", default="1,2,3,4,5")
    start.add_argument("--arms", default="", help="arms to do, such as 'all; + GRPO'; empty: all")
    start.add_argument("--products", type=int, default=Sizes.products)
    start.add_argument("--listings", type=int, default=Sizes.listings)
    start.add_argument("--data", type=Path, help="folder of the real catalogs")
    start.add_argument("--base", type=Path, help="folder of the base; by default WORK/base, made where it is missing")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "table":
        print_tables(wanted.work)
    else:
        torch.set_num_threads(1)
        run(wanted)


if __name__ == "__main__":
    main()
