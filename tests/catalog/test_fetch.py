"""Linked photos, fetched from a real server on this machine."""

from __future__ import annotations

import contextlib
import gzip
import io
import ipaddress
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.catalog import fetch
from afmrl_cli.catalog.addresses import is_public
from afmrl_cli.catalog.images import open_image
from afmrl_cli.cli.app import app
from afmrl_cli.settings import CatalogSettings

from .shop import found, read, write


def png(size: tuple[int, int] = (8, 8), color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


ANSWERS = {
    "moved": (302, b"", {"Location": "/1.png"}),
    "loop": (302, b"", {"Location": "/loop"}),
    "file": (302, b"", {"Location": "file:///etc/passwd"}),
    "odd-place": (302, b"", {"Location": "http://xn--/1.png"}),
    "down": (500, b"no", {}),
    "html": (200, b"<html>Log in</html>", {"Content-Type": "image/png"}),
    "bomb": (200, png((6000, 6000)), {}),
    "big": (200, bytes(300_000), {}),
    "packed": (200, gzip.compress(png()), {"Content-Encoding": "gzip"}),
}


DRIPS = {
    "header": b"HTTP/1.1 200 OK\r\nX: ",
    "chunk-header": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
}
"""What these begin with; then one byte after the other, and never an end."""


class Shop(BaseHTTPRequestHandler):
    """Serves what the path says; counts what was asked for."""

    requested: ClassVar[Counter[str]] = Counter()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/")
        self.requested[self.path] += 1
        if name in ANSWERS:
            self.answer(*ANSWERS[name])
        elif name.endswith(".png"):
            self.answer(200, png(color=f"hsl({int(name[:-4]) * 7 % 360}, 100%, 50%)"), {})
        elif name == "elsewhere":
            port = self.headers["Host"].split(":")[1]
            self.answer(302, b"", {"Location": f"http://127.0.0.2:{port}/1.png"})
        elif name.startswith("slow"):  # half of it, and the rest when its turn comes: the first time never
            body = png()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:30])
            self.wfile.flush()
            time.sleep(60 if self.requested[self.path] == 1 else 0)
            self.wfile.write(body[30:])
        elif name in DRIPS or name == "interim":
            self.drip(name)
        elif name == "flaky":
            self.answer(*((503, b"later") if self.requested[self.path] < 3 else (200, png())), {})
        elif name in ("endless", "cut"):
            self.close_connection = True
            self.send_response(200)
            if name == "cut":
                self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(png() if name == "cut" else bytes(1_000_000))
        else:
            self.answer(404, b"gone", {})

    def drip(self, name: str) -> None:
        """Send a little at a time, or answers before the answer, and never come to an end."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(DRIPS.get(name, b""))
            while True:
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 if name == "interim" else b"x")
                time.sleep(0 if name == "interim" else 0.02)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """The client hangs up on what is too big."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.01)
    Shop.requested.clear()
    with Server(("0.0.0.0", 0), Shop) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def catalog(folder: Path, *links: str) -> Path:
    lines = [f'{i},"thing {i}","{link}"\n' for i, link in enumerate(links)]
    return write(folder / "catalog.csv", "id,title,image\n" + "".join(lines))


def run(folder: Path, *flags: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["fetch-images", str(folder), *flags])
    assert done.exit_code == code, done.output
    return done.output


def test_photos_are_fetched_in_shards_each_once(server: str, tmp_path: Path) -> None:
    """By what the links are: two products that share a photo may be of different shards."""
    catalog(tmp_path, *(f"{server}/{i % 9}.png" for i in range(18)), f"{server}/missing")
    parts = [json.loads(run(tmp_path, "--private", "--json", "--shard", f"{i}/2").splitlines()[0]) for i in range(2)]
    assert all(part["fetched"] for part in parts)
    assert {count for path, count in Shop.requested.items() if path.endswith(".png")} == {1}
    merged = json.loads(CliRunner().invoke(app, ["merge", str(tmp_path), "--json", "-q"]).stdout)["fetch-images"]
    size = sum(part["bytes"] for part in parts)
    assert merged == {"shards": 2, "fetched": 9, "there": 0, "failed": 1, "bytes": size}


