"""How long work reports progress without printing: it calls a listener, and only `cli.output` writes."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Receives progress, notes and warnings from work that runs for long."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """Report that `done` of `total` (None: unknown) units of the work named `what` are finished."""

    def note(self, message: str) -> None:
        """Say something worth knowing (not shown with --quiet)."""

    def warn(self, message: str) -> None:
        """Warn of something that the user should check."""

    def ask(self, question: str) -> bool:
        """Return whether a person says yes; no where there is nobody to ask."""


class Silent:
    """A listener that does nothing; for tests and for use as a library."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""

    def ask(self, question: str) -> bool:
        """Say no."""
        return False


class Notes(Silent):
    """A listener that keeps its messages, for a program that answers several users at a time."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        """Keep it, once."""
        if message not in self.notes:
            self.notes.append(message)

    def warn(self, message: str) -> None:
        """Keep it, once."""
        if message not in self.warnings:
            self.warnings.append(message)
