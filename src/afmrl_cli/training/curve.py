"""The training curve as an SVG file: loss or reward and a validation metric, without a plotting library."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from ..store.files import parse_json, reading, writing

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 320, 56, 56, 30, 40
LOSS, RECALL = "#b5482a", "#2a6ab5"

Points = Sequence[tuple[float, float]]


def draw_curve(run: Path, left: str, right: str) -> None:
    """Write curve.svg from metrics.jsonl: the metric `left` of every step, and `eval_<right>` where it was measured."""
    file = run / "metrics.jsonl"
    with reading(file):
        rows = [parse_json(line) for line in file.read_text("utf-8").splitlines()]
        steps = [(row["step"], row[left]) for row in rows if left in row]
        measured = [(row["step"], row[f"eval_{right}"]) for row in rows if f"eval_{right}" in row]
    with writing(run / "curve.svg") as temporary:
        temporary.write_text(training_curve(run.name, steps, measured, f"validation {right}", left), "utf-8")


def training_curve(title: str, loss: Points, recall: Points, recall_name: str, loss_name: str = "loss") -> str:
    """Return an SVG document; `loss` and `recall` are (step, value), the scale of the first is left, of the second
    right.

    What lies below 0 is drawn on the ground.
    """
    steps = [x for x, _ in (*loss, *recall)] or [0.0]
    first, last = min(steps), max(max(steps), min(steps) + 1)
    top = max([0.0, *(y for _, y in loss)]) or 1.0

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float, most: float) -> float:
        return HEIGHT - BOTTOM - max(0.0, value) / most * (HEIGHT - TOP - BOTTOM)

    def line(points: Points, most: float, colour: str) -> str:
        path = " ".join(f"{x(step):.1f},{y(value, most):.1f}" for step, value in points)
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'

    def text(at: float, height: float, words: str, anchor: str, colour: str = "#333") -> str:
        return f'<text x="{at:.1f}" y="{height:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>'

    ground = HEIGHT - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(WIDTH / 2, 18, title, "middle"),
        f'<path d="M{LEFT},{TOP} V{ground} H{WIDTH - RIGHT} V{TOP}" fill="none" stroke="#999"/>',
    ]
    for part in (0.0, 0.5, 1.0):
        parts.append(text(LEFT - 6, y(part, 1) + 4, f"{part * top:.2f}", "end", LOSS))
        parts.append(text(WIDTH - RIGHT + 6, y(part, 1) + 4, f"{part:.1f}", "start", RECALL))
        parts.append(
            text(x(first + part * (last - first)), ground + 16, f"{first + part * (last - first):.0f}", "middle")
        )
    parts += [line(loss, top, LOSS), line(recall, 1.0, RECALL)]
    parts += [text(LEFT, HEIGHT - 6, loss_name, "start", LOSS), text(WIDTH / 2, HEIGHT - 6, "step", "middle")]
    parts += [text(WIDTH - RIGHT, HEIGHT - 6, recall_name, "end", RECALL), "</svg>"]
    return "\n".join(parts) + "\n"
