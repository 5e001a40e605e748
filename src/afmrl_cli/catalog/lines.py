"""The lines of a UTF-8 file, never longer than a limit, counted; a wrong byte is mended and reported with its row."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from .encodings import repair_utf8
from .problems import Problem
from .table import Report

HEAD_BYTES = 65_536
READ_CHUNK = 1 << 20


class LongLine(Exception):
    """A line is longer than the limit; it has been read past. A signal to the reader of the table, never shown."""


class Lines:
    """An iterator over lines that knows what the record being read has used of them.

    `row` is the record's number (1 = the first), `number` the physical line's. Bytes that are not UTF-8 go to `report`.
    Raises DataError at a NUL byte, naming the row, and LongLine past a line of more than `limit` bytes.
    """

    def __init__(self, source: BinaryIO, file: Path, limit: int, report: Report) -> None:
        self._source, self._file, self._limit, self._report = source, file, limit, report
        self.row = self.number = 0
        self.lines = self.bytes = self.quotes = 0
        self.ended = False

    def start_record(self) -> None:
        """Note that what is read from now on belongs to the next record."""
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
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            line, message = repair_utf8(raw)
            self._report(Problem("wrong byte", self.row, message))
        if "\0" in line:
            raise DataError(f"{self._file}: row {self.row}: a NUL byte: this is not a text file", "export it again")
        return line

    def _count(self, raw: bytes) -> None:
        self.bytes += len(raw)
        self.quotes += raw.count(b'"')

    def drop_open_quote(self) -> int:
        """Read, after a record was given up, past the lines up to the end of its open quote, if one is open.

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
