"""Search results as one HTML file that needs no network: pictures inside, text escaped, fit for phone and print."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.images import ImageProblem, open_image
from ..catalog.pictures import opened
from ..settings import CatalogSettings
from ..store.files import writing
from ..workspace import Workspace
from .search import Found

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE = 320


def thumbnail(image: Image) -> str:
    """Return a small JPEG of an RGB photo as a data URI."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class Pictures:
    """Thumbnails of photos, each made once."""

    def __init__(self, settings: CatalogSettings) -> None:
        self._settings = settings
        self._made: dict[Path, str] = {}

    def of(self, paths: Sequence[Path]) -> str:
        """Return the first of `paths` that can be opened, "" for none: the page then says so in its place."""
        for path in paths:
            if path not in self._made:
                try:
                    self._made[path] = thumbnail(open_image(path, self._settings))
                except ImageProblem:
                    self._made[path] = ""
            if self._made[path]:
                return self._made[path]
        return ""


def render(template: str, **content: Any) -> str:
    """Return the page `pages/<template>` with `content`; every text is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    pages = files("afmrl_cli") / "pages"
    load = FunctionLoader(lambda name: (pages / name).read_text("utf-8"))
    environment = Environment(loader=load, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(**content)


def write_search_page(file: Path, found: Found, work: Workspace) -> None:
    """Write the results of a search to `file`, atomically."""
    small, query, liked = Pictures(work.settings.catalog), found.query, found.liked
    photos = [thumbnail(opened(image)) for image in query.images if not isinstance(image, Path)]
    shown = [{"hit": hit, "picture": small.of(hit.images)} for hit in found.hits]
    page = render(
        "search.html",
        query=query,
        pictures=photos or ([small.of(liked.images)] if liked else []),
        liked=liked,
        hits=shown,
        filters=found.filters,
        without=found.without,
        weights=found.weights,
        tuned=found.tuned,
        change=found.change,
        catalog=work.folder.catalog.name,
        embedder=work.embedder_id,
    )
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")
