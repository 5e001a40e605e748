"""Typed settings: the keys of `afmrl.toml`, the names of the flags and of the environment variables, in one place.

The key `embed.batch_size` is the flag `--batch-size` of `afmrl embed` (or `--set embed.batch_size=8` of any command)
and the variable `AFMRL_EMBED_BATCH_SIZE`. `sources.py` reads all three; `reference.py` makes the page of all keys from
the descriptions here, which are the flags' help, too.
"""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .reasoning_settings import ReasoningSettings
from .recommend_settings import RecommendSettings
from .section import EndpointSettings, Names, Section, as_list
from .serve_settings import ServeSettings
from .training_settings import (
    AgclSettings,
    ComposedSettings,
    RarSettings,
    RecommenderSettings,
    RerankSettings,
    SftSettings,
)
from .vision_settings import VisionSettings

BUILT_IN = "nano"
"""The name of the model that comes with the tool, which no folder of that name takes."""


class Columns(Section):
    """Which column of the catalog holds what; an empty list means: find it by its common names."""

    id: Names = Field([], description="Column with the listing's own number (SKU).")
    title: Names = Field([], description="Column with the title.")
    description: Names = Field([], description="Columns with the description.")
    category: Names = Field([], description="Columns with the category.")
    brand: Names = Field([], description="Column with the brand.")
    image: Names = Field([], description="Columns with image paths.")
    product_id: Names = Field(
        [], description="Column with the identity that listings of one product share (GTIN, EAN)."
    )
    group_id: Names = Field([], description="Column that joins the variants (colours, sizes) of one style.")
    text: Names = Field(
        [], description="Own columns that are added to the text (Material: wool); they stay filters and labels."
    )


class CatalogSettings(Section):
    """How the retailer's file is read."""

    max_image_bytes: ClassVar[int] = 30_000_000
    """fetch-images refuses larger files."""
    max_field_chars: ClassVar[int] = 1_000_000
    """Longer cells are refused."""

    path: str = Field("", description="The catalog's file, one of this folder; empty: the only one there.")
    columns: Columns = Columns()
    format: Literal["", "google", "shopify", "woocommerce", "csv", "tsv", "jsonl", "parquet", "xlsx", "xml"] = Field(
        "", description="A shop's export, or the file's kind for plain rows; empty: found from the content."
    )
    encoding: str = Field("", description="Encoding of a text file, such as cp1252; empty: found from the file.")
    delimiter: str = Field("", description="Delimiter of a CSV file; empty: found from the file.")
    image_separator: str = Field("", description="Sign between image paths in one cell; empty: | ; , or a line break.")
    image_folder: str = Field(
        "",
        description="Folder with photos named by id (A-1.jpg, A-1_2.jpg, A-1/front.jpg), for a catalog without paths.",
    )
    bad_rows: Literal["skip", "fail"] = Field(
        "skip", description="What to do at empty rows, rows without id, duplicate ids."
    )
    bad_images: Literal["skip", "fail"] = Field("skip", description="What to do at missing or unreadable images.")
    allow_outside: bool = Field(False, description="Let image paths leave the catalog's folder.")
    fetch_private: bool = Field(False, description="Let fetch-images reach private networks and this machine.")
    max_image_pixels: int = Field(50_000_000, gt=0, description="Refuse larger images.")


class SplitSettings(Section):
    """Shares of the deterministic split by product identity."""

    validation: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of identities; empty: 0.1, of fewer than 400 rows 0.2, of fewer than 100 0.25.",
    )
    test: float | None = Field(None, ge=0, lt=1, description="Share of identities; empty: as for validation.")
    salt: str = Field("afmrl", description="Text that the split follows from: another salt, another split.")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if (self.validation or 0.0) + (self.test or 0.0) >= 1:
            raise ValueError("validation + test must be below 1")
        return self


