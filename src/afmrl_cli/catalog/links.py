"""Where the photo of a link lies once `afmrl fetch-images` has fetched it: `.afmrl/images/`, by the link's hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..store.folder import STORE_NAME

FOLDER = "images"
SCHEMES = ("http://", "https://")


def full_link(cell: str) -> str:
    """Return the link in `cell`, one without a scheme (`//cdn...`) as https; "" when it is none of http or https."""
    link = f"https:{cell}" if cell.startswith("//") else cell
    return link if link.lower().startswith(SCHEMES) else ""


def place_of(root: Path, link: str) -> Path:
    """Return the file that holds what `link` led to; it may not be there. `root` is the catalog's folder."""
    digest = hashlib.sha256(link.encode("utf-8", "surrogatepass")).hexdigest()
    return root / STORE_NAME / FOLDER / digest[:2] / digest
