"""Where an index is: a folder, or a server's address.

with open_engine("/srv/index", "afmrl search", root) as engine: ...               Qdrant in this process
with open_engine("http://127.0.0.1:6333", "afmrl search", root) as engine: ...    a Qdrant server
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError
from .engine import Engine

INSTALL = "python -m pip install 'afmrl-cli[qdrant]'"
SCHEMES = ("http://", "https://")


def is_address(place: str) -> bool:
    """Tell whether `place` is a server's address, not a folder's."""
    return place.lower().startswith(SCHEMES)


@contextlib.contextmanager
def open_engine(place: str, command: str, root: Path) -> Iterator[Engine]:
    """Open the index at `place`, a folder or a server's address, for the catalog in `root`; a folder is this process's
    alone until the block ends. UsageError where the extra is not installed, or `place` can't be an index.
    """
    needed = "qdrant_client" if is_address(place) else "qdrant_edge"
    if find_spec(needed) is None:
        raise UsageError(f"{command}: needs {needed}, which is not installed", INSTALL)
    if is_address(place):
        from .server import open_server

        with open_server(place, root) as server:
            yield server
    else:
        from .edge import open_folder

        with open_folder(Path(place), command, root) as folder:
            yield folder
