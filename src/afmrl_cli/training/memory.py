"""Peak memory of each stage from settings and the models' configurations alone: no weights, nothing computed.

    peak = weights of what is loaded + adapter + the largest of what comes one after the other
    weights   a 4-bit number 0.516 bytes (NF4, its scales quantised too), all others 2 (bf16) or 4 (fp32)
    adapter   4 bytes a parameter, 8 more for AdamW while it is trained; its gradient is among the activations
    after each other: the vision tower over the photos of a chunk; the language model over the chunk, forward and
                      backward (both counted, activations.py); in generation the cache of keys and values and the
                      scores of all words; in training the loss; 4-bit weights unpacked, one at a time

Every row is taken to be as long as the settings allow: `model.generator_images` or `model.embedder_images` photos (all
of a listing: as many as the caller knows of, else 3) of `model.max_pixels`, text of `model.max_text_tokens`. Not in it:
the libraries (about 0.6 GiB of a process on the CPU, which `beside` adds; 0.3 to 0.5 GiB of a CUDA context) and what an
allocator loses. Attributes and embed halve their batch by themselves when memory runs out, training does not. RAR's
gallery is encoded in such batches too, and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from ..models.base import quiet
from ..models.device import device_of, precision_of
from ..models.families import FAMILIES
from ..models.known import known_config
from ..models.presets import MAX_TOKENS, base_name, local_folder, pixel_limits
from ..settings import Settings
from ..store.checkpoints import Role
from ..training_settings import AgclSettings, TrainingSettings
from .activations import activations, tower
from .sizes import AGCL_BATCH, SFT_BATCH

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
PHOTOS = 3
"""Of a listing, where the catalog is not known."""
PROMPT_TOKENS = 72
"""Of the generator's instructions and chat marks, without those of a schema; of the embedder's 24."""
EMBED_TOKENS = 24
SCORES = 4
"""How often the scores of all words are in memory, in fp32, when a token is chosen."""
HEAD_TOKENS, HEAD_WORDS, HEAD_COPIES = 4096, 2**15, 7.25
"""TRL works out log-probabilities of so many tokens and words at a time; on the CPU its backward holds so many copies
of them in fp32, and a fused kernel on a GPU none.
"""
LIBRARIES = 600 * 2**20
"""What a process on the CPU holds before any model is loaded."""
Stage = Literal["attributes", "embed", "train-agcl", "train-sft", "train-rar"]
LOWER: dict[Stage, tuple[str, ...]] = {
    "attributes": ("attributes.batch_size", "model.max_pixels"),
    "embed": ("embed.batch_size", "model.max_pixels"),
    "train-agcl": ("agcl.chunk_tokens", "agcl.activation_checkpointing=true", "model.max_pixels"),
    "train-sft": ("sft.chunk_size", "sft.activation_checkpointing=true", "model.max_pixels"),
    "train-rar": ("rar.chunk_answers", "rar.activation_checkpointing=true", "rar.rollout_answers"),
}


@dataclass(frozen=True)
class StageMemory:
    """Bytes at the peak of a stage, what of them are weights, and the settings to lower where that is too much."""

    stage: Stage
    peak_bytes: int
    weight_bytes: int
    lower: tuple[str, ...]
    cuda: bool = False

    def beside(self, measured: int) -> int:
        """The estimate in the terms of a measured peak, to be shown beside it: on the CPU that is of the whole process,
        its libraries included. Never below it, since the longest rows take no less than those that were measured.
        """
        return max(self.peak_bytes + (0 if self.cuda else LIBRARIES), measured)

    def advice(self, memory: int) -> str:
        """What to do on a device with so many bytes; "" where the stage fits."""
        if self.peak_bytes <= memory:
            return ""
        if self.weight_bytes > memory:
            return "the weights alone do not fit: a smaller model, or model.precision=nf4"
        return f"lower {', then '.join(self.lower)}"


@dataclass(frozen=True)
class Model:
    """A base as it would be loaded."""

    config: Any
    dtype: torch.dtype
    weights: int
    unpacked: int
    """The largest 4-bit weight in the type it is computed in."""
    adapted: int
    """Parameters of an adapter of rank 1."""
    image_tokens: int
    cuda: bool

    def pass_bytes(self, rows: int, length: int, images: int, **more: Any) -> int:
        """Peak above the weights of reading `rows` x `length` tokens with `images` photos.

        On the CPU the photos' pixels stay beside them, and those of the next batch, which is made meanwhile.
        """
        read = activations(self.config, self.dtype, rows, length, **more) + self.unpacked
        if self.cuda:
            return max(self.vision(images), read)
        return max(self.vision(images), read + self.pixels(images)) + self.pixels(images)

    def pixels(self, images: int) -> int:
        """The patches of so many photos, in fp32."""
        shape = self.config.vision_config
        patches = images * self.image_tokens * shape.spatial_merge_size**2
        return int(patches * shape.in_channels * shape.temporal_patch_size * shape.patch_size**2 * 4)

    def vision(self, images: int) -> int:
        """The vision tower over so many photos, and their pixels."""
        return self.pixels(images) + tower(self.config, self.dtype, images, self.image_tokens) if images else 0

    def scores(self, rows: int) -> int:
        """Choosing the next token of so many rows."""
        return int(SCORES * rows * self.config.get_text_config().vocab_size * 4)

    def head(self, answers: int) -> int:
        """Log-probabilities of so many tokens by TRL, and their gradient."""
        text = self.config.get_text_config()
        tokens, words = min(answers, HEAD_TOKENS), min(text.vocab_size, HEAD_WORDS)
        copies = 0 if self.cuda else HEAD_COPIES
        return int(tokens * (HEAD_WORDS * self.dtype.itemsize + copies * words * 4) + answers * text.hidden_size * 4)

    def cache(self, rows: int, length: int) -> int:
        """Keys and values of all layers; one layer's twice, while it grows."""
        text = self.config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        each = 2 * rows * length * text.num_key_value_heads * head * self.dtype.itemsize
        return int((text.num_hidden_layers + 1) * each)


