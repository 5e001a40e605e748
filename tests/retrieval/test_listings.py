"""The rows beside the vectors come back as they were written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from afmrl_cli.retrieval.listings import BATCH_ROWS, Listing, Listings, ListingsWriter


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [
        Listing(f"ü{i}", "k", "f", "", "a\nb" * (i % 2), "\u2764", [f"{j}.jpg" for j in range(i % 3)], "{}")
        for i in range(BATCH_ROWS + 5)
    ]
    with ListingsWriter(tmp_path / "rows") as writer:
        for row in rows:
            writer.add(row)
    read = Listings(tmp_path / "rows")
    assert list(read) == rows
    assert read.listing(BATCH_ROWS + 4) == rows[-1] and read.row_of("ü7") == 7


def test_writing_imports_no_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from afmrl_cli.retrieval.listings import *\n"
        f"with ListingsWriter(Path({str(tmp_path / 'rows')!r})) as writer:\n"
        "    writer.add(Listing('i', 'k', 'f', '', '', '', ['a.jpg'], '{}'))\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert Listings(tmp_path / "rows").listing(0).images == ["a.jpg"]
