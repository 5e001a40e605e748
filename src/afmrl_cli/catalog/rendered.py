"""Is a catalog one of this package's drawn example shops? The built-in model has seen nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path

from ..errors import AfmrlError
from ..settings import BUILT_IN, Settings
from ..store.checkpoints import Role, base_role
from ..store.folder import CatalogFolder
from .problems import Problems
from .read import read_products

COMMENT = b"drawn by afmrl"
"""In the header of every photo that `nano.shop` writes."""
PRODUCTS, PHOTOS, HEADER_BYTES = 20, 9, 1024


def built_in_warning(folder: CatalogFolder, settings: Settings, roles: tuple[Role, ...]) -> str:
    """Return a line to show where the built-in model is to work as one of `roles` on other photos than drawn ones; else
    "".
    """
    model = settings.model
    served = {"generator": settings.attributes.endpoint, "embedder": settings.embed.endpoint}
    local = [role for role in roles if not served.get(role)]
    built_in = any((getattr(model, base_role(role)) or model.preset) == BUILT_IN for role in local)
    if not built_in or is_rendered(folder, settings) is not False:
        return ""
    return (
        f"the built-in model ({BUILT_IN}) has only seen drawn clothes and is of little use on this catalog: leave "
        'model.preset = "auto", or see `afmrl doctor` for what fits this machine'
    )


def is_rendered(folder: CatalogFolder, settings: Settings) -> bool | None:
    """Tell whether most of the first photos that there are were drawn by `nano.shop`.

    None where the catalog can't be read: the command says itself what is wrong with it.
    """
    try:
        products = itertools.islice(read_products(folder, settings.catalog, Problems()), PRODUCTS)
        there = (path for product in products for path in product.images if path.is_file())
        drawn = [_is_drawn(path) for path in itertools.islice(there, PHOTOS)]
    except (AfmrlError, OSError):
        return None
    return 2 * sum(drawn) > len(drawn)


def _is_drawn(photo: Path) -> bool:
    with photo.open("rb") as file:
        return COMMENT in file.read(HEADER_BYTES)
