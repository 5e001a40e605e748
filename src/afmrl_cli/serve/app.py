"""The routes: HTTP around `service.Service`.

GET  /                      the page;  /review: the same, duplicates;  /page.css, /page.js, /icon.svg, /page.json
POST /search                JSON, or a form with photos -> the document of `afmrl search --json`
GET  /products/{id}         what is known of a listing;  /photos/{id}/{n}: its photos;  /filters: values and counts
POST /marks, /verdicts      a person's word on a result, on a pair;  POST /marks/of: the marks of a query
GET  /duplicates            the pairs to review
GET  /healthz, /version, /openapi.json
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive

from ..errors import AfmrlError
from ..retrieval.page import render
from .documents import json_response
from .guard import COOKIE, Door, Guard, client_of
from .marks import FOLDER, QUERIES, VERDICTS
from .openapi import description
from .refusals import Refusal, busy, refusal_of, refused
from .requests import Gone, MarkRequest, SearchRequest, Sent, VerdictRequest, sent
from .service import Service
from .words import all_words, language_of

STATIC = {
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SHORT_BYTES = 100_000
"""Of a body without photos."""
Answer = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


class Routes:
    """What each address answers."""

    def __init__(self, service: Service, door: Door) -> None:
        self._service, self._door = service, door
        self._settings = service.settings.serve

    def table(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.page),
            Route("/review", self.page),
            *(Route(path, self.static) for path in STATIC),
            Route("/page.json", self.page_content),
            Route("/search", self.search, methods=["POST"]),
            Route("/products/{id:path}", self.product),
            Route("/photos/{id:path}/{number:int}", self.photo),
            Route("/filters", self.filters),
            Route("/marks", self.counts, methods=["GET"]),
            Route("/marks", self.mark, methods=["POST"]),
            Route("/marks/of", self.marks_of, methods=["POST"]),
            Route("/verdicts", self.judge, methods=["POST"]),
            Route("/duplicates", self.review),
            Route("/healthz", self.health),
            Route("/version", self.version),
            Route("/openapi.json", self.openapi),
            Route("/login", self.login, methods=["GET", "POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """Answer the page, for a search or for the review of duplicates."""
        language = self._language(request)
        marks = f".afmrl/{FOLDER}"
        text = render(
            "serve/page.html",
            language=language,
            words=all_words()[language],
            view="review" if request.url.path == "/review" else "search",
            catalog=self._service.folder.root.name or self._service.folder.catalog.name,
            most_chars=self._settings.most_chars,
            reads=self._service.reads,
            eval_command=f"afmrl eval --queries {marks}/{QUERIES[''][0]}",
            dedupe_command=f"afmrl dedupe --verdicts {marks}/{VERDICTS}",
        )
        return Response(text, media_type="text/html", headers={"vary": "accept-language"})

    async def static(self, request: Request) -> Response:
        """Answer a file of the page; which one does not follow from the request but by this table."""
        name, kind = STATIC[request.url.path]
        content = (files("afmrl_cli") / "pages" / "serve" / name).read_bytes()
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    async def page_content(self, request: Request) -> Response:
        """Answer what the page's script needs: texts, and what can be searched by."""
        language = self._language(request)
        content = {"language": language, "words": all_words()[language], "k": self._service.settings.search.k}
        content |= {"most_results": self._settings.most_results, "beside": self._service.beside is not None}
        return json_response(content)

    def _language(self, request: Request) -> str:
        return language_of(self._service.settings, request.headers.get("accept-language", ""))

    async def search(self, request: Request) -> Response:
        """Answer a search."""
        return json_response(await self._worked(request, SearchRequest, self._service.search))

    async def mark(self, request: Request) -> Response:
        """Note a mark; answer the counts."""
        return json_response(await self._worked(request, MarkRequest, self._service.mark))

    async def marks_of(self, request: Request) -> Response:
        """Answer the marks of a query."""
        marks = await self._worked(request, SearchRequest, self._service.marks_of)
        return json_response({"marks": marks})

    async def judge(self, request: Request) -> Response:
        """Note a verdict; answer the counts."""
        return json_response(await self._worked(request, VerdictRequest, self._service.judge))

    async def _worked(self, request: Request, kind: type[BaseModel], work: Callable[[Sent], Awaitable[T]]) -> T:
        """Read the body and do `work` with it, while there is room, time and a client."""
        seconds, read = self._settings.timeout, None
        with self._service.admitted():
            try:
                async with asyncio.timeout(seconds):
                    async with sent(request, kind, self._door.most_bytes) as read:
                        return await while_there(request, work(read))
            except TimeoutError:
                if read is None:
                    raise Refusal(408, f"not sent within {seconds:g} s", "send less, or faster") from None
                raise busy(f"not done within {seconds:g} s") from None

    async def product(self, request: Request) -> Response:
        """Answer what is known of a listing."""
        return json_response(await self._service.product(request.path_params["id"]))

    async def photo(self, request: Request) -> Response:
        """Answer a photo; `?size=large` for a larger one."""
        size = request.query_params.get("size", "small")
        photo = await self._service.photo(request.path_params["id"], request.path_params["number"], size)
        headers = {"etag": f'"{photo.tag}"', "cache-control": "private, max-age=300"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(photo.content, media_type="image/jpeg", headers=headers)

    async def filters(self, request: Request) -> Response:
        """Answer filters with counts, beside those of `?filter=KEY=VALUE`."""
        return json_response(await self._service.filters(request.query_params.getlist("filter")[:50]))

    async def counts(self, request: Request) -> Response:
        """Answer the counts of all marks."""
        return json_response(await self._service.counts())

    async def review(self, request: Request) -> Response:
        """Answer the pairs to review."""
        return json_response(await self._service.review())

    async def health(self, request: Request) -> Response:
        """Answer whether searches are answered."""
        there = self._service.catalog.opened is not None
        return json_response({"status": "ok" if there else "no vectors"}, 200 if there else 503)

    async def version(self, request: Request) -> Response:
        """Answer what is served."""
        return json_response(self._service.state())

    async def openapi(self, request: Request) -> Response:
        """Answer the description of the interface."""
        return json_response(description())

    async def login(self, request: Request) -> Response:
        """Answer the form in which the token is given; a right one becomes a cookie."""
        language, wrong = self._language(request), False
        if request.method == "POST":
            body = await request.body() if int(request.headers.get("content-length", "0")) < SHORT_BYTES else b""
            form = await Request(request.scope, _again(body)).form(max_files=0, max_fields=4)
            if self._door.token and self._door.opens(str(form.get("token", "")).strip(), client_of(request.scope)):
                response = RedirectResponse("/", 303)
                secure = request.url.scheme == "https"
                response.set_cookie(COOKIE, self._door.cookie, httponly=True, samesite="strict", secure=secure)
                return response
            wrong = True
        text = render("serve/token.html", language=language, words=all_words()[language], wrong=wrong)
        return Response(text, 401 if wrong else 200, media_type="text/html")


def _again(body: bytes) -> Receive:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """Await `work` as long as the client is there; its work is called off when it goes. Raises Gone then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "no such address", 405: "not by this method"}
    hint = "/openapi.json describes the addresses"
    headers = dict(error.headers or {})
    return refused(Refusal(error.status_code, words.get(error.status_code, str(error.detail)), hint, headers))


async def _on_fault(request: Request, error: Exception) -> Response:
    return refused(Refusal(500, f"a fault of the service: {type(error).__name__}", "its standard error says more"))


def make_app(service: Service, door: Door) -> ASGIApp:
    """Return the application of a service, which is started and stopped with it."""
    root = service.folder.root

    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, AfmrlError)
        return refused(refusal_of(error, root))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            service.stop()

    app = Starlette(
        routes=Routes(service, door).table(),
        lifespan=lifespan,
        exception_handlers={AfmrlError: on_refusal, HTTPException: _on_http, Exception: _on_fault},
    )
    return Guard(app, door)
