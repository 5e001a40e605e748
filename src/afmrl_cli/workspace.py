"""The object that holds one job's work: the catalog's folder, the settings, the listener, and what is opened once.

Commands make it (`cli.options`), and `cycle` makes one for each of its stages; everything below takes it as one
argument. Ids cost no model; a model is loaded at its first use, and generator and embedder share a base that is the
same.

    work = Workspace(folder, settings, listener)
    work.embedder_id               # of the settings' embedder; nothing is loaded
    work.embedder()                # loaded
    with work.database() as database: ...
    work.with_settings(other)      # the same catalog with nothing loaded
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelError
from .listener import Listener
from .store.checkpoints import Checkpoints
from .store.database import Database
from .store.folder import CatalogFolder

if TYPE_CHECKING:
    from .attributes.request import Generator
    from .attributes.task import AttributeTask
    from .attributes.views import AttributeSource
    from .catalog.folds import Part
    from .catalog.problems import Problems
    from .catalog.product import Product
    from .models.base import Bases
    from .models.embed_input import Encoder
    from .models.embedder import Embedder
    from .models.reranker import Reranker
    from .settings import EmbedSettings, ModelSettings, Settings
    from .store.shards import OpenShard


@dataclass
class Workspace:
    """One catalog with one set of settings. `load_encoder` is called instead of loading the embedder that
    the settings name, under whose id its vectors are stored. `part` is what trainings take of the training split (None:
    all of it), `shard` what this process does of a job that several share (None: all of it)."""

    folder: CatalogFolder
    settings: Settings
    listener: Listener
    load_encoder: Callable[[], Encoder] | None = field(default=None, kw_only=True)
    part: Part | None = field(default=None, kw_only=True)
    shard: OpenShard | None = field(default=None, kw_only=True)

    def with_settings(self, settings: Settings) -> Workspace:
        """Return a workspace of the same catalog under other settings; no weights are shared."""
        return replace(self, settings=settings)

    def telling(self, listener: Listener, settings: Settings) -> Workspace:
        """Return this very workspace, with all that is loaded so far, whose notes go to `listener`, under `settings`
        that name the same models.
        """
        other = copy.copy(self)
        other.listener, other.settings = listener, settings
        return other

    def sees(self, product: Product) -> bool:
        """Tell whether trainings see a product of the training split."""
        return self.part is None or self.part.sees(product.id, product.identity)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Return the catalog's checkpoint store."""
        return Checkpoints(self.folder.checkpoints)

    def database(self) -> Database:
        """Open the catalog's database, or a shard's own over it; the caller closes it."""
        if self.shard is not None:
            return Database(self.shard.database, self.folder.database)
        return Database(self.folder.database)

    def in_shard(self, shard: OpenShard) -> Workspace:
        """Return this very workspace, with all that is loaded so far, for the work of `shard` alone."""
        other = copy.copy(self)
        other.shard = shard
        return other

    def products(self, problems: Problems) -> Iterator[Product]:
        """Read the catalog's products, or the shard's. Raises DataError as `catalog.read.read_products`."""
        from .catalog.read import read_products

        for product in read_products(self.folder, self.settings.catalog, problems):
            if self.shard is None or self.shard.takes(product.id):
                yield product

    @cached_property
    def embedder_id(self) -> str:
        """Return the embedder's id: the base's name and revision, the adapter's, and how many numbers are kept."""
        if self.settings.embed.endpoint:
            from .models.dimensions import shortened_id
            from .models.embedding_endpoint import embedding_endpoint_id

            return shortened_id(embedding_endpoint_id(self.settings), self.settings.embed.dimensions)
        return self.embedder_id_of(self.settings.model)

    def embedder_id_of(self, model: ModelSettings) -> str:
        """Return the id of the embedder of `model` with the other settings as they are; nothing is loaded."""
        from .models.backends import check_light, check_vision, embedder_id, kind_of_embedder
        from .models.dimensions import shortened_id

        kind = kind_of_embedder(model, self.listener)
        if kind in ("light", "vision"):
            check = check_light if kind == "light" else check_vision
            check(self.settings.embed, model)
        id = embedder_id(model, self.checkpoints, self.folder.light, self.listener)
        return shortened_id(id, self.settings.embed.dimensions)

    @cached_property
    def embed(self) -> EmbedSettings:
        """Return the settings of `[embed]` with the instructions of the embedder's template where they are left open.
        An endpoint's model is known by its name. Raises ModelError as `embedder_id` does.
        """
        from .models.templates import served_template, with_instructions

        own = self.settings.embed
        if own.endpoint:
            return with_instructions(own, served_template(own.endpoint_model))
        return self.embed_of(self.settings.model)

    def embed_of(self, model: ModelSettings) -> EmbedSettings:
        """Return `embed` for the embedder of `model`; nothing is loaded. A vision encoder gets no instructions."""
        from .models.backends import embedder_template
        from .models.templates import with_instructions

        if model.vision_checkpoint:
            return self.settings.embed.model_copy(update={"query_instruction": "", "target_instruction": ""})
        return with_instructions(self.settings.embed, embedder_template(model, self.checkpoints, self.listener))

    def with_instructions(self) -> Workspace:
        """Return a workspace for training: of the embedder that reads texts, its settings say the instructions that
        this gets.
        """
        work = self.of_embedder()
        return work.with_settings(work.settings.model_copy(update={"embed": work.embed}))

    def of_embedder(self) -> Workspace:
        """Return a workspace whose vectors are those of the embedder that reads texts, whatever vision encoder the
        settings name: that is what trainings begin with, and what rewards and judges in them.
        """
        settings = self.settings
        if not settings.model.vision_checkpoint:
            return self
        model = settings.model.model_copy(update={"vision_checkpoint": ""})
        return self.with_settings(settings.model_copy(update={"model": model}))

    @cached_property
    def generator_id(self) -> str:
        """Return the generator's id: of the local model, or of the endpoint's."""
        from .models.backends import generator_id

        return generator_id(self.settings, self.checkpoints, self.listener)

    def generator_id_of(self, checkpoint: str) -> str:
        """Return the id of the generator with another checkpoint ("": the bare base), else as the settings name it."""
        model = self.settings.model.model_copy(update={"generator_checkpoint": checkpoint})
        return self.with_settings(self.settings.model_copy(update={"model": model})).generator_id

    @cached_property
    def task(self) -> AttributeTask:
        """Return the task of the generator: prompt and schema."""
        from .attributes.task import load_task

        return load_task(self.settings.attributes, self.folder.root)

    @cached_property
    def source(self) -> AttributeSource:
        """Return the ids under which attribute texts of these settings are stored."""
        from .attributes.views import AttributeSource

        settings = self.settings
        return AttributeSource(
            self.generator_id, self.task.id, settings.model.generator_images, settings.attributes.min_confidence
        )

    @cached_property
    def source_on_disk(self) -> AttributeSource | None:
        """Return `source`; None, with a note, when the generator was never on this disk. Reading what is stored is no
        reason to fetch gigabytes, so nothing is downloaded.
        """
        from .models.presets import LIGHT, NANO, base_name
        from .models.weights import find_snapshot

        settings = self.settings
        name, revision = base_name(settings.model, "generator"), settings.model.generator_revision
        if name == LIGHT and not settings.attributes.endpoint:
            return None  # it has no generator, so that nothing is stored
        local = bool(settings.attributes.endpoint) or name == NANO or Path(name).expanduser().is_dir()
        if not local and find_snapshot(name, revision) is None:
            self.listener.note(f"stored attributes are not used: the generator {name} has never been used here")
            return None
        try:
            return self.source
        except ModelError as error:
            self.listener.note(f"stored attributes are not used: {error}")
            return None

    @cached_property
    def bases(self) -> Bases:
        """Return the weights in memory."""
        from .models.base import Bases, Cache

        return Bases(Cache(self.folder.cache, self.settings.cache, self.listener))

    def load_embedder(self, model: ModelSettings | None = None) -> Embedder:
        """Load the embedder of `model`, by default the settings' own, on the weights in memory, with whole vectors: for
        training. Raises ModelError.
        """
        from .models.embedder import load_embedder

        settings = self.settings
        return load_embedder(
            model or settings.model,
            settings.embed,
            self.checkpoints,
            bases=self.bases,
            catalog=settings.catalog,
            listener=self.listener,
        )

    def encoder(self, model: ModelSettings) -> Encoder:
        """Load what makes the vectors of `model`, cut to `embed.dimensions`: a vision encoder on its own, an embedder
        on the weights in memory. Raises ModelError.
        """
        from .models.backends import load_other_encoder
        from .models.dimensions import shortened

        if model.vision_checkpoint:
            own = self.with_settings(self.settings.model_copy(update={"model": model}))
            return shortened(load_other_encoder(own), self.settings.embed.dimensions)
        return shortened(self.load_embedder(model), self.settings.embed.dimensions)

    def bare_vision(self) -> tuple[str, Callable[[], Encoder]]:
        """Return the id of what a vision encoder begins with, the generator's vision tower and the mean of its tokens,
        and what loads it. Raises ModelError.
        """
        from .models.backends import load_vision
        from .models.dimensions import shortened, shortened_id
        from .models.presets import name_of, resolve_base

        model, cut = self.settings.model, self.settings.embed.dimensions
        id = name_of(model, "vision", resolve_base(model, "vision", self.listener), None)
        return shortened_id(id, cut), lambda: shortened(load_vision(self, trained=False), cut)

    @cached_property
    def _embedder(self) -> Encoder:
        from .models.dimensions import shortened

        if self.load_encoder is not None:
            loaded = self.load_encoder()
        else:
            from .models.backends import load_encoder

            loaded = load_encoder(self)
        return shortened(loaded, self.settings.embed.dimensions)

    def embedder(self) -> Encoder:
        """Return what makes the vectors, loaded at the first call. Raises ModelError."""
        return self._embedder

    def generator(self) -> Generator:
        """Load the generator. Raises ModelError, or UsageError at a bad endpoint."""
        from .models.backends import load_backend

        return load_backend(self.settings, self.checkpoints, bases=self.bases, listener=self.listener)

    @cached_property
    def _reranker(self) -> Reranker:
        from .models.reranker import load_reranker

        return load_reranker(self.settings, self.checkpoints, self.bases, self.listener)

    def reranker(self) -> Reranker:
        """Return the trained reranker that the settings name, loaded at the first call. Raises ModelError, too where
        they name none.
        """
        return self._reranker
