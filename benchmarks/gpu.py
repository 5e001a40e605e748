"""One command for one GPU: time and memory of each stage of the presets, within a budget of minutes.

    python -m benchmarks.gpu [--minutes 8] [--out gpu.json] [--only embed,equal] [--tiny]

Random weights at full size, made on the card, nothing fetched; allocator caps stand for cards of 8, 12 and 24 GiB. Each
measurement is a process of its own with a limit, so that a failure costs one row; the next one imports its libraries
meanwhile. A smaller cap is not run where the same stage stayed below it under a larger one. What no longer fits into
the minutes is skipped and named. Rows go to the JSON file as they come; the table is printed at the end. --tiny does
the same with two narrow layers on the CPU: that it runs, the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .gpu_tasks import STAGES, Found, Task, run_task

CAPS = (24, 12, 8)
PRESETS = {"qwen3": ("qwen3_vl", "qwen3_vl"), "paper": ("qwen2_5_vl", "qwen2_vl")}
"""Generator and embedder: Qwen3-VL-2B for both; Qwen2.5-VL-3B and Qwen2-VL-2B."""
GUESS = 25.0
"""Seconds that a measurement is expected to take until one of its kind has been done."""
LAST = 3.0
"""Seconds kept back for the table."""
MORE = (
    "batch",
    "ratio",
    "stock_seconds",
    "batch_differs",
    "prefix_differs",
    "gradient_differs",
    "load_nf4_s",
    "load_bf16_s",
    "card",
)
"""What some rows have beside time and memory."""
Row = dict[str, Any]


def plan() -> list[Task]:
    """All measurements, what matters most first."""
    stages = {
        preset: [Task(stage, f"{preset} {stage}", *models, cap_gib=CAPS[0]) for stage in STAGES]
        for preset, models in PRESETS.items()
    }
    two = ("qwen2_vl", "qwen2_vl")
    return [
        Task("make", "Qwen3-VL-2B made", "qwen3_vl", precision="bf16", limit_s=90),
        Task("check", "one forward"),
        *stages["qwen3"],
        Task("make", "Qwen2-VL-2B made", "qwen2_vl", precision="bf16", limit_s=90),
        Task("against-trl", "RAR step against stock TRL", *two, precision="bf16", limit_s=120),
        *(Task("equal", "two ways to the same numbers", *two, precision=each) for each in ("bf16", "fp32")),
        *(replace(task, precision="bf16") for task in stages["qwen3"]),
        *(replace(task, cap_gib=cap) for cap in CAPS[1:] for task in stages["qwen3"]),
        Task("make", "Qwen2.5-VL-3B made", "qwen2_5_vl", precision="bf16", limit_s=90),
        *stages["paper"],
        *(replace(task, cap_gib=cap) for cap in CAPS[1:] for task in stages["paper"]),
    ]


class Worker:
    """A process that imports the libraries, then waits for one task."""

    def __init__(self, place: Path, number: int, tiny: bool) -> None:
        self.log, self.answer = place / f"log-{number}.txt", place / f"answer-{number}.json"
        words = ["--worker", str(place), "--answer", str(self.answer), *(["--tiny"] if tiny else [])]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu", *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
            )

    def do(self, task: Task, limit: float) -> Row:
        """The task's row: what it found, or why it found nothing."""
        try:
            self.process.communicate(json.dumps(asdict(task)), timeout=limit)
        except subprocess.TimeoutExpired:
            self.stop()
            return {"status": "too slow", "why": f"no answer within {limit:.0f} s"}
        except BrokenPipeError:  # it ended before it was asked
            self.process.wait()
        if not self.answer.is_file():
            lines = self.log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
            return {"status": "failed", "why": f"exit {self.process.returncode}: {lines[-1][:300]}"}
        found: Row = json.loads(self.answer.read_text("utf-8"))
        return found

    def stop(self) -> None:
        """End the process, if it is still there."""
        self.process.kill()
        self.process.communicate()


