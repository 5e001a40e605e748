"""Peak memory of each stage from settings and the model's shape: a formula for a pencil, nothing is built or run.

    peak = weights + adapter + what the largest batch needs

    d hidden size, f width of the MLP, q of the queries, k of the keys, L layers, V words: from config.json
    P numbers in the weights' files, of which Q = L (2 d (q + k) + 3 d f) in the language model's linear layers
    b bytes of a number (2 in bf16, 4 in fp32), T tokens of a batch: rows x longest row that the settings allow

    weights    b P; with nf4 b (P - Q) + 0.516 Q, and one linear layer unpacked (b d f)
    adapter    16 bytes a number (weight, gradient, AdamW's two moments): rank L (2 (d + q) + 2 (d + k) + 3 (d + f))
    forward    3 b (d + f) a token: one layer at a time, at its MLP
    training   a forward and L K a token, K what a layer keeps for its backward; with checkpointing L b d + K
    K          8 d                        the norms' inputs, in fp32
               + b (4 q + 3 f)            queries, keys and values repeated for them, attention; the MLP's gate, its
                                          activation, up
               + I                        inputs of LoRA's seven layers: b (2 d + f) as they are; with dropout or in
                                          bf16 each has a copy in fp32, 4 (5 d + q + f)
               + M                        dropout's masks of these, where there is dropout: 1 (5 d + q + f) on a GPU,
                                          4 (5 d + q + f) on the CPU
    photos     a patch: 6,144 bytes of pixels, and 20 b w in the tower, w its width; where the tower is trained each of
               its layers keeps 40 b w for the backward, with checkpointing b w and one layer's
    cache      2 b k L a token
    words      16 V bytes for each token that is chosen, or learnt by SFT: the scores in fp32, four copies of them

Where D of the L layers are gated delta nets (Qwen3.5), L - D have attention, whose queries come with a gate as large
(q_proj has 2 q outputs). Of a delta net: w of the values, e of a key a value head, c before the convolution over four
tokens, and m = 64 numbers a value head, for tokens are taken 64 at a time; t numbers of its state, in fp32. As PyTorch
computes them: kernels (flash-linear-attention) take less.

    Q, adapter its layers d -> c, d -> w, w -> d in place of q, k, v, o
    forward    the larger of an MLP's and a delta net's, 4 (5 e + 5 w + 3 m) + b (c + w + 2 d) a token
    K          c + 2 w in place of the 4 q; and 4 (8 e + 6 w + 5 m + t / 64): what the rule keeps in fp32
    cache      D (4 t + 4 b c) a row

Rows are taken as long as the settings allow: all photos that a model sees at `model.max_pixels`, all of
`model.max_text_tokens`. Left out: the libraries (0.6 GiB of a process on the CPU, which `beside` adds; 0.3 to 0.5 GiB
of a CUDA context) and what allocators lose.
docs/lab/benchmarks.md compares it with real peaks. Attributes and embed halve their batch by themselves when memory
runs out, training does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..models.backends import server_of
from ..models.device import device_of
from ..models.families import FAMILIES
from ..models.precision import Choice, choose_precision
from ..models.presets import MAX_TOKENS, base_name, local_folder, pixel_limits, read_config, set_pixels
from ..settings import Settings
from ..store.checkpoints import Role
from ..training_settings import AgclSettings, ComposedSettings, TrainingSettings
from .shapes import CHUNK, KNOWN, Shape, read_shape
from .sizes import AGCL_BATCH, COMPOSED_BATCH, RECOMMENDER_BATCH, SFT_BATCH, VISION_BATCH

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a number: four bits, the scale of 64 of them in a byte, the scale of 256 scales in four."""
ADAPTER_BYTES = 16
PATCH_BYTES = 3 * 2 * 16**2 * 4
PATCHES = 4
"""A token's."""
PHOTOS = 3
"""Of a listing, where the catalog is not known."""
PROMPT_TOKENS, EMBED_TOKENS, PAIR_TOKENS = 72, 24, 64
"""Of the generator's instructions and chat marks, without those of a schema; of the embedder's; of the reranker's."""
WORD_BYTES = 4 * 4
"""Of a word's score: its copies in fp32."""
HEAD_TOKENS, HEAD_WORDS, HEAD_BYTES = 4096, 2**15, 29
"""TRL works out log-probabilities of so many tokens and words at a time. On the CPU its backward holds so many bytes of
each pair, on a GPU a fused kernel holds none.
"""
VISION_HEAD_TOKENS = 512
"""Of which train-vision works out the scores at a time (saga/replay.py)."""
LIBRARIES = 600 * 2**20
"""Bytes that a process on the CPU holds before any model is loaded."""
Stage = Literal[
    "attributes",
    "embed",
    "train-agcl",
    "train-sft",
    "train-rar",
    "train-rerank",
    "train-composed",
    "train-recommender",
    "train-vision",
]
ROLES: tuple[Role, Role] = ("generator", "embedder")
LOWER: dict[Stage, tuple[str, ...]] = {
    "attributes": ("attributes.batch_size", "model.max_pixels"),
    "embed": ("embed.batch_size", "model.max_pixels"),
    "train-agcl": ("agcl.chunk_tokens", "agcl.activation_checkpointing=true", "model.max_pixels"),
    "train-sft": ("sft.chunk_size", "sft.activation_checkpointing=true", "model.max_pixels"),
    "train-rar": ("rar.chunk_answers", "rar.activation_checkpointing=true", "rar.rollout_answers"),
    "train-composed": ("composed.chunk_tokens", "composed.activation_checkpointing=true", "model.max_pixels"),
    "train-recommender": (
        "recommender.chunk_size",
        "recommender.chunk_answers",
        "recommender.activation_checkpointing=true",
        "recommender.rollout_answers",
    ),
    "train-vision": (
        "vision.chunk_answers",
        "vision.chunk_photos",
        "vision.activation_checkpointing=true",
        "vision.rollout_answers",
        "vision.max_new_tokens",
    ),
    "train-rerank": ("rerank.chunk_size", "rerank.activation_checkpointing=true", "model.max_pixels"),
}


