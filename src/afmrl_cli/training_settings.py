"""The settings of the trainings: what all have, and their sections of `afmrl.toml`: [agcl], [sft], [rar], [rerank],
[composed], [recommender].
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .section import Names, Section, as_number

Weights = Literal["paper", "negatives", "graded", "constant"]


class TrainingSettings(Section):
    """What every training has: optimiser, adapter, states."""

    role: ClassVar[Literal["embedder", "generator"]]
    """Whose base is trained."""
    rates: ClassVar[tuple[float, float]]
    """The peak learning rate of the built-in model and of all others: the smaller a model, the larger its steps."""
    schedule: ClassVar[Literal["linear", "cosine"]] = "linear"
    """The learning rate rises over the warm-up, then falls to 0 along a line."""
    weight_decay: ClassVar[float] = 0.0
    clip: ClassVar[float] = 1.0
    """Largest length of the gradient."""
    alpha: ClassVar[float] = 64.0
    """Scale of the adapter: what it adds is times alpha / rank."""

    steps: int = Field(0, ge=0, description="Optimizer steps; 0: as many as the epochs take.")
    learning_rate: float = Field(0.0, ge=0, description="Peak learning rate; 0: 1e-3 for nano, 5e-5 for all others.")
    warmup: float = Field(0.1, ge=0, le=1, description="Share of the steps over which the learning rate rises.")
    rank: Annotated[Literal[8, 16, 32, 64, 128, 256], BeforeValidator(as_number)] = Field(
        16, description="Rank of the adapter, one that vLLM can serve."
    )
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the adapter.")
    activation_checkpointing: bool | None = Field(
        None, description="Save memory for a third more time; empty: false for nano, true for all others."
    )
    save_every: int = Field(20, ge=1, description="Steps between two saved states: what a kill can cost.")
    seed: int = Field(0, description="Seed: another seed, another run.")

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """Return what was a setting once: role and rates never were."""
        never = ("role", "rates", "grpo_rates")
        return {name: value for name, value in super().constants().items() if name not in never}


class AgclSettings(TrainingSettings):
    """Training of the embedder: loss, pairs, batches, optimiser."""

    role = "embedder"
    rates = (1e-3, 5e-5)
    mask_margin: ClassVar[float] = 0.1
    """delta: by how much more similar than the positive a negative must be, in cosine, to be masked or reported."""
    bm25_tokens: ClassVar[Literal["values", "pairs"]] = "values"
    """B counts the words of values, not key=value as one."""
    bm25_normalise: ClassVar[bool] = False
    bm25_scale: ClassVar[float] = 1.0
    symmetric: ClassVar[bool] = False
    """Only queries search for candidates."""
    cluster: ClassVar[int] = 8
    """Neighbours that stand together in a batch."""

    loss: Literal["agcl", "infonce"] = Field("agcl", description="Loss; infonce: all negatives weigh the same.")
    temperature: float = Field(0.05, gt=0, description="Temperature tau of the loss; VLM2Vec's is 0.02.")
    weights: Weights = Field(
        "negatives",
        description="How attributes weigh negatives; paper: the positive too; graded: by how much each shares with the "
        "query, over three nats; constant: all alike, without attributes.",
    )
    mask: bool = Field(
        False, description="Leave out negatives that are more similar than the positive by 0.1, as the paper does."
    )
    attributes: Literal["generated", "given"] = Field(
        "generated", description="Attributes that weigh; given: the catalog's own columns, queries are then plain."
    )
    given: Names = Field(
        [], description="Columns that weigh with attributes = given; empty: all that are no other field."
    )
    pairs: Names = Field([], description="listings, photos, image-text; empty: the best that each listing offers.")
    attribute_dropout: float = Field(0.5, ge=0, le=1, description="Share of queries that lose their attributes.")
    share: float = Field(
        1.0, gt=0, le=1, description="Share of the training products, a sample that follows from the seed."
    )
    batches: Literal["auto", "random", "category", "neighbours"] = Field(
        "auto", description="How batches are filled: at random, by category, or with similar products."
    )
    batch_size: int = Field(
        0,
        ge=0,
        description="Pairs that are each other's negatives, over all processes; 0: by the catalog, 128 at most.",
    )
    chunk_tokens: int = Field(4096, ge=1, description="Tokens that are trained on at a time; lower it for less memory.")
    epochs: float = Field(
        0.0, ge=0, description="Times through all pairs; 0: 3, on a small catalog as many as make up 30 steps."
    )
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a run, 50 steps apart at most."
    )
    validation_queries: int = Field(500, ge=1, description="Most validation queries.")
    validation_pairs: Literal["", "listings", "photos", "image-text"] = Field(
        "", description="Kind of the validation queries; empty: the first that the catalog offers, as in eval."
    )
    validation_enrich: Literal["", "none", "query", "both"] = Field(
        "", description="Which side has attributes in validation; empty: as embed.enrich."
    )
    best_by: Literal["recall@1", "recall@5", "recall@10"] = Field(
        "recall@1", description="Validation metric by which the adapter is chosen."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard files too; needs the package tensorboard.")
    name: str = Field("", description="Name of the checkpoint; empty: embedder-1, embedder-2, ...")


class SftSettings(TrainingSettings):
    """Teaching the generator by examples: targets, batches, optimiser."""

    role = "generator"
    rates = (4e-3, 1e-4)
    key_dropout: ClassVar[float] = 0.2
    """Of targets from columns a key is dropped this often, times the share of listings without it."""

    source: Literal["", "teacher", "columns", "file", "pairs"] = Field(
        "",
        description="Right answers: a generator's, the columns', a file's; pairs: about two photos, for train-vision; "
        "empty: what is named, else another generator's stored answers, else the columns.",
    )
    teacher: str = Field("", description="Whose stored attributes: generator id, model folder or model name.")
    columns: Names = Field([], description="Columns to learn; empty: the schema's keys, without a schema all attr_*.")
    file: str = Field("", description="Table with listing ids and attributes, relative to the catalog's folder.")
    max_products: int = Field(20_000, ge=1, description="Products to learn from; of more, a fixed sample.")
    batch_size: int = Field(0, ge=0, description="Products in a step; 0: by the catalog, 32 at most.")
    chunk_size: int = Field(
        0,
        ge=0,
        description="Products in memory at a time; 0: 8, with other models than nano 2; lower it for less memory.",
    )
    epochs: float = Field(
        0.0, ge=0, description="Times through all products; 0: 3, on a small catalog as many as make up 40 steps."
    )
    learning_rate: float = Field(0.0, ge=0, description="Peak learning rate; 0: 4e-3 for nano, 1e-4 for all others.")
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a run, 50 steps apart at most."
    )
    validation_products: int = Field(200, ge=1, description="Most validation products.")
    best_by: Literal["accuracy", "exact", "valid"] = Field(
        "accuracy", description="Validation metric by which the adapter is chosen."
    )
    name: str = Field("", description="Name of the checkpoint; empty: generator-1, generator-2, ...")


class RarSettings(TrainingSettings):
    """Training of the generator by the embedder's reward: environment, reward, GRPO, watchdog."""

    role = "generator"
    rates = (3e-4, 1e-5)
    eta: ClassVar[float] = -0.1
    """Reward of an invalid answer, in place of the recall."""
    resample: ClassVar[int] = 0
    """Groups with zero reward variance stay."""
    epsilon: ClassVar[float] = 0.2
    """The clip; nothing is clipped while updates = 1."""
    updates: ClassVar[int] = 1
    """Optimizer steps for each batch of answers."""
    scale: ClassVar[Literal["group", "batch", "none"]] = "group"
    """Advantages are divided by the deviation of the group."""
    shared_prefix: ClassVar[bool] = True
    """The prompt is run once for a group, not once for each answer."""
    lora_dropout: ClassVar[float] = 0.0  # type: ignore[misc]
    """With dropout the KL would not start at 0."""

    query: Literal["auto", "listings", "photos", "photo-to-text", "text-to-photos"] = Field(
        "auto",
        description="What queries and gallery show; auto: the first of these that the catalog offers often enough.",
    )
    queries: int = Field(512, ge=1, description="Queries to learn from; those whose answers differ are preferred.")
    gallery: int = Field(10_000, ge=0, description="Training listings that are searched; 0: all.")
    reward: Literal["auto", "recall", "rank"] = Field(
        "auto",
        description="Reward of an answer; recall: recall@k; rank: 1/rank; auto: recall where it differs within a "
        "quarter of the groups, else rank.",
    )
    k: int = Field(
        0,
        ge=0,
        description="k of the recall that is the reward; 0: the k by which most groups of answers differ, 50 at most.",
    )
    least_spread: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Least share of sampled groups whose answers get different rewards; with fewer RAR does not train.",
    )
    group: int = Field(8, ge=2, description="G: answers to one query that are compared with each other.")
    prompts: int = Field(16, ge=1, description="Queries a step.")
    temperature: float = Field(1.0, gt=0, description="Temperature of the sampled answers.")
    beta: float = Field(0.001, ge=0, description="Weight of the KL to the policy that training starts from.")
    loss: Literal["dr_grpo", "dapo", "bnpo", "grpo", "pairs"] = Field(
        "dr_grpo",
        description="How token losses are summed; grpo prefers short right and long wrong answers; pairs (an "
        "experiment): one importance ratio for each attribute.",
    )
    from_base: bool = Field(False, description="Start from the bare base, without SFT.")
    chunk_answers: int = Field(8, ge=1, description="Answers that are trained on at a time; lower it for less memory.")
    rollout_answers: int = Field(
        0,
        ge=0,
        description="Answers sampled at a time, in whole groups; 0: 1024, with other models than nano 16.",
    )
    steps: int = Field(
        0,
        ge=0,
        description="Optimizer steps; 0: every query comes three times, in 200 steps if that is enough for once.",
    )
    learning_rate: float = Field(0.0, ge=0, description="Peak learning rate; 0: 3e-4 for nano, 1e-5 for all others.")
    save_every: int = Field(5, ge=1, description="Steps between two saved states: what a kill can cost.")
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a run, 25 steps apart at most."
    )
    validation_queries: int = Field(500, ge=1, description="Most held-out queries, of the validation split.")
    margin: float = Field(
        0.1, gt=0, description="Stop when the valid share or held-out recall (or MRR) drops by this much."
    )
    name: str = Field("", description="Name of the checkpoint; empty: generator-1, generator-2, ...")


