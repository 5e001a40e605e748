"""Small shops on disk for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from afmrl_cli.catalog.problems import Kind, Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.read import read_products
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def photo(path: Path, color: object = "red", size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)  # type: ignore[arg-type]
    return path


def read(path: Path, **settings: object) -> tuple[list[Product], Problems]:
    problems = Problems()
    chosen = CatalogSettings.model_validate(settings)
    return list(read_products(CatalogFolder(path), chosen, problems)), problems


def found(problems: Problems) -> list[tuple[Kind, int]]:
    """(kind, row) of all problems, by row."""
    rows = [(kind, problem.row) for kind in problems.counts for problem in problems.first(kind)]
    return sorted(rows, key=lambda pair: pair[1])
