"""Stored files are damaged at random: a command says so, or makes again what is lost; its result is never another one.

    OMP_NUM_THREADS=1 python -m benchmarks.corruptions [--number 200] [--seed 0]

A small shop is described by an endpoint of our own, embedded by nano, searched for duplicates, and gets a checkpoint
and the state of a training. Then, NUMBER times, its store is copied, one file of it is damaged (bits flipped, cut off,
emptied, zeroed, replaced by other bytes or other JSON), and the commands that read that kind of file are run. Right is:
the same result as before, or an exit code from 2 to 4 with a message and no traceback. Exit 1 when anything else came.
What people read and no command computes from (reports, cards, metrics in manifests) has no checksum: for those only the
absence of tracebacks is asked.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.attributes.shop import answer
from tests.chat_server import ChatServer, chat_server
from tests.retrieval.shop import shop_rows, write_shop
from tests.store.test_strict import parcel
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.errors import AfmrlError
from afmrl_cli.listener import Silent
from afmrl_cli.models.features import FeatureStore
from afmrl_cli.retrieval.cache import VectorCache
from afmrl_cli.settings import CacheSettings
from afmrl_cli.store.checkpoints import WEIGHTS, Checkpoints
from afmrl_cli.store.files import hash_file
from afmrl_cli.training.state import find_states, load_state, save_state

JSON = (
    "[]",
    "{}",
    "null",
    "3",
    '"x"',
    "[1]",
    "[" * 5000,
    '{"a":' * 500 + "1" + "}" * 500,
    '{"schema": 1, "count": "x"}',
)
KEYS = [f"key-{i}" for i in range(6)]
CACHE, RUN = "embeddings/cache-of-eval", "runs/train-test"
TOWER: list[object] = ["tower"]


@dataclass(frozen=True)
class Shop:
    """A shop whose store is complete, and what its commands say of it."""

    root: Path
    server: ChatServer
    wanted: dict[str, Any]

    @property
    def store(self) -> Path:
        return self.root / ".afmrl"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def layer() -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    """A small training at its beginning."""
    torch.manual_seed(1)
    parameter = torch.nn.Parameter(torch.randn(4, 3))
    return {"layer": parameter}, torch.optim.AdamW([parameter], lr=0.1)


def feature_store(store: Path) -> FeatureStore:
    return FeatureStore(store / "cache", TOWER, torch.float16, CacheSettings(), Silent())


def make(root: Path, server: ChatServer) -> Shop:
    """The shop with all kinds of stored files."""
    folder = write_shop(root, shop_rows(12))
    for words in (describe(root, server), ("embed", root), ("dedupe", root)):
        done = run(*words)
        assert done.exit_code == 0, done.output
    rng = np.random.default_rng(0)
    VectorCache(folder.store / CACHE).add(KEYS, rng.standard_normal((6, 8)).astype(np.float32))
    kept = feature_store(folder.store)
    for i, key in enumerate(KEYS):
        kept.keep(key, (2, 2), 99, torch.full((4, 16), float(i)).half())
    kept.flush()
    parameters, optimizer = layer()
    parameters["layer"].sum().backward()
    optimizer.step()
    (folder.store / RUN).mkdir(parents=True)
    save_state(folder.store / RUN, 3, parameters, optimizer, {"progress": {"best": 0.25}}, {"more.json": "{}"})
    parcel(folder.checkpoints / "embedder-1")
    Checkpoints(folder.checkpoints).set_best("embedder-1")
    shop = Shop(root, server, {})
    for name, question in QUESTIONS.items():
        shop.wanted[name] = question(shop)
    return shop


def describe(root: Path, server: ChatServer) -> tuple[object, ...]:
    flags = ("--endpoint", server.url, "--model", "m", "--set", "attributes.retries=0", "--quiet")
    return ("attributes", root, *flags, "--out", root.parent / "attributes.csv")


def of_command(done: Result) -> Any:
    """What a command gives on standard output; an AfmrlError when it says what is wrong, else what it raised."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if "Traceback" in done.output:
        raise AssertionError(done.output)
    if done.exit_code:
        assert done.exit_code in (2, 3, 4) and done.stderr.strip(), (done.exit_code, done.output)
        raise AfmrlError(done.stderr)
    return json.loads(done.stdout) if done.stdout.startswith("{") else None


def attributes(shop: Shop) -> Any:
    of_command(run(*describe(shop.root, shop.server)))
    return (shop.root.parent / "attributes.csv").read_text()


def search(shop: Shop) -> Any:
    found = of_command(run("search", "--catalog", shop.root, "--like", "s3", "--json"))
    return [(hit["id"], hit["title"], round(hit["score"], 4)) for hit in found["hits"]]


def dedupe(shop: Shop) -> Any:
    found = of_command(run("dedupe", shop.root, "--json"))
    return [(pair["id"], pair["other_id"], pair["score"]) for pair in found["pairs"]]


def cached(shop: Shop) -> Any:
    cache = VectorCache(shop.store / CACHE)
    return {key: cache.get(key).tolist() if key in cache else None for key in KEYS}


