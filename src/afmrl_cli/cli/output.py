"""The only place that prints. Results go to standard output, everything else to standard error.

With --json one document goes to standard output and nothing else does. Progress is a bar when a person watches standard
error, else a plain line every few seconds. NO_COLOR and a pipe turn colour off.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..escaping import json_text, log_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PLAIN_PROGRESS_SECONDS = 5.0
PIPED_WIDTH, LEAST_FOLDED, LEAST_WIDTH = 200, 10, 40
HASH = re.compile(r"[0-9a-f]{64}")
"""What people are shown the first ten signs of."""
NUMBERS = re.compile(r"[-+]?[\d.,]+%?( to [-+]?[\d.,]+%?)?|-|")
"""A number, an interval, nothing: what is never folded."""


def _jsonable(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a NumPy scalar
        return value.item()
    raise TypeError(f"{type(value).__name__} in a JSON document")


class Output:
    """Where a command's results and messages go; also the listener of long work. Use as a context manager."""

    def __init__(self, *, json_mode: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json_mode = json_mode
        self.quiet = quiet
        self.verbose = verbose
        self.follows = int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"
        """Whether this is one of several processes of a training (torchrun), and not the one that talks."""
        self.preset: dict[str, str] = {}
        """What `model.preset = auto` came to, and why: part of every document; empty where the settings name one."""
        self._err: Console | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._last_line = 0.0

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end_progress()

    @property
    def err(self) -> Console:
        """Return the console on standard error."""
        if self._err is None:
            from rich.console import Console

            self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        return self._err

    @property
    def width(self) -> int:
        """Return how many columns a line of the result may have: the terminal's, COLUMNS into a pipe, else many."""
        import shutil

        return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns

    # Results: standard output

    def document(self, schema: str, content: Mapping[str, Any]) -> None:
        """Print the command's result as one JSON document, only with --json. `schema` is like "afmrl.eval/1"."""
        if self.json_mode:
            self.line(schema, content)

    def line(self, schema: str, content: Mapping[str, Any]) -> None:
        """Print one of several documents, each on a line of its own, with --json and without."""
        self.end_progress()
        # Where the terminal is not UTF-8, escapes keep every character.
        ascii_only = (sys.stdout.encoding or "").replace("-", "").lower() != "utf8"
        tree = {"schema": schema, **content, **({"preset": self.preset} if self.preset else {})}
        document = json.dumps(tree, ensure_ascii=ascii_only, default=_jsonable, allow_nan=False)
        print(json_text(document), flush=True)

    def text(self, line: str = "") -> None:
        """Print a line of the result for a person."""
        if not self.json_mode:
            self.end_progress()
            print(log_text(printable(line)), flush=True)

    def words(self, line: str, hang: int = 4) -> None:
        """Print a line as `text` does, broken at blanks where the terminal ends; what follows stands `hang` columns in.

        Links, paths and long names stay whole.
        """
        import textwrap

        for part in line.splitlines() or [""]:
            inside = " " * (len(part) - len(part.lstrip()) + hang)
            folded = textwrap.wrap(
                part,
                max(self.width, LEAST_WIDTH),
                subsequent_indent=inside,
                break_long_words=False,
                break_on_hyphens=False,
                replace_whitespace=False,
            )
            for piece in folded or [""]:
                self.text(piece)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
        """Print a table of the result for a person; numbers right-aligned; cells are never read as markup."""
        if self.json_mode:
            return
        self.end_progress()
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        lines = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
        needed = 0
        for i, name in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[i], int | float) or row[i] in ("-", "") for row in rows)
            whole = bool(rows) and all(NUMBERS.fullmatch(line[i]) for line in lines)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
            needed += 3 + (max(len(name), *(len(line[i]) for line in lines)) if whole else LEAST_FOLDED)
        for line in lines:
            table.add_row(*(Text(printable(cell)) for cell in line))
        # Into a pipe COLUMNS counts, as rich reads it; without it nothing need be folded.
        piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
        console = Console(width=PIPED_WIDTH if piped else None, highlight=False)
        console.width = max(console.width, needed)  # better a line that a terminal breaks than a number that is cut
        with console.capture() as rendered:
            console.print(table)
        print(log_text(rendered.get()), end="", flush=True)

    # Messages: standard error

    def _say(self, message: str, style: str = "") -> None:
        from rich.text import Text

        self.err.print(Text(log_text(printable(message)), style=style))

    def note(self, message: str) -> None:
        """Say something worth knowing; silent with --quiet."""
        if not (self.quiet or self.follows):
            self._say(message)

    def warn(self, message: str) -> None:
        """Warn of something to check; shown even with --quiet."""
        if not self.follows:
            self._say(f"warning: {message}", "yellow")

    def ask(self, question: str) -> bool:
        """Ask a person at a terminal, on standard error, and return whether the answer is yes; no elsewhere."""
        self.end_progress()
        if self.json_mode or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        import typer

        return typer.confirm(log_text(printable(question)), default=False, err=True)

    def annotate(self, line: str) -> None:
        """Print a workflow command for the CI that runs this, unescaped; on standard error: --json is one document."""
        print(line, file=sys.stderr)

    def error(self, message: str, hint: str, exit_code: int) -> None:
        """Report a failure: one or two lines, and with --json a document too."""
        self.end_progress()
        self._say(f"error: {message}", "bold red")
        if hint:
            self._say(f"  {hint}")
        if not self.follows:
            self.document("afmrl.error/1", {"error": {"message": message, "hint": hint, "exit_code": exit_code}})

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """Show how far the work named `what` is; a new name ends the bar of the one before."""
        if self.quiet:
            return
        if what != self._what:
            self.end_progress()
            self._what, self._last_line = what, time.monotonic()
        if self.err.is_terminal:
            self._advance_bar(what, done, total)
        elif time.monotonic() - self._last_line >= PLAIN_PROGRESS_SECONDS:
            self._last_line = time.monotonic()
            self._say(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))

    def _advance_bar(self, what: str, done: int, total: int | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self.err, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(what, total=total)
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total)

    def end_progress(self) -> None:
        """Take the bar away, so that what is printed next stands alone."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task, self._what = None, None, ""


def plain_text(value: object) -> str:
    """Return a setting as one would type it (5e-05 is not 0.0001), "-" for none."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{number:,} {name}" for name, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and HASH.fullmatch(value):
        return value[:10]
    return f"{value:g}" if isinstance(value, float) else str(value)


def clipped(text: str, width: int) -> str:
    """Return a text as one line of no more than `width` columns."""
    from rich.cells import cell_len, set_cell_size

    line = " ".join(text.split("\n"))
    return line if cell_len(line) <= width else set_cell_size(line, max(1, width - 1)).rstrip() + "…"
