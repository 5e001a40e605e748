"""The failures that afmrl knows, each with what to do next and the exit code that a script sees.

| code | meaning                              |
|------|--------------------------------------|
| 0    | done                                 |
| 1    | a check failed (threshold, catalog)  |
| 2    | usage or settings                    |
| 3    | data: catalog, photos, queries, disk |
| 4    | model or checkpoint                  |
| 5    | out of memory                        |
| 130  | interrupted                          |
"""

from __future__ import annotations

from typing import ClassVar


class AfmrlError(Exception):
    """A known failure: `str(error)` says what and where in one line, `hint` what to do next ("" if nothing helps)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class CheckFailed(AfmrlError):
    """A check that the user requested did not hold (exit 1). Raise it after the result, with --json too, was shown."""


class UsageError(AfmrlError):
    """Flags, environment or settings that can't be used (exit 2)."""

    exit_code = 2


class DataError(AfmrlError):
    """A catalog, photo, query file or folder that can't be read or written (exit 3)."""

    exit_code = 3


class ModelError(AfmrlError):
    """A model, adapter, checkpoint or index that is missing, damaged or does not fit (exit 4)."""

    exit_code = 4


class OutOfMemory(AfmrlError):
    """Not even a batch of one fits (exit 5)."""

    exit_code = 5