@dataclass(frozen=True)
class StageMemory:
    """Bytes at the peak of a stage, what of them are weights, and the settings to lower where that is too much."""

    stage: Stage
    peak_bytes: int
    weight_bytes: int
    lower: tuple[str, ...]
    cuda: bool
    chosen: Choice
    """Of the weights, and why."""

    def beside(self, measured: int) -> int:
        """Put the estimate in the terms of a measured peak, to be shown beside it: on the CPU that is of the whole
        process, its libraries included. Never below it, since the longest rows take no less than those measured.
        """
        return max(self.peak_bytes + (0 if self.cuda else LIBRARIES), measured)

    def advice(self, memory: int) -> str:
        """Say what to do on a device with so many bytes; "" where the stage fits."""
        if self.peak_bytes <= memory:
            return ""
        if self.weight_bytes > memory:
            return "the weights alone do not fit: a smaller model, or model.precision=nf4"
        return f"lower {', then '.join(self.lower)}"


@dataclass(frozen=True)
class Model:
    """A base as it would be loaded: `bytes` is b, `four_bit` that its linear layers are in NF4."""

    shape: Shape
    bytes: int
    four_bit: bool
    image_tokens: int
    cuda: bool
    packs_answers: bool
    chosen: Choice

    @property
    def weights(self) -> int:
        """Return the bytes of the weights."""
        s = self.shape
        linear = sum(times * inputs * outputs for times, inputs, outputs in s.linears()) if self.four_bit else 0
        return round(self.bytes * (s.numbers - linear) + NF4_BYTES * linear)

    def adapter(self, rank: int) -> int:
        """Return the bytes of an adapter in training: weights, gradients and AdamW's moments."""
        return ADAPTER_BYTES * rank * sum(times * (inputs + outputs) for times, inputs, outputs in self.shape.linears())

    def forward(self, tokens: int, images: int) -> int:
        """Return bytes above the weights of reading `tokens`, `images` photos among them."""
        s = self.shape
        delta = s.deltas
        layer = 3 * self.bytes * (s.hidden + s.mlp)
        if delta.layers:
            rule = 4 * (5 * delta.keys + 5 * delta.values + 3 * delta.chunk)
            layer = max(layer, rule + self.bytes * (delta.mixed + delta.values + 2 * s.hidden))
        unpacked = self.bytes * s.hidden * s.mlp if self.four_bit else 0
        patches = images * self.image_tokens * PATCHES
        return max(layer * tokens + unpacked, 20 * self.bytes * patches * s.tower) + patches * PATCH_BYTES

    def training(self, training: TrainingSettings, tokens: int, images: int) -> int:
        """Return bytes above the weights of learning from `tokens`: the adapter, a forward, and what it keeps for the
        backward (K of each layer; with activation checkpointing each layer's input, and one K).
        """
        s, delta = self.shape, self.shape.deltas
        kept = [(s.attention, self._kept(training, 4 * s.query, 5 * s.hidden + s.query))]
        if delta.layers:
            rule = 4 * (8 * delta.keys + 6 * delta.values + 5 * delta.chunk + delta.state // CHUNK)
            own = self._kept(training, delta.mixed + 2 * delta.values, 4 * s.hidden + delta.values)
            kept.append((delta.layers, own + rule))
        layers = sum(times * each for times, each in kept)
        if training.activation_checkpointing:
            layers = s.layers * self.bytes * s.hidden + max(each for _, each in kept)
        return self.adapter(training.rank) + self.forward(tokens, images) + tokens * layers

    def tower(self, training: TrainingSettings, images: int) -> int:
        """Return bytes above the weights of training the tower on so many photos, all its layers kept or one."""
        s, patches = self.shape, images * self.image_tokens * PATCHES
        layer = 40 * self.bytes * s.tower
        kept = s.tower_layers * self.bytes * s.tower + layer if training.activation_checkpointing else 0
        return patches * (PATCH_BYTES + 20 * self.bytes * s.tower + (kept or s.tower_layers * layer))

    def _kept(self, training: TrainingSettings, mixer: int, inputs: int) -> int:
        """Return K but for the delta rule, of a layer in whose attention or delta net so many numbers are kept;
        `inputs` are those of its LoRA layers but for the MLP's last.
        """
        s, dropout = self.shape, bool(training.lora_dropout)
        copied = inputs + s.mlp
        kept = 8 * s.hidden + self.bytes * (mixer + 3 * s.mlp)
        kept += 4 * copied if dropout or self.bytes == 2 else self.bytes * (2 * s.hidden + s.mlp)
        return kept + ((1 if self.cuda else 4) * copied if dropout else 0)

    def cache(self, tokens: int, rows: int) -> int:
        """Return the bytes of keys and values of so many tokens, and of the states of so many rows."""
        s = self.shape
        states = s.deltas.layers * (4 * s.deltas.state + 4 * self.bytes * s.deltas.mixed)
        return 2 * self.bytes * s.keys * s.attention * tokens + states * rows

    def scores(self, tokens: int) -> int:
        """Return the bytes of the scores of all words, for so many tokens."""
        return WORD_BYTES * self.shape.words * tokens

    def chunked_scores(self, tokens: int) -> int:
        """Return the bytes of the same in TRL's chunks, with their gradient."""
        pairs = min(tokens, HEAD_TOKENS) * min(self.shape.words, HEAD_WORDS)
        return pairs * (self.bytes + (0 if self.cuda else HEAD_BYTES))


def load_model(settings: Settings, role: Role, *, training: bool) -> Model | None:
    """Read the shape of `role`'s model from its files or the presets'; None where neither is at hand. The precision is
    that of a training or of reading.
    """
    name = base_name(settings.model, role)
    folder = local_folder(settings.model, role)
    if folder is not None:
        kind, shape = str(read_config(folder, name)["model_type"]), read_shape(folder, name)
    elif name in KNOWN:
        kind, shape = KNOWN[name]
    else:
        return None
    # A card that the settings name counts, whether it is there or not.
    family = FAMILIES[kind]
    cuda = settings.model.device == "cuda" or device_of(settings.model) == "cuda"
    chosen = choose_precision(settings.model, family.trained_in, lambda: shape.numbers, training=training)
    precision = chosen.precision
    half = precision == "bf16" or (precision == "nf4" and cuda)
    unit = family.token_side**2
    limit = set_pixels(settings.model, role)[1]
    most = pixel_limits(folder, settings.model, role)[1] if folder else limit or MAX_TOKENS * unit
    return Model(shape, 2 if half else 4, precision == "nf4", max(1, most // unit), cuda, family.packs_answers, chosen)


def estimate_stages(settings: Settings, photos: int = PHOTOS) -> list[StageMemory]:
    """Estimate the stages whose models are known and run here, not behind an endpoint, in the order of a cycle.

    `photos` is the number of a listing's photos where the settings say that a model reads all of them.
    """
    here = {role for role in ROLES if server_of(settings, role) is None}
    generator, embedder = (load_model(settings, role, training=False) if role in here else None for role in ROLES)
    policy, learner = (load_model(settings, role, training=True) if role in here else None for role in ROLES)
    found: list[StageMemory] = []

    def add(stage: Stage, model: Model, above: int, weights: int = 0) -> None:
        weights = weights or model.weights
        found.append(StageMemory(stage, weights + above, weights, LOWER[stage], model.cuda, model.chosen))

    shown, seen = settings.model.generator_images or photos, settings.model.embedder_images or photos
    if generator is not None and policy is not None:
        add("attributes", generator, _attributes(settings, generator, shown))
        add("train-sft", policy, _sft(settings, policy, shown))
    if embedder is not None and learner is not None:
        rows = settings.embed.batch_size
        add("embed", embedder, embedder.forward(rows * _item(settings, embedder, seen), rows * seen))
        vectors = 2 * (settings.agcl.batch_size or AGCL_BATCH)
        add("train-agcl", learner, _contrastive(settings, settings.agcl, vectors, learner, seen))
    if policy is not None and embedder is not None:
        # Both models are loaded as the one that is trained, so that they can be one.
        model = settings.model.model_copy(update={"precision": policy.chosen.precision})
        rewarder = load_model(settings.model_copy(update={"model": model}), "embedder", training=True)
        shared = base_name(settings.model, "generator") == base_name(settings.model, "embedder")
        if rewarder is not None:
            weights = policy.weights + (0 if shared else rewarder.weights)
            add("train-rar", policy, _rar(settings, policy, rewarder, shown, seen), weights)
    if policy is not None:  # the embedder that finds near listings is gone by then
        add("train-rerank", policy, _rerank(settings, policy, shown))
        add("train-recommender", policy, _recommender(settings, policy))
        add("train-vision", policy, _vision(settings, policy))
    if learner is not None:
        vectors = 4 * (settings.composed.batch_size or COMPOSED_BATCH)  # of two captions, too
        add("train-composed", learner, _contrastive(settings, settings.composed, vectors, learner, seen))
    return found


def _prompt(settings: Settings, model: Model, photos: int) -> int:
    """Return tokens that the generator reads of a product."""
    return photos * model.image_tokens + settings.model.max_text_tokens + PROMPT_TOKENS


def _item(settings: Settings, model: Model, photos: int) -> int:
    """Return tokens that the embedder reads: attributes take their part of `max_text_tokens`, or all of it and more."""
    text = max(settings.model.max_text_tokens, settings.attributes.max_new_tokens)
    return photos * model.image_tokens + text + EMBED_TOKENS


def _attributes(settings: Settings, model: Model, photos: int) -> int:
    rows, prompt = settings.attributes.batch_size, _prompt(settings, model, photos)
    written = model.cache(rows * (prompt + settings.attributes.max_new_tokens), rows) + model.scores(rows)
    return model.forward(rows * prompt, rows * photos) + written


def _sft(settings: Settings, model: Model, photos: int) -> int:
    rows = min(settings.sft.chunk_size, settings.sft.batch_size or SFT_BATCH)
    new = settings.attributes.max_new_tokens
    if settings.sft.source == "pairs":
        photos, new = 2, settings.vision.max_new_tokens
    tokens = rows * (_prompt(settings, model, photos) + new)
    return model.training(settings.sft, tokens, rows * photos) + model.scores(rows * (new + 1))


def _rerank(settings: Settings, model: Model, photos: int) -> int:
    """Return the bytes of a chunk: each query in a row with its positive and each negative, a row two listings; of the
    scores the verdict's alone.
    """
    rows = settings.rerank.chunk_size * (1 + settings.rerank.negatives)
    tokens = rows * (2 * (photos * model.image_tokens + settings.model.max_text_tokens) + PAIR_TOKENS)
    return model.training(settings.rerank, tokens, 2 * rows * photos) + model.scores(rows)


def _recommender(settings: Settings, model: Model) -> int:
    """Return the bytes of the larger of both stages: a chunk of SFT, or answers that are sampled, then learnt from."""
    own = settings.recommender
    new = own.answers * (own.item_tokens + 2)
    prompt = (own.history + own.candidates) * (own.item_tokens + 1) + PROMPT_TOKENS
    if settings.reasoning.share:
        prompt += settings.reasoning.max_new_tokens
    rows = min(own.chunk_size, own.batch_size or RECOMMENDER_BATCH)
    supervised = model.training(own, rows * (prompt + new), 0) + model.scores(rows * (new + 1))
    prompts = min(own.prompts, max(1, own.rollout_answers // own.group))
    groups, answers = max(1, own.chunk_answers // own.group), prompts * own.group
    sampled = (
        model.forward(prompts * prompt, 0) + model.cache(answers * (prompt + new), answers) + model.scores(answers)
    )
    tokens = groups * (prompt + own.group * new) if model.packs_answers else own.chunk_answers * (prompt + new)
    learnt = model.training(own, tokens, 0) + model.chunked_scores(max(own.group, own.chunk_answers) * new)
    return max(supervised, model.adapter(own.rank) + sampled, learnt)


def _vision(settings: Settings, model: Model) -> int:
    """Return the bytes of the largest part of a step: a chunk of photos through the tower, answers that are sampled, or
    learnt from; and what the tower made of the batch, with its gradient.
    """
    own = settings.vision
    new, photos = own.max_new_tokens, own.batch_size or VISION_BATCH
    prompt = 2 * model.image_tokens + PROMPT_TOKENS + PAIR_TOKENS
    kept = 3 * 4 * photos * model.image_tokens * model.shape.hidden
    pairs = min(own.pairs, max(1, own.rollout_answers // own.group))
    answers, groups = pairs * own.group, max(1, own.chunk_answers // own.group)
    sampled = model.forward(pairs * prompt, 0) + model.cache(answers * (prompt + new), answers) + model.scores(answers)
    tokens = groups * prompt + own.chunk_answers * new if model.packs_answers else own.chunk_answers * (prompt + new)
    learnt = model.training(own, tokens, 0) + model.scores(min(VISION_HEAD_TOKENS, own.chunk_answers * new))
    tower = model.tower(own, min(own.chunk_photos, photos))
    return model.adapter(own.rank) + kept + max(sampled, learnt, tower)


def _contrastive(
    settings: Settings, own: AgclSettings | ComposedSettings, vectors: int, model: Model, photos: int
) -> int:
    """Return the bytes of a chunk, and of the `vectors` of the whole batch with their gradients and similarities."""
    length = _item(settings, model, photos)
    rows = max(1, own.chunk_tokens // length)
    kept = 4 * 4 * (vectors * model.shape.hidden + (vectors // 2) ** 2)
    return model.training(own, rows * length, rows * photos) + kept


def _rar(settings: Settings, generator: Model, embedder: Model, shown: int, seen: int) -> int:
    """Estimate policy and frozen embedder: answers are sampled, rewarded and learnt from, one after the other."""
    rar, new = settings.rar, settings.attributes.max_new_tokens
    prompt, item = _prompt(settings, generator, shown), _item(settings, embedder, seen)
    prompts, groups = min(rar.prompts, max(1, rar.rollout_answers // rar.group)), max(1, rar.chunk_answers // rar.group)
    answers, rows = prompts * rar.group, settings.embed.batch_size
    sampled = generator.forward(prompts * prompt, prompts * shown)
    sampled += generator.cache(answers * (prompt + new), answers) + generator.scores(answers)
    rewarded = embedder.forward(rows * (new + EMBED_TOKENS), seen) + embedder.cache(rows * item, rows)
    tokens, images = groups * (prompt + rar.group * new), groups * shown
    if not generator.packs_answers:
        tokens, images = rar.chunk_answers * (prompt + new), rar.chunk_answers * shown
    learnt = generator.training(rar, tokens, images)
    learnt += generator.chunked_scores(max(rar.group, rar.chunk_answers) * new)
    return max(generator.adapter(rar.rank) + max(sampled, rewarded), learnt)
