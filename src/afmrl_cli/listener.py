"""How long work tells of itself without printing: it calls a listener, and only `cli.output` writes."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Receives progress, notes and warnings from work that runs for long."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """`done` of `total` (None: unknown) units of the work named `what` are finished."""

    def note(self, message: str) -> None:
        """Something worth knowing (not shown with --quiet)."""

    def warn(self, message: str) -> None:
        """Something that the user should look at."""


class Silent:
    """The listener that hears nothing; for tests and for use as a library."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """Not heard."""

    def note(self, message: str) -> None:
        """Not heard."""

    def warn(self, message: str) -> None:
        """Not heard."""