class RerankSettings(TrainingSettings):
    """Training of the reranker: pairs, batches, optimiser."""

    role = "generator"
    rates = (2e-3, 1e-4)
    best_by: ClassVar[Literal["mrr"]] = "mrr"
    """hit@1 of a few dozen queries goes up and down by whole points; the reciprocal rank tells more of each."""

    pairs: Names = Field([], description="listings, photos, image-text; empty: the best that each listing offers.")
    negatives: int = Field(1, ge=1, description="Near listings of other products that each query is compared with.")
    candidates: int = Field(
        20, ge=2, description="Nearest listings, by the embedder, that these are sampled from, and validation reranks."
    )
    batch_size: int = Field(0, ge=0, description="Queries in a step; 0: by the catalog, 16 at most.")
    chunk_size: int = Field(
        0,
        ge=0,
        description="Queries in memory at a time; 0: 8, with other models than nano 1.",
    )
    epochs: float = Field(
        0.0, ge=0, description="Times through all queries; 0: 3, on a small catalog as many as make up 60 steps."
    )
    learning_rate: float = Field(0.0, ge=0, description="Peak learning rate; 0: 2e-3 for nano, 1e-4 for all others.")
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a run, 50 steps apart at most."
    )
    validation_queries: int = Field(200, ge=1, description="Most validation queries.")
    name: str = Field("", description="Name of the checkpoint; empty: reranker-1, reranker-2, ...")


