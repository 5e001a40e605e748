"""A real browser without a driver: Chromium, spoken to over its debugging pipe (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 180.0
"""What a machine of busy cores may take for one step."""
KEYS = {"Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "Escape": 27, " ": 32}


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own. Each step waits for what it needs."""

    def __init__(self, program: str, folder: Path) -> None:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        words = [
            program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking", "--lang=en",
            f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip

        def ends() -> None:
            # 3 is read and 4 written by the browser; by way of high numbers, since 3 or 4 may be one of ours.
            for place, end in ((3, os.dup(to_read)), (4, os.dup(from_write))):
                high = os.dup2(end, 100 + place)
                os.dup2(high, place)

        self._process = subprocess.Popen(
            words, preexec_fn=ends, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        self._out, self._in = os.fdopen(to_write, "wb", 0), os.fdopen(from_read, "rb", 0)
        os.set_blocking(self._in.fileno(), False)
        self._buffer, self._number, self._session = b"", 0, ""
        self._answer: dict[str, Any] = {}
        self._loaded: set[str] = set()
        self.errors: list[str] = []
        """What the page's console told as errors, and exceptions that nothing caught."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._wait(lambda: self._answer.get("id") == self._number, f"an answer to {method}")
        assert "error" not in self._answer, f"{method}: {self._answer['error']}"
        return dict(self._answer["result"])

    def _wait(self, there: Callable[[], bool], what: str) -> None:
        """Read what the browser tells until something is there. All that was read is noted, what comes behind an answer
        too: it comes but once.
        """
        until = time.monotonic() + SECONDS
        while not there():
            assert time.monotonic() < until, f"never came: {what}"
            piece = self._in.read(1 << 20)
            if piece is None:
                time.sleep(0.005)
                continue
            assert piece, "the browser is gone"
            *whole, self._buffer = (self._buffer + piece).split(b"\0")
            for message in map(json.loads, whole):
                self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if "id" in message:
            self._answer = message
        elif message["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif message["method"] == "Page.lifecycleEvent" and parameters["name"] == "load":
            self._loaded.add(parameters["loaderId"])

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Open a page in a window of that size, and wait until this document, not the one before, is loaded."""
        self.size(width, height)
        loader = self.call("Page.navigate", url=address)["loaderId"]
        self._wait(lambda: loader in self._loaded, address)

    def error(self) -> str:
        """Wait for an error in the page's console and return it; the console may hear of it after the page has shown
        what it means.
        """
        self._wait(lambda: bool(self.errors), "an error in the console")
        return self.errors.pop(0)

    def size(self, width: int, height: int = 900) -> None:
        """Give the window another size."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def js(self, expression: str) -> Any:
        """Return what an expression comes to in the page."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if self.js(f"Boolean({expression})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}; the page says: {self.js('document.body.innerText')[:1500]}")

    def click(self, selector: str) -> None:
        """Click with the mouse on what a selector finds, in its middle."""
        where = f"document.querySelector({json.dumps(selector)})"
        self.until(f"!!{where} && !{where}.disabled")
        self.js(f"{where}.scrollIntoView({{block: 'center'}})")
        x, y = self.js(
            f"(() => {{ const b = {where}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, commands: list[str] | None = None) -> None:
        """Press a key on what has the focus."""
        code = KEYS.get(key, ord(key.upper()[0]))
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        more: dict[str, Any] = {"commands": commands} if commands else {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a field for files, as a person does in its dialog."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def drop(self, file: Path, x: float = 300, y: float = 300) -> None:
        """Drag a file from outside and drop it on the page."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def copy_picture(self, address: str, origin: str) -> None:
        """Put the picture at an address of the page's own on the clipboard, as PNG."""
        self.call(
            "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"], origin=origin
        )
        self.call("Page.bringToFront")
        self.js(
            f"""(async () => {{
              const bitmap = await createImageBitmap(await (await fetch({json.dumps(address)})).blob());
              const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
              canvas.getContext("2d").drawImage(bitmap, 0, 0);
              const png = await canvas.convertToBlob({{ type: "image/png" }});
              await navigator.clipboard.write([new ClipboardItem({{ "image/png": png }})]);
            }})()"""
        )

    def paste(self) -> None:
        """Press Ctrl-V."""
        self.call("Input.dispatchKeyEvent", type="keyDown", key="v", modifiers=2, commands=["paste"])
        self.call("Input.dispatchKeyEvent", type="keyUp", key="v", modifiers=2)

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all that a selector finds."""
        return list(self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.innerText)"))

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Save what the window shows, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._in.close()
        self._out.close()


@contextlib.contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        opened = Browser(program, Path(folder))
        try:
            yield opened
        finally:
            opened.close()
