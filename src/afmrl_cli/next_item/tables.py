"""The JSON document of `afmrl eval-recommender` as tables for a terminal and a page: (title, columns, rows)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.compare import signed
from ..evaluation.tables import Table, span
from .metrics import CUTS, metric_names

Content = Mapping[str, Any]
FULL_SHOWN = ("hr@10", "hr@1", "hr@5", "ndcg@10")
AMONG_SHOWN = {9: ("hr@1_of_10", "hr@3_of_10", "ndcg@5_of_10"), 99: ("hr@10_of_100", "ndcg@10_of_100")}
"""What a terminal of 80 columns holds; a page holds all."""
SLICES = {"known": "known", "new_items": "new items", "new_customers": "new customers"}
SLICED = "hr@10"


def all_tables(content: Content, *, wide: bool = False) -> list[Table]:
    """Return the tables in their order, those over the whole catalog first; `wide` ones with all metrics."""
    return [
        full_table(content, wide=wide),
        *comparison_table(content),
        slice_table(content),
        shares_table(content),
        *(among_table(content, count, wide=wide) for count in content["sampled"]),
    ]


def full_table(content: Content, *, wide: bool = False) -> Table:
    """Return the metrics over the whole catalog."""
    questions, customers = content["questions"], content["customers"]
    title = (
        f"{content['part']}: {questions:,} questions of {customers:,} customers, among all "
        f"{content['listings']:,} listings"
    )
    return title, *_columns(content, metric_names(CUTS) if wide else FULL_SHOWN)


def among_table(content: Content, count: int, *, wide: bool = False) -> Table:
    """Return the metrics among `count` sampled listings."""
    title = f"sampled: among {1 + count} listings only, {count} of them at random; not to be read as above"
    names = [name for name in content["systems"][0]["metrics"] if name.endswith(f"_of_{1 + count}")]
    return title, *_columns(content, names if wide else AMONG_SHOWN[count])


def _columns(content: Content, names: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows of metrics, the first one with its interval."""
    first, *more = names
    rows: list[list[object]] = []
    for system in content["systems"]:
        metrics = system["metrics"]
        rows.append([system["system"], metrics[first], span(system["intervals"][first]), *(metrics[n] for n in more)])
    return ["system", first, _interval(content), *more], rows


def _interval(content: Content) -> str:
    return f"{content['confidence']:.0%} interval"


def comparison_table(content: Content) -> list[Table]:
    """Return what each system differs from the main one in; none where it stands alone."""
    if not content["comparisons"]:
        return []
    title = f"more than {content['main']} (+) or less (-); an interval that holds 0 shows no difference"
    columns = ["system"]
    for difference in content["comparisons"][0]["differences"]:
        columns += [difference["metric"], _interval(content)]
    rows: list[list[object]] = []
    for each in content["comparisons"]:
        row: list[object] = [each["system"]]
        for one in each["differences"]:
            row += [signed(one["difference"]), f"{signed(one['low'], 3)} to {signed(one['high'], 3)}"]
        rows.append(row)
    return [(title, columns, rows)]


def slice_table(content: Content) -> Table:
    """Return HR@10 of questions about items and of customers that training has, and of those that it has not."""
    sizes = content["slices"]
    title = f"{SLICED} by what training knows; new ones have no row in it"
    columns = ["system", *(f"{words} ({sizes[key]['questions']:,})" for key, words in SLICES.items())]
    rows: list[list[object]] = []
    for system in content["systems"]:
        values = [system["slices"][key]["metrics"][SLICED] for key in SLICES]
        rows.append([system["system"], *("-" if value is None else value for value in values)])
    return title, columns, rows


def shares_table(content: Content) -> Table:
    """Return how much of the catalog is shown, how evenly, and how popular it is."""
    taken = content["taken"]["popularity"]
    title = f"first ten: share of the catalog, inequality, popularity (of what was taken {taken:.4f})"
    columns = ["system", "coverage@10", "gini@10", "popularity@10"]
    return title, columns, [[system[name] for name in columns] for system in content["systems"]]


def remarks(content: Content) -> list[str]:
    """Return what must be known to read the tables."""
    said = [f"{content['interactions']:,} interactions from {content['from'][:10]} to {content['to'][:10]}"]
    if first := content["without_history"]:
        said[0] += f"; {first:,} of them ask nothing, since they are their customers' first"
    if content["split"]["kind"] == "last":
        said.append(f"recommend.split = last {content['split']['leaks']}")
    if any(system["system"] == "oracle" for system in content["systems"]):
        said.append("oracle: the true probabilities of this drawn shop, which no recommender can know")
    if found := content["sequential"]:
        said.append(_of_sequential(found))
    return said


def _of_sequential(found: Mapping[str, Any]) -> str:
    best = found["validation"]
    stopped = "without validation" if best is None else f"nDCG@10 {best:.4f} on validation"
    loss = ", loss over sampled listings" if found["sampled"] else ""
    threads = f"{found['threads']} thread" + "s" * (found["threads"] > 1)
    before = ", stored before" if found["before"] else ""
    return f"sequential: epoch {found['best']} of {found['epochs']}, {stopped}{loss}; {threads}{before}"