class ComposedSettings(TrainingSettings):
    """Training for composed queries, a photo and a change: both stages, triplets, losses, optimiser."""

    role = "embedder"
    rates = (1e-3, 5e-5)
    best_by: ClassVar[Literal["mrr"]] = "mrr"
    """A validation split has few triplets, of which recall at one k goes up and down by whole points."""

    stages: Literal["both", "batch", "bank"] = Field(
        "both",
        description="batch: both sides learn, negatives are those of the batch; bank: the query side learns, negatives "
        "are all training listings; or both, one after the other.",
    )
    windows: Names = Field(
        [],
        description="Triplets to learn from: variants, near, far; empty: all, without far ones where others are 100.",
    )
    temperature: float = Field(0.05, gt=0, description="Temperature tau of the losses.")
    caption_weight: float = Field(
        0.5, ge=0, description="Weight of the captions, of references and of targets each, in the first stage; 0: none."
    )
    perturbed: float = Field(
        0.0, ge=0, description="Weight of captions with a value replaced as negatives, in the second stage; 0: none."
    )
    attribute_dropout: float = Field(
        0.5, ge=0, le=1, description="Share of queries that lose their reference's known attributes."
    )
    batch_size: int = Field(0, ge=0, description="Triplets in a step; 0: by their number, 64 at most.")
    chunk_tokens: int = Field(4096, ge=1, description="Tokens that are trained on at a time; lower it for less memory.")
    epochs: float = Field(
        0.0,
        ge=0,
        description="Times through all triplets, in each stage; 0: 3, in 40 steps at least and 1,500 at most.",
    )
    steps: int = Field(0, ge=0, description="Optimizer steps of each stage; 0: as many as the epochs take.")
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a stage, 50 steps apart at most."
    )
    validation_queries: int = Field(500, ge=1, description="Most validation queries.")
    name: str = Field("", description="Name of the checkpoint; empty: embedder-1, embedder-2, ...")