def test_photos_are_fetched_once_and_then_found(server: str, tmp_path: Path) -> None:
    links = [f"{server}/{i}.png?w=1,2" for i in range(20)]
    file = catalog(tmp_path, *links, f"{server}/0.png?w=1,2", f"{server}/moved, {server}/flaky")
    assert not any(product.images for product in read(file)[0])
    assert "22 photos fetched" in run(tmp_path, "--private")
    products, problems = read(file)
    assert not problems.counts and [len(product.images) for product in products] == [1] * 21 + [2]
    assert products[0].images == products[20].images
    colors = [open_image(product.images[0], CatalogSettings()).getpixel((0, 0)) for product in products[:20]]
    assert len(set(colors)) == 20
    requested = Counter(Shop.requested)
    left = write(tmp_path / ".afmrl/images/.writing-killed", "half of a photo")
    assert "0 photos fetched (0.0 MB), 22 were there, 0 failed" in run(tmp_path, "--private")
    assert Shop.requested == requested and max(requested.values()) == 3  # three times only what said 503 twice
    with file.open("a") as more:
        more.write(f"new,new,{server}/77.png\n")
    assert "1 photos fetched" in run(tmp_path, "--private")
    assert not left.exists()


def test_a_killed_fetch_goes_on_and_keeps_no_half_photo(server: str, tmp_path: Path) -> None:
    names = [*(f"{i}.png" for i in range(20)), *(f"slow{i}" for i in range(3)), *(f"{i}.png" for i in range(50, 60))]
    file = catalog(tmp_path, *(f"{server}/{name}" for name in names))
    command = [sys.executable, "-m", "afmrl_cli", "fetch-images", str(tmp_path), "--private", "--quiet"]
    images = tmp_path / ".afmrl" / "images"
    with subprocess.Popen(command, stderr=subprocess.PIPE) as fetching:
        try:
            give_up = time.monotonic() + 60
            while len(whole := photos(images)) < 25 or len(halves(images)) < 3:
                assert time.monotonic() < give_up and fetching.poll() is None
                time.sleep(0.02)
        finally:
            fetching.kill()
    assert fetching.returncode == -signal.SIGKILL
    for path in photos(images):
        assert open_image(path, CatalogSettings()).size == (8, 8)
    products, _ = read(file)
    assert sum(len(product.images) for product in products) == len(photos(images)) >= len(whole)
    assert len(halves(images)) >= 3
    had = {f"/{name}" for name, product in zip(names, products, strict=True) if product.images}
    assert f"{len(names) - len(had)} photos fetched" in run(tmp_path, "--private")
    assert not halves(images) and len(photos(images)) == len(names)
    assert all(len(product.images) == 1 for product in read(file)[0])
    assert all(Shop.requested[path] == 1 for path in had)


def photos(images: Path) -> list[Path]:
    return [path for path in images.rglob("*") if path.is_file() and not path.name.startswith(".")]


def halves(images: Path) -> list[Path]:
    return list(images.rglob(".writing-*"))


BAD = {
    "gone": "the server says 404",
    "down": "the server says 500",
    "loop": "more than 5 redirects",
    "file": "neither http nor https",
    "html": "no photo but HTML",
    "big": "more than 200,000 bytes",
    "endless": "more than 200,000 bytes",
    "bomb": "6,000 x 6,000 pixels",
    "cut": "cut off",
    "packed": "packed",
}


