"""A run of `train-vision` as one HTML file that needs no network: curves of all losses, and maps of attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..catalog.pictures import opened
from ..retrieval.page import render, thumbnail
from ..store.files import parse_json, reading, writing
from ..vision_settings import VisionSettings
from .maps import Map, Mapped
from .plan import Plan

PAGE = "vision.html"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 190, 52, 12, 12, 30
MOST_POINTS = 300
"""Of a curve: of more steps the means of some in a row are drawn."""
LIMITS = (1.1, 1.25, 1.5, 2, 3, 4, 6, 8, 16)
"""Where a map's scale may end, in units of what mean pooling gives."""
DENSEST = 0.85

Row = Mapping[str, Any]
Points = list[tuple[float, float]]


def write_page(run: Path, catalog: str, plan: Plan, best: int, layer: int, photos: Sequence[Mapped]) -> None:
    """Write `photos` and the curves of metrics.jsonl into the folder `run`, atomically.

    `best` is the step whose weights are kept, `layer` the teacher's, from 1.
    """
    file, vision = run / "metrics.jsonl", plan.settings.vision
    with reading(file):
        rows = [parse_json(line) for line in file.read_text("utf-8").splitlines()]
        charts = draw_charts(rows, vision, best)
        validation = {int(row["step"]): row for row in rows if "eval_recall@1" in row}
    betas = [each.beta for each in photos]
    alphas = [each.answer.alpha for each in photos if each.answer and each.answer.alpha]
    scales = {"beta": scale_of(betas), "alpha": scale_of(alphas)}
    page = render(
        "vision.html",
        catalog=catalog,
        classes=", ".join(vision.classes) or "identity",
        vision=vision,
        asks=plan.asks,
        best=best,
        layer=layer,
        split="validation" if plan.photos.validation.photos else "training",
        before=validation.get(0),
        after=validation.get(best),
        charts=charts,
        scales=scales,
        photos=[_photo(each, scales) for each in photos],
    )
    with writing(run / PAGE) as temporary:
        temporary.write_text(page, "utf-8")


# Curves


def draw_charts(rows: Sequence[Row], vision: VisionSettings, best: int) -> list[dict[str, Any]]:
    """Return what is drawn of the rows of metrics.jsonl, a chart each, of those that have anything."""
    of, differing = _column(rows), "pairs whose answers differ"
    losses = [
        ("all losses", "added by their weights", {"": of("loss") if vision.grpo or vision.anchoring else []}),
        ("metric learning", vision.loss, {"": of("metric")}),
        ("GRPO", f"weight {vision.grpo:g}", {"": of("grpo") if vision.grpo else []}),
        ("anchoring", f"weight {vision.anchoring:g}", {"": of("anchoring") if vision.anchoring else []}),
    ]
    shares = [
        ("validation", "share of photos", {name: of(f"eval_{name}") for name in ("recall@1", "recall@4")}),
        ("answers", "shares", {"right answers": of("right"), differing: of("differing", "pairs")}),
    ]
    steps = [float(row["step"]) for row in rows]
    charts = [_chart(*each, steps, best, share=False) for each in losses]
    charts += [_chart(*each, steps, best, share=True) for each in shares]
    return [chart for chart in charts if chart["lines"]]


def _column(rows: Sequence[Row]) -> Callable[..., Points]:
    def of(name: str, by: str = "") -> Points:
        """Return (step, value) where there is one; divided by the value of `by`, where that is not 0."""
        there = [row for row in rows if name in row and (not by or row.get(by))]
        return [(float(row["step"]), float(row[name]) / (float(row[by]) if by else 1.0)) for row in there]

    return of


def thinned(points: Points) -> Points:
    """Return at most MOST_POINTS: the means of as many in a row as that takes."""
    size = math.ceil(len(points) / MOST_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), max(1, size))]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _chart(
    title: str, note: str, lines: Mapping[str, Points], steps: Sequence[float], best: int, *, share: bool
) -> dict[str, Any]:
    """Return the places of a chart's lines and of what is written at its axes; a loss has a scale of its own."""
    drawn = {name: thinned(points) for name, points in lines.items() if points}
    values = [y for points in drawn.values() for _, y in points]
    low, high = (0.0, 1.0) if share or not values else (min(values), max(values))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    first, last = min(steps, default=0.0), max(steps, default=1.0)

    def x(step: float) -> float:
        return LEFT + (step - first) / max(1.0, last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def written(value: float) -> str:
        return f"{100 * value:.0f} %" if share else f"{value:.3g}"

    # The ground is written where its words have room.
    middle = 0.0 if 0.85 * low + 0.15 * high < 0 < 0.15 * low + 0.85 * high else (low + high) / 2
    return {
        "title": title,
        "note": note,
        "best": x(best),
        "rows": [{"y": y(value), "words": written(value), "zero": value == 0} for value in (low, middle, high)],
        "columns": [{"x": x(step), "words": f"{step:.0f}"} for step in (first, last)],
        "lines": [
            {
                "name": name,
                "points": " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points),
                "ends": [(x(step), y(value)) for step, value in points] if len(points) < 12 else [],
                "words": f"from {written(points[0][1])} to {written(points[-1][1])}",
            }
            for name, points in drawn.items()
        ],
    }


# Maps


def scale_of(maps: Sequence[Map]) -> float:
    """Return where the one scale of `maps` ends, as a multiple of 1 / tokens, which mean pooling gives."""
    most = max((max(each.shares) * len(each.shares) for each in maps), default=1.0)
    return next((limit for limit in LIMITS if most <= limit), LIMITS[-1])


def _photo(each: Mapped, scales: Mapping[str, float]) -> dict[str, Any]:
    answer = each.answer
    return {
        "picture": thumbnail(opened(each.picture)),
        "of": each.of,
        "listing": each.listing,
        "rows": each.beta.rows,
        "columns": each.beta.columns,
        "beta": _drawn(each.beta, scales["beta"]),
        "alpha": _drawn(answer.alpha, scales["alpha"]) if answer and answer.alpha else None,
        "answer": answer,
        "other": thumbnail(opened(answer.other)) if answer else "",
    }


def _drawn(of: Map, limit: float) -> dict[str, Any]:
    """Return a square for each token: more than the mean or less, and how dense; and the map in words."""
    times = [share * len(of.shares) for share in of.shares]
    squares = [
        {
            "x": i % of.columns,
            "y": i // of.columns,
            "more": value >= 1,
            "density": DENSEST * min(1.0, abs(math.log(max(value, 1e-9))) / math.log(limit)),
            "share": of.shares[i],
            "times": value,
        }
        for i, value in enumerate(times)
    ]
    held, half = 0.0, 0
    for share in sorted(of.shares, reverse=True):
        if held >= 0.5 - 1e-6:
            break
        held, half = held + share, half + 1
    return {"squares": squares, "least": min(times), "most": max(times), "half": half, "parts": len(times)}
