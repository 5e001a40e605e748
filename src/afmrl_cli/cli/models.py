"""What embed, search and eval ask for alike: ids without torch, models only when they are needed, and once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .options import Session

if TYPE_CHECKING:
    from ..attributes.request import Generator
    from ..attributes.task import AttributeTask
    from ..attributes.views import AttributeSource
    from ..models.base import Bases
    from ..models.embedder import Embedder
    from ..store.checkpoints import Checkpoints


@dataclass
class Models:
    """The models that a session's settings name. Generator and embedder share a base that is the same."""

    session: Session
    _bases: Bases | None = field(default=None, init=False)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The catalog's checkpoint store."""
        from ..store.checkpoints import Checkpoints

        return Checkpoints(self.session.folder.checkpoints)

    @cached_property
    def embedder_id(self) -> str:
        """The embedder's id."""
        from ..models.presets import model_id

        return model_id(self.session.settings.model, "embedder", self.checkpoints, self.session.out)

    @cached_property
    def generator_id(self) -> str:
        """The generator's id: of the local model, or of the endpoint's."""
        from ..models.backends import generator_id

        return generator_id(self.session.settings, self.checkpoints, self.session.out)

    @cached_property
    def task(self) -> AttributeTask:
        """What the generator is asked."""
        from ..attributes.task import load_task

        return load_task(self.session.settings.attributes, self.session.folder.root)

    @cached_property
    def source(self) -> AttributeSource | None:
        """Under which ids the stored attribute texts of these settings are kept; None, with a note, when the generator
        is not on this disk. Reading what is stored is no reason to fetch gigabytes, so nothing is downloaded.
        """
        from ..attributes.views import AttributeSource
        from ..models.presets import NANO, base_name
        from ..models.weights import find_snapshot

        settings, out = self.session.settings, self.session.out
        name, revision = base_name(settings.model, "generator"), settings.model.generator_revision
        local = bool(settings.attributes.endpoint) or name == NANO or Path(name).expanduser().is_dir()
        if not local and find_snapshot(name, revision) is None:
            out.note(f"stored attributes are not used: the generator {name} has never been used here")
            return None
        try:
            return AttributeSource(self.generator_id, self.task.id, settings.model.generator_images)
        except ModelError as error:
            out.note(f"stored attributes are not used: {error}")
            return None

    @property
    def bases(self) -> Bases:
        """The weights in memory."""
        from ..models.base import Bases, Cache

        if self._bases is None:
            session = self.session
            self._bases = Bases(Cache(session.folder.cache, session.settings.cache, session.out))
        return self._bases

    @cached_property
    def _embedder(self) -> Embedder:
        from ..models.embedder import load_embedder

        settings, out = self.session.settings, self.session.out
        out.detail(f"loading {self.embedder_id}")
        return load_embedder(
            settings.model,
            settings.embed,
            self.checkpoints,
            bases=self.bases,
            catalog=settings.catalog,
            listener=out,
        )

    def embedder(self) -> Embedder:
        """The embedder, loaded at the first call."""
        return self._embedder

    def generator(self) -> Generator:
        """The generator, loaded."""
        from ..models.backends import load_backend

        return load_backend(self.session.settings, self.checkpoints, bases=self.bases, listener=self.session.out)


def warn_of_two_faiss(session: Session) -> None:
    """A warning when faiss-cpu and faiss-gpu are both installed: which of them is imported is then a matter of luck."""
    from ..retrieval.faiss_install import faiss_conflict

    if conflict := faiss_conflict():
        session.out.warn(f"{conflict.message}: {' && '.join(conflict.commands)}")
