"""Loading a base once, in NF4, bf16 or fp32, and hanging adapters on it that are switched, not copied.

Every base is loaded with its vocabulary head, where its folder has one. The generator uses all of it; the embedder
calls the trunk inside, so no vocabulary scores are computed for vectors, and both share the memory when they share the
base.

PEFT and bitsandbytes are imported where an adapter or 4 bits are wanted: they take a quarter of a command's start.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from ..errors import ModelError, OutOfMemory
from ..listener import Listener, Silent
from ..settings import CacheSettings, ModelSettings
from ..store.checkpoints import QUERY_WEIGHTS, WEIGHTS, Checkpoints, Manifest, Role, read_adapter_config
from .batching import is_out_of_memory
from .device import Device, device_of
from .features import FeatureStore
from .precision import Precision
from .presets import Base, base_precision, name_of, resolve_adapter, resolve_base
from .processor import Processor, load_processor
from .vision import Vision

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Cache:
    """Where the catalog's caches are (`CatalogFolder.cache`), how large they may be, and whom to tell."""

    folder: Path
    settings: CacheSettings
    listener: Listener


@dataclass
class LoadedBase:
    """A base in memory and what hangs on it."""

    base: Base
    causal: Any
    """The model with its vocabulary head (`generate` is its)."""
    processors: dict[tuple[int, int], Processor] = field(default_factory=dict)
    cache: Cache | None = None
    """Where what the tower makes of photos is kept; None: nowhere."""
    visions: dict[tuple[int, int], Vision] = field(default_factory=dict)
    peft: PeftModel | None = None
    """`causal` with adapters, once there is one. They are put into `causal` itself, so calling that uses them too."""

    @property
    def trunk(self) -> Any:
        """Return the model without its vocabulary head: forward gives the last layer's hidden states [n, length, d]."""
        return self.causal.model

    @property
    def writes(self) -> bool:
        """Tell whether there is a vocabulary head: an embedder's folder may lack it."""
        return not isinstance(self.causal.lm_head, torch.nn.Identity)

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return torch.device(self.causal.device)

    def processor(self, base: Base) -> Processor:
        """Return the processor with the pixel limits of `base`, which is this base but for them."""
        limits = (base.min_pixels, base.max_pixels)
        if limits not in self.processors:
            self.processors[limits] = load_processor(base)
        return self.processors[limits]

    def vision(self, base: Base) -> Vision:
        """Return how pictures get into this model with the pixel limits of `base`, which is this base but for them."""
        limits = (base.min_pixels, base.max_pixels)
        if limits not in self.visions:
            self.visions[limits] = Vision(self.trunk, self.processor(base), self._store(base), self._listener)
        return self.visions[limits]

    def _store(self, base: Base) -> FeatureStore | None:
        if self.cache is None or not self.cache.settings.vision:
            return None
        full = self.trunk.visual.dtype
        kept = full if full.itemsize == 2 else torch.float16
        tower = [base.revision, base.min_pixels, base.max_pixels, str(full)]
        return FeatureStore(self.cache.folder, tower, kept, self.cache.settings, self.cache.listener)

    @property
    def _listener(self) -> Listener:
        return self.cache.listener if self.cache is not None else Silent()


class Bases:
    """Holds the bases that are in memory, so that two roles on one base share it. Make one per command."""

    def __init__(self, cache: Cache | None = None) -> None:
        """Keep the model; with `cache`, photos of the catalog run through the tower once (vision.py)."""
        self._cache = cache
        self._loaded: dict[tuple[str, Precision, Device], LoadedBase] = {}

    def get(self, base: Base, settings: ModelSettings) -> LoadedBase:
        """Return `base` in memory, loaded at the first call. ModelError when it can't be, OutOfMemory when it doesn't
        fit.
        """
        precision, device = base_precision(settings, base).precision, device_of(settings)
        key = (base.revision, precision, device)
        if key not in self._loaded:
            self._loaded[key] = LoadedBase(base, load_base(base, precision, device), cache=self._cache)
        return self._loaded[key]

    def release(self) -> None:
        """Let go of everything; memory is free once the embedders and generators are gone too."""
        self._loaded.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Opened:
    """A base in memory for one role. `adapter` is the name to switch its adapter on by, None for the bare base;
    `query_adapter` that of the second one, which reads composed queries, None for all but a two-sided embedder.
    """

    id: str
    base: Base
    loaded: LoadedBase
    adapter: str | None
    query_adapter: str | None
    manifest: Manifest | None
    """Of the adapter."""


