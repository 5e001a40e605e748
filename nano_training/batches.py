"""Training data of the nano model: the texts of the tokenizer, and the batch of one training step.

Everything is drawn from a seed and a step's number, so an interrupted training goes on with the very rows it would
have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.attributes.prompt import attribute_prompt, chat_messages
from afmrl_cli.catalog.product import Product, enriched_text, product_text
from afmrl_cli.models.embed_input import Item, embedder_text
from afmrl_cli.models.families import FAMILIES
from afmrl_cli.models.templates import QUERY_INSTRUCTION, TARGET_INSTRUCTION
from afmrl_cli.nano.garment import CATEGORIES, KEYS, Garment, random_garment, values_of
from afmrl_cli.nano.wording import BRANDS, DEPARTMENTS, listing_words, query_words

from .pool import PoolPlan
from .rows import PICTURE_TOKENS, Row
from .words import SAMPLE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_END = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """The batch of one step: pictures as pool indices, rows to answer, and pairs of rows that show the same product.

    `queries[i]` and `targets[i]` belong together; `labels` holds each picture's class per key of `KEYS`, -1 = none.
    """

    photos: NDArray[np.int64]
    labels: NDArray[np.int64]
    answers: list[Row]
    queries: list[Row]
    targets: list[Row]


def all_values() -> dict[str, tuple[str, ...]]:
    """Return every value of every key over all categories, in a fixed order."""
    found: dict[str, dict[str, None]] = {"category": dict.fromkeys(CATEGORIES)}
    for category in CATEGORIES:
        for key, values in values_of(category).items():
            found.setdefault(key, {}).update(dict.fromkeys(values))
    return {key: tuple(found[key]) for key in KEYS}


def label_of(garment: Garment) -> list[int]:
    """Return the garment's class per key; -1 where the key does not apply."""
    return [values.index(value) if (value := getattr(garment, key)) else -1 for key, values in all_values().items()]


def tokenizer_texts(seed: int = 0, listings: int = 4000) -> list[str]:
    """Return what the tokenizer learns from: shop texts, answers, queries, the prompts, and a broad sample."""
    rng = Random(f"tokenizer {seed}")
    texts: list[str] = []
    for _ in range(listings):
        garment = random_garment(rng)
        words = listing_words(garment, rng, rng.choice(BRANDS))
        texts += [words.title, words.description, query_words(garment, rng)[0]]
        texts.append(write_attributes(garment.attributes()))
        texts.append(enriched_text(f"Title: a\nBrand: b\nCategory: {DEPARTMENTS[garment.category]}", "Attributes: c"))
    texts += [attribute_prompt("Description: d"), QUERY_INSTRUCTION, TARGET_INSTRUCTION, "user assistant system"] * 400
    return texts + SAMPLE.strip().splitlines() * 40


def listing_text(garment: Garment, rng: Random, brand: str) -> tuple[str, dict[str, str]]:
    """Return a listing's product text, some fields missing, and the attributes that it states."""
    words = listing_words(garment, rng, brand)
    product = Product(
        id="",
        title=words.title,
        description=words.description,
        category=DEPARTMENTS[garment.category] if rng.random() < 0.75 else "",
        brand=brand if rng.random() < 0.75 else "",
    )
    return product_text(product), words.stated


