"""A finished evaluation for other programs: Markdown for a pull request, JUnit XML and GitHub annotations for CI.

All three read the JSON document, so that they say what it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..escaping import markdown as escaped
from ..escaping import printable
from ..store.files import writing
from .tables import AT_MOST, composed_tables, limited, remarks

Content = Mapping[str, Any]
VARIANT_METRICS = ("variant@1", "above_variants")


def markdown(content: Content) -> str:
    """Return the table of systems, the comparisons in words, the slices and the checks."""
    names = list(content["systems"][0]["metrics"])
    share = f"{content['confidence']:.0%}"
    lines = [
        f"## afmrl eval: {escaped(content['protocol'])}",
        "",
        f"{content['queries']:,} queries ({content['groups']:,} products), gallery of {content['gallery']:,}, "
        f"embedder `{content['embedder']}`. In brackets: {share} intervals.",
        "",
        *_table(["system", *names], [*_systems(content, names)]),
        "",
        *(f"- {escaped(remark)}" for remark in remarks(content)),
    ]
    if extra := [system for system in content["systems"] if system["variants"]]:
        rows = [[s["system"], *_metrics({**s["variants"], "metrics": s["variants"]}, VARIANT_METRICS)] for s in extra]
        lines += ["", *_table(["system", "a sibling variant ranks first", "relevant product above all variants"], rows)]
    for _, columns, rows_of in composed_tables(content):
        cells = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows_of]
        lines += ["", *_table(columns, cells)]
    if classed := [system for system in content["systems"] if system["classes"]]:
        measured = list(classed[0]["classes"]["metrics"])
        rows = [[s["system"], *(f"{s['classes']['metrics'][name]:.4f}" for name in measured)] for s in classed]
        lines += ["", *_table(["system", *measured], rows)]
    for comparison in content["comparisons"]:
        lines += ["", f"Against {escaped(comparison['against'])}:", ""]
        lines += [f"- {escaped(words)}" for words in comparison["words"]]
    for key, sliced in content["slices"].items():
        rows = [[row["value"], f"{row['queries']:,}", *_metrics(row, names)] for row in sliced]
        lines += ["", *_table([key, "queries", *names], rows)]
    if content["checks"]:
        said = [("passed" if check["passed"] else "**failed**", check["message"]) for check in content["checks"]]
        lines += ["", *(f"- {verdict}: {escaped(message)}" for verdict, message in said)]
    if content["notes"]:
        lines += ["", *(f"> {escaped(note)}" for note in content["notes"])]
    return "\n".join(lines) + "\n"


def _systems(content: Content, names: Sequence[str]) -> list[list[str]]:
    rows = [[system["system"], *_metrics(system, names)] for system in content["systems"]]
    possible = content["possible"]
    return [*rows, [AT_MOST, *(f"{possible[name]:.4f}" for name in names)]] if limited(content, names) else rows


def _metrics(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    def cell(value: float | None, ends: Sequence[float] | None) -> str:
        return "-" if value is None or ends is None else f"{value:.4f} [{ends[0]:.3f}, {ends[1]:.3f}]"

    return [cell(row["metrics"][name], row["intervals"][name]) for name in names]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    head = "| " + " | ".join(escaped(name) for name in columns) + " |"
    rule = "| --- |" + " ---: |" * (len(columns) - 1)
    return [head, rule, *("| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows)]


def write_markdown(path: Path, content: Content) -> None:
    """Write `markdown` as a file, atomically."""
    with writing(path) as temporary:
        temporary.write_text(markdown(content), "utf-8")


def write_junit(path: Path, content: Content) -> None:
    """Write the checks as JUnit test cases, atomically; without any check one case that says the evaluation was
    done.
    """
    checks = content["checks"]
    failed = sum(not check["passed"] for check in checks)
    name = f"afmrl.eval.{content['protocol']}"
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(max(1, len(checks))),
        failures=str(failed),
        errors="0",
        time=f"{content['seconds']:.3f}",
    )
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=f"{check['kind']} {check['metric']}")
        if not check["passed"]:
            message = printable(check["message"])
            ElementTree.SubElement(case, "failure", message=message).text = message
    if not checks:
        ElementTree.SubElement(suite, "testcase", classname=name, name="evaluation")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    with writing(path) as temporary:
        temporary.write_bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True) + b"\n")


def github_annotations(content: Content) -> list[str]:
    """Return workflow commands: an error for each failed check, a warning where a compared run was better, a notice
    else.
    """
    lines = [_annotation("error", check["message"]) for check in content["checks"] if not check["passed"]]
    for comparison in content["comparisons"]:
        if comparison["given"]:
            worse = [d["words"] for d in comparison["differences"] if d["verdict"] == "worse"]
            lines += [_annotation("warning", words) for words in worse]
    if not lines:
        values = content["systems"][0]["metrics"]
        short = limited(content, list(values))
        said = [
            f"{name} {value:.4f}" + (f" of at most {content['possible'][name]:.4f}" if name in short else "")
            for name, value in values.items()
        ]
        lines.append(_annotation("notice", f"{content['protocol']}: {', '.join(said)}"))
    return lines


def _annotation(level: str, message: str) -> str:
    # One command a line: what would begin another one stays inside the message.
    words = printable(message).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title=afmrl eval::{words}"
