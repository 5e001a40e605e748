"""The lines of a text file: decoded strictly as UTF-8, never longer than a limit, counted, with clear errors."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError

HEAD_BYTES = 65_536
READ_CHUNK = 1 << 20

OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel or ZIP file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


class LongLine(Exception):
    """A line is longer than the limit; it has been read past. A signal to the reader of the table, never shown."""


def refuse_binary(head: bytes, file: Path) -> None:
    """Raise DataError when the first bytes of `file` are no UTF-8 text: UTF-16, a known other format, NUL bytes."""
    if not head:
        raise DataError(f"{file}: the file is empty", "the first row must hold the column names")
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{file}: not text but {what}", "export the catalog as CSV (UTF-8), JSONL or Parquet")
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if utf16 or (head.count(0) > len(head) // 4 and (not any(head[1::2]) or not any(head[::2]))):
        raise DataError(f"{file}: row 1: encoded as UTF-16, not UTF-8", "save the file as UTF-8 (Excel: CSV UTF-8)")


class Lines:
    """An iterator over lines that knows what the record being read has used of them.

    `row` is the record's number (1 = the first), `number` the physical line's. A BOM is left out. Raises DataError at
    a byte that is not UTF-8 or is NUL, naming the row, and LongLine past a line of more than `limit` bytes.
    """

    def __init__(self, source: BinaryIO, file: Path, limit: int) -> None:
        self._source, self._file, self._limit = source, file, limit
        self.row = self.number = 0
        self.lines = self.bytes = self.quotes = 0
        self.ended = False

    def start_record(self) -> None:
        """What is read from now on belongs to the next record."""
        self.row += 1
        self.lines = self.bytes = self.quotes = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        raw = self._source.readline(self._limit)
        if not raw:
            self.ended = True
            raise StopIteration
        self._count(raw)
        self.lines += 1
        self.number += 1
        if len(raw) >= self._limit and not raw.endswith(b"\n"):
            while not raw.endswith(b"\n") and (raw := self._source.readline(READ_CHUNK)):
                self._count(raw)
            raise LongLine
        if self.number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            before = raw[max(0, error.start - 12) : error.start].decode("utf-8", "replace").strip()
            raise DataError(
                f"{self._file}: row {self.row}: byte 0x{raw[error.start]:02X} after {before!r} is not UTF-8",
                "save the file as UTF-8 (Excel: CSV UTF-8); it may be Windows-1252 or Latin-1 now",
            ) from error
        if "\0" in line:
            raise DataError(f"{self._file}: row {self.row}: a NUL byte: this is not a text file", "export it again")
        return line

    def _count(self, raw: bytes) -> None:
        self.bytes += len(raw)
        self.quotes += raw.count(b'"')

    def drop_open_quote(self) -> int:
        """After a record was given up: read past the lines up to the end of its open quote, if one is open.

        Returns how many lines the record had in all.
        """
        while self.quotes % 2:
            raw = self._source.readline(READ_CHUNK)
            if not raw:
                self.ended = True
                break
            self._count(raw)
            if raw.endswith(b"\n"):
                self.lines += 1
                self.number += 1
        return self.lines
