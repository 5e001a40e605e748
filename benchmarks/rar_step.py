"""The time of a RAR step by its parts, against stock GRPOTrainer whose reward encodes every answer in full.

    python -m benchmarks.rar_step WORK [--model wide] [--rounds 5] [--prompts 2] [--pixels 448] [--threads 1]

Both sides stand in one process and do their steps in turn, on the same queries from equal adapters: G = 8 answers of at
most 32 tokens to a prompt with a photo, KL on, fp32 on the CPU. The first round is left out; of the rest the median is
printed, by processor time (which a busy machine hardly changes) and by the clock, and the median of the rounds' ratios.

`nano` is the built-in model (192 wide, 4 layers); `wide` a Qwen2-VL of 384 and 6 layers with random weights behind
nano's tokenizer. What random weights write is no attribute text: both sides then reward, in place of it, real ones of
about 32 tokens. The stock trainer gets prompts and photos as its documentation says (opened once, beforehand), a
reward of `Embedder.encode` on all answers, and as many answers at a time as ours.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import BUILT_IN

from .figures import record

GROUP, ANSWER = 8, 32
NOTHING: Mapping[str, object] = {}
PARTS = ("step", "rollout", "reward", "reference", "update")
WIDE = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 6, "num_attention_heads": 6}
TEXTS = [
    f"colour: {colour}; neckline: {neck}; sleeves: long; pattern: plain; closure: {end}; fit: regular"
    for colour in ("red", "navy", "green")
    for neck in ("v-neck", "round", "boat")
    for end in ("zip", "none")
]


def settings_of(model: str, prompts: int, pixels: int) -> dict[str, object]:
    return {
        "model.device": "cpu",
        "model.precision": "fp32",
        "model.generator": model,
        "model.embedder": model,
        "model.max_pixels": pixels**2,
        "model.generator_images": 1,
        "model.embedder_images": 1,
        "attributes.max_new_tokens": ANSWER,
        "split.validation": 0.2,
        "split.test": 0.0,
        "rar.query": "listings",
        "rar.from_base": True,
        "rar.prompts": prompts,
        "rar.group": GROUP,
        "rar.chunk_answers": GROUP,
        "rar.k": 5,
        "rar.validation_queries": 5,
        "rar.learning_rate": 1e-5,
        "rar.rollout_answers": 1024,
        "rar.activation_checkpointing": False,
    }


@dataclass
class Clock:
    """Seconds (of the processor, of the clock) by part."""

    spent: dict[str, list[float]] = field(default_factory=lambda: {part: [0.0, 0.0] for part in PARTS})

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        wait()
        begin = time.process_time(), time.perf_counter()
        yield
        wait()
        self.spent[part][0] += time.process_time() - begin[0]
        self.spent[part][1] += time.perf_counter() - begin[1]

    def time(self, owner: Any, name: str, part: str) -> None:
        """Count what `owner.name` takes."""
        call = getattr(owner, name)

        def timed(*positional: Any, **named: Any) -> Any:
            with self.running(part):
                return call(*positional, **named)

        setattr(owner, name, timed)

    def taken(self) -> dict[str, list[float]]:
        """Since the last time it was asked."""
        found, self.spent = self.spent, Clock().spent
        return found


def wait() -> None:
    """Until the GPU, where there is one, has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class Side:
    trainer: Any
    rows: Callable[[int], list[dict[str, Any]]]
    """The rows of a step, as its dataset would give them."""
    clock: Clock

    def step(self, number: int) -> dict[str, list[float]]:
        """An optimiser's step, as transformers' loop makes it."""
        trainer, parts = self.trainer, self.trainer.args.gradient_accumulation_steps
        trainer.current_gradient_accumulation_steps = parts
        trainer.model.train()
        with self.clock.running("step"):
            for _ in range(parts):
                trainer.training_step(trainer.model, self.rows(number), None)
            trainer._clip_grad_norm(trainer.model)
            trainer.optimizer.step()
            trainer.model.zero_grad()
        trainer.state.global_step += 1
        return self.clock.taken()


