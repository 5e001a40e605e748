"""The part of Qdrant's REST interface that `index.server` speaks, on 127.0.0.1, around the real engine in this process.

A stand-in for the server's binary: collections, filters, scores and scrolling are the engine's, aliases, metadata and
status are kept here. `fault` may answer a request in the server's place, or cut it off.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import qdrant_edge as edge

from afmrl_cli.index.edge import filter_of
from tests.http_server import serving

Fault = tuple[int, str] | str | None
"""Status and what it says, "cut": close the connection once the request is done, "lost": before it is."""
OPTIMIZERS = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}


@dataclass
class Collection:
    shard: Any
    vectors: dict[str, Any]
    metadata: dict[str, Any]
    indexed: bool = True


@dataclass
class Rest:
    """What the server has, and what it saw: `requests` are method and path, `headers` and `bodies` those of each."""

    folder: Path
    url: str = ""
    version: str = "1.20.1"
    collections: dict[str, Collection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    fault: Callable[[str, int], Fault] = lambda request, number: None
    most_bytes: int = 32 * 2**20
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and content of the answer to a request."""
        try:
            result = self.answer(method, path, body)
            return 200, result if path == "/" else {"result": result, "status": "ok", "time": 0.0}
        except KeyError as error:
            return 404, {"status": {"error": f"Not found: {error}"}, "time": 0.0}
        except Exception as error:
            return 400, {"status": {"error": str(error)}, "time": 0.0}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """The result of a request; KeyError for what is not there."""
        whole = {
            "/": lambda: {"title": "qdrant", "version": self.version},
            "/aliases": lambda: {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]},
            "/collections": lambda: {"collections": [{"name": name} for name in self.collections]},
            "/collections/aliases": lambda: self._rename(body["actions"]),
        }
        if path in whole:
            return whole[path]()
        _, _, name, *rest = path.split("/")
        if method == "PUT" and not rest:
            return self._create(name, body)
        collection = self.collections[self.aliases.get(name, name)]
        if rest:
            return self._points(collection, method, "/".join(rest), body)
        if method == "DELETE":
            self.collections.pop(name).shard.close()
            return True
        if method == "PATCH":
            collection.metadata |= body.get("metadata") or {}
            return True
        return self._about(collection)

    def _rename(self, actions: list[dict[str, Any]]) -> bool:
        for action in actions:
            if "delete_alias" in action:
                del self.aliases[action["delete_alias"]["alias_name"]]
            else:
                made = action["create_alias"]
                assert made["collection_name"] in self.collections
                self.aliases[made["alias_name"]] = made["collection_name"]
        return True

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        vectors = edge.EdgeVectorParams(size=body["vectors"]["size"], distance=edge.Distance.Cosine)
        place = self.folder / str(len(self.requests))
        place.mkdir(parents=True)
        shard = edge.EdgeShard.create(str(place), edge.EdgeConfig(vectors=vectors))
        self.collections[name] = Collection(shard, body["vectors"], body.get("metadata") or {})
        return True

    def _about(self, collection: Collection) -> dict[str, Any]:
        info, status = collection.shard.info(), "green" if collection.indexed else "yellow"
        collection.shard.optimize()
        collection.indexed = True
        config = {
            "params": {"vectors": collection.vectors},
            "hnsw_config": HNSW,
            "optimizer_config": {**OPTIMIZERS, "flush_interval_sec": 5},
            "metadata": collection.metadata,
        }
        schema = {
            name: {"data_type": "keyword" if name == "tags" else "float", "points": 0} for name in info.payload_schema
        }
        return {
            "status": status,
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "config": config,
            "payload_schema": schema,
        }

    def _points(self, collection: Collection, method: str, what: str, body: dict[str, Any]) -> Any:
        shard, operations = collection.shard, edge.UpdateOperation
        if what == "index":
            keyword = body["field_schema"]["type"] == "keyword"
            schema = edge.KeywordIndexParams(prefix=True) if keyword else edge.FloatIndexParams()
            shard.update(operations.create_field_index(body["field_name"], schema))
        elif (method, what) == ("PUT", "points"):
            points = [edge.Point(id=p["id"], vector=p["vector"], payload=p["payload"]) for p in body["points"]]
            shard.update(operations.upsert_points(points))
            collection.indexed = False
        elif what == "points/delete":
            shard.update(operations.delete_points(body["points"]))
        elif what == "points/count":
            return {"count": shard.count(edge.CountRequest(exact=True, filter=filter_of(body.get("filter"))))}
        elif what == "points/scroll":
            request = edge.ScrollRequest(
                offset=body.get("offset"), limit=body["limit"], with_payload=body["with_payload"]
            )
            records, after = shard.scroll(request)
            ids = [r.id if isinstance(r.id, int) else str(r.id) for r in records]
            points = [{"id": id, "payload": r.payload} for id, r in zip(ids, records, strict=True)]
            return {"points": points, "next_page_offset": after}
        elif what == "points/query":
            request = edge.QueryRequest(
                limit=body["limit"],
                query=edge.Query.Nearest(body["query"]["nearest"]),
                filter=filter_of(body.get("filter")),
                with_payload=body["with_payload"],
            )
            points = shard.query(request)
            return {"points": [{"id": p.id, "version": 0, "score": p.score, "payload": p.payload} for p in points]}
        else:
            assert what == "points", what
            records = shard.retrieve(body["ids"], with_payload=True, with_vector=True)
            return [{"id": r.id, "payload": r.payload, "vector": r.vector} for r in records]
        return {"operation_id": 0, "status": "completed"}


def handler_of(state: Rest) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            with state.lock:
                path, number = urlsplit(self.path).path, len(state.requests)
                request = f"{self.command} {path}"
                state.requests.append(request)
                state.bodies.append(body)
                state.headers.append({key.lower(): value for key, value in self.headers.items()})
                fault = state.fault(request, number)
                if length > state.most_bytes:
                    fault = (413, "Payload Too Large")
                if isinstance(fault, tuple):
                    return self.reply(fault[0], {"status": {"error": fault[1]}, "time": 0.0})
                if fault == "lost":
                    return self.cut()
                status, content = state.told(self.command, path, body)
            if fault == "cut":
                return self.cut()
            return self.reply(status, content)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def reply(self, status: int, content: object) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(status)
            if status in (301, 307):
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def cut(self) -> None:
            self.close_connection = True
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def rest_server(folder: Path) -> Iterator[Rest]:
    state = Rest(folder)
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))) as state.url:
        yield state
