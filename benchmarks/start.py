"""What `afmrl --help` costs beside an import of typer and of what its help is drawn with, rich.

    python -m benchmarks.start [--rounds 9]

Each is a process of its own, in turns. Shown are the medians of the processor time (user and system), which other work
on the machine changes little, and of the clock's time. The third row imports rich without the parts that draw: shown to
say what the aim is measured against.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

from .figures import record

OURS, IMPORTS, BARE = "afmrl --help", "import typer, typer.rich_utils", "import typer, rich"
COMMANDS = {
    OURS: ["-m", "afmrl_cli", "--help"],
    IMPORTS: ["-c", IMPORTS],
    BARE: ["-c", BARE],
}


def seconds(words: list[str]) -> tuple[float, float]:
    """Processor time and clock time of Python with `words`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, took


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    for words in COMMANDS.values():
        seconds(words)  # files come into the cache
    rounds = [{name: seconds(words) for name, words in COMMANDS.items()} for _ in range(arguments.rounds)]
    for name in COMMANDS:
        cpu, clock = (statistics.median(each[name][i] for each in rounds) for i in (0, 1))
        print(f"{name:32} {cpu:.3f} s of the processor, {clock:.3f} s by the clock")
    ratios = [each[OURS][0] / each[IMPORTS][0] for each in rounds]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); aim: 1.5 at most")
    ours, other = (statistics.median(each[name][0] for each in rounds) for name in (OURS, IMPORTS))
    record("afmrl --help, s", ours, other, other / ours, spread=[1 / ratio for ratio in ratios], aim="0.67 or more")


if __name__ == "__main__":
    main()
