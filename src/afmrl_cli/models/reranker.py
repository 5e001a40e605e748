"""Pairs of listings, or of a query and a listing -> how sure the model is that both are one product.

    s(a, b) = logit(yes | a, b) - logit(no | a, b)       of the answer's first token
    score   = (s(a, b) + s(b, a)) / 2                    order must not matter, so both are asked
    fused   = (1 - w) c / T + w score                    c: the embedder's cosine, T = 0.05

A pair is one turn of the generator's chat template: photos and text of the one, photos and text of the other, the
question. No attributes are read: who wants to know whether two listings are one product need not describe them first.
The two words are the first of VERDICTS that are one token each in the base's tokenizer. A trained reranker has its own
words and w, which its validation chose, in its manifest; results do not depend on the batch (padding is masked).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..by_model import value_by_model
from ..errors import ModelError
from ..listener import Listener
from ..settings import CatalogSettings, Settings
from ..store.checkpoints import Checkpoints, Manifest
from .base import Bases, Opened, active_adapter, open_role
from .batching import Batches
from .embed_input import Item
from .presets import resolve_adapter, resolve_base
from .processor import Processor

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture

VERDICTS = (("yes", "no"), ("Yes", "No"), ("y", "n"), ("1", "0"))
FIRST, SECOND = "Product 1:\n", "\nProduct 2:\n"
QUESTION = "\nAre both the same product? Answer {yes} or {no}."
OTHER_TOKENS = 64
"""Beside texts and photos: the marks of a turn, and the question."""
TEMPERATURE = 0.05
"""T, by which a cosine becomes a logit: AGCL's."""
EQUAL_WEIGHT = 0.5
"""w where there was no validation to choose it."""

