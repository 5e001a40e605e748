"""Refusals as a client reads them: a status and one sentence, in the document that `--json` prints of failures.

| status | what                                                                                                   |
|--------|--------------------------------------------------------------------------------------------------------|
| 400    | no JSON, a form that can't be read, a wrong Host                                                       |
| 401    | no token, or a wrong one; 429 after too many wrong ones                                                |
| 403    | sent by another site's page                                                                            |
| 404    | no such listing, photo or address                                                                      |
| 408    | the upload took too long                                                                               |
| 409    | a verdict that contradicts another                                                                     |
| 413    | too large: the body, a photo's pixels                                                                  |
| 415    | neither JSON nor a form; a file that is no photo we read                                               |
| 422    | a query that can't be: nothing in it, an unknown filter, a damaged photo                               |
| 500    | a fault of ours, or a damaged store                                                                    |
| 503    | no vectors yet, or too many searches at a time: try again after the seconds in Retry-After             |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.responses import Response

from ..catalog.images import ImageProblem
from ..errors import AfmrlError, DataError, OutOfMemory, UsageError
from .documents import json_response

SCHEMA = "afmrl.error/1"
RETRY_SECONDS = 1
FLAG = re.compile(r"(?<!\S)--(?=[a-z])")


class Refusal(AfmrlError):
    """A request that is not answered: `status`, one sentence, and what to do about it."""

    def __init__(self, status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.status = status
        self.headers = dict(headers or {})


def busy(message: str, seconds: int = RETRY_SECONDS) -> Refusal:
    """Return the refusal of what would go through a little later."""
    return Refusal(503, message, "try again", {"Retry-After": str(seconds)})


def too_large(most_bytes: int) -> Refusal:
    """Return the refusal of a body of more bytes than may be sent."""
    return Refusal(413, f"more than {most_bytes / 1e6:g} MB", "send less; `serve.upload_megabytes` is the limit")


def refusal_of(error: AfmrlError, root: Path) -> Refusal:
    """Return what a client is told of a known failure: in the words of the interface, which has no flags, and without
    where the catalog's folder, `root`, lies.
    """
    message, hint = (without_flags(without_place(text, root)) for text in (str(error), error.hint))
    if isinstance(error, Refusal):
        return Refusal(error.status, message, hint, error.headers)
    if isinstance(error, UsageError):
        return Refusal(422, message, hint)
    if isinstance(error, ImageProblem):
        return _of_photo(error)
    if isinstance(error, OutOfMemory):
        return busy("out of memory", 5)
    if isinstance(error, DataError):
        return Refusal(422, message, hint)
    return Refusal(500, message, hint)


def without_flags(text: str) -> str:
    """Return a message in the words of the interface, which has fields for the command's flags."""
    return FLAG.sub("", text)


def without_place(text: str, root: Path) -> str:
    """Return a message without where the folder `root` lies on this machine."""
    return text.replace(f"{root}/", "").replace(str(root), root.name)


def _of_photo(problem: ImageProblem) -> Refusal:
    reason = problem.reason.split(" (catalog.")[0]
    if "pixels" in reason:
        return Refusal(413, f"the photo has {reason}", "make it smaller")
    if reason.startswith(("HEIC", "no photo", "not one of")):
        return Refusal(415, f"the photo: {reason}", "send JPEG, PNG or WebP")
    return Refusal(422, f"the photo: {reason}", "send another file")


def refused(refusal: Refusal) -> Response:
    """Return the response of a refusal."""
    error: dict[str, Any] = {"message": str(refusal), "hint": refusal.hint, "status": refusal.status}
    return json_response({"schema": SCHEMA, "error": error}, refusal.status, refusal.headers)
