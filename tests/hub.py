"""A hub of models on 127.0.0.1: as much of its protocol as huggingface_hub asks for, and a list of what it asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Its address, and the paths that were asked for, without their queries."""

    address: str
    asked: list[str] = field(default_factory=list)

    @property
    def fetched(self) -> list[str]:
        """The files that were sent."""
        return [path.rpartition("/")[2] for path in self.asked if path.startswith("GET") and "/resolve/" in path]


@contextmanager
def serve_hub(name: str, folder: Path, licence: str | None) -> Iterator[Hub]:
    """Serve the model in `folder` under the hub name `name`."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub = Hub("")

    handler = partial(_Handler, hub, name, files, licence)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers what is asked about one model."""

    def __init__(self, hub: Hub, name: str, files: dict[str, bytes], licence: str | None, *rest: Any) -> None:
        self.hub, self.name, self.files, self.licence = hub, name, files, licence
        super().__init__(*rest)

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if path.startswith(f"/api/models/{self.name}/tree/"):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": _etag(b)} for n, b in self.files.items()]
            self.send(json.dumps(tree).encode(), body, {"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{self.name}"):
            card = {"license": self.licence} if self.licence else {}
            siblings = [{"rfilename": n, "size": len(b), "blobId": _etag(b)} for n, b in self.files.items()]
            content = {"id": self.name, "sha": COMMIT, "siblings": siblings, "cardData": card, "tags": []}
            self.send(json.dumps(content).encode(), body, {"Content-Type": "application/json"})
        elif "/resolve/" in path and (file := path.rpartition("/")[2]) in self.files:
            self.send(self.files[file], body, {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(self.files[file])}"'})
        else:
            self.send_error(404)

    def send(self, content: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _etag(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
