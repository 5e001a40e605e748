"""A cycle that is killed again and again ends as the unbroken one does.

    OMP_NUM_THREADS=1 python -m benchmarks.cycle_kills WORK --kills 30

Renders the shop and takes the settings of tests/cycle (14 products listed twice, nano, one round with InfoNCE, SFT,
AGCL and RAR), runs the cycle once unbroken, and then kills it with SIGKILL at random moments: the same command goes on,
until it ends or is killed again; when it has ended it begins anew in a fresh shop, until there were enough kills. After
each end leaderboard, checkpoints (names, weights, metrics), stored attributes, vectors, features of photos and files in
the store must equal the unbroken run's, and nothing half-written may lie about. Exit 1 when anything differs.

Each run is a process of its own (forked before torch has computed anything, so that it need not import it again).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tests.cycle.shop import cycle_settings, rendered

from afmrl_cli.cycle.report import find_cycle
from afmrl_cli.cycle.run import run_cycle
from afmrl_cli.listener import Silent
from afmrl_cli.models.features import TABLE, TENSOR
from afmrl_cli.retrieval.vectors import CURRENT, VECTORS
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import TEMPORARY_PREFIX, hash_file
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

LOG = "log"
LONGEST = 0.25
"""Of the unbroken run's time: the longest that a run is left alone before it is killed."""


class Stages(Silent):
    """Writes the stages' names into a file as they begin."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def note(self, message: str) -> None:
        if message.startswith("== "):
            with self.log.open("a") as file:
                file.write(message.removeprefix("== ") + "\n")


def begin(folder: CatalogFolder, log: Path) -> int:
    """Start the cycle in a process of its own; its number."""
    log.write_text("")
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run_cycle(Workspace(folder, cycle_settings(), Stages(log)))
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int, within: float) -> bool:
    """Whether it ended by itself within so many seconds; RuntimeError when it failed."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            if status:
                raise RuntimeError(f"the cycle failed: {status}")
            return True
        time.sleep(0.002)
    return False


def state(folder: CatalogFolder) -> dict[str, Any]:
    """All that has to be equal."""
    content = json.loads((find_cycle(folder) / "cycle.json").read_text())
    store = Checkpoints(folder.checkpoints)
    files = {path.relative_to(folder.store).as_posix() for path in folder.store.rglob("*")}
    # Caches are divided into files as they were made, and versions of vectors are counted: compared by content.
    by_content = ("embeddings/", "cache/vision/")
    return {
        "leaderboard": content["leaderboard"],
        "lineage": content["lineage"],
        "checkpoints": {each.name: each.files["adapter_model.safetensors"] for each in store.list()},
        "metrics": {each.name: each.metrics for each in store.list()},
        "attributes": attributes(folder.database),
        "vectors": vectors(folder.embeddings),
        "pictures": pictures(folder.cache / "vision"),
        "files": sorted(file for file in files if not file.startswith(by_content)),
        "stray": sorted(file for file in files if TEMPORARY_PREFIX in file or "/state-" in file),
    }


def attributes(database: Path) -> list[tuple[Any, ...]]:
    """Every stored text with all that it is stored under."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        columns = "fingerprint, generator, prompt, listing, text, failure, viewed"
        return sorted(connection.execute(f"SELECT {columns} FROM attributes"), key=repr)


def vectors(embeddings: Path) -> dict[str, str]:
    """The hash of the vectors that count, by embedder."""
    return {
        current.parent.name: hash_file(current.parent / current.read_text().strip() / VECTORS)
        for current in embeddings.glob(f"*/{CURRENT}")
    }


def pictures(cache: Path) -> dict[str, str]:
    """The hash of each photo's features, by tower and photo, whichever file they lie in."""
    found = {}
    for file in cache.rglob("*.safetensors"):
        with safe_open(file, "pt") as shard:
            features, first = shard.get_tensor(TENSOR), 0
            for content, rows, *_ in json.loads(shard.metadata()[TABLE]):
                raw = features[first : first + rows].contiguous().view(torch.uint8).numpy()
                found[f"{file.parent.name}/{content}"] = hashlib.sha256(raw.tobytes()).hexdigest()
                first += rows
    return found


def fresh(work: Path, number: int) -> CatalogFolder:
    place = work / f"broken-{number}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(work / "whole", place, ignore=shutil.ignore_patterns(".afmrl"))
    return CatalogFolder(place / "catalog.csv")


def differences(ours: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = [key for key in wanted if ours[key] != wanted[key]]
    return [*found, "half-written files"] if ours["stray"] and "stray" not in found else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work: Path = given.work
    shutil.rmtree(work / "whole", ignore_errors=True)
    whole, log = rendered(work / "whole"), work / LOG
    began = time.monotonic()
    ended(begin(whole, log), float("inf"))
    seconds = time.monotonic() - began
    wanted = state(whole)
    if wanted["stray"]:
        sys.exit(f"the unbroken run leaves {wanted['stray']}")
    print(f"unbroken: {seconds:.1f} s, {len(wanted['leaderboard'])} stages", flush=True)
    rng, struck, wrong, ends = random.Random(given.seed), Counter[str](), 0, 0
    began, kills = time.monotonic(), 0
    folder = fresh(work, ends)
    while True:
        child = begin(folder, log)
        alone = rng.uniform(0, LONGEST * seconds) if kills < given.kills else float("inf")
        if not ended(child, alone):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            struck[(log.read_text().splitlines() or ["between stages"])[-1]] += 1
            continue
        apart = differences(state(folder), wanted)
        told = f"DIFFERS in {', '.join(apart)}" if apart else "equal"
        print(f"ended after {kills} kills in all: {told}", flush=True)
        wrong, ends = wrong + bool(apart), ends + 1
        if kills >= given.kills:
            break
        folder = fresh(work, ends)
    print(f"{kills} kills, {ends} ends, {wrong} of them differ; {time.monotonic() - began:.0f} s")
    print("struck in: " + ", ".join(f"{name} {count}" for name, count in sorted(struck.items())))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
