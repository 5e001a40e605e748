"""Typed settings: the keys of `afmrl.toml`, the names of the flags and of the environment variables, in one place.

The key `embed.batch_size` is the flag `--batch-size` of `afmrl embed` (or `--set embed.batch_size=8` of any command)
and the variable `AFMRL_EMBED_BATCH_SIZE`. `sources.py` reads all three.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic.fields import FieldInfo

MAX_IMAGES = "max_images"
"""An earlier key of [model], still understood: now `generator_images` and `embedder_images`."""
BUILT_IN = "nano"
"""The name of the model that comes with the tool, which no folder of that name takes."""


def as_list(value: object) -> object:
    """A single string stands for a list of its comma-separated parts, so that flags and variables can say one."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(as_list)]


class Section(BaseModel):
    """Base of every table in `afmrl.toml`: unknown keys are errors, fields can't be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    _foreign: frozenset[str] = PrivateAttr(frozenset())

    @property
    def foreign(self) -> frozenset[str]:
        """Values that lead out of the folder and that nobody but the folder's own file has named (see `trust`)."""
        return self._foreign

    def mark(self, values: Iterable[str]) -> None:
        """Note `values` as foreign."""
        self._foreign = frozenset(values)


class Columns(Section):
    """Which column of the catalog holds what; an empty list means: find it by its common names."""

    id: Names = Field([], description="the listing's own number (SKU)")
    title: Names = []
    description: Names = []
    category: Names = []
    brand: Names = []
    image: Names = Field([], description="one or more columns with image paths")
    product_id: Names = Field([], description="identity shared by listings of one product (GTIN, EAN)")
    group_id: Names = Field([], description="joins the variants (colours, sizes) of one style")
    text: Names = Field([], description="own columns that become text (Material: wool); they stay filters and labels")


class CatalogSettings(Section):
    """How the retailer's file is read."""

    path: str = Field("", description="the catalog's file, one of this folder; empty: the only one there")
    columns: Columns = Columns()
    format: Literal["", "google", "shopify", "woocommerce", "csv", "tsv", "jsonl", "parquet", "xlsx", "xml"] = Field(
        "", description="empty: found from the content; a shop's export, or the file's kind for plain rows"
    )
    encoding: str = Field("", description="of a text file, such as cp1252; empty: found from the file")
    delimiter: str = Field("", description="of a CSV file; empty: found from the file")
    image_separator: str = Field("", description="between image paths in one cell; empty: | ; , or a line break")
    image_folder: str = Field(
        "",
        description="folder with photos named by id (A-1.jpg, A-1_2.jpg, A-1/front.jpg), for a catalog without paths",
    )
    bad_rows: Literal["skip", "fail"] = Field("skip", description="empty rows, rows without id, duplicate ids")
    bad_images: Literal["skip", "fail"] = Field("skip", description="missing or unreadable images")
    allow_outside: bool = Field(False, description="let image paths leave the catalog's folder")
    fetch_private: bool = Field(False, description="let fetch-images reach private networks and this machine")
    max_image_bytes: int = Field(30_000_000, gt=0, description="fetch-images refuses larger files")
    max_image_pixels: int = Field(50_000_000, gt=0, description="larger images are refused")
    max_field_chars: int = Field(1_000_000, gt=0, description="longer cells are refused")


class SplitSettings(Section):
    """Shares of the deterministic split by product identity."""

    validation: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of identities; empty: 0.1, of fewer than 400 rows 0.2, of fewer than 100 0.25",
    )
    test: float | None = Field(None, ge=0, lt=1, description="share of identities; empty: as for validation")
    salt: str = Field("afmrl", description="another salt, another split")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if (self.validation or 0.0) + (self.test or 0.0) >= 1:
            raise ValueError("validation + test must be below 1")
        return self