def work(place: Path, answer: Path, tiny: bool) -> None:
    """A worker's whole life."""
    import peft  # noqa: F401
    import transformers  # noqa: F401
    import trl  # noqa: F401

    from afmrl_cli.errors import OutOfMemory
    from afmrl_cli.models.batching import is_out_of_memory

    given = sys.stdin.read()
    if not given:
        return
    try:
        found: Row = {"status": "ok", **run_task(Task(**json.loads(given)), place, tiny)}
    except Exception as error:
        kind = "out of memory" if isinstance(error, OutOfMemory) or is_out_of_memory(error) else "failed"
        found = {"status": kind, "why": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        sys.excepthook(type(error), error, error.__traceback__)
    answer.write_text(json.dumps(found), "utf-8")


def measure(tasks: Sequence[Task], minutes: float, place: Path, tiny: bool) -> Iterator[Row]:
    """A row for each task, in their order, within the budget."""
    ends, rows = time.monotonic() + 60 * minutes, list[Row]()
    spare: Worker | None = None
    try:
        for number, task in enumerate(tasks):
            row: Row = asdict(task)
            left = ends - time.monotonic() - LAST
            if (known := implied(task, rows)) is not None:
                row |= known
            elif unmade(task, rows):
                row |= {"status": "skipped", "why": "its model was not made"}
            elif left < expected(task, rows):
                row |= {"status": "skipped", "why": "no time was left"}
            else:
                began = time.monotonic()
                worker, spare = spare or Worker(place, number, tiny), None
                if number + 1 < len(tasks):
                    spare = Worker(place, number + 1, tiny)
                row |= worker.do(task, min(task.limit_s, left))
                row["wall_s"] = time.monotonic() - began
            rows.append(row)
            yield row
    finally:
        if spare is not None:
            spare.stop()


def unmade(task: Task, rows: Sequence[Row]) -> bool:
    """Whether a model of the task's is not there."""
    made = {row["generator"] for row in rows if row["kind"] == "make" and row["status"] == "ok"}
    return task.kind != "make" and not {task.generator, task.embedder} <= made


def implied(task: Task, rows: Sequence[Row]) -> Found | None:
    """What a run under a larger cap says of this one: the same, where it never came near the smaller one."""
    for row in rows:
        same = all(row[name] == getattr(task, name) for name in ("kind", "generator", "embedder", "precision"))
        if same and row["status"] == "ok" and row["cap_gib"] > task.cap_gib > row.get("reserved_gib", 1e9):
            kept = ("seconds", "unit", "rate", "batch", "allocated_gib", "reserved_gib")
            return {
                **{name: row[name] for name in kept if name in row},
                "status": "ok",
                "why": f"as under {row['cap_gib']} GiB",
            }
    return None


def expected(task: Task, rows: Sequence[Row]) -> float:
    """Seconds that the task will take: what the last one of its kind took."""
    return next((row["wall_s"] for row in reversed(rows) if row["kind"] == task.kind and "wall_s" in row), GUESS)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| what | precision | cap, GiB | seconds | of | a second | allocated, GiB | reserved, GiB | |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        numbers = [_number(row.get(name)) for name in ("rate", "allocated_gib", "reserved_gib")]
        rest = ", ".join(f"{name} {_number(row[name])}" for name in MORE if name in row)
        said = ", ".join(
            part for part in ("" if row["status"] == "ok" else row["status"], row.get("why"), rest) if part
        )
        cap = str(row["cap_gib"] or "")
        cells = [row["name"], row["precision"], cap, _number(row.get("seconds")), row.get("unit", ""), *numbers, said]
        lines.append(f"| {' | '.join(str(cell).replace('|', '/').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join(lines)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value or "")


def chosen(only: str, tiny: bool) -> list[Task]:
    """The tasks of these kinds, and the models that they take. On the CPU nothing is capped, so once is enough."""
    kinds = {each for each in only.split(",") if each}
    tasks = [task for task in plan() if not kinds or task.kind in kinds | {"make"}]
    tasks = [task for task in tasks if not tiny or task.cap_gib in (0, CAPS[0])]
    used = {name for task in tasks if task.kind != "make" for name in (task.generator, task.embedder)}
    return [task for task in tasks if task.kind != "make" or task.generator in used]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", default="", help=f"kinds: check, equal, against-trl, {', '.join(STAGES)}")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.answer, given.tiny)
        return
    tasks = chosen(given.only, given.tiny)
    if unknown := {each for each in given.only.split(",") if each} - {task.kind for task in plan()}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        for row in measure(tasks, given.minutes, Path(place), given.tiny):
            rows.append(row)
            about = {"date": time.strftime("%Y-%m-%d %H:%M"), "minutes": given.minutes, "tiny": given.tiny}
            given.out.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", "utf-8")
            what = f"{row['name']}, {row['precision']}, {row['cap_gib'] or 'no'} cap"
            print(f"{len(rows)}/{len(tasks)} {what}: {row['status']} {row.get('why', '')}", file=sys.stderr, flush=True)
    print(table(rows))
    left = [row for row in rows if row["status"] == "skipped"]
    if left:
        print(f"\n{len(left)} skipped: {', '.join(sorted({row['name'] for row in left}))}")
    print(f"\n{given.out}")


if __name__ == "__main__":
    main()
