"""How the nano model is trained from nothing, in four stages on two cores.

1. vision: vision tower and merger alone, with a classifier per attribute that pools the picture's tokens.
   Without it the language model learns the answers' average and hardly ever begins to use the picture.
2. answer: the whole model writes the attributes for the real chat prompt.
3. both: answering goes on, and the same weights learn to bring two views of one product together (InfoNCE over the
   last token), so that they serve as embedder without an adapter.
4. phone: the same lessons on a pool of which half of the photos were taken by phone; these are for answers alone, so
   that the embedder has something to learn from a shop with such photos. It begins with new classifiers
   and a schedule of its own, so it can also begin with the weights of a model that has been trained before. In the end
   the weights are 0.85 of what was learnt and 0.15 of what it began with (Wortsman et al. 2022, arXiv:2109.01903): the
   renderer's own photos are read nearly as well as before, and those by phone hardly worse.

Stages 2 and 3 share one cosine schedule.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from .batches import BatchSampler, TrainingBatch, all_values, shake
from .rows import patches_of, read_rows, vision_forward

STAGES = ("vision", "answer", "both", "phone")
PHONE = 3
ANSWER_SHARE = 0.2 / 0.78
"""Stage 2's part of the schedule that it shares with stage 3, in the time of one step."""
TEMPERATURE = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """How long (`steps`: one number per stage) and how large."""

    steps: tuple[int, int, int, int] = (1357, 580, 582, 1000)
    batch_vision: int = 64
    batch_answer: int = 48
    batch_both: int = 40
    batch_phone: int = 24
    pairs_phone: int = 8
    rate_vision: float = 1e-3
    rate: float = 1e-3
    rate_phone: float = 5e-4
    share_phone: float = 0.85
    weight_pairs: float = 0.3
    weight_heads: float = 0.5
    save_every_s: float = 120.0
    evaluate_every_s: float = 300.0
    seed: int = 0


class Heads(nn.Module):
    """One classifier per attribute over a picture's tokens, each with its own attention; thrown away in the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(values) for values in all_values().values()]
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Parameter(torch.zeros(len(self.sizes), width))
        self.say = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)

    def loss(self, seen: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean cross-entropy over the labels that apply, and each key's share of right ones."""
        tokens = self.norm(seen)
        weights = torch.softmax(tokens @ self.ask.T, dim=1)
        pooled = torch.einsum("ntk,ntw->nkw", weights, tokens)
        losses, right = [], []
        for key, say in enumerate(self.say):
            logits, wanted = say(pooled[:, key]), labels[:, key]
            losses.append(functional.cross_entropy(logits, wanted, ignore_index=-1, reduction="sum"))
            applies = wanted >= 0
            right.append((logits.argmax(1) == wanted)[applies].float().mean())
        return torch.stack(losses).sum() / (labels >= 0).sum(), torch.stack(right).detach()


