"""What is remembered of each product while a large catalog is embedded: little, and nothing else grows."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.features import FeatureStore
from afmrl_cli.retrieval.cache import VectorCache
from afmrl_cli.retrieval.encode import Input, encode_missing
from afmrl_cli.settings import CacheSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from tests import NANO
from tests.retrieval.shop import work_of

FIRST, ALL = 3_000, 9_000


class Hashed:
    """Vectors without a model, and a photo's features for each; how much Python holds after FIRST and after ALL."""

    id, texts_cut = "hashed", 0

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.held = store, dict[int, int]()
        self.done = 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        for item in items:
            content = hashlib.sha256(item.text.encode()).hexdigest()
            self.store.keep(content, (8, 8), 50_000, torch.zeros(1, 2))
        self.store.flush()
        self.done += len(items)
        if self.done in (FIRST, ALL):
            gc.collect()
            self.held[self.done] = tracemalloc.get_traced_memory()[0]
        return np.ones((len(items), 4), np.float32)


def test_half_a_kilobyte_a_product(tmp_path: Path) -> None:
    encoder = Hashed(FeatureStore(tmp_path / "cache", ["tower"], torch.float16, CacheSettings(), Silent()))

    def inputs() -> Iterator[Input]:
        for i in range(ALL):
            yield Input(hashlib.sha256(bytes([i % 256, i // 256])).hexdigest(), Item(f"blouse {i}"), str(i))

    tracemalloc.start()
    try:
        work = work_of(CatalogFolder(tmp_path / "c.csv"), load_settings(None, {"embed.batch_size": 75}, NANO))
        encode_missing(work, inputs(), VectorCache(tmp_path / "vectors"), lambda: encoder, "", Problems())
    finally:
        tracemalloc.stop()
    assert encoder.held[ALL] - encoder.held[FIRST] < 420 * (ALL - FIRST)