def open_role(
    settings: ModelSettings, role: Role, checkpoints: Checkpoints, bases: Bases | None, listener: Listener
) -> Opened:
    """Return the base and adapter that the settings mean for `role`, loaded. ModelError when that fails."""
    base = resolve_base(settings, role, listener)
    adapter = resolve_adapter(settings, role, base, checkpoints)
    loaded = (bases or Bases()).get(base, settings)
    name = query = None
    if adapter is not None:
        folder = checkpoints.path(adapter.name)
        name = add_adapter(loaded, adapter, folder)
        query = add_query_adapter(loaded, adapter, folder) if role == "embedder" and adapter.two_sided else None
    if role == "generator" and not loaded.writes:
        raise ModelError(
            f"{base.name}: the weights lack the vocabulary head (lm_head.weight), so it makes vectors and can't write",
            "choose another model.generator",
        )
    return Opened(name_of(settings, role, base, adapter), base, loaded, name, query, adapter)


def load_base(base: Base, precision: Precision, device: Device) -> Any:
    """Return the model of `base` in eval mode, with its vocabulary head where the folder has one.

    nf4: all linear layers of the language model in NF4 with double quantisation, computing in bf16 on CUDA and fp32 on
    the CPU; vision tower and head in that type. Only safetensors, no code from the model's folder, no network.
    """
    full = full_precision(precision, device)
    options: dict[str, Any] = {"dtype": full, "device_map": {"": device}}
    if precision == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=full,
            llm_int8_skip_modules=list(base.family.full_precision),
        )
    model, missing = open_weights(AutoModelForImageTextToText, base, precision, trust_remote_code=False, **options)
    if missing == ["lm_head.weight"]:
        model.lm_head, missing = torch.nn.Identity(), []  # what was made up in its place must never be used
    refuse_missing(missing, base)
    if precision == "nf4":
        from bitsandbytes.nn import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit):
                # On CPUs with AVX512-BF16 the first pass in eval mode would pack the weights for a kernel that computes
                # in bf16 and has no gradient, for good: training after it would learn from what is left.
                module.support_avx512bf16_for_cpu = False
    # The folder's own sampling habits (temperature, repetition penalty) must not seep into ours.
    model.generation_config = GenerationConfig()
    return model.eval()


