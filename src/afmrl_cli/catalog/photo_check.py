"""Every photo of a catalog opened once, several at a time, and photos that many different products share found.

A placeholder ("no photo yet") or a chart of sizes says nothing of a product and makes products look alike that are not.
Variants of one style share photos rightly, so products count by `group_id`, else by title, else by identity.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ..settings import CatalogSettings
from .fingerprints import photo_hash
from .images import ImageProblem, check_image
from .problems import Problem, Problems
from .product import Product

SHARED_BY = 5
"""Different products that make a photo one that is reported."""
AT_ONCE = 8
AHEAD = 64
MOST_KEYS = 10_000


Checked = tuple[int, str] | ImageProblem
"""What is known of a photo that was opened: (its content, what was mended), or why it can't be."""


@dataclass
class _Sighting:
    path: Path
    row: int
    listing: str
    products: set[int] = field(default_factory=set)


SIZES = {"xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl", "2xl", "3xl", "4xl", "5xl", "one", "size"}


def _style(product: Product) -> str:
    """Return the title without sizes and the product's own attributes: what variants of a colour have in common."""
    own = {word for value in product.given.values() for word in value.casefold().split()}
    words = product.title.casefold().replace("-", " ").replace("/", " ").split()
    kept = [word for word in words if word not in own and word not in SIZES]
    return " ".join(kept)


class PhotoCheck:
    """Checks photos as products come by; a context manager, whose end waits for the last ones. Photos that are `known`,
    by path, are not opened; `keep` is called for each that is.
    """

    def __init__(
        self,
        settings: CatalogSettings,
        problems: Problems,
        *,
        open_photos: bool,
        known: Mapping[str, Checked] | None = None,
        keep: Callable[[Path, Checked], None] | None = None,
    ) -> None:
        self._settings, self._problems, self._open = settings, problems, open_photos
        # Pillow decodes outside of Python's lock. The largest photo allowed takes 200 MB while it is open.
        self._pool = ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1))
        self._waiting: deque[tuple[Product, Path]] = deque()
        self._checks: dict[str, Future[Checked]] = {}
        self._checked: dict[str, Checked] = dict(known or {})
        self._keep = keep
        self._first: dict[int, int] = {}  # photo -> the one product that has been seen with it
        self._again: dict[int, _Sighting] = {}

    def __enter__(self) -> PhotoCheck:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            while self._waiting:
                self._finish()
            self._report_shared()
        self._pool.shutdown(cancel_futures=True)

    def add(self, product: Product) -> None:
        """Check the photos of `product`; what is wrong with them is reported in the catalog's order."""
        for path in product.images:
            if self._open:
                name = str(path)
                if name not in self._checked and name not in self._checks:  # each file is decoded once
                    self._checks[name] = self._pool.submit(self._check, path)
                self._waiting.append((product, path))
                if len(self._waiting) > AHEAD:
                    self._finish()
            else:
                self._sight(hash(str(path)), product, path)

    def _check(self, path: Path) -> Checked:
        try:
            note = check_image(path, self._settings).note
            return int(photo_hash(path)[:16], 16), note
        except ImageProblem as problem:
            return problem
        except OSError as error:
            return ImageProblem(path, error.strerror or str(error))

    def _finish(self) -> None:
        product, path = self._waiting.popleft()
        name = str(path)
        if name not in self._checked:
            self._checked[name] = self._checks.pop(name).result()
            if self._keep is not None:
                self._keep(path, self._checked[name])
        result = self._checked[name]
        if isinstance(result, ImageProblem):
            message = f"{path.name}: {result.reason}"
            self._problems.add(Problem("unreadable image", product.row, message, listing=product.id))
        else:
            photo, note = result
            if note:
                self._problems.add(Problem("mended image", product.row, f"{path.name}: {note}", listing=product.id))
            self._sight(photo, product, path)

    def _sight(self, photo: int, product: Product, path: Path) -> None:
        key = hash(product.group_id or _style(product) or product.identity)
        if photo in self._again:
            if len(self._again[photo].products) < MOST_KEYS:
                self._again[photo].products.add(key)
        elif (first := self._first.setdefault(photo, key)) != key:
            self._again[photo] = _Sighting(path, product.row, product.id, {first, key})

    def _report_shared(self) -> None:
        shared = [sighting for sighting in self._again.values() if len(sighting.products) >= SHARED_BY]
        for sighting in sorted(shared, key=lambda sighting: -len(sighting.products)):
            count = f"{len(sighting.products):,}" + (" or more" if len(sighting.products) >= MOST_KEYS else "")
            message = f"{sighting.path.name}: {count} different products have this photo"
            self._problems.add(Problem("shared photo", sighting.row, message, listing=sighting.listing))