class ModelSettings(Section):
    """Which models, how precise, and how much they look at."""

    preset: Literal["nano", "paper", "qwen3"] = Field(
        "nano", description="nano: built in; paper: Qwen2-VL-2B embedder, Qwen2.5-VL-3B generator; qwen3: Qwen3-VL-2B"
    )
    generator: str = Field("", description="hub name or folder of a Qwen-VL; empty: the preset's")
    embedder: str = Field("", description="hub name or folder of a Qwen-VL; empty: the preset's")
    generator_revision: str = ""
    embedder_revision: str = ""
    generator_checkpoint: str = Field("", description="adapter from the checkpoint store; empty: the bare base")
    embedder_checkpoint: str = Field("", description="adapter from the checkpoint store; empty: the bare base")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "nf4", "bf16", "fp32"] = Field("auto", description="auto: nf4 on CUDA, fp32 on CPU")
    min_pixels: int = Field(0, ge=0, description="an image is scaled up to this; 0: the preset's")
    max_pixels: int = Field(0, ge=0, description="an image is scaled down to this; 0: the preset's")
    generator_images: int = Field(0, ge=0, description="photos of a listing that the generator looks at; 0: all")
    embedder_images: int = Field(0, ge=0, description="photos of a listing that the embedder looks at; 0: all")
    max_text_tokens: int = Field(
        256, ge=16, description="product text is cut to what attributes leave of this; image tokens never are"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_number_for_both(cls, given: object) -> object:
        """`max_images`, the one number of earlier versions, is taken for both models."""
        if not isinstance(given, dict) or MAX_IMAGES not in given:
            return given
        rest = {key: value for key, value in given.items() if key != MAX_IMAGES}
        return {"generator_images": given[MAX_IMAGES], "embedder_images": given[MAX_IMAGES], **rest}


class SchemaKey(Section):
    """One key of the attribute schema."""

    values: Names = Field([], description="allowed values; empty: any")
    multiple: bool = Field(False, description="several of the values at once, such as materials: cotton, elastane")
    categories: Names = Field([], description="only for products whose category starts with one of these")
    description: str = ""


class AttributeSettings(Section):
    """The schema and how attributes are generated."""

    keys: dict[str, SchemaKey] = Field({}, description="the schema, a table per key; empty: 3 to 8 open pairs")
    template: str = Field("", description="file with an own prompt template; empty: the built-in one")
    language: str = Field("", description="language of keys and values, such as Swedish; empty: left to the model")
    views: Names = Field(
        ["listing"],
        description="what is described: listing, text, photos (each), all-photos, rest, queries",
    )
    min_pairs: int = Field(1, ge=1)
    max_pairs: int = Field(12, ge=1)
    max_new_tokens: int = Field(64, ge=8)
    temperature: float = Field(0.0, ge=0, description="0: greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0
    batch_size: int = Field(
        32, ge=1, description="12 with other models than nano; halved by itself when memory runs out"
    )
    endpoint: str = Field("", description="URL of an OpenAI-compatible server instead of a local model")
    endpoint_model: str = Field("", description="the model's name there; --model on the command line")
    endpoint_schema: bool = Field(True, description="ask the endpoint for JSON by a schema (response_format)")
    concurrency: int = Field(8, ge=1, description="requests at a time to the endpoint")
    retries: int = Field(4, ge=0, description="of one request, after 429, 5xx, timeouts and cut connections")
    timeout: float = Field(60.0, gt=0, description="seconds for one request")


class EmbedSettings(Section):
    """Vectors and index."""

    enrich: Literal["none", "query", "both"] = Field("query", description="which side gets attribute text")
    query_instruction: str = "Find this product:"
    target_instruction: str = "Represent this product:"
    batch_size: int = Field(
        32, ge=1, description="16 with other models than nano; halved by itself when memory runs out"
    )
    index: Literal["auto", "flat", "hnsw", "ivf"] = Field("auto", description="auto: flat up to flat_limit, then ivf")
    flat_limit: int = Field(100_000, ge=1, description="vectors of 256 numbers; of longer ones, fewer")


class CacheSettings(Section):
    """What is computed once and kept under `.afmrl/cache`, where anything may be deleted at any time."""

    vision: bool = Field(True, description="keep what the vision tower makes of each photo, for all commands")
    gigabytes: float = Field(10.0, gt=0, description="at most; what was used longest ago goes first")


class SearchSettings(Section):
    """Search."""

    k: int = Field(10, ge=1)


class DedupeSettings(Section):
    """Duplicates."""

    neighbours: int = Field(
        10, ge=1, description="nearest listings, by vectors and by text, that each is compared with"
    )
    precision: float = Field(
        0.95,
        gt=0,
        le=1,
        description="share of right pairs to aim at; the threshold is chosen by it on known identities",
    )
    threshold: float = Field(0.0, ge=0, le=1, description="a score from which pairs are taken; 0: chosen by precision")
    verdicts: Names = Field(
        [], description="CSV files with confirmed and rejected pairs, relative to this folder; training respects them"
    )


class EvalSettings(Section):
    """Evaluation."""

    ks: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), BeforeValidator(as_list)] = [1, 5, 10]
    batch_size: int = Field(32, ge=1)
    max_queries: int = Field(0, ge=0, description="a fixed sample of the queries; 0: all")
    min_grade: int = Field(1, ge=1, description="the lowest grade in a qrels file that counts as relevant")
    depth: int = Field(1000, ge=1, description="products ranked for each query; mAP and MRR look no further")
    seed: int = 0
    systems: Names = Field([], description="more systems in the table: bm25, colors, base, fusion, clip:NAME, ...")
    labels: str = Field("", description="CSV file with labels by listing id, seen by the judging only")
    label: str = Field(
        "", description="which label coarse and composed go by; empty: category, or what variants differ in"
    )
    query_fields: Literal["", "all", "text", "title", "photos"] = Field("", description="what queries are made of")
    gallery_fields: Literal["", "all", "text", "photos"] = Field(
        "", description="what the gallery's listings are made of"
    )
    compare: Names = Field([], description="earlier runs to compare with: run folder, its name, or a TREC run file")
    merge: Names = Field([], description="runs of other seeds, averaged with this one query by query")
    max_drop: Names = Field([], description="METRIC=X: fail when a figure is more than X below the compared run")
    resamples: int = Field(2000, ge=100, le=1_000_000, description="draws of the randomisation test")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals; 1 - this is the tests' level")
    slices: Names = Field([], description="figures by: type, photos, variants, category, brand, any label; or all")
    neighbors: int = Field(5, ge=1, description="k of kNN accuracy")
    clusterings: int = Field(5, ge=1, description="k-means runs, each with a seed of its own")
    cluster_sample: int = Field(5000, ge=10, description="listings that are classified and clustered at most")


