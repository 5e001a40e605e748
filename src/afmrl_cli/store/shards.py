"""Shards: one command's work divided over processes, on one machine or many that share the folder.

.afmrl/shards/<command>-<model>-of-<n>/
    0/ ... n-1/     what a process made, in the store's own formats, and shard.json: what it was made from, is it done
    0/lock          held by the process that writes there: the same shard twice is refused

A product belongs to the shard that a hash of its id says, on every machine. Shards share the store's lock among
themselves, so that nothing else writes meanwhile, and read the store without writing to it. `afmrl merge` holds the
lock alone, refuses shards that do not belong together, and removes a group at once when the store has all of it: killed
at any point, it can be run again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..settings import Settings
from .files import TEMPORARY_PREFIX, read_object, write_json
from .folder import CatalogFolder
from .lock import shared_lock, writer_lock
from .source import hash_of, state_of

MANIFEST, DATABASE, VECTORS, COLORS = "shard.json", "afmrl.sqlite", "vectors", "colors"
FORM = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")
NAMED = 5
WAIT_SECONDS = 60.0
"""For a shard that starts first, or another command that is about to end."""
OF_THE_MACHINE = (
    {"path", "fetch_private", "endpoint", "endpoint_model", "concurrency", "retries", "timeout", "batch_size"}
    | {"vectors", "index", "query_instruction"}  # of the merge, and of search
)
"""Settings that may differ from shard to shard."""


@dataclass(frozen=True)
class Shard:
    """A part of the work: that with number `index`, from 0, of `count`."""

    index: int
    count: int

    def takes(self, id: str) -> bool:
        """Tell whether the product (or link) with this id belongs to it."""
        return shard_of(id, self.count) == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def shard_of(id: str, count: int) -> int:
    """Return which of `count` shards takes the product with this id: the same in every process."""
    digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count


def parse_shard(text: str) -> Shard:
    """Read "0/8". UsageError for what is no shard."""
    form = FORM.fullmatch(text.strip())
    if not form or int(form[2]) < 1:
        raise UsageError(
            f"--shard {text[:40]}: not of the form i/n", "for example --shard 0/8, which is the first of 8"
        )
    index, count = int(form[1]), int(form[2])
    if index >= count:
        raise UsageError(
            f"--shard {text}: there is no such shard", f"they count from 0: 0/{count} to {count - 1}/{count}"
        )
    return Shard(index, count)


@dataclass(frozen=True)
class OpenShard:
    """A shard whose work is going on, in `folder`; `result` is what it leaves for the merge to know."""

    shard: Shard
    folder: Path
    result: dict[str, Any] = field(default_factory=dict)

    def takes(self, id: str) -> bool:
        """Tell whether the product with this id belongs to it."""
        return self.shard.takes(id)

    @property
    def database(self) -> Path:
        """Return the path of the attributes and photo hashes that it made."""
        return self.folder / DATABASE

    @property
    def vectors(self) -> Path:
        """Return the folder of the vectors that it made."""
        return self.folder / VECTORS

    @property
    def colors(self) -> Path:
        """Return the folder of the photos' colours that it made."""
        return self.folder / COLORS


def facts_of(folder: CatalogFolder, settings: Settings, *sections: str, **more: Any) -> dict[str, Any]:
    """Return what shards must have in common: the catalog's content, settings and `more`."""
    chosen: dict[str, Any] = {}
    for section in ("catalog", *sections):
        values = settings.value_of(section).model_dump(mode="json")  # type: ignore[attr-defined]
        chosen |= {f"{section}.{key}": value for key, value in values.items() if key not in OF_THE_MACHINE}
    return {"catalog": hash_of(folder.catalog), "settings": chosen | more}


@contextmanager
def open_shard(
    folder: CatalogFolder, command: str, model: str, shard: Shard, facts: dict[str, Any]
) -> Iterator[OpenShard]:
    """Hold the shard's lock and a share of the store's while the block works; it counts as done when that ends.

    Raises DataError when another process works on the same shard, when a command writes to the store, when the shard
    was begun with other settings, and when the catalog changes meanwhile.
    """
    called = f"afmrl {command} --shard {shard}"
    place = _group(folder.store, command, model, shard.count) / str(shard.index)
    before = state_of(folder.catalog)
    with shared_lock(folder.store, called, WAIT_SECONDS), writer_lock(place, called):
        if (place / MANIFEST).is_file() and (other := _difference(read_object(place / MANIFEST), facts, settings=True)):
            raise DataError(f"{place}: was begun with {other}", "remove this folder, or go back to those settings")
        write_json(place / MANIFEST, {**facts, "done": False})
        opened = OpenShard(shard, place)
        yield opened
        if state_of(folder.catalog) != before:
            raise DataError(f"{folder.catalog}: has changed while the shard was made", "run the command again")
        write_json(place / MANIFEST, {**facts, "done": True, "result": opened.result})