def test_what_is_no_photo_is_reported_with_its_row_and_leaves_nothing(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = catalog(
        tmp_path, f"{server}/1.png", *(f"{server}/{name}" for name in BAD), "http://no.such.host.invalid/a.png"
    )
    monkeypatch.setattr(CatalogSettings, "max_image_bytes", 200_000)
    limits = ["--set", "catalog.max_image_pixels=1000000"]
    done = CliRunner().invoke(app, ["fetch-images", str(tmp_path), "--private", "--json", *limits])
    content = json.loads(done.stdout)
    assert (content["schema"], content["fetched"], content["failed"]) == ("afmrl.fetch-images/1", 1, len(BAD) + 1)
    failures = {failure["row"]: failure for failure in content["first_failures"]}
    for row, (name, words) in enumerate(BAD.items(), 3):
        assert words in failures[row]["message"] and failures[row]["listing"] == str(row - 2), name
    assert "no such host" in failures[len(BAD) + 3]["message"]
    assert Shop.requested["/down"] == 4 and Shop.requested["/gone"] == 1
    assert len([path for path in (tmp_path / ".afmrl/images").rglob("*") if path.is_file()]) == 1
    assert found(read(file)[1]) == [("image url", row) for row in range(3, len(BAD) + 4)]
    assert "row 3, column image" in run(tmp_path, "--private", "--set", "catalog.bad_images=fail", code=3)


def test_private_addresses_are_refused_before_any_request(server: str, tmp_path: Path) -> None:
    port = server.rsplit(":", 1)[1]
    hosts = (
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
    )
    catalog(tmp_path, *(f"http://{host}:{port}/1.png" for host in hosts))
    output = run(tmp_path, code=3)
    assert "no link led to a photo" in output and "which is not on the public internet" in output
    assert not Shop.requested


def test_a_redirect_to_a_refused_address_is_refused(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: str(address) == "127.0.0.1")
    catalog(tmp_path, f"{server}/1.png", f"{server}/elsewhere")
    output = run(tmp_path)
    assert "1 photos fetched" in output and "127.0.0.2 is 127.0.0.2, which is not on the public" in output
    assert Shop.requested == {"/1.png": 1, "/elsewhere": 1}


def test_a_name_that_also_has_a_private_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answers)
    catalog(tmp_path, "http://rebinding.example/1.png")
    assert "rebinding.example is 10.0.0.1, which is not on the public internet" in run(tmp_path, code=3)


def test_a_host_that_is_not_there_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.001)
    catalog(tmp_path, *(f"http://127.0.0.1:9/{i}.png" for i in range(60)))
    began = time.monotonic()
    output = run(tmp_path, "--private", code=3)
    assert "can't connect" in output and time.monotonic() - began < 30
    catalog(tmp_path, "ftp://example.com/a.png", "data:image/png;base64,AAAA")
    assert "0 photos fetched (0.0 MB), 0 were there, 0 failed" in run(tmp_path)


