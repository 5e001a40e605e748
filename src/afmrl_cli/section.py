"""The base of every table of settings: strict, frozen, and with constants beside its fields; and of those that a server
may work for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)


def as_list(value: object) -> object:
    """Split a single string at its commas, so that flags and variables can say a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def as_number(value: object) -> object:
    """Turn "16" from a flag or variable into 16: Literal takes no strings for numbers."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Names = Annotated[list[str], BeforeValidator(as_list)]


class Section(BaseModel):
    """Base of every table in `afmrl.toml`: unknown keys are errors, fields can't be changed afterwards.

    A ClassVar is a constant of the section: what once was a setting, or never needs to be one. It is read as a field
    is, and written wherever the section is, so that runs of versions in which it was a setting are found again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    _foreign: frozenset[str] = PrivateAttr(frozenset())

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """Return the section's constants by name."""
        return {name: getattr(cls, name) for name in sorted(cls.__class_vars__ - Section.__class_vars__)}

    @model_serializer(mode="wrap")
    def _with_constants(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        left_out = info.exclude or ()
        fields: dict[str, Any] = handler(self)
        return fields | {name: value for name, value in self.constants().items() if name not in left_out}

    @property
    def foreign(self) -> frozenset[str]:
        """Return the values that lead out of the folder and that only the folder's own file has named (see `trust`)."""
        return self._foreign

    def mark(self, values: Iterable[str]) -> None:
        """Note `values` as foreign."""
        self._foreign = frozenset(values)


class EndpointSettings(Section):
    """A server that works in place of a local model."""

    endpoint: str = Field("", description="URL of an OpenAI-compatible server in place of a local model.")
    endpoint_model: str = Field("", description="The model's name at the endpoint.")
    concurrency: int = Field(8, ge=1, description="Requests at a time to the endpoint.")
    retries: int = Field(4, ge=0, description="Retries of one request, after 429, 5xx, timeouts and cut connections.")
    timeout: float = Field(60.0, gt=0, description="Seconds for one request.")