def load_model(settings: Settings, role: Role) -> Model | None:
    """The model of `role`, from its config.json or the presets' shapes; None where neither is at hand."""
    name = base_name(settings.model, role)
    folder = local_folder(settings.model, role)
    config = AutoConfig.from_pretrained(folder, local_files_only=True) if folder else known_config(name)
    if config is None:
        return None
    # A card that is asked for counts, whether it is there or not.
    cuda = settings.model.device == "cuda" or device_of(settings.model) == "cuda"
    auto = settings.model.precision == "auto" and cuda
    precision = "nf4" if auto else precision_of(settings.model)
    half = precision == "bf16" or (precision == "nf4" and cuda)
    dtype = torch.bfloat16 if half else torch.float32
    with torch.device("meta"), quiet():
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    weights, unpacked, adapted = 0.0, 0, 0
    linear = {
        id(module.weight): module
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "language_model" in path
    }
    for parameter in model.parameters():
        quantised = precision == "nf4" and id(parameter) in linear
        weights += parameter.numel() * (NF4_BYTES if quantised else dtype.itemsize)
        unpacked = max(unpacked, parameter.numel() * dtype.itemsize) if quantised else unpacked
        adapted += sum(parameter.shape) if id(parameter) in linear else 0
    unit = FAMILIES[config.model_type].token_side ** 2
    most = pixel_limits(folder, settings.model)[1] if folder else settings.model.max_pixels or MAX_TOKENS * unit
    return Model(config, dtype, round(weights), unpacked, adapted, max(1, most // unit), cuda)


def estimate_stages(settings: Settings, photos: int = PHOTOS) -> list[StageMemory]:
    """The stages whose models are known, in the order of a cycle.

    `photos` is the number of a listing's photos where the settings say that a model looks at all of them.
    """
    settings = _with_photos(settings, photos)
    generator, embedder = load_model(settings, "generator"), load_model(settings, "embedder")
    found = []
    if generator is not None:
        found.append(_stage("attributes", _attributes(settings, generator), generator))
        sft = generator.weights + _training(settings.sft, generator)
        rows = min(settings.sft.chunk_size, settings.sft.batch_size or SFT_BATCH)
        new = settings.attributes.max_new_tokens
        length, images = _prompt(settings, generator) + new, rows * settings.model.generator_images
        passed = _trained_pass(settings.sft, generator, rows, length, images, answers=new + 1)
        found.append(_stage("train-sft", sft + passed, generator))
    if embedder is not None:
        batch = settings.embed.batch_size
        length = _item(settings, embedder)
        peak = embedder.pass_bytes(batch, length, batch * settings.model.embedder_images)
        found.append(_stage("embed", embedder.weights + peak, embedder))
        found.append(_stage("train-agcl", _agcl(settings.agcl, settings, embedder), embedder))
    if generator is not None and embedder is not None:
        shared = base_name(settings.model, "generator") == base_name(settings.model, "embedder")
        weights = generator.weights + (0 if shared else embedder.weights)
        found.append(_stage("train-rar", weights + _rar(settings, generator, embedder), generator, weights))
    return found


def _with_photos(settings: Settings, photos: int) -> Settings:
    model = settings.model
    each = {
        "generator_images": model.generator_images or photos,
        "embedder_images": model.embedder_images or photos,
    }
    return settings.model_copy(update={"model": model.model_copy(update=each)})


def _stage(stage: Stage, peak: int, model: Model, weights: int = 0) -> StageMemory:
    return StageMemory(stage, peak, weights or model.weights, LOWER[stage], model.cuda)


def _prompt(settings: Settings, model: Model) -> int:
    return settings.model.generator_images * model.image_tokens + settings.model.max_text_tokens + PROMPT_TOKENS


def _item(settings: Settings, model: Model) -> int:
    """What the embedder reads: attributes take their part of `max_text_tokens`, or all of it and more."""
    text = max(settings.model.max_text_tokens, settings.attributes.max_new_tokens)
    return settings.model.embedder_images * model.image_tokens + text + EMBED_TOKENS


def _training(training: TrainingSettings, model: Model) -> int:
    """Adapter and optimiser."""
    return model.adapted * training.rank * (4 + 8)


def _trained_pass(
    training: TrainingSettings, model: Model, rows: int, length: int, images: int, *, answers: int = 0, head: int = 0
) -> int:
    return model.pass_bytes(
        rows,
        length,
        images,
        rank=training.rank,
        dropout=training.lora_dropout,
        checkpointing=training.activation_checkpointing,
        answers=answers,
        head=head,
    )


def _attributes(settings: Settings, model: Model) -> int:
    rows, prompt = settings.attributes.batch_size, _prompt(settings, model)
    reading = model.pass_bytes(rows, prompt, rows * settings.model.generator_images)
    return model.weights + reading + model.cache(rows, prompt + settings.attributes.max_new_tokens) + model.scores(rows)


def _agcl(agcl: AgclSettings, settings: Settings, model: Model) -> int:
    length = _item(settings, model)
    rows = max(1, agcl.chunk_tokens // length)
    width: int = model.config.get_text_config().hidden_size
    batch = agcl.batch_size or AGCL_BATCH
    vectors = 4 * (2 * batch * width + batch**2) * 4
    return (
        model.weights
        + _training(agcl, model)
        + vectors
        + _trained_pass(agcl, model, rows, length, rows * settings.model.embedder_images)
    )


def _rar(settings: Settings, generator: Model, embedder: Model) -> int:
    """Policy and judge: the answers sampled, rewarded, and learnt from, one after the other."""
    rar, new = settings.rar, settings.attributes.max_new_tokens
    images, prompt = settings.model.generator_images, _prompt(settings, generator)
    prompts = min(rar.prompts, max(1, rar.rollout_answers // rar.group))
    batch, item = settings.embed.batch_size, _item(settings, embedder)
    sampled = generator.pass_bytes(prompts, prompt, prompts * images)
    sampled += generator.cache(prompts * rar.group, prompt + new) + generator.scores(prompts * rar.group)
    judged = embedder.pass_bytes(batch, new + EMBED_TOKENS, settings.model.embedder_images) + embedder.cache(
        batch, item
    )
    groups = max(1, rar.chunk_answers // rar.group)
    rows, length = (groups, prompt + rar.group * new) if rar.shared_prefix else (rar.chunk_answers, prompt + new)
    head = generator.head(max(rar.group, rar.chunk_answers) * new)
    learnt = _trained_pass(rar, generator, rows, length, rows * images, head=head)
    return _training(rar, generator) + max(sampled, judged, learnt)
