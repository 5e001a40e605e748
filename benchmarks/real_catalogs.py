"""The tables of docs/lab/evidence.md, "what the built-in model finds, beside simple systems".

    python -m benchmarks.real_catalogs DATA WORK [NAME ...]

DATA holds a folder a catalog; each is copied into WORK (what is there is taken up) and goes through `afmrl attributes`
(where the table is about them), `afmrl embed` and `afmrl eval`, with the settings as they come. Printed is Markdown,
each table with its command. Nothing is chosen by these figures: the base has no training products.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = ("recall@1", "hit@1", "recall@10", "mrr", "ndcg@10")
SYSTEMS = {
    "embedder": "nano (zero-shot base)",
    "bm25": "BM25",
    "bm25-attributes": "BM25 over attributes",
    "fusion": "nano + BM25, fused",
    "colors": "colours",
}


@dataclass(frozen=True)
class Table:
    """One table: whose title, and the words after `afmrl eval`."""

    title: str
    words: str


CATALOGS: Mapping[str, tuple[bool, Sequence[Table]]] = {
    "luma": (
        True,
        [
            Table(
                "Listing → the same variant, as a query of a file",
                "--queries queries.jsonl --gallery split=gallery --baselines",
            ),
            Table(
                "The same as listings, with their generated attributes",
                "--protocol identity --gallery split=gallery --baselines",
            ),
            Table(
                "Photos → the same variant among its colour variants",
                "--protocol fine --query-fields photos --gallery-fields photos --gallery split=gallery --baselines",
            ),
            Table(
                "One photo → its variant, the gallery shows photos",
                "--queries queries_photo.jsonl --gallery split=gallery --gallery-fields photos --baselines",
            ),
            Table(
                'A photo and "color: Black" → the variant in black',
                "--queries queries_composed.jsonl --gallery split=gallery --baselines",
            ),
        ],
    ),
    "grocery": (
        True,
        [
            Table(
                "Phone photo → packshot",
                "--protocol identity --gallery split=gallery --query-fields photos --gallery-fields photos --baselines",
            ),
            Table(
                "Phone photo with its attributes → listing with text",
                "--protocol identity --gallery split=gallery --baselines",
            ),
        ],
    ),
    "myntra": (False, [Table("Title → photo", "--queries queries.jsonl --gallery-fields photos --baselines")]),
    "text_abtbuy": (
        False,
        [
            Table(
                "Listing → the other shop's listing (text)",
                "--queries queries.jsonl --gallery split=gallery --systems bm25 --systems fusion",
            )
        ],
    ),
    "text_amazongoogle": (
        False,
        [
            Table(
                "Listing → the other shop's listing (text)",
                "--queries queries.jsonl --gallery split=gallery --systems bm25 --systems fusion",
            )
        ],
    ),
    "text_wdc_computers": (
        False,
        [Table("Offer → offers of other shops (text)", "--queries queries.jsonl --systems bm25 --systems fusion")],
    ),
    "chorus_icecat": (
        False,
        [Table("Typed query → product (text)", "--queries queries.jsonl --systems bm25 --systems fusion")],
    ),
}


def run(data: Path, work: Path, names: Iterable[str]) -> None:
    """Measure the catalogs and print their tables as they are done."""
    for name in names:
        place = work / name
        if not place.exists():
            shutil.copytree(data / name, place, ignore=shutil.ignore_patterns(".afmrl"))
        with_attributes, tables = CATALOGS[name]
        if with_attributes:
            _afmrl(place, "attributes", "--quiet")
        _afmrl(place, "embed", "--quiet")
        print(f"### {name}\n")
        for table in tables:
            content = json.loads(_afmrl(place, "eval", *shlex.split(table.words), "--json"))
            print("\n".join([*_markdown(table, content), ""]), flush=True)


def _afmrl(place: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "afmrl_cli", *words], cwd=place, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _markdown(table: Table, content: Mapping[str, Any]) -> list[str]:
    asked = f"{content['queries']:,} queries about {content['groups']:,} products, gallery of {content['gallery']:,}"
    lines = [f"{table.title}. {asked}: `afmrl eval {table.words}`", ""]
    possible = content["possible"]
    if possible.get("recall@1", 1.0) < 0.9995:
        lines += [
            f"At most possible: recall@1 {possible['recall@1']:.3f}, since queries have several right answers.",
            "",
        ]
    variants = any(system["variants"] for system in content["systems"])
    columns = ["system", *METRICS, *(["a variant first"] if variants else [])]
    lines += ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    for system in content["systems"]:
        lines.append("| " + " | ".join([_name(system), *_cells(system, variants)]) + " |")
    return lines


def _name(system: Mapping[str, Any]) -> str:
    name = SYSTEMS.get(str(system["system"]), str(system["system"]))
    if not system["fusion"]:
        return name
    weights = ", ".join(f"{half['weight']:g}" for half in system["fusion"])
    return f"{name}, weight of nano {weights}"


def _cells(system: Mapping[str, Any], variants: bool) -> list[str]:
    if not system["readable"]:
        return ["-"] * (len(METRICS) + variants)
    low, high = system["intervals"]["recall@1"]
    cells = [f"{system['metrics'][name]:.3f}" for name in METRICS]
    cells[0] += f" [{low:.3f}, {high:.3f}]"
    return [*cells, f"{system['variants']['variant@1']:.3f}"] if variants else cells


def read_arguments(description: str | None, catalogs: Iterable[str]) -> tuple[Path, Path, list[str]]:
    """Read DATA WORK [NAME ...] from the command line; all of `catalogs` where none is named."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", choices=[*catalogs, []], help="all by default")
    given = parser.parse_args()
    return given.data, given.work, given.names or list(catalogs)


def main() -> None:
    """Read the command line and measure."""
    run(*read_arguments(__doc__, CATALOGS))


if __name__ == "__main__":
    main()
