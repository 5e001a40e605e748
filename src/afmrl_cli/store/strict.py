"""What a checkpoint from somewhere else may say: strict models of its manifest and of PEFT's adapter_config.json.

A store, or a folder to import, may come from a stranger. A manifest is shown in tables and joined with paths; what PEFT
finds in a configuration it obeys: it imports classes by name, compiles patterns and lays out matrices of any size. So
every field has a type and a bound, and what is not known must say nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError, field_validator

from .files import parse_json

LARGEST = 64 << 20
"""Bytes of one of these files."""
DEEPEST = 20
"""Levels of what settings may hold."""
TARGETS = re.compile(
    r"\.\*(language_model|visual\\\.\([a-z_]{1,40}(\|[a-z_]{1,40}){0,5}\))\.\*"
    r"\\\.\([a-z0-9_]{1,40}(\\\.\d)?(\|[a-z0-9_]{1,40}(\\\.\d)?){0,30}\)"
)
"""The one form of pattern that is compiled: layers of the language model or of the vision tower by their names, as a
family's are.
"""

Text = Annotated[str, Field(max_length=1000)]
Word = Annotated[str, Field(max_length=200)]
Line = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){0,30}$", max_length=300)]
Model = TypeVar("Model", bound=BaseModel)
Rank = Annotated[int, Field(ge=1, le=4096)]


class ManifestFile(BaseModel):
    """manifest.json: the fields of `checkpoints.Manifest`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["generator", "embedder", "reranker", "recommender", "vision"]
    base: Text
    base_revision: Word = ""
    name: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$")] = ""
    parent: Word | None = None
    parent_weights: Word = ""
    run: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,199})?$")] = ""
    inputs: dict[Word, Text] = {}
    data: Word = ""
    products: dict[Word, JsonValue] = {}
    settings: dict[Word, JsonValue] = {}
    metrics: dict[Word, FiniteFloat] = {}
    versions: dict[Word, Word] = {}
    created: Annotated[FiniteFloat, Field(ge=0, le=1e11)] = 0.0
    files: dict[FileName, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}


class AutoMapping(BaseModel):
    """Which class of transformers PEFT says that it wrapped; afmrl never asks for it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    base_model_class: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,200}$")]
    parent_library: Annotated[str, Field(pattern=r"^transformers(\.[a-z0-9_]+)*$", max_length=200)]


class AdapterConfig(BaseModel):
    """adapter_config.json of a LoRA as PEFT writes it: the fields that may say something."""

    model_config = ConfigDict(extra="allow", strict=True)

    peft_type: Literal["LORA"]
    r: Rank
    lora_alpha: Annotated[FiniteFloat, Field(gt=0, le=1e6)]
    lora_dropout: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[Module], Field(min_length=1, max_length=10_000)] | str
    task_type: Literal["FEATURE_EXTRACTION", "CAUSAL_LM"] | None = None
    bias: Literal["none"] = "none"
    rank_pattern: dict[Module, Rank] = {}
    alpha_pattern: dict[Module, Annotated[FiniteFloat, Field(gt=0, le=1e6)]] = {}
    base_model_name_or_path: Text | None = None
    revision: Word | None = None
    peft_version: Word | None = None
    auto_mapping: AutoMapping | None = None
    inference_mode: bool = False
    init_lora_weights: bool = True
    use_rslora: bool = False
    use_dora: bool = False
    megatron_core: Literal["megatron.core"] | None = None
    qalora_group_size: int | None = None

    @field_validator("target_modules")
    @classmethod
    def _names(cls, given: list[str] | str) -> list[str] | str:
        if isinstance(given, str) and not TARGETS.fullmatch(given):
            raise ValueError("a pattern; a list of modules' names is wanted")
        return given

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _nothing(cls, given: object) -> object:
        return {} if given is None else given


class ForeignAdapterConfig(BaseModel):
    """adapter_config.json of a LoRA that other programs trained. What PEFT is given is written anew from these fields
    and from the tensors (`models/foreign_adapter.py`), so a pattern of layers may stand here: nobody compiles it.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    r: Rank
    lora_alpha: Annotated[FiniteFloat, Field(gt=0, le=1e6)]
    lora_dropout: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[Text], Field(max_length=10_000)] | str | None = None
    exclude_modules: Annotated[list[Text], Field(max_length=10_000)] | str | None = None
    layers_to_transform: list[int] | int | None = None
    rank_pattern: dict[Module, Rank] | None = None
    alpha_pattern: dict[Module, Annotated[FiniteFloat, Field(gt=0, le=1e6)]] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    bias: Literal["none"] = "none"
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal"] | None = True
    """How A and B began; what is not listed here changes the base's own weights, too (PiSSA, OLoRA, LoftQ, CorDA)."""
    modules_to_save: Annotated[list[Line], Field(max_length=1000)] | None = None
    base_model_name_or_path: Line | None = None
    revision: Word | None = None


WITHOUT_EFFECT = re.compile(
    "auto_mapping|eva_config|inference_mode|layers_pattern|loftq_config|megatron_core|peft_(type|version)|"
    "qalora_group_size|runtime_config|task_type"
)
"""Fields that say nothing about what an adapter of a `ForeignAdapterConfig` does, once its layers are known."""


def read_strictly(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`. ValueError when it is none, too large or too deep; OSError as `open`."""
    if file.exists() and not file.is_file():
        raise ValueError("not a file")  # a pipe would never end
    with file.open("rb") as source:
        raw = source.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"more than {LARGEST >> 20} MiB")
    content = parse_json(raw)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise ValueError("nested too deeply")
    return content


def check_manifest(content: dict[str, Any]) -> None:
    """Raise ValueError naming the first field that is not as `ManifestFile` has it."""
    validated(ManifestFile, content)


def check_adapter_config(content: dict[str, Any]) -> AdapterConfig:
    """Return the configuration; ValueError naming the first field that is not as `AdapterConfig` has it."""
    config = validated(AdapterConfig, content)
    _refuse_unknown(config.model_extra or {})
    return config


def check_foreign_config(content: dict[str, Any]) -> ForeignAdapterConfig:
    """Return the configuration; ValueError naming the first field that is not as `ForeignAdapterConfig` has it."""
    config = validated(ForeignAdapterConfig, content)
    if config.modules_to_save:
        raise ValueError(f"modules_to_save: {', '.join(config.modules_to_save)[:100]}: whole layers can't be taken in")
    extra = config.model_extra or {}
    _refuse_unknown({name: value for name, value in extra.items() if not WITHOUT_EFFECT.fullmatch(name)})
    return config


def _refuse_unknown(fields: dict[str, Any]) -> None:
    """Raise ValueError when a field that is not known says anything."""
    said = next((name for name, value in fields.items() if value), None)
    if said is not None:
        raise ValueError(f"{said[:60]}: can't be used")


def validated(model: type[Model], content: dict[str, Any]) -> Model:
    """Return `content` as `model`; ValueError naming the first field that is not as it should be."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        raise ValueError(f"{where[:80]}: {first['msg'][:120]}") from None
