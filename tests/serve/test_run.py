"""The service as a process of its own: what it says, a port in use, a thousand clients, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import afmrl_cli
from afmrl_cli.errors import UsageError
from afmrl_cli.serve.run import bound, link_of

SECONDS = 60


@contextlib.contextmanager
def process(shop: Path, model: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`afmrl serve`, and the address that it tells."""
    environment = {**os.environ, "PYTHONPATH": str(Path(afmrl_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    flags = ["--set", f"model.embedder={model}", "--set", "model.device=cpu", "--set", "model.max_pixels=3136"]
    command = [sys.executable, "-m", "afmrl_cli", "serve", "--json", "--port", "0", *flags, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=shop, env=environment, stdout=pipe, stderr=pipe, text=True) as opened:
        try:
            assert opened.stdout is not None
            line = opened.stdout.readline()
            yield opened, json.loads(line)["address"] if line.startswith('{"schema": "afmrl.serve/1"') else line
        finally:
            opened.kill()


async def many(address: str, count: int) -> list[int]:
    """Search `count` times at once, each over a connection of its own; the statuses, 0 for none."""
    host, port = httpx.URL(address).host, httpx.URL(address).port
    body = b'{"text": "red shirt", "k": 1}'
    head = f"POST /search HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"

    async def one() -> int:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            answer = await asyncio.wait_for(reader.read(), SECONDS)
            writer.close()
            status, _, rest = answer.partition(b"\r\n")
            json.loads(rest.partition(b"\r\n\r\n")[2])
            return int(status.split()[1])
        except (OSError, ValueError, IndexError):
            return 0

    return list(await asyncio.gather(*(one() for _ in range(count))))


def memory(pid: int) -> int:
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024


def test_a_port_in_use_is_told_in_a_line() -> None:
    with bound("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        assert link_of(opened) == f"http://127.0.0.1:{port}/"
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use"):
            bound("127.0.0.1", port)
    with bound("127.0.0.1", port):
        pass  # as soon as it is free


@pytest.mark.parametrize("address", ["no such address", "300.1.1.1", "192.0.2.1", ""])
def test_an_address_that_is_not_this_machine_s_is_told_in_a_line(address: str) -> None:
    with pytest.raises(UsageError):
        bound(address or "a b", 0)


@pytest.mark.slow
def test_a_thousand_searches_at_once_and_none_is_lost_silently(shop: Path, model: Path) -> None:
    """And then a port in use, and the end by Ctrl-C: one process for all three, since it takes seconds to start."""
    with process(shop, model) as (opened, address):
        assert httpx.post(f"{address}search", json={"text": "red"}, timeout=SECONDS).status_code == 200
        before = memory(opened.pid)
        statuses = Counter(asyncio.run(many(address, 1000)))
        assert set(statuses) <= {200, 503} and statuses[200] >= 64, statuses
        assert memory(opened.pid) - before < 300_000_000
        assert httpx.post(f"{address}search", json={"text": "red"}, timeout=SECONDS).status_code == 200

        port = httpx.URL(address).port
        with process(shop, model, "--port", str(port)) as (second, line):
            refused = json.loads(line)["error"]
            assert f"port {port} of 127.0.0.1 is in use" in refused["message"] and second.wait(SECONDS) == 2

        opened.send_signal(signal.SIGINT)
        assert opened.wait(SECONDS) == 0
        assert opened.stderr is not None and "Traceback" not in (said := opened.stderr.read()) and "ended" in said


@pytest.mark.slow
def test_sigterm_answers_what_is_under_way_and_a_kill_spoils_nothing(shop: Path, model: Path) -> None:
    with process(shop, model) as (opened, address):
        mark = {"text": "red", "id": "s0", "right": True}
        assert httpx.post(f"{address}marks", json=mark, timeout=SECONDS).status_code == 200
        opened.send_signal(signal.SIGTERM)
        assert opened.wait(SECONDS) == 0
    with process(shop, model) as (opened, address):
        for i in range(20):
            httpx.post(f"{address}marks", json={"text": f"red {i}", "id": "s1", "right": True}, timeout=SECONDS)
        opened.kill()
        opened.wait(SECONDS)
    with process(shop, model) as (_, address):
        assert httpx.get(f"{address}marks", timeout=SECONDS).json()["right"] == 21


@pytest.mark.slow
def test_a_client_that_never_ends_its_request_holds_nobody_up(shop: Path, model: Path) -> None:
    with process(shop, model, "--set", "serve.timeout=2") as (_, address):
        url = httpx.URL(address)
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                dripping = stack.enter_context(socket.create_connection((url.host, url.port)))
                dripping.sendall(b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
                dripping.sendall(b"Content-Length: 100\r\n\r\n{")
            began = time.monotonic()
            assert httpx.post(f"{address}search", json={"text": "red"}, timeout=SECONDS).status_code == 200
            assert time.monotonic() - began < 30
            dripping.settimeout(30)
            assert b"408" in dripping.recv(100), "not sent in time"