def pair_loss(queries: Tensor, targets: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return symmetric InfoNCE: row i of both belongs together, all other rows are negatives."""
    scores = functional.normalize(queries, dim=-1) @ functional.normalize(targets, dim=-1).T / temperature
    wanted = torch.arange(len(scores))
    return (functional.cross_entropy(scores, wanted) + functional.cross_entropy(scores.T, wanted)) / 2


@dataclass(frozen=True, slots=True)
class Lessons:
    """A pool's photos [n, 112, 112, 3], and the sampler that draws batches from it."""

    sampler: BatchSampler
    photos: NDArray[np.uint8]


class Trainer:
    """The training of one model in one folder; `run` goes on from wherever the folder's checkpoint stands.

    `lessons` are those of the first three stages, `by_phone` those of the last. `first` is the stage to begin with.
    """

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        lessons: Lessons,
        by_phone: Lessons,
        plan: Plan,
        folder: Path,
        evaluate: Callable[[], dict[str, float]] | None = None,
        first: int = 0,
    ) -> None:
        self.model, self.lessons, self.by_phone, self.plan, self.folder = model, lessons, by_phone, plan, folder
        self.evaluate = evaluate
        self.stage, self.step, self.elapsed = first, 0, 0.0
        self.before: dict[str, Tensor] = {}
        self._begin()
        self._resume()

    def run(self, stop_after: int | None = None) -> None:
        """Train to the end of the plan, or for `stop_after` steps of this call."""
        done = 0
        saved = evaluated = started = time.monotonic()
        before = self.elapsed
        sums: dict[str, float] = {}
        count = 0
        while self.stage < len(STAGES):
            if self._progress() >= 1.0:
                self._end_stage()
                continue
            values = self._one_step()
            self.step, done, count = self.step + 1, done + 1, count + 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            now = time.monotonic()
            self.elapsed = before + now - started
            if count == 25:
                self._log({"rate": self._rate(), **{name: total / count for name, total in sums.items()}})
                sums, count = {}, 0
            if now - saved > self.plan.save_every_s:
                self.save()
                saved = now
            if self.evaluate and self.stage > 0 and now - evaluated > self.plan.evaluate_every_s:
                self._log({"event": "evaluated", **self.evaluate()})
                evaluated = time.monotonic()
            if stop_after is not None and done >= stop_after:
                return
        self.save()

    def _end_stage(self) -> None:
        self._log({"event": "stage done"})
        if self.stage == PHONE:
            self._mix()
        self.stage, self.step = self.stage + 1, 0
        if self.stage in (1, PHONE):
            self._begin()
        if self.stage < len(STAGES):
            self.save()

    def save(self) -> None:
        """Write the checkpoint, the old one staying whole until the new one is."""
        part = self.folder / "checkpoint.tmp"
        torch.save(
            {
                "stage": self.stage,
                "step": self.step,
                "elapsed": self.elapsed,
                "model": self.model.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "before": self.before,
            },
            part,
        )
        part.replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.stage, self.step, self.elapsed = state["stage"], state["step"], state["elapsed"]
        self.model.load_state_dict(state["model"])
        self._begin()
        self.before = state["before"]
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _begin(self) -> None:
        """Make the optimizer of a schedule that begins, and where no others are at work, new classifiers; remember the
        weights that the last stage begins with.
        """
        if self.stage == PHONE:
            self.before = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.stage != 1:
            torch.manual_seed(self.plan.seed + 1)
            self.heads = Heads(self.model.config.text_config.hidden_size)
        self.optimizer = self._optimizer()

    def _mix(self) -> None:
        """Mix what the last stage learnt with what it began with."""
        learnt, share = self.model.state_dict(), self.plan.share_phone
        self.model.load_state_dict({name: learnt[name].lerp(self.before[name], 1 - share) for name in learnt})

    def _optimizer(self) -> torch.optim.Optimizer:
        """Stage 1 trains the tower, later stages everything, the tower more gently; no decay on vectors."""
        tower = dict(self.model.model.visual.named_parameters())
        new = 5.0 if self.stage == PHONE else 1.0  # they have everything to learn, the model little
        groups = [(list(tower.values()), 1.0 if self.stage == 0 else 0.6), (list(self.heads.parameters()), new)]
        if self.stage > 0:
            groups.append((list(self.model.model.language_model.parameters()), 1.0))
        settings = []
        for parameters, factor in groups:
            for matrices in (True, False):
                chosen = [p for p in parameters if (p.ndim > 1) == matrices]
                if chosen:
                    settings.append({"params": chosen, "weight_decay": 0.05 if matrices else 0.0, "factor": factor})
        return torch.optim.AdamW(settings, lr=1e-3, betas=(0.9, 0.98), fused=True)

    def _progress(self) -> float:
        """Return how far the present stage is, 0 to 1."""
        return self.step / max(1, self.plan.steps[self.stage])

    def _rate(self) -> float:
        progress = min(1.0, self._progress())
        if self.stage == 0:
            return self.plan.rate_vision * min(1.0, (self.step + 1) / 100) * (0.05 + 0.95 * _cosine(progress))
        if self.stage == PHONE:
            return self.plan.rate_phone * min(1.0, (self.step + 1) / 30) * (0.01 + 0.99 * _cosine(progress))
        first, second = ANSWER_SHARE, 1 - ANSWER_SHARE
        whole = progress * first if self.stage == 1 else first + progress * second
        warm = min(1.0, (self.step + 1) / 150) if self.stage == 1 else 1.0
        return self.plan.rate * warm * (0.01 + 0.99 * _cosine(whole))

    def _batch(self) -> TrainingBatch:
        if self.stage == 0:
            return self.lessons.sampler.vision_batch(self.step, self.plan.batch_vision)
        if self.stage == 1:
            return self.lessons.sampler.batch(self.step, self.plan.batch_answer, pairs=0)
        if self.stage == PHONE:
            return self.by_phone.sampler.batch(2_000_000 + self.step, self.plan.batch_phone, self.plan.pairs_phone)
        return self.lessons.sampler.batch(1_000_000 + self.step, self.plan.batch_both, self.plan.batch_both)

    def _one_step(self) -> dict[str, float]:
        self.model.train()
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        batch = self._batch()
        pool = (self.by_phone if self.stage == PHONE else self.lessons).photos
        photos = shake(pool[batch.photos], self.plan.seed, 10_000_000 * self.stage + self.step)
        seen = vision_forward(self.model.model.visual, patches_of(photos))
        heads_loss, right = self.heads.loss(seen, torch.from_numpy(batch.labels))
        values = {"heads": float(heads_loss.detach())}
        if self.stage == 0:
            loss = heads_loss
            for key, share in zip(all_values(), right.tolist(), strict=True):
                values[key] = share
        else:
            rows = batch.answers + batch.queries + batch.targets
            last, predicting, wanted = read_rows(self.model, rows, seen)
            logits = predicting @ self.model.model.language_model.embed_tokens.weight.T
            answer_loss = functional.cross_entropy(logits, wanted)
            values |= {
                "answer": float(answer_loss.detach()),
                "tokens right": float((logits.argmax(1) == wanted).float().mean()),
            }
            loss = answer_loss + self.plan.weight_heads * heads_loss
            if batch.queries:
                at = len(batch.answers)
                count = len(batch.queries)
                pairs = pair_loss(last[at : at + count], last[at + count :])
                values["pairs"] = float(pairs.detach())
                loss = loss + self.plan.weight_pairs * pairs
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        return values

    def _log(self, values: dict[str, float | str]) -> None:
        head = {"stage": STAGES[self.stage], "step": self.step, "minutes": round(self.elapsed / 60, 2)}
        shown = {name: round(v, 5) if isinstance(v, float) else v for name, v in values.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**head, **shown}) + "\n")


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2