def _as_number(value: object) -> object:
    """ "16" from a flag or variable stands for 16: Literal takes no strings for numbers."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class TrainingSettings(Section):
    """What every training has: optimiser, adapter, states."""

    steps: int = Field(0, ge=0, description="0: as many as the epochs take")
    learning_rate: float = Field(0.0, ge=0, description="0: 1e-3 for nano, 5e-5 for all others")
    schedule: Literal["linear", "cosine"] = "linear"
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="largest length of the gradient")
    rank: Annotated[Literal[8, 16, 32, 64, 128, 256], BeforeValidator(_as_number)] = Field(
        16, description="of the adapter; what vLLM can serve"
    )
    alpha: float = Field(64.0, gt=0)
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    activation_checkpointing: bool = Field(
        False, description="less memory, a third more time; true with other models than nano"
    )
    save_every: int = Field(20, ge=1, description="steps that a kill can cost")
    seed: int = 0


class AgclSettings(TrainingSettings):
    """Training of the embedder: loss, pairs, batches, optimiser."""

    loss: Literal["agcl", "infonce"] = Field("agcl", description="infonce: all weights equal, no mask by similarity")
    temperature: float = Field(0.05, gt=0, description="tau; VLM2Vec's is 0.02")
    weight_positive: bool = Field(False, description="true: the paper's formula; else only negatives are weighted")
    mask: bool = Field(False, description="true, as in the paper: drop negatives more similar than the positive")
    mask_margin: float = Field(0.1, ge=-2, le=2, description="delta: by how much more, in cosine")
    bm25_tokens: Literal["values", "pairs"] = Field("values", description="words of values, or key=value as one")
    bm25_normalise: bool = Field(False, description="ours: BM25 divided by the query's own score, for graded weights")
    bm25_scale: float = Field(1.0, ge=0, description="ours: multiplies what goes into the tanh")
    symmetric: bool = Field(False, description="ours: candidates ask for queries too")
    attributes: Literal["generated", "given"] = Field(
        "generated", description="given: weights from the catalog's own columns, queries are then not enriched"
    )
    given: Names = Field([], description="which columns, with attributes = given; empty: all that are no other field")
    pairs: Names = Field([], description="listings, photos, image-text; empty: the best that each listing offers")
    attribute_dropout: float = Field(0.5, ge=0, le=1, description="share of queries that lose their attributes")
    share: float = Field(1.0, gt=0, le=1, description="of the training products, a sample that follows from the seed")
    batches: Literal["auto", "random", "category", "neighbours"] = Field("auto", description="how batches are filled")
    batch_size: int = Field(
        0,
        ge=0,
        description="pairs that are each other's negatives, over all processes; 0: by the catalog, 128 at most",
    )
    cluster: int = Field(8, ge=2, description="neighbours that stand together in a batch")
    chunk_tokens: int = Field(
        4096, ge=1, description="tokens that are in memory with a graph; lower it for less memory"
    )
    epochs: float = Field(0.0, ge=0, description="0: 3, and as many as make up 30 steps on a small catalog")
    validate_every: int = Field(
        0, ge=0, description="steps between two validations; 0: six in a run, 50 steps apart at most"
    )
    validation_queries: int = Field(500, ge=1)
    validation_pairs: Literal["", "listings", "photos", "image-text"] = Field(
        "", description="kind of the validation queries; empty: the first that the catalog offers, as eval asks"
    )
    validation_enrich: Literal["", "none", "query", "both"] = Field(
        "", description="which side has attributes in validation; empty: as embed.enrich"
    )
    best_by: Literal["recall@1", "recall@5", "recall@10"] = Field("recall@1", description="which adapter is kept")
    tensorboard: bool = Field(False, description="write TensorBoard files too; needs the package tensorboard")
    name: str = Field("", description="of the checkpoint; empty: embedder-1, embedder-2, ...")


class SftSettings(TrainingSettings):
    """Teaching the generator by examples: targets, batches, optimiser."""

    source: Literal["", "teacher", "columns", "file"] = Field(
        "",
        description="of the right answers: another generator's, the catalog's own columns, or a file; empty: the "
        "file or teacher that is named, another generator's stored attributes if there are any, else the columns",
    )
    teacher: str = Field("", description="whose stored attributes: generator id, model folder or model name")
    columns: Names = Field([], description="which columns; empty: the schema's keys, without a schema all attr_*")
    file: str = Field("", description="table with listing ids and attributes, relative to the catalog's folder")
    key_dropout: float = Field(
        0.2, ge=0, le=1, description="columns only: drops a key this often, times the share of listings without it"
    )
    max_products: int = Field(20_000, ge=1, description="products to learn from, a fixed sample of more")
    batch_size: int = Field(0, ge=0, description="products in a step; 0: by the catalog, 32 at most")
    chunk_size: int = Field(8, ge=1, description="products in memory at a time, at most; 2 with other models than nano")
    epochs: float = Field(0.0, ge=0, description="0: 3, and as many as make up 40 steps on a small catalog")
    learning_rate: float = Field(0.0, ge=0, description="0: 4e-3 for nano, 1e-4 for all others")
    validate_every: int = Field(
        0, ge=0, description="steps between two validations; 0: six in a run, 50 steps apart at most"
    )
    validation_products: int = Field(200, ge=1)
    best_by: Literal["accuracy", "exact", "valid"] = Field("accuracy", description="which adapter is kept")
    name: str = Field("", description="of the checkpoint; empty: generator-1, generator-2, ...")


class RarSettings(TrainingSettings):
    """Training of the generator by the embedder's reward: environment, reward, GRPO, watchdog."""

    query: Literal["auto", "listings", "photos", "photo-to-text", "text-to-photos"] = Field(
        "auto", description="what asks for what; auto: the first of these that the catalog offers often enough"
    )
    queries: int = Field(512, ge=1, description="queries to learn from, those of middling rank preferred")
    gallery: int = Field(10_000, ge=0, description="training listings that are searched; 0: all")
    reward: Literal["recall", "rank"] = Field("recall", description="rank: 2 at rank 1, 1 at 10, 0 from 100 on")
    k: int = Field(
        0, ge=0, description="of the recall that is the reward; 0: the median rank without attributes, 50 at most"
    )
    eta: float = Field(-0.1, description="reward of an invalid answer, in place of the recall")
    group: int = Field(8, ge=2, description="G: answers to one query that are compared with each other")
    prompts: int = Field(16, ge=1, description="queries a step")
    temperature: float = Field(1.0, gt=0, description="of the sampled answers")
    resample: int = Field(0, ge=0, description="times that groups whose answers are all worth the same are replaced")
    beta: float = Field(0.001, ge=0, description="weight of the KL to the policy that training starts from")
    epsilon: float = Field(0.2, gt=0, description="the clip; nothing is clipped while updates = 1")
    updates: int = Field(1, ge=1, description="optimiser steps for each batch of answers")
    loss: Literal["dr_grpo", "dapo", "bnpo", "grpo"] = Field(
        "dr_grpo", description="how token losses are summed; grpo prefers short right and long wrong answers"
    )
    scale: Literal["group", "batch", "none"] = Field("group", description="whose spread advantages are divided by")
    from_base: bool = Field(False, description="start from the bare base, without SFT")
    chunk_answers: int = Field(8, ge=1, description="answers in memory with a graph; lower it for less memory")
    rollout_answers: int = Field(
        1024, ge=1, description="answers sampled at a time, whole groups; 16 with other models than nano"
    )
    shared_prefix: bool = Field(True, description="run the prompt once for a group; false: once for each answer")
    steps: int = Field(0, ge=0, description="optimiser steps; 0: every query is asked three times, 200 at most")
    learning_rate: float = Field(0.0, ge=0, description="0: 1e-4 for nano, 1e-5 for all others")
    lora_dropout: float = Field(0.0, ge=0, le=0, description="always 0: with dropout the KL would not start at 0")
    save_every: int = Field(5, ge=1, description="steps that a kill can cost")
    validate_every: int = Field(
        0, ge=0, description="steps between two validations; 0: six in a run, 25 steps apart at most"
    )
    validation_queries: int = Field(500, ge=1, description="held-out queries, from the validation split")
    margin: float = Field(0.1, gt=0, description="fall of valid share or held-out recall that stops the run")
    name: str = Field("", description="of the checkpoint; empty: generator-1, generator-2, ...")


