"""Which generator and which embedder the settings mean: a local model, or a server's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..attributes.request import Generator
from ..errors import UsageError
from ..listener import Listener
from ..settings import Settings
from ..store.checkpoints import Checkpoints, Role
from .presets import model_id

if TYPE_CHECKING:
    from ..workspace import Workspace
    from .base import Bases
    from .embed_input import Encoder


def generator_id(settings: Settings, checkpoints: Checkpoints, listener: Listener | None = None) -> str:
    """Return the id under which this generator's answers are stored; nothing is loaded and no server is called."""
    if settings.attributes.endpoint:
        from .endpoint import endpoint_id

        return endpoint_id(settings.attributes, settings.model)
    return model_id(settings.model, "generator", checkpoints, listener)


def load_backend(
    settings: Settings, checkpoints: Checkpoints, *, bases: Bases | None = None, listener: Listener | None = None
) -> Generator:
    """Return the generator itself. Raises ModelError, as `generator.load_generator`, or UsageError at a bad
    endpoint.
    """
    if settings.attributes.endpoint:
        from .endpoint import Endpoint

        endpoint = Endpoint(settings.attributes, settings.model, listener=listener)
        if listener is not None:
            listener.note(endpoint.destination)
        return endpoint
    from .generator import load_generator

    return load_generator(settings.model, settings.attributes, checkpoints, bases=bases, listener=listener)


def load_encoder(work: Workspace) -> Encoder:
    """Return what makes the vectors. Raises as `embedder.load_embedder`, and UsageError at a bad endpoint."""
    if work.settings.embed.endpoint:
        from .embedding_endpoint import EmbeddingEndpoint

        endpoint = EmbeddingEndpoint(work.settings)
        work.listener.note(endpoint.destination)
        return endpoint
    return work.load_embedder()


def check_trainable(settings: Settings, *roles: Role) -> None:
    """Raise UsageError where one of `roles` is to be trained, or to reward, and stands behind an endpoint."""
    sections = {"generator": ("attributes", settings.attributes), "embedder": ("embed", settings.embed)}
    for role in roles:
        name, section = sections[role]
        if section.endpoint:
            raise UsageError(f"{name}.endpoint is set, but only a local {role} can be trained", "leave it empty")
