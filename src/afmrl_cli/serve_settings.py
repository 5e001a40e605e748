"""Settings of the search service: the keys of `[serve]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .section import Names, Section


class ServeSettings(Section):
    """The search service: where it listens, and what it bears."""

    most_chars: ClassVar[int] = 10_000
    """Longer texts of a query are refused; a model reads a few hundred words of one."""
    most_results: ClassVar[int] = 100
    photo_side: ClassVar[int] = 1280
    """An uploaded photo is kept no larger while it waits for the model, which reads fewer pixels than that."""
    cached_megabytes: ClassVar[int] = 64
    """Small photos that are kept in memory."""

    address: str = Field(
        "127.0.0.1",
        description="Address to listen on; one that other machines reach needs AFMRL_SERVE_TOKEN.",
    )
    port: int = Field(8765, ge=0, le=65_535, description="Port to listen on; 0: any that is free.")
    hosts: Names = Field(
        [], description="Names under which browsers may reach the service, such as search.example.com."
    )
    beside: str = Field(
        "",
        description="Checkpoint of another embedder, or base: its results are shown beside. It needs vectors, too.",
    )
    queue: int = Field(64, ge=1, le=10_000, description="Searches at a time; further ones are refused (503).")
    batch: int = Field(16, ge=1, le=256, description="Most queries that the model reads at once.")
    timeout: float = Field(30.0, gt=0, description="Seconds for one request, its upload included.")
    upload_megabytes: float = Field(20.0, gt=0, le=200, description="Largest upload, all photos of a query together.")
    language: Literal["", "de", "en"] = Field(
        "", description="Language of the page; empty: that of attributes.language, else the browser's."
    )
