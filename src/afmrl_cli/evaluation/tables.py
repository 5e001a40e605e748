"""The JSON document as tables for a terminal and a page: (title, columns, rows); numbers stay numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Content = Mapping[str, Any]
Table = tuple[str, list[str], list[list[object]]]
SPLIT_WORDS = {
    "unseen": ", about products unseen in training",
    **{split: f", about products of the {split} split" for split in ("train", "validation", "test")},
}


def systems_table(content: Content) -> Table:
    """The figures of every system; beside the first figure its interval."""
    names = list(content["systems"][0]["metrics"])
    rows = [_row(system, names, content["queries"]) for system in content["systems"]]
    title = f"{content['protocol']}: {content['queries']:,} queries, gallery of {content['gallery']:,}"
    title += SPLIT_WORDS.get(content["split"], "")
    title += f", queries: {content['query_fields']}" if content["query_fields"] != "all" else ""
    title += f", gallery: {content['gallery_fields']}" if content["gallery_fields"] != "all" else ""
    return title, ["system", names[0], f"{content['confidence']:.0%} interval", *names[1:]], rows


def _row(system: Mapping[str, Any], names: Sequence[str], queries: int) -> list[object]:
    name = system_name(system, names[0], queries)
    if not system["readable"]:
        return [name, *("-" for _ in [*names, ""])]
    low, high = system["intervals"][names[0]]
    first, *others = (system["metrics"][each] for each in names)
    return [name, first, f"{low:.3f} to {high:.3f}", *others]


def system_name(system: Mapping[str, Any], metric: str, queries: int) -> str:
    """A row's name, with what its figures leave out (queries that it can't read) or join (seeds)."""
    name = str(system["system"])
    if not system["readable"]:
        return f"{name} (can't read what is asked or shown)"
    if system["readable"] < queries:
        name += f" (reads {system['readable']:,} of {queries:,} queries)"
    if system["runs"] > 1:
        name += f" (mean of {system['runs']} runs, ±{system['spread'][metric]:.4f})"
    return name


def variants_table(content: Content) -> list[Table]:
    """How often a sibling variant ranks first; none when no query has variants."""
    shown = [system for system in content["systems"] if system["variants"]]
    if not shown:
        return []
    title = f"variants: {shown[0]['variants']['queries']:,} queries whose product has variants in the gallery"
    share = f"{content['confidence']:.0%} interval"
    rows: list[list[object]] = []
    for system in shown:
        cells: list[object] = [system["system"]]
        for name in ("variant@1", "above_variants"):
            low, high = system["variants"]["intervals"][name]
            cells += [system["variants"][name], f"{low:.3f} to {high:.3f}"]
        rows.append(cells)
    return [(title, ["system", "a sibling variant ranks first", share, "right above all variants", share], rows)]


def class_table(content: Content) -> list[Table]:
    """Classification and clustering; none but with coarse."""
    shown = [system for system in content["systems"] if system["classes"]]
    if not shown:
        return []
    first = shown[0]["classes"]
    left_out = f", {first['left_out']:,} left out" if first["left_out"] else ""
    title = f"classes: {first['classes']:,} of {first['label']}, {first['listings']:,} listings{left_out}"
    names = list(first["metrics"])
    return [(title, ["system", *names], [[s["system"], *s["classes"]["metrics"].values()] for s in shown])]


def slice_tables(content: Content) -> list[Table]:
    """The embedder's figures by slice, one table a key."""
    # hit and precision are left to the JSON document: a table of slices is to be read across.
    names = [name for name in content["systems"][0]["metrics"] if not name.startswith(("hit", "precision"))]
    made: list[Table] = []
    for key, rows in content["slices"].items():
        columns = [key, "queries", names[0], f"{content['confidence']:.0%} interval", *names[1:]]
        cells: list[list[object]] = []
        for row in rows:
            low, high = row["intervals"][names[0]]
            first, *others = (row["metrics"][each] for each in names)
            cells.append([row["value"], row["queries"], first, f"{low:.3f} to {high:.3f}", *others])
        made.append((f"embedder by {key}", columns, cells))
    return made
