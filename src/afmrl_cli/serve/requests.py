"""What a client sends: bodies of bounded size, in bounded time, as JSON or as a form with photos.

Photos come as files, never as links or paths: the service opens no address and no file for a client. An upload lies in
a temporary folder of its own while it is worked on: a service that is killed leaves those of its last requests at most.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from ..serve_settings import ServeSettings
from .refusals import Refusal, too_large

MOST_JSON = 256_000
"""Bytes: ten thousand characters as escapes, and filters."""
MOST_PHOTOS, MOST_FIELDS, MOST_FILTERS = 4, 80, 50
PHOTO = "photo"
Short = Annotated[str, StringConstraints(max_length=500)]
LONGEST = ServeSettings.most_chars
LISTS = {"filters": "filters", "filter": "filters", "not": "not"}
"""Fields of a form that may stand several times."""


class SearchRequest(BaseModel):
    """What is searched for; photos come beside it, as files of a form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field("", max_length=LONGEST, description="The query in words.")
    like: Short = Field("", description="Id of a listing: products like it.")
    change: str | None = Field(
        None, max_length=LONGEST, description="What differs from the photo or listing: 'color: red', or words."
    )
    filters: list[Short] = Field(
        [], max_length=MOST_FILTERS, description="KEY=VALUE, of one key alternatives, or KEY<NUMBER."
    )
    without: list[Short] = Field(
        [], alias="not", max_length=MOST_FILTERS, description="No listings with this: 'key: value', or words."
    )
    collapse: Literal["no", "product", "style"] | None = Field(
        None, description="One result for the listings of a product or style; by default `search.collapse`."
    )
    beside: bool = Field(False, description="What the embedder of `serve.beside` finds, too.")
    k: int | None = Field(
        None, ge=1, le=ServeSettings.most_results, description="How many results; by default `search.k`."
    )


class MarkRequest(SearchRequest):
    """A person's word on a result: right, wrong, or neither. The query is what was sent to /search: what only shapes
    the answer (k, collapse, beside) may stand in it and does not count.
    """

    id: Short = Field(description="The listing that is marked.")
    right: bool | None = Field(description="null takes an earlier mark back.")


class VerdictRequest(BaseModel):
    """A person's word on two listings: one product, two, or neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Short
    other_id: Short
    same: bool | None = Field(description="null takes an earlier verdict back.")


Wanted = TypeVar("Wanted", bound=BaseModel)


@dataclass(frozen=True)
class Sent:
    """What a client sent: the request, and the files of its photos, which are gone afterwards."""

    request: Any
    photos: tuple[Path, ...] = ()


def bounded(receive: Receive, most_bytes: int) -> Receive:
    """Return a `receive` that raises Refusal once more than `most_bytes` of the body have come."""
    read = 0

    async def counting() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most_bytes:
            raise too_large(most_bytes)
        return message

    return counting


@asynccontextmanager
async def sent(request: Request, kind: type[Wanted], most_bytes: int) -> AsyncIterator[Sent]:
    """Read the body as `kind`, from JSON, or from a form with files. Raises Refusal."""
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == "application/json":
        limited = Request(request.scope, bounded(request.receive, min(MOST_JSON, most_bytes)))
        yield Sent(_read_json(await _body(limited), kind))
    elif content == "multipart/form-data":
        with tempfile.TemporaryDirectory(prefix="afmrl-serve-") as place:
            limited = Request(request.scope, bounded(request.receive, most_bytes))
            yield await _read_form(limited, kind, Path(place), most_bytes)
    else:
        raise Refusal(415, "neither application/json nor multipart/form-data", "photos come in a form")


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise Gone from error


class Gone(Refusal):
    """The client went away: nobody reads an answer."""

    def __init__(self) -> None:
        super().__init__(499, "the client went away")


def _read_json(body: bytes, kind: type[Wanted]) -> Wanted:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no JSON", 'such as {"text": "red shirt"}') from None
    if not isinstance(content, dict):
        raise Refusal(400, "the body is no JSON object", 'such as {"text": "red shirt"}')
    return _checked(content, kind)


async def _read_form(request: Request, kind: type[Wanted], place: Path, most_bytes: int) -> Sent:
    content: dict[str, Any] = {}
    photos: list[Path] = []
    try:
        async with request.form(max_files=MOST_PHOTOS, max_fields=MOST_FIELDS, max_part_size=4 * LONGEST) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != PHOTO:
                        raise Refusal(422, f"a file called {name[:60]!r}", f"photos are called {PHOTO}")
                    path = place / str(len(photos))
                    await asyncio.to_thread(_copy, value, path)
                    photos.append(path)
                elif name in LISTS:
                    content.setdefault(LISTS[name], []).append(value)
                elif name in content:
                    raise Refusal(422, f"{name[:60]} stands twice")
                else:
                    content[name] = value
    except (MultiPartException, HTTPException) as error:  # the second where an application is around
        reason = error.message if isinstance(error, MultiPartException) else error.detail
        raise Refusal(400, f"the form can't be read: {reason[:100]}") from error
    except ClientDisconnect as error:
        raise Gone from error
    if content.get("right") in ("", "null"):
        content["right"] = None
    return Sent(_checked(content, kind), tuple(photos))


def _copy(upload: UploadFile, path: Path) -> None:
    upload.file.seek(0)
    with path.open("wb") as file:
        while piece := upload.file.read(1 << 20):
            file.write(piece)


def _checked(content: dict[str, Any], kind: type[Wanted]) -> Wanted:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, first["loc"]))[:60]
        if first["type"] == "extra_forbidden":
            known = (field.alias or key for key, field in kind.model_fields.items())
            raise Refusal(422, f"there is no {name!r}", f"known are {', '.join(known)}") from None
        raise Refusal(422, f"{name}: {first['msg'][:200]}") from None
