"""The tables of `benchmarks.saga`, from the results that it has left.

Each row's change is to the row that it is compared with, photo by photo. Two intervals, both 95 % and corrected for the
number of rows that have a change (Bonferroni):

    over classes    bootstrap of the test classes of all runs, each with its photos: what other classes would give
    over seeds      Student's t over the means of runs, of four or more: what other seeds (catalog, held-out classes and
                    training) would give; so is the change of NMI
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from scipy import stats as statistics

from .stages_table import LEAST_RUNS, Scores, change

ROWS: Mapping[str, tuple[str, str]] = {
    # name: (whose scores, which it is compared with)
    "random": ("random", ""),
    "colours": ("colours", ""),
    "pretrained": ("pretrained", ""),
    "metric learning": ("metric learning", "pretrained"),
    "+ GRPO": ("+ GRPO", "metric learning"),
    "+ GRPO, generic prompt": ("+ GRPO, generic prompt", "metric learning"),
    "+ anchoring": ("+ anchoring", "metric learning"),
    "all": ("all", "metric learning"),
    "all over + GRPO": ("all", "+ GRPO"),
    "schema over generic prompt": ("+ GRPO", "+ GRPO, generic prompt"),
    "control: shuffled rewards": ("control: shuffled rewards", "metric learning"),
    "+ GRPO over shuffled rewards": ("+ GRPO", "control: shuffled rewards"),
    "metric learning, longer": ("metric learning, longer", "metric learning"),
    "all over longer": ("all", "metric learning, longer"),
    "metric learning, mean pooling": ("metric learning, mean pooling", "metric learning"),
    "+ GRPO, mean pooling": ("+ GRPO, mean pooling", "metric learning, mean pooling"),
}
HEADS = ("row", "R@1", "R@4", "NMI", "over", "R@1 change", "95 % over classes", "95 % over seeds", "NMI change", "time")
Result = dict[str, Any]
Results = dict[str, dict[int, Result]]
"""By arm and seed."""


def print_tables(work: Path) -> None:
    """Print the rows of each kind of class, then what each run says of itself."""
    kinds: dict[str, Results] = {}
    for path in sorted((work / "results").glob("*.json")):
        each = json.loads(path.read_text("utf-8"))
        kinds.setdefault(f"{each['kind']} {json.dumps(each['set'])}", {}).setdefault(each["arm"], {})[each["seed"]] = (
            each
        )
    for kind, found in kinds.items():
        _print_kind(kind, found)
    for kind, found in kinds.items():
        print(f"\n### {kind}: runs\n")
        _print_runs(found)


def _print_kind(kind: str, found: Results) -> None:
    own = {arm: {seed: each for seed, each in runs.items() if "nmi" in each} for arm, runs in found.items()}
    seeds = sorted({seed for runs in own.values() for seed in runs})
    some = [next(iter(runs.values())) for runs in own.values() if runs]
    if not some:
        return
    numbers = {(each["photos"], each["number"]) for runs in own.values() for each in runs.values()}
    said = ", ".join(f"{photos} of {classes}" for photos, classes in sorted(numbers))
    print(f"\n### {kind}: {len(seeds)} seeds; test photos of unseen classes: {said}\n")
    print(f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}")
    compared = sum(bool(other) for _, other in ROWS.values())
    base = _step_seconds(found.get("metric learning", {}))
    for row, (arm, other) in ROWS.items():
        mine, theirs = own.get(arm, {}), own.get(other, {})
        if not mine or (other and not mine.keys() & theirs.keys()):
            continue
        values = _scores(mine)
        cells = [row]
        cells += [f"{100 * mean(float(each[:, i].mean()) for each, _ in values.values()):.1f}" for i in range(2)]
        cells += [f"{100 * mean(each['nmi'] for each in mine.values()):.1f}", other]
        cells += (
            [*change(values, _scores(theirs), compared), _nmi_change(mine, theirs, compared)] if other else [""] * 4
        )
        seconds = _step_seconds(found[arm])
        cells.append(f"{seconds / base:.1f}" if seconds and base else "")
        print(f"| {' | '.join(cells)} |")


def _scores(runs: Mapping[int, Result]) -> Scores:
    """Return (R@1 and R@4 [photos, 2], each photo with its class) by seed."""
    found: Scores = {}
    for seed, each in runs.items():
        names = sorted(each["queries"])
        asked = [(name, f"{seed} {each['classes'][name]}") for name in names]
        found["", seed] = np.array([each["queries"][name] for name in names]), asked
    return found


def _nmi_change(mine: Mapping[int, Result], theirs: Mapping[int, Result], compared: int) -> str:
    apart = [100 * (mine[seed]["nmi"] - theirs[seed]["nmi"]) for seed in sorted(mine.keys() & theirs.keys())]
    if len(apart) < LEAST_RUNS:
        return f"{mean(apart):+.1f}"
    level = 1 - 0.05 / compared
    half = statistics.t.ppf(0.5 + level / 2, len(apart) - 1) * np.std(apart, ddof=1) / len(apart) ** 0.5
    return f"{mean(apart):+.1f} ({mean(apart) - half:+.1f} to {mean(apart) + half:+.1f})"


def _step_seconds(runs: Mapping[int, Result]) -> float:
    """Return the median seconds of a step over all runs; 0.0 of an arm that has no steps."""
    return median([sum(_parts(step).values()) for each in runs.values() for step in each.get("steps", [])] or [0.0])


def _parts(step: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("seconds_"): value for name, value in step.items() if name.startswith("seconds_")}


def _print_runs(found: Results) -> None:
    heads = ["arm", "seed", "judge right", "validation R@1, before, best (step)", "verdicts right, first, last"]
    heads += ["pairs that differ", "seconds a step (by part)", "run"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for arm, runs in found.items():
        for seed, each in sorted(runs.items()):
            if "refused" in each:
                print(f"| {arm} | {seed} | refused: {each['refused']} |")
            elif "details" in each:
                print(f"| {arm} | {seed} | {' | '.join(_run_cells(each))} |")


def _run_cells(each: Result) -> list[str]:
    details, steps = each["details"], each["steps"]
    judge, asked = details.get("judge") or {}, details["pairs"]
    chosen = {int(step): value for step, value in each["validation"].items() if int(step)}
    best = max(chosen, key=lambda step: (chosen[step], -step))
    rights = [step["right"] for step in steps if "right" in step]
    part = max(1, len(rights) // 5)
    seconds = [_parts(step) for step in steps]
    means = {name: mean(own.get(name, 0.0) for own in seconds) for name in (seconds[0] if seconds else {})}
    return [
        f"{judge['right']}/{judge['pairs']}" if judge else "",
        f"{details['before']['recall@1']:.3f}, {chosen[best]:.3f} ({best})",
        f"{mean(rights[:part]):.2f}, {mean(rights[-part:]):.2f}" if rights else "",
        f"{asked['differing']}/{asked['asked']}" if asked["asked"] else "",
        ", ".join(f"{name} {value:.2f}" for name, value in means.items()),
        f"{each['seconds']:.0f} s",
    ]
