"""A real HTTP server on 127.0.0.1 that speaks chat completions, and misbehaves as a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.http_server import serving

COLORS = ("navy", "red", "green")


@dataclass
class Reply:
    """What the server sends for one request."""

    text: str = "color: navy; neckline: v-neck"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    finish_reason: str = "stop"
    delay: float = 0.0
    drip: float = 0.0
    cut: bool = False


@dataclass
class ChatServer:
    """What the server saw, and what it does next: `script` gets the request's number and body."""

    url: str = ""
    script: Callable[[int, dict[str, Any]], Reply] = lambda number, body: Reply()
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_a_time: int = 0
    most_at_a_time: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"][-1]["text"] for body in self.requests]


def completion(reply: Reply) -> bytes:
    message = {"role": "assistant", "content": reply.text}
    return json.dumps({"choices": [{"message": message, "finish_reason": reply.finish_reason}]}).encode()


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with state.lock:
                number = len(state.requests)
                state.requests.append(body)
                state.headers.append({key.lower(): value for key, value in self.headers.items()})
                state.paths.append(self.path)
                state.at_a_time += 1
                state.most_at_a_time = max(state.most_at_a_time, state.at_a_time)
            try:
                reply = state.script(number, body)
                time.sleep(reply.delay)
                self.answer(reply)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up, as it should
            finally:
                with state.lock:
                    state.at_a_time -= 1

        def answer(self, reply: Reply) -> None:
            content = completion(reply) if reply.body is None else reply.body
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if reply.cut:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif reply.drip:
                for i in range(len(content)):
                    self.wfile.write(content[i : i + 1])
                    time.sleep(reply.drip)
            else:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is part of the tests."""

    with serving(Server(("127.0.0.1", 0), Handler)) as state.url:
        yield state