def make_wide(folder: Path) -> str:
    """A wider model with random weights behind nano's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from afmrl_cli.models.presets import nano_folder

    if not folder.exists():
        shutil.copytree(nano_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
        config = AutoConfig.from_pretrained(folder)
        for name, value in WIDE.items():
            setattr(config.text_config, name, value)
        config.text_config.layer_types = ["full_attention"] * WIDE["num_hidden_layers"]
        config.text_config.rope_parameters["mrope_section"] = [8, 12, 12]
        config.vision_config.hidden_size = WIDE["hidden_size"]
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return str(folder)


def make_world(
    work: Path, model: str, prompts: int, pixels: int, cache: Path | None = None, more: Mapping[str, object] = NOTHING
) -> tuple[Any, Any]:
    """(the plan, the policy) with a base of its own; with `cache`, photos are looked at once. `more`: settings"""
    from afmrl_cli.attributes.request import Generation
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.listener import Silent
    from afmrl_cli.models.base import Bases, Cache
    from afmrl_cli.models.embedder import load_embedder
    from afmrl_cli.models.generator import load_generator
    from afmrl_cli.models.presets import NANO, resolve_base
    from afmrl_cli.rar.environment import make_environments
    from afmrl_cli.rar.plan import make_plan
    from afmrl_cli.rar.policy import Policy
    from afmrl_cli.rar.room import measure_room
    from afmrl_cli.sources import load_settings
    from afmrl_cli.store.checkpoints import Checkpoints
    from afmrl_cli.store.folder import CatalogFolder
    from afmrl_cli.training.adapter import add_trainable
    from afmrl_cli.workspace import Workspace

    settings = load_settings(None, {**settings_of(model, prompts, pixels), **more}, BUILT_IN)
    folder, checkpoints = CatalogFolder(work / "shop" / "catalog.csv"), Checkpoints(work / "none")
    bases = Bases(Cache(cache, settings.cache, Silent()) if cache else None)
    generator = load_generator(settings.model, settings.attributes, checkpoints, bases=bases)
    if model != NANO:
        vars(generator)["generation"] = lambda tokens: Generation(TEXTS[sum(tokens) % len(TEXTS)], False)
    add_trainable(generator, settings.rar, None, checkpoints, "CAUSAL_LM")
    embedder = load_embedder(settings.model, settings.embed, checkpoints, bases=bases, catalog=settings.catalog)
    gallery = work / f"gallery-{Path(model).name}-{pixels}"
    where, policy = Workspace(folder, settings, Silent()), Policy(generator)
    environments = make_environments(where, embedder, gallery, Problems())
    room = measure_room(where, environments.train, policy)
    plan = make_plan(environments, room, resolve_base(settings.model, "generator"), None, generator.id)
    return plan, policy


def make_ours(plan: Any, policy: Any, run: Path) -> Side:
    from afmrl_cli.listener import Silent
    from afmrl_cli.rar.trainer import RarTrainer

    trainer, clock = RarTrainer(plan, policy, run, lambda _: None, Silent()), Clock()
    clock.time(trainer, "_sample", "rollout")
    clock.time(trainer.environment, "rewards", "reward")

    def rows(number: int) -> list[dict[str, Any]]:
        return [{"query": query} for query in queries_of(plan, number) for _ in range(GROUP)]

    return finish(trainer, rows, clock)


def make_stock(plan: Any, policy: Any, run: Path) -> Side:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from afmrl_cli.rar.trainer import rar_arguments

    generator, environment, clock = policy.generator, plan.environments.train, Clock()
    made = {number: policy.row(environment, number) for number in range(len(environment.queries))}

    def row(number: int) -> dict[str, Any]:
        text = made[number]["prompt"][0]["content"][-1]["text"]  # TRL puts the slots for the photos before it, as we do
        images = [image.copy() for image in made[number]["images"]]  # a data set opens them anew for every row
        return {"query": number, "prompt": [{"role": "user", "content": text}], "images": images}

    class Stock(GRPOTrainer):  # type: ignore[misc]
        def _send_telemetry(self) -> None: ...

    generator.loaded.causal.generation_config.eos_token_id = generator.ends
    trainer = Stock(
        model=generator.loaded.peft,
        reward_funcs=in_full(plan, policy, clock),
        args=GRPOConfig(**rar_arguments(plan, policy, run)),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": ""}]]}),
        processing_class=generator.processor.inner,
    )
    clock.time(trainer, "_generate_single_turn", "rollout")
    return finish(
        trainer, lambda number: [row(query) for query in queries_of(plan, number) for _ in range(GROUP)], clock
    )


def in_full(plan: Any, policy: Any, clock: Clock) -> Callable[..., list[float]]:
    """A reward that encodes the query with each answer by itself."""
    import numpy as np

    from afmrl_cli.models.embed_input import Item
    from afmrl_cli.rar.environment import ranks_of
    from afmrl_cli.rar.frozen import frozen
    from afmrl_cli.rar.reward import recall_at_k

    environment, settings = plan.environments.train, plan.settings

    def reward(completion_ids: list[list[int]], query: list[int], **_: Any) -> list[float]:
        with clock.running("reward"):
            items = []
            for number, tokens in zip(query, completion_ids, strict=True):
                seen, text = environment.queries[number].side, policy.generator.generation(tokens).text
                items.append(Item(seen.text, tuple(photo.path for photo in seen.photos), text))
            with frozen(environment.embedder):
                vectors = environment.embedder.encode(items, instruction=settings.embed.query_instruction)
            ranks = [
                ranks_of(np.asarray(vector)[None] @ environment.vectors.T, environment.queries[number])[0]
                for vector, number in zip(vectors, query, strict=True)
            ]
            return [recall_at_k(row, settings.rar.k) for row in ranks]

    return reward


def finish(trainer: Any, rows: Callable[[int], list[dict[str, Any]]], clock: Clock) -> Side:
    """The side with an optimiser, its reference pass and its update timed."""
    import torch

    trainer.create_optimizer()
    logps = trainer._get_per_token_logps_and_entropies

    def timed(*positional: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():  # in the update, whose time is counted below
            return logps(*positional, **named)
        with clock.running("reference"):
            return logps(*positional, **named)

    trainer._get_per_token_logps_and_entropies = timed
    clock.time(trainer, "compute_loss", "update")
    clock.time(trainer.accelerator, "backward", "update")
    return Side(trainer, rows, clock)


def queries_of(plan: Any, number: int) -> list[int]:
    """The queries of a step."""
    return [plan.order[(number * plan.prompts + i) % len(plan.order)] for i in range(plan.prompts)]


def measure(sides: dict[str, Side], rounds: int) -> dict[str, list[dict[str, list[float]]]]:
    """Each side's steps, one after another in turn."""
    found: dict[str, list[dict[str, list[float]]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            taken = side.step(number)
            if number:
                found[name].append(taken)
    return found


def tell(found: dict[str, list[dict[str, list[float]]]]) -> dict[str, float]:
    """Print the table; the ratios stock / ours of a step by (processor, clock)."""
    for clock, name in enumerate(("processor seconds", "seconds by the clock")):
        print(f"\n| {name} | {' | '.join(PARTS)} | other |\n| --- |{' --- |' * (len(PARTS) + 1)}")
        for side, steps in found.items():
            values = [statistics.median(step[part][clock] for step in steps) for part in PARTS]
            rest = statistics.median(
                2 * step["step"][clock] - sum(step[part][clock] for part in PARTS) for step in steps
            )
            print(f"| {side} | {' | '.join(f'{value:.2f}' for value in [*values, rest])} |")
    ratios = {}
    for clock, name in enumerate(("processor", "clock")):
        each = [
            stock["step"][clock] / ours["step"][clock]
            for ours, stock in zip(found["ours"], found["stock"], strict=True)
        ]
        ratios[name] = statistics.median(each)
        mine, its = (statistics.median(step["step"][clock] for step in found[side]) for side in ("ours", "stock"))
        record(f"RAR step against stock TRL, s by {name}", mine, its, ratios[name], spread=each, aim=">= 4")
        print(f"stock / ours by {name}: {ratios[name]:.2f} ({min(each):.2f} to {max(each):.2f})")
    return ratios


def run(work: Path, model: str, rounds: int, prompts: int, pixels: int, threads: int) -> dict[str, float]:
    import torch

    from afmrl_cli.nano.shop import ShopPlan, write_shop

    torch.set_num_threads(threads)
    if not (work / "shop").exists():
        write_shop(work / "shop", ShopPlan(30, seed=3, duplicates=0.5, size=pixels))
    name = make_wide(work / "wide") if model == "wide" else model
    sides = {}
    for side, make in (("ours", make_ours), ("stock", make_stock)):
        plan, policy = make_world(work, name, prompts, pixels)
        sides[side] = make(plan, policy, work / side)
    row = sides["ours"].trainer.policy
    request = row.request(plan.environments.train, plan.order[0])
    width = row.generator.processor.tensors([row.generator.text(request)], [request.images])["input_ids"].shape[1]
    print(f"{model}: {prompts} prompts a step, such as one of {width} tokens with its photo; {rounds} rounds")
    return tell(measure(sides, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", choices=["nano", "wide"], default="wide")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--pixels", type=int, default=448)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, on the last line")
    chosen = parser.parse_args()
    ratios = run(chosen.work, chosen.model, chosen.rounds, chosen.prompts, chosen.pixels, chosen.threads)
    if chosen.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