@dataclass(frozen=True)
class Group:
    """All shards of one command with one model, complete and of the same catalog and settings."""

    command: str
    place: Path
    folders: list[Path]

    def results(self) -> list[dict[str, Any]]:
        """Return what each shard has left."""
        return [read_object(folder / MANIFEST)["result"] for folder in self.folders]

    def lacks(self, id: str, what: str) -> DataError:
        """Return the error of a product whose shard has not made `what`, though it is done."""
        shard = Shard(shard_of(id, len(self.folders)), len(self.folders))
        hint = f"its photos or attributes have changed since: run `afmrl {self.command} --shard {shard}` again"
        return DataError(f"{self.place}: shard {shard} has no {what} of {id[:100]}", hint)

    def remove(self) -> None:
        """Remove it, all at once."""
        gone = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self.place.parent))
        self.place.rename(gone / self.place.name)
        shutil.rmtree(gone, ignore_errors=True)


def shards_there(folder: CatalogFolder, command: str) -> bool:
    """Tell whether there are shards of a command, whatever they were made with."""
    return bool(_groups(folder.store, command))


def division(folder: CatalogFolder, command: str, model: str) -> int | None:
    """Return into how many shards the work of a command with a model is divided, None where none is there. Raises
    DataError for several divisions.
    """
    return _division(folder, command, model)[1] if _own(folder.store, command, model) else None


def complete_group(folder: CatalogFolder, command: str, model: str, facts: dict[str, Any]) -> Group:
    """Return the shards of `command` with `model`; there are some of the command.

    Raises DataError naming a shard that is missing, not done, or of another catalog, model or other settings than
    `facts` says.
    """
    place, count, others = _division(folder, command, model)
    found = {i: _manifest(place / str(i)) for i in range(count)}
    if lost := [i for i, manifest in found.items() if not manifest.get("done")]:
        named = ", ".join(f"{i}/{count} {'has not ended' if found[i] else 'is missing'}" for i in lost[:NAMED])
        more = ", ..." if len(lost) > NAMED else ""
        hint = f"run `afmrl {command} --shard {lost[0]}/{count}`" + (f"; there is {others[0]}, too" if others else "")
        raise DataError(f"{place}: shard {named}{more}", hint)
    for i, manifest in found.items():
        if other := _difference(manifest, facts):
            again = f"run `afmrl {command} --shard {i}/{count}` again: only what is new costs anything"
            hint = again if other.startswith("another") else "merge with the settings that the shards were made with"
            raise DataError(f"{place}: shard {i}/{count} was made with {other}", hint)
    return Group(command, place, [place / str(i) for i in range(count)])


def _division(folder: CatalogFolder, command: str, model: str) -> tuple[Path, int, list[str]]:
    """Return the folder of the shards, how many they are, and the names of other models' folders."""
    mine = _own(folder.store, command, model)
    others = [place.name for place in sorted(_groups(folder.store, command)) if place not in mine]
    if not mine:
        raise DataError(
            f"{folder.store}: the shards are of {', '.join(others[:NAMED])}, the settings name {model}",
            "merge with the settings that they were made with",
        )
    if len(mine) > 1:
        names = ", ".join(place.name for place in mine[:NAMED])
        raise DataError(f"{folder.store}: shards of several divisions: {names}", "remove all but one of these folders")
    return mine[0], int(mine[0].name.rpartition("-")[2]), others


def _own(store: Path, command: str, model: str) -> list[Path]:
    places = sorted(_groups(store, command))
    return [place for place in places if place == _group(store, command, model, int(place.name.rpartition("-")[2]))]


def _group(store: Path, command: str, model: str, count: int) -> Path:
    return store / "shards" / "-".join(filter(None, (command, model, "of", str(count))))


def _groups(store: Path, command: str) -> list[Path]:
    return [
        place
        for place in (store / "shards").glob(f"{command}-*")
        if place.is_dir() and re.fullmatch(r".*-of-[0-9]{1,5}", place.name)
    ]


def _manifest(folder: Path) -> dict[str, Any]:
    return read_object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}


def _difference(manifest: dict[str, Any], facts: dict[str, Any], *, settings: bool = False) -> str:
    """Say in which way a shard was made of something else than `facts`, or only of other `settings`; "" in none."""
    here, there = facts["settings"], manifest.get("settings")
    if not isinstance(there, dict):
        return "other settings"
    if keys := [key for key in {**here, **there} if here.get(key) != there.get(key)]:
        key = keys[0]
        return f"other settings: {key} = {there.get(key)!r:.60}, here {here.get(key)!r:.60}"
    return "another content of the catalog" if not settings and manifest.get("catalog") != facts["catalog"] else ""
