"""A generator to train on a small shop: the nano model with a slight adapter, rewarded by itself with another one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, Cache, load_base
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.families import LORA_TARGETS
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.presets import resolve_adapter, resolve_base
from afmrl_cli.rar.environment import make_environments
from afmrl_cli.rar.plan import Plan, make_plan
from afmrl_cli.rar.policy import Policy
from afmrl_cli.rar.room import Room
from afmrl_cli.rar.run import RAR
from afmrl_cli.rar.trainer import RarTrainer
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints, Manifest, Role
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import add_trainable
from afmrl_cli.training.parallel import World
from afmrl_cli.training.shell import TrainingSummary, run_alone
from afmrl_cli.workspace import Workspace
from tests import NANO

FLAGS: dict[str, object] = {
    "model.device": "cpu",
    "model.precision": "fp32",
    "split.validation": 0.3,
    "split.test": 0.0,
    "attributes.max_new_tokens": 24,
    "rar.query": "text-to-photos",
    "rar.reward": "rank",
    "rar.k": 3,
    "rar.queries": 10,
    "rar.group": 4,
    "rar.prompts": 2,
    "rar.steps": 3,
    "rar.least_spread": 0,
    "rar.temperature": 1.5,
    "rar.learning_rate": 0.001,
    "rar.validation_queries": 6,
    "rar.validate_every": 3,
    "rar.save_every": 1,
}


def rar_settings(**changes: object) -> Settings:
    """Nano for both roles, a reward that is hardly ever flat, two queries with four short answers a step."""
    return load_settings(None, FLAGS | changes, NANO)


def add_slight(folder: CatalogFolder, settings: Settings, name: str, role: Role, size: float = 0.02) -> Manifest:
    """Store an adapter with small random weights: it changes numbers, but hardly what is written."""
    base, checkpoints = resolve_base(settings.model, role), Checkpoints(folder.checkpoints)
    torch.manual_seed(len(name))
    config = LoraConfig(
        r=8,
        lora_alpha=8,
        target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    model = get_peft_model(load_base(base, "fp32", "cpu"), config)
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(size)
        model.save_pretrained(place, save_embedding_layers=False)
        return checkpoints.add(Path(place), Manifest(role, base.name, base.revision, name))


ANY_ROOM = Room(
    groups=1,
    answers=4,
    valid_share=1.0,
    plain={},
    mean={},
    best={},
    own={},
    own_queries=0,
    spread_by_k={"3": 1.0},
    spread_by_rank=1.0,
    spread_by_difficulty={},
    k=3,
    reward="rank",
    least=0.2,
)
"""What was measured, where a test measures nothing."""


def train(work: Workspace, **options: bool) -> TrainingSummary:
    """A whole run of `train-rar` in this process."""
    return run_alone(RAR, work, **options)


@dataclass
class Rig:
    plan: Plan
    policy: Policy
    trainer: RarTrainer
    kept: list[Path]

    @property
    def peft(self) -> Any:
        return self.policy.generator.loaded.peft


def make_rig(
    folder: CatalogFolder, settings: Settings, run: Path, cache: Path | None = None, world: World | None = None
) -> Rig:
    """All that `train_rar` makes before it trains; without `cache`, photos are looked at anew."""
    checkpoints = Checkpoints(folder.checkpoints)
    bases = Bases(Cache(cache, settings.cache, Silent()) if cache else None)
    base = resolve_base(settings.model, "generator")
    parent = resolve_adapter(settings.model, "generator", base, checkpoints)
    bare = settings.model.model_copy(update={"generator_checkpoint": ""})
    policy = Policy(load_generator(bare, settings.attributes, checkpoints, bases=bases))
    add_trainable(policy.generator, settings.rar, parent, checkpoints, "CAUSAL_LM")
    embedder = load_embedder(settings.model, settings.embed, checkpoints, bases=bases, catalog=settings.catalog)
    environments = make_environments(Workspace(folder, settings, Silent()), embedder, run / "gallery", Problems())
    plan = make_plan(environments, ANY_ROOM, base, parent, policy.generator.id, world=world)
    kept: list[Path] = []
    rig = Rig(plan, policy, RarTrainer(plan, policy, run, kept.append, Silent()), kept)
    rig.peft.train()  # as transformers does before the first step
    return rig
