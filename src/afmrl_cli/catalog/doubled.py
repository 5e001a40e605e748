"""Text that was UTF-8, read as Windows-1252 and written as UTF-8 again: `ThÃ©iÃ¨re` for `Théière`.

    mended = text.encode(cp1252).decode(utf-8)      for each run of characters beyond ASCII, where that is possible

A file is mended when nearly all such runs in its first 64 KiB can be: a single one may be what its author meant.
"""

from __future__ import annotations

import re

RUN = re.compile(r"[^\x00-\x7f]+")
FEWEST = 3
MOST = 0.9


def is_doubled(text: str) -> bool:
    """Tell whether `text`, the beginning of a file, was encoded twice."""
    runs = RUN.findall(text)[:5000]
    return len(runs) >= FEWEST and sum(_mended(run) is not None for run in runs) >= MOST * len(runs)


def mended(text: str) -> str:
    """Return `text` with every run that was encoded twice as it was meant."""
    return text if text.isascii() else RUN.sub(lambda run: _mended(run[0]) or run[0], text)


def _mended(run: str) -> str | None:
    try:
        # Windows-1252 has no character for five bytes; programs pass them on as they are.
        return b"".join(_byte(char) for char in run).decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return None


def _byte(char: str) -> bytes:
    try:
        return char.encode("cp1252")
    except UnicodeEncodeError:
        return char.encode("latin-1")
