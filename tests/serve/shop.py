"""A service over a small shop: a real small model, real threads, the real application."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from afmrl_cli.listener import Silent
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.serve.app import make_app
from afmrl_cli.serve.guard import Door
from afmrl_cli.serve.service import Service
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.models.adapters import add_random
from tests.retrieval.shop import settings_of, shop_rows, write_shop

BASE = "http://127.0.0.1:8765"
MEGABYTE = 1_000_000


def make_shop(root: Path, model: Path, count: int = 24, **flags: object) -> Workspace:
    """A shop of listings in pairs of one product, embedded."""
    folder = write_shop(root, shop_rows(count))
    work = Workspace(folder, settings_of(model, **flags), Silent())
    embed_catalog(work)
    return work


def opened(root: Path, model: Path, **flags: object) -> Workspace:
    """The same shop, to serve: nothing loaded yet."""
    return Workspace(CatalogFolder(root / "catalog.csv"), settings_of(model, **flags), Silent())


def add_checkpoint(root: Path, model: Path, name: str, *, embed: bool = True) -> None:
    """Store an embedder's checkpoint with random weights in a shop's folder, and the vectors that it gives."""
    work = opened(root, model, **{"model.embedder_checkpoint": name})
    add_random(work.checkpoints, resolve_base(work.settings.model, "embedder"), name, 1)
    if embed:
        embed_catalog(work)


class Client:
    """A client of a service in this process."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service, self.http = service, client

    def search(self, **fields: Any) -> Any:
        """POST /search as JSON; the response."""
        return self.http.post("/search", json=fields)

    def by_photo(self, photo: bytes, name: str = "photo.png", **fields: Any) -> Any:
        """POST /search as a form; the response."""
        return self.http.post("/search", data=fields, files={"photo": (name, photo)})

    def ids(self, **fields: Any) -> list[str]:
        """The ids that a search finds."""
        answer = self.search(**fields)
        assert answer.status_code == 200, answer.text
        return [hit["id"] for hit in answer.json()["hits"]]


@contextlib.contextmanager
def serving(work: Workspace, token: str = "", hosts: tuple[str, ...] = ()) -> Iterator[Client]:
    """Serve a shop, without a socket."""
    service = Service(work, lambda message: None)
    service.start()
    upload = int(work.settings.serve.upload_megabytes * MEGABYTE)
    app = make_app(service, Door.of(work.settings.serve.address, hosts, token, upload))
    with TestClient(app, base_url=BASE) as client:
        yield Client(service, client)


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def sentence(answer: Any, status: int) -> str:
    """The one sentence of a refusal, once its form is right."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert content["schema"] == "afmrl.error/1" and content["error"]["status"] == status
    message = content["error"]["message"]
    assert isinstance(message, str) and message and "\n" not in message and "Traceback" not in json.dumps(content)
    return f"{message}: {content['error']['hint']}"