class BatchSampler:
    """Draws the batches of a training from the garments of a pool."""

    def __init__(self, garments: list[Garment], pool: PoolPlan, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.garments, self.pool, self.tokenizer, self.seed = garments, pool, tokenizer, seed
        self.photos = pool.photos
        self.labels = np.array([label_of(garment) for garment in garments], dtype=np.int64)
        self.values = all_values()

    def tokens(self, text: str) -> list[int]:
        """Return the text's tokens, each picture slot as long as the picture's tokens."""
        text = text.replace("<|image_pad|>", "<|image_pad|>" * PICTURE_TOKENS)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def vision_batch(self, step: int, batch: int) -> TrainingBatch:
        """Draw a batch for the vision tower alone."""
        rng = np.random.default_rng([self.seed, 1, step])
        photos = rng.integers(0, len(self.garments) * self.photos, batch)
        return TrainingBatch(photos, self.labels[photos // self.photos], [], [], [])

    def batch(self, step: int, garments: int, pairs: int) -> TrainingBatch:
        """Draw `garments` answers, and pairs of the first `pairs` of them; two in three come with a colour variant.

        Photos by phone are for answers alone. An embedder that has seen them paired with the renderer's has nothing
        left to learn from a shop.
        """
        rng = Random(f"lesson {self.seed} {step}")  # the word that the shipped weights were drawn with
        styles = rng.sample(range(len(self.garments) // 2), k=garments)
        paired = garments // 3
        chosen = [2 * style + side for style in styles[:paired] for side in (0, 1)]
        chosen += [2 * style + rng.randrange(2) for style in styles[paired : garments - paired]]
        photos: list[int] = []
        answers: list[Row] = []
        queries: list[Row] = []
        targets: list[Row] = []
        for number, index in enumerate(chosen):
            both = number < pairs
            shots = rng.sample(range(self.pool.studio if both else self.photos), k=2 if pairs else 1)
            if both and self.pool.phone:
                shots.append(self.pool.studio + rng.randrange(self.pool.phone))
            first = len(photos)
            photos += [index * self.photos + shot for shot in shots]
            own = list(range(first, len(photos)))
            garment = self.garments[index]
            brand = Random(f"brand {garment.seed}").choice(BRANDS)
            answers.append(self._answer(garment, rng, brand, own[2:] or own))
            if both:
                query, target = self._pair(garment, rng, brand, own[:2])
                queries.append(query)
                targets.append(target)
        at = np.array(photos, dtype=np.int64)
        return TrainingBatch(at, self.labels[at // self.photos], answers, queries, targets)

    def _answer(self, garment: Garment, rng: Random, brand: str, own: list[int]) -> Row:
        text, stated = listing_text(garment, rng, brand)
        kind = rng.random()
        attributes = garment.attributes()
        shown = [rng.choice(own)]
        if kind < 0.50:
            text = ""
        elif kind < 0.59 and len(stated) >= 3:
            shown, attributes = [], stated
        elif kind < 0.68 and len(own) > 1:
            shown = own
        messages = chat_messages(attribute_prompt(text), len(shown))
        prompt = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        answer = self.tokens(write_attributes(attributes) + _END)
        return Row(self.tokens(prompt) + answer, shown, len(answer))

    def _pair(self, garment: Garment, rng: Random, brand: str, own: list[int]) -> tuple[Row, Row]:
        """Return two views of one garment; at most one of them without a picture, and never the same picture twice."""
        rng.shuffle(own)
        first, second = own
        kind = rng.random()
        if kind < 0.40:
            query = self._item("", [first], QUERY_INSTRUCTION)
        elif kind < 0.58:
            query = self._item(listing_text(garment, rng, brand)[0], [first], QUERY_INSTRUCTION)
        elif kind < 0.80:
            query = self._item(query_words(garment, rng)[0], [], QUERY_INSTRUCTION)
        elif kind < 0.90:
            query = self._item(self._enriched(garment, rng, brand), [first], QUERY_INSTRUCTION)
        else:
            query = self._item(self._enriched(garment, rng, brand), [], QUERY_INSTRUCTION)
        kind = rng.random()
        if kind < 0.38:
            target = self._item(listing_text(garment, rng, brand)[0], [second], TARGET_INSTRUCTION)
        elif kind < 0.65:
            target = self._item("", [second], TARGET_INSTRUCTION)
        elif kind < 0.85:
            target = self._item(self._enriched(garment, rng, brand), [second], TARGET_INSTRUCTION)
        elif query.pictures and kind < 0.92:
            target = self._item(self._enriched(garment, rng, brand), [], TARGET_INSTRUCTION)
        elif not query.pictures:
            target = self._item(listing_text(garment, rng, brand)[0], own, TARGET_INSTRUCTION)
        else:
            target = self._item(listing_text(garment, rng, brand)[0], [second], TARGET_INSTRUCTION)
        return query, target

    def _enriched(self, garment: Garment, rng: Random, brand: str) -> str:
        """Return a text with attributes as a generator would give them: now and then one is wrong or missing."""
        attributes = garment.attributes()
        for key in list(attributes):
            luck = rng.random()
            if luck < 0.06:
                attributes[key] = rng.choice(self.values[key])
            elif luck < 0.10:
                del attributes[key]
        return enriched_text(listing_text(garment, rng, brand)[0], write_attributes(attributes))

    def _item(self, text: str, pictures: list[int], instruction: str) -> Row:
        item = Item(text, tuple(Path() for _ in pictures))
        return Row(self.tokens(embedder_text(item, instruction, FAMILIES["qwen2_vl"])), list(pictures))


def shake(photos: NDArray[np.uint8], seed: int, step: int) -> NDArray[np.uint8]:
    """Return the same photos mirrored at random and moved by up to four pixels."""
    rng = np.random.default_rng([seed, 2, step])
    moved = np.empty_like(photos)
    for n, (mirror, down, right) in enumerate(
        zip(rng.random(len(photos)), *rng.integers(-4, 5, (2, len(photos))), strict=True)
    ):
        photo = photos[n, :, ::-1] if mirror < 0.5 else photos[n]
        moved[n] = np.roll(photo, (down, right), axis=(0, 1))
    return moved
