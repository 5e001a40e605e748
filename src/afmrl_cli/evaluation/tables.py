"""The JSON document as tables for a terminal and a page: (title, columns, rows); numbers stay numbers.

A terminal of 80 columns holds five numbers beside a name; `wide` shows all metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .metrics import headline_metric
from .slices import LARGEST, NO_VALUE

Content = Mapping[str, Any]
Table = tuple[str, list[str], list[list[object]]]
SPLIT_WORDS = {
    "unseen": ", about products unseen in training",
    **{split: f", about products of the {split} split" for split in ("train", "validation", "test")},
}
AT_MOST = "(at most)"
"""The row with the best that any ranking could have."""


def shown_metrics(content: Content, wide: bool) -> list[str]:
    """Return the metrics of a table, the headline first: all, or those that fit beside each other."""
    names = list(content["systems"][0]["metrics"])
    first = headline_metric(names, content["label"])
    if wide:
        return [first, *(name for name in names if name != first)]
    _, _, cut = first.partition("@")
    recalls = [name for name in names if name.startswith("recall@")]
    chosen = ["map", "precision@10", "mrr"] if content["label"] else [first, f"hit@{cut}", recalls[-1], "mrr"]
    return [name for name in dict.fromkeys(chosen) if name in names]


def limited(content: Content, names: Sequence[str]) -> list[str]:
    """Return those of `names` of which not even the best ranking reaches 1."""
    return [name for name in names if content["possible"][name] < 0.99995]


def systems_table(content: Content, wide: bool = True) -> Table:
    """Return the metrics of every system; beside the first metric its interval. Last, where below 1, what is
    possible.
    """
    names = shown_metrics(content, wide)
    rows = [[system["system"], *_cells(system, names)] for system in content["systems"]]
    if short := limited(content, names):
        most: list[object] = [content["possible"][name] if name in short else 1.0 for name in names]
        rows.append([AT_MOST, most[0], "", *most[1:]])
    title = f"{content['protocol']}: {content['queries']:,} queries, gallery of {content['gallery']:,}"
    title += SPLIT_WORDS.get(content["split"], "")
    title += f", queries: {content['query_fields']}" if content["query_fields"] != "all" else ""
    title += f", gallery: {content['gallery_fields']}" if content["gallery_fields"] != "all" else ""
    return title, ["system", names[0], _share(content), *names[1:]], rows


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> list[object]:
    """Return a metric, its interval, more metrics; "-" where there are none."""
    values: list[object] = ["-" if row["metrics"][name] is None else row["metrics"][name] for name in names]
    return [values[0], span(row["intervals"][names[0]]), *values[1:]]


def span(ends: Sequence[float] | None) -> str:
    """Return an interval for people; "-" for none."""
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _share(content: Content) -> str:
    return f"{content['confidence']:.0%} interval"


def remarks(content: Content, wide: bool = True) -> list[str]:
    """Return what must be known to read the rows of the systems."""
    said: list[str] = []
    first = headline_metric(list(content["systems"][0]["metrics"]), content["label"])
    for system in content["systems"]:
        name, queries = system["system"], content["queries"]
        if not system["readable"]:
            said.append(f"{name}: can't answer, it can't read these queries or this gallery; compared with nothing")
        elif system["readable"] < queries:
            said.append(f"{name}: reads {system['readable']:,} of {queries:,} queries, the others count 0")
        if system["fusion"]:
            said.append(f"{name}: {_weights(system['fusion'])}")
        said += [f"{name}: {words}" for words in _hybrid_weights(system.get("hybrid") or ())]
        if system["runs"] > 1:
            said.append(f"{name}: mean of {system['runs']} runs, {first} ±{system['spread'][first]:.4f}")
    said += composed_remarks(content)
    if limited(content, shown_metrics(content, wide)):
        said.append(f"{AT_MOST}: what a perfect ranking has; queries have more relevant products than places, or fewer")
    return said


def _weights(parts: Sequence[Mapping[str, Any]]) -> str:
    """Say how a fusion was weighted, and by which queries."""
    if not any(part["tuned_on"] for part in parts):
        return "equal weights, since too few other products are there to choose them by"
    weights = " and ".join(f"{part['weight']:g}" for part in parts)
    queries, metric = " and ".join(f"{part['tuned_on']:,}" for part in parts), parts[0]["metric"]
    if parts[0]["source"] == "validation":
        return f"{weights} x embedder, the rest bm25, by {metric} of {queries} queries about the validation split"
    return (
        f"{weights} x embedder, the rest bm25; each half of the products by {metric} of the other ({queries} queries)"
    )


def _hybrid_weights(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how each kind of query was weighted, and by which queries."""
    said: list[str] = []
    for kind in dict.fromkeys(part["kind"] for part in parts):
        own = [part for part in parts if part["kind"] == kind]
        weights = " and ".join(
            ", ".join(f"{name} {weight:g}" for name, weight in part["weights"].items()) for part in own
        )
        queries = " and ".join(f"{part['tuned_on']:,}" for part in own)
        by = f"by {own[0]['metric']} of {queries} queries about the validation split"
        if own[0]["source"] != "validation":
            by = f"each half of the products by {own[0]['metric']} of the other ({queries} queries)"
        if not any(part["tuned_on"] for part in own):
            weights = _written(own[0]["weights"])
            by = "the defaults, since too few other products are there to choose by"
        said.append(f"{kind}: {weights}; {by}")
    return said


