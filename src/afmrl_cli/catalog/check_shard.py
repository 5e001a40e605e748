"""A shard of the check: `afmrl check --shard i/n` opens the photos of its products, which takes longest, and keeps what
it found of each; `afmrl merge` then checks the catalog without opening them again.

What was found stands in photos.jsonl, a line a photo: [path, size, change time, content, what was mended], or of one
that can't be opened [path, size, change time, null, why].
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..listener import Listener
from ..settings import Settings
from ..store.files import parse_json, writing
from ..store.folder import CatalogFolder
from ..store.shards import Group, Shard, complete_group, facts_of, open_shard, shards_there
from .images import ImageProblem
from .photo_check import Checked, PhotoCheck
from .problems import Problems
from .read import count_rows, read_products

COMMAND, FOUND = "check", "photos.jsonl"
TELL_EVERY = 500


@dataclass(frozen=True)
class CheckedShard:
    """Of a shard: its `products`, how many photos were `opened` now, and how many of all of them are `unreadable`."""

    products: int
    opened: int
    unreadable: int


def check_shard(folder: CatalogFolder, settings: Settings, shard: Shard, listener: Listener) -> CheckedShard:
    """Open the photos of the shard's products, but those that it has opened before. Raises as `open_shard` does, and
    DataError for a catalog that can't be read.
    """
    catalog = settings.catalog.model_copy(update={"bad_rows": "skip", "bad_images": "skip"})
    problems, products, opened = Problems(), 0, 0
    total = count_rows(folder, catalog)
    with open_shard(folder, COMMAND, "", shard, facts_of(folder, settings)) as part:
        file = part.folder / FOUND
        known = dict(_read(file, folder.root))
        with writing(file) as temporary:  # without what is stale, and half a line of one that was killed
            temporary.write_text(
                "".join(_line(Path(path), found, folder.root) for path, found in known.items()), "utf-8"
            )
        with file.open("a", encoding="utf-8") as out:

            def keep(path: Path, found: Checked) -> None:
                """Write down what was found of a photo."""
                nonlocal opened
                opened += 1
                out.write(_line(path, found, folder.root))
                out.flush()

            with PhotoCheck(catalog, problems, open_photos=True, known=known, keep=keep) as photos:
                for product in read_products(folder, catalog, Problems()):
                    if not shard.takes(product.id):
                        continue
                    products += 1
                    photos.add(product)
                    if products % TELL_EVERY == 0:
                        listener.progress("reading", products, total // shard.count)
    return CheckedShard(products, opened, problems.counts.get("unreadable image", 0))


def check_group(folder: CatalogFolder, settings: Settings) -> Group | None:
    """Return the complete shards of the check, None where there are none. Raises as `complete_group` does."""
    if not shards_there(folder, COMMAND):
        return None
    return complete_group(folder, COMMAND, "", facts_of(folder, settings))


def checked_photos(folder: CatalogFolder, group: Group) -> dict[str, Checked]:
    """Return what the shards have found, by path, but of photos that have changed since."""
    return {path: found for part in group.folders for path, found in _read(part / FOUND, folder.root)}


def _line(path: Path, found: Checked, root: Path) -> str:
    name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    seen = [None, found.reason] if isinstance(found, ImageProblem) else list(found)
    return json.dumps([name, *_state(path), *seen]) + "\n"


def _state(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _read(file: Path, root: Path) -> Iterator[tuple[str, Checked]]:
    """Yield what a file says of photos that are as they were; damaged lines count as none."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                name, size, changed, content, said = parse_json(line)
                path = root / str(name)
                found = ImageProblem(path, str(said)) if content is None else (int(content), str(said))
            except (ValueError, TypeError):
                continue
            if [size, changed] == _state(path):
                yield str(path), found
