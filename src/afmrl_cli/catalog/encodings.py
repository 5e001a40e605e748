"""Which encoding a text file is in, and reading it as UTF-8 whatever it is.

A file goes by its BOM, else by its zero bytes (UTF-16), else it is UTF-8 when its bytes are: all of them, or most, and
then those that are not are read as Windows-1252 one by one and reported with their row (see lines.py). What is no UTF-8
at all is Windows-1252 when one western alphabet explains it, else whatever charset-normalizer makes of it, which is
reported: a guess of an encoding can be wrong, and `catalog.encoding` overrules it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import DataError, UsageError
from .problems import Problem, clipped
from .table import Report

SCAN_CHUNK = 1 << 20
SAMPLE_BYTES = 64 << 10
GUNZIP_AT_LEAST = 256 << 20
GUNZIP_RATIO = 200
"""A gzip file that unpacks to more than both is refused; real catalogs shrink ten to fifty times."""

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = (
    "åäöéüàø",
    "æøåéöäü",
    "äöüßéàè",
    "éèêëàâçîïôûùüœæÿñ",
    "áéíóúüñçªº",
    "áâãàçéêíóôõúüªº",
    "àèéìíîòóùú",
    "áéíóúýþæöð",
)
WESTERN_MARKS = set("’‘“”„‚–—…•€£©®™°²³½¼¾×±µ§·«»´\u00a0\u00ad¡¿")
CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "cp932", "gb18030"),
    *("big5", "cp949", "euc_jp", "koi8_r", "mac_roman", "cp850"),
]
NO_FILES = {"idna", "punycode", "undefined", "unicode-escape", "unicode_escape", "raw-unicode-escape"}
"""What Python calls encodings of text and no file is written in."""
GUNZIP_ERRORS = (gzip.BadGzipFile, zlib.error, EOFError)


def unpacked(source: BinaryIO) -> tuple[BinaryIO, bool]:
    """Return `source` at its start, or what is in it when it is gzip; and whether it is."""
    magic = source.read(2)
    source.seek(0)
    packed = magic == b"\x1f\x8b"
    return (cast("BinaryIO", gzip.GzipFile(fileobj=source, mode="rb")) if packed else source), packed


def find_encoding(source: BinaryIO, file: Path, configured: str, report: Report, *, packed: bool) -> str:
    """Return the encoding of the text in `source`, which is gone through once; a guess is reported to `report`.

    `configured` is `catalog.encoding`. Raises DataError for a gzip file (`packed`) that is damaged or unpacks to absurd
    sizes, UsageError for a configured encoding that Python does not have.
    """
    if configured:
        try:
            b"ab".decode(configured, "replace")  # refuses what is no encoding of text, such as zip and hex
            name = codecs.lookup(configured).name
        except (LookupError, ValueError):
            name = ""
        if not name or name in NO_FILES:
            shown = clipped(configured, 60)
            raise UsageError(f"catalog.encoding: no encoding {shown!r}", "for example cp1252 or utf-16")
        return name
    try:
        source.seek(0)
        if found := _by_start(source.read(4096)):
            return found
        source.seek(0)
        most = max(GUNZIP_AT_LEAST, GUNZIP_RATIO * file.stat().st_size) if packed else 0
        scan = _scanned(source, file, most)
    except GUNZIP_ERRORS as error:
        raise DataError(f"{file}: damaged gzip file: {clipped(str(error))}", "export it again") from error
    if not scan.bad or scan.good > scan.bad:
        return "utf-8"
    name, shown = _legacy(scan.sample)
    message = f"not UTF-8; read as {name}, where it says {clipped(shown, 60)!r}"
    report(Problem("guessed encoding", 0, message))
    return name


def _by_start(head: bytes) -> str:
    for bom, name in BOMS:
        if head.startswith(bom):
            return name
    if head.count(0) > len(head) // 4:
        if not any(head[::2]):
            return "utf-16-be"
        if not any(head[1::2]):
            return "utf-16-le"
    return ""


def _scanned(source: BinaryIO, file: Path, most: int) -> _Scan:
    scan, total = _Scan(), 0
    while chunk := source.read(SCAN_CHUNK) + source.readline(SCAN_CHUNK):
        total += len(chunk)
        if most and total > most:
            raise DataError(f"{file}: unpacks to more than {GUNZIP_RATIO} times its size", "is it a catalog?")
        scan.add(chunk)
    return scan


def as_utf8(source: BinaryIO, encoding: str, report: Report) -> BinaryIO:
    """Return `source` from its start as UTF-8 without BOM; UTF-8 itself is passed on as it is, wrong bytes and all."""
    source.seek(0)
    if encoding in ("utf-8", "utf-8-sig"):
        if source.read(3) != codecs.BOM_UTF8:
            source.seek(0)
        return source
    return cast("BinaryIO", io.BufferedReader(_Recoded(source, encoding, report), 1 << 18))


def with_line_feeds(source: BinaryIO) -> BinaryIO:
    """Return `source` with a line feed for every carriage return."""
    return cast("BinaryIO", io.BufferedReader(_LineFeeds(source), 1 << 18))


def repair_utf8(raw: bytes) -> tuple[str, str]:
    """Return `raw` as text, bytes that are not UTF-8 read as Windows-1252, and what to report of the first of them."""
    text = raw.decode("utf-8", "surrogateescape")
    mended = "".join(_one_byte(char) if "\udc80" <= char <= "\udcff" else char for char in text)
    first = next(i for i, char in enumerate(text) if "\udc80" <= char <= "\udcff")
    shown = " ".join(mended[max(0, first - 15) : first + 15].split())
    return mended, f"byte 0x{ord(text[first]) - 0xDC00:02X} is not UTF-8; read as Windows-1252: {shown!r}"


def _one_byte(escaped: str) -> str:
    return bytes([ord(escaped) - 0xDC00]).decode("cp1252", "replace")


@dataclass
class _Scan:
    """What a file holds: characters beyond ASCII that are UTF-8, bytes that are not, and lines with those."""

    good: int = 0
    bad: int = 0
    sample: bytes = b""

    def add(self, part: bytes) -> None:
        """Count the characters of the next bytes of the file."""
        if part.isascii():
            return
        try:
            text = part.decode()
        except UnicodeDecodeError:
            for line in part.splitlines(keepends=True):
                self._line(line)
        else:
            self.good += len(text) - len(text.encode("ascii", "ignore"))

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "surrogateescape")
        wrong = 0 if line.isascii() else sum("\udc80" <= char <= "\udcff" for char in text)
        self.good += len(text) - len(text.encode("ascii", "ignore")) - wrong
        self.bad += wrong
        if wrong and len(self.sample) < SAMPLE_BYTES:
            self.sample += line[: SAMPLE_BYTES - len(self.sample)]


def _legacy(sample: bytes) -> tuple[str, str]:
    """Return (encoding, a piece of the text that is not ASCII) of bytes that are not UTF-8."""
    name = "cp1252"
    if not _western(sample.decode("cp1252", "replace")):
        from charset_normalizer import from_bytes

        best = from_bytes(sample, cp_isolation=CANDIDATES).best()
        name = best.encoding if best else "cp1252"
    text = sample.decode(name, "replace")
    first = next((i for i, char in enumerate(text) if char >= "\x80"), 0)
    return name, text[max(0, first - 15) : first + 30]


def _western(text: str) -> bool:
    """Tell whether one western alphabet has nearly all letters of `text` that are not ASCII."""
    special = [char for char in text.lower() if char >= "\x80" and char not in WESTERN_MARKS]
    return any(sum(char in letters for char in special) >= 0.98 * len(special) for letters in WESTERN)


class _Recoded(io.RawIOBase):
    """The bytes of a text file in another encoding, as UTF-8."""

    def __init__(self, source: BinaryIO, encoding: str, report: Report) -> None:
        super().__init__()
        self._source, self._encoding, self._report = source, encoding, report
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._rest = b""
        self._first, self._reported, self._ended = True, False, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill `buffer`, return how many bytes; 0 at the end."""
        while not self._rest and not self._ended:
            chunk = self._source.read(1 << 16)
            self._ended = not chunk
            text = self._decoder.decode(chunk, self._ended)
            if "\ufffd" in text and not self._reported:
                self._reported = True
                self._report(Problem("wrong byte", 0, f"not all bytes are {self._encoding}; shown as \ufffd"))
            if text and self._first:
                self._first, text = False, text.removeprefix("\ufeff")
            self._rest = text.encode("utf-8", "replace")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _LineFeeds(io.RawIOBase):
    """Bytes whose lines end in CR, with LF instead."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill `buffer`, return how many bytes; 0 at the end."""
        found = self._source.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(found)] = found
        return len(found)
