"""Requests to a generator and its answers: local model and endpoint alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture


@dataclass(frozen=True)
class Request:
    """One product's turn: the prompt's text and the opened photos that go before it.

    `schema` is the JSON schema of the answer, for servers that can hold a model to one; local models ignore it.
    `product` is the part of the prompt, letter by letter, that may be shortened when it is too long; "": nothing may.
    """

    prompt: str
    images: tuple[Image | Picture, ...] = ()
    schema: Mapping[str, Any] | None = None
    product: str = ""


@dataclass(frozen=True)
class Generation:
    """One answer. `cut_off`: the budget of new tokens ended before the model did. `error`: there is no answer (only
    an endpoint says so: network, server); then `text` is empty and the same request may work later, unless it was
    `refused`, by the model or a filter. `confidence`: the probability of each pair's value, by key, where the
    generator tells it.
    """

    text: str
    cut_off: bool
    error: str | None = None
    refused: bool = False
    confidence: Mapping[str, float] | None = field(default=None, compare=False)


class Stopped(ModelError):
    """A generator that can't go on. `answers` are those that it has, in the order of the requests, None where it has
    none: they were paid for, and are stored before this ends the run.
    """

    def __init__(self, error: ModelError, answers: Sequence[Generation | None]) -> None:
        super().__init__(str(error), error.hint)
        self.answers = answers


class Generator(Protocol):
    """Whatever writes attribute text: a base with its adapter, or a server."""

    @property
    def id(self) -> str:
        """Name the model and all that changes its answers, such as "nano-1a2b3c4d"; results are kept under it."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer each request, in their order."""


def generate_until_stopped(
    generator: Generator, requests: Sequence[Request]
) -> tuple[Sequence[Generation | None], Stopped | None]:
    """Return the answers, None where there is none, and why there are no more where the generator can't go on."""
    try:
        return generator.generate(requests), None
    except Stopped as error:
        return error.answers, error