class CycleSettings(Section):
    """The closed loop: rounds, what is in them, and how a stage is accepted."""

    iterations: int = Field(1, ge=1, description="rounds of AGCL and RAR")
    share: float = Field(0.3, gt=0, le=1, description="of the training samples, from the second round on")
    infonce: bool = Field(False, description="train plain InfoNCE too, as a baseline")
    sft: Literal["auto", "yes", "no"] = Field("auto", description="auto: teach the generator where there are targets")
    protocol: Literal["", "identity", "photo", "fine", "coarse", "text", "composed", "queries"] = Field(
        "", description="of the evaluation; empty: what the catalog offers"
    )
    metric: str = Field("recall@1", description="the validation figure by which a stage is accepted")
    keep_worse: bool = Field(False, description="go on from a stage although its figure fell")
    undecided: Literal["accept", "reject"] = Field(
        "accept", description="what becomes of a stage where the validation split is too small to decide"
    )


FOR_OTHER_MODELS: dict[str, dict[str, dict[str, int | bool]]] = {
    "generator": {
        "attributes": {"batch_size": 12},
        "sft": {"chunk_size": 2, "activation_checkpointing": True},
        "rar": {"rollout_answers": 16, "activation_checkpointing": True},
    },
    "embedder": {"embed": {"batch_size": 16}, "agcl": {"activation_checkpointing": True}},
}
"""Defaults where the model of a role is not the built-in one, so that the presets' fit on a card of 8 or 6 GiB. They
cost time, and results are the same but for rounding and the dropout drawn."""


