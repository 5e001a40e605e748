"""All benchmarks, and their figures as one table.

    python -m benchmarks [--quick] [--json] [NAME ...]

Each runs as a process of its own (so that none sees the memory and the imports of another), at most five minutes on two
idle cores; its own output goes to standard error, the table to standard output. NAME chooses. --quick makes them tiny
and runs them in one process: it proves that they run, its figures mean nothing. The ratio is above 1 where ours is
better; the spread is that of the rounds. The scripts that are no part of the table are experiments of hours, whose
results stand in docs/lab/.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from .figures import Figure, found

PACKAGES = ("torch", "transformers", "trl", "peft", "sentence-transformers", "faiss-cpu", "numpy", "rank-bm25")


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder, its words, and the words that make it tiny. WORK stands for a folder of its own."""

    name: str
    words: str
    quick: str


BENCHMARKS = (
    Benchmark("start", "", "--rounds 1"),
    Benchmark("beside", "--only product,embed,attributes", "--rounds 1 --products 4 --only product"),
    Benchmark("check_scale", "", "--rows 200 --photos 4 --side 64"),
    Benchmark("attributes_rate", "", "--items 2 --batch 2 --rounds 1"),
    Benchmark("embed_rate", "--items 768 --rounds 3", "--items 2 --batch 2 --side 56 --rounds 1"),
    Benchmark("vision_encoding", "", "--shapes tiny --photos 4 --rounds 1 --side 56"),
    Benchmark("vision_once", "--products 48", "--products 1 --rounds 1"),
    Benchmark("agcl_step", "both", "both --batch 4 --chunk 2 --rounds 1 --together"),
    Benchmark("bank_step", "WORK", "WORK --banks 50 --batch 2 --products 24 --side 56 --rounds 1"),
    Benchmark(
        "recommender_step", "WORK", "WORK --chunk 1 --products 24 --side 56 --shoppers 40 --rounds 1 --no-memory"
    ),
    Benchmark("saga_step", "WORK", "WORK --products 24 --photos 6 --pairs 1 --group 2 --tokens 16 --rounds 1"),
    Benchmark("saga_gradients", "WORK", "WORK --products 24 --photos 6 --pairs 1 --group 2 --tokens 16 --models nano"),
    Benchmark("lexical_weights", "", "--products 500"),
    Benchmark("rar_step", "WORK --model nano", "WORK --model nano --rounds 1 --prompts 1 --pixels 56"),
    Benchmark("rar_reward", "", "--queries 1 --group 2 --rounds 1"),
    Benchmark("search_latency", "--sizes 100000,1000000 --cold", "--sizes 400 --dimensions 16"),
    Benchmark("serve_load", "--sizes 10000", "--sizes 30 --clients 2 --queries 3"),
    Benchmark("index_push", "--count 200000", "--count 400 --dimension 16"),
    Benchmark("dedupe_scale", "--count 20000", "--count 40"),
    Benchmark("dedupe_neighbours", "--sizes 10000,100000", "--sizes 40,80"),
    Benchmark("eval_scale", "--products 20000 --queries 2000", "--products 40 --queries 10"),
    Benchmark("memory", "", "--hidden 128 --layers 1 --architectures qwen2_vl --stages embed"),
    Benchmark("growth", "--sizes 500,5000", "--sizes 10,40 --commands check"),
    Benchmark("ray_overhead", "--products 500 --rounds 1", "--products 4 --rounds 1"),
    Benchmark("rerun", "--products 500", "--products 4 --commands embed"),
)


def run_here(benchmark: Benchmark, words: str) -> list[Figure]:
    """The figures of a benchmark that runs in this process; what it prints goes to standard error."""
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(sys.stderr):
        before, given = len(found), sys.argv
        sys.argv = [benchmark.name, *(work if word == "WORK" else word for word in words.split())]
        try:
            importlib.import_module(f"benchmarks.{benchmark.name}").main()
        finally:
            sys.argv = given
    if len(found) == before:
        raise SystemExit(f"{benchmark.name} recorded no figure")
    return found[before:]


def run_apart(benchmark: Benchmark) -> list[Figure]:
    """The same from a process of its own; none when it failed."""
    command = [sys.executable, "-m", "benchmarks", "--only", benchmark.name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return [] if done.returncode else [Figure(**row) for row in json.loads(done.stdout)]


def machine() -> dict[str, object]:
    """Where and with what the figures were measured."""
    with Path("/proc/cpuinfo").open() as file:
        processor = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def as_text(rows: Sequence[Figure], where: dict[str, object]) -> str:
    """The table as Markdown."""
    versions = where["versions"]
    assert isinstance(versions, dict)
    lines = [
        f"{where['date']}, {where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB; "
        f"load {where['load']}",
        ", ".join(f"{name} {number}" for name, number in versions.items()),
        "",
        "| what | ours | other side | ratio | spread | aim | more |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = "" if row.low is None or row.high is None else f"{_number(row.low)} to {_number(row.high)}"
        more = ", ".join(f"{name} {_number(value)}" for name, value in row.more.items())
        cells = [row.name, _number(row.ours), _number(row.other), _number(row.ratio), spread, row.aim, more]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(each.name for each in BENCHMARKS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    known = {each.name: each for each in BENCHMARKS}
    if wanted.only:
        alone = run_here(known[wanted.only], known[wanted.only].words)
        print(json.dumps([asdict(row) for row in alone]))
        return
    if unknown := set(wanted.names) - set(known):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows: list[Figure] = []
    failed: list[str] = []
    where = machine()
    for each in BENCHMARKS:
        if not wanted.names or each.name in wanted.names:
            began = time.monotonic()
            print(f"== {each.name}", file=sys.stderr, flush=True)
            made = run_here(each, each.quick) if wanted.quick else run_apart(each)
            rows, failed = rows + made, failed + [each.name] * (not made)
            print(f"== {each.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if wanted.json:
        print(json.dumps({"machine": where, "figures": [asdict(row) for row in rows]}, indent=2))
    else:
        print(as_text(rows, where))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
