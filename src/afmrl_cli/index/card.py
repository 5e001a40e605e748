"""What an index holds and what it was made from, kept in the index itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelError
from ..store.files import hash_json
from .points import Key

FAMILY = "afmrl.index/"
SCHEMA = f"{FAMILY}1"
"""Of what is stored: another number, and a push makes it anew."""
PUSH_HINT = "run `afmrl index push`"


class Unreadable(ModelError):
    """What says of an index what it holds is damaged, missing, or of another version of afmrl: a push makes it anew."""


@dataclass(frozen=True)
class Card:
    """The card of an index. `vectors` is the name of their folder in the store, which says embedder, instruction and
    way of enriching; `data` tells these vectors from others (`vectors.content_of`), `state` is all that the points
    depend on. Not `complete`: a push has begun and not ended. `recall` is recall@10 against exact search at `effort`,
    with its interval, over `queries` stored vectors.
    """

    embedder: str
    vectors: str
    dimension: int
    count: int = 0
    data: str = ""
    state: str = ""
    complete: bool = False
    effort: int = 0
    recall: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    queries: int = 0
    keys: dict[str, Key] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Return the name of the collection for such vectors: others get another one."""
        return version_of(self.vectors, self.dimension)

    def describe(self) -> dict[str, Any]:
        """Return the card as JSON."""
        keys = {name: {"cells": key.cells, "examples": key.examples} for name, key in self.keys.items()}
        whole = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("keys", "interval")}
        return {"schema": SCHEMA, **whole, "interval": list(self.interval), "keys": keys}


def version_of(vectors: str, dimension: int) -> str:
    """Return the name of the collection for vectors of this name and dimension."""
    return hash_json([SCHEMA, vectors, dimension])[:12]


def read_card(content: Mapping[str, Any], shown: str) -> Card:
    """Read what `describe` has written. Unreadable where it is damaged or of an older or later afmrl, ModelError where
    it is none of ours.
    """
    schema = content.get("schema")
    if schema != SCHEMA:
        if isinstance(schema, str) and schema.startswith(FAMILY):
            raise Unreadable(f"{shown}: the index is of the form {schema[:40]}, this afmrl reads {SCHEMA}", PUSH_HINT)
        raise ModelError(f"{shown}: was not made by afmrl", "give another place")
    try:
        keys = {
            str(name): Key([str(cell) for cell in key["cells"]], {str(u): str(c) for u, c in key["examples"].items()})
            for name, key in content["keys"].items()
        }
        low, high = map(float, content["interval"])
        return Card(
            embedder=str(content["embedder"]),
            vectors=str(content["vectors"]),
            dimension=int(content["dimension"]),
            count=int(content["count"]),
            data=str(content["data"]),
            state=str(content["state"]),
            effort=int(content["effort"]),
            queries=int(content["queries"]),
            complete=content["complete"] is True,
            recall=float(content["recall"]),
            interval=(low, high),
            keys=keys,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"{shown}: the card of the index is damaged: {error!r}"[:300], PUSH_HINT) from error
