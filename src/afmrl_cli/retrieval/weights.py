"""How much each part of a hybrid search counts, by what asks: tuned on validation queries, else the same everywhere.

    <vectors of an embedder>/hybrid.json     {"weights": {"text": {"vectors": 0.4, ...}}, "tuned": {"text": {...}}, ...}

The file lies beside the vectors, whose folder is named by the embedder, in the catalog's own store: weights of another
embedder or catalog are never taken. A kind of query that was not tuned has the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from ..catalog.rendered import is_rendered
from ..models.presets import base_name
from ..settings import BUILT_IN
from ..store.files import read_object, reading, write_json
from ..workspace import Workspace
from .hybrid import KINDS, PARTS, Kind, Part, Weights

SCHEMA = "afmrl.hybrid/1"
FILE = "hybrid.json"
DEFAULTS: Mapping[Kind, Weights] = {
    "text": {"vectors": 0.6, "words": 0.3, "attributes": 0.1},
    "photo": {"vectors": 0.8, "colors": 0.2},
    "both": {"vectors": 0.6, "words": 0.3, "colors": 0.1},
    "listing": {"vectors": 0.6, "words": 0.3, "colors": 0.1},
}
NANO_IN_DRAWN_SHOPS: Mapping[Kind, Weights] = {
    "text": {"vectors": 0.4, "words": 0.1, "attributes": 0.5},
    "photo": {"vectors": 1.0},
    "both": {"vectors": 0.8, "words": 0.2},
    "listing": {"vectors": 0.8, "words": 0.2},
}
"""Of the built-in model in a drawn shop, where colours tell variants alone apart, and it sees more."""
NANO_ELSEWHERE: Mapping[Kind, Weights] = {
    "text": {"vectors": 0.1, "words": 0.7, "attributes": 0.2},
    "photo": {"vectors": 0.1, "colors": 0.9},
    "both": {"vectors": 0.1, "words": 0.5, "colors": 0.4},
    "listing": {"vectors": 0.1, "words": 0.7, "colors": 0.2},
}
"""Of the built-in model anywhere else: it has seen drawn clothes alone."""


def default_weights(work: Workspace) -> Mapping[Kind, Weights]:
    """Return the weights of the settings' embedder where none were tuned."""
    settings = work.settings
    if settings.embed.endpoint or settings.model.vision_checkpoint:
        return DEFAULTS
    if base_name(settings.model, "embedder") != BUILT_IN:
        return DEFAULTS
    return NANO_ELSEWHERE if is_rendered(work.folder, settings) is False else NANO_IN_DRAWN_SHOPS


@dataclass(frozen=True)
class Tuned:
    """By what weights were chosen: so many `queries` about so many `products`, of `source`; the mean of `metric` that
    they reach there.
    """

    queries: int
    products: int
    source: str
    metric: str
    value: float


@dataclass(frozen=True)
class HybridWeights:
    """The weights by what asks; `tuned` says which of them were chosen, and by what."""

    by_kind: Mapping[Kind, Weights]
    tuned: Mapping[Kind, Tuned] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    """What they were chosen from."""

    def of(self, kind: Kind) -> Weights:
        """Return the weights for what asks."""
        return self.by_kind[kind]

    def words(self, kind: Kind) -> str:
        """Say in words by what the weights of `kind` were chosen."""
        found = self.tuned.get(kind)
        if found is None:
            return "defaults"
        return f"tuned on {found.queries:,} validation queries"


def write_weights(place: Path, weights: HybridWeights) -> None:
    """Keep the weights that were tuned beside the vectors in `place`, atomically."""
    content = {
        "schema": SCHEMA,
        "weights": {kind: dict(weights.by_kind[kind]) for kind in weights.tuned},
        "tuned": {kind: asdict(each) for kind, each in weights.tuned.items()},
        "state": dict(weights.state),
    }
    write_json(place / FILE, content)


def read_weights(place: Path, defaults: Mapping[Kind, Weights]) -> HybridWeights:
    """Return the weights beside the vectors in `place`; `defaults` for what was not tuned. DataError for a damaged
    file.
    """
    file = place / FILE
    if not file.is_file():
        return HybridWeights(defaults)
    content = read_object(file)
    with reading(file):
        if content.get("schema") != SCHEMA:
            raise ValueError("not the weights of this afmrl")
        tuned = {kind: _tuned(content["tuned"][kind]) for kind in KINDS if kind in content["tuned"]}
        by_kind = {kind: _weights(content["weights"][kind]) for kind in tuned}
        return HybridWeights({**defaults, **by_kind}, tuned, dict(content["state"]))


def _weights(content: Mapping[str, Any]) -> Weights:
    if not content or not all(
        name in PARTS and isinstance(weight, int | float) and 0 <= weight <= 1 for name, weight in content.items()
    ):
        raise ValueError("no weights between 0 and 1")
    return {cast(Part, name): float(weight) for name, weight in content.items()}


def _tuned(content: Mapping[str, Any]) -> Tuned:
    return Tuned(
        int(content["queries"]),
        int(content["products"]),
        str(content["source"]),
        str(content["metric"]),
        float(content["value"]),
    )
