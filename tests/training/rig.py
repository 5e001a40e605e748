"""A tiny model with an adapter and one batch, for tests of steps, and one of several processes that do one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from afmrl_cli.attributes.views import AttributeSource
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, Cache
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import add_trainable, trainable
from afmrl_cli.training.corpus import load_corpus
from afmrl_cli.training.loss import choose_loss
from afmrl_cli.training.parallel import World, join_world, leave_world, sum_gradients
from afmrl_cli.training.plan import Plan, make_plan
from afmrl_cli.training.step import Batch, Reader, accumulate, make_batch
from afmrl_cli.workspace import Workspace


@dataclass
class Rig:
    plan: Plan
    reader: Reader
    parameters: dict[str, torch.nn.Parameter]
    batch: Batch

    def gradients(self, settings: Settings, world: World) -> tuple[float, dict[str, torch.Tensor]]:
        """(loss, gradients) of one step with a fixed random state."""
        for parameter in self.parameters.values():
            parameter.grad = None
        torch.manual_seed(11)
        loss, _ = accumulate(self.reader, self.batch, choose_loss(settings.agcl), settings.agcl.chunk_tokens, world)
        sum_gradients(self.parameters.values(), world)
        found = {name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None}
        return loss.value.item(), found


def make_plan_for(folder: CatalogFolder, settings: Settings, generator: str = "", task: str = "") -> Plan:
    source = AttributeSource(generator, task, settings.model.generator_images) if generator else None
    corpus = load_corpus(Workspace(folder, settings, Silent()), source, Problems())
    return make_plan(corpus, settings, resolve_base(settings.model, "embedder"))


def make_rig(folder: CatalogFolder, settings: Settings, cache: Cache | None = None) -> Rig:
    plan, checkpoints = make_plan_for(folder, settings), Checkpoints(folder.checkpoints)
    bases = Bases(cache)
    embedder = load_embedder(settings.model, settings.embed, checkpoints, bases=bases, catalog=settings.catalog)
    model = add_trainable(embedder, settings.agcl, None, checkpoints).train()
    parameters = trainable(model)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:  # 0 at first, which would leave the other half without a gradient
                parameter.copy_(0.1 * torch.randn_like(parameter))
    pairs = next(plan.from_step(0, 0))[2]
    batch = make_batch(pairs, plan.lexical, plan.corpus.train)
    return Rig(plan, Reader(embedder, settings), parameters, batch)


def save_gradients(folder: CatalogFolder, settings: Settings, out: Path, place: dict[str, str]) -> None:
    """Loss and gradients of one of several processes; `place` are the variables that torchrun would set."""
    os.environ |= place
    world = join_world()
    loss, gradients = make_rig(folder, settings).gradients(settings, world)
    save_file(gradients | {"loss": torch.tensor(loss)}, f"{out}-{world.rank}.safetensors")
    leave_world(world)
