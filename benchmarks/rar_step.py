"""The time of a RAR step by its parts, and against stock GRPOTrainer whose reward encodes every answer in full.

    python -m benchmarks.rar_step WORK [--kind listings] [--rounds 3] [--steps 4] [--wall]

Both train the nano model from the same adapter on the same queries (6 a step, 8 answers each, one thread, fp32), in
turn, each time in a process of its own; the first step of each is left out, medians of the rest are printed. Seconds
are those of the CPU, which a busy machine hardly changes; `--wall` takes the clock's. The stock trainer gets prompts
and photos as its documentation says (opened once, beforehand) and a reward of `Embedder.encode` on all answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPTS, GROUP = 6, 8
PARTS = ("step_time", "seconds/rollout", "seconds/reward")


def arguments(kind: str, steps: int) -> dict[str, object]:
    return {
        "model.device": "cpu",
        "model.precision": "fp32",
        "split.validation": 0.2,
        "split.test": 0.0,
        "rar.query": kind,
        "rar.from_base": True,
        "rar.prompts": PROMPTS,
        "rar.group": GROUP,
        "rar.chunk_answers": 24,
        "rar.k": 10,
        "rar.steps": steps,
        "rar.learning_rate": 1e-5,
    }


def one(side: str, work: Path, kind: str, steps: int) -> None:
    """`steps` steps of one side, in this process: a JSON line of figures for each."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from afmrl_cli.attributes.task import load_task
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.catalog.product import enriched_text
    from afmrl_cli.listener import Silent
    from afmrl_cli.models.base import Bases
    from afmrl_cli.models.embed_input import Item
    from afmrl_cli.models.embedder import load_embedder
    from afmrl_cli.models.generator import load_generator
    from afmrl_cli.models.presets import resolve_base
    from afmrl_cli.rar.environment import make_environments, ranks_of
    from afmrl_cli.rar.frozen import frozen
    from afmrl_cli.rar.plan import make_plan
    from afmrl_cli.rar.policy import Policy
    from afmrl_cli.rar.reward import recall_at_k
    from afmrl_cli.rar.trainer import RarTrainer, grpo_arguments
    from afmrl_cli.settings import load_settings
    from afmrl_cli.store.checkpoints import Checkpoints
    from afmrl_cli.store.folder import CatalogFolder
    from afmrl_cli.training.adapter import add_trainable

    torch.set_num_threads(1)
    settings = load_settings(None, arguments(kind, steps), {})
    folder, checkpoints, bases = CatalogFolder(work / "shop" / "catalog.csv"), Checkpoints(work / "none"), Bases()
    task = load_task(settings.attributes, folder.root)
    generator = load_generator(settings.model, settings.attributes, checkpoints, bases=bases)
    policy = Policy(generator)
    peft = add_trainable(generator, settings.rar, None, checkpoints, "CAUSAL_LM")
    embedder = load_embedder(settings.model, settings.embed, checkpoints, bases=bases, catalog=settings.catalog)
    environments = make_environments(
        folder, settings, checkpoints, task, embedder, work / f"gallery-{kind}", Problems(), Silent()
    )
    plan = make_plan(settings, environments, resolve_base(settings.model, "generator"), None, generator.id)
    environment = environments.train

    def in_full(completions: list[Any], query: list[int], **_: Any) -> list[float]:
        begin = time.perf_counter()
        items = []
        for number, answer in zip(query, completions, strict=True):
            seen = environment.queries[number].side
            items.append(
                Item(enriched_text(seen.text, answer[0]["content"]), tuple(photo.path for photo in seen.photos))
            )
        with frozen(embedder):
            vectors = embedder.encode(items, instruction=settings.embed.query_instruction)
        rows = [
            ranks_of(vector[None] @ environment.vectors.T, environment.queries[number])[0]
            for vector, number in zip(vectors, query, strict=True)
        ]
        seconds.append(time.perf_counter() - begin)
        return [recall_at_k(row, settings.rar.k) for row in rows]

    class Stock(GRPOTrainer):  # type: ignore[misc]
        def _send_telemetry(self) -> None: ...

        def _generate_single_turn(self, *positional: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            made = super()._generate_single_turn(*positional, **named)
            rollouts.append(time.perf_counter() - begin)
            return made

    seconds: list[float] = []
    rollouts: list[float] = []
    with tempfile.TemporaryDirectory() as run:
        if side == "ours":
            trainer = RarTrainer(plan, policy, Path(run), lambda _: None, Silent())
            trainer.measure()
            rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        else:
            generator.loaded.causal.generation_config.eos_token_id = generator.ends
            made = {number: policy.row(environment, number) for number in set(plan.order)}
            data: dict[str, list[Any]] = {
                "query": plan.order,
                "prompt": [[{"role": "user", "content": text_of(made[number])}] for number in plan.order],
            }
            if made[plan.order[0]]["images"]:
                data["images"] = [made[number]["images"] for number in plan.order]
            stock = Stock(
                model=peft,
                reward_funcs=in_full,
                args=GRPOConfig(**grpo_arguments(plan, policy, Path(run)) | {"save_strategy": "no"}),
                train_dataset=Dataset.from_dict(data),
                processing_class=generator.processor.inner,
            )
            stock.remove_callback(PrinterCallback)
            stock.train()
            rows = [row for row in stock.state.log_history if "step_time" in row]
            for row, reward, rollout in zip(rows, seconds, rollouts, strict=True):
                row.update({"seconds/reward": reward, "seconds/rollout": rollout})
    for row in rows[1:]:
        print(json.dumps({part: row[part] for part in PARTS}))


def text_of(row: dict[str, Any]) -> str:
    """The prompt's text: TRL puts the slots for the photos before it, as we do."""
    return str(row["prompt"][0]["content"][-1]["text"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kind", default="listings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--side", choices=["ours", "stock"], help="for the processes that it starts")
    chosen = parser.parse_args()
    if not chosen.wall:
        time.perf_counter = time.process_time
    if chosen.side:
        one(chosen.side, chosen.work, chosen.kind, chosen.steps)
        return
    from afmrl_cli.nano.shop import write_shop

    write_shop(chosen.work / "shop", 150, seed=3, duplicates=0.5, size=224)
    found: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    words = ["--kind", chosen.kind, "--steps", str(chosen.steps), *(["--wall"] if chosen.wall else [])]
    for _ in range(chosen.rounds):
        for side, rows in found.items():
            program = [sys.executable, "-m", "benchmarks.rar_step", str(chosen.work), *words, "--side", side]
            out = subprocess.run(program, check=True, capture_output=True, text=True).stdout
            rows += [json.loads(line) for line in out.splitlines()]
    print(f"{chosen.kind}, {'wall' if chosen.wall else 'CPU'} seconds, median of {len(found['ours'])} steps each\n")
    print("| | step | rollout | reward | reference and update |\n| --- | --- | --- | --- | --- |")
    steps = {}
    for side, rows in found.items():
        step, rollout, reward = (statistics.median(row[part] for row in rows) for part in PARTS)
        steps[side] = step
        print(f"| {side} | {step:.2f} | {rollout:.2f} | {reward:.2f} | {step - rollout - reward:.2f} |")
    print(f"\nours / stock: {steps['ours'] / steps['stock']:.2f}")


if __name__ == "__main__":
    main()