def _written(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items())


def variants_table(content: Content) -> list[Table]:
    """Tabulate how often a sibling variant ranks first; none when no query has variants."""
    shown = [system for system in content["systems"] if system["variants"]]
    if not shown:
        return []
    queries = shown[0]["variants"]["queries"]
    title = f"{queries:,} queries have variants. variant@1: one ranks first; above: a relevant one ranks above all"
    rows: list[list[object]] = []
    for system in shown:
        cells: list[object] = [system["system"]]
        for name in ("variant@1", "above_variants"):
            cells += [system["variants"][name], span(system["variants"]["intervals"][name])]
        rows.append(cells)
    return [(title, ["system", "variant@1", _share(content), "above", _share(content)], rows)]


COMPOSED_SHOWN = ("R@1", "R@10", "R@50")


def composed_tables(content: Content) -> list[Table]:
    """Tabulate composed queries: R@k, among the reference's neighbours, and how often its style stays as it was; and
    the embedder by category. None for other queries.
    """
    shown = [system for system in content["systems"] if system.get("composed")]
    if not shown:
        return []
    title = "R@k: a right one among k; R_subset: among the reference's neighbours; unchanged: its style without the "
    title += "wish among 10"
    rows: list[list[object]] = []
    for system in shown:
        own = system["composed"]
        parts = (("subset", "R_subset@1"), ("unchanged", "unchanged@10"))
        extra = [own[part]["metrics"][name] if own[part] else "-" for part, name in parts]
        rows.append([system["system"], *(own["metrics"][name] for name in COMPOSED_SHOWN), *extra])
    tables: list[Table] = [(title, ["system", *COMPOSED_SHOWN, "R_subset@1", "unchanged"], rows)]
    first = shown[0]["composed"]
    if len(first["categories"]) > 1:
        largest = first["categories"][:LARGEST]
        cells = [[_named(row["value"]), row["queries"], *_recalls(row["metrics"])] for row in largest]
        if left := len(first["categories"]) - len(largest):
            cells.append(
                [f"({left:,} more)", sum(row["queries"] for row in first["categories"][LARGEST:]), "-", "-", "-"]
            )
        cells.append(["(mean of the categories)", first["queries"], *_recalls(first["category_mean"])])
        tables.append((f"{shown[0]['system']} by category", ["category", "queries", *COMPOSED_SHOWN], cells))
    return tables


def _named(category: str) -> str:
    return category or NO_VALUE


def _recalls(metrics: Mapping[str, float]) -> list[object]:
    return [metrics[name] for name in COMPOSED_SHOWN]


def composed_remarks(content: Content) -> list[str]:
    """Say how far the wording of a wish matters, and which part of the queries finds as much as the whole."""
    said: list[str] = []
    if ways := (content.get("composed") or {}).get("paraphrases"):
        values = ", ".join(f"{each['R@10']:.4f}" for each in ways["metrics"])
        said.append(
            f"the wish in three ways ({ways['queries']:,} queries): R@10 {values}; only some of them find "
            f"{ways['found_by_some']:.1%} of the queries"
        )
    rows = {system["system"]: system["composed"] for system in content["systems"] if system.get("composed")}
    own = next(iter(rows.values()), None)
    for name, lost in (("change-alone", "photo"), ("reference-alone", "wish"), ("attributes-alone", "photo")):
        found = rows[name]["metrics"] if own and name in rows else {}
        if own and found and all(found[each] >= own["metrics"][each] for each in COMPOSED_SHOWN[:2]):
            said.append(f"{name} finds no less (R@10 {found['R@10']:.4f}): the {lost} gains nothing with this embedder")
    return said


def more_tables(content: Content, wide: bool = True) -> list[Table]:
    """Return all tables but that of the systems."""
    return [*variants_table(content), *composed_tables(content), *class_table(content), *slice_tables(content, wide)]


def class_table(content: Content) -> list[Table]:
    """Tabulate classification and clustering; none but with coarse."""
    shown = [system for system in content["systems"] if system["classes"]]
    if not shown:
        return []
    first = shown[0]["classes"]
    left_out = f", {first['left_out']:,} left out" if first["left_out"] else ""
    title = f"classes: {first['classes']:,} of {first['label']}, {first['listings']:,} listings{left_out}"
    names = list(first["metrics"])
    return [(title, ["system", *names], [[s["system"], *s["classes"]["metrics"].values()] for s in shown])]


def slice_tables(content: Content, wide: bool = True) -> list[Table]:
    """Return the embedder's metrics by slice, one table a key."""
    names = shown_metrics(content, wide)
    made: list[Table] = []
    for key, rows in content["slices"].items():
        cells = [[row["value"], row["queries"], *_cells(row, names)] for row in rows]
        made.append((f"embedder by {key}", [key, "queries", names[0], _share(content), *names[1:]], cells))
    return made
