"""Which generator the settings mean: a local model, or a server's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..attributes.request import Generator
from ..listener import Listener
from ..settings import Settings
from ..store.checkpoints import Checkpoints
from .presets import model_id

if TYPE_CHECKING:
    from .base import Bases


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
