"""What the nano model gets right: attribute values in its answers, and products found again from another photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from afmrl_cli.attributes.parse import InvalidAttributes, parse_attributes
from afmrl_cli.attributes.prompt import attribute_prompt, chat_messages
from afmrl_cli.models.embed_input import Item, embedder_text
from afmrl_cli.models.families import FAMILIES
from afmrl_cli.retrieval.index import exact_search

LONGEST_ANSWER = 72


def _inputs(processor: Qwen2VLProcessor, texts: list[str], images: list[list[Image]]) -> Any:
    some = any(images)
    return processor(text=texts, images=images if some else None, padding=True, return_tensors="pt")


@torch.no_grad()
def answers(
    model: Qwen2VLForConditionalGeneration,
    processor: Qwen2VLProcessor,
    texts: Sequence[str],
    images: Sequence[Sequence[Image]],
    batch: int = 50,
) -> list[str]:
    """Return the model's greedy answer for each product (its text and its opened pictures)."""
    model.eval()
    found: list[str] = []
    for start in range(0, len(texts), batch):
        part = [list(shown) for shown in images[start : start + batch]]
        prompts = [
            processor.apply_chat_template(
                chat_messages(attribute_prompt(text), len(shown)), add_generation_prompt=True, tokenize=False
            )
            for text, shown in zip(texts[start : start + batch], part, strict=True)
        ]
        inputs = _inputs(processor, prompts, part)
        made = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        found += processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


@torch.no_grad()
def vectors(
    model: Qwen2VLForConditionalGeneration,
    processor: Qwen2VLProcessor,
    texts: Sequence[str],
    images: Sequence[Sequence[Image]],
    instruction: str,
    batch: int = 50,
) -> NDArray[np.float32]:
    """Return a unit vector for each item: the last token's hidden state, no vocabulary logits computed."""
    model.eval()
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(texts), batch):
        part = [list(shown) for shown in images[start : start + batch]]
        written = [
            embedder_text(Item(text, tuple(shown)), instruction, FAMILIES["qwen2_vl"])
            for text, shown in zip(texts[start : start + batch], part, strict=True)
        ]
        hidden = model.model(**_inputs(processor, written, part)).last_hidden_state[:, -1]
        rows.append(torch.nn.functional.normalize(hidden.float(), dim=-1).numpy())
    return np.concatenate(rows)


def value_scores(truth: Sequence[Mapping[str, str]], texts: Sequence[str]) -> dict[str, float]:
    """Return share of attribute values that are right, per key, in all ("micro"), as mean over keys ("macro").

    An answer that can't be parsed has all values wrong. "parseable" and "all right" are shares of products.
    """
    right: dict[str, list[bool]] = {}
    parsed = perfect = 0
    for wanted, text in zip(truth, texts, strict=True):
        try:
            said = parse_attributes(text)
            parsed += 1
        except InvalidAttributes:
            said = {}
        for key, value in wanted.items():
            right.setdefault(key, []).append(said.get(key) == value)
        perfect += said == dict(wanted)
    scores = {key: float(np.mean(hits)) for key, hits in right.items()}
    every = [hit for hits in right.values() for hit in hits]
    return {
        **scores,
        "macro": float(np.mean(list(scores.values()))),
        "micro": float(np.mean(every)),
        "all right": perfect / len(texts),
        "parseable": parsed / len(texts),
    }


def recalls(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], wanted: Sequence[str], names: Sequence[str]
) -> dict[str, float]:
    """Return R@1 and R@10: a query is answered if a gallery row of its name is among the first."""
    order = exact_search(gallery, queries, 10)[1]
    hits = np.array([[names[n] == name for n in row] for name, row in zip(wanted, order.tolist(), strict=True)])
    return {"R@1": float(hits[:, 0].mean()), "R@10": float(hits.any(axis=1).mean())}