def test_one_clock_runs_over_a_whole_request(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PHOTO_SECONDS", 0.5)
    catalog(tmp_path, *(f"{server}/{name}" for name in (*DRIPS, "interim")), f"{server}/1.png")
    output = " ".join(run(tmp_path, "--private").split())
    assert "1 photos fetched" in output and "4 failed" in output and "takes longer than" in output
    assert all(Shop.requested[f"/{name}"] == 1 for name in (*DRIPS, "interim"))  # it would take as long again


@pytest.mark.parametrize("name", [*DRIPS, "interim"])
def test_interrupting_ends_a_fetch_from_a_server_that_never_does(server: str, tmp_path: Path, name: str) -> None:
    catalog(tmp_path, f"{server}/{name}")
    # A shell that put the tests into the background had Ctrl-C ignored, which processes inherit.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; from afmrl_cli.cli.app import main; main()"
    command = [sys.executable, "-c", program, "fetch-images", str(tmp_path), "--private", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as fetching:
        try:
            give_up = time.monotonic() + 60
            while not Shop.requested[f"/{name}"]:
                assert time.monotonic() < give_up and fetching.poll() is None
                time.sleep(0.02)
            fetching.send_signal(signal.SIGINT)
            _, said = fetching.communicate(timeout=20)
        finally:
            fetching.kill()
    assert fetching.returncode == 130 and said.splitlines()[0].endswith("interrupted") and "Traceback" not in said
    assert not halves(tmp_path / ".afmrl/images")


NO_LINKS = ("http://xn--/1.png", "http://xn--a/1.png", "http://127.0.0.1:99999999/1.png", "http://[::1/1.png")


def test_a_link_that_is_none_costs_itself_alone(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.001)
    catalog(tmp_path, *NO_LINKS, f"{server}/odd-place", f"{server}/1.png")
    output = run(tmp_path, "--private")
    assert "1 photos fetched" in output and f"{len(NO_LINKS) + 1} failed" in output


PUBLIC = "93.184.216.34"


@pytest.fixture
def internet(server: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A public address that is really this machine's server, by whatever name; no packet goes anywhere else. The
    addresses that were connected to."""
    port, connect, connected = int(server.rsplit(":", 1)[1]), socket.create_connection, []

    def to_the_server(address: tuple[str, int], *more: Any, **named: Any) -> socket.socket:
        connected.append(address[0])
        assert address[0] == PUBLIC, address
        return connect(("127.0.0.1", port), *more, **named)

    monkeypatch.setattr(socket, "create_connection", to_the_server)
    return connected


def answers(*addresses: str) -> Any:
    """A resolver that gives the next address at each call, and the last one from then on."""
    left = list(addresses)

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        with contextlib.suppress(ValueError):  # an address stands for itself
            left.insert(0, str(ipaddress.ip_address(host.strip("[]"))))
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return resolve


INNER = ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.0.0.8", "[::1]", "[fec0::1]", "[64:ff9b::7f00:1]")


def test_a_redirect_from_a_public_to_a_private_address_is_refused(
    internet: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, host in enumerate(INNER):
        monkeypatch.setitem(ANSWERS, f"inner{i}", (302, b"", {"Location": f"http://{host}/1.png"}))
    monkeypatch.setattr("socket.getaddrinfo", answers(PUBLIC))
    catalog(tmp_path, *(f"http://shop.example/inner{i}" for i in range(len(INNER))))
    done = CliRunner().invoke(app, ["fetch-images", str(tmp_path), "--json"])
    assert done.exit_code == 3 and "which is not on the public internet" in done.output
    assert set(internet) == {PUBLIC} and not Shop.requested["/1.png"]
    assert all(Shop.requested[f"/inner{i}"] == 1 for i in range(len(INNER)))


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "::1", "fec0::1", "::ffff:192.168.0.1"])
def test_a_name_that_is_bound_to_a_private_address_between_two_lookups_is_not_followed_there(
    internet: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    monkeypatch.setattr(fetch, "AT_ONCE", 1)
    monkeypatch.setattr("socket.getaddrinfo", answers(PUBLIC, inner))
    # The first is fetched from the address that was checked; for the second a new connection is made.
    catalog(tmp_path, "http://shop.example/1.png", "http://shop.example:81/2.png")
    output = run(tmp_path)
    assert "1 photos fetched" in output and f"shop.example is {inner}, which is not on the public" in output
    assert internet == [PUBLIC] and Shop.requested == {"/1.png": 1}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.168.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("192.0.0.1", False),  # 192.0.0.0/24 and fec0::/10 depend on the version of Python's own list
        ("192.0.0.170", False),
        ("fec0::1", False),
        ("feff::1", False),
        ("172.31.255.255", False),
        ("172.32.0.0", True),
        ("198.19.0.1", False),
        ("198.51.100.7", False),
        ("203.0.113.7", False),
        ("192.88.99.1", False),
        ("239.1.1.1", False),
        ("240.0.0.1", False),
        ("0.0.0.0", False),
        ("9.255.255.255", True),
        ("100.128.0.0", True),
        ("::", False),
        ("::a00:1", False),  # an IPv4 address as it was once written
        ("::ffff:0:10.0.0.1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001::1", False),  # Teredo
        ("2001:db8::1", False),
        ("2001:4860:4860::8888", True),
        ("2002:5db8:d822::1", True),
        ("2002:7f00:1::", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("ff02::1", False),
        ("fc00::1", False),
    ],
)
def test_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public