Pair = tuple[Item, Item]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair as it is read: cleaned and cut text, loaded photos."""

    text: str
    photos: tuple[Image | Picture, ...]


class Reranker:
    """A base with its adapter that says yes or no to pairs. `workspace.Workspace.reranker` loads a trained one."""

    def __init__(
        self,
        opened: Opened,
        words: tuple[str, str],
        *,
        weight: float,
        max_text_tokens: int,
        batch_size: int,
        catalog: CatalogSettings,
        listener: Listener,
    ) -> None:
        self.id = opened.id
        self.adapter, self.loaded = opened.adapter, opened.loaded
        self.vision = self.loaded.vision(opened.base)
        self.processor = self.vision.processor
        self.processor.check_prompts(opened.base.name)
        self.words, self.weight = words, weight
        self._tokens = [self.processor.tokenizer.get_vocab()[word] for word in words]
        self.max_text_tokens = max_text_tokens
        self.photos_left_out = 0
        self._catalog, self._listener = catalog, listener
        self._batches = Batches(2 * max(1, batch_size // 2), listener, "reranking")

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Return s(a, b) and s(b, a) [n, 2] of each pair.

        Texts are cut to `max_text_tokens` each; of photos as many are read as the model has positions for. Raises
        ImageProblem for a photo that can't be opened, OutOfMemory when a single pair does not fit.
        """
        rows = [row for one, other in map(self.read, pairs) for row in ((one, other), (other, one))]
        texts = [self.text(row) for row in rows]
        photos = [[photo for side in row for photo in side.photos] for row in rows]
        ids = self.processor.tokenizer(texts)["input_ids"] if texts else []
        lengths = [len(row) + sum(map(self.vision.image_tokens, shown)) for row, shown in zip(ids, photos, strict=True)]

        def prepare(indices: list[int]) -> dict[str, Any]:
            return self.vision.tensors([texts[i] for i in indices], [photos[i] for i in indices]) if indices else {}

        made = self._batches.run(lengths, prepare, self._forward)
        self.vision.flush()
        scores = np.array(made, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(scores).all():
            raise ModelError(f"{self.id} gives scores that are not numbers", "try model.precision=fp32")
        return scores

    def read(self, pair: Pair) -> tuple[Side, Side]:
        """Return both sides as they are read: special tokens taken out, texts cut, photos opened, and of each side as
        many of the first as half of the model's positions hold beside its text.
        """
        return self._side(pair[0]), self._side(pair[1])

    def text(self, pair: tuple[Side, Side]) -> str:
        """Return the string that is tokenised for a pair: the chat template around both sides and the question."""
        return pair_text(self.processor, self.words, pair)

    def _side(self, item: Item) -> Side:
        photos = [self.load_image(each, self._catalog) if isinstance(each, Path) else each for each in item.images]
        tokens = [self.vision.image_tokens(photo) for photo in photos]
        half = self.processor.max_positions // 2
        taken = self.max_text_tokens + OTHER_TOKENS + self.processor.max_positions - half
        fit = self.processor.photos_that_fit(tokens, taken)
        if fit < len(tokens) and not self.photos_left_out:
            self._listener.warn(
                f"a listing has {len(tokens)} photos and a pair room for {fit} of each side: of such listings the "
                "reranker reads the first; lower model.generator_images or model.max_pixels"
            )
        self.photos_left_out += len(tokens) - fit
        text = self.processor.cut(self.processor.clean(item.text), self.max_text_tokens)
        return Side(text, tuple(photos[:fit]))

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Load the photo at `path` for `score`, no larger than the model reads it; ImageProblem as `open_image`."""
        return self.vision.load_image(path, catalog)

    def differences(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return logit(yes) - logit(no) [n] of rows padded on the left, with a gradient where one is wanted."""
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        yes, no = self._tokens
        apart: torch.Tensor = (logits[:, yes] - logits[:, no]).float()
        return apart

    def _forward(self, batch: dict[str, Any]) -> list[float]:
        there = self.vision.inputs(batch, self.loaded.device)
        with torch.inference_mode(), active_adapter(self.loaded.peft, self.adapter):
            return self.differences(self.loaded.causal, there).cpu().tolist()


def pair_text(processor: Processor, words: tuple[str, str], pair: tuple[Side, Side]) -> str:
    """Return the string that is tokenised for a pair: the chat template around both sides and the question."""
    yes, no = words
    content = list[dict[str, str]]()
    for head, side in zip((FIRST, SECOND), pair, strict=True):
        slots = [{"type": "image"} for _ in side.photos]
        content += [{"type": "text", "text": head}, *slots, {"type": "text", "text": side.text}]
    content.append({"type": "text", "text": QUESTION.format(yes=yes, no=no)})
    return processor.prompt([{"role": "user", "content": content}])


def choose_words(tokenizer: Any, name: str, among: Sequence[tuple[str, str]] = VERDICTS) -> tuple[str, str]:
    """Return the first pair `among` VERDICTS of which both words are one token. ModelError when none is."""
    known = tokenizer.get_vocab()
    for yes, no in among:
        if all(tokenizer(word, add_special_tokens=False)["input_ids"] == [known.get(word)] for word in (yes, no)):
            return yes, no
    tried = ", ".join("/".join(pair) for pair in VERDICTS)
    raise ModelError(f"{name}: its tokenizer has no single tokens for a verdict ({tried})", "choose another generator")


def words_of(manifest: Manifest) -> tuple[str, str]:
    """Return the words of a trained reranker, which its manifest names. ModelError when it names none that we know."""
    plan = manifest.settings.get("plan")
    words = plan.get("words") if isinstance(plan, dict) else None
    found = next((pair for pair in VERDICTS if list(pair) == words), None)
    if found is None:
        raise ModelError(f"checkpoint {manifest.name}: it does not say which words its verdicts are", "train it again")
    return found


def fuse(scores: Scores, cosines: NDArray[np.floating], weight: float) -> Scores:
    """Return the fused score [n] of scores [n, 2] and the embedder's cosines [n]."""
    fused = (1 - weight) * np.asarray(cosines, dtype=np.float64) / TEMPERATURE + weight * scores.mean(axis=-1)
    return np.asarray(fused, dtype=np.float64)


def probabilities(scores: Scores) -> Scores:
    """Return the probability [n] of yes, of yes and no alone, from scores [n, 2]."""
    return np.asarray(1 / (1 + np.exp(-np.clip(scores.mean(axis=-1), -60, 60))))


def position_bias(scores: Scores) -> dict[str, float]:
    """Return by how much s(a, b) and s(b, a) differ on average, and the share of pairs whose verdict is another one."""
    if not len(scores):
        return {"position_bias": 0.0, "flipped": 0.0}
    apart, flipped = np.abs(scores[:, 0] - scores[:, 1]), (scores[:, 0] > 0) != (scores[:, 1] > 0)
    return {"position_bias": float(apart.mean()), "flipped": float(flipped.mean())}


def make_reranker(
    opened: Opened, words: tuple[str, str], weight: float, settings: Settings, listener: Listener
) -> Reranker:
    """Return the reranker of an opened base that reads pairs as the settings say."""
    return Reranker(
        opened,
        words,
        weight=weight,
        max_text_tokens=settings.model.max_text_tokens,
        batch_size=settings.embed.batch_size or value_by_model("embed.batch_size", opened.base.name),
        catalog=settings.catalog,
        listener=listener,
    )


def load_reranker(settings: Settings, checkpoints: Checkpoints, bases: Bases, listener: Listener) -> Reranker:
    """Return the trained reranker that the settings name, ready in memory. ModelError when they name none, or it does
    not fit the generator's base.
    """
    model = settings.model
    if not model.reranker_checkpoint:
        trained = checkpoints.labels().get("reranker:latest")
        how = (
            f"name it: --set model.reranker_checkpoint={trained}" if trained else "train one with `afmrl train-rerank`"
        )
        raise ModelError("no reranker: model.reranker_checkpoint names none", how)
    manifest = resolve_adapter(model, "reranker", resolve_base(model, "reranker", listener), checkpoints)
    assert manifest is not None
    words, weight = words_of(manifest), manifest.metrics.get("weight", EQUAL_WEIGHT)
    return make_reranker(open_role(model, "reranker", checkpoints, bases, listener), words, weight, settings, listener)
