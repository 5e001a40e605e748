"""A small model with a tower to train, photos, and answers about pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afmrl_cli.catalog.pictures import Picture
from afmrl_cli.models.generator import load_generator
from afmrl_cli.saga.adjudicator import Adjudication, judging, pair_question
from afmrl_cli.saga.metric import make_metric
from afmrl_cli.saga.model import Saga
from afmrl_cli.saga.pooler import Pooler
from afmrl_cli.saga.replay import Group, Photos
from afmrl_cli.saga.rollouts import JudgedPair
from afmrl_cli.saga.step import Batch
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.training.adapter import add_trainable
from tests.tiny import photo

LABELS = (0, 0, 1, 1, 2, 2)


@dataclass
class Small:
    """A `Saga` on a small model, whose tower's adapter does something, and a batch of six photos of three classes."""

    saga: Saga
    tower: Any
    batch: Batch

    @property
    def module(self) -> torch.nn.ModuleList:
        """Return all that is trained."""
        return torch.nn.ModuleList([self.tower, self.saga.pooler, self.saga.metric])

    def photos(self) -> Photos:
        """Return what the tower makes of the batch, with its gradient."""
        rows = self.saga.features(self.saga.judge.vision.show(self.batch.pictures))
        return Photos(rows, self.grids)

    @property
    def grids(self) -> torch.Tensor:
        """Return the photos' grids."""
        return torch.tensor([(1, *picture.grid) for picture in self.batch.pictures])

    def gradients(self) -> dict[str, torch.Tensor]:
        """Return the gradients that are there, and forget them."""
        found = {n: p.grad.clone() for n, p in self.module.named_parameters() if p.grad is not None}
        self.module.zero_grad(set_to_none=True)
        return found

    def asked(self, pair: tuple[int, int], rewards: Sequence[float], length: int = 12) -> JudgedPair:
        """Return a pair with answers of random tokens, of which a few are values of either photo."""
        tokenizer = self.saga.judge.processor.tokenizer
        plain = [i for i in range(len(tokenizer)) if i not in set(tokenizer.all_special_ids)][:200]
        torch.manual_seed(sum(pair))
        answers = [
            [plain[i] for i in torch.randint(len(plain), (length - n % 3,)).tolist()] for n in range(len(rewards))
        ]
        prompt = self.saga.prompts(Photos([], self.grids), [pair])
        ids = prompt["input_ids"][0][prompt["attention_mask"][0].bool()].tolist()
        texts = tokenizer.batch_decode(answers)
        read = [Adjudication(True, ((0, 2),), ((3, 6),)) for _ in answers]
        return JudgedPair((*pair, True), Group(pair, ids, answers), texts, read, rewards)


def make_small(model: Path, folder: Path, **changes: object) -> Small:
    """Make it of the model in `model`; photos lie in `folder`."""
    own = {"group": 4, "pairs": 2, "max_new_tokens": 16, "batch_size": 6, "chunk_photos": 8, "chunk_answers": 8}
    vision = {f"vision.{key}": value for key, value in {**own, **changes}.items()}
    base = {"model.generator": str(model), "model.device": "cpu", "model.precision": "fp32"}
    settings = load_settings(None, {**base, **vision}, {})
    judge = load_generator(settings.model, judging(settings), Checkpoints(folder / "none"))
    tower = add_trainable(
        judge, settings.vision, None, Checkpoints(folder / "none"), targets=judge.loaded.base.family.tower_targets
    )
    torch.manual_seed(1)
    for name, parameter in tower.named_parameters():
        if "lora_B" in name:  # which is 0 at first, so that A would have no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    tower.eval()
    width = int(judge.loaded.causal.config.get_text_config().hidden_size)
    question = pair_question({"colour": (), "cut": ()}, ("yes", "no"), "schema")
    metric = make_metric("proxy-anchor", 3, width, 0)
    saga = Saga(judge, Pooler(width, width, "attention"), metric, question, ("yes", "no"), settings.vision)
    pictures: list[Picture] = []
    for i in range(len(LABELS)):
        photo(i, 56 + 28 * (i % 2)).save(folder / f"{i}.png")
        pictures.append(judge.load_image(folder / f"{i}.png", settings.catalog))
    return Small(saga, tower, Batch(pictures, LABELS, [str(i) for i in range(len(LABELS))]))


MakeSmall = Callable[..., Small]