class ModelSettings(Section):
    """Which models, how precise, and how much they see."""

    preset: Literal["auto", "nano", "light", "qwen3", "qwen3.5", "paper"] = Field(
        "auto",
        description="Models of both roles; auto: by shop and machine; nano: for drawn shops; light: no GPU, no "
        "generator; qwen3, qwen3.5: generators of 2B, Qwen3-VL-Embedding-2B; paper: the paper's.",
    )
    fetch: Literal["ask", "yes", "no"] = Field(
        "ask",
        description="Fetching of models that are not on this disk; ask: their size is shown, and a person at a "
        "terminal says yes.",
    )
    generator: str = Field("", description="Generator: hub name or folder of a Qwen-VL; empty: the preset's.")
    embedder: str = Field(
        "",
        description="Embedder: hub name or folder of a Qwen-VL, or of a CLIP, SigLIP or sentence-transformers model, "
        "which can't be trained; empty: the preset's.",
    )
    generator_revision: str = Field("", description="Revision of the generator on the hub; empty: the newest.")
    embedder_revision: str = Field("", description="Revision of the embedder on the hub; empty: the newest.")
    generator_checkpoint: str = Field(
        "", description="Adapter of the generator, from the checkpoint store; empty: none, the bare base."
    )
    embedder_checkpoint: str = Field(
        "", description="Adapter of the embedder, from the checkpoint store; empty: none, the bare base."
    )
    reranker_checkpoint: str = Field(
        "", description="Reranker, an adapter on the generator's base, from the checkpoint store; empty: none."
    )
    recommender_checkpoint: str = Field(
        "", description="Recommender, an adapter on the generator's base, from the checkpoint store; empty: none."
    )
    vision_checkpoint: str = Field(
        "",
        description="Vision encoder, trained on the generator's vision tower, from the checkpoint store: it embeds "
        "photos, in place of the embedder; empty: none.",
    )
    embed_template: Literal["auto", "plain", "qwen3-vl-embedding", "gme"] = Field(
        "auto", description="How the embedder's input is written; auto: as the model or its adapter was trained."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device; auto: CUDA where there is one.")
    precision: Literal["auto", "nf4", "bf16", "fp32"] = Field(
        "auto",
        description="Precision of the weights; auto: what fits on CUDA (`afmrl doctor` says why), fp32 on CPU.",
    )
    min_pixels: int = Field(0, ge=0, description="Scale smaller images up to so many pixels; 0: the preset's.")
    max_pixels: int = Field(0, ge=0, description="Scale larger images down to so many pixels; 0: the preset's.")
    generator_pixels: int = Field(0, ge=0, description="max_pixels of the generator; 0: as max_pixels says.")
    embedder_pixels: int = Field(0, ge=0, description="max_pixels of the embedder; 0: as max_pixels says.")
    generator_images: int = Field(0, ge=0, description="Photos of a listing that the generator sees; 0: all.")
    embedder_images: int = Field(0, ge=0, description="Photos of a listing that the embedder sees; 0: all.")
    max_text_tokens: int = Field(
        256, ge=16, description="Cut product text to the tokens that attributes leave of these; photos are never cut."
    )


class SchemaKey(Section):
    """One key of the attribute schema."""

    values: Names = Field([], description="Allowed values; empty: any.")
    multiple: bool = Field(False, description="Allow several of the values at once, such as materials: cotton, wool.")
    categories: Names = Field([], description="Only products whose category starts with one of these.")
    description: str = Field("", description="What the key means, for the generator.")


class AttributeSettings(EndpointSettings):
    """The schema and how attributes are generated."""

    top_p: ClassVar[float] = 1.0
    """Nothing is left out of the distribution that is sampled from."""

    keys: dict[str, SchemaKey] = Field({}, description="The schema, a table for each key; empty: 3 to 8 open pairs.")
    template: str = Field("", description="File with an own prompt template; empty: the built-in one.")
    language: str = Field("", description="Language of keys and values, such as Swedish; empty: left to the model.")
    views: Names = Field(
        ["listing"],
        description="What is described: listing, text, photos (each alone), all-photos, rest (without each photo), "
        "queries (those of `eval`).",
    )
    agreement: Literal["together", "vote", "majority"] = Field(
        "together",
        description="together: one answer from all photos; vote: one from each photo, and of each key the most "
        "frequent value; majority: only what more than half of the photos say.",
    )
    min_confidence: float = Field(
        0.0, ge=0, le=1, description="Leave out stored pairs that the generator was less sure of; 0: none."
    )
    min_pairs: int = Field(1, ge=1, description="Fewest pairs of a valid answer.")
    max_pairs: int = Field(12, ge=1, description="Most pairs of a valid answer.")
    max_new_tokens: int = Field(64, ge=8, description="Longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0, description="Temperature of sampling; 0: greedy.")
    seed: int = Field(0, description="Seed of sampling, and of --sample.")
    batch_size: int = Field(
        0,
        ge=0,
        description="Products at a time; 0: 32, with other models than nano 12; halved when memory runs out.",
    )
    endpoint_schema: bool = Field(True, description="Ask the endpoint for JSON by a schema (response_format).")

    @model_validator(mode="after")
    def _somebody_tells_the_confidence(self) -> Self:
        if self.min_confidence and self.endpoint and self.agreement == "together":
            raise ValueError(
                "min_confidence: an endpoint does not tell how sure it is of one answer; agreement = vote or majority "
                "asks it about each photo"
            )
        return self


class EmbedSettings(EndpointSettings):
    """Vectors and index."""

    flat_limit: ClassVar[int] = 100_000
    """Vectors of 256 numbers (of longer ones, fewer) up to which the index is flat."""

    endpoint_photos: bool = Field(
        True, description="Send the endpoint photos, as chat messages; false: text alone, as plain input."
    )
    enrich: Literal["none", "query", "both"] = Field("query", description="Which side gets attribute text.")
    query_instruction: str = Field(
        "", description="Instruction that the embedder gets with a query; empty: that of its template."
    )
    target_instruction: str = Field(
        "", description="Instruction that the embedder gets with a product; empty: that of its template."
    )
    batch_size: int = Field(
        0,
        ge=0,
        description="Products at a time; 0: 32, with other models than nano 16; halved when memory runs out.",
    )
    dimensions: int = Field(
        0,
        ge=0,
        description="Numbers of a vector that are kept, the first ones, for models trained so (Matryoshka); 0: all.",
    )
    vectors: Literal["fp32", "fp16", "int8"] = Field(
        "fp32", description="How a number of a stored vector is kept: in 4 bytes, in 2 or in 1; recall is reported."
    )
    index: Literal["auto", "flat", "hnsw", "ivf"] = Field(
        "auto", description="Kind of index; auto: flat up to 100,000 vectors of 256 numbers, then ivf."
    )


class CacheSettings(Section):
    """What is computed once and kept under `.afmrl/cache`, where anything may be deleted at any time."""

    vision: bool = Field(True, description="Keep the vision tower's output for each photo, for all commands.")
    gigabytes: float = Field(10.0, gt=0, description="Largest size; what was used longest ago goes first.")


class SearchSettings(Section):
    """Search."""

    k: int = Field(10, ge=1, description="How many results.")
    rerank: int = Field(
        0, ge=0, description="Read so many of the first results again with the trained reranker, in pairs; 0: none."
    )
    hybrid: Literal["auto", "no"] = Field(
        "auto",
        description="Rank by vectors, words and attributes together, weighted as `embed` found best; no: by vectors "
        "alone.",
    )
    collapse: Literal["no", "product", "style"] = Field(
        "no", description="One result for the listings of a product (product_id), or for the variants of a style."
    )
    known_attributes: bool = Field(
        True,
        description="With --change 'key: value', and in composed evaluations: the reference's known attributes, that "
        "key replaced, are part of the query.",
    )


class DedupeSettings(Section):
    """Duplicates."""

    neighbours: int = Field(
        10, ge=1, description="Nearest listings, by vectors and by text, that each is compared with."
    )
    precision: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of right pairs to aim at; the threshold is chosen by it on known identities.",
    )
    threshold: float = Field(0.0, ge=0, le=1, description="Take pairs from this score on; 0: chosen by precision.")
    rerank: bool = Field(
        False, description="Ask the trained reranker about the pairs that the other evidence leaves open."
    )
    verdicts: Names = Field(
        [], description="CSV files with confirmed and rejected pairs, relative to this folder; training respects them."
    )


class TripletSettings(Section):
    """Triplets for composed retrieval, made from the catalog."""

    attributes: Literal["auto", "given", "generated"] = Field(
        "auto",
        description="Whose attributes are compared: the shop's own columns, or what the generator wrote; auto: those "
        "that more listings have.",
    )
    per_product: int = Field(
        2, ge=1, description="Most triplets that a product is the reference of, and the target of, in each window."
    )
    key_share: float = Field(
        0.5, ge=0.5, le=1, description="Largest share of those that change one key alone, from 200 on; 1: any."
    )
    far: bool = Field(True, description="Make far pairs too, which differ in more than three keys.")
    seed: int = Field(0, description="Seed of the sampling.")
    verdicts: Names = Field([], description="CSV files with confirmed and rejected triplets, relative to this folder.")


class EvalSettings(Section):
    """Evaluation."""

    batch_size: ClassVar[int] = 32
    """Queries and listings at a time; halved when memory runs out."""
    confidence: ClassVar[float] = 0.95
    """Of the intervals; 1 - this is the tests' level."""
    neighbors: ClassVar[int] = 5
    """k of kNN accuracy."""
    clusterings: ClassVar[int] = 5
    """k-means runs, each with a seed of its own."""
    cluster_sample: ClassVar[int] = 5000
    """Listings that are classified and clustered at most."""

    ks: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), BeforeValidator(as_list)] = Field(
        [1, 5, 10], description="Cuts k of recall@k and hit@k."
    )
    max_queries: int = Field(0, ge=0, description="A fixed sample of so many queries; 0: all.")
    min_grade: int = Field(1, ge=1, description="Lowest grade in a qrels file that counts as relevant.")
    depth: int = Field(1000, ge=1, description="Products ranked for each query; mAP and MRR count no further.")
    seed: int = Field(0, description="Seed of samples and of the randomisation test.")
    systems: Names = Field(
        [], description="More rows in the table: bm25, colors, base, fusion, checkpoint:NAME, clip:NAME, ..."
    )
    labels: str = Field("", description="CSV file with labels by listing id, which only the judging sees.")
    label: str = Field(
        "", description="Label that coarse and composed go by; empty: category, or what variants differ in."
    )
    query_fields: Literal["", "all", "text", "title", "photos"] = Field(
        "", description="What queries are made of; empty: all, or what the protocol says."
    )
    gallery_fields: Literal["", "all", "text", "photos"] = Field(
        "", description="What the gallery's listings are made of; empty: all, or what the protocol says."
    )
    compare: Names = Field(
        [], description="Earlier runs to compare with, seeds of one together: run folder, its name, or a TREC run file."
    )
    merge: Names = Field([], description="Runs of other seeds, averaged with this one query by query.")
    max_drop: Names = Field(
        [], description="METRIC=X: exit 1 when the metric fell by more than X since the compared run."
    )
    resamples: int = Field(2000, ge=100, le=1_000_000, description="Draws of the randomisation test.")
    slices: Names = Field(
        [], description="Metrics for each type, photos, variants, category, brand or any label; or all."
    )


