"""A rendered shop of 14 products, each listed twice, and settings for a cycle of seconds on it."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

from afmrl_cli.cycle.run import CycleSummary, run_cycle
from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO


def rendered(root: Path, products: int = 14) -> CatalogFolder:
    plan = ShopPlan(products, 3, duplicates=1.0, leave_out=0.9, phone=True, text_queries=2, photo_queries=2, size=56)
    write_shop(root, plan)
    return CatalogFolder(root / "catalog.csv")


def cycle_settings(**changes: object) -> Settings:
    """Nano, one round of a few steps, small answers."""
    flags: dict[str, object] = {
        "model.preset": "nano",
        "model.device": "cpu",
        "model.precision": "fp32",
        "model.generator_images": 1,
        "model.embedder_images": 1,
        "split.validation": 0.25,
        "split.test": 0.3,
        "attributes.max_new_tokens": 40,
        "eval.resamples": 100,
        "agcl.batch_size": 4,
        "agcl.steps": 2,
        "agcl.validate_every": 2,
        "agcl.save_every": 1,
        "sft.steps": 2,
        "sft.batch_size": 4,
        "sft.chunk_size": 4,
        "sft.validate_every": 2,
        "sft.save_every": 1,
        "sft.validation_products": 4,
        "rar.steps": 2,
        "rar.least_spread": 0,
        "rar.k": 3,
        "rar.prompts": 2,
        "rar.group": 2,
        "rar.margin": 1.0,
        "rar.validate_every": 2,
        "rar.validation_queries": 4,
        "rar.save_every": 1,
        "cycle.folds": "no",
        "cycle.share": 0.5,
        "cycle.infonce": True,
        "cycle.keep_worse": True,
    }
    return load_settings(None, flags | changes, NANO)


def run(folder: CatalogFolder, listener: Silent | None = None, /, **changes: Any) -> CycleSummary:
    return run_cycle(Workspace(folder, cycle_settings(**changes), listener or Silent()))


class Heard(Silent):
    """What was said, and at the beginning of each stage how many models were alive that were not before."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.alive: dict[str, int] = {}
        self._before = live_models()

    def note(self, message: str) -> None:
        self.said.append(message)
        if message.startswith("== "):
            self.alive[message] = len(live_models() - self._before)

    def warn(self, message: str) -> None:
        self.said.append(f"warning: {message}")

    @property
    def done(self) -> list[str]:
        """The stages that were done."""
        return [line.removeprefix("== ") for line in self.said if line.startswith("== ")]


def live_models() -> set[int]:
    """Models and trainers in memory, by their place in it."""
    from transformers import PreTrainedModel, Trainer

    return {id(each) for each in gc.get_objects() if issubclass(type(each), (PreTrainedModel, Trainer))}


def copied(folder: CatalogFolder, place: Path) -> CatalogFolder:
    shutil.copytree(folder.root, place)
    return CatalogFolder(place / "catalog.csv")


def metrics(summary: CycleSummary) -> list[dict[str, Any]]:
    """The leaderboard, but for where its scores are stored."""
    found = json.loads(json.dumps(summary.content["leaderboard"]))
    for stage in found:
        for split in ("validation", "test"):
            if stage[split]:
                del stage[split]["score"]
    return list(found)