class Settings(Section):
    """All settings; `sources.load_settings` makes it. Some defaults depend on the models: `FOR_OTHER_MODELS`."""

    catalog: CatalogSettings = CatalogSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    attributes: AttributeSettings = AttributeSettings()
    embed: EmbedSettings = EmbedSettings()
    cache: CacheSettings = CacheSettings()
    agcl: AgclSettings = AgclSettings()
    sft: SftSettings = SftSettings()
    rar: RarSettings = RarSettings()
    cycle: CycleSettings = CycleSettings()
    search: SearchSettings = SearchSettings()
    dedupe: DedupeSettings = DedupeSettings()
    eval: EvalSettings = EvalSettings()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_models(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        tree = {name: _unresolved(section) for name, section in given.items()}
        model = tree.get("model", {})
        for role, sections in FOR_OTHER_MODELS.items():
            if isinstance(model, dict) and (model.get(role) or model.get("preset") or BUILT_IN) != BUILT_IN:
                for name, defaults in sections.items():
                    own = tree.get(name, {})
                    tree[name] = {**defaults, **own} if isinstance(own, dict) else own
        return tree


def field_of(key: str) -> FieldInfo:
    """Return the field of a dotted key such as `embed.batch_size`. KeyError where there is none."""
    table, _, rest = key.partition(".")
    field, table_type = Settings.model_fields[table], Settings.model_fields[table].annotation
    for name in filter(None, rest.split(".")):
        assert isinstance(table_type, type)
        assert issubclass(table_type, BaseModel)
        field = table_type.model_fields[name]
        table_type = field.annotation
    return field


def _unresolved(section: object) -> object:
    """A section as far as somebody has set it."""
    return section.model_dump(exclude_unset=True) if isinstance(section, Section) else section
