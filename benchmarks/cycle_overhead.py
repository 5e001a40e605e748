"""What `cycle` costs beside its stages, and what a finished one costs when it is called again.

    python -m benchmarks.cycle_overhead WORK [--products 60]

Renders a shop of products that are all listed twice (WORK is emptied), runs one round on it with the settings of
tests/cycle, and again. Prints time and peak memory of each stage; on a CPU the peak is that of the process so far, so
that it never falls. Aims: overhead <= 2 % of the sum of the stages, seconds for a finished cycle.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from tests.cycle.shop import cycle_settings, rendered

from afmrl_cli.cycle.run import run_cycle
from afmrl_cli.listener import Silent
from afmrl_cli.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--products", type=int, default=60)
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    folder = rendered(given.work, given.products)
    settings = cycle_settings(**{"agcl.steps": 10, "sft.steps": 10, "rar.steps": 5})
    began = time.monotonic()
    summary = run_cycle(Workspace(folder, settings, Silent()))
    whole = time.monotonic() - began
    print("| stage | seconds | peak memory, MiB |\n| --- | ---: | ---: |")
    for stage in summary.content["stages"]:
        print(f"| {stage['name']} | {stage['seconds']:.1f} | {stage['peak_bytes'] / 2**20:.0f} |")
    stages = summary.content["stage_seconds"]
    print(f"\nall stages {stages:.1f} s, cycle {whole:.1f} s: overhead {100 * (whole - stages) / stages:.1f} %")
    began = time.monotonic()
    run_cycle(Workspace(folder, settings, Silent()))
    print(f"a finished cycle again: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