def pictures(shop: Shop) -> Any:
    kept = feature_store(shop.store)
    found = {key: kept.read(key) if kept.find(key) else None for key in KEYS}
    return {key: None if rows is None else rows.tolist() for key, rows in found.items()}


def trained(shop: Shop) -> Any:
    parameters, optimizer = layer()
    states = find_states(shop.store / RUN)
    counters = load_state(states[-1], parameters, optimizer)
    return counters["progress"], parameters["layer"].tolist(), optimizer.state[parameters["layer"]]["exp_avg"].tolist()


def checkpoint(shop: Shop) -> Any:
    store = Checkpoints(shop.store / "checkpoints")
    found = store.find("embedder:best")
    return found.name, found.base_revision, hash_file(store.path(found.name) / WEIGHTS)


def listed(shop: Shop) -> Any:
    of_command(run("checkpoints", "list", "--catalog", shop.root, "--json"))
    return None


def locked(shop: Shop) -> Any:
    return of_command(run("embed", shop.root, "--quiet"))


QUESTIONS: dict[str, Callable[[Shop], Any]] = {
    "attributes": attributes,
    "search": search,
    "dedupe": dedupe,
    "cached": cached,
    "pictures": pictures,
    "trained": trained,
    "checkpoint": checkpoint,
    "listed": listed,
    "locked": locked,
}
ASKED_OF = {
    "afmrl.sqlite": ("attributes",),
    f"{CACHE}/": ("cached",),
    "embeddings/": ("search", "dedupe"),
    "cache/vision/": ("pictures",),
    "cache/": ("dedupe",),
    f"{RUN}/": ("trained",),
    "checkpoints/": ("checkpoint", "listed"),
    "runs/": ("dedupe",),
    "": ("locked",),
}
"""Which questions are asked when a file is damaged, by the beginning of its path in the store."""
MADE_AGAIN = ("cached", "pictures")
"""Of these a part may be missing: it is computed again."""


def damage(file: Path, rng: random.Random) -> str:
    """Damage `file`; how."""
    content = bytearray(file.read_bytes())
    ways = ["flip", "flip", "flip", "cut", "empty", "zeros", "noise", "more"] + ["json"] * (file.suffix == ".json")
    way = rng.choice(ways if content else ["more"])
    at = rng.randrange(len(content)) if content else 0
    if way == "flip":
        for _ in range(rng.choice((1, 1, 1, 3, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif way == "cut":
        del content[at:]
    elif way == "empty":
        content.clear()
    elif way in ("zeros", "noise"):
        size = min(len(content) - at, rng.choice((1, 16, 512)))
        content[at : at + size] = bytes(size) if way == "zeros" else rng.randbytes(size)
    elif way == "more":
        content += rng.randbytes(rng.choice((1, 100)))
    else:
        content = bytearray(rng.choice(JSON).encode())
    file.write_bytes(content)
    return way


def ask(shop: Shop, name: str) -> str:
    """What comes of a question: "equal", "told" or "made again"; anything else is wrong."""
    try:
        answered = QUESTIONS[name](shop)
    except AfmrlError:
        return "told"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    wanted = shop.wanted[name]
    if answered == wanted:
        return "equal"
    if name in MADE_AGAIN and all(answered[key] in (None, wanted[key]) for key in wanted):
        return "made again"
    return f"another result: {str(answered)[:300]}"


def damaged(shop: Shop, number: int, seed: int, work: Path) -> Counter[str]:
    """Damage `number` files, each in a copy of the shop; what came of it, wrong answers with all that led there."""
    rng, counts = random.Random(seed), Counter[str]()
    files = sorted(path for path in shop.store.rglob("*") if path.is_file())
    kinds = sorted({prefix_of(path, shop) for path in files})
    for i in range(number):
        kind = kinds[i % len(kinds)]  # a kind with many files counts as much as one with few
        file = rng.choice([path for path in files if prefix_of(path, shop) == kind])
        copy = Shop(work / "copy" / "shop", shop.server, shop.wanted)
        shutil.rmtree(work / "copy", ignore_errors=True)
        shutil.copytree(shop.root, copy.root)
        place = copy.store / file.relative_to(shop.store)
        way = damage(place, rng)
        for name in ASKED_OF[kind]:
            came = ask(copy, name)
            counts[came if came in ("equal", "told", "made again") else f"{i} {place.name} {way} {name}: {came}"] += 1
    return counts


def prefix_of(file: Path, shop: Shop) -> str:
    name = file.relative_to(shop.store).as_posix()
    return next(prefix for prefix in ASKED_OF if name.startswith(prefix))


def wrong(counts: Counter[str]) -> list[str]:
    return [came for came in counts if came not in ("equal", "told", "made again")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, chat_server() as server:
        server.script = answer
        shop = make(Path(work) / "whole" / "shop", server)
        counts = damaged(shop, given.number, given.seed, Path(work))
    for line in wrong(counts):
        print(line)
    right = ", ".join(f"{counts[way]} {way}" for way in ("equal", "told", "made again"))
    print(f"{given.number} files damaged, {sum(counts.values())} questions: {right}, {len(wrong(counts))} wrong")
    sys.exit(1 if wrong(counts) else 0)


if __name__ == "__main__":
    main()
