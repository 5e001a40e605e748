"""A shard of the attribute texts: `afmrl attributes --shard i/n` writes them into a database of its own, which lies
over the store's; `afmrl merge` takes over the rows of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..store.shards import DATABASE, Group, Shard, complete_group, facts_of, open_shard, shards_there
from ..workspace import Workspace

COMMAND = "attributes"


@contextmanager
def in_shard(work: Workspace, shard: Shard) -> Iterator[Workspace]:
    """Yield the workspace of a shard of the attribute texts, while the shard is open. Raises as `open_shard` does."""
    with open_shard(work.folder, COMMAND, work.generator_id, shard, _facts(work)) as opened:
        yield work.in_shard(opened)


def attribute_group(work: Workspace) -> Group | None:
    """Return the complete shards of the settings' generator, None where there are no shards of attributes. Raises as
    `complete_group` does.
    """
    if not shards_there(work.folder, COMMAND):
        return None
    return complete_group(work.folder, COMMAND, work.generator_id, _facts(work))


def join_attributes(work: Workspace, group: Group) -> int:
    """Take what the shards have written over into the store's database, in one transaction; returns how many texts."""
    with work.database() as database:
        return database.join([folder / DATABASE for folder in group.folders])


def _facts(work: Workspace) -> dict[str, Any]:
    return facts_of(work.folder, work.settings, "attributes", task=work.task.id)