class CycleSettings(Section):
    """The closed loop: rounds, what is in them, and how a stage is accepted."""

    iterations: int = Field(1, ge=1, description="Rounds of AGCL and RAR.")
    share: float = Field(
        0.3, gt=0, le=1, description="Share of the training products that AGCL takes from the second round on."
    )
    folds: Literal["auto", "no"] = Field(
        "no",
        description="Divide the training products, so that attributes and rewards are of products that a model has not "
        "learnt from; auto: where there are enough.",
    )
    infonce: bool = Field(False, description="Train plain InfoNCE too, as a baseline.")
    composed: bool = Field(False, description="Train for composed queries too, after the rounds.")
    sft: Literal["auto", "yes", "no"] = Field(
        "auto", description="Teach the generator by SFT first; auto: where there are targets."
    )
    protocol: Literal["", "identity", "photo", "fine", "coarse", "text", "composed", "queries"] = Field(
        "", description="Protocol of the evaluation; empty: what the catalog offers."
    )
    metric: str = Field("recall@1", description="Validation metric by which a stage is accepted.")
    keep_worse: bool = Field(False, description="Go on from a stage although its metric fell.")
    undecided: Literal["accept", "reject"] = Field(
        "accept", description="What becomes of a stage where the validation split is too small to decide."
    )


class Settings(Section):
    """All settings; `sources.load_settings` makes it."""

    catalog: CatalogSettings = CatalogSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    attributes: AttributeSettings = AttributeSettings()
    embed: EmbedSettings = EmbedSettings()
    cache: CacheSettings = CacheSettings()
    agcl: AgclSettings = AgclSettings()
    sft: SftSettings = SftSettings()
    rar: RarSettings = RarSettings()
    rerank: RerankSettings = RerankSettings()
    composed: ComposedSettings = ComposedSettings()
    recommender: RecommenderSettings = RecommenderSettings()
    vision: VisionSettings = VisionSettings()
    cycle: CycleSettings = CycleSettings()
    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()
    dedupe: DedupeSettings = DedupeSettings()
    triplets: TripletSettings = TripletSettings()
    recommend: RecommendSettings = RecommendSettings()
    reasoning: ReasoningSettings = ReasoningSettings()
    eval: EvalSettings = EvalSettings()

    def value_of(self, key: str) -> object:
        """Return the value of a dotted key, such as "model.preset"."""
        return functools.reduce(getattr, key.split("."), self)