class RecommenderSettings(TrainingSettings):
    """Training of the recommender: what it reads, SFT, GRPO, and when that is stopped."""

    role = "generator"
    rates = (2e-3, 1e-4)
    grpo_rates: ClassVar[tuple[float, float]] = (3e-4, 1e-5)
    """Those of GRPO."""
    best_by: ClassVar[Literal["ndcg@10"]] = "ndcg@10"
    """Of the recommender's own order: fused with the retrieval, early steps would all look alike."""
    loss: ClassVar[Literal["dr_grpo"]] = "dr_grpo"
    scale: ClassVar[Literal["group"]] = "group"
    lora_dropout: ClassVar[float] = 0.0  # type: ignore[misc]
    """With dropout the KL would not start at 0."""
    history_dropout: ClassVar[float] = 0.1
    """Share of the questions of SFT without their history: what is likely anyhow, which ranking takes off."""

    stages: Literal["both", "sft", "grpo"] = Field(
        "both", description="sft: learn what came next; grpo: by reward, from a recommender on; or one after the other."
    )
    text: Names = Field(
        ["title", "attributes"],
        description="What a listing is called: title, brand, category, price, attributes, caption.",
    )
    item_tokens: int = Field(32, ge=4, description="Cut each listing's text to so many tokens.")
    history: int = Field(9, ge=1, description="Listings of a history that are read, the latest ones.")
    candidates: int = Field(10, ge=2, description="Listings to choose from, that which came next among them.")
    hard: float = Field(
        0.5, ge=0, le=1, description="Share of the wrong ones that the retrieval ranks high; the others are any."
    )
    answers: int = Field(3, ge=1, description="Listings that are written, the likeliest first.")
    shortlist: int = Field(20, ge=2, description="First listings of the retrieval that the recommender orders anew.")
    questions: int = Field(20_000, ge=1, description="Interactions to learn from; of more, a fixed sample.")
    batch_size: int = Field(0, ge=0, description="Interactions in a step; 0: by their number, 32 at most.")
    chunk_size: int = Field(
        0, ge=0, description="Interactions in memory at a time; 0: 16, with other models than nano 2."
    )
    epochs: float = Field(
        0.0, ge=0, description="Times through all interactions; 0: 3, in 100 steps at least and 2,000 at most."
    )
    learning_rate: float = Field(0.0, ge=0, description="Peak learning rate of SFT; 0: 2e-3 for nano, 1e-4 for others.")
    validate_every: int = Field(
        0, ge=0, description="Steps between two validations; 0: six in a stage, 50 steps apart at most."
    )
    validation_questions: int = Field(200, ge=1, description="Most validation interactions.")
    grpo_steps: int = Field(0, ge=0, description="Optimizer steps of GRPO; 0: half of those of SFT, 200 at most.")
    grpo_learning_rate: float = Field(
        0.0, ge=0, description="Peak learning rate of GRPO; 0: 3e-4 for nano, 1e-5 for all others."
    )
    group: int = Field(8, ge=2, description="G: answers to one question that are compared with each other.")
    prompts: int = Field(8, ge=1, description="Questions a step of GRPO.")
    temperature: float = Field(1.0, gt=0, description="Temperature of the sampled answers.")
    beta: float = Field(0.1, ge=0, description="Weight of the KL to what SFT has made.")
    chunk_answers: int = Field(16, ge=1, description="Answers that are trained on at a time; lower it for less memory.")
    rollout_answers: int = Field(
        0, ge=0, description="Answers sampled at a time, in whole groups; 0: 1024, with other models than nano 16."
    )
    constrained: bool | None = Field(
        None,
        description="Sample from the candidates' lines alone, for models too small to write them word for word; empty: "
        "true for nano, false for all others.",
    )
    inflation: float = Field(
        0.05,
        gt=0,
        description="Stop when the reward has risen by this much and the held-out ranking has not, twice in a row.",
    )
    save_every: int = Field(20, ge=1, description="Steps between two saved states: what a kill can cost.")
    name: str = Field("", description="Name of the checkpoint; empty: recommender-1, recommender-2, ...")