def full_precision(precision: Precision, device: Device) -> torch.dtype:
    """Return the type of what is not quantised, such as the vision tower. ModelError where torch can't use the GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "torch can't use the GPU that the driver offers", "see `afmrl doctor`, or set model.device=cpu"
        )
    half = precision == "bf16" or (precision == "nf4" and device == "cuda")
    return torch.bfloat16 if half else torch.float32


def open_weights(opener: Any, base: Base, precision: Precision, **options: Any) -> tuple[Any, list[str]]:
    """Return what `opener`, a class of transformers, makes of the files of `base`, and the names of the tensors that
    they lack. ModelError when they can't be read, OutOfMemory when they do not fit.
    """
    # Which kernels a model could have it says at the first forward, in a line each; `afmrl doctor` says it in one.
    logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    safely = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        with quiet():
            model, report = opener.from_pretrained(base.folder, **safely, **options)
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            hint = "use a smaller model or model.precision=nf4"
            raise OutOfMemory(f"{base.name} does not fit into memory in {precision}", hint) from error
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise ModelError(f"{base.name}: can't be loaded: {reason}", "fetch or copy the model again") from error
    return model, sorted(report["missing_keys"])


def refuse_missing(missing: list[str], base: Base) -> None:
    """Raise ModelError where the weights of `base` lack tensors."""
    if missing:
        message = f"{base.name}: the weights lack {len(missing)} tensors, such as {missing[0]}"
        raise ModelError(message, "fetch or copy the model again")


def add_adapter(loaded: LoadedBase, adapter: Manifest, folder: Path) -> str:
    """Hang the adapter in `folder` on the base, frozen; returns the name to give to `active_adapter`.

    ModelError when it does not fit: trained on other layers or shapes, or no safetensors.
    """
    from peft import PeftModel

    # PEFT keeps adapters under module names, which can't hold a dot; no checkpoint's name has a colon, nor has that of
    # the adapter that is trained.
    name = f"checkpoint:{adapter.name.replace('.', ':')}"
    if loaded.peft is not None and name in loaded.peft.peft_config:
        return name
    read_adapter_config(folder)
    try:
        with safe_open(folder / WEIGHTS, "pt") as tensors:
            expected = set(tensors.keys())
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns of missing keys; they are an error below
            if loaded.peft is None:
                loaded.peft = PeftModel.from_pretrained(loaded.causal, str(folder), adapter_name=name)
            else:
                loaded.peft.load_adapter(str(folder), adapter_name=name)
            present = set(_state_of(loaded.peft, name))
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise ModelError(f"checkpoint {adapter.name}: can't be loaded: {reason}", "train it again") from error
    if expected != present:
        odd = sorted(expected ^ present)
        message = f"checkpoint {adapter.name}: {len(odd)} tensors do not fit {loaded.base.name}, such as {odd[0]}"
        raise ModelError(message, "train it again")
    loaded.peft.eval()
    return name


def _state_of(model: PeftModel, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the adapter `name`, as its file names them. Left to itself PEFT asks the hub for the base
    that the adapter's configuration names, to see whether its vocabulary has grown.
    """
    from peft import get_peft_model_state_dict

    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return found


def add_query_adapter(loaded: LoadedBase, adapter: Manifest, folder: Path) -> str:
    """Hang the query adapter in `folder` on the base beside the gallery adapter, frozen; returns the name to give to
    `active_adapter`. Its tensors must be those of the gallery adapter in name and shape: ModelError else.
    """
    from peft import set_peft_model_state_dict

    gallery = add_adapter(loaded, adapter, folder)
    name = f"{gallery}@query"  # no checkpoint's name has an @
    assert loaded.peft is not None
    if name in loaded.peft.peft_config:
        return name
    try:
        tensors = load_file(folder / QUERY_WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise ModelError(
            f"checkpoint {adapter.name}: {QUERY_WEIGHTS} can't be loaded: {reason}", "train it again"
        ) from error
    with quiet():
        there = _state_of(loaded.peft, gallery)
        shapes, expected = ({key: value.shape for key, value in each.items()} for each in (tensors, there))
        odd = sorted(key for key in {*shapes, *expected} if shapes.get(key) != expected.get(key))
        if odd:
            message = f"checkpoint {adapter.name}: {len(odd)} tensors of {QUERY_WEIGHTS} do not fit, such as {odd[0]}"
            raise ModelError(message, "train it again")
        loaded.peft.add_adapter(name, copy.deepcopy(loaded.peft.peft_config[gallery]))
        set_peft_model_state_dict(loaded.peft, tensors, adapter_name=name)
    loaded.peft.eval()
    return name


@contextlib.contextmanager
def active_adapter(model: Any, name: str | None) -> Iterator[None]:
    """Run the block with the adapter `name` of `model` switched on, alone (None: all off), and as it was before when
    the block ends.

    `model` is a PeftModel, or None or a bare model when no adapter was ever added. What was trainable before is
    trainable again afterwards: PEFT's own switching freezes and thaws.
    """
    if model is None and name is None:
        yield
        return
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        if name is not None:
            raise ModelError(f"the model has no adapter {name}")
        yield
        return
    before = model.active_adapter
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    try:
        if name is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(name, inference_mode=True)
            yield
    finally:
        model.set_adapter(before)
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trainable) if parameter.is_floating_point() else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run the block with Transformers without its progress bars and notes, and as talkative as before afterwards.
    PEFT's warnings that it calls transformers by names that are about to go tell a user nothing.
    """
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
