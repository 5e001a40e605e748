"""`recall@10=0.7`: metrics that must be reached (`--fail-under`), and how far they may fall (`--max-drop`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from .compare import Difference
from .metrics import check_metric


def parse_thresholds(
    written: Sequence[str],
    flag: str = "--fail-under",
    check: Callable[[str], str] = check_metric,
    example: str = "recall@10=0.7",
) -> dict[str, float]:
    """Parse thresholds: `["recall@10=0.7"]` -> {"recall@10": 0.7}; UsageError for a metric that `check` refuses or a
    number not between 0 and 1.
    """
    thresholds: dict[str, float] = {}
    hint = f"for example {example}"
    for pair in written:
        name, equals, number = pair.partition("=")
        if not equals:
            raise UsageError(f"{flag} {pair}: not of the form METRIC=X", hint)
        try:
            threshold = float(number)
        except ValueError:
            raise UsageError(f"{flag} {pair}: {number!r} is no number", hint) from None
        if not 0 <= threshold <= 1:
            raise UsageError(f"{flag} {pair}: {number} is not between 0 and 1", hint)
        thresholds[check(name.strip().lower())] = threshold
    return thresholds


def check_cuts(names: Sequence[str], checked: Sequence[str], gallery: int, depth: int) -> list[str]:
    """Return notes on cuts above the gallery, where every system is right; UsageError when a check goes by such a cut,
    when no cut is left, or when a cut is above the `depth` that is ranked: recall@2000 would be recall@1000.
    """
    cuts = {name: int(name.partition("@")[2]) for name in names if "@" in name}
    if deeper := [name for name, cut in cuts.items() if min(cut, gallery) > depth]:
        needed = max(min(cuts[name], gallery) for name in deeper)
        raise UsageError(
            f"{deeper[0]}: only eval.depth = {depth:,} products are ranked", f"set eval.depth to {needed} or more"
        )
    beyond = [name for name in names if cuts.get(name, 0) > gallery]
    if vacuous := [name for name in beyond if name in checked and not name.startswith("ndcg")]:
        raise UsageError(
            f"{vacuous[0]} over a gallery of {gallery:,}: whatever is ranked, nothing is missed", "choose a lower cut"
        )
    recalls = [name for name in names if name.startswith("recall@")]
    if recalls and all(name in beyond for name in recalls):
        raise UsageError(f"eval.ks: every cut is above the gallery of {gallery:,}", "choose a lower one")
    seen = [name for name in beyond if name.startswith(("recall", "hit"))]
    return [f"{', '.join(seen)}: above the gallery of {gallery:,}, every full ranking reaches 1"] if seen else []


def floor_checks(
    thresholds: Mapping[str, float], means: Mapping[str, float], possible: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return what `--fail-under` says of the embedder's `means`; the best `possible` ones stand beside it where
    they are below 1.
    """
    checks = []
    for name, least in thresholds.items():
        passed = means[name] >= least
        most = f" of at most {possible[name]:.4f}" if possible[name] < 0.99995 else ""
        words = f"{name} is {means[name]:.4f}{most}, {'not below' if passed else 'below'} {least:g}"
        checks.append(_check("fail_under", name, least, means[name], passed, words))
    return checks


def drop_checks(
    drops: Mapping[str, float], differences: Sequence[Difference], against: str, confidence: float
) -> list[dict[str, Any]]:
    """Return what `--max-drop` says; the threshold counts, and whether luck can explain the drop stands beside it."""
    by_name = {difference.metric: difference for difference in differences}
    checks = []
    for name, most in drops.items():
        found = by_name[name]
        passed = found.difference >= -most - 1e-12
        words = f"{name} is {found.value:.4f}, {found.difference:+.4f} against {against}; at most -{most:g} is allowed"
        if not passed and found.verdict != "worse":
            words += f" (at the {1 - confidence:.2g} level this drop may be luck: p = {found.p:.3g})"
        checks.append(_check("max_drop", name, most, found.difference, passed, words))
    return checks


def _check(kind: str, metric: str, threshold: float, value: float, passed: bool, message: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "metric": metric,
        "threshold": threshold,
        "value": value,
        "passed": passed,
        "message": message,
    }
